"""A browser's part in gradio's protocol, of any version: events by way of the queue, and their answers.

Not gradio's own client: it refuses what is no public API, and no handler of ours is.
"""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio
import requests

MAJOR = int(gradio.__version__.split(".")[0])
Answer = dict[Any, Any]  # component to its value; parts that did not change are left out


class Page:
    """A page that is served while this is entered."""

    def __init__(self, blocks: Any, url: str = "") -> None:
        self._blocks, self._url = blocks, url
        self._session = uuid.uuid4().hex

    def __enter__(self) -> Page:
        from promptglass.ui.gradio_versions import queue

        queue(self._blocks)
        os.environ.update(no_proxy="127.0.0.1,localhost", GRADIO_ANALYTICS_ENABLED="False")
        _, url, _ = self._blocks.launch(prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
        self._url = url.rstrip("/") + ("/gradio_api" if MAJOR >= 5 else "")
        return self

    def __exit__(self, *_: object) -> None:
        self._blocks.close()

    def another(self) -> Page:
        """Somebody else's, of the same server."""
        return Page(self._blocks, self._url)

    def upload(self, path: Path) -> Any:
        """What a File sends for an uploaded file."""
        with path.open("rb") as file:
            answer = requests.post(f"{self._url}/upload", files={"files": (path.name, file)}, timeout=30)
        (place,) = answer.json()
        if MAJOR < 4:
            return {"name": place, "orig_name": path.name, "is_file": True, "data": None}
        return {"path": place, "orig_name": path.name, "meta": {"_type": "gradio.FileData"}}

    def call(self, handler: Callable[..., Any], inputs: list[Any], is_queued: bool = True) -> list[Answer]:
        """Everything a handler says. None for what is kept on the server."""
        if is_queued:
            return [*self.each(handler, inputs)]
        index, outputs = self._find(handler)
        return [_told(outputs, self._at_once(self._asked(index, inputs)))]

    def each(self, handler: Callable[..., Any], inputs: list[Any]) -> Iterator[Answer]:
        """What a handler says, as it comes."""
        index, outputs = self._find(handler)
        asked = self._asked(index, inputs)
        whole: list[Any] = []
        for data in self._by_socket(asked) if MAJOR < 4 else self._by_stream(asked):
            whole = _patched(whole, data)
            yield _told(outputs, whole)

    def _asked(self, index: int, inputs: list[Any]) -> dict[str, Any]:
        return {"fn_index": index, "data": inputs, "session_hash": self._session, "event_data": None}

    def _find(self, handler: Callable[..., Any]) -> tuple[int, list[Any]]:
        known = self._blocks.fns
        numbered = known.items() if isinstance(known, dict) else enumerate(known)
        index = next(index for index, function in numbered if function.fn == handler)
        if MAJOR < 4:
            ids = self._blocks.dependencies[index]["outputs"]
            return index, [self._blocks.blocks[id_] for id_ in ids]
        return index, [*known[index].outputs]

    def _at_once(self, asked: dict[str, Any]) -> Any:
        answer = requests.post(f"{self._url}/run/predict", json=asked, timeout=30)
        assert answer.ok, answer.text
        return answer.json()["data"]

    def _by_stream(self, asked: dict[str, Any]) -> Iterator[Any]:
        joined = requests.post(f"{self._url}/queue/join", json={**asked, "trigger_id": None}, timeout=30)
        assert joined.ok, joined.text
        heard = requests.get(
            f"{self._url}/queue/data", params={"session_hash": self._session}, stream=True, timeout=60
        )
        with contextlib.closing(heard):
            for line in heard.iter_lines():
                if not line.startswith(b"data:"):
                    continue
                message = json.loads(line[5:])
                if message["msg"] in ("process_generating", "process_completed"):
                    assert message["success"], message
                    if message["output"].get("data"):
                        yield message["output"]["data"]
                if message["msg"] == "process_completed":
                    return

    def _by_socket(self, asked: dict[str, Any]) -> Iterator[Any]:
        from websockets.sync.client import connect

        with connect(f"{self._url.replace('http', 'ws', 1)}/queue/join", max_size=None) as socket:
            while True:
                message = json.loads(socket.recv(60))
                if message["msg"] == "send_hash":
                    socket.send(json.dumps({"fn_index": asked["fn_index"], "session_hash": self._session}))
                elif message["msg"] == "send_data":
                    socket.send(json.dumps(asked))
                elif message["msg"] in ("process_generating", "process_completed"):
                    assert message["success"], message
                    if message["output"].get("data"):
                        yield message["output"]["data"]
                if message["msg"] == "process_completed":
                    return


def _told(outputs: list[Any], data: list[Any]) -> Answer:
    told: Answer = {}
    for component, value in zip(outputs, data, strict=True):
        is_update = isinstance(value, dict) and value.get("__type__") == "update"
        if not is_update:
            told[component] = value
        elif "value" in value:
            told[component] = value["value"]
    return told


def _patched(whole: list[Any], data: Any) -> list[Any]:
    """gradio 4 and newer send what has changed since the last answer, as lists of [action, path, value]."""
    if not whole or not all(_is_patch(part) for part in data):
        return data
    return [_apply(old, part) for old, part in zip(whole, data, strict=True)]


def _is_patch(part: Any) -> bool:
    return isinstance(part, list) and all(
        isinstance(step, list) and len(step) == 3 and step[0] in ("replace", "append", "add", "delete")
        for step in part
    )


def _apply(old: Any, steps: list[Any]) -> Any:
    holder = {"": json.loads(json.dumps(old))}
    for action, path, value in steps:
        at: Any = holder
        *before, last = ["", *path]
        for step in before:
            at = at[step]
        if action == "delete":
            del at[last]
        elif action == "append":
            at[last] += value
        elif action == "add" and isinstance(at, list):
            at.insert(last, value)
        else:
            at[last] = value
    return holder[""]
