"""The settings of seed 004's service: its environment variables, and its .env file, which is only read."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError, cause_of, visible

MOST_PREDICTIONS = 1000
_MOST_BYTES = 64 * 1024  # of a .env

_VARIABLES = ("PORT", "PRIVATE", "CLIP_MODEL", "CLIP_CONFIDENCE_THRESHOLD", "CLIP_MAX_PREDICTIONS")
# OpenAI's names for the models it has published; ours are open_clip's.
_OPENAI = {
    name: f"{name.replace('/', '-').replace('@336px', '-336')}/openai"
    for name in (
        *("RN50", "RN101", "RN50x4", "RN50x16", "RN50x64"),
        *("ViT-B/32", "ViT-B/16", "ViT-L/14", "ViT-L/14@336px"),
    )
}


@dataclass(frozen=True)
class ClassifySettings:
    """is_private: only this machine is answered; so it is where nobody says otherwise.

    model: of CLIP, by our name or OpenAI's; None for the host's own. API_HOST, API_PORT and API_TIMEOUT, from
    where the seed's service got its emoji, may be set and change nothing: ours are here.
    """

    port: int = 7778
    is_private: bool = True
    model: str | None = None
    confidence_threshold: float = 0.01
    max_predictions: int = 10

    @property
    def listens_on(self) -> str:
        """For a server of its own."""
        return "127.0.0.1" if self.is_private else "0.0.0.0"

    @classmethod
    def from_environment(cls, folder: str | os.PathLike[str] = ".") -> ClassifySettings:
        """As the environment says, or else the .env of a folder, or else as above.

        Raises InputError for a value that cannot be used; it names the variable.
        """
        said = {**_env_file(Path(folder) / ".env"), **os.environ}
        given = {name: said[name].strip() for name in _VARIABLES if said.get(name, "").strip()}
        default = cls()
        model = given.get("CLIP_MODEL")
        return cls(
            port=_whole(given, "PORT", default.port, 65535),
            is_private=_switch(given, "PRIVATE", default.is_private),
            model=_OPENAI.get(model, model) if model else default.model,
            confidence_threshold=_share(given, "CLIP_CONFIDENCE_THRESHOLD", default.confidence_threshold),
            max_predictions=_whole(given, "CLIP_MAX_PREDICTIONS", default.max_predictions, MOST_PREDICTIONS),
        )


def _env_file(path: Path) -> dict[str, str]:
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            text = file.read(_MOST_BYTES)
    except (FileNotFoundError, IsADirectoryError):
        return {}
    except OSError as error:
        raise InputError(f"cannot read {visible(str(path))}: {cause_of(error)}") from error
    pairs = (line.strip().removeprefix("export ").partition("=") for line in text.splitlines())
    return {name.strip(): _value(said.strip()) for name, equals, said in pairs if equals}


def _value(said: str) -> str:
    """Between quotation marks everything counts; otherwise a # after a space begins a comment."""
    if said[:1] in ("'", '"') and (end := said.find(said[0], 1)) > 0:
        return said[1:end]
    return re.split(r"(?:^|\s)#", said, maxsplit=1)[0].strip()


def _whole(given: Mapping[str, str], name: str, default: int, most: int) -> int:
    if name not in given:
        return default
    said = given[name]
    if not (said.isascii() and said.isdigit() and 1 <= int(said[:18]) <= most):
        raise InputError(f"{name}={visible(said)[:40]} must be a whole number from 1 to {most}")
    return int(said)


def _share(given: Mapping[str, str], name: str, default: float) -> float:
    try:
        share = float(given.get(name, default))
    except ValueError:
        share = math.nan
    if not 0 <= share <= 1:
        raise InputError(f"{name}={visible(given[name])[:40]} must be a number from 0 to 1")
    return share


def _switch(given: Mapping[str, str], name: str, default: bool) -> bool:
    said = given.get(name, str(default)).lower()
    if said not in ("true", "false"):
        raise InputError(f"{name}={visible(said)[:40]} must be True or False")
    return said == "true"
