"""/sdapi/v1/interrogate, as A1111 and Forge have it, for whatever was written for them. A failure is a status
with {"detail": "one line"}, never a caption.

No `annotations` from the future here: FastAPI reads them.
"""

from typing import Any, Literal

from fastapi import APIRouter, Body, Request, Response

from ..choice import Choice
from ..errors import visible
from ..service import Service
from .access import Access
from .described import answers
from .door import NotFound, as_response, door, result_of
from .uploads import picture_of

PREFIX = "/sdapi/v1"
# What a WebUI's own CLIP says: a caption, then the best artist, medium, movement and flavors.
_MODES: dict[str, Literal["classic", "tags"]] = {"clip": "classic", "deepdanbooru": "tags"}


def router(service: Service, access: Access) -> APIRouter:
    shaped = door(access, lambda line: {"detail": line})
    routes = APIRouter(prefix=PREFIX, tags=["sdapi"], route_class=shaped)
    api = _Sdapi(service)
    routes.post("/interrogate", responses=answers({"caption": "a cat on a mat, …"}, failure="detail"))(
        api.interrogate
    )
    # Clients look for a WebUI's API by asking it for something that costs nothing.
    routes.get("/samplers", responses=answers([], failure="detail"))(api.samplers)
    return routes


class _Sdapi:
    def __init__(self, service: Service) -> None:
        self._service = service

    def interrogate(
        self,
        request: Request,
        image: str = Body("", description="The picture's file as base64, or a data: address."),
        model: str = Body("clip", description="“clip”, or “deepdanbooru” for tags."),
    ) -> Response:
        """200 {caption}: for "clip" a caption and the best labels, for "deepdanbooru" tags."""
        if model not in _MODES:
            raise NotFound(f"Model not found: {visible(model)[:60]!r} is neither clip nor deepdanbooru")
        picture = picture_of(image)
        choice = Choice(modes=[_MODES[model]], tagger=self._tagger())
        found = result_of(self._service.interrogate(picture, choice), request)
        return as_response({"caption": ", ".join(_texts(found))})

    def samplers(self) -> Response:
        """200 []: nothing is generated here."""
        return as_response([])

    def _tagger(self) -> str:
        """One that knows danbooru's tags, where one is here."""
        from ..analyzers import TagsAnalyzer
        from ..weights import listing

        here = [weights.name for weights, folder in listing() if weights.kind == "tags" and folder]
        runnable = [name for name in here if not TagsAnalyzer(name).obstacles("tags")]
        return runnable[0] if runnable else "starter"


def _texts(found: dict[str, Any]) -> list[str]:
    return [answer["text"] for answer in found["answers"]]
