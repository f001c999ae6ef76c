"""What promptglass has said lately, derived from the host's own history of prompts: nothing is kept twice."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from itertools import islice
from typing import Any

from ..promptglass.errors import visible
from .jobs import NODE, Picture, as_json

_OURS = "Promptglass"  # what the classes of our nodes begin with
_LIMITS = (1, 200)


def results(history: Mapping[str, Mapping[str, Any]], limit: int) -> list[dict[str, Any]]:
    """The newest first; a prompt that failed in one of our nodes is there with its error.

    history: as the host's queue gives it, the oldest first. What was interrupted is no result.
    """
    least, most = _LIMITS
    found = (result for id in reversed([*history]) for result in of_prompt(id, history[id]))
    return list(islice(found, min(max(limit, least), most)))


def of_prompt(prompt_id: str, entry: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What our nodes have said in one prompt."""
    graph = entry["prompt"][2]
    outputs = entry.get("outputs") or {}
    status = entry.get("status") or {}
    messages = [(name, said) for name, said in status.get("messages") or []]
    at = _time(max((said.get("timestamp", 0) for _, said in messages), default=0))

    def result(node: str, **rest: Any) -> dict[str, Any]:
        title = _title(graph.get(node, {}))
        image = _picture_of(node, graph, outputs)
        return {"prompt_id": prompt_id, "node": node, "title": title, "at": at, "image": image, **rest}

    failed = next((said for name, said in messages if name == "execution_error"), None)
    node = str(failed.get("node_id")) if failed else ""
    if failed and (node.startswith(NODE) or _is_ours(graph.get(node, {}))):
        # Whichever node of our own graph failed, it was the interrogation that did.
        node = f"{NODE}-interrogate" if node.startswith(NODE) else node
        yield result(node, state="failed", error=_error(failed), cards=[])
    for node, output in outputs.items():
        cards = output.get("promptglass") if isinstance(output, dict) else None
        if cards:
            yield result(node, state="done", error=None, cards=cards)


def _is_ours(node: Mapping[str, Any]) -> bool:
    return str(node.get("class_type", "")).startswith(_OURS)


def _title(node: Mapping[str, Any]) -> str:
    title = (node.get("_meta") or {}).get("title")
    return title or str(node.get("class_type", "")).removeprefix(_OURS)


def _error(said: Mapping[str, Any]) -> str:
    """The last line of what was raised; of a foreign error, folders are nobody's business."""
    lines = [line for line in map(visible, str(said.get("exception_message", "")).splitlines()) if line]
    line = lines[-1] if lines else str(said.get("exception_type", "it failed")).rpartition(".")[2]
    if ".promptglass.errors." in str(said.get("exception_type", "")):
        return line
    return re.sub(r"(?<![\w.:/\\])(?:[A-Za-z]:)?[\\/](?:[^\s'\"\\/]+[\\/])+", "", line)[:300]


def _time(timestamp_ms: int) -> str | None:
    if not timestamp_ms:
        return None
    return datetime.fromtimestamp(timestamp_ms / 1000, timezone.utc).isoformat(timespec="seconds")


def _picture_of(node: str, graph: Mapping[str, Any], outputs: Mapping[str, Any]) -> dict[str, str] | None:
    """The picture that a node was shown: the nearest that was loaded, or kept by somebody else who saw it."""
    seen = {node}
    links = _links(graph.get(node, {}))
    while links:
        link = links.pop(0)
        source = str(link[0])
        loaded = _loaded(graph.get(source, {})) or _kept(link, graph, outputs)
        if loaded:
            return loaded
        if source not in seen:
            seen.add(source)
            links += _links(graph.get(source, {}))
    return _loaded(graph.get(node, {}))


def _links(node: Mapping[str, Any]) -> list[list[Any]]:
    """Those to what comes before a node, that of its picture first."""
    inputs = sorted((node.get("inputs") or {}).items(), key=lambda item: not item[0].startswith("image"))
    return [value for _, value in inputs if isinstance(value, list) and len(value) == 2]


def _loaded(node: Mapping[str, Any]) -> dict[str, str] | None:
    """The picture that a node loads from the host's folders by name."""
    name = (node.get("inputs") or {}).get("image")
    is_loader = str(node.get("class_type", "")).startswith(("LoadImage", f"{_OURS}Embedded"))
    return as_json(Picture.annotated(name)) if is_loader and isinstance(name, str) and name else None


def _kept(link: list[Any], graph: Mapping[str, Any], outputs: Mapping[str, Any]) -> dict[str, str] | None:
    """The first picture of what a node saved or previewed that hangs on the same link."""
    for node, described in graph.items():
        images = (outputs.get(node) or {}).get("images")
        if images and link in _links(described):
            return {key: str(images[0].get(key, "")) for key in ("filename", "subfolder", "type")}
    return None
