"""What windows and wires ask: pictures, folders, wildcards, as jobs on the models of a host.

Nothing is fetched here: a mode whose model is not here fails, and says which command gets it.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .analyzers import MODES, Analyzer, Answer, Recipe, as_json, ask, release
from .batch import Batch, Outcome
from .choice import Choice, analyzer_of, analyzers_of
from .clip.analyzer import ClipAnalyzer
from .errors import InputError, ModelError, PromptglassError, visible
from .host import Host, allowed
from .jobs import Job, Jobs
from .live_text import LiveText
from .refine_request import Request
from .sidecar import PLAIN, Privacy, entry_of, path_of, read, update
from .training import CaptionFiles
from .wildcard_preview import Drawn, draw
from .wildcards import Outcome as Written
from .wildcards import collect, write_wildcards

if TYPE_CHECKING:
    from .images import Picture
    from .llm import Endpoint, Profile
    from .prompts import Prompt

log = logging.getLogger("promptglass")

_DEFAULT = Choice()
_PATIENCE_S = 1.0  # for a server to free its memory


class Service:
    """Jobs tell, as JSON: `answer` (see analyzers.as_json), `failure` and `left_out` (mode, error), `heard`
    and `warning` (text), `planned` and `outcome` of a batch.

    frees_language_models: after every job, as who generates pictures wants their memory back. A server that
    is asked again and again leaves that to the endpoint.
    """

    def __init__(self, host: Host, jobs: Jobs | None = None, frees_language_models: bool = True) -> None:
        self.host = host
        self.jobs = jobs or Jobs()
        self._frees_language_models = frees_language_models

    # -- one picture -----------------------------------------------------------------------------------

    def interrogate(self, picture: Picture, choice: Choice) -> Job:
        """Every mode of the choice; where it names none, the best that can run here."""
        self._check_endpoints(choice)

        def work(job: Job) -> dict[str, Any]:
            analyzers, modes = self._prepared(choice, job)
            answers = self._answers(job, analyzers, picture, modes)
            return {**_described(picture), "answers": answers}

        return self.jobs.start("interrogate", work, picture=picture.name)

    def label(
        self,
        picture: Picture,
        categories: Sequence[str] = (),
        labels: str = "",
        top: int = 5,
        choice: Choice = _DEFAULT,
    ) -> Job:
        """Built-in categories, and labels of the user's own, one a line, that compete with each other."""
        from .clip.classifier import TEMPLATES, parse_labels
        from .clip.classifier import categories as built_in

        if unknown := [name for name in categories if name not in built_in()]:
            known = ", ".join(built_in())
            raise InputError(f"there is no category {', '.join(unknown)}: choose from {known}")
        sets: dict[str, tuple[Any, Sequence[str]]] = {
            name: (built_in()[name].labels, built_in()[name].templates) for name in categories
        }
        if labels.strip():
            sets["labels"] = parse_labels(labels), TEMPLATES
        if not sets:
            raise InputError("there is nothing to choose from: name a category, or give labels of your own")

        def work(job: Job) -> dict[str, Any]:
            self._need(self.host.clip(choice, job.progress))
            with self.host.turns().turn(job.progress):
                loaded = self.host.loaded(choice)
                features = loaded.features([picture.image])
                found = {}
                for name, (its_labels, templates) in sets.items():
                    (scores,) = loaded.classifier(its_labels, templates).classify(features, top, 0.0)
                    found[name] = [
                        {
                            "label": one.label,
                            "confidence": round(one.confidence, 6),
                            "score": round(one.score, 6),
                            "emoji": one.emoji,
                        }
                        for one in scores
                    ]
            return {**_described(picture), "model": loaded.encoder.name, "categories": found}

        return self.jobs.start("label", work, picture=picture.name)

    def refine(self, request: Request, picture: Picture | None = None, choice: Choice = _DEFAULT) -> Job:
        """A language model's answer, heard as it is written. With a picture CLIP chooses among candidates."""
        from .prompts import load_prompts

        self._check_endpoint(request.profile)
        prompts = load_prompts()
        if request.prompt_id not in prompts:
            raise InputError(f"there is no prompt {request.prompt_id}: choose from {', '.join(prompts)}")

        def work(job: Job) -> dict[str, Any]:
            endpoint = request.endpoint()
            live = LiveText(lambda text: job.tell("heard", text=text), job.progress)
            if picture is None:
                return {"answers": [self._reworded(job, request, endpoint, prompts[request.prompt_id], live)]}
            clip: ClipAnalyzer | None = self.host.clip(choice, live.progress)
            if clip is not None and clip.obstacles("tables"):
                job.tell("warning", text=f"not compared with the picture: {clip.obstacles('tables')[0]}")
                clip = None
            analyzer = request.analyzer(endpoint, prompts, clip, live)
            answers = self._answers(job, [analyzer], request.about(picture), analyzer.modes)
            live.flush()
            return {**_described(picture), "answers": answers}

        return self.jobs.start("refine", work)

    def save_sidecar(self, path: str, answers: Sequence[Answer]) -> Path:
        """What was found out about a picture, beside it. Raises InputError where that cannot be written."""
        from .errors import cause_of
        from .intake import facts_of

        recipes = {answer.mode: Recipe(answer.model, answer.settings) for answer in answers}
        try:
            update(path, facts_of(path), recipes, answers)
        except OSError as error:
            raise InputError(f"cannot write beside {visible(path)}: {cause_of(error)}") from error
        return path_of(path)

    # -- folders ---------------------------------------------------------------------------------------

    def batch(
        self,
        folder: str,
        choice: Choice,
        recursive: bool = False,
        force: bool = False,
        verify: bool = False,
        captions: CaptionFiles | None = None,
        privacy: Privacy = PLAIN,
    ) -> Job:
        """Sidecars beside every picture of a folder. Stopped and started again, it goes on where it was."""
        place = allowed(folder, self.host.roots)
        self._check_endpoints(choice)

        def work(job: Job) -> dict[str, Any]:
            analyzers, modes = self._prepared(choice, job)
            batch = Batch(
                analyzers,
                modes,
                privacy,
                captions,
                force=force,
                verify=verify,
                warn=lambda line: job.tell("warning", text=line),
            )
            plan = batch.plan(place, recursive)
            for note in plan.notes:
                job.tell("warning", text=note)
            counts = Counter({"unchanged": len(plan.unchanged)})
            total = len(plan.todo) + len(plan.failed)
            job.tell("planned", todo=total, unchanged=len(plan.unchanged), modes=modes)

            def tell(outcome: Outcome) -> None:
                counts[outcome.status] += 1
                done = sum(counts.values()) - len(plan.unchanged)
                job.tell(
                    "outcome", done=done, total=total, counts=dict(counts), **_told(outcome, plan.recipes)
                )
                if not is_stopping:  # once: what is saved meanwhile is told, too
                    is_stopping.extend([True] * job.is_stopping)
                    job.check()

            is_stopping: list[bool] = []
            is_whole = batch.run(plan, tell)
            return {"counts": dict(counts), "is_whole": is_whole}

        return self.jobs.start("batch", work, folder=str(place))

    # -- wildcards -------------------------------------------------------------------------------------

    def write_wildcards(
        self,
        folder: str,
        recursive: bool = False,
        per_folder: bool = False,
        format: str = "txt",
        weights: bool = False,
    ) -> tuple[list[Written], list[str]]:
        """Wildcard files from a folder's sidecars, where the host reads them; and notes, a line each."""
        from .scan import read_sidecars

        place = allowed(folder, self.host.roots)
        target = self.host.wildcard_folder()
        notes: list[str] = []
        sidecars = read_sidecars(place, recursive or per_folder, lambda error: notes.append(str(error)))
        lines = collect(sidecars, per_folder)
        written = write_wildcards(lines, target.path, str(place), format, weights)
        if not written:
            notes.append("there are no sidecars with prompts in this folder: run it first")
        elif note := self.host.wildcards_changed():
            notes.append(note)
        return written, notes

    def preview_wildcards(self, template: str, count: int = 5, seed: int = 0) -> Drawn:
        return draw(template, self.host.wildcard_folder().path, count, seed)

    # -- what is there ---------------------------------------------------------------------------------

    def obstacles(self, choice: Choice = _DEFAULT) -> dict[str, list[str]]:
        """Every mode that needs no endpoint, and what stands in its way here and now."""
        analyzers = analyzers_of(choice, self.host.clip(choice, lambda *_: None))
        return {mode: analyzer_of(mode, analyzers).obstacles(mode) for mode in MODES}

    def profiles(self) -> list[Profile]:
        """The endpoints that may be asked. Raises InputError where the settings cannot be read."""
        from .llm.profiles import profiles

        known = profiles()
        allowed_names = known if self.host.endpoints is None else self.host.endpoints
        return [profile for name, profile in known.items() if name in allowed_names]

    def endpoints(self) -> list[dict[str, Any]]:
        """Their health, asked side by side."""
        known = self.profiles()
        if not known:
            return []
        with ThreadPoolExecutor(len(known), "promptglass-endpoints") as pool:
            return [*pool.map(health_of, known)]

    def status(self) -> dict[str, Any]:
        from . import __version__
        from .weights import listing_as_json

        return {
            "version": __version__,
            "host": self.host.name,
            "note": self.host.note,
            "facts": self.host.facts(),
            "modes": {mode: found[0] if found else None for mode, found in self.obstacles().items()},
            "roots": [str(root) for root in self.host.roots],
            "models": listing_as_json(),
        }

    # -- within ----------------------------------------------------------------------------------------

    def _prepared(self, choice: Choice, job: Job) -> tuple[list[Analyzer], list[str]]:
        """Who answers, and the modes that can run. Raises ModelError where there are none."""
        clip = self.host.clip(choice, job.progress)
        analyzers = analyzers_of(choice, clip, job.progress)
        modes = self._runnable(choice, analyzers, job)
        if choice.modes is not None and len(modes) < len(choice.modes):
            # A mode that is asked for by name lets language models fetch its model: not one that is left out.
            analyzers = analyzers_of(replace(choice, modes=modes), clip, job.progress)
        return analyzers, modes

    def _runnable(self, choice: Choice, analyzers: Sequence[Analyzer], job: Job) -> list[str]:
        """The modes that can run; of the others the job tells. Raises ModelError where there are none."""
        from .analyzers import FIRST_CHOICE

        named = [*FIRST_CHOICE] if choice.modes is None else [*choice.modes]
        wanted = [mode for mode in named if any(mode in analyzer.modes for analyzer in analyzers)]
        found = {mode: analyzer_of(mode, analyzers).obstacles(mode) for mode in wanted if mode in MODES}
        blocked = {mode: obstacles for mode, obstacles in found.items() if obstacles}
        for mode, obstacles in blocked.items():
            job.tell("left_out", mode=mode, error="; ".join(obstacles))
        if wanted and len(blocked) == len(wanted):
            reasons = dict.fromkeys(reason for obstacles in blocked.values() for reason in obstacles)
            raise ModelError(f"{', '.join(blocked)}: {'; '.join(reasons)}")
        return [mode for mode in wanted if mode not in blocked]

    def _answers(
        self, job: Job, analyzers: Sequence[Analyzer], picture: Picture, modes: Sequence[str]
    ) -> list[dict[str, Any]]:
        """Told as they come. Raises the first error where there is no answer at all."""
        answers, failures = [], []
        try:
            for analyzer in analyzers:
                job.check()
                wanted = [mode for mode in modes if mode in analyzer.modes]
                for outcome in ask(analyzer, picture, wanted) if wanted else ():
                    if isinstance(outcome, Answer):
                        answers.append(as_json(outcome))
                        job.tell("answer", **answers[-1])
                    else:
                        failures.append(outcome.error)
                        job.tell("failure", mode=outcome.mode, error=str(outcome.error))
        finally:
            if self._frees_language_models:
                release(analyzers, at_once=job.is_stopping)
        if failures and not answers:
            raise failures[0]
        return answers

    def _reworded(
        self, job: Job, request: Request, endpoint: Endpoint, prompt: Prompt, live: LiveText
    ) -> dict[str, Any]:
        try:
            answer = as_json(request.reworded(endpoint, prompt, live))
        finally:
            if self._frees_language_models:
                endpoint.release_within(_PATIENCE_S)
        live.flush()
        job.tell("answer", **answer)
        return answer

    def _need(self, clip: ClipAnalyzer) -> None:
        if obstacles := clip.obstacles("tables"):
            raise ModelError("; ".join(obstacles))

    def _check_endpoints(self, choice: Choice) -> None:
        from .llm.analyzer import endpoint_of

        for mode in choice.modes or ():
            if mode.startswith("llm/"):
                self._check_endpoint(endpoint_of(mode)[0] or endpoint_of(f"@{choice.llm}")[0])

    def _check_endpoint(self, name: str) -> None:
        if self.host.endpoints is not None and name not in self.host.endpoints:
            allowed_names = ", ".join(self.host.endpoints) or "none"
            raise InputError(f"the endpoint {visible(name)} may not be asked here; allowed: {allowed_names}")


