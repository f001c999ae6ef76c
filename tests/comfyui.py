"""A real ComfyUI for tests: started in a folder of its own, spoken to as a browser does, ended for good.

    with running_host(base, {"my pack": folder}) as host:
        run = host.run(graph)

COMFYUI names its folder, and the Python that runs the tests must have its requirements: `.ci/comfyui` makes
both.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

COMFYUI = Path(os.environ["COMFYUI"]) if os.environ.get("COMFYUI") else None
is_here = COMFYUI is not None and importlib.util.find_spec("torchsde") is not None

_FLAGS = ("--cpu", "--disable-api-nodes", "--disable-auto-launch", "--database-url", "sqlite:///:memory:")
_START_S = 120
_RUN_S = 120
_LAST = ("execution_success", "execution_error", "execution_interrupted")

Graph = dict[str, dict[str, Any]]  # what POST /prompt takes: node id to class_type and inputs


class Refused(Exception):
    """The host did not queue a graph; `reply` is what it said."""

    def __init__(self, reply: Any) -> None:
        super().__init__(json.dumps(reply)[:2000])
        self.reply = reply


@dataclass(frozen=True)
class Run:
    """A graph that was run: the websocket's messages about it, and the host's own record."""

    prompt_id: str
    events: list[tuple[str, dict[str, Any]]]
    record: dict[str, Any]
    seconds: float

    @property
    def status(self) -> str:
        return self.record["status"]["status_str"]

    @property
    def error(self) -> str:
        """What the node that failed said; empty where none did."""
        said = (told["exception_message"] for kind, told in self.events if kind == "execution_error")
        return next(said, "").strip()

    @property
    def computed(self) -> list[str]:
        """The nodes that ran, rather than being remembered."""
        return [told["node"] for kind, told in self.events if kind == "executing" and told.get("node")]

    def ui(self, node: str) -> dict[str, Any]:
        """What a node had drawn on itself."""
        return self.record["outputs"][node]


class Host:
    def __init__(self, url: str, base: Path, log: Path) -> None:
        self.url = url
        self.base = base
        self.log = log
        self._client_id = uuid.uuid4().hex

    def get(self, path: str, **options: Any) -> requests.Response:
        return requests.get(self.url + path, timeout=30, **options)

    def post(self, path: str, content: Any, **options: Any) -> requests.Response:
        return requests.post(self.url + path, json=content, timeout=30, **options)

    def node_types(self) -> dict[str, Any]:
        return self.get("/object_info").json()

    def history(self, prompt_id: str) -> dict[str, Any] | None:
        return self.get(f"/history/{prompt_id}").json().get(prompt_id)

    def upload(self, name: str, content: bytes, subfolder: str = "") -> str:
        """Puts a picture among the host's inputs, and says how a widget names it."""
        form = {"type": "input", "overwrite": "true", "subfolder": subfolder}
        reply = requests.post(
            f"{self.url}/upload/image", data=form, files={"image": (name, content)}, timeout=30
        )
        reply.raise_for_status()
        return "/".join(filter(None, (reply.json()["subfolder"], reply.json()["name"])))

    def run(self, graph: Graph, interrupt_at: str = "") -> Run:
        """Runs a graph to its end. interrupt_at: at the first message of this kind, as the button does.

        Raises Refused.
        """
        return asyncio.run(self._run(graph, interrupt_at))

    async def _run(self, graph: Graph, interrupt_at: str) -> Run:
        import aiohttp

        started = time.monotonic()
        events: list[tuple[str, dict[str, Any]]] = []
        waiting = aiohttp.ClientTimeout(total=_RUN_S)
        async with (
            aiohttp.ClientSession(timeout=waiting) as session,
            session.ws_connect(f"{self.url}/ws?clientId={self._client_id}") as messages,
        ):
            asked = {"prompt": graph, "client_id": self._client_id}
            async with session.post(f"{self.url}/prompt", json=asked) as reply:
                said = await reply.json()
            if reply.status != 200:
                raise Refused(said)
            prompt_id = said["prompt_id"]
            while not events or events[-1][0] not in _LAST:
                message = await messages.receive(timeout=_RUN_S)
                if message.type != aiohttp.WSMsgType.TEXT:
                    continue  # a preview
                told = json.loads(message.data)
                kind, about = told["type"], told.get("data") or {}
                if about.get("prompt_id") != prompt_id or kind == "progress_state":
                    continue
                events.append((kind, about))
                if kind == interrupt_at:
                    interrupt_at = ""
                    await session.post(f"{self.url}/interrupt", json={"prompt_id": prompt_id})
        return Run(prompt_id, events, self.recorded(prompt_id), time.monotonic() - started)

    def recorded(self, prompt_id: str) -> dict[str, Any]:
        """The record of a run, which is written a moment after its last message."""
        ends = time.monotonic() + _RUN_S
        while time.monotonic() < ends:
            record = self.history(prompt_id)
            if record is not None:
                return record
            time.sleep(0.02)
        raise TimeoutError(f"no record of {prompt_id} after {_RUN_S} s\n{self.end_of_log()}")

    def end_of_log(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")[-4000:]


@contextlib.contextmanager
def running_host(
    base: Path, packs: Mapping[str, Path], environment: Mapping[str, str] | None = None
) -> Iterator[Host]:
    """ComfyUI with these packs (name to folder) and nothing else, on a free port of loopback."""
    assert COMFYUI is not None
    for name, folder in packs.items():
        place = base / "custom_nodes" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(folder, target_is_directory=True)
    port = _free_port()
    place = ("--listen", "127.0.0.1", "--port", str(port), "--base-directory", str(base))
    offline = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "no_proxy": "*"}
    log = base / "host.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "main.py", *place, *_FLAGS],
            cwd=COMFYUI,
            env={**os.environ, **offline, **(environment or {})},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that it ends with all that it started
        )
    host = Host(f"http://127.0.0.1:{port}", base, log)
    try:
        _wait_for(host, process)
        yield host
    finally:
        _end(process)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _wait_for(host: Host, process: subprocess.Popen[bytes]) -> None:
    ends = time.monotonic() + _START_S
    while time.monotonic() < ends and process.poll() is None:
        with contextlib.suppress(requests.ConnectionError):
            if host.get("/system_stats").ok:
                return
        time.sleep(0.1)
    ended = process.poll()
    state = f"ended with {ended}" if ended is not None else f"does not answer after {_START_S} s"
    raise RuntimeError(f"ComfyUI {state}. Its log ends:\n{host.end_of_log()}")


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


