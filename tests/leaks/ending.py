"""Ends the interpreter while a server is asked, in a way that is given as the argument."""

from __future__ import annotations

import asyncio
import atexit
import gc
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent.parent))

KEPT: list[Any] = []


def ask(loop: asyncio.AbstractEventLoop) -> None:
    """Questions that wait, fly, and are put off, of a store that nobody closes."""
    from redis_store.wire import Store, limiter_of
    from sluicegate import _core

    async def asking() -> None:
        store = Store()
        for policy in ("raise", "allow", "deny", "local"):
            limiter = limiter_of(store, policy, on_store_error=policy, timeout=60.0)
            asked: list[Any] = [
                limiter._ask(1, "k"),
                limiter._ask_many([("a", 1), ("b", 1)]),
                limiter._ask(2, "r"),
                _core.ask_all([(limiter, "k", 1)]),
                limiter._change("reset", "k"),
                store.link.command(("PING",), 60.0),
            ]
            await asyncio.sleep(0)
            asked.append(limiter._ask(1, "waits"))
            for future in asked:
                future.add_done_callback(lambda done: done.cancelled() or done.exception())
            KEPT.append((store, limiter, asked, loop))
        store.link.feed(b"-TRYAGAIN x\r\n")
        assert store.link.flying > 0 and store.link.waiting > 0

    loop.run_until_complete(asking())


def main(way: str) -> None:
    loop = asyncio.new_event_loop()
    if way == "interpreter":
        import _testcapi  # type: ignore[import-not-found]

        code = (
            f"import sys, asyncio, warnings\nsys.path[:] = {sys.path!r}\nimport ending\n"
            "warnings.simplefilter('ignore', ResourceWarning)\n"
            "ending.ask(asyncio.new_event_loop())\n"
        )
        for _ in range(3):
            assert _testcapi.run_in_subinterp(code) == 0
        loop.close()
        return
    ask(loop)
    if way == "collected":
        KEPT.clear()
        del loop
        gc.collect()
    elif way == "closed":
        loop.close()
    elif way == "exception":
        atexit.register(KEPT.clear)
        raise SystemExit(0)


if __name__ == "__main__":
    import warnings

    warnings.simplefilter("ignore", ResourceWarning)  # the loop is left open on purpose
    main(sys.argv[1])
