"""/promptglass/v1/…, and /v1/… of a server of our own: pictures in, prompts out, as JSON. An error is
{"error": "one line"}: see door.py.

Handlers are plain functions: FastAPI runs them on threads, and nobody's event loop waits for a model. No
`annotations` from the future here: FastAPI reads them.
"""

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Body, Depends, Request, Response

from ..choice import Choice, parse_modes
from ..clip.tables import choose_tables
from ..errors import InputError, visible
from ..jobs import Job
from ..refine import COUNT
from ..refine_request import Request as Wish
from ..service import Service
from . import described
from .access import Access
from .batches import Batches
from .clip_models import open_clip_models, own_model, with_known_model
from .described import answers
from .door import as_response, door, result_of
from .sidecar_routes import Sidecars
from .uploads import picture_of

PREFIX = "/promptglass/v1"
MOST_CANDIDATES = 16

# What fields mean: /docs says it.
IMAGE = "The picture's file as base64, or a data: address; of 20 MB at most."
_MODEL = "CLIP by name, as GET …/models lists them; null: what is there."
_WISHES = "What a language model should heed, in words: “shorter, no artists”."
_KEEP = "Words that a language model must keep, such as triggers of a LoRA."
_CANDIDATES = "How many prompts a language model writes for CLIP to choose from."
_DEEP = "Have a reasoning model think before it writes."


def router(service: Service, access: Access, prefix: str = PREFIX) -> APIRouter:
    routes = APIRouter(prefix=prefix, tags=["promptglass"], route_class=door(access))
    pictures, place = _Pictures(service), _Place(service)
    routes.post("/interrogate", responses=answers(described.INTERROGATED))(pictures.interrogate)
    routes.post("/analyze", responses=answers(described.CATEGORIZED))(pictures.analyze)
    routes.post("/refine", responses=answers(described.REFINED))(pictures.refine)
    routes.post("/wildcards", responses=answers(described.WRITTEN))(place.wildcards)
    routes.get("/health", responses=answers(described.HEALTH))(place.health)
    routes.get("/endpoints", responses=answers(described.ENDPOINTS))(place.endpoints)
    routes.get("/models", responses=answers(described.MODELS))(place.models)
    Batches(service).add_to(routes, choice_of)
    Sidecars(service).add_to(routes)
    return routes


def choice_of(
    modes: list[str] | str | None = Body(
        None, description="Modes as a list or as “best,negative”; null: the best that can run here."
    ),
    caption: str = Body("", description="What the picture shows; it stands in for a captioner."),
    model: str | None = Body(None, description=_MODEL),
    tables: list[str] | None = Body(
        None,
        description="Word lists to choose from: names (“flavors”, “mediums”), or “artists=off”; null: all.",
    ),
    llm: str = Body("ollama", description="Which language model answers llm/… modes: ENDPOINT/MODEL."),
    wishes: str = Body("", description=_WISHES),
    keep: list[str] = Body([], description=_KEEP),
    candidates: int = Body(COUNT, ge=1, le=MOST_CANDIDATES, description=_CANDIDATES),
    deep: bool = Body(False, description=_DEEP),
) -> Choice:
    """The fields that say what is wanted."""
    if any(
        "=" in part and not part.strip().endswith("=off") for item in tables or () for part in item.split(",")
    ):
        raise InputError("tables are chosen by name here: no lists of this machine")
    return Choice(
        modes=parse_modes(modes),
        caption=caption,
        model=model,
        tables=None if tables is None else choose_tables(tables),
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
        self,
        request: Request,
        image: str = Body(..., description=IMAGE),
        choice: Choice = Depends(choice_of),
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
        image: str = Body(..., description=IMAGE),
        categories: list[str] | None = Body(
            None, description="Built-in categories (“style”, “mood”, …); null: all, []: none."
        ),
        labels: str = Body("", description="Labels of your own, one a line; found as “labels”."),
        top: int = Body(5, ge=1, le=100, description="How many labels of each."),
        model: str | None = Body(None, description=_MODEL),
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
        image: str | None = Body(None, description=f"{IMAGE} With it, CLIP chooses among candidates."),
        text: str = Body("", description="The prompt to refine."),
        prompt_id: str = Body(
            "refine", description="What is asked of the language model: see `promptglass prompts`."
        ),
        profile: str = Body("ollama", description="An endpoint's name, as GET …/endpoints lists them."),
        model: str = Body("", description="A language model there; empty: the endpoint's own."),
        wishes: str = Body("", description=_WISHES),
        keep: list[str] = Body([], description=_KEEP),
        candidates: int = Body(COUNT, ge=1, le=MOST_CANDIDATES, description=_CANDIDATES),
        deep: bool = Body(False, description=_DEEP),
        seed: int = Body(0, ge=0, lt=2**63, description="For models that heed one."),
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
        folder: str = Body(..., description="A folder with sidecars, below the roots."),
        recursive: bool = Body(False, description="Folders within it, too."),
        per_folder: bool = Body(False, description="A file for each folder."),
        format: str = Body("txt", description="txt, json or yaml."),
        weights: bool = Body(False, description="Weigh prompts by their score; not in txt."),
    ) -> Response:
        """200 {files: [{path, name, state, lines, is_ascii}], notes: [line, …]}."""
        written, notes = self._service.write_wildcards(folder, recursive, per_folder, format, weights)
        files = [{**asdict(file), "path": str(file.path)} for file in written]
        return as_response({"files": files, "notes": notes})

    def health(self) -> Response:
        """200 {version, host, note, facts, modes: {mode: null or what stands in its way}, roots, models}."""
        return as_response(self._service.status())

    def endpoints(self) -> Response:
        """200 {endpoints: [{name, reachable, usable, message, models}]}, asked now."""
        return as_response({"endpoints": self._service.endpoints()})

    def models(self) -> Response:
        """200 {own, models: [{name, kind, here, size_bytes, licence, command}], open_clip: [name, …]}.

        own: what interrogates where nobody names another. open_clip: names that can be fetched by as well.
        Nothing is fetched by asking: `command` does it.
        """
        from ..program import command
        from ..weights import listing

        known = [
            {
                "name": weights.name,
                "kind": weights.kind,
                "here": folder is not None,
                "size_bytes": weights.size_bytes,
                "licence": weights.licence,
                "command": command(f"models get {weights.name}"),
            }
            for weights, folder in listing()
        ]
        names = [*open_clip_models()]
        return as_response({"own": own_model(self._service.host), "models": known, "open_clip": names})


def _told(job: Job, kind: str) -> list[dict[str, Any]]:
    events = [event for event in job.events() if event["kind"] == kind]
    return [{"mode": event["mode"], "error": visible(event["error"])} for event in events]
