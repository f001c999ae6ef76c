"""The library at work, on the models of a host: folders are scanned, pictures interrogated, as jobs.

An answer goes into the sidecar first, and from there into the library. One that the sidecar has already is
given again, and no model is asked. Where no CLIP is here, a WebUI elsewhere interrogates: see remote.py.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .analyzers import Analyzer, Answer, Failure, Recipe, ask, release
from .choice import Choice
from .clip.analyzer import ClipAnalyzer
from .errors import (
    EncryptionKeyError,
    EndpointRefused,
    EndpointUnreachable,
    ImageError,
    InputError,
    ModelError,
    ModeUnavailable,
    PromptglassError,
    Stopped,
    cause_of,
    visible,
)
from .host import allowed
from .images import Picture, open_picture
from .intake import facts_of
from .jobs import Job
from .library import Image, Library
from .library_files import CLIP_GENERATED, Prompt, found_at
from .progress import Progress, silent
from .service import Service
from .sidecar import describes, entry_of, path_of, read, update

if TYPE_CHECKING:
    from .remote_analyzer import RemoteAnalyzer

# What a person most wants to know, and what CLIP alone can say, without a captioner.
_MODES = ("best", "tables")
_ENTRY_ONLY = frozenset(("model", "prompt", "score", "settings", "elapsed_s", "at"))


# Of one picture, but no other would fare better.
_OF_ALL = (Stopped, ModelError, EndpointRefused, EndpointUnreachable, ModeUnavailable)


class NoSuchImage(InputError):
    """The library has no such image, or its file is gone."""


@dataclass(frozen=True)
class Wanted:
    """model: a CLIP by name, None for the host's own. mode: None for the best that can run here.

    of_webui: a mode that only a WebUI has ("webui/deepdanbooru"). force: ask again what is known.
    """

    model: str | None = None
    mode: str | None = None
    of_webui: str | None = None
    force: bool = False


class Librarian:
    """Only what lies below the host's roots is there for it, links resolved."""

    def __init__(self, service: Service, library: Library) -> None:
        self.service = service
        self.library = library

    @property
    def roots(self) -> Sequence[Path]:
        return self.service.host.roots

    def scan(self, folder: str, recursive: bool) -> Job:
        """Ends with a Scanned, as JSON. Raises InputError for a folder that may not be used, or is none."""
        place = allowed(folder, self.roots)
        if not place.is_dir():
            what = (
                "it is a file. Give the folder it lies in." if place.exists() else "there is no such folder."
            )
            raise InputError(f"cannot read {visible(folder)}: {what}")

        def work(job: Job) -> dict[str, Any]:
            return asdict(self.library.scan(place, recursive, job.progress, self.roots))

        return self.service.jobs.start("scan", work, folder=str(place))

    def image(self, id: str) -> Image:
        """Raises NoSuchImage."""
        image = self.library.image(id, self.roots)
        if image is None:
            raise NoSuchImage(
                f"there is no image {visible(id)[:64]!r} in the library. Scan its folder first."
            )
        return image

    def interrogate(self, id: str, wanted: Wanted) -> Job:
        """Ends with {image_id, prompt, mode, score, answered_by, cached, comparison, note}.

        comparison: with the prompt in the file: {embedded, embedded_score, similarity}, None where there is
        none. cached: it was known already. note: why it is not in the sidecar, or "". Raises NoSuchImage.
        """
        image = self.image(id)

        def work(job: Job) -> dict[str, Any]:
            analyzer, mode = self._analyzer(wanted, job.progress)
            try:
                return self._interrogated(image, analyzer, mode, wanted, job)
            finally:
                release([analyzer], at_once=job.is_stopping)

        return self.service.jobs.start("interrogate-image", work, picture=image.path)

    def interrogate_all(self, ids: Sequence[str] | None, wanted: Wanted) -> Job:
        """One after the other; ids: None for all. It tells an `outcome` of each: image_id, success, prompt,
        error. Ends with {total, successful, failed}.
        """

        def work(job: Job) -> dict[str, Any]:
            todo = self.library.ids(self.roots) if ids is None else [*dict.fromkeys(ids)]
            analyzer, mode = self._analyzer(wanted, job.progress)
            counts = {"total": len(todo), "successful": 0, "failed": 0}
            try:
                for done, id_ in enumerate(todo):
                    job.progress("interrogating", done, len(todo))
                    outcome = self._outcome(id_, analyzer, mode, wanted, job)
                    counts["successful" if outcome["success"] else "failed"] += 1
                    job.tell("outcome", done=done + 1, counts=dict(counts), **outcome)
                job.progress("interrogating", len(todo), len(todo))
            finally:
                release([analyzer], at_once=job.is_stopping)
            return counts

        return self.service.jobs.start("interrogate-images", work)

    def why_unavailable(self) -> str:
        """What stands in the way of any interrogation, asked now; "" where nothing does."""
        from .remote import ENABLED_VARIABLE, RemoteWebUI

        if not _is_enabled():
            return f"{ENABLED_VARIABLE} switches it off"
        obstacles = self.service.host.clip(Choice(), silent).obstacles("tables")
        if not obstacles:
            return ""
        try:
            RemoteWebUI.from_environment(source="the default address").probe()
        except PromptglassError as error:
            return f"{'; '.join(obstacles)}; {error}"
        return ""

    # -- who answers ---------------------------------------------------------------------------------------

    def _analyzer(self, wanted: Wanted, progress: Progress) -> tuple[Analyzer, str]:
        """Raises ModelError where nobody can answer, EndpointError where a WebUI was named and does not."""
        if not _is_enabled():
            raise ModelError("CLIP is switched off here, by CLIP_ENABLED. Unset it, and start again.")
        if wanted.of_webui is not None:
            name = wanted.of_webui.rpartition("/")[2]
            return _by_webui(wanted.of_webui, None, f"{name} is not here: only a WebUI has it", progress)
        clip = self.service.host.clip(Choice(model=wanted.model), progress)
        modes = (wanted.mode,) if wanted.mode else _MODES
        for mode in modes:
            if not clip.obstacles(mode):
                return clip, mode
        return _by_webui(wanted.mode, wanted.model, "; ".join(clip.obstacles(modes[0])), progress)

    # -- one picture ---------------------------------------------------------------------------------------

    def _outcome(self, id_: str, analyzer: Analyzer, mode: str, wanted: Wanted, job: Job) -> dict[str, Any]:
        told = {"image_id": id_, "success": False, "prompt": None, "error": None}
        try:
            found = self._interrogated(self.image(id_), analyzer, mode, wanted, job)
        except _OF_ALL:
            raise
        except PromptglassError as error:
            return {**told, "error": str(error)}
        return {**told, "success": True, "prompt": found["prompt"], "score": found["score"]}

    def _interrogated(
        self, image: Image, analyzer: Analyzer, mode: str, wanted: Wanted, job: Job
    ) -> dict[str, Any]:
        allowed(image.path, self.roots)  # it may have become a link out of them
        try:
            before = found_at(image.path)
            picture = open_picture(Path(image.path))
        except ImageError as error:
            if not os.path.lexists(image.path):
                raise NoSuchImage(f"{error} Scan its folder again.") from error
            raise
        recipe = analyzer.recipe(mode)
        kept = None if wanted.force else _kept(image.path, mode, recipe)
        answer = kept or _asked(analyzer, picture, mode)
        if "comparison" in answer.details:
            self.library.refresh(image.path)
            return _found(image, answer, True)
        comparison = self._compared(picture, analyzer, answer, job)
        answer = replace(answer, details={**answer.details, "comparison": comparison})
        note = self._saved(image, before.size_bytes, before.modified_ns, recipe, answer)
        return _found(image, answer, kept is not None, note)

    def _compared(
        self, picture: Picture, analyzer: Analyzer, answer: Answer, job: Job
    ) -> dict[str, object] | None:
        """The prompt in the file beside the answer; how close they are, only CLIP can say."""
        if picture.embedded is None or not picture.embedded.positive.strip():
            return None
        embedded = picture.embedded.positive
        compared: dict[str, object] = {"embedded": embedded, "embedded_score": None, "similarity": None}
        if not isinstance(analyzer, ClipAnalyzer):
            return compared
        with self.service.host.turns().turn(job.progress):
            (score,) = analyzer.scores(picture, [embedded])
            features = analyzer.interrogator.encoder.encode_texts([embedded, answer.text])  # [2, d]
            similarity = float(features[0].float() @ features[1].float())
        return {**compared, "embedded_score": round(score, 6), "similarity": round(similarity, 6)}

    def _saved(self, image: Image, size_bytes: int, modified_ns: int, recipe: Recipe, answer: Answer) -> str:
        """Into the sidecar, and from there into the library. Why the sidecar could not be written, or ""."""
        facts = facts_of(image.path)
        if (facts.size_bytes, facts.modified_ns) != (size_bytes, modified_ns):
            raise ImageError(image.path, "it changed while it was read. Try again.")
        try:
            update(image.path, facts, {answer.mode: recipe}, [answer])
        except EncryptionKeyError as error:  # the library is a plain file
            return f"kept nowhere: {visible(str(error))}"
        except (InputError, OSError) as error:
            self.library.add_prompt(image.id, _prompt(answer))
            why = cause_of(error) if isinstance(error, OSError) else str(error)
            return f"only in the library, not beside the picture: {visible(why)}"
        self.library.refresh(image.path)
        return ""


