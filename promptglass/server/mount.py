"""promptglass's routes on a host's FastAPI app, whether it runs already or not.

Its own API and clip-interrogator-ext's are the host's routes, so that its /docs has them; all the rest that
`promptglass serve` answers is an app of its own below /promptglass.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING

from ..errors import DependencyMissing
from .access import Access
from .mounted import MOST_QUESTIONS, PATH, Mounted
from .room import Room

if TYPE_CHECKING:
    from fastapi import FastAPI

    from ..service import Service


def mount(
    app: FastAPI,
    service: Service,
    credentials: Callable[[], Mapping[str, str]],
    own_names: Collection[str],
    with_interrogator_ext: bool = False,
) -> None:
    """Once per app: again, nothing happens. credentials, own_names: see Access.

    with_interrogator_ext: clip-interrogator-ext's routes, too, unless that is here and has them already.
    Raises DependencyMissing.
    """
    try:
        from . import api, interrogator_ext
    except ModuleNotFoundError as error:
        if error.name != "fastapi":
            raise
        raise DependencyMissing("the HTTP API", "fastapi") from error
    if getattr(app.state, "has_promptglass", False):
        return
    access = Access(credentials, own_names, room=Room(MOST_QUESTIONS))
    routers = [api.router(service, access)]
    taken = {getattr(route, "path", "") for route in app.router.routes}
    if with_interrogator_ext and not any(path.startswith(interrogator_ext.PREFIX) for path in taken):
        routers.append(interrogator_ext.router(service, access))
    routes = app.router.routes
    count = len(routes)
    for router in routers:
        app.include_router(router)
    app.mount(PATH, Mounted(service, access))
    # First: what a host has mounted at "/", Gradio say, answers all that comes to it.
    routes[:] = [*routes[count:], *routes[:count]]
    app.openapi_schema = None  # it may have been drawn up without ours
    app.state.has_promptglass = True
