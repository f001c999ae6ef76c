"""How a batch gets done: threads load ahead, models see groups, threads save.

Loaders claim, hash and decode within a budget of memory; a sidecar is written as soon as its picture is done.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
from collections import deque
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import groupby
from pathlib import Path

from .analyzers import Analyzer, Answer, Failure, Recipe
from .atomic import locked
from .batch import Batch, Outcome, Plan, Tell
from .errors import (
    NO_ROOM,
    CaptionerMissing,
    DependencyMissing,
    EncryptionKeyError,
    EndpointRefused,
    EndpointUnreachable,
    InputError,
    ModelError,
    ModelSeesNot,
    ModeUnavailable,
    PromptglassError,
    Stopped,
    WeightsMissing,
    cause_of,
    one_line,
    visible,
)
from .intake import Budget, Claimed, Intake
from .scan import Found
from .sidecar import Content, entry_of, is_private_enough, now, path_of, rewrite, section_of, update
from .training import CaptionFiles, caption_path

log = logging.getLogger("promptglass")

# Pictures that models see at a time; also what a killed run has to do again. Chains take seconds to minutes.
_GROUP, _GROUP_OF_CHAINS = 32, 8
_CHAINS = frozenset(("best", "negative"))
# Decoded pixels held at a time: some eighty pictures of two megapixels.
_BUDGET_BYTES = 512 << 20
_TOO_MANY_IN_A_ROW = 32
# An answer that took as long is in the sidecar at once: the end of its group may be minutes away.
_WORTH_SAVING_S = 1.0
# What concerns a mode, not a picture.
_OF_A_MODE = (
    *(WeightsMissing, CaptionerMissing, DependencyMissing, InputError, ModuleNotFoundError),
    *(ModelSeesNot, ModeUnavailable),
)
# What concerns all modes of an analyzer: no other is asked for, which may cost minutes of waiting.
_OF_AN_ENDPOINT = (EndpointRefused, EndpointUnreachable)
# Answers that make no caption to train on, unless nothing else is asked for.
_NO_CAPTIONS = frozenset(("embedded", "negative", "palette", "tables", "ocr", "text", "critique"))


class Pipeline:
    """One pass over what a plan found missing."""

    def __init__(self, batch: Batch, plan: Plan, tell: Tell) -> None:
        self.has_left_out = False
        self._started = now()
        self._batch = batch
        self._plan = plan
        self._tell = tell
        self._all_recipes = plan.recipes
        self._recipes = self._all_recipes  # of the modes that are not left out
        # Why an analyzer failed last, and how often in a row for that reason.
        self._streaks: dict[Analyzer, tuple[str, int]] = {}
        self._waiting = deque(plan.todo)
        self._seen_elsewhere: set[str] = set()
        self._group_size = _GROUP_OF_CHAINS if _CHAINS & {*batch.modes} else _GROUP
        self._budget = Budget(_BUDGET_BYTES)
        self._intake = Intake(self._missing, batch.verify, self._budget)
        threads = max(2, min(8, os.cpu_count() or 2))
        self._loaders = ThreadPoolExecutor(threads, "promptglass-load")
        self._savers = ThreadPoolExecutor(2, "promptglass-save")
        self._loading: dict[Future[Claimed | None], Found] = {}
        self._loaded: list[Claimed] = []
        self._group: list[Claimed] = []  # those of them that models look at
        self._saving: deque[Future[Outcome]] = deque()

    def work(self) -> None:
        try:
            while self._waiting or self._loading or self._loaded or self._saving:
                self._feed()
                self._collect()
                self._group, self._loaded = self._loaded[: self._group_size], self._loaded[self._group_size :]
                self._ask_analyzers()
                self._save_group()
                self._tell_saved()
        finally:
            self._wind_up()

    def _wind_up(self) -> None:
        """Stop loading, keep the answers that are there, give back every claim, tell of the rest."""
        self._budget.close()
        self._loaded += [claimed for claimed in self._group if not claimed.answered_modes]
        self._group = [claimed for claimed in self._group if claimed.answered_modes]
        self._save_group()
        for claimed in self._loaded:
            self._intake.give_back(claimed)
        self._loaders.shutdown(cancel_futures=True)
        for future in self._loading:
            late = None if future.cancelled() or future.exception() else future.result()
            if late is not None:
                self._intake.give_back(late)
        self._savers.shutdown()
        while self._saving:
            self._tell(self._saving.popleft().result())

    # -- loading ---------------------------------------------------------------------------------------

    def _feed(self) -> None:
        # All that is in flight holds a claim, which is an open file: systems allow 256 and more.
        room = 2 * self._group_size - len(self._loading) - len(self._loaded) - len(self._saving)
        for _ in range(min(room, len(self._waiting))):
            found = self._waiting.popleft()
            self._loading[self._loaders.submit(self._intake.load, found)] = found

    def _collect(self) -> None:
        """Take what is loaded, and wait only for a first one: models are not idle while there is something to
        do, and groups grow to what was loaded meanwhile. What needs no model goes on to be saved."""
        if not self._loading:
            return
        done, _ = wait(self._loading, 0 if self._loaded else None, FIRST_COMPLETED)
        for future in done:
            found = self._loading.pop(future)
            try:
                claimed = future.result()
            except EncryptionKeyError:  # no other sidecar would fare better
                raise
            except OSError as error:
                self._tell(Outcome(found.path, "failed", self._not_written(found.path, error)))
            except Exception as error:
                self._tell(Outcome(found.path, "failed", _reason(error)))
            else:
                self._sort_in(found, claimed)

    def _sort_in(self, found: Found, claimed: Claimed | None) -> None:
        if claimed is None and found.path not in self._seen_elsewhere:
            self._seen_elsewhere.add(found.path)
            self._waiting.append(found)  # whoever has it may be stopped
        elif claimed is None:
            self._tell(Outcome(found.path, "elsewhere"))
        elif claimed.picture is None:
            self._saving.append(self._savers.submit(self._save, claimed))
        else:
            self._loaded.append(claimed)

    def _missing(self, content: Content) -> list[str]:
        """The modes that a sidecar lacks and an analyzer can still give."""
        return [mode for mode, recipe in self._recipes.items() if self._is_missing(content, mode, recipe)]

    def _is_missing(self, content: Content, mode: str, recipe: Recipe) -> bool:
        entry = entry_of(content, mode, recipe)
        if entry is None or not self._batch.force:
            return entry is None
        # Not what another process has just made by force.
        return not isinstance(at := entry.get("at"), str) or at < self._started

    # -- models ----------------------------------------------------------------------------------------

    def _ask_analyzers(self) -> None:
        by_modes = sorted(self._group, key=lambda claimed: claimed.missing)
        for modes, members in groupby(by_modes, key=lambda claimed: claimed.missing):
            group = [*members]
            for analyzer in self._batch.analyzers:
                self._ask(analyzer, group, [mode for mode in modes if mode in analyzer.modes])

    def _ask(self, analyzer: Analyzer, group: list[Claimed], modes: list[str]) -> None:
        """Answers of one analyzer. What it cannot do, a picture or a mode, costs no other its answer."""
        modes = [mode for mode in modes if mode in self._recipes]
        error = self._refusal(analyzer, group, modes) if modes else None
        if error is None:
            return
        if isinstance(error, _OF_AN_ENDPOINT):
            self._leave_out(analyzer.modes, error)
            return
        refused: dict[str, tuple[Exception, list[str]]] = {}  # by reason: it is said once
        for mode in modes:
            error = self._refusal(analyzer, group, [mode]) if len(modes) > 1 else error
            if error is not None:
                refused.setdefault(_reason(error), (error, []))[1].append(mode)
        for error, its_modes in refused.values():
            self._leave_out(its_modes, error)

    def _refusal(self, analyzer: Analyzer, group: list[Claimed], modes: list[str]) -> Exception | None:
        """Ask; the error, if it is one that concerns the modes."""
        group = [claimed for claimed in group if not claimed.answered_modes.issuperset(modes)]
        try:
            if group:
                self._analyze(analyzer, group, modes)
        except Stopped:
            raise
        except (*_OF_A_MODE, *_OF_AN_ENDPOINT) as error:
            return error
        except Exception as error:
            if len(group) == 1:
                group[0].failures.append(_reason(error))
                self._count_failure(analyzer, error)
                return None
            log.debug("a group failed; its pictures are done one by one", exc_info=True)
            for claimed in group:
                left = [mode for mode in modes if mode not in claimed.answered_modes]
                self._ask(analyzer, [claimed], left)
        return None

    def _analyze(self, analyzer: Analyzer, group: list[Claimed], modes: list[str]) -> None:
        pictures = [claimed.picture for claimed in group if claimed.picture is not None]
        failed: list[tuple[Claimed, Failure]] = []
        is_answering = False
        with contextlib.closing(analyzer.analyze(pictures, modes)) as outcomes:
            for place, outcome in outcomes:
                if isinstance(outcome, Failure):
                    failed.append((group[place], outcome))
                    group[place].failures.append(f"{outcome.mode}: {_reason(outcome.error)}")
                else:
                    is_answering = True
                    self._keep(group[place], outcome)
        for claimed in group:
            failed_modes = {failure.mode for its, failure in failed if its is claimed}
            claimed.answered_modes.update(mode for mode in modes if mode not in failed_modes)
        if is_answering or not failed:
            self._streaks.pop(analyzer, None)
        for _, failure in () if is_answering else failed:
            self._count_failure(analyzer, failure.error)

    def _keep(self, claimed: Claimed, answer: Answer) -> None:
        if answer.score is not None and not math.isfinite(answer.score):
            raise ModelError(f"the score of {answer.mode} is no number (half precision that overflowed?)")
        claimed.answers.append(answer)
        claimed.answered_modes.add(answer.mode)
        if answer.elapsed_s >= _WORTH_SAVING_S:
            try:
                claimed.note = self._update_sidecar(claimed) or claimed.note
            except OSError as error:
                self._not_written(claimed.path, error)  # raises if no other could be written either
            except PromptglassError:
                pass  # as when the picture is done; it is told then

    def _count_failure(self, analyzer: Analyzer, error: Exception) -> None:
        reason = _reason(error)
        before, count = self._streaks.get(analyzer, (reason, 0))
        count = count + 1 if before == reason else 1
        self._streaks[analyzer] = reason, count
        if count == _TOO_MANY_IN_A_ROW:  # it is not the pictures
            self._leave_out(analyzer.modes, ModelError(f"{count} pictures in a row failed: {reason}"))

    def _leave_out(self, modes: Sequence[str], error: Exception) -> None:
        """Go on without some modes. Raises their error if there are no others."""
        gone = [mode for mode in self._recipes if mode in modes]
        self._recipes = {mode: recipe for mode, recipe in self._recipes.items() if mode not in modes}
        if not self._recipes:
            raise error
        self.has_left_out = True
        self._batch.warn(f"left out from here on: {', '.join(gone)}: {_reason(error)}")

    # -- saving, on threads ----------------------------------------------------------------------------

    def _save_group(self) -> None:
        group, self._group = self._group, []
        for claimed in group:
            self._intake.forget_pixels(claimed)
            self._saving.append(self._savers.submit(self._save, claimed))

    def _tell_saved(self) -> None:
        """Of what is saved by now; waits for it where there is nothing else to do."""
        is_idle = not (self._waiting or self._loading or self._loaded)
        is_full = len(self._saving) >= 2 * self._group_size
        while self._saving and (self._saving[0].done() or is_idle or is_full):
            self._tell(self._saving.popleft().result())
            is_full = False

    def _save(self, claimed: Claimed) -> Outcome:
        is_changed = bool(claimed.answered_modes)
        privacy = self._batch.privacy
        try:
            if claimed.answered_modes:
                claimed.note = self._update_sidecar(claimed) or claimed.note
            elif claimed.content and (claimed.new_times or not is_private_enough(claimed.path, privacy)):
                rewrite(claimed.path, claimed.new_times, privacy)
                is_changed = claimed.new_times is None
            if self._batch.captions is not None and not claimed.failures:
                is_changed |= self._write_caption(claimed, self._batch.captions)
        except (EncryptionKeyError, DependencyMissing):  # no other sidecar would fare better
            raise
        except OSError as error:
            claimed.failures.append(self._not_written(claimed.path, error))
        except Exception as error:
            claimed.failures.append(_reason(error))
        finally:
            claimed.claim.release()
        if claimed.failures:
            return Outcome(claimed.path, "failed", "; ".join(claimed.failures), claimed.note)
        return Outcome(claimed.path, "done" if is_changed else "unchanged", note=claimed.note)

    def _update_sidecar(self, claimed: Claimed) -> str | None:
        assert claimed.facts is not None
        recipes = {
            mode: self._all_recipes[mode] for mode in claimed.missing if mode in claimed.answered_modes
        }
        kept = update(claimed.path, claimed.facts, recipes, claimed.answers, self._batch.privacy)
        if kept is None:
            return None
        sidecar = visible(str(path_of(claimed.path)))
        return f"{sidecar} could not be understood; it is kept as {visible(kept.name)}"

    def _write_caption(self, claimed: Claimed, captions: CaptionFiles) -> bool:
        texts: list[str] = []
        modes = self._batch.modes
        for mode in [mode for mode in modes if _kind(mode) not in _NO_CAPTIONS] or modes:
            if mode in claimed.answered_modes:
                texts += [answer.text for answer in claimed.answers if answer.mode == mode]
                continue
            recipe = self._all_recipes.get(mode)
            entry = entry_of(claimed.content, mode, recipe) if recipe else None
            if entry is None:  # stopped, or left out: half a caption would look like a whole one
                return False
            texts.append(str(entry.get("prompt", "")))
        first = self._plan.without_caption.get(claimed.path)
        if first is not None:
            raise InputError(f"{visible(claimed.path)} has the same .txt as {visible(first)}: rename one")
        path = Path(claimed.path)
        with locked(caption_path(path)):
            return captions.write(path, texts)

    def _not_written(self, path: str, error: OSError) -> str:
        if error.errno in NO_ROOM:
            raise InputError(f"cannot write to {self._plan.folder}: {cause_of(error)}") from error
        return f"cannot write beside {visible(path)}: {cause_of(error)}"


def _kind(mode: str) -> str:
    """negative of llm/negative@ollama"""
    return section_of(mode).removeprefix("llm/")


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, PromptglassError) else f"{type(error).__name__}: {one_line(error)}"
