"""`sluicegate demo`: the chat and its dashboard, under uvicorn."""

from __future__ import annotations

import errno
import ipaddress
import socket
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from sluicegate.demo import DemoSettings

CLOSE_SECONDS = 2  # for open WebSockets, when it is stopped


@click.command("demo")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    help="0 takes a free one.",
)
@click.option("--messages", default="1/second burst 10", show_default=True, metavar="RATE")
@click.option("--connections", default="60/minute", show_default=True, metavar="RATE")
@click.option(
    "--concurrent", type=click.IntRange(1), default=20, show_default=True, help="Open at once."
)
@click.option(
    "--max-message-size",
    type=click.IntRange(64),
    default=4096,
    show_default=True,
    help="Bytes of a frame.",
)
def command(
    host: str, port: int, messages: str, connections: str, concurrent: int, max_message_size: int
) -> None:
    """Serve a chat whose messages are limited, and its dashboard.

    The limits are those of one client, which is one address. State is in memory.
    """
    try:
        import uvicorn

        from sluicegate.demo import DemoSettings, create_app
    except ImportError as error:
        raise click.ClickException(
            f'the demo needs {error.name or error}: pip install "sluicegate[demo]"'
        ) from None
    try:
        settings = DemoSettings(messages, connections, concurrent, max_message_size)
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    listener = _listen(host, port)
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(settings),
            log_level="warning",
            access_log=False,
            # Nobody stands in front: a header must not say who the client is.
            proxy_headers=False,
            server_header=False,
            # A larger frame ends the connection (1009) before it is read.
            ws_max_size=max(2**20, max_message_size),
            timeout_graceful_shutdown=CLOSE_SECONDS,
        )
    )
    _greet(listener, settings)
    try:
        server.run(sockets=[listener])
    except KeyboardInterrupt:
        click.echo("stopped")
    finally:
        listener.close()


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise click.ClickException(f"{host!r} is no address to listen on: {error}") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise click.ClickException(_cannot(host, port, error)) from None
    return listener


def _cannot(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} is in use: choose another with --port, or --port 0 for any free one"
    if error.errno == errno.EACCES:
        return f"port {port} needs privileges: choose one above 1023 with --port"
    return f"cannot listen on {host} port {port}: {error.strerror or error}"


def _greet(listener: socket.socket, settings: DemoSettings) -> None:
    host, port = listener.getsockname()[:2]
    address = ipaddress.ip_address(host.partition("%")[0])
    shown = "127.0.0.1" if address.is_unspecified else host
    if ":" in shown:
        shown = f"[{shown}]"
    click.echo(f"{click.style('sluicegate demo', bold=True)}: {', '.join(settings.in_words())}")
    for label, url in (
        ("chat", f"http://{shown}:{port}/"),
        ("dashboard", f"http://{shown}:{port}/dashboard"),
        ("metrics", f"http://{shown}:{port}/metrics"),
        ("press it", f"sluicegate flood ws://{shown}:{port}/chat"),
    ):
        click.echo(f"  {label:<10} {click.style(url, fg='cyan')}")
    if not address.is_loopback:
        click.echo("  open to the network: anybody who reaches this machine can use it")
    click.echo("Ctrl-C stops it.")
