"""A host whose CLIP needs no model, served as it would be: on a port of loopback, by uvicorn."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import APIRouter, FastAPI
from PIL import Image

from promptglass.choice import Choice
from promptglass.clip.analyzer import ClipAnalyzer
from promptglass.errors import InputError
from promptglass.host import Standalone
from promptglass.jobs import Job
from promptglass.progress import Progress
from promptglass.server.access import Access
from promptglass.service import Service

OPEN = Access(dict, {"gpu-box"})


class LabelHost(Standalone):
    def clip(self, choice: Choice, progress: Progress) -> ClipAnalyzer:
        return ClipAnalyzer("labels", "blip-large", is_here=True)


class LabelService(Service):
    """Its CLIP finds the first labels of a list, whatever is in the picture. asked: what it was told.

    failure: what label() fails with instead. working: set while it works, which lasts until released is.
    """

    def __init__(self, roots: Sequence[Path] = (), confidences: Sequence[float] = (0.4012, 0.2108, 0.0042)):
        super().__init__(LabelHost(roots=roots))
        self.confidences = confidences
        self.asked: list[Mapping[str, Any]] = []
        self.failure: Exception | None = None
        self.working, self.released, self.stopped = threading.Event(), threading.Event(), threading.Event()
        self.released.set()

    def label(self, picture: Any, categories: Any = (), labels: str = "", top: int = 5, choice: Any = None):
        from promptglass.clip.classifier import categories as built_in
        from promptglass.clip.classifier import parse_labels
        from promptglass.emoji import emoji_of

        self.asked.append({"size": picture.image.size, "top": top, "choice": choice, "labels": labels})
        sets = {name: dict.fromkeys(built_in()[name].labels, "") for name in categories}
        if labels:
            sets["labels"] = parse_labels(labels)
        if not sets:
            raise InputError("there is nothing to choose from")

        def found(stated: Mapping[str, str]) -> list[dict[str, Any]]:
            return [
                {"label": label, "confidence": confidence, "score": 0.2, "emoji": emoji or emoji_of(label)}
                for (label, emoji), confidence in zip(stated.items(), self.confidences, strict=False)
            ][:top]

        def work(job: Job) -> dict[str, Any]:
            if self.failure is not None:
                raise self.failure
            self.working.set()
            while not self.released.wait(0.02):
                if job.is_stopping:
                    self.stopped.set()
                job.check()
            return {"picture": picture.name, "categories": {name: found(of) for name, of in sets.items()}}

        return self.jobs.start("label", work)


def picture(kind: str = "PNG", size: tuple[int, int] = (20, 10)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, "red").save(file, kind)
    return file.getvalue()


def app_of(*routers: APIRouter) -> FastAPI:
    app = FastAPI()
    for router in routers:
        app.include_router(router)
    return app


async def _as_it_is(request: Any, call_next: Any) -> Any:
    return await call_next(request)


@contextlib.contextmanager
def served(*routers: APIRouter, is_behind: bool = False) -> Iterator[int]:
    """The port. is_behind: the app has a middleware of Starlette's, as WebUIs do."""
    app = app_of(*routers)
    if is_behind:
        app.middleware("http")(_as_it_is)
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_level="critical", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(10)
        listening.close()


def shell(command: str, folder: Path, said_port: int, port: int) -> str:
    """What a line of a README prints. The port that it names is led to ours, by curl's own settings."""
    (folder / ".curlrc").write_text(f'silent\nconnect-to = "localhost:{said_port}:127.0.0.1:{port}"\n')
    environment = {**os.environ, "CURL_HOME": str(folder), "no_proxy": "*"}
    done = subprocess.run(
        command,
        shell=True,
        cwd=folder,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=True,
    )
    return done.stdout
