"""What /docs says besides the questions' fields: how an answer looks, and that an error is one line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .fields import FIELDS, MAY_BE_NULL

Responses = dict[int | str, dict[str, Any]]

_JSON = "application/json"
LINE = "one line: what is wrong, and the way out"


class ByName(dict[str, Any]):
    """Of an example: names that are others in every answer. All have a value of one kind."""


class Partly(dict[str, Any]):
    """Of an example: fields that are not in every answer."""


def answers(example: Any, status: int = 200, failure: Mapping[str, Any] | str = "error") -> Responses:
    """The answers of a route, by an example. failure: see errors()."""
    told = {
        "description": "The answer.",
        "content": {_JSON: {"schema": schema_of(example), "example": example}},
    }
    return {status: told, **errors(failure)}


def events(what: str, sent: Callable[[Any], str], *examples: Mapping[str, Any]) -> Responses:
    """A stream of server-sent events, by an example of each. sent: how it goes over the wire."""
    data = {
        "type": "string",
        "description": "JSON.",
        "contentMediaType": _JSON,
        "contentSchema": {"anyOf": [schema_of(example) for example in examples]},
    }
    # OpenAPI 3.2's word, as FastAPI itself writes it; readers of older ones have the example.
    event = {"type": "object", "properties": {"data": data}, "required": ["data"]}
    stream = {"itemSchema": event, "example": "".join(map(sent, examples))}
    return {200: {"description": what, "content": {"text/event-stream": stream}}}


def errors(failure: Mapping[str, Any] | str = "error") -> Responses:
    """failure: an example, or what the line is called in it."""
    example = {failure: LINE} if isinstance(failure, str) else failure
    content = {_JSON: {"schema": schema_of(example), "example": example}}
    return {
        "4XX": {"description": "Not answered; the line says why.", "content": content},
        "5XX": {"description": "promptglass, or what it asked in turn, failed.", "content": content},
    }


def schema_of(example: Any) -> dict[str, Any]:
    """The shape of an example: its names and what they mean, and the types of what is never null."""
    if isinstance(example, ByName):
        return {"type": "object", "additionalProperties": schema_of(next(iter(example.values())))}
    if isinstance(example, Mapping):
        properties = {name: _field(name, value) for name, value in example.items()}
        required = {} if isinstance(example, Partly) or not properties else {"required": [*properties]}
        return {"type": "object", "properties": properties, **required}
    if isinstance(example, list):
        return {"type": "array", "items": schema_of(example[0]) if example else {}}
    for kind, name in ((bool, "boolean"), (int, "integer"), (float, "number"), (str, "string")):
        if isinstance(example, kind):
            return {"type": name}
    return {}


def _field(name: str, example: Any) -> dict[str, Any]:
    schema = schema_of(example)
    if name in MAY_BE_NULL:  # OpenAPI 3.0 and 3.1 have other words for that: without a type, anything goes
        schema.pop("type", None)
    return {**schema, "description": FIELDS[name]}


# -- examples ------------------------------------------------------------------------------------------------

ANSWER = {
    "mode": "fast",
    "text": "a cat on a mat, golden hour, highly detailed",
    "model": "ViT-L-14/openai",
    "score": 0.3127,
    "elapsed_s": 0.41,
}
PICTURE = {"picture": "image", "format": "PNG", "width": 512, "height": 768}
_FAILED = [{"mode": "best", "error": "ViT-L-14/openai is not here (promptglass models get ViT-L-14/openai)"}]
INTERROGATED = {**PICTURE, "answers": [ANSWER], "failures": _FAILED, "left_out": _FAILED}
_STYLE = {"label": "photograph", "confidence": 0.93, "score": 0.24, "emoji": "📷"}
CATEGORIZED = {**PICTURE, "model": "ViT-L-14/openai", "categories": ByName(style=[_STYLE])}
REFINED = Partly(
    {
        **PICTURE,
        "answers": [{**ANSWER, "mode": "llm/refine"}],
        "warnings": ["not compared with the picture: …"],
    }
)
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
    "facts": ByName(device="cpu"),
    "modes": ByName(palette=None, best=None),
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
_COUNTS = ByName(done=12, unchanged=30)
BATCH = {
    "id": "0f3c",
    "kind": "batch",
    "folder": "/pictures",
    "state": "done",
    "error": None,
    "progress": {"what": "reading pictures", "done": 12, "total": 12},
    "result": {"counts": _COUNTS, "is_whole": True},
    "done": 12,
    "total": 12,
    "counts": _COUNTS,
}
BATCH_EVENTS = (
    {"id": 1, "kind": "warning", "text": "…"},
    {"id": 2, "kind": "planned", "todo": 12, "unchanged": 30, "modes": ["fast"]},
    {
        "id": 3,
        "kind": "outcome",
        "done": 12,
        "total": 12,
        "counts": _COUNTS,
        "path": "/pictures/a.png",
        "status": "done",
        "error": None,
        "note": None,
        "answers": ByName(fast={"prompt": "a cat on a mat", "score": 0.3127}),
    },
    {**BATCH, "kind": "end"},
)
BATCH_WITH_EVENTS = Partly({**BATCH, "events": [{"id": 2, "kind": "planned"}]})
BATCHES = {"batches": [BATCH]}
SIDECAR = {"path": "/pictures/a.png", "sidecar": None}
SIDECARS = {"sidecars": [SIDECAR]}

# The image analyzer's, of seed 001.
ANALYSIS = ByName(style=[{"value": "photorealism", "score": 0.4012}])
ANALYSIS_EVENTS = (
    {"status": "analyzing", "message": "Analyzing image..."},
    {"status": "analyzed", "analysis": ANALYSIS},
    {"status": "generating", "message": "Generating prompt..."},
    {"status": "complete", "generatedPrompt": "a woman, photorealism, golden hour"},
)
ANALYZED = Partly(
    success=True,
    generatedPrompt="a woman, photorealism, golden hour",
    analysis=ANALYSIS,
    userInput="a beautiful landscape",
    note="made of CLIP's labels, without a language model: …",
)
ANALYZER = {"status": "ok", "service": "image-analyzer", "analyzer_initialized": True}

# The CLIP service's, of seed 004.
CLASSIFIED = {
    "service": "clip",
    "status": "success",
    "predictions": [Partly(label="man", confidence=0.401, emoji="🧑")],
    "metadata": {"processing_time": 0.16, "model_info": {"framework": "OpenAI"}},
}
CLASSIFIER = {"status": "healthy", "model_status": "loaded", "device": "cpu", "num_labels": 1020}

# The library's, of seed 002.
IMAGE = {
    "id": "5f0c",
    "file_path": "/pictures/a.png",
    "file_name": "a.png",
    "file_size": 512_000,
    "width": 512,
    "height": 768,
    "format": "png",
    "sha256": "9f86…",
    "created_at": "2026-01-01T12:00:00.000000Z",
    "modified_at": "2026-01-01T11:00:00.000000Z",
    "missing_since": None,
}
IMAGES = {"images": [IMAGE], "pagination": {"page": 1, "limit": 50, "total": 120, "pages": 3}}
SCANNED = {
    "total_files": 120,
    "processed": 19,
    "skipped": 100,
    "errors": 1,
    "current_file": None,
    "added": 16,
    "changed": 1,
    "updated": 1,
    "moved": 1,
    "missing": 0,
    "encrypted": 0,
    "prompts": 90,
    "failures": [{"path": "/pictures/b.png", "error": "…"}],
}
SCANNING = Partly({"status": "idle", **SCANNED})
_COMPARED = {"embedded": "a cat, masterpiece", "embedded_score": 0.29, "similarity": 0.83}
IMAGE_INTERROGATED = Partly(
    image_id="5f0c",
    prompt="a cat on a mat, golden hour",
    source="clip_interrogation",
    model="clip",
    mode="best",
    score=0.31,
    answered_by="ViT-L-14/openai",
    cached=False,
    comparison=_COMPARED,
    note="only in the library, not beside the picture: …",
)
INTERROGATION = {
    "id": "0f3c",
    "kind": "interrogate-images",
    "state": "done",
    "error": None,
    "progress": {"what": "interrogating", "done": 2, "total": 2},
    "result": {"total": 2, "successful": 1, "failed": 1},
}
INTERROGATION_WITH_RESULTS = {
    **INTERROGATION,
    "results": [
        Partly(
            id=1,
            kind="outcome",
            done=1,
            counts=ByName(total=2, successful=1, failed=0),
            image_id="5f0c",
            success=True,
            prompt="a cat on a mat, golden hour",
            error=None,
            score=0.31,
        )
    ],
}
_PROMPT = {
    "id": "7a1b",
    "image_id": "5f0c",
    "prompt_text": "a cat on a mat, golden hour",
    "negative_prompt": None,
    "prompt_type": "clip_generated",
    "created_at": "2026-01-01T12:00:00.000000Z",
    "mode": "best",
    "model": "ViT-L-14/openai",
    "score": 0.31,
    "settings": {},
    "comparison": _COMPARED,
}
PROMPTS = {"image_id": "5f0c", "prompts": [_PROMPT]}
PROMPTS_FOUND = {"prompts": [_PROMPT], "count": 1}
INTERROGATOR = {"status": "ok", "service": "clip", "available": True}
NO_INTERROGATOR = {"status": "unavailable", "service": "clip", "available": False, "reason": LINE}

# clip-interrogator-ext's.
_COSINES = ByName({"a photo": 0.24})
TABLES = dict.fromkeys(("medium", "artist", "movement", "trending", "flavor"), _COSINES)
