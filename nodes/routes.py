"""/promptglass/… on the host's server: JSON in and out, and an error is one line.

No handler blocks: disks and endpoints are asked on other threads, pictures are interrogated in the host's own
queue. Requests name pictures as the host does; there is no path in any of them.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import uuid
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..promptglass import __version__
from ..promptglass.errors import ImageError, InputError, ModelError, PromptglassError, one_line, visible
from ..promptglass.guard import own_names, refusal
from . import host, jobs
from .history import of_prompt, results

if TYPE_CHECKING:
    from aiohttp import web

    from . import asgi

log = logging.getLogger("promptglass")

Answer = tuple[int, dict[str, Any]]
Handler = Callable[["web.Request"], Awaitable[Answer]]

_MOST_BYTES = 64 * 1024  # of a question
_QUEUE_S = 30.0
_HISTORY_S = 2.0
_making_app = threading.Lock()
_STATUS = ((ImageError, 404), (InputError, 400), (ModelError, 409), (PromptglassError, 502))


def register() -> None:
    """Called once, while the host loads its nodes; its server is there, but does not run yet."""
    from server import PromptServer

    routes = PromptServer.instance.routes
    routes.post("/promptglass/interrogate")(_guarded(_interrogate))
    routes.get("/promptglass/jobs/{prompt_id}")(_guarded(_job))
    routes.get("/promptglass/results")(_guarded(_results))
    routes.get("/promptglass/health")(_guarded(_health))
    routes.get("/promptglass/endpoints")(_guarded(_endpoints))
    routes.get("/promptglass/wildcards")(_guarded(_wildcards))
    routes.route("*", "/promptglass/{below:.*}")(_service)  # all that is none of those
    PromptServer.instance.app.on_response_prepare.append(_keep_modules_fresh)


def _guarded(answer: Handler) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(request: web.Request) -> web.Response:
        from aiohttp import web

        refused = refusal(request.method, request.headers, names_of_host())
        if refused:
            status, content = refused[0], {"error": refused[1]}
        else:
            status, content = await _answered(answer, request)
        return web.json_response(content, status=status, headers={"Cache-Control": "no-store"})

    return handle


async def _answered(answer: Handler, request: web.Request) -> Answer:
    try:
        return await answer(request)
    except PromptglassError as error:
        status = next(status for kind, status in _STATUS if isinstance(error, kind))
        return status, {"error": str(error)}
    except ImportError as error:
        missing = error.name or one_line(error)
        return 500, {"error": f"{missing} is not in ComfyUI's Python. Run the pack's install.py with it."}
    except Exception:
        log.exception("%s %s failed", request.method, request.path)
        return 500, {"error": "promptglass failed. ComfyUI's console says where; please report it."}


def names_of_host() -> set[str]:
    from comfy.cli_args import args

    return own_names(str(args.listen).split(","))


async def _keep_modules_fresh(request: web.Request, response: web.StreamResponse) -> None:
    """The host lets no browser keep .js and .css, but says nothing of .mjs: an update would mix them."""
    if request.path.endswith(".mjs") and "/promptglass/" in request.path:
        response.headers.setdefault("Cache-Control", "no-cache")


async def _service(request: web.Request) -> web.StreamResponse:
    """What `promptglass serve` answers. It is imported, and made, when somebody first asks."""
    from . import asgi, turns

    app = await _on_thread(_service_app)
    turns.asked_with.set(request.headers)
    return await asgi.answer(app, request, "/promptglass")


def _service_app() -> asgi.App:
    with _making_app:  # or two who ask first would have one each
        from .api import app

        return app()


# -- interrogate ---------------------------------------------------------------------------------------------


async def _interrogate(request: web.Request) -> Answer:
    asked = await _body(request)
    picture = jobs.Picture.parsed(asked.get("image"))
    mode, client_id = asked.get("mode") or "fast", asked.get("client_id")
    if not isinstance(mode, str) or not isinstance(client_id, (str, type(None))):
        raise InputError("mode and client_id must be text.")
    graph = await _on_thread(_graph, picture, mode)
    return 202, {"prompt_id": await queue(graph, client_id, request.headers)}


async def _body(request: web.Request) -> dict[str, Any]:
    received = bytearray()
    async for chunk in request.content.iter_chunked(8192):
        received += chunk
        if len(received) > _MOST_BYTES:
            raise InputError(
                f"the question is longer than {_MOST_BYTES // 1024} KB. Ask for one image at a time."
            )
    try:
        asked = json.loads(received)
    except (ValueError, RecursionError) as error:
        raise InputError(f"the question is not JSON: {one_line(error)}") from error
    if not isinstance(asked, dict):
        raise InputError("the question must be a JSON object with image and mode.")
    return asked


def _graph(picture: jobs.Picture, mode: str) -> dict[str, Any]:
    from . import NODE_CLASS_MAPPINGS

    picture.check(host.folder_of(picture.type))
    plan = jobs.plan(mode, *best_clip(), _is_here)
    inputs = NODE_CLASS_MAPPINGS["PromptglassInterrogate"].INPUT_TYPES()["required"]
    return jobs.graph(picture, mode, plan, inputs)


def best_clip() -> tuple[jobs.Pair | None, str | None]:
    """The host's pair, and a model of the engine, as far as they are here and are a good choice."""
    pair = _pair()
    return jobs.best_clip(pair, _is_here, pair is None or _has_projection(pair))


