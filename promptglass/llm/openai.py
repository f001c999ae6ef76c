"""OpenAI's chat completions, as spoken by llama.cpp, LM Studio, vLLM, OpenRouter, KoboldCpp and many more.

What they do differently is borne: `content: null`, `choices: []`, `data:` without a space, no `[DONE]`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .wire import (
    Addresses,
    Form,
    Piece,
    Question,
    ServerError,
    Turn,
    as_text,
    base64_of,
    counted,
    event_data,
    versioned_base,
    without,
)

FORMS: tuple[Form, ...] = ("json_schema", "json_object", "words")


def addresses(base_url: str) -> Addresses:
    root, base = versioned_base(base_url, "/chat/completions")
    return Addresses(root, f"{base}/chat/completions", f"{base}/models")


def headers(key: str, body: Mapping[str, Any]) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}


def body(question: Question) -> dict[str, Any]:
    # Models that reason know only the new name, most other servers only the old one.
    limit = "max_completion_tokens" if "max_tokens" in question.left_out else "max_tokens"
    given = {
        "temperature": question.temperature,
        limit: question.max_tokens,
        "seed": question.seed,
        "response_format": _response_format(question),
        "stream_options": {"include_usage": True} if question.is_streamed else None,
    }
    return {
        "model": question.model,
        "messages": [_message(turn) for turn in question.turns],
        "stream": question.is_streamed,
        **{name: value for name, value in without(given).items() if name not in question.left_out},
    }


def whole(answer: Any) -> Piece:
    return _piece(answer, "message")


def line(line: str) -> Piece | None:
    data = event_data(line)
    if data is None:
        return None
    return Piece(is_end=True) if data == "[DONE]" else _piece(json.loads(data), "delta")


def models(answer: Any) -> dict[str, bool | None]:
    """The listed models, and whether they see; llama.cpp and OpenRouter say so, Anthropic in its own way."""
    return {str(model["id"]): _sees_images(model) for model in answer["data"]}


def _message(turn: Turn) -> dict[str, Any]:
    if not turn.jpegs:
        return {"role": turn.role, "content": turn.content}
    pictures = [
        {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{base64_of(jpeg)}"}}
        for jpeg in turn.jpegs
    ]
    return {"role": turn.role, "content": [{"type": "text", "text": turn.content}, *pictures]}


def _response_format(question: Question) -> dict[str, Any] | None:
    if question.schema is None or question.form == "words":
        return None
    if question.form == "json_object":
        return {"type": "json_object"}
    schema = {"name": "answer", "strict": _is_strict(question.schema), "schema": question.schema}
    return {"type": "json_schema", "json_schema": schema}


def _is_strict(schema: Any) -> bool:
    """Whether OpenAI takes a schema as strict: every object closed, every property required."""
    if isinstance(schema, list):
        return all(map(_is_strict, schema))
    if not isinstance(schema, Mapping):
        return True
    if isinstance(schema.get("properties"), Mapping):
        is_closed = schema.get("additionalProperties") is False
        if not is_closed or set(schema.get("required", ())) != set(schema["properties"]):
            return False
    return all(map(_is_strict, schema.values()))


def _piece(answer: Any, part: str) -> Piece:
    if answer.get("error"):
        raise ServerError(answer)
    choice = (answer.get("choices") or [{}])[0]
    message = choice.get(part) or {}
    refusal = message.get("refusal") or ""
    finish_reason = choice.get("finish_reason") or ""
    return Piece(
        text=as_text(message.get("content")) or refusal,
        reasoning=as_text(message.get("reasoning_content") or message.get("reasoning")),
        model=answer.get("model") or "",
        finish_reason="refusal" if refusal or finish_reason == "content_filter" else finish_reason,
        usage=counted(
            answer.get("usage"), prompt_tokens="prompt_tokens", completion_tokens="completion_tokens"
        ),
    )


def _sees_images(model: Mapping[str, Any]) -> bool | None:
    modalities = (model.get("architecture") or {}).get("input_modalities")
    if isinstance(modalities, list):
        return "image" in modalities
    capabilities = model.get("capabilities")
    image_input = capabilities.get("image_input") if isinstance(capabilities, Mapping) else None
    return bool(image_input.get("supported")) if isinstance(image_input, Mapping) else None
