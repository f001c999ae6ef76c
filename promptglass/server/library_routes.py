"""/api/v1/…: images and prompts of a library, and CLIP for them. The shapes are those of a service that was
there before: its clients go on working, as fields are only added. An error is {"error": "one line"}.

No `annotations` from the future here: FastAPI reads them.
"""

import re
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Body, Path, Query, Request, Response

from ..analyzers import CLIP_MODES
from ..choice import CLIP_MODEL, Choice
from ..errors import InputError, PromptglassError, visible
from ..jobs import Job
from ..librarian import Librarian, NoSuchImage, Wanted
from ..library import Image, Library, Scanned
from ..library_files import Prompt, iso
from ..service import Service
from . import described
from .access import Access
from .clip_models import with_known_model
from .described import answers
from .door import UNEXPECTED, NotFound, as_response, door, result_of
from .library_access import BodilessPosts

PREFIX = "/api/v1"
_MOST = 1000  # on a page
_DEFAULT_MODEL = "clip"
_DEEPDANBOORU = "deepdanbooru"
# Other names than open_clip's, written in any way: "clip_vit_l_14", "CLIP-ViT-L/14".
_MODELS = {
    "clip_vit_l_14": CLIP_MODEL,
    "clip_vit_b_16": "ViT-B-16/openai",
    "clip_vit_b_32": "ViT-B-32/openai",
    "clip_vit_h_14": "ViT-H-14/laion2b_s32b_b79k",
}

# What fields mean: /docs says it.
_ID: Any = Path(..., description="An image, by its id in the library.")
_JOB: Any = Path(..., description="A job, by the id that its start told.")
_MODEL: Any = Body(None, description="“clip” or null for what is here, “deepdanbooru”, or CLIP by name.")
_MODE: Any = Body(None, description=f"One of {', '.join(CLIP_MODES)}; null: the best that can run here.")
_LIMIT = f"How many at a time; {_MOST:,} at most."
_FORCE: Any = Body(False, description="Ask again where an answer is known already.")


def router(service: Service, access: Access, library: Library) -> APIRouter:
    routes = APIRouter(prefix=PREFIX, tags=["library"], route_class=door(BodilessPosts.of(access)))
    librarian = Librarian(service, library)
    images, batches, prompts = _Images(librarian), _Interrogations(librarian), _Prompts(librarian)
    routes.post("/images/scan", responses=answers(described.SCANNED))(images.scan)
    routes.get("/images/scan/status", responses=answers(described.SCANNING))(images.status)
    job = described.INTERROGATION
    routes.post("/images/interrogate", status_code=202, responses=answers(job, 202))(batches.start)
    told = answers(described.INTERROGATION_WITH_RESULTS)
    routes.get("/images/interrogate/{job}", responses=told)(batches.show)
    routes.post("/images/interrogate/{job}/stop", responses=answers(job))(batches.stop)
    routes.get("/images", responses=answers(described.IMAGES))(images.listed)
    routes.get("/images/{id}", responses=answers(described.IMAGE))(images.one)
    found = answers(described.IMAGE_INTERROGATED)
    routes.post("/images/{id}/interrogate", responses=found)(images.interrogate)
    routes.get("/prompts/search", responses=answers(described.PROMPTS_FOUND))(prompts.search)
    routes.get("/prompts/image/{id}", responses=answers(described.PROMPTS))(prompts.of_image)
    able = {**answers(described.INTERROGATOR), **answers(described.NO_INTERROGATOR, 503)}
    routes.get("/clip/health", responses=able)(batches.health)
    return routes


