"""One spelling for a path, whatever a client wrote."""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import unquote, urlparse

__all__ = ["canonical_path"]

# A server decodes a path once; a proxy before it or a framework behind it may do so again.
_DECODED = 3
_PERCENTS = re.compile("%(?:25)+")
_PLAIN = re.compile(r"(?:/[0-9a-z_~-][0-9a-z._~-]*)+", re.ASCII)


def canonical_path(path: str, *, ignore_case: bool = False) -> str:
    """The path without what spells it in another way: escapes (`%2e`, and those of an escape),
    `//`, a backslash for a slash, `.` and `..`, a slash at its end, Unicode's other ways to write
    a letter (NFKC), and what cannot be seen; of a whole URL, which a request may be for, all
    before its path. `ignore_case` is for applications that do so.

    Paths of one spelling are one limit. An application may tell some of them apart, and answer
    one alone; then the others count as that one, which admits no more. Never raises.
    """
    if _PLAIN.fullmatch(path):  # most are, and have one spelling
        return path
    text = path if path.startswith("/") else _path_of_url(path)
    for _ in range(_DECODED):
        before = text
        text = unquote(_PERCENTS.sub("%", text), errors="replace")
        text = _letters(text, ignore_case)
        if text == before:
            break
    segments: list[str] = []
    for segment in text.replace("\\", "/").split("/"):
        if segment == "..":
            del segments[-1:]
        elif segment not in ("", "."):
            segments.append(segment)
    return "/" + "/".join(segments)


def _path_of_url(text: str) -> str:
    try:
        return urlparse(text).path
    except ValueError:  # it is none
        return text


def _letters(text: str, ignore_case: bool) -> str:
    text = unicodedata.normalize("NFKC", text)
    if ignore_case:
        text = unicodedata.normalize("NFKC", text.casefold())
    if text.isprintable():
        return text
    # controls, what only joins or directs letters, and halves of them
    return unicodedata.normalize("NFKC", "".join(filter(str.isprintable, text)))
