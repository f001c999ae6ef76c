"""Ollama's own chat: one JSON object per line, pictures as bare base64, `keep_alive`, `think` and `format`.

Its OpenAI route would do for text, but cannot be told for how long to keep the model.
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
    without,
)

FORMS: tuple[Form, ...] = ("json_schema", "json_object", "words")

# Longer than its default of 5 minutes: between two pictures of a batch there may be other work.
KEEP_ALIVE = "10m"


def addresses(base_url: str) -> Addresses:
    root = base_url.rstrip("/").removesuffix("/chat").removesuffix("/api").removesuffix("/v1").rstrip("/")
    return Addresses(root, f"{root}/api/chat", f"{root}/api/tags")


def headers(key: str, body: Mapping[str, Any]) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}


def body(question: Question) -> dict[str, Any]:
    options = {
        "temperature": question.temperature,
        "num_predict": question.max_tokens,
        "seed": question.seed,
    }
    request: dict[str, Any] = {
        "model": question.model,
        "messages": [_message(turn) for turn in question.turns],
        "stream": question.is_streamed,
        "keep_alive": KEEP_ALIVE,
        "options": without(options),
    }
    if question.schema is None or question.form == "words":
        request["think"] = False  # not beside `format`: ollama/ollama#14645, #15260
    else:
        request["format"] = question.schema if question.form == "json_schema" else "json"
    return {name: value for name, value in request.items() if name not in question.left_out}


def whole(answer: Any) -> Piece:
    if answer.get("error"):
        raise ServerError(answer)
    message = answer.get("message") or {}
    return Piece(
        text=as_text(message.get("content")),
        reasoning=as_text(message.get("thinking")),
        model=answer.get("model") or "",
        finish_reason=(answer.get("done_reason") or "stop") if answer.get("done") else "",
        usage=counted(answer, prompt_tokens="prompt_eval_count", completion_tokens="eval_count"),
        is_end=bool(answer.get("done")),
    )


def line(line: str) -> Piece | None:
    return whole(json.loads(line)) if line.strip() else None


def models(answer: Any) -> dict[str, bool | None]:
    """The models that are there. Which of them see, `/api/show` tells of each."""
    return {str(model.get("model") or model["name"]): None for model in answer["models"]}


def sees_images(shown: Any) -> bool | None:
    """Whether a model sees, by the answer of /api/show; Ollama before 0.6.4 does not say."""
    capabilities = shown.get("capabilities")
    return "vision" in capabilities if isinstance(capabilities, list) else None


def _message(turn: Turn) -> dict[str, Any]:
    pictures = {"images": [base64_of(jpeg) for jpeg in turn.jpegs]} if turn.jpegs else {}
    return {"role": turn.role, "content": turn.content, **pictures}
