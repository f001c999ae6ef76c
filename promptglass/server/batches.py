"""…/v1/batches: a folder is interrogated, watched, stopped, and started again.

No `annotations` from the future here: FastAPI reads them.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi import APIRouter, Body, Depends, Header, Path, Query, Response
from fastapi.responses import StreamingResponse

from ..choice import Choice
from ..errors import InputError, PromptglassError, visible
from ..jobs import Job
from ..service import Service
from ..training import CaptionFiles, parse_list, parse_replacement
from . import described
from .clip_models import with_known_model
from .described import answers, errors
from .door import UNEXPECTED, NotFound, as_response

_EVERY_S = 0.25
_STILL_HERE_EVERY = 60  # rounds without news: a proxy hangs up on what says nothing
_ID: Any = Path(..., description="A batch, by the id that its start told.")

_NO_FIELDS = {
    "requestBody": {
        "description": "{}: no fields, but every POST is JSON.",
        "required": True,
        "content": {"application/json": {"schema": {"type": "object"}}},
    }
}


class Batches:
    def __init__(self, service: Service) -> None:
        self._service = service

    def add_to(self, routes: APIRouter, choice_of: Callable[..., Choice]) -> None:
        """choice_of: the fields of a question that say what is wanted."""

        def start(
            folder: str = Body(..., description="A folder of pictures, below the roots."),
            recursive: bool = Body(False, description="Folders within it, too."),
            force: bool = Body(False, description="Compute again what is there already."),
            verify: bool = Body(
                False, description="Hash pictures even where size and time are as they were."
            ),
            choice: Choice = Depends(choice_of),
            captions: CaptionFiles | None = Depends(captions_of),
        ) -> Response:
            """202: the job. Its work begins at once, and goes on whether anybody watches or not."""
            known = with_known_model(choice, self._service.host)
            return as_response(
                told(self._service.batch(folder, known, recursive, force, verify, captions)), 202
            )

        events = {
            **described.events(
                "Events as they come: `id`, and JSON as `data`. The last is the batch, of the kind “end”.",
                lambda event: _sent(described.BATCH_EVENTS.index(event) + 1, event),
                *described.BATCH_EVENTS,
            ),
            204: {"description": "All was told."},
            **errors(),
        }
        routes.post("/batches", status_code=202, responses=answers(described.BATCH, 202))(start)
        routes.get("/batches", responses=answers(described.BATCHES))(self.all)
        routes.get("/batches/{id}", responses=answers(described.BATCH_WITH_EVENTS))(self.one)
        stopped = answers(described.BATCH)
        routes.post("/batches/{id}/stop", openapi_extra=_NO_FIELDS, responses=stopped)(self.stop)
        routes.get("/batches/{id}/events", response_class=StreamingResponse, responses=events)(self.events)

    def all(self) -> Response:
        """200 {batches: [job, …]}, the newest first."""
        return as_response({"batches": [told(job) for job in self._service.jobs.of("batch")]})

    def one(
        self,
        id: str = _ID,
        after: int | None = Query(None, ge=0, description="Also the events after the one of this id."),
    ) -> Response:
        """200: the job; with `after` also {events: […]}, those that came after the one of this id."""
        job = self._found(id)
        events = {} if after is None else {"events": job.events(after)}
        return as_response({**told(job), **events})

    def stop(self, id: str = _ID) -> Response:
        """200: the job, "stopping" until what is under way is saved. Started anew, it goes on from there."""
        job = self._found(id)
        job.stop()
        return as_response(told(job))

    def events(
        self,
        id: str = _ID,
        after: int = Query(0, ge=0, description="Only what came after the event of this id."),
        last_event_id: str | None = Header(
            None, description="As `after`, by an EventSource that comes back."
        ),
    ) -> Response:
        """200: server-sent events, one JSON each; the last is the job itself, of the kind "end".

        Last-Event-ID stands above `after`. 204 where all was told: an EventSource then asks no more.
        """
        job = self._found(id)
        seen = last_event_id or ""
        if seen.isascii() and seen.isdigit():
            after = int(seen[:18])
        if job.state != "running" and after > _last_id(job):
            return Response(status_code=204)
        # Starlette before 0.46 would hold events back to compress them.
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no", "Content-Encoding": "identity"}
        return StreamingResponse(_stream(job, after), headers=headers, media_type="text/event-stream")

    def _found(self, id: str) -> Job:
        job = self._service.jobs.find(id)
        if job is None or job.kind != "batch":
            raise NotFound(f"there is no batch {visible(id)[:64]}: it never was here, or is long done")
        return job


def captions_of(
    txt: str | None = Body(
        None, description="Write captions to train on; if there is one: skip, overwrite, append or prepend."
    ),
    prefix: str = Body("", description="How every caption begins: a trigger word."),
    suffix: str = Body("", description="How every caption ends."),
    exclude: list[str] = Body([], description="Parts to leave out: “text”, “*background”."),
    replace: list[str] = Body([], description="Words to put in place of others: “A=B”."),
) -> CaptionFiles | None:
    """Captions to train on, by the options of `promptglass batch`; txt null for none."""
    if txt is None:
        if prefix or suffix or exclude or replace:
            raise InputError('prefix, suffix, exclude and replace are about captions: add "txt": "overwrite"')
        return None
    parts = tuple(part for option in exclude for part in parse_list(option))
    return CaptionFiles(txt, prefix, suffix, parts, tuple(map(parse_replacement, replace)))


def told(job: Job) -> dict[str, Any]:
    """A batch as JSON: {id, kind, folder, state, error, progress, result, done, total, counts}.

    counts: pictures by what became of them so far; done of total: without those that were unchanged.
    """
    events = reversed(job.events())
    last = next((event for event in events if event["kind"] in ("outcome", "planned")), {})
    counted = {
        "done": last.get("done", 0),
        "total": last.get("total", last.get("todo")),
        "counts": last.get("counts", {"unchanged": last.get("unchanged", 0)}),
    }
    is_expected = job.failure is None or isinstance(job.failure, PromptglassError)
    error = visible(job.error) if job.error else None
    return {**job.as_json(), "error": error if is_expected else UNEXPECTED, **counted}


async def _stream(job: Job, after: int) -> AsyncIterator[str]:
    """On the event loop, where waiting costs nothing: a thread for each who watches would be missed."""
    quiet = 0
    while True:
        is_over = job.state != "running"  # asked first: what it told before is told here
        events = job.events(after)
        for event in events:
            after = event["id"]
            yield _sent(after, event)
        if is_over:
            yield _sent(max(after, _last_id(job)) + 1, {**told(job), "kind": "end"})
            return
        quiet = 0 if events else quiet + 1
        if quiet and quiet % _STILL_HERE_EVERY == 0:
            yield ": still here\n\n"
        await asyncio.sleep(_EVERY_S)


def _sent(id: int, content: Any) -> str:
    return f"id: {id}\ndata: {json.dumps(content)}\n\n"


def _last_id(job: Job) -> int:
    return next((event["id"] for event in reversed(job.events())), 0)