def _by_webui(
    mode: str | None, model: str | None, obstacle: str, progress: Progress
) -> tuple[RemoteAnalyzer, str]:
    """The one place from where a WebUI is asked. obstacle: why nobody here can answer."""
    from .choice import CLIP_MODEL
    from .remote import ADDRESS_VARIABLES, RemoteWebUI
    from .remote_analyzer import RemoteAnalyzer
    from .remote_api import Wish

    wish = Wish(model="" if model in (None, CLIP_MODEL) else str(model))  # a WebUI's own is that one
    remote = RemoteWebUI.from_environment(source="the default address")
    try:
        analyzer = RemoteAnalyzer(remote, wish, progress)
    except EndpointUnreachable as error:
        if any(os.environ.get(name, "").strip() for name in ADDRESS_VARIABLES):
            raise
        way_out = f"start a WebUI with --api and name its address in {ADDRESS_VARIABLES[0]}"
        raise ModelError(f"{obstacle}; or {way_out}") from error
    mode = mode or next(mode for mode in analyzer.first_choice if mode in analyzer.modes)
    analyzer.check([mode])
    return analyzer, mode


def _found(image: Image, answer: Answer, is_kept: bool, note: str = "") -> dict[str, Any]:
    return {
        "image_id": image.id,
        "prompt": answer.text,
        "mode": answer.mode,
        "score": None if answer.score is None else round(answer.score, 6),
        "answered_by": answer.model,
        "cached": is_kept,
        "comparison": answer.details["comparison"],
        "note": note,
    }