def health_of(profile: Profile) -> dict[str, Any]:
    """How an endpoint fares, as JSON; its address stays here."""
    from .llm import Endpoint

    endpoint = Endpoint(profile)
    health = endpoint.check()
    message = health.message.removeprefix(endpoint.shown).removeprefix(profile.name).lstrip(": ")
    return {
        "name": profile.name,
        "reachable": health.reachable,
        "usable": health.usable,
        "message": visible(message),
        "models": [visible(name) for name in health.models],
    }


def _described(picture: Picture) -> dict[str, Any]:
    width, height = picture.size
    return {"picture": picture.name, "format": picture.format, "width": width, "height": height}


def _told(outcome: Outcome, recipes: Mapping[str, Recipe]) -> dict[str, Any]:
    """A picture of a batch, with what its sidecar holds of the modes that were asked for."""
    answers: dict[str, Any] = {}
    if outcome.status in ("done", "unchanged"):
        try:
            content = read(path_of(outcome.path)) or {}
        except PromptglassError:  # encrypted, or of a newer promptglass: it is done all the same
            content = {}
        for mode, recipe in recipes.items():
            if entry := entry_of(content, mode, recipe):
                answers[mode] = {"prompt": entry.get("prompt", ""), "score": entry.get("score")}
    return {
        "path": outcome.path,
        "status": outcome.status,
        "error": outcome.error,
        "note": outcome.note,
        "answers": answers,
    }
