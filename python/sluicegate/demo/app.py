"""The demo as an ASGI app: pages, chat, feed and metrics."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Response, WebSocket
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from sluicegate.observe.live import Sampler
from sluicegate.observe.page import STATIC as SHARED
from sluicegate.observe.prometheus import LimiterCollector

from .chat import Chat
from .feed import Feed
from .reading import read_chat
from .security import SecurityHeaders
from .settings import DemoSettings

STATIC = Path(__file__).parent / "static"


def create_app(settings: DemoSettings | None = None) -> FastAPI:
    """The app: `/`, `/chat`, `/dashboard`, `/dashboard/feed`, `/metrics`.

    Its state is its own, in memory: one app for one worker.
    """
    settings = settings or DemoSettings()
    chat = Chat(settings)
    monitor = Sampler(lambda: read_chat(chat.watched, chat.room))
    feed = Feed(monitor, settings)
    registry = CollectorRegistry()
    registry.register(LimiterCollector({"chat": chat.door.limiter, "dashboard": feed.door.limiter}))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        sampling = asyncio.ensure_future(monitor.run())
        try:
            yield
        finally:
            sampling.cancel()
            await asyncio.gather(sampling, return_exceptions=True)

    # No page of FastAPI's own: those load scripts from another host.
    app = FastAPI(
        title="sluicegate demo", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None
    )
    app.add_middleware(SecurityHeaders)
    files = StaticFiles(directory=STATIC, packages=[("sluicegate.observe", "static")])
    app.mount("/static", files, name="static")

    @app.api_route("/", methods=["GET", "HEAD"])
    async def chat_page() -> FileResponse:
        return FileResponse(STATIC / "chat.html")

    @app.api_route("/dashboard", methods=["GET", "HEAD"])
    async def dashboard_page() -> FileResponse:
        return FileResponse(STATIC / "dashboard.html")

    @app.get("/favicon.ico")
    async def icon() -> FileResponse:
        return FileResponse(SHARED / "favicon.svg")

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    @app.websocket("/chat")
    async def chat_socket(websocket: WebSocket) -> None:
        await chat.serve(websocket)

    @app.websocket("/dashboard/feed")
    async def feed_socket(websocket: WebSocket) -> None:
        await feed.serve(websocket)

    return app
