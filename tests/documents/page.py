"""The programs of a page that was saved as text: headings end in ¶, and code has lost what
marked it, its blank lines and its indentation.

Indentation is put back by four rules, which hold for how such pages are written:

1. A statement that ends in a colon opens a block.
2. `return`, `raise`, `continue`, `break` and `pass` end the block that they stand in.
3. A comment on a line of its own begins a paragraph, at the level of the function's body:
   it ends the blocks inside it. One right after a colon belongs to what the colon opened.
4. Within brackets and triple quotes a line is left alone.

What is not one program by these rules is not Python.
"""

from __future__ import annotations

import ast
import io
import keyword
import tokenize
from collections.abc import Iterator

__all__ = ["indented", "programs", "sections"]

_ENDS = {"return", "raise", "continue", "break", "pass"}


def sections(text: str) -> dict[str, list[str]]:
    """The lines under each heading, by the heading."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if line.endswith("¶"):
            lines = found.setdefault(line[:-1], [])
        else:
            lines.append(line)
    return found


def programs(text: str) -> dict[str, str]:
    """The Python of each section that has some."""
    found = {}
    for heading, lines in sections(text).items():
        code = block(lines)
        if code:
            try:
                program = indented(code)
                ast.parse(program)
            except (SyntaxError, tokenize.TokenError):
                continue
            found[heading] = program
    return found


def block(lines: list[str]) -> list[str]:
    """The lines, without a first one that introduces them in words."""
    if lines and lines[0].endswith(":"):
        words = lines[0].split()
        if not any(keyword.iskeyword(word) for word in words[:1]):
            return lines[1:]
    return lines


def indented(lines: list[str]) -> str:
    """The program that these lines were; SyntaxError or TokenError if it was none."""
    program = list(lines)
    opened: list[bool] = []  # for each block around: whether a function's or class's
    after_colon = False
    for first, tokens in statements(lines):
        if tokens[0].type == tokenize.COMMENT:
            if not after_colon:
                while opened and not opened[-1]:
                    opened.pop()
            program[first] = "    " * len(opened) + lines[first]
            continue
        program[first] = "    " * len(opened) + lines[first]
        words = [token.string for token in tokens if token.type != tokenize.COMMENT]
        after_colon = words[-1] == ":"
        if after_colon:
            opened.append(words[0] in ("def", "class") or words[:2] == ["async", "def"])
        elif words[0] in _ENDS and opened:
            opened.pop()
    return "\n".join(program) + "\n"


def statements(lines: list[str]) -> Iterator[tuple[int, list[tokenize.TokenInfo]]]:
    """Each statement, and each comment on a line of its own: its first line, its tokens."""
    tokens: list[tokenize.TokenInfo] = []
    for token in tokenize.generate_tokens(io.StringIO("\n".join(lines) + "\n").readline):
        if token.type in (tokenize.NEWLINE, tokenize.NL):
            # within brackets a line may end, or be a comment, without ending the statement
            alone = len(tokens) == 1 and tokens[0].type == tokenize.COMMENT
            if tokens and (token.type == tokenize.NEWLINE or alone):
                yield tokens[0].start[0] - 1, tokens
                tokens = []
        elif token.type not in (tokenize.ENDMARKER, tokenize.INDENT, tokenize.DEDENT):
            tokens.append(token)
