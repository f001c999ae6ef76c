"""/docs and /openapi.json, for whoever may ask the rest; /healthz, for whatever watches the service.

No `annotations` from the future here: FastAPI reads them.
"""

from fastapi import APIRouter, FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import Response

from .access import Visits
from .door import as_response, door


def add_docs(app: FastAPI, visits: Visits) -> None:
    routes = APIRouter(route_class=door(visits))

    def docs() -> Response:
        return get_swagger_ui_html(openapi_url="openapi.json", title="promptglass")

    def openapi(request: Request) -> Response:
        # Below a path of a host's server, what is asked from here must go there.
        below = request.scope.get("root_path", "")
        return as_response({**app.openapi(), **({"servers": [{"url": below}]} if below else {})})

    routes.get("/docs", include_in_schema=False)(docs)
    routes.get("/openapi.json", include_in_schema=False)(openapi)
    app.include_router(routes)
    app.get("/healthz", include_in_schema=False)(_is_alive)


async def _is_alive() -> Response:
    """Asked without a key, it tells nothing else."""
    return as_response({"status": "ok"})
