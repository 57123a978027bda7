"""Where replies end."""

from __future__ import annotations

import pytest

from redis_servers.replies import end_of_first, take

WHOLE = (
    b"+OK\r\n",
    b"-ERR no\r\n",
    b":-12\r\n",
    b"$-1\r\n",
    b"$0\r\n\r\n",
    b"$5\r\na\r\nb:\r\n",
    b"*-1\r\n",
    b"*0\r\n",
    b"*2\r\n:1\r\n*2\r\n$1\r\nx\r\n+y\r\n",
    b"%1\r\n+a\r\n%1\r\n+b\r\n_\r\n",
    b"~1\r\n#t\r\n",
    b">2\r\n+message\r\n=5\r\ntxt:x\r\n",
    b"|1\r\n+ttl\r\n:3\r\n,1.5\r\n",
)


@pytest.mark.parametrize("reply", WHOLE)
def test_a_reply_ends_with_its_last_byte_and_not_before(reply: bytes) -> None:
    assert end_of_first(reply) == len(reply)
    assert end_of_first(reply + b"*9") == len(reply)
    assert {end_of_first(reply[:cut]) for cut in range(len(reply))} == {None}


def test_complete_replies_are_taken_from_the_front() -> None:
    data = bytearray(b"".join(WHOLE) + b"$3\r\nab")
    assert take(data) == list(WHOLE)
    assert data == b"$3\r\nab"