def _asked(analyzer: Analyzer, picture: Picture, mode: str) -> Answer:
    for outcome in ask(analyzer, picture, [mode]):
        if isinstance(outcome, Failure):
            raise outcome.error
        return outcome
    raise InputError(f"{mode} has nothing to say of {visible(picture.name)}. Try another mode.")


def _kept(path: str, mode: str, recipe: Recipe) -> Answer | None:
    """The answer that the sidecar has, if it is of this file and came about in this way."""
    try:
        content = read(path_of(path)) or {}
    except InputError:  # encrypted, or of a newer promptglass
        return None
    found = found_at(path)
    entry = entry_of(content, mode, recipe)
    if not entry or not isinstance(entry.get("prompt"), str):
        return None
    if not describes(content, found.size_bytes, found.modified_ns):
        return None
    score, settings, elapsed_s = entry.get("score"), entry.get("settings"), entry.get("elapsed_s")
    return Answer(
        mode,
        entry["prompt"],
        entry.get("model"),
        score if isinstance(score, int | float) else None,
        elapsed_s if isinstance(elapsed_s, int | float) else 0.0,
        settings if isinstance(settings, dict) else {},
        {name: value for name, value in entry.items() if name not in _ENTRY_ONLY},  # tables, comparison
    )


def _prompt(answer: Answer) -> Prompt:
    comparison = answer.details.get("comparison")
    return Prompt(
        CLIP_GENERATED,
        answer.mode,
        answer.text,
        answer.model or "",
        score=answer.score,
        settings=answer.settings,
        comparison=comparison if isinstance(comparison, Mapping) else None,
    )


def _is_enabled() -> bool:
    from .remote import ENABLED_VARIABLE

    return os.environ.get(ENABLED_VARIABLE, "").strip().lower() not in ("false", "0", "no", "off")
