"""/v1/sidecars: what was found out about pictures below the roots. Nothing is computed, nothing written.

No `annotations` from the future here: FastAPI reads them.
"""

from typing import Any

from fastapi import APIRouter, Body, Query, Response

from ..errors import InputError, visible
from ..host import allowed
from ..service import Service
from ..sidecar import path_of, read
from . import described
from .described import answers
from .door import NotFound, as_response

_MOST = 1000


class Sidecars:
    def __init__(self, service: Service) -> None:
        self._service = service

    def add_to(self, routes: APIRouter) -> None:
        routes.get("/sidecars", responses=answers(described.SIDECAR))(self.one)
        routes.post("/sidecars", responses=answers(described.SIDECARS))(self.several)

    def one(self, path: str = Query(..., description="A picture below the roots.")) -> Response:
        """200 {path, sidecar}: as docs/sidecar.schema.json describes it, decrypted where the key is here.

        404 where there is none.
        """
        found = self._read(path)
        if found is None:
            raise NotFound(f"there is no sidecar of {visible(path)[:200]}: run a batch over its folder")
        return as_response({"path": path, "sidecar": found})

    def several(
        self,
        paths: list[str] = Body(..., embed=True, description=f"Pictures below the roots; {_MOST:,} at most."),
    ) -> Response:
        """200 {sidecars: [{path, sidecar}, …]}, in the order of the paths; null where there is none."""
        if len(paths) > _MOST:
            raise InputError(f"{len(paths):,} paths are too many: ask for {_MOST:,} at a time")
        return as_response({"sidecars": [{"path": path, "sidecar": self._read(path)} for path in paths]})

    def _read(self, path: str) -> dict[str, Any] | None:
        roots = self._service.host.roots
        picture = allowed(path, roots)
        return read(allowed(path_of(picture), roots))  # the sidecar, too, may be a link
