"""Folder in, sidecars out: only what is missing, and nothing lost when it is stopped.

A process may be killed at any moment: what is in a sidecar counts, what was in flight is done again by the
next run.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from . import encryption
from .analyzers import Analyzer, Recipe, release
from .errors import (
    EncryptionKeyError,
    EndpointError,
    ImageError,
    InputError,
    PromptglassError,
    visible,
)
from .images import missing_decoder
from .journal import Journal
from .scan import Found, find_pictures
from .sidecar import PLAIN, SUFFIX, Privacy, describes, entry_of, is_private_enough, read
from .training import CaptionFiles, colliding

log = logging.getLogger("promptglass")


@dataclass(frozen=True)
class Outcome:
    """What became of a picture; "elsewhere": another process works on it.

    One that failed may have answers all the same, of the modes that worked: they are in its sidecar.
    """

    path: str
    status: Literal["done", "unchanged", "elsewhere", "failed"]
    error: str | None = None
    note: str | None = None  # what the user should know although it went well


Tell = Callable[[Outcome], None]


@dataclass(frozen=True)
class Plan:
    """What is to be done in a folder. `failed` are those that could not even be looked at."""

    folder: Path
    todo: Sequence[Found]
    unchanged: Sequence[str]
    failed: Sequence[Outcome]
    notes: Sequence[str]  # what was passed over, and why
    # Pictures whose caption file another picture has (a.jpg beside a.png), with the name of that other.
    without_caption: Mapping[str, str]
    recipes: Mapping[str, Recipe]  # of the modes that can be asked for


@dataclass(frozen=True)
class Batch:
    """Modes over folders.

    force: compute again what is there; verify: hash also where size and time are as they were; captions:
    write .txt files for training, too. warn: told, in one line, which modes are left out and why.
    """

    analyzers: Sequence[Analyzer]
    modes: Sequence[str]
    privacy: Privacy = PLAIN
    captions: CaptionFiles | None = None
    force: bool = False
    verify: bool = False
    warn: Callable[[str], None] = log.error

    def plan(self, folder: str | os.PathLike[str], recursive: bool = False) -> Plan:
        """Look what a folder holds, and what of it is missing. Reads sidecars, opens no picture.

        Sweeps up what a killed run left. Raises InputError where there is no such folder, or it cannot be
        written to, or nothing can be encrypted; EncryptionKeyError for a wrong key.
        """
        place = Path(folder)
        if self.privacy.encrypt:
            encryption.check_key()  # before hours of work
        todo: list[Found] = []
        unchanged: list[str] = []
        failed: list[Outcome] = []
        undecodable: Counter[str] = Counter()

        def report(error: ImageError) -> None:
            failed.append(Outcome(error.name, "failed", str(error)))

        recipes = self._recipes()
        for found in find_pictures(place, recursive, report):
            decoder = missing_decoder(found.extension)
            if decoder is not None:
                undecodable[decoder] += 1
                continue
            try:
                is_unchanged = found.has_sidecar and self._is_unchanged(found, recipes)
            except EncryptionKeyError:  # it is every sidecar's
                raise
            except InputError as error:
                failed.append(Outcome(found.path, "failed", str(error)))
                continue
            if is_unchanged:
                unchanged.append(found.path)
            else:
                todo.append(found)
        if todo and not os.access(place, os.W_OK):
            raise InputError(
                f"cannot write to {place}: sidecars lie beside their pictures. Change its permissions."
            )
        notes = [f"{count:,} pictures passed over: {why}" for why, count in undecodable.items()]
        every = [*unchanged, *(found.path for found in todo)] if self.captions else []
        return Plan(place, todo, unchanged, failed, notes, _without_caption(every), recipes)

    def run(self, plan: Plan, tell: Tell) -> bool:
        """Do what a plan found missing, telling of each picture as it is done; whether all went well.

        `tell` may raise to stop, as may a model's Progress: what is done is kept. Raises the error of the
        last mode when none can go on, InputError when the disk is full, EncryptionKeyError.
        """
        from .pipeline import Pipeline

        journal = Journal(plan.folder)
        is_whole = True
        succeeded = [*plan.unchanged]

        def note(outcome: Outcome) -> None:
            nonlocal is_whole
            if outcome.error is not None:
                is_whole = False
                journal.failed(outcome.path, outcome.error)
            elif outcome.status != "elsewhere":
                succeeded.append(outcome.path)
            tell(outcome)

        for outcome in plan.failed:
            note(outcome)
        pipeline = Pipeline(self, plan, note)
        try:
            pipeline.work()
        except BaseException:
            release(self.analyzers, at_once=True)
            raise
        release(self.analyzers)
        if journal.settle(succeeded):
            log.warning("what failed is listed in %s", visible(str(journal.path)))
        return is_whole and not pipeline.has_left_out and len(plan.recipes) == len(self.modes)

    def _recipes(self) -> dict[str, Recipe]:
        """How each mode would be answered; without those of an endpoint that cannot say by which model."""
        recipes: dict[str, Recipe] = {}
        errors: dict[str, PromptglassError] = {}
        for mode in self.modes:
            analyzer = next(analyzer for analyzer in self.analyzers if mode in analyzer.modes)
            try:
                recipes[mode] = analyzer.recipe(mode)
            except (EndpointError, InputError) as error:
                errors[mode] = error
        if errors and not recipes:
            raise next(iter(errors.values()))
        if errors:
            self.warn(f"left out: {', '.join(errors)}: {next(iter(errors.values()))}")
        return recipes

    def _is_unchanged(self, found: Found, recipes: Mapping[str, Recipe]) -> bool:
        if self.force or self.verify:
            return False
        content = read(found.path + SUFFIX)
        return (
            content is not None
            and describes(content, found.size_bytes, found.modified_ns)
            and all(entry_of(content, mode, recipe) is not None for mode, recipe in recipes.items())
            and (self.captions is None or self.captions.keeps(Path(found.path)))
            and (not self.privacy.hides or is_private_enough(found.path, self.privacy))
        )


def _without_caption(pictures: Iterable[str]) -> dict[str, str]:
    shared = colliding(map(Path, sorted(pictures))).values()
    return {str(other): first.name for first, *others in shared for other in others}