def _pair() -> jobs.Pair | None:
    from folder_paths import get_filename_list

    return jobs.find_pair(get_filename_list("text_encoders"), get_filename_list("clip_vision"))


def _has_projection(pair: jobs.Pair) -> bool:
    """As far as files tell: most text encoders lack theirs, SDXL's clip_g is the exception."""
    from ..promptglass.clip.projections import PUBLISHED, find_projection

    if pair.clip == pair.clip_vision or "clip_g" in pair.clip.lower():
        return True
    return find_projection(PUBLISHED["clip_l"][0], host.model_files().values()) is not None


def _is_here(model: str) -> bool:
    from ..promptglass.weights import local_path

    return local_path(model) is not None


async def queue(
    graph: dict[str, Any], client_id: str | None, asked_with: Mapping[str, str], front: bool = True
) -> str:
    """Through the host's own door: what its queue holds inside changes from version to version.

    asked_with: the headers of whoever asked for it.
    """
    import aiohttp
    from comfy.cli_args import args
    from server import PromptServer

    server = PromptServer.instance
    url = loopback_url(server.address, server.port, bool(args.tls_keyfile and args.tls_certfile))
    question = {"prompt": graph, "front": front, "extra_data": {}}
    # Without one, every browser would be told of it, and take its nodes and errors for the workflow's own.
    question["client_id"] = client_id or f"promptglass-{uuid.uuid4().hex}"
    # Where somebody has put a login before the host, whoever asks us is let in as themselves.
    passed_on = ("Cookie", "Authorization", "Comfy-User")
    headers = {name: asked_with[name] for name in passed_on if name in asked_with}
    try:
        # It is ourselves that we ask, whatever name the certificate is for; and not by way of a proxy.
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(_QUEUE_S)) as session,
            session.post(f"{url}/prompt", json=question, headers=headers, ssl=False) as response,
        ):
            said = await response.json(content_type=None)
    except (aiohttp.ClientError, asyncio.TimeoutError, ValueError) as error:
        raise PromptglassError(f"ComfyUI's queue at {url} does not answer: {one_line(error)}") from error
    if not isinstance(said, dict) or "prompt_id" not in said:
        raise PromptglassError(f"ComfyUI did not take the job: {host_error(said)}")
    return str(said["prompt_id"])


def loopback_url(address: str, port: int, has_tls: bool) -> str:
    """Where this machine reaches a server that listens on an address."""
    address = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(address, address)
    shown = f"[{address}]" if ":" in address else address
    return f"{'https' if has_tls else 'http'}://{shown}:{port}"


def host_error(said: Any) -> str:
    """The host's refusal of a graph in one line: what is wrong with which node."""
    if not isinstance(said, dict):
        return "it gives no reason."
    for node in (said.get("node_errors") or {}).values():
        for error in node.get("errors") or []:
            parts = (node.get("class_type"), error.get("message"), error.get("details"))
            return visible(": ".join(str(part) for part in parts if part))[:300]
    error = said.get("error")
    text = error.get("message") if isinstance(error, Mapping) else error
    return visible(str(text or "it gives no reason."))[:300]


async def _job(request: web.Request) -> Answer:
    """How far an interrogation is: queued, running, done, failed, stopped, or gone from queue and history."""
    from server import PromptServer

    queue = PromptServer.instance.prompt_queue
    prompt_id = request.match_info["prompt_id"]
    running, pending = _in_queue()
    if prompt_id in running:
        return 200, {"state": "running", "share": _share_done(prompt_id)}
    if prompt_id in pending:
        return 200, {"state": "queued"}
    # A job goes from one to the other in one step: what is in neither now is gone.
    entry = queue.get_history(prompt_id=prompt_id).get(prompt_id)
    if entry is None:
        return 200, {"state": "gone"}
    result = next(of_prompt(prompt_id, entry), None)
    return 200, {"state": result["state"], "result": result} if result else {"state": "stopped"}


