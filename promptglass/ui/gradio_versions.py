"""All that differs between gradio 3.41 (A1111, reForge), 4.40 (Forge), 5 and 6.

Told apart by the version's number and by signatures: Forge patches names of gradio 3 back in.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio

MAJOR = int(gradio.__version__.split(".")[0])

Updates = dict[Any, Any]  # what a handler returns: component to what becomes of it

update: Callable[..., Any] = gradio.update


def make(kind: str, **settings: Any) -> Any:
    """A component or a layout, without those settings that this gradio does not know."""
    of_class = getattr(gradio, kind)
    if settings.pop("copy_button", False):
        settings |= {"buttons": ["copy"]} if MAJOR >= 6 else {"show_copy_button": True}
    if kind == "HTML":
        settings |= {"elem_classes": ["html-of-promptglass"], "padding": False, "apply_default_css": False}
    made = of_class(**_known(of_class.__init__, settings))
    # A1111 and Forge would keep labels and values in ui-config.json, by label: ours repeat.
    made.do_not_save_to_config = True
    return made


def on(
    event: Callable[..., Any],
    handler: Callable[..., Any],
    inputs: Sequence[Any] = (),
    outputs: Sequence[Any] = (),
    is_queued: bool = True,
) -> Any:
    """Runs a handler; on(on(…).then, …) goes on after it.

    Any number of people may be at it at once, and it is no part of the page's public API.
    """
    settings: dict[str, Any] = {"fn": handler, "inputs": [*inputs], "outputs": [*outputs]}
    quiet = {"show_progress": "hidden", "queue": is_queued, "concurrency_limit": None, "show_api": False}
    private = {"api_visibility": "private"} if MAJOR >= 6 else {"api_name": False}
    return event(**settings, **_known(event, {**quiet, **private}))


def blocks(title: str) -> tuple[Any, dict[str, Any]]:
    """An empty page, and what launch() is to be given for it."""
    made = gradio.Blocks(**_known(gradio.Blocks.__init__, {"title": title, "analytics_enabled": False}))
    # What gradio would offer besides: its API, which we have a better one for, and itself.
    return made, _known(made.launch, {"show_api": False, "footer_links": []})


def queue(page: Any) -> Any:
    """For a page of our own; a host queues its own."""
    return page.queue(concurrency_count=16) if MAJOR < 4 else page.queue()


def path_of(file: Any) -> str | None:
    """Where the value of a File lies: 3.x gives an open file, later ones its path."""
    return None if file is None else str(getattr(file, "name", file))


def name_of(file: Any) -> str:
    """How the user's own file is called."""
    return Path(str(path_of(file))).name


def chosen(value: Any, choices: Sequence[str]) -> dict[str, Any]:
    """The settings of a Dropdown or Radio; a value that is none of the choices is left out."""
    return {"choices": [*choices], "value": value if value in choices else (choices[0] if choices else None)}


def _known(function: Callable[..., Any], settings: dict[str, Any]) -> dict[str, Any]:
    names = inspect.signature(function).parameters
    return {name: value for name, value in settings.items() if name in names}