# What the frontend draws but never sends.
_ONLY_DRAWN = {"Note", "MarkdownNote"}
_WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}


def graph_of(workflow: dict[str, Any], node_types: Mapping[str, Any]) -> Graph:
    """What the frontend sends when a workflow in its own format is queued."""
    links = {link[0]: [str(link[1]), link[2]] for link in workflow["links"]}
    graph: Graph = {}
    for node in workflow["nodes"]:
        if node["type"] in _ONLY_DRAWN:
            continue
        slots = (slot for slot in node.get("inputs", []) if slot.get("link") is not None)
        linked = {slot["name"]: links[slot["link"]] for slot in slots}
        inputs = {**_widget_values(node, node_types[node["type"]]), **linked}
        graph[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return graph


def _widget_values(node: dict[str, Any], node_type: dict[str, Any]) -> dict[str, Any]:
    """A node's widgets by name; the frontend keeps their values in one list, in the order of the inputs."""
    values = node.get("widgets_values") or []
    if isinstance(values, dict):
        return values
    given = iter(values)
    found = {}
    for name, kind, options in _inputs(node_type):
        if not _is_widget(kind, options):
            continue
        # Widgets that were appended since it was saved have their defaults.
        found[name] = next(given, options.get("default"))
        has_companion = options.get("image_upload") or _has_control(name, kind, options)
        if has_companion:
            next(given, None)  # the upload button, or "randomize" and the like
    return found


def _inputs(node_type: dict[str, Any]) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    for group in ("required", "optional"):
        for name in node_type["input_order"].get(group, []):
            kind, *options = node_type["input"][group][name]
            yield name, kind, options[0] if options else {}


def _is_widget(kind: Any, options: dict[str, Any]) -> bool:
    return (isinstance(kind, list) or kind in _WIDGETS) and not options.get("forceInput")


def _has_control(name: str, kind: Any, options: dict[str, Any]) -> bool:
    return kind == "INT" and options.get("control_after_generate", name in ("seed", "noise_seed"))
