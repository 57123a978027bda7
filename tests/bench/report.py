"""The table: in a terminal (rich where it is there), as Markdown, as JSON."""

from __future__ import annotations

import sys
from typing import Any

from .rows import Row

__all__ = ["markdown", "show"]


def number(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def value_of(row: Row) -> str:
    if row.value is None:
        return "-"
    return number(row.value) if row.unit == "x" else f"{number(row.value)} {row.unit}"


def target_of(row: Row) -> str:
    if row.target is None:
        return ""
    word = "at least" if row.at_least else "at most"
    unit = "" if row.unit == "x" else f" {row.unit}"
    return f"{word} {row.target:g}{unit}"


def reached_of(row: Row) -> str:
    return {None: "", True: "yes", False: "NO"}[row.reached]


def note_of(row: Row) -> str:
    """What is only information: times of this machine, memory, the floor."""
    if row.missing is not None:
        return row.missing
    info = row.info
    parts = []
    if "ns" in info:
        parts.append(f"{info['ns']:,.0f} ns / {info['reference_ns']:,.0f} ns")
    if "per_second" in info:
        parts.append(f"{info['per_second']:,}/s / {info['reference_per_second']:,}/s")
    if "p50_us" in info:
        parts.append(
            f"p50 {info['p50_us']:,.0f} µs, p99 {info['p99_us']:,.0f} µs / "
            f"{info['reference_p50_us']:,.0f} µs, {info['reference_p99_us']:,.0f} µs"
        )
    if "usage_bytes" in info:
        parts.append(f"{info['keys']:,} keys; MEMORY USAGE {info['usage_bytes']:,.0f}")
    if "checks_a_read" in info:
        parts.append(
            f"{info['checks_a_read']} checks a read, {info['checks_a_command']} a command; "
            f"{info['rate']:,}/s"
        )
    if "server_us" in info:
        parts.append(
            f"{info['server_us']} µs / {info['reference_server_us']} µs of the server a message"
        )
    if "reading_us" in info:
        parts.append(f"{info['reading_us']:,.0f} µs a reading")
    if "of_plain" in info:
        parts.append(f"{info['of_plain']:.2f} of redis-benchmark of reference.lua")
    if "client_us" in info:
        parts.append(f"{info['client_us']:.2f} µs of the process")
    if "trouble" in info:
        parts.append(info["trouble"])
    if "bytes_a_key" in info:
        parts.append(f"{info['bytes_a_key']:.0f} bytes a key")
    if "table_bytes" in info:
        parts.append(
            f"at {info['at']:,} keys; mean {info['mean']}; own account {info['table_bytes']}"
        )
    if "p50_ns" in info:
        parts.append(
            f"median {info['p50_ns']:.0f} ns, the longest {info['max_us']:.0f} µs; "
            f"the machine's interrupts alone {info['floor_p99_99_us']:.1f} µs, "
            f"the inserts without them {info['net_p99_99_us']:.1f} µs"
        )
    if "spread_ms" in info:
        parts.append(f"{info['spread_ms'][0]} to {info['spread_ms'][1]} ms")
    return "; ".join(parts)


def cells(row: Row) -> tuple[str, ...]:
    return (row.what, value_of(row), target_of(row), reached_of(row), note_of(row))


STYLES = {None: "", True: "green", False: "red"}
HEADS = ("what", "value", "target", "reached", "for information")


def grouped(rows: list[Row], titles: dict[str, str]) -> list[tuple[str, list[Row]]]:
    """By topic, in the order measured; ours before peers, peers from the fastest."""
    found = []
    for topic in dict.fromkeys(row.topic for row in rows):
        ours = [row for row in rows if row.topic == topic and not row.peer]
        peers = [row for row in rows if row.topic == topic and row.peer]
        peers.sort(
            key=lambda row: (
                row.value is None,
                (row.value or 0.0) * (-1 if row.at_least else 1),
            )
        )
        title = titles.get(topic, topic)
        for ratios, words in ((True, "ratio to"), (False, "beside")):
            references = {
                row.reference
                for row in ours + peers
                if row.reference and (row.unit == "x") is ratios
            }
            if references:
                title += f" ({words} `{', '.join(sorted(references))}`)"
        found.append((title, ours + peers))
    return found


def show(machine: dict[str, Any], rows: list[Row], titles: dict[str, str]) -> None:
    try:
        from rich.console import Console
    except ImportError:
        plain(machine, rows, titles)
        return
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    console.print(about(machine), style="dim")
    for title, group in grouped(rows, titles):
        table = Table(
            title=escape(title.replace("`", "")), title_justify="left", title_style="bold"
        )
        for head in HEADS:
            right = head == "value"
            table.add_column(head, justify="right" if right else "left", no_wrap=right)
        for row in group:
            style = "dim" if row.peer else STYLES[row.reached]
            table.add_row(*map(escape, cells(row)), style=style)
        console.print(table)


def plain(machine: dict[str, Any], rows: list[Row], titles: dict[str, str]) -> None:
    sys.stdout.write(about(machine) + "\n")
    for title, group in grouped(rows, titles):
        table = [HEADS, *(cells(row) for row in group)]
        widths = [max(len(line[i]) for line in table) for i in range(len(HEADS))]
        sys.stdout.write(f"\n{title.replace('`', '')}\n")
        for line in table:
            text = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
            sys.stdout.write(text.rstrip() + "\n")


def about(machine: dict[str, Any]) -> str:
    build = "" if machine["python_optimised"] else " (built without profile-guided optimisation)"
    return (
        f"{machine['python']}{build}, {machine['processor']}, {machine['cores']} cores, "
        f"{machine['system']}" + (f", Redis {machine['redis']}" if machine.get("redis") else "")
    )


def markdown(machine: dict[str, Any], rows: list[Row], titles: dict[str, str]) -> str:
    lines = [f"{about(machine)}. Nanoseconds are of this machine; only ratios are claims.", ""]
    for title, group in grouped(rows, titles):
        lines += [f"**{title}**", "", "| " + " | ".join(HEADS) + " |", "|---|---:|---|---|---|"]
        for row in group:
            mark = f"*{row.what}*" if row.peer else row.what
            lines.append("| " + " | ".join((mark, *cells(row)[1:])) + " |")
        lines.append("")
    peers = ", ".join(f"{name} {version}" for name, version in machine["peers"].items() if version)
    if peers:
        lines.append(f"Peers, in italics: {peers}.")
    return "\n".join(lines) + "\n"
