"""Server-sent events of a generator that runs on threads; whoever leaves is noticed while it is silent."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send


class EventStream(StreamingResponse):
    """is_gone: set as soon as nobody listens any more, for the generator to end by."""

    def __init__(self, events: Iterator[str], is_gone: threading.Event) -> None:
        # Starlette before 0.46 would hold events back to compress them.
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no", "Content-Encoding": "identity"}
        super().__init__(events, headers=headers, media_type="text/event-stream")
        self._is_gone = is_gone

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Starlette's own, under a newer server, only notices when it sends.
        telling = asyncio.ensure_future(self.stream_response(send))
        leaving = asyncio.ensure_future(_left(receive))
        try:
            await asyncio.wait([telling, leaving], return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._is_gone.set()
            leaving.cancel()
            # Not cancelled: it ends by itself, and a thread could not be.
            await asyncio.wait([telling, leaving])
        error = None if telling.cancelled() else telling.exception()
        if error is not None and not isinstance(error, OSError):  # which says that nobody listens
            raise error


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
