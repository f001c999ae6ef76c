"""/promptglass/v1/…: pictures in, prompts out, as JSON. An error is {"error": "one line"}: see door.py.

Handlers are plain functions: FastAPI runs them on threads, and nobody's event loop waits for a model. No
`annotations` from the future here: FastAPI reads them.
"""

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Body, Depends, Request, Response

from ..choice import Choice, parse_modes
from ..errors import InputError, visible
from ..jobs import Job
from ..refine import COUNT
from ..service import Request as Wish
from ..service import Service
from .access import Access
from .batches import Batches
from .clip_models import with_known_model
from .door import as_response, door, result_of
from .uploads import picture_of

PREFIX = "/promptglass/v1"
MOST_CANDIDATES = 16


def router(service: Service, access: Access) -> APIRouter:
    routes = APIRouter(prefix=PREFIX, tags=["promptglass"], route_class=door(access))
    pictures, place = _Pictures(service), _Place(service)
    routes.post("/interrogate")(pictures.interrogate)
    routes.post("/analyze")(pictures.analyze)
    routes.post("/refine")(pictures.refine)
    routes.post("/wildcards")(place.wildcards)
    routes.get("/health")(place.health)
    routes.get("/endpoints")(place.endpoints)
    Batches(service).add_to(routes, choice_of)
    return routes


def choice_of(
    modes: list[str] | str | None = Body(None),
    caption: str = Body(""),
    model: str | None = Body(None),
    llm: str = Body("ollama"),
    wishes: str = Body(""),
    keep: list[str] = Body([]),
    candidates: int = Body(COUNT, ge=1, le=MOST_CANDIDATES),
    deep: bool = Body(False),
) -> Choice:
    """The fields that say what is wanted; modes: a list, "best,negative", or null for the best."""
    return Choice(
        modes=parse_modes(modes),
        caption=caption,
        model=model,
        llm=llm,
        wishes=wishes,
        keep=keep,
        candidates=candidates,
        deep=deep,
    )


class _Pictures:
    def __init__(self, service: Service) -> None:
        self._service = service

    def interrogate(
        self, request: Request, image: str = Body(...), choice: Choice = Depends(choice_of)
    ) -> Response:
        """200 {picture, format, width, height, answers, failures: [{mode, error}], left_out: [the same]}.

        A picture without a prompt in its file has no answer to `embedded`, and that is no error.
        """
        picture = picture_of(image)
        job = self._service.interrogate(picture, with_known_model(choice, self._service.host))
        found = result_of(job, request)
        return as_response({**found, "failures": _told(job, "failure"), "left_out": _told(job, "left_out")})

    def analyze(
        self,
        request: Request,
        image: str = Body(...),
        categories: list[str] | None = Body(None),
        labels: str = Body(""),
        top: int = Body(5, ge=1, le=100),
        model: str | None = Body(None),
    ) -> Response:
        """200 {picture, …, model, categories: {name: [{label, confidence, score, emoji}, …]}}.

        categories: null for all that are built in, [] for none; labels: text, one a line, found as "labels".
        """
        from ..clip.classifier import categories as built_in

        choice = with_known_model(Choice(model=model), self._service.host)
        wanted = [*built_in()] if categories is None else categories
        job = self._service.label(picture_of(image), wanted, labels, top, choice)
        return as_response(result_of(job, request))

    def refine(
        self,
        request: Request,
        image: str | None = Body(None),
        text: str = Body(""),
        prompt_id: str = Body("refine"),
        profile: str = Body("ollama"),
        model: str = Body(""),
        wishes: str = Body(""),
        keep: list[str] = Body([]),
        candidates: int = Body(COUNT, ge=1, le=MOST_CANDIDATES),
        deep: bool = Body(False),
        seed: int = Body(0, ge=0, lt=2**63),
    ) -> Response:
        """200 {answers, warnings: [line, …]}; with an image also {picture, format, width, height}.

        profile: an endpoint's name; model: a language model's, "" for the endpoint's own.
        """
        if not (image or text.strip()):
            raise InputError("there is nothing to refine: give text, an image, or both")
        wish = Wish(text, prompt_id, profile, model, wishes, keep, candidates, deep, seed)
        job = self._service.refine(wish, picture_of(image) if image else None)
        found = result_of(job, request)
        warnings = [visible(event["text"]) for event in job.events() if event["kind"] == "warning"]
        return as_response({**found, "warnings": warnings})


class _Place:
    """What is here, and what is written here."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def wildcards(
        self,
        folder: str = Body(...),
        recursive: bool = Body(False),
        per_folder: bool = Body(False),
        format: str = Body("txt"),
        weights: bool = Body(False),
    ) -> Response:
        """200 {files: [{path, name, state, lines, is_ascii}], notes: [line, …]}."""
        written, notes = self._service.write_wildcards(folder, recursive, per_folder, format, weights)
        files = [{**asdict(file), "path": str(file.path)} for file in written]
        return as_response({"files": files, "notes": notes})

    def health(self) -> Response:
        return as_response(self._service.status())

    def endpoints(self) -> Response:
        """200 {endpoints: [{name, reachable, usable, message, models}]}, asked now."""
        return as_response({"endpoints": self._service.endpoints()})


def _told(job: Job, kind: str) -> list[dict[str, Any]]:
    events = [event for event in job.events() if event["kind"] == kind]
    return [{"mode": event["mode"], "error": visible(event["error"])} for event in events]
