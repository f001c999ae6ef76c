"""`promptglass ui`: the page of the WebUI tab, in a window of its own."""

from __future__ import annotations

import argparse
import threading

from ..host import ROOTS_VARIABLE, Standalone, named_roots
from .choosing import add_server_options

_DESCRIPTION = f"""\
The page that A1111, Forge and reForge show as a tab, on a server of its own: one picture, whole folders,
labels, wildcards. Folders are read and written below --root DIR and the folders of {ROOTS_VARIABLE} only.

Nothing asks who you are: whoever reaches the address may use the page. Keep it on this machine
(--host 127.0.0.1, as without the option), or put something in front of it that asks."""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "ui",
        help="a page in the browser",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_server_options(command, 7870)
    command.add_argument("-v", "--verbose", action="store_true", help="say what happens, and tracebacks")
    command.set_defaults(run=_ui)


def _ui(arguments: argparse.Namespace) -> int:
    from ..service import Service
    from ..ui import build

    host = Standalone(named_roots(arguments.root), arguments.wildcards)
    page, launching = build(Service(host))
    from ..ui.gradio_versions import queue

    queue(page)
    launching |= {"server_name": arguments.host, "server_port": arguments.port, "quiet": True}
    _, address, _ = page.launch(prevent_thread_lock=True, share=False, **launching)
    print(f"promptglass: {address} (Ctrl-C ends it)", flush=True)
    try:
        threading.Event().wait()
    finally:
        page.close()
    return 0
