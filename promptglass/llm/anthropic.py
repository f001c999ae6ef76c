"""Anthropic's messages, also spoken by llama.cpp and LM Studio.

The system's words are no message, `max_tokens` must be there, and pictures come before the text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .openai import models
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

__all__ = ["FORMS", "addresses", "body", "headers", "line", "models", "whole"]

FORMS: tuple[Form, ...] = ("json_schema", "words")

MAX_TOKENS = 1024

# The newest version knows no temperature any more (platform.claude.com/docs/en/api/migration-2026-10-21);
# older models and other servers still do, under the version before.
VERSION = "2026-10-21"
VERSION_WITH_TEMPERATURE = "2023-06-01"

_FINISH_REASONS = {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length"}


def addresses(base_url: str) -> Addresses:
    root, base = versioned_base(base_url, "/messages")
    return Addresses(root, f"{base}/messages", f"{base}/models?limit=1000")


def headers(key: str, body: Mapping[str, Any]) -> dict[str, str]:
    version = VERSION_WITH_TEMPERATURE if "temperature" in body else VERSION
    return {"anthropic-version": version, **({"x-api-key": key} if key else {})}


def body(question: Question) -> dict[str, Any]:
    has_schema = question.schema is not None and question.form == "json_schema"
    given = {
        "system": "\n\n".join(turn.content for turn in question.turns if turn.role == "system") or None,
        "temperature": None if question.temperature is None else min(question.temperature, 1.0),
        "output_config": {"format": {"type": "json_schema", "schema": question.schema}}
        if has_schema
        else None,
    }
    return {
        "model": question.model,
        "max_tokens": question.max_tokens or MAX_TOKENS,
        "messages": [_message(turn) for turn in question.turns if turn.role != "system"],
        "stream": question.is_streamed,
        **{name: value for name, value in without(given).items() if name not in question.left_out},
    }


def whole(answer: Any) -> Piece:
    if answer.get("error"):
        raise ServerError(answer)
    return _message_piece(answer)


def line(line: str) -> Piece | None:
    data = event_data(line)
    if data is None:
        return None
    event = json.loads(data)
    kind = event.get("type")
    if kind == "error" or event.get("error"):
        raise ServerError(event)
    if kind == "message_start":
        return _message_piece(event["message"])
    if kind == "content_block_start":
        return Piece(text=as_text([event["content_block"]]))
    if kind == "content_block_delta":
        delta = event["delta"]
        return Piece(text=delta.get("text") or "", reasoning=delta.get("thinking") or "")
    if kind == "message_delta":
        return Piece(finish_reason=_finish_reason(event.get("delta") or {}), usage=_usage(event))
    return Piece(is_end=True) if kind == "message_stop" else None


def _message(turn: Turn) -> dict[str, Any]:
    if not turn.jpegs:
        return {"role": turn.role, "content": turn.content}
    pictures = [
        {
            "type": "image",
            "source": {"type": "base64", "media_type": "image/jpeg", "data": base64_of(jpeg)},
        }
        for jpeg in turn.jpegs
    ]
    return {"role": turn.role, "content": [*pictures, {"type": "text", "text": turn.content}]}


def _message_piece(message: Any) -> Piece:
    parts = message.get("content") or []
    return Piece(
        text=as_text(parts),
        reasoning="".join(part.get("thinking") or "" for part in parts if part.get("type") == "thinking"),
        model=message.get("model") or "",
        finish_reason=_finish_reason(message),
        usage=_usage(message),
    )


def _finish_reason(said: Mapping[str, Any]) -> str:
    reason = said.get("stop_reason") or ""
    return _FINISH_REASONS.get(reason, reason)


def _usage(said: Mapping[str, Any]) -> dict[str, int]:
    return counted(said.get("usage"), prompt_tokens="input_tokens", completion_tokens="output_tokens")
