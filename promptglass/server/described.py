"""What /docs says besides the fields: how an answer looks, and that an error is one line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Responses = dict[int | str, dict[str, Any]]

_JSON = "application/json"


def answers(example: Any, status: int = 200, key: str = "error") -> Responses:
    """The answers of a route, by an example. key: what an error is called in its JSON."""
    schema = schema_of(example)
    told = {"description": "The answer.", "content": {_JSON: {"schema": schema, "example": example}}}
    return {status: told, **errors(key)}


def errors(key: str | None = "error") -> Responses:
    """key: None where an error is told in other ways."""
    line = {"type": "string", "description": "One line: what is wrong, and the way out."}
    schema: dict[str, Any] = {"type": "object"}
    if key is not None:
        schema |= {"properties": {key: line}, "required": [key]}
    content = {_JSON: {"schema": schema}}
    return {
        "4XX": {"description": "Not answered; the line says why.", "content": content},
        "5XX": {"description": "promptglass, or what it asked in turn, failed.", "content": content},
    }


def schema_of(example: Any) -> dict[str, Any]:
    """The shape of an example: its names, and the types of what is no null."""
    if isinstance(example, Mapping):
        properties = {name: schema_of(value) for name, value in example.items()}
        return {"type": "object", "properties": properties}
    if isinstance(example, list):
        return {"type": "array", "items": schema_of(example[0]) if example else {}}
    for kind, name in ((bool, "boolean"), (int, "integer"), (float, "number"), (str, "string")):
        if isinstance(example, kind):
            return {"type": name}
    return {}


ANSWER = {
    "mode": "fast",
    "text": "a cat on a mat, golden hour, highly detailed",
    "model": None,
    "score": None,
    "elapsed_s": 0.41,
}
PICTURE = {"picture": "image", "format": "PNG", "width": 512, "height": 768}
_FAILED = [{"mode": "best", "error": "ViT-L-14/openai is not here (promptglass models get ViT-L-14/openai)"}]
INTERROGATED = {**PICTURE, "answers": [ANSWER], "failures": _FAILED, "left_out": _FAILED}
ANALYZED = {
    **PICTURE,
    "model": "ViT-L-14/openai",
    "categories": {"style": [{"label": "photograph", "confidence": 0.93, "score": 0.24, "emoji": "📷"}]},
}
REFINED = {"answers": [{**ANSWER, "mode": "llm/refine"}], "warnings": ["not compared with the picture: …"]}
WRITTEN = {
    "files": [
        {
            "path": "/wildcards/promptglass/fast.txt",
            "name": "promptglass/fast",
            "state": "written",
            "lines": 120,
            "is_ascii": True,
        }
    ],
    "notes": ["…"],
}
HEALTH = {
    "version": "0.1.0",
    "host": "standalone",
    "note": "",
    "facts": {"device": "cpu"},
    "modes": {"palette": None, "best": None},
    "roots": ["/pictures"],
    "models": [
        {
            "name": "ViT-L-14/openai",
            "kind": "clip",
            "here": True,
            "command": "promptglass models get ViT-L-14/openai",
        }
    ],
}
ENDPOINTS = {
    "endpoints": [
        {"name": "ollama", "reachable": True, "usable": True, "message": "", "models": ["qwen2.5vl:7b"]}
    ]
}
MODELS = {
    "own": "ViT-L-14/openai",
    "models": [
        {
            "name": "ViT-L-14/openai",
            "kind": "clip",
            "here": True,
            "size_bytes": 1_710_500_000,
            "licence": "MIT",
            "command": "promptglass models get ViT-L-14/openai",
        }
    ],
    "open_clip": ["ViT-L-14/openai"],
}
BATCH = {
    "id": "0f3c",
    "kind": "batch",
    "folder": "/pictures",
    "state": "running",
    "error": None,
    "progress": None,
    "result": None,
    "done": 12,
    "total": None,
    "counts": {"done": 12, "unchanged": 30},
}
BATCHES = {"batches": [BATCH]}
SIDECAR = {"path": "/pictures/a.png", "sidecar": None}
SIDECARS = {"sidecars": [SIDECAR]}
