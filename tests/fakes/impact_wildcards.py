"""How ComfyUI-Impact-Pack reads wildcards, in our own words: the pack is GPL, so none of its code is here.

Proved on 2026-11-20 against `modules/impact/wildcards.py` at 727295b5 (V7.10.6, 24 Oct 2024): a folder of odd
files loads to the same names and choices, and 56 hostile lines, raw and made literal, give the same text in
three prompts each (but for which of several options chance takes). In one thing it follows later versions,
which are stricter: the weight before `::` is cut from any line.
"""

from __future__ import annotations

import os
import random
import re
from pathlib import Path
from typing import Any

import yaml

REFERENCE = re.compile(r"__([\w.\-+/*\\]+?)__")
WEIGHT = re.compile(r"\s*([0-9.]+)::")


class ImpactWildcards:
    def __init__(self, folder: Path, honours_weights: bool = True) -> None:
        self.choices: dict[str, list[Any]] = {}
        self.honours_weights = honours_weights
        for parent, _, names in os.walk(folder, followlinks=True):  # hidden folders too
            for path in (Path(parent, name) for name in names):
                # All bytes are ISO-8859-1, and a line ends where str.splitlines says.
                if path.name.endswith(".txt"):
                    lines = path.read_bytes().decode("latin-1").splitlines()
                    key = path.relative_to(folder).with_suffix("").as_posix()
                    self.choices[plain(key)] = [line for line in lines if not line.strip().startswith("#")]
                elif path.name.endswith(".yaml"):
                    self._add("", yaml.full_load(path.read_bytes().decode("latin-1")))

    def _add(self, key: str, held: Any) -> None:
        if isinstance(held, dict):
            for name, inner in held.items():
                self._add(f"{key}/{name}" if key else str(name), inner)
        elif isinstance(held, list):
            self.choices[plain(key)] = held
        elif isinstance(held, str):
            self.choices[plain(key)] = [held]

    def process(self, text: str, seed: int = 0) -> str:
        rng = random.Random(seed)
        for _ in range(99):
            text = re.sub(r"(\d+)#__([\w.\-+/*\\]+?)__", repeated, text)
            while (chosen := re.sub(r"{([^{}]*)}", lambda match: self._option(match[1], rng), text)) != text:
                text = chosen
            filled = self._fill(text, rng)
            if filled == text:
                break
            text = filled
        return text

    def _option(self, body: str, rng: random.Random) -> str:
        options = body.split("|")
        count, joiner = 1, " "
        first = options[0].split("$$")
        if len(first) > 1 and (match := re.match(r"(\d+)(?:-(\d+))?", first[0])):
            count = rng.randint(int(match[1]), int(match[2] or match[1]))
            options[0] = first[-1]
            joiner = first[1] if len(first) == 3 else joiner
            if len(options) == 1 and (names := REFERENCE.findall(options[0])):
                options = [choice for name in names for choice in self._find(name)]
        weights = [float(match[1]) if (match := WEIGHT.match(option)) else 1.0 for option in options]
        picked: list[str] = []
        for _ in range(min(count, len(options))):
            (index,) = rng.choices(range(len(options)), weights)
            picked.append(WEIGHT.sub("", options.pop(index), count=1))
            weights.pop(index)
        return joiner.join(picked)

    def _fill(self, text: str, rng: random.Random) -> str:
        for name in REFERENCE.findall(text):
            choices = self._find(name)
            if choices:
                choice = rng.choice(choices)
                choice = re.sub(r"^\s*[0-9.]+::", "", choice) if self.honours_weights else choice
                text = text.replace(f"__{name}__", choice, 1)
            elif "/" not in name and "*" not in name:
                # A name found nowhere is looked for in all folders, and stays in the prompt in that form.
                text = self._fill(text.replace(f"__{name}__", f"__*/{name}__", 1), rng)
        return text

    def _find(self, name: str) -> list[Any]:
        if plain(name) in self.choices:
            return self.choices[plain(name)]
        if "*" not in name:
            return []
        pattern = re.compile(plain(name).replace("*", ".*").replace("+", r"\+"))
        return [
            choice
            for key, choices in self.choices.items()
            if pattern.match(key) or pattern.match(f"{key}/")
            for choice in choices
        ]


def plain(name: str) -> str:
    return name.replace("\\", "/").replace(" ", "-").lower()


def repeated(match: re.Match[str]) -> str:
    return "__" + "__|__".join([match[2].lower()] * int(match[1])) + "__"
