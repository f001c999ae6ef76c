"""Many questions to one endpoint, as many at a time as do it good."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from ..errors import EndpointError, EndpointRefused, EndpointUnreachable, ModelSeesNot
from ..progress import Progress, silent

if TYPE_CHECKING:
    from PIL import Image

    from .endpoint import Endpoint, Message, Reply

Listen = Callable[[int, str], None]

# How often progress is called while nothing happens: it may raise, and a stop is to be felt within 0.3 s.
_TICK_S = 0.1


@dataclass(frozen=True)
class Ask:
    """One question: what Endpoint.chat is called with."""

    messages: Sequence[Message]
    images: Sequence[Image.Image] = ()
    schema: Mapping[str, Any] | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    seed: int | None = None


def ask_all(
    endpoint: Endpoint,
    asks: Sequence[Ask],
    what: str,
    progress: Progress = silent,
    listen: Listen | None = None,
) -> Generator[tuple[int, Reply | EndpointError], None, None]:
    """Replies, each with the place of its question, as they come; an error where there is none.

    After a refusal, or where nobody is there any more, what was not asked yet has the same error.

    listen: told, on other threads, the place of a question and what its answer is so far.
    Closing the iterator, or a progress that raises, ends every call that is under way and frees the server.
    """
    stop = threading.Event()
    pool = ThreadPoolExecutor(endpoint.concurrency, f"promptglass-{endpoint.name}")

    refusals: list[EndpointError] = []
    in_a_row = [0]  # that reached nobody

    def reply_to(place: int, ask: Ask) -> Reply | EndpointError:
        if refusals:  # whoever hears of it may be busy: nothing more is asked meanwhile
            return refusals[0]
        reply = asked(place, ask)
        in_a_row[0] = in_a_row[0] + 1 if isinstance(reply, EndpointUnreachable) else 0
        is_gone = isinstance(reply, EndpointUnreachable) and in_a_row[0] > endpoint.concurrency
        if isinstance(reply, EndpointError) and (
            is_gone or isinstance(reply, EndpointRefused | ModelSeesNot)
        ):
            refusals.append(reply)
        return reply

    def asked(place: int, ask: Ask) -> Reply | EndpointError:
        try:
            return endpoint.chat(
                ask.messages,
                ask.images,
                ask.schema,
                stop=stop,
                temperature=ask.temperature,
                max_tokens=ask.max_tokens,
                seed=ask.seed,
                listen=partial(listen, place) if listen else None,
            )
        except EndpointError as error:
            return error

    try:
        waiting = {pool.submit(reply_to, place, ask): place for place, ask in enumerate(asks)}
        progress(what, 0, len(asks))
        while waiting:
            done, _ = wait(waiting, _TICK_S, FIRST_COMPLETED)
            # Replies before errors: whoever leaves at an error is to have them all.
            for future in sorted(done, key=lambda future: isinstance(future.result(), EndpointError)):
                yield waiting.pop(future), future.result()
            progress(what, len(asks) - len(waiting), len(asks))
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)