class _Images:
    def __init__(self, librarian: Librarian) -> None:
        self._librarian = librarian

    def scan(
        self,
        request: Request,
        path: str = Body(..., description="A folder below those that may be used."),
        recursive: bool = Body(True, description="Folders within it, too."),
    ) -> Response:
        """200 {total_files, processed, skipped, errors, current_file; added, changed, updated, moved,
        missing, encrypted, prompts, failures: [{path, error}]}, when it is done. Whoever leaves stops it.
        """
        job = self._librarian.scan(path, recursive)
        return as_response(_scanned(result_of(job, request)))

    def status(self) -> Response:
        """200 {status: "scanning" or "idle", …}: the newest scan, whoever started it; fields as of scan."""
        job = next(iter(self._librarian.service.jobs.of("scan")), None)
        if job is None:
            return as_response({"status": "idle"})
        if job.state == "running":
            what, done, total = job.now or ("", 0, 0)
            counts = {"total_files": total, "processed": done, "skipped": 0, "errors": 0}
            return as_response({"status": "scanning", **counts, "current_file": visible(what)})
        return as_response({"status": "idle", **_scanned(job.result or asdict(Scanned()))})

    def listed(
        self,
        page: int = Query(1, ge=1, le=10**9, description="From 1 on."),
        limit: int = Query(50, ge=1, description=_LIMIT),
        q: str = Query("", description="Words of a file's name, or of a prompt."),
        missing: bool = Query(False, description="Those whose file is gone, too."),
    ) -> Response:
        """200 {images: [image, …], pagination: {page, limit, total, pages}}."""
        limit = min(limit, _MOST)
        asked = (q, self._librarian.roots, missing)
        images = self._librarian.library.images(limit, (page - 1) * limit, *asked)
        total = self._librarian.library.count(*asked)
        pagination = {"page": page, "limit": limit, "total": total, "pages": -(-total // limit)}
        return as_response({"images": [*map(_image, images)], "pagination": pagination})

    def one(self, id: str = _ID) -> Response:
        """200: the image."""
        return as_response(_image(_known(self._librarian, id)))

    def interrogate(
        self,
        request: Request,
        id: str = _ID,
        model: str | None = _MODEL,
        mode: str | None = _MODE,
        force: bool = _FORCE,
    ) -> Response:
        """200 {image_id, prompt, source, model; mode, score, answered_by, cached, comparison; note}.

        comparison: {embedded, embedded_score, similarity}, or null where no prompt is in the file. score and
        embedded_score: how close a prompt is to the picture; similarity: how close both are to each other.
        """
        _known(self._librarian, id)
        job = self._librarian.interrogate(id, _wanted(self._librarian, model, mode, force))
        try:
            return as_response(_interrogated(result_of(job, request), model))
        except NoSuchImage as error:
            raise NotFound(str(error)) from error


class _Interrogations:
    def __init__(self, librarian: Librarian) -> None:
        self._librarian = librarian

    def start(
        self,
        ids: list[str] | None = Body(None, description="Images, by their ids."),
        all: bool = Body(False, description="All of the library instead."),
        model: str | None = _MODEL,
        mode: str | None = _MODE,
        force: bool = _FORCE,
    ) -> Response:
        """202: the job. What has an answer already keeps it, so it can be stopped and started again."""
        if all == bool(ids):
            raise InputError('say which images: "ids": [id, …], or "all": true')
        wanted = _wanted(self._librarian, model, mode, force)
        return as_response(_told(self._librarian.interrogate_all(ids or None, wanted)), 202)

    def show(
        self,
        job: str = _JOB,
        after: int = Query(0, ge=0, description="Only results that came after the one of this id."),
    ) -> Response:
        """200: the job, with its results that came after the one of this id, as far as they are kept."""
        found = self._found(job)
        results = [event for event in found.events(after) if event["kind"] == "outcome"]
        return as_response({**_told(found), "results": results})

    def stop(self, job: str = _JOB) -> Response:
        """200: the job."""
        found = self._found(job)
        found.stop()
        return as_response(_told(found))

    def health(self) -> Response:
        """200 {status: "ok", service, available: true}; 503 with `reason` where nobody can interrogate."""
        if why := visible(self._librarian.why_unavailable()):
            told = {"status": "unavailable", "service": "clip", "available": False, "reason": why}
            return as_response(told, 503)
        return as_response({"status": "ok", "service": "clip", "available": True})

    def _found(self, id: str) -> Job:
        job = self._librarian.service.jobs.find(id)
        if job is None or job.kind != "interrogate-images":
            raise NotFound(f"there is no such job as {visible(id)[:64]!r}: it never was, or is long done")
        return job


class _Prompts:
    def __init__(self, librarian: Librarian) -> None:
        self._librarian = librarian

    def of_image(self, id: str = _ID) -> Response:
        """200 {image_id, prompts: [prompt, …]}, the oldest first."""
        image = _known(self._librarian, id)
        prompts = self._librarian.library.prompts_of(image.id)
        return as_response({"image_id": image.id, "prompts": [*map(_prompt, prompts)]})

    def search(
        self,
        q: str = Query("", description="Words that are all in the prompt."),
        limit: int = Query(50, ge=1, description=_LIMIT),
    ) -> Response:
        """200 {prompts: [prompt, …], count}: those that have all of the words, the best first."""
        if not q.strip():
            raise InputError("say what to look for: ?q=golden+light")
        found = self._librarian.library.search(q, min(limit, _MOST), self._librarian.roots)
        return as_response({"prompts": [*map(_prompt, found)], "count": len(found)})


def _known(librarian: Librarian, id: str) -> Image:
    try:
        return librarian.image(id)
    except NoSuchImage as error:
        raise NotFound(str(error)) from error


def _wanted(librarian: Librarian, model: str | None, mode: str | None, force: bool) -> Wanted:
    mode = (mode or "").strip().lower() or None
    if mode is not None and mode not in CLIP_MODES:
        raise InputError(
            f"there is no mode {visible(mode)[:60]!r} of CLIP: choose from {', '.join(CLIP_MODES)}"
        )
    asked = (model or "").strip()
    name = re.sub(r"[^a-z0-9]+", "_", asked.lower())
    if name == _DEEPDANBOORU:
        if mode is not None:
            raise InputError(f"{_DEEPDANBOORU} knows no modes: leave out mode")
        return Wanted(of_webui="webui/deepdanbooru", force=force)
    asked = "" if name == _DEFAULT_MODEL else _MODELS.get(name, asked)
    choice = with_known_model(Choice(model=asked), librarian.service.host)
    return Wanted(choice.model, mode, force=force)


def _interrogated(found: dict[str, Any], model: str | None) -> dict[str, Any]:
    theirs = {
        "image_id": found["image_id"],
        "prompt": found["prompt"],
        "source": "clip_interrogation",
        "model": model or _DEFAULT_MODEL,
    }
    ours = {name: value for name, value in found.items() if name != "note" or value}
    return {**theirs, **ours}


def _image(image: Image) -> dict[str, Any]:
    return {
        "id": image.id,
        "file_path": image.path,
        "file_name": re.split(r"[/\\]", image.path)[-1],
        "file_size": image.size_bytes,
        "width": image.width,
        "height": image.height,
        "format": image.format.lower(),
        "sha256": image.sha256,
        "created_at": image.added,
        "modified_at": iso(image.modified_ns),
        "missing_since": image.missing_since or None,
    }


def _prompt(prompt: Prompt) -> dict[str, Any]:
    return {
        "id": prompt.id,
        "image_id": prompt.image_id,
        "prompt_text": prompt.text,
        "negative_prompt": prompt.negative,
        "prompt_type": prompt.type,
        "created_at": prompt.created,
        "mode": prompt.mode,
        "model": prompt.model or None,
        "score": prompt.score,
        "settings": prompt.settings,
        "comparison": prompt.comparison,
    }


def _scanned(counts: dict[str, Any]) -> dict[str, Any]:
    """counts: a Scanned."""
    ours = ("added", "changed", "updated", "moved", "missing", "encrypted", "prompts")
    return {
        "total_files": counts["found"],
        "processed": sum(counts[name] for name in ours[:4]),
        "skipped": counts["unchanged"],
        "errors": counts["failed"],
        "current_file": None,
        **{name: counts[name] for name in ours},
        "failures": [{"path": path, "error": visible(error)} for path, error in counts["failures"]],
    }


def _told(job: Job) -> dict[str, Any]:
    """A job as JSON: {id, kind, state, error, progress, result}."""
    is_expected = job.failure is None or isinstance(job.failure, PromptglassError)
    error = visible(job.error) if job.error else None
    return {**job.as_json(), "error": error if is_expected else UNEXPECTED}
