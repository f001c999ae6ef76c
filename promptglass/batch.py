"""Folder in, sidecars out: only what is missing, many pictures at a time, nothing lost when it is stopped.

Threads claim, hash and decode ahead of the models, within a budget of memory; models see pictures in groups;
each sidecar is written as soon as its picture is done. A process may be killed at any moment: what is in a
sidecar counts, what was in flight is done again by the next run.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections import Counter, deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import groupby, islice
from pathlib import Path

from .analyzers import Analyzer, Answer
from .atomic import locked
from .errors import (
    CaptionerMissing,
    DependencyMissing,
    EncryptionKeyError,
    ImageError,
    InputError,
    ModelError,
    PromptglassError,
    SidecarError,
    WeightsMissing,
    one_line,
    visible,
)
from .images import missing_decoder
from .intake import Budget, Claimed, Intake
from .journal import Journal
from .scan import Found, find_pictures
from .sealed import seal
from .sidecar import OPEN, SUFFIX, Content, Privacy, describes, entry_of, path_of, read, touch, update
from .training import CaptionFiles, caption_path, colliding

log = logging.getLogger("promptglass")

# Pictures that models see at a time; also what a killed run has to do again. Chains take seconds to minutes.
_TOGETHER, _CHAINS_TOGETHER = 32, 8
_CHAINS = frozenset(("best", "negative"))
# Decoded pixels held at a time: some eighty pictures of two megapixels.
_BUDGET_BYTES = 512 << 20
# Answers that make no caption to train on, unless nothing else is asked for.
_NO_CAPTIONS = frozenset(("embedded", "negative", "palette", "tables"))
_TOO_MANY_IN_A_ROW = 8
# Where no other picture would fare better. Windows has no quotas.
_NO_ROOM = {errno.ENOSPC, errno.EROFS, getattr(errno, "EDQUOT", errno.ENOSPC)}


@dataclass(frozen=True)
class Outcome:
    """What became of a picture: "done", "unchanged", "elsewhere" (another process has it) or "failed".

    One that failed may have answers all the same: of the modes that worked.
    """

    path: str
    status: str
    answers: tuple[Answer, ...] = ()
    error: str | None = None
    note: str | None = None  # what the user should know although it went well


@dataclass(frozen=True)
class Plan:
    """What is to be done in a folder. `failed` are those that could not even be looked at."""

    folder: Path
    todo: list[Found] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    failed: list[Outcome] = field(default_factory=list)
    # Pictures whose caption file another picture has: a.jpg beside a.png. To the name of that other.
    sharing: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)  # what was passed over, and why


class Batch:
    """Modes over folders.

    force: compute again what is there; verify: hash also where size and time are as they were; captions:
    write .txt files for training, too. `left_out`: why analyzers could not go on, filled while running.
    """

    def __init__(
        self,
        analyzers: Sequence[Analyzer],
        modes: Sequence[str],
        privacy: Privacy = OPEN,
        captions: CaptionFiles | None = None,
        force: bool = False,
        verify: bool = False,
    ) -> None:
        self.modes = list(modes)
        self.analyzers = [analyzer for analyzer in analyzers if {*analyzer.modes} & {*modes}]
        self.left_out: list[Exception] = []
        if privacy.encrypt:
            seal(b"")  # a missing key is known before hours of work
        self.privacy = privacy
        self.captions = captions
        self.force = force
        self.verify = verify
        self.recipes = {
            mode: analyzer.recipe(mode)
            for mode in self.modes
            for analyzer in self.analyzers
            if mode in analyzer.modes
        }

    def plan(self, folder: str | os.PathLike[str], recursive: bool = False) -> Plan:
        """Look what a folder holds, and what of it is missing. Reads sidecars, opens no picture.

        Raises InputError where there is no such folder, EncryptionKeyError for a wrong key.
        """
        plan = Plan(Path(folder))
        if Path(folder).is_dir() and not os.access(folder, os.W_OK):
            raise InputError(
                f"cannot write to {folder}: sidecars lie beside their pictures. Change its permissions."
            )

        def report(error: ImageError) -> None:
            plan.failed.append(Outcome(error.name, "failed", error=str(error)))

        passed_over: Counter[str] = Counter()
        for found in find_pictures(plan.folder, recursive, report):
            decoder = missing_decoder(found.extension)
            if decoder is not None:
                passed_over[decoder] += 1
                continue
            try:
                is_unchanged = found.has_sidecar and self._is_unchanged(found)
            except SidecarError as error:
                plan.failed.append(Outcome(found.path, "failed", error=str(error)))
                continue
            if is_unchanged:
                plan.unchanged.append(found.path)
            else:
                plan.todo.append(found)
        plan.notes.extend([f"{count:,} pictures passed over: {why}" for why, count in passed_over.items()])
        if self.captions is not None:
            every = sorted([*plan.unchanged, *(found.path for found in plan.todo)])
            for first, *others in colliding(map(Path, every)).values():
                plan.sharing.update({str(other): first.name for other in others})
        return plan

    def run(self, plan: Plan) -> Iterator[Outcome]:
        """Do what a plan found missing; outcomes come in the order in which pictures are done.

        Closing the iterator stops the work and keeps what is done. Raises the error of the last analyzer when
        none can go on, InputError when the disk is full, EncryptionKeyError.
        """
        journal = Journal(plan.folder)
        succeeded = [*plan.unchanged]
        for outcome in plan.failed:
            assert outcome.error is not None
            journal.failed(outcome.path, outcome.error)
            yield outcome
        with contextlib.closing(_Run(self, plan).outcomes()) as outcomes:
            for outcome in outcomes:
                if outcome.error is not None:
                    journal.failed(outcome.path, outcome.error)
                elif outcome.status == "done":
                    succeeded.append(outcome.path)
                yield outcome
        journal.settle(succeeded)

    def missing(self, content: Content) -> list[str]:
        """The modes that a sidecar lacks and an analyzer can still give."""
        recipes = self.recipes.items()
        return [mode for mode, recipe in recipes if self.force or entry_of(content, mode, recipe) is None]

    def leave_out(self, analyzer: Analyzer, error: Exception) -> None:
        """Go on without an analyzer. Raises its error if there is no other."""
        self.analyzers.remove(analyzer)
        self.recipes = {mode: recipe for mode, recipe in self.recipes.items() if mode not in analyzer.modes}
        if not self.analyzers:
            raise error
        self.left_out.append(error)

    def _is_unchanged(self, found: Found) -> bool:
        if self.force or self.verify:
            return False
        content = read(found.path + SUFFIX)
        return (
            content is not None
            and describes(content, found.size, found.modified_ns)
            and not self.missing(content)
            and (self.captions is None or self.captions.keeps(Path(found.path)))
        )


class _Run:
    """One pass over what a plan found missing."""

    def __init__(self, batch: Batch, plan: Plan) -> None:
        self._batch = batch
        self._plan = plan
        self._recipes = batch.recipes  # of all modes; those of analyzers that are left out go from the batch
        self._waiting = iter(plan.todo)
        self._together = _CHAINS_TOGETHER if _CHAINS & {*batch.modes} else _TOGETHER
        self._budget = Budget(_BUDGET_BYTES)
        self._intake = Intake(batch.missing, batch.verify, self._budget)
        threads = max(2, min(8, os.cpu_count() or 2))
        self._loaders = ThreadPoolExecutor(threads, "promptglass-load")
        self._savers = ThreadPoolExecutor(2, "promptglass-save")
        self._loading: dict[Future[Claimed | None], Found] = {}
        self._loaded: list[Claimed] = []
        self._group: list[Claimed] = []  # those of them that models look at
        self._saving: deque[Future[Outcome]] = deque()
        self._failed_in_a_row: dict[Analyzer, list[str]] = {}  # why

    def outcomes(self) -> Generator[Outcome, None, None]:
        try:
            self._feed()
            while self._loading or self._loaded:
                yield from self._collect()
                self._group, self._loaded = self._loaded[: self._together], self._loaded[self._together :]
                self._ask_analyzers()
                self._save_group()
                while self._saving and self._saving[0].done():
                    yield self._saving.popleft().result()
            while self._saving:
                yield self._saving.popleft().result()
        finally:
            self._wind_up()

    def _feed(self) -> None:
        for found in islice(self._waiting, 2 * self._together - len(self._loading)):
            self._loading[self._loaders.submit(self._intake.load, found)] = found

    def _collect(self) -> Iterator[Outcome]:
        """Take what is loaded, and wait only for a first one: models are not idle while there is something to
        do, and groups grow to what was loaded meanwhile. What needs no model goes on to be saved."""
        if not self._loading:
            return
        done, _ = wait(self._loading, 0 if self._loaded else None, FIRST_COMPLETED)
        for future in done:
            path = self._loading.pop(future).path
            try:
                claimed = future.result()
            except (ImageError, SidecarError) as error:
                yield Outcome(path, "failed", error=str(error))
                continue
            if claimed is None:
                yield Outcome(path, "elsewhere")
            elif claimed.picture is None:
                self._saving.append(self._savers.submit(self._save, claimed))
            else:
                self._loaded.append(claimed)
        self._feed()

    def _ask_analyzers(self) -> None:
        by_modes = sorted(self._group, key=lambda claimed: claimed.missing)
        for modes, members in groupby(by_modes, key=lambda claimed: claimed.missing):
            group = [*members]
            for analyzer in [*self._batch.analyzers]:
                wanted = [mode for mode in modes if mode in analyzer.modes]
                if wanted:
                    self._ask(analyzer, group, wanted)

    def _ask(self, analyzer: Analyzer, group: list[Claimed], modes: list[str]) -> None:
        """Answers of one analyzer. A picture that it cannot do costs no other picture its answer."""
        try:
            _analyze(analyzer, group, modes)
            self._failed_in_a_row.pop(analyzer, None)
        except (
            WeightsMissing,
            CaptionerMissing,
            DependencyMissing,
            InputError,
            ModuleNotFoundError,
        ) as error:
            self._batch.leave_out(analyzer, error)
        except Exception as error:
            if len(group) == 1:
                self._fail(analyzer, group[0], error)
                return
            log.debug("a group failed; its pictures are done one by one", exc_info=True)
            for claimed in group:
                if analyzer in self._batch.analyzers:
                    self._ask(analyzer, [claimed], [mode for mode in modes if mode not in claimed.asked])

    def _fail(self, analyzer: Analyzer, claimed: Claimed, error: Exception) -> None:
        is_ours = isinstance(error, PromptglassError)
        reason = str(error) if is_ours else f"{type(error).__name__}: {one_line(error)}"
        claimed.failures.append(reason)
        reasons = self._failed_in_a_row.setdefault(analyzer, [])
        if reasons and reasons[-1] != reason:
            reasons.clear()
        reasons.append(reason)
        if len(reasons) == _TOO_MANY_IN_A_ROW:  # it is not the pictures
            self._batch.leave_out(
                analyzer, ModelError(f"left out after {len(reasons)} pictures in a row: {reason}")
            )

    def _save_group(self) -> None:
        group, self._group = self._group, []
        for claimed in group:
            self._intake.forget_pixels(claimed)
            self._saving.append(self._savers.submit(self._save, claimed))

    def _save(self, claimed: Claimed) -> Outcome:
        note = None
        is_changed = bool(claimed.asked)
        try:
            if claimed.asked:
                note = self._update_sidecar(claimed)
            elif claimed.touched is not None:
                touch(claimed.path, claimed.touched.st_size, claimed.touched.st_mtime_ns)
            if self._batch.captions is not None and not claimed.failures:
                is_changed |= self._write_caption(claimed, self._batch.captions)
        except EncryptionKeyError:  # no other sidecar would fare better
            raise
        except InputError as error:
            claimed.failures.append(str(error))
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise InputError(f"cannot write to {self._plan.folder}: {error.strerror}") from error
            claimed.failures.append(f"cannot write beside {visible(claimed.path)}: {error.strerror}")
        finally:
            claimed.claim.release()
        error_line = "; ".join(claimed.failures) or None
        status = "failed" if error_line else "done" if is_changed else "unchanged"
        return Outcome(claimed.path, status, tuple(claimed.answers), error_line, note)

    def _update_sidecar(self, claimed: Claimed) -> str | None:
        assert claimed.facts is not None
        recipes = {mode: recipe for mode, recipe in self._recipes.items() if mode in claimed.asked}
        kept = update(claimed.path, claimed.facts, recipes, claimed.answers, self._batch.privacy)
        if kept is None:
            return None
        return f"{visible(str(path_of(claimed.path)))} could not be understood; it is kept as {kept.name}"

    def _write_caption(self, claimed: Claimed, captions: CaptionFiles) -> bool:
        texts: list[str] = []
        modes = self._batch.modes
        for mode in [mode for mode in modes if mode not in _NO_CAPTIONS] or modes:
            if mode in claimed.asked:
                texts += [answer.text for answer in claimed.answers if answer.mode == mode]
                continue
            recipe = self._batch.recipes.get(mode)
            entry = entry_of(claimed.content, mode, recipe) if recipe else None
            if entry is None:  # stopped, or left out: half a caption would look like a whole one
                return False
            texts.append(str(entry.get("prompt", "")))
        first = self._plan.sharing.get(claimed.path)
        if first is not None:
            raise InputError(f"{visible(claimed.path)} has the same .txt as {visible(first)}: rename one")
        path = Path(claimed.path)
        with locked(caption_path(path)):
            return captions.write(path, texts)

    def _wind_up(self) -> None:
        """Stop loading, keep the answers that are there, give back every claim."""
        self._budget.lift()
        self._save_group()
        self._loaders.shutdown(cancel_futures=True)
        late = [f.result() for f in self._loading if not f.cancelled() and f.exception() is None]
        for claimed in filter(None, [*self._loaded, *late]):
            self._intake.give_back(claimed)
        self._savers.shutdown()


def _analyze(analyzer: Analyzer, group: list[Claimed], modes: list[str]) -> None:
    for claimed in group:  # what an earlier try has left
        claimed.answers = [answer for answer in claimed.answers if answer.mode not in modes]
    pictures = [claimed.picture for claimed in group if claimed.picture is not None]
    for place, answer in analyzer.analyze(pictures, modes):
        group[place].answers.append(answer)
        group[place].asked.add(answer.mode)
    for claimed in group:
        claimed.asked.update(modes)
