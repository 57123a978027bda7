"""Each thing that the proxy can do to a connection, as a raw socket sees it."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from redis_servers import behaviours
from redis_servers.proxy import Proxy
from redis_servers.server import Server

pytestmark = pytest.mark.server

PONG = b"+PONG\r\n"
SHORT = 0.1  # seconds in which what is not to come would have come


class Caller:
    """A client's end of a connection; every wait is bounded."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)

    def send(self, data: bytes = b"PING\r\n") -> None:
        self.socket.sendall(data)

    def read(self, count: int) -> bytes:
        """Exactly so many, or fewer where the connection ends before."""
        found = b""
        while len(found) < count and (data := self.socket.recv(count - len(found))):
            found += data
        return found

    def ping(self) -> bytes:
        self.send()
        return self.read(len(PONG))

    def rest(self) -> bytes:
        """All until the connection is closed."""
        return self.read(2**30)

    def hears_nothing(self) -> bool:
        self.socket.settimeout(SHORT)
        try:
            self.socket.recv(1)
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(10)
        return False


Call = Callable[[], Caller]


@pytest.fixture
def proxy(redis_server: Server, proxy_to: Callable[..., Proxy]) -> Proxy:
    return proxy_to(redis_server.port)


@pytest.fixture
def call(proxy: Proxy) -> Iterator[Call]:
    with ExitStack() as stack:

        def start() -> Caller:
            caller = Caller(proxy.port)
            stack.enter_context(caller.socket)
            return caller

        yield start


def test_everything_passes_and_is_counted(proxy: Proxy, call: Call) -> None:
    first, second = call(), call()
    assert first.ping() == second.ping() == PONG
    value = bytes(range(256)) * 4096
    write = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$%d\r\n%b\r\n" % (len(value), value)
    first.send(write)
    assert first.read(5) == b"+OK\r\n"
    second.send(b"GET k\r\n")
    reply = b"$%d\r\n%b\r\n" % (len(value), value)
    assert second.read(len(reply)) == reply
    assert (proxy.connections, proxy.open) == (2, 2)
    assert proxy.requested == len(b"PING\r\n" * 2 + write + b"GET k\r\n")
    proxy.wait_for(lambda it: it.replied == 2 * len(PONG) + 5 + len(reply))


def test_an_end_passes_both_ways(proxy: Proxy, call: Call, redis_server: Server) -> None:
    caller = call()
    caller.ping()
    caller.send(b"QUIT\r\n")
    assert caller.rest() == b"+OK\r\n"
    other = call()
    other.ping()
    other.socket.close()
    proxy.wait_for(lambda it: it.open == 0)
    with redis_server.client() as client:
        assert len(client.client_list()) == 1  # this one


def test_a_unix_socket_is_reached(proxy_to: Callable[..., Proxy], redis_server: Server) -> None:
    caller = Caller(proxy_to(str(redis_server.socket)).port)
    with caller.socket:
        assert caller.ping() == PONG


def test_where_no_server_is_the_connection_is_closed(
    proxy: Proxy, call: Call, redis_server: Server
) -> None:
    caller = call()
    assert caller.ping() == PONG
    redis_server.kill()
    assert caller.rest() == b""
    assert call().rest() == b""
    redis_server.restart()
    assert call().ping() == PONG


@pytest.mark.parametrize("after", range(len(PONG) + 1))
def test_a_reply_is_cut_at_any_byte(proxy: Proxy, call: Call, after: int) -> None:
    old = call()
    assert old.ping() == PONG  # what went before does not count
    proxy.behave(behaviours.Cut(after))
    for caller in (old, call()):
        caller.send()
        assert caller.rest() == PONG[:after]


def test_a_cut_counts_over_replies(proxy: Proxy, call: Call) -> None:
    proxy.behave(behaviours.Cut(2 * len(PONG) + 1))
    caller = call()
    assert caller.ping() == caller.ping() == PONG
    caller.send()
    assert caller.rest() == PONG[:1]


def test_one_connection_of_several_is_cut(proxy: Proxy, call: Call) -> None:
    first = call()
    proxy.behave(behaviours.Cut(3), connection=2)
    second, third = call(), call()
    assert second.hears_nothing()
    proxy.behave(behaviours.Pass())  # is for those that have none of their own
    for caller in (first, third):
        assert caller.ping() == PONG
    second.send()
    assert second.rest() == PONG[:3]
    assert first.ping() == PONG


def test_a_cut_connection_was_heard_by_the_server(
    proxy: Proxy, call: Call, redis_server: Server
) -> None:
    proxy.behave(behaviours.Cut(0))
    caller = call()
    caller.send(b"SET k 1\r\n")
    assert caller.rest() == b""
    with redis_server.client() as client:
        assert client.get("k") == b"1"


def test_a_reset_is_no_end(proxy: Proxy, call: Call) -> None:
    proxy.behave(behaviours.Cut(2, by_reset=True))
    caller = call()
    caller.send()
    with pytest.raises(ConnectionResetError):
        caller.rest()


@pytest.mark.parametrize("by_reset", [False, True])
def test_all_connections_are_closed_by_hand(proxy: Proxy, call: Call, by_reset: bool) -> None:
    callers = [call() for _ in range(3)]
    for caller in callers:
        caller.ping()
    proxy.close_connections(by_reset=by_reset)
    assert proxy.open == 0
    for caller in callers:
        if by_reset:
            with pytest.raises(ConnectionResetError):
                caller.rest()
        else:
            assert caller.rest() == b""
    assert call().ping() == PONG


def test_a_close_is_no_reset_whatever_was_not_read(proxy: Proxy, call: Call) -> None:
    caller = call()
    proxy.behave(behaviours.Unread())
    caller.send()
    proxy.close_connections()
    assert caller.rest() == b""


