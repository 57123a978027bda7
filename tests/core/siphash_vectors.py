"""Writes siphash_vectors.h: SipHash-1-3-128 of many lengths, by an implementation of its own.

It is written from the paper (Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012) and
checks itself first: against the published vectors of SipHash-2-4 with 64 and with 128 bits, and
against CPython's own SipHash-1-3. `python siphash_vectors.py --check` compares with the file.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

MASK = (1 << 64) - 1
LENGTHS = [*range(65), 127, 128, 129, 255, 256, 257, 1000, 4096]


def rotate(x: int, bits: int) -> int:
    return (x << bits | x >> (64 - bits)) & MASK


def rounds(v: list[int], count: int) -> None:
    for _ in range(count):
        v[0] = (v[0] + v[1]) & MASK
        v[1] = rotate(v[1], 13) ^ v[0]
        v[0] = rotate(v[0], 32)
        v[2] = (v[2] + v[3]) & MASK
        v[3] = rotate(v[3], 16) ^ v[2]
        v[0] = (v[0] + v[3]) & MASK
        v[3] = rotate(v[3], 21) ^ v[0]
        v[2] = (v[2] + v[1]) & MASK
        v[1] = rotate(v[1], 17) ^ v[2]
        v[2] = rotate(v[2], 32)


def siphash(compress: int, finalise: int, key: bytes, data: bytes, size: int) -> bytes:
    """SipHash-compress-finalise of `data`, `size` bytes (8 or 16) long."""
    k0, k1 = int.from_bytes(key[:8], "little"), int.from_bytes(key[8:], "little")
    v = [k0, k1, k0, k1]
    for i, word in enumerate(
        b"somepseudorandomlygeneratedbytes"[i : i + 8] for i in (0, 8, 16, 24)
    ):
        v[i] ^= int.from_bytes(word, "big")
    if size == 16:
        v[1] ^= 0xEE
    padded = data + bytes(-(len(data) + 1) % 8) + bytes([len(data) & 0xFF])
    for at in range(0, len(padded), 8):
        word = int.from_bytes(padded[at : at + 8], "little")
        v[3] ^= word
        rounds(v, compress)
        v[0] ^= word
    v[2] ^= 0xEE if size == 16 else 0xFF
    rounds(v, finalise)
    out = (v[0] ^ v[1] ^ v[2] ^ v[3]).to_bytes(8, "little")
    if size == 16:
        v[1] ^= 0xDD
        rounds(v, finalise)
        out += (v[0] ^ v[1] ^ v[2] ^ v[3]).to_bytes(8, "little")
    return out


def check_self() -> None:
    """Raises AssertionError if this file's SipHash is not the published one."""
    key = bytes(range(16))
    assert siphash(2, 4, key, b"", 8).hex() == "310e0edd47db6f72"
    assert siphash(2, 4, key, bytes(range(15)), 8).hex() == "e545be4961ca29a1"  # the paper's
    assert siphash(2, 4, key, b"", 16).hex() == "a3817f04ba25a8e66df67214c7550293"
    if sys.hash_info.algorithm == "siphash13" and sys.hash_info.width == 64:
        for data in (b"sluice", b"a longer text than one word"):
            environment = {**os.environ, "PYTHONHASHSEED": "0"}
            program = f"print(hash({data!r}))"
            printed = subprocess.run(
                [sys.executable, "-S", "-c", program],
                env=environment,
                check=True,
                stdout=subprocess.PIPE,
            )
            ours = int.from_bytes(siphash(1, 3, bytes(16), data, 8), "little", signed=True)
            assert ours == int(printed.stdout)


def text() -> str:
    """The header: the key and the message of length n are their own bytes' numbers."""
    lines = [
        "/* Written by siphash_vectors.py: SipHash-1-3-128 with the key 00 01 .. 0f of the",
        " * message 00 01 .. ff 00 01 .. of each length. */",
        "static const struct {",
        "    size_t length;",
        "    uint64_t out[2];",
        "} siphash_vectors[] = {",
    ]
    for length in LENGTHS:
        out = siphash(1, 3, bytes(range(16)), bytes(i & 0xFF for i in range(length)), 16)
        words = [int.from_bytes(out[i : i + 8], "little") for i in (0, 8)]
        lines.append(
            f"    {{{length}, {{UINT64_C(0x{words[0]:016x}), UINT64_C(0x{words[1]:016x})}}}},"
        )
    return "\n".join([*lines, "};", ""])


if __name__ == "__main__":
    check_self()
    header = Path(__file__).with_name("siphash_vectors.h")
    if sys.argv[1:] == ["--check"]:
        sys.exit(header.read_text() != text())
    header.write_text(text())
