"""What dynamic-prompts would make of a template."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from .errors import DependencyMissing, InputError, one_line


@dataclass(frozen=True)
class Drawn:
    """missing: wildcards of the template that no file gives."""

    prompts: list[str]
    missing: list[str]


def draw(template: str, folder: Path, count: int, seed: int) -> Drawn:
    """Prompts from a template with __wildcards__ and {a|b}; the same seed draws the same from the same files.

    Raises DependencyMissing without dynamicprompts, InputError for a template that it cannot read.
    """
    try:
        from dynamicprompts.generators import RandomPromptGenerator
        from dynamicprompts.wildcards import WildcardManager
    except ImportError as error:
        raise DependencyMissing("a preview of wildcards", "dynamicprompts") from error
    generator = RandomPromptGenerator(WildcardManager(folder), seed=seed)
    try:
        drawn = [str(prompt) for prompt in generator.generate(template, count)]
    except Exception as error:  # its parser's own kinds, which change with its version
        raise InputError(f"dynamic-prompts cannot read this template: {one_line(error)}") from error
    missing = {name for prompt in drawn for name in re.findall(r"__[^\s,|{}]+?__", prompt)}
    return Drawn(drawn, sorted(missing))
