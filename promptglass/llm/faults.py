"""What went wrong between us and an endpoint: the error for the user, and whether to try again.

No text that a server sent gets into an error before the key has been taken out of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from ..errors import (
    EndpointError,
    EndpointRefused,
    EndpointUnreachable,
    ModelSeesNot,
    ReplyError,
    visible,
)

# Retrying does not help where no money is left. By code rather than by sentence: Gemini says "you exceeded
# your current quota" of a limit that is over in a minute.
_SPENT = re.compile(
    r"insufficient_quota|credit_balance|credit balance is too low|enforced_spend_limit|billing_hard_limit"
    r"|billing_not_active|PerDay",
    re.IGNORECASE,
)
# llama.cpp says it with status 500, OpenRouter with 404, Ollama with 400 or 500.
_SEES_NOT = re.compile(
    r"image input is not supported|support (?:image|vision)|required for image input"
    r"|not a (?:multimodal|vision)",
    re.IGNORECASE,
)
# OpenRouter says with 403 that a picture or a text was flagged: the next one may pass.
_FLAGGED = re.compile(r"moderat|flagged|content.?(?:policy|filter)", re.IGNORECASE)
_MAY_PASS = (408, 409, 425, 429)  # and nearly all of 500 and above
_NEVER_PASS = (501, 505)


class Fault(Exception):
    """An error on its way to the user, with what a retry has to know."""

    def __init__(
        self,
        error: EndpointError,
        may_pass: bool = False,
        wait_s: float | None = None,
        is_loading: bool = False,
        said: str = "",
        is_dropped: bool = False,
    ) -> None:
        super().__init__(str(error))
        self.error = error
        self.said = said  # by the server, key and all: to decide by, never to show
        self.may_pass = may_pass
        self.wait_s = wait_s
        self.is_loading = is_loading
        self.is_dropped = is_dropped  # the connection, before a word of an answer


class Teller:
    """Words a fault, in the name of an endpoint and without its key."""

    # What a user would change, and where.
    address = "base_url"
    patience = "first_byte_s"
    too_long = "Lower max_tokens."
    open_key = "anyone on the way could read the key. Use https, or set allow_plain_http: true."

    def __init__(self, endpoint: str, key: str, key_source: str) -> None:
        self.endpoint = endpoint  # "ollama (http://127.0.0.1:11434)"
        self._key = key
        self._key_source = key_source

    def without_key(self, text: str) -> str:
        return text.replace(self._key, "[key]") if self._key else text

    def quoted(self, text: str) -> str:
        """A server's own words, made fit to stand in ours."""
        text = visible(self.without_key(text))
        return text if len(text) <= 300 else text[:297] + "..."

    def unreachable(self, cause: str, may_pass: bool = True, is_dropped: bool = False) -> Fault:
        return Fault(EndpointUnreachable(f"{self.endpoint}: {cause}"), may_pass, is_dropped=is_dropped)

    def unusable(self, cause: str, text: str = "") -> Fault:
        return Fault(ReplyError(f"{self.endpoint}: {cause}", text))

    def answered(self, status: int, body: bytes, wait_s: float | None = None) -> Fault:
        """The fault behind an answer that is none."""
        said = body.decode("utf-8", "replace")
        answer = _loaded(said)
        # Pages are not for one line, and what is not parsed may hold the key in another spelling.
        text = self.quoted(_message(answer)) if answer is not None else "a web page" if "<" in said else ""
        shown = f"{status}: {text}" if text else str(status)
        if _SPENT.search(said) or status == 402:
            cause = f"the account has nothing left to spend ({shown}). Top it up, or use another endpoint."
            return Fault(EndpointRefused(f"{self.endpoint}: {cause}", status))
        if status == 403 and _FLAGGED.search(said):
            cause = f"it refuses to answer this ({shown}): use another model or picture"
            return Fault(ReplyError(f"{self.endpoint}: {cause}", status=status))
        if status in (401, 403):
            return Fault(
                EndpointRefused(f"{self.endpoint} refuses us ({shown}). {self._about_key()}", status)
            )
        if _SEES_NOT.search(said):
            cause = f"the model does not see pictures ({shown}). Choose one that does."
            return Fault(ModelSeesNot(f"{self.endpoint}: {cause}", status), said=said)
        if status == 404:
            cause = f"answered {shown}. Check model and base_url."
            return Fault(EndpointRefused(f"{self.endpoint} {cause}", status), said=said)
        may_pass = status in _MAY_PASS or (status >= 500 and status not in _NEVER_PASS)
        error = EndpointError(f"{self.endpoint} answered {shown}. {_way_out(status, may_pass)}", status)
        is_loading = status == 503 and "loading" in said.lower()
        return Fault(error, may_pass, wait_s, is_loading, said)

    def in_answer(self, answer: Any) -> Fault:
        """The fault behind an error object that came with status 200."""
        body = json.dumps(answer).encode()
        code = answer.get("error")
        code = code.get("code") if isinstance(code, Mapping) else None
        if not isinstance(code, int) or not 400 <= code <= 599:
            code = 529 if b"overloaded" in body else 500
        return self.answered(code, body)

    def _about_key(self) -> str:
        if self._key:
            return f"Check the key in {self._key_source}, and what it may be used for."
        return "It wants a key: name its environment variable as key_env in the profile."


def _loaded(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _message(answer: Any) -> str:
    """The text of an error, wherever a server puts it: error.message, error, detail, message."""
    for name in ("error", "detail", "message"):
        said = answer.get(name) if isinstance(answer, Mapping) else answer
        if isinstance(said, Mapping):
            # OpenRouter wraps what the model's provider said.
            raw = said["metadata"].get("raw") if isinstance(said.get("metadata"), Mapping) else None
            said = " ".join(str(part) for part in (said.get("message"), raw) if part)
        if said:
            return said if isinstance(said, str) else json.dumps(said)
    return ""


def _way_out(status: int, may_pass: bool) -> str:
    if may_pass:
        return "Try again later."
    if status == 413:
        return "Lower max_image_side, or send less text."
    if 300 <= status < 400:
        return "Put the address that it leads to into base_url."
    return "Change what is asked, or the model."