@pytest.mark.parametrize("by_reset", [False, True])
def test_a_connection_is_refused(proxy: Proxy, call: Call, by_reset: bool) -> None:
    old = call()
    old.ping()
    proxy.behave(behaviours.Refuse(by_reset))
    connections: list[Call] = [lambda: old, call]
    for connection in connections:
        if by_reset:
            # The reset may be there before the connection was called made.
            with pytest.raises(ConnectionResetError):
                connection().rest()
        else:
            assert connection().rest() == b""
    proxy.behave(behaviours.Pass())
    assert call().ping() == PONG


def test_a_stall_reads_and_never_answers(proxy: Proxy, call: Call, redis_server: Server) -> None:
    caller = call()
    proxy.behave(behaviours.Stall())
    caller.send(b"SET k 1\r\n")
    proxy.wait_for(lambda it: it.requested == 9)
    assert caller.hears_nothing()
    with redis_server.client() as client:
        assert client.get("k") is None
    redis_server.restart()
    assert caller.rest() == b""  # an end still passes


def test_half_open_hides_the_end_as_well(proxy: Proxy, call: Call, redis_server: Server) -> None:
    caller, other = call(), call()
    assert caller.ping() == other.ping() == PONG
    proxy.behave(behaviours.HalfOpen())
    caller.send()
    redis_server.restart()
    assert caller.hears_nothing()
    other.socket.close()
    assert proxy.open == 2
    proxy.behave(behaviours.Pass())
    assert caller.rest() == b""
    proxy.wait_for(lambda it: it.open == 0)


def test_a_lost_reply_was_done(proxy: Proxy, call: Call, redis_server: Server) -> None:
    proxy.behave(behaviours.LoseReplies())
    caller = call()
    caller.send(b"SET k 1\r\n")
    assert caller.hears_nothing()
    with redis_server.client() as client:
        assert client.get("k") == b"1"
    proxy.behave(behaviours.Pass())
    assert caller.ping() == PONG


def test_a_reply_is_delayed_and_the_order_kept(proxy: Proxy, call: Call) -> None:
    proxy.behave(behaviours.Delay(0.2))
    begin = time.monotonic()
    callers = [call() for _ in range(3)]
    for caller in callers:
        caller.send(b"ECHO a\r\nECHO b\r\n")
    assert [caller.read(14) for caller in callers] == [b"$1\r\na\r\n$1\r\nb\r\n"] * 3
    assert 0.2 <= time.monotonic() - begin < 5


def test_a_reply_is_replaced(proxy: Proxy, call: Call) -> None:
    caller = call()
    caller.ping()
    proxy.behave(behaviours.Replace(b"\0\xff?"))
    caller.send()
    assert caller.read(3) == b"\0\xff?"
    caller.send()
    assert caller.hears_nothing()


@pytest.mark.parametrize(
    ("behaviour", "begin", "rest"),
    [
        (behaviours.endless_text(2**40), b"$1099511627776\r\n", b"x"),
        (behaviours.nested_bomb(), b"", b"*1\r\n"),
    ],
)
def test_a_reply_without_end(
    proxy: Proxy, call: Call, behaviour: behaviours.Endless, begin: bytes, rest: bytes
) -> None:
    proxy.behave(behaviour)
    caller = call()
    assert caller.hears_nothing()  # an answer, not a greeting
    caller.send()
    size = 2**23
    assert caller.read(len(begin) + size) == begin + rest * (size // len(rest))
    # It is made as it is read, but for what sockets hold; and nobody else waits for it.
    assert proxy.replied < len(begin) + size + 2**25
    proxy.behave(behaviours.Pass(), connection=2)
    assert call().ping() == PONG


def test_replies_come_out_of_order(proxy: Proxy, call: Call) -> None:
    proxy.behave(behaviours.reversed_by(3))
    caller = call()
    caller.send(b"ECHO a\r\nPING\r\n")
    assert caller.hears_nothing()
    caller.send(b"ECHO c\r\n")
    assert caller.read(21) == b"$1\r\nc\r\n" + PONG + b"$1\r\na\r\n"


def test_replies_come_twice(proxy: Proxy, call: Call) -> None:
    proxy.behave(behaviours.doubled())
    caller = call()
    caller.send(b"ECHO a\r\nPING\r\n")
    assert caller.read(28) == b"$1\r\na\r\n" * 2 + PONG * 2


def test_a_client_that_is_not_read_fills_its_socket(
    proxy_to: Callable[..., Proxy], redis_server: Server
) -> None:
    proxy = proxy_to(redis_server.port, receive_buffer=4096)
    proxy.behave(behaviours.Unread())
    caller = Caller(proxy.port)
    with caller.socket:
        caller.socket.settimeout(SHORT)
        with pytest.raises(TimeoutError):
            caller.socket.sendall(bytes(2**26))
        assert proxy.requested == 0
        proxy.behave(behaviours.Pass())
        proxy.wait_for(lambda it: it.requested > 0)


def test_a_server_that_is_not_heard_holds_up_the_client(
    proxy: Proxy, call: Call, redis_server: Server
) -> None:
    """What a stopped server does not take is not piled up in the proxy."""
    caller = call()
    redis_server.stop()
    caller.socket.settimeout(SHORT)
    with pytest.raises(TimeoutError):
        caller.socket.sendall(bytes(2**26))
    assert proxy.requested < 2**26
    redis_server.cont()


def test_nothing_is_left_open() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        with Proxy(nobody.getsockname()[1]) as proxy:
            caller = Caller(proxy.port)
            assert caller.rest() == b""
        caller.socket.close()
        with pytest.raises(ConnectionRefusedError):
            Caller(proxy.port)
