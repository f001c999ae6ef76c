"""What a WebUI calls, by way of scripts/promptglass_webui.py: the tab, the settings, the routes.

"Reload UI" calls all of it again with a new app, while this module stays: nothing here is done twice to one
app. Jobs that wait go on; the one whose turn it is ends, as the host interrupts whatever runs.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from ..guard import own_names
from ..service import Service
from . import running, settings


def register() -> None:
    """Called at every start, and at every "Reload UI"."""
    from modules import script_callbacks

    script_callbacks.on_ui_settings(lambda: settings.register([str(root) for root in service().host.roots]))
    script_callbacks.on_app_started(started)


@lru_cache(maxsize=1)
def service() -> Service:
    from .host import WebUI

    return Service(WebUI())


def tabs() -> list[tuple[Any, str, str]]:
    """As the host takes tabs."""
    from ..ui import build

    blocks, _ = build(service(), settings.defaults(), send_to=True)
    return [(blocks, "promptglass", "promptglass")]


def started(_: Any, app: Any) -> None:
    """The host's web server is there."""
    from ..server.mount import mount

    mount(
        app,
        service(),
        running.credentials,
        own_names(running.listens()),
        with_interrogator_ext=not running.has_extension("clip-interrogator-ext"),
    )
