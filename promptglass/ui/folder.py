"""A folder of pictures: sidecars beside them, captions to train on, and wildcards made of both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..choice import Choice
from ..errors import InputError, PromptglassError, visible
from ..sidecar import PLAIN, Privacy
from ..training import EXISTING, CaptionFiles, parse_list, parse_replacement
from ..wildcards import FORMATS
from . import cards
from .batch_view import BatchView
from .gradio_versions import Updates, make, on, update
from .language_models import LanguageModels
from .modes import Modes, checked, modes_of
from .running import Run

if TYPE_CHECKING:
    from ..jobs import Job
    from ..service import Service

_NO_CAPTIONS = "off"
_NAMES = ("plain", "hash", "omit")


class Folder:
    def __init__(self, service: Service, defaults: Mapping[str, Any]) -> None:
        self._service = service
        with make("Row", elem_id="promptglass_folder"):
            with make("Column", scale=2, min_width=300, elem_id="promptglass_folder_left"):
                self._lay_out_choices(defaults)
            with make("Column", scale=5, min_width=300, elem_id="promptglass_folder_right"):
                self._lay_out_results()
        self._wire()

    def _lay_out_choices(self, defaults: Mapping[str, Any]) -> None:
        roots = [str(root) for root in self._service.host.roots]
        allowed = f"In one of: {', '.join(map(visible, roots))}" if roots else "No folder may be used here."
        self.path = make(
            "Textbox",
            label="Folder",
            value=roots[0] if len(roots) == 1 else "",
            placeholder=roots[0] if roots else "",
            info=allowed,
            elem_id="promptglass_folder_path",
        )
        modes = modes_of(self._service)
        ready = modes if isinstance(modes, Modes) else None
        self.modes = make(
            "CheckboxGroup",
            label="Modes",
            choices=ready.choices() if ready else [],
            value=ready.chosen(defaults.get("modes")) if ready else [],
            elem_id="promptglass_folder_modes",
        )
        self.why_not = make(
            "HTML",
            value=ready.why_not() if ready else cards.failure(str(modes)),
            elem_id="promptglass_folder_why_not",
        )
        with make("Group"):
            self.recursive = _switch("Folders within it, too", "recursive")
            self.force = _switch("Compute again what is there", "force")
            self.verify = _switch("Look for changes by content", "verify")
        self._lay_out_language_models(defaults)
        self._lay_out_captions()
        self._lay_out_privacy()

    def _lay_out_language_models(self, defaults: Mapping[str, Any]) -> None:
        offered = LanguageModels(self._service)  # where there are none, the tab beside this one says why
        with make("Accordion", label="Language models", open=False, elem_id="promptglass_folder_llm"):
            self.tasks = make(
                "CheckboxGroup",
                label="What they write",
                choices=[(title, f"llm/{id_}") for id_, title in offered.tasks.items()],
                value=[],
                elem_id="promptglass_folder_tasks",
            )
            self.profile, self.model = offered.fields("folder", defaults)

    def _lay_out_captions(self) -> None:
        with make(
            "Accordion", label="Captions to train on", open=False, elem_id="promptglass_folder_captions"
        ):
            self.existing = make(
                "Dropdown",
                label="Write a .txt beside each picture; where there is one",
                choices=[_NO_CAPTIONS, *EXISTING],
                value=_NO_CAPTIONS,
                elem_id="promptglass_folder_existing",
            )
            self.prefix = _words("Prefix", "prefix", "sks style")
            self.suffix = _words("Suffix", "suffix", "")
            self.exclude = _words("Leave out", "exclude", "text, *background")
            self.replace = _words("Replace", "replace", "cat=dog, man=ohwx man")

    def _lay_out_privacy(self) -> None:
        with make("Accordion", label="Privacy", open=False, elem_id="promptglass_folder_privacy"):
            self.names = make(
                "Dropdown",
                label="File names in sidecars",
                choices=[*_NAMES],
                value=_NAMES[0],
                elem_id="promptglass_folder_names",
            )
            self.encrypt = _switch("Encrypt sidecars, with the passphrase in PROMPTGLASS_KEY", "encrypt")

    def _lay_out_results(self) -> None:
        self.run = Run(self._service, "folder", "Start")
        self.attached_id = make("State", value="")  # of a run that this page did not start
        make("HTML", value=cards.note("Only what is missing is computed: after a stop, Start goes on."))
        self.recent = make("HTML", value="", elem_id="promptglass_folder_recent")
        self.problems = make("HTML", value="", elem_id="promptglass_folder_problems")
        self.results = make("HTML", value="", elem_id="promptglass_folder_results")
        with make("Accordion", label="Write wildcards", open=False, elem_id="promptglass_folder_wildcards"):
            with make("Row"):
                self.format = make(
                    "Dropdown",
                    label="Format",
                    choices=[*FORMATS],
                    value=FORMATS[0],
                    elem_id="promptglass_folder_format",
                )
                self.per_folder = _switch("Files for each folder within it", "per_folder")
                self.weights = _switch("Weigh lines by pictures (json)", "weights")
            self.write = make("Button", value="Write wildcards", elem_id="promptglass_folder_write")
            self.written = make("HTML", value="", elem_id="promptglass_folder_written")

    def _wire(self) -> None:
        shown = [self.recent, self.problems, self.results]
        choices = [
            *(self.path, self.modes, self.tasks, self.profile, self.model),
            *(self.recursive, self.force, self.verify),
            *(self.existing, self.prefix, self.suffix, self.exclude, self.replace),
            *(self.names, self.encrypt),
        ]
        self.run.wire(self.begin, choices, self.follow, shown)
        on(
            self.write.click,
            self.write_wildcards,
            [self.path, self.recursive, self.per_folder, self.format, self.weights],
            [self.written],
        )

    def wire_attaching(self, event: Any) -> None:
        """At this event, the page takes up the batch that is running on the server."""
        shown = [*self.run.parts, self.recent, self.problems, self.results]
        attached = on(event, self.attach, [self.run.job_id], [*shown, self.attached_id])
        on(attached.then, self.follow_attached, [self.attached_id], shown)

    # -- what happens --------------------------------------------------------------------------------------

    def begin(
        self,
        path: str,
        modes: Any,
        tasks: Any,
        profile: str,
        model: str,
        recursive: bool,
        force: bool,
        verify: bool,
        existing: str,
        prefix: str,
        suffix: str,
        exclude: str,
        replace: str = "",
        names: str = "plain",
        encrypt: bool = False,
    ) -> Updates:
        def start() -> Job:
            if running := self._running():
                raise InputError(f"a run over {visible(running.about['folder'])} is under way: stop it first")
            every = [*(modes or []), *(tasks or [])]
            named = f"{profile}/{model.strip()}" if model and model.strip() else str(profile)
            choice = Choice(modes=checked(every), llm=named)
            captions = _captions(existing, prefix, suffix, exclude, replace)
            privacy = _privacy(names, encrypt)
            if captions and privacy.encrypt:
                raise InputError("captions to train on cannot be encrypted: leave out one of the two")
            return self._service.batch(
                str(path), choice, bool(recursive), bool(force), bool(verify), captions, privacy
            )

        empty = update(value="")
        return self.run.begin(start) | {self.recent: empty, self.problems: empty, self.results: empty}

    def follow(self, job_id: str) -> Iterator[Updates]:
        job = self.run.find(job_id)
        if job is None:
            yield self.run.idle()
            return
        view = BatchView()
        for events, updates in self.run.changes(job):
            view.take(events)
            updates[self.run.status] = update(value=view.progress(job))
            yield updates | (self._drawn(view) if events else {})
        yield self.run.ended(job) | {self.run.status: update(value=view.progress(job))} | self._drawn(view)

    def attach(self, job_id: str) -> Updates:
        """A page that was loaded again, or another one, takes up the batch that runs."""
        running = self._running()
        if running is None or running.id == job_id:  # or it is followed already
            return {self.attached_id: ""}
        return {**self.run.running(running), self.attached_id: running.id}

    def follow_attached(self, job_id: str) -> Iterator[Updates]:
        if not job_id:
            yield {self.run.status: update()}
            return
        yield from self.follow(job_id)

    def write_wildcards(
        self, path: str, recursive: bool, per_folder: bool, format: str, weights: bool
    ) -> Updates:
        try:
            written, notes = self._service.write_wildcards(
                str(path), bool(recursive), bool(per_folder), str(format), bool(weights)
            )
        except PromptglassError as error:
            return {self.written: update(value=cards.failure(str(error)))}
        rows = [(cards.code(f"__{one.name}__"), f"{one.lines:,}", one.state) for one in written]
        drawn = cards.table(("wildcard", "lines", "state"), rows) + "".join(map(cards.note, notes))
        return {self.written: update(value=drawn)}

    def _running(self) -> Job | None:
        return next((job for job in self._service.jobs.of("batch") if job.state == "running"), None)

    def _drawn(self, view: BatchView) -> Updates:
        return {
            self.recent: update(value=view.thumbnails()),
            self.problems: update(value=view.problems()),
            self.results: update(value=view.results()),
        }


def _captions(existing: str, prefix: str, suffix: str, exclude: str, replace: str) -> CaptionFiles | None:
    if existing in (None, _NO_CAPTIONS):
        if any((text or "").strip() for text in (prefix, suffix, exclude, replace)):
            raise InputError(
                "prefix, suffix, leave out and replace are about captions: choose overwrite, say"
            )
        return None
    replacements = tuple(map(parse_replacement, parse_list(replace or "")))
    return CaptionFiles(str(existing), prefix or "", suffix or "", parse_list(exclude or ""), replacements)


def _privacy(names: str, encrypt: bool) -> Privacy:
    if names not in _NAMES:
        raise InputError(f"file names in sidecars: choose {', '.join(_NAMES)}")
    return Privacy(names, bool(encrypt)) if names != "plain" or encrypt else PLAIN  # type: ignore[arg-type]


def _switch(label: str, name: str) -> Any:
    return make("Checkbox", label=label, value=False, elem_id=f"promptglass_folder_{name}")


def _words(label: str, name: str, placeholder: str) -> Any:
    return make(
        "Textbox", label=label, placeholder=placeholder, lines=1, elem_id=f"promptglass_folder_{name}"
    )
