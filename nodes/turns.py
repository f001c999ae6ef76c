"""Turns at ComfyUI's models for work that is no graph: it waits in the host's queue like everybody else.

A graph of one node stands for it there. While that node runs, nothing else of the host does, and the thread
that waits for the turn has the models; whoever interrupts the node, or deletes it, stops the work.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar

from ..promptglass.errors import InputError, Stopped
from ..promptglass.progress import Progress
from ..promptglass.turns import Turns
from . import host, routes, schema
from .jobs import NODE

# The headers of the question that work is done for, as the queue may want a login.
asked_with: ContextVar[Mapping[str, str]] = ContextVar("promptglass_asked_with", default={})  # noqa: B039

_NODE = "PromptglassTurn"
_EVERY_S = 0.1


class _Ticket:
    def __init__(self) -> None:
        self.is_on = threading.Event()
        self.is_over = threading.Event()
        self.is_interrupted = False


_tickets: dict[str, _Ticket] = {}


class Turn(schema.Node):
    """Holds the queue for as long as a turn lasts."""

    DEV_ONLY = True  # in no menu: it is queued by promptglass alone
    DESCRIPTION = "Stands in the queue for what a program asked promptglass over HTTP."
    RETURN_TYPES = ()

    @classmethod
    def INPUT_TYPES(cls) -> schema.Inputs:
        return {"required": {"ticket": schema.text("Made by promptglass.")}}

    def run(self, ticket: list[str]) -> schema.Result:
        mine = _tickets.pop(ticket[0], None)
        if mine is None:
            raise InputError("this node is queued by promptglass itself: remove it from the graph")
        mine.is_on.set()
        while not mine.is_over.wait(_EVERY_S):
            mine.is_interrupted = mine.is_interrupted or host.is_interrupted()
        host.check()
        return {"ui": {}, "result": ()}


class QueueTurns(Turns):
    """around: as in Turns. To be used on threads, never on the host's event loop."""

    def __init__(self, around: Callable[[], contextlib.AbstractContextManager[None]]) -> None:
        super().__init__(around=around)
        host.add_node(_NODE, Turn)
        self._held: _Ticket | None = None

    def progress(self, what: str, done: int, total: int) -> None:
        if self._held is not None and self._held.is_interrupted:
            raise Stopped("interrupted in ComfyUI")
        super().progress(what, done, total)

    @contextlib.contextmanager
    def line(self, progress: Progress) -> Iterator[None]:
        id_, ticket, prompt_id = uuid.uuid4().hex, _Ticket(), ""
        _tickets[id_] = ticket
        try:
            prompt_id = _queued(id_)
            while not ticket.is_on.wait(_EVERY_S):
                progress("waiting for the models", 0, 1)  # whoever asked may be gone
                if not routes.is_queued(prompt_id) and not ticket.is_on.is_set():
                    raise Stopped("removed from ComfyUI's queue")
            self._held = ticket
            try:
                yield
            finally:
                self._held = None
        finally:
            ticket.is_over.set()  # also where its turn comes yet
            _tickets.pop(id_, None)
            if prompt_id:
                routes.forget(prompt_id)


def _queued(ticket: str) -> str:
    from server import PromptServer

    node = {"class_type": _NODE, "inputs": {"ticket": ticket}, "_meta": {"title": "HTTP"}}
    queued = routes.queue({f"{NODE}-turn": node}, None, asked_with.get(), front=False)
    return asyncio.run_coroutine_threadsafe(queued, PromptServer.instance.loop).result()