def is_queued(prompt_id: str) -> bool:
    """Whether a job runs or is to run."""
    return any(prompt_id in ids for ids in _in_queue())


def forget(prompt_id: str) -> None:
    """A job that is nobody's: out of the queue, and of the history, where it takes the place of others."""
    from server import PromptServer

    server = PromptServer.instance
    server.prompt_queue.delete_queue_item(lambda item: item[1] == prompt_id)
    # The worker writes the history when the node has ended, which it is about to.
    later = server.loop.call_later
    server.loop.call_soon_threadsafe(later, _HISTORY_S, server.prompt_queue.delete_history_item, prompt_id)


def _in_queue() -> tuple[set[str], set[str]]:
    """Ids of the jobs that run, and of those that wait. One goes from here to there in one step."""
    from server import PromptServer

    queue = PromptServer.instance.prompt_queue
    volatile = getattr(queue, "get_current_queue_volatile", queue.get_current_queue)  # the older one copies
    running, pending = volatile()
    return {item[1] for item in running}, {item[1] for item in pending}


def _share_done(prompt_id: str) -> float | None:
    """0 to 1; None where the node that runs does not say, or the host keeps no account."""
    try:
        from comfy_execution.progress import get_progress_state
    except ImportError:
        return None
    state = get_progress_state()
    node = state.nodes.get(f"{jobs.NODE}-interrogate", {}) if state.prompt_id == prompt_id else {}
    return node["value"] / node["max"] if node.get("max", 0) > 1 else None


# -- what is there -------------------------------------------------------------------------------------------


async def _results(request: web.Request) -> Answer:
    from server import PromptServer

    limit = request.query.get("limit", "50")
    if not (limit.isascii() and limit.isdigit()):
        raise InputError("limit must be a number from 1 to 200.")
    history = PromptServer.instance.prompt_queue.get_history()
    return 200, {"results": await _on_thread(results, history, int(limit[:9]))}


async def _health(request: web.Request) -> Answer:
    return 200, await _on_thread(_state)


def _state() -> dict[str, Any]:
    from ..promptglass.weights import listing_as_json

    pair = _pair()
    return {
        "version": __version__,
        "pair": {"clip": pair.clip, "clip_vision": pair.clip_vision} if pair else None,
        "models": listing_as_json(),
        "profiles": _profile_names(),
    }


def _profile_names() -> list[str]:
    from ..promptglass.llm.profiles import profiles

    try:
        return [*profiles()]
    except InputError:  # `endpoints` says it
        return []


async def _endpoints(request: web.Request) -> Answer:
    from ..promptglass.llm.profiles import profiles
    from ..promptglass.service import health_of

    known = [*(await _on_thread(profiles)).values()]
    pool = ThreadPoolExecutor(len(known), "promptglass-endpoints")
    try:
        found = await asyncio.gather(*(_on_thread(health_of, profile, pool=pool) for profile in known))
    finally:
        pool.shutdown(wait=False)
    return 200, {"endpoints": found}


async def _wildcards(request: web.Request) -> Answer:
    return 200, {"folders": await _on_thread(_wildcard_folders)}


def _wildcard_folders() -> list[dict[str, Any]]:
    from .wildcards import folders

    return [
        {"folder": visible(shown), "files": _wildcard_files(path)} for shown, (path, _) in folders().items()
    ]


def _wildcard_files(folder: Path) -> list[dict[str, Any]]:
    """The files that promptglass writes; one that cannot be read is there without a count."""
    from ..promptglass.wildcard_files import HOME, read_wildcards, text_of, wildcard_name

    paths = [
        *(folder / HOME).rglob("*.txt"),
        *(folder / HOME).rglob("*.json"),
        *folder.glob(f"{HOME}.*.yaml"),
    ]
    found = []
    for path in paths:
        name = path.relative_to(folder).as_posix()
        try:
            file = read_wildcards(folder, name)
            found.append({"name": file.name, "lines": sum(1 for entry in file.entries if text_of(entry))})
        except (PromptglassError, OSError):
            found.append({"name": wildcard_name(name), "lines": None})
    return sorted(found, key=lambda file: file["name"])


async def _on_thread(work: Callable[..., Any], *arguments: Any, pool: Executor | None = None) -> Any:
    return await asyncio.get_running_loop().run_in_executor(pool, work, *arguments)
