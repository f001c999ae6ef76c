"""/interrogator/…: the routes of clip-interrogator-ext, for the clients it has. Questions and answers are its
own; a failure is {"detail": "one line"} with a status, never a text in `prompt`.

No `annotations` from the future here: FastAPI reads them.
"""

from typing import Any

from fastapi import APIRouter, Body, Request, Response

from ..choice import Choice
from ..errors import InputError, visible
from ..service import Service
from . import described
from .access import Access
from .clip_models import open_clip_models, own_model, with_known_model
from .described import answers
from .door import as_response, door, result_of
from .uploads import picture_of

PREFIX = "/interrogator"
MODES = ("best", "fast", "classic", "negative", "caption")
_TABLES = {
    "medium": "mediums",
    "artist": "artists",
    "movement": "movements",
    "trending": "trendings",
    "flavor": "flavors",
}
_DEFAULT_MODEL = "ViT-L-14/openai"  # theirs, of a client that names none


def router(service: Service, access: Access) -> APIRouter:
    shaped = door(access, lambda line: {"detail": line})
    routes = APIRouter(prefix=PREFIX, tags=["clip-interrogator-ext"], route_class=shaped)
    extension = _Extension(service)
    routes.get("/models", responses=answers([_DEFAULT_MODEL], failure="detail"))(extension.models)
    routes.post("/prompt", responses=answers({"prompt": "a cat on a mat, …"}, failure="detail"))(
        extension.prompt
    )
    routes.post("/analyze", responses=answers(described.TABLES, failure="detail"))(extension.analyze)
    return routes


def _image() -> Any:
    return Body("", description="The picture's file as base64, or a data: address.")


def _model() -> Any:
    return Body(_DEFAULT_MODEL, description="CLIP by name, as GET /interrogator/models lists them.")


class _Extension:
    def __init__(self, service: Service) -> None:
        self._service = service

    def models(self) -> Response:
        """200 [name, …], the host's own first."""
        names = dict.fromkeys([own_model(self._service.host), *open_clip_models()])
        return as_response([*names])

    def prompt(
        self,
        request: Request,
        image: str = _image(),
        clip_model_name: str = _model(),
        mode: str = Body("fast", description=f"One of {', '.join(MODES)}."),
    ) -> Response:
        """200 {prompt}."""
        if mode not in MODES:
            raise InputError(f"there is no mode {visible(mode)[:60]!r}: choose from {', '.join(MODES)}")
        return as_response({"prompt": self._answer(request, image, clip_model_name, mode)["text"]})

    def analyze(
        self,
        request: Request,
        image: str = _image(),
        clip_model_name: str = _model(),
    ) -> Response:
        """200 {medium, artist, movement, trending, flavor}: the best five labels each, with their cosines."""
        tables = self._answer(request, image, clip_model_name, "tables")["tables"]
        return as_response({name: tables.get(table, {}) for name, table in _TABLES.items()})

    def _answer(self, request: Request, image: str, model: str, mode: str) -> dict[str, Any]:
        choice = with_known_model(Choice([mode], model), self._service.host)
        (answer,) = result_of(self._service.interrogate(picture_of(image), choice), request)["answers"]
        return answer
