"""What a user chooses for a run: modes, models, word lists, wishes; and the analyzers that follow from it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from .analyzers import (
    CLIP_MODES,
    FIRST_CHOICE,
    FROM_A_CAPTION,
    MODES,
    Analyzer,
    EmbeddedAnalyzer,
    OcrAnalyzer,
    PaletteAnalyzer,
    TagsAnalyzer,
)
from .clip.analyzer import ClipAnalyzer
from .errors import InputError
from .progress import Progress, silent
from .refine import COUNT

log = logging.getLogger("promptglass")

_OF_A_WEBUI = "webui/"  # modes that only a remote one answers
CLIP_MODEL, CAPTIONER = "ViT-L-14/openai", "blip-large"  # where nobody names others


@dataclass(frozen=True)
class Choice:
    """modes: None for the best that can run here and now. model, captioner: None for what the host has.

    tables: None for clip-interrogator's lists. llm: ENDPOINT or ENDPOINT/MODEL.
    """

    modes: Sequence[str] | None = None
    model: str | None = None
    captioner: str | None = None
    caption: str = ""
    tagger: str = "starter"
    tables: Mapping[str, Sequence[str]] | None = None
    device: str = "auto"
    dtype: str = "auto"
    llm: str = "ollama"
    wishes: str = ""
    keep: Sequence[str] = ()
    candidates: int = COUNT
    deep: bool = False


def analyzers_of(
    choice: Choice, clip: ClipAnalyzer, progress: Progress = silent, remote: Analyzer | None = None
) -> list[Analyzer]:
    """Everything that can answer, in the order in which it is asked. clip: on whatever models a host has.

    remote: a WebUI that answers in its place; clip then only judges what language models write.
    Raises InputError for a mode, a prompt or an endpoint that is not there.
    """
    theirs = [mode for mode in choice.modes or () if mode.startswith(_OF_A_WEBUI)]
    if theirs and remote is None:
        raise InputError(f"{', '.join(theirs)}: a WebUI is to answer that. Name it: --via http://host:7860")
    return [
        EmbeddedAnalyzer(),
        remote or clip,
        TagsAnalyzer(choice.tagger),
        OcrAnalyzer(),
        PaletteAnalyzer(),
        *_llm_analyzers(choice, clip, progress, remote is not None),
    ]


def parse_modes(wanted: str | Sequence[str] | None) -> list[str] | None:
    """The modes of "best, negative" or of a list of them, each once; "all" is all that need no endpoint.

    None stays None. Raises InputError for a mode that is none.
    """
    if wanted is None:
        return None
    names = wanted.split(",") if isinstance(wanted, str) else wanted
    names = [_normalised(name.strip()) for name in names if name.strip()]
    modes = [mode for name in names for mode in (MODES if name == "all" else [name])]
    unknown = [mode for mode in modes if mode not in MODES and not mode.startswith(("llm/", _OF_A_WEBUI))]
    if unknown or not modes:
        choices = ", ".join((*MODES, "all", "llm/…"))
        raise InputError(f"there is no mode {', '.join(unknown) or repr(wanted)}: choose from {choices}")
    return list(dict.fromkeys(modes))


def ready_modes(
    choice: Choice, analyzers: Sequence[Analyzer], first_choice: Sequence[str] = FIRST_CHOICE
) -> list[str]:
    """The modes to run. Asked for by name, a mode may fetch what it needs; otherwise it must be ready."""
    wanted = first_choice if choice.modes is None else choice.modes
    modes = [mode for mode in wanted if any(mode in analyzer.modes for analyzer in analyzers)]
    if choice.modes is not None and not is_all(choice.modes):
        return modes
    ours = [mode for mode in modes if mode in MODES]
    obstacles = {mode: analyzer_of(mode, analyzers).obstacles(mode) for mode in ours}
    blocked = [mode for mode in ours if obstacles[mode]]
    if blocked:
        reasons = dict.fromkeys(reason for mode in blocked for reason in obstacles[mode])
        log.warning("left out: %s: %s", ", ".join(blocked), "; ".join(reasons))
    return [mode for mode in modes if mode not in blocked]


def is_all(modes: Sequence[str]) -> bool:
    """Whether `all` was asked for: of each only if it can run."""
    return {*MODES} <= {*modes}


def analyzer_of(mode: str, analyzers: Sequence[Analyzer]) -> Analyzer:
    return next(analyzer for analyzer in analyzers if mode in analyzer.modes)


def _normalised(name: str) -> str:
    mode, separator, endpoint = name.partition("@")  # names of endpoints and models are as they are
    return mode.lower() + separator + endpoint


def _llm_analyzers(
    choice: Choice, clip: ClipAnalyzer, progress: Progress, is_remote: bool
) -> Iterator[Analyzer]:
    """One for each endpoint that the modes name."""
    wanted = choice.modes or ()
    modes = [mode for mode in wanted if mode.startswith("llm/")]
    if not modes:
        return
    from .llm import Endpoint
    from .llm.analyzer import LlmAnalyzer, endpoint_of, prompt_id
    from .prompts import load_prompts

    if choice.candidates < 1:
        raise InputError(f"{choice.candidates} candidates are none: give 1 or more")
    prompts = load_prompts()
    unknown = [mode for mode in modes if prompt_id(mode) not in prompts]
    if unknown:
        known = ", ".join(f"llm/{id_}" for id_ in prompts)
        raise InputError(f"there is no mode {', '.join(unknown)}: language models answer {known}")
    # A mode that is asked for by name fetches its model, unless it is answered elsewhere.
    by_name = set() if is_remote or is_all(wanted) else {*wanted}
    obstacles = [] if {*CLIP_MODES} & by_name else clip.obstacles("tables")
    default, default_model = endpoint_of(f"@{choice.llm}")
    endpoints: dict[tuple[str, str], tuple[Endpoint, list[str]]] = {}
    chosen: set[tuple[str, str]] = set()
    for mode in modes:
        name, model = endpoint_of(mode)
        name, model = name or default, model if name or model else default_model
        if (name, model) not in endpoints:
            endpoints[name, model] = Endpoint.from_settings(name, model=model or None), []
        endpoint, its_modes = endpoints[name, model]
        question = (endpoint.profile.model or name, prompt_id(mode))
        if question in chosen:
            log.warning("%s: asked once, it is the same model and the same prompt", mode)
            continue
        chosen.add(question)
        its_modes.append(mode)
    judged = [mode for mode in modes if prompts[prompt_id(mode)].judged]
    if obstacles and judged:
        log.warning("%s: not compared with the picture: %s", ", ".join(judged), "; ".join(obstacles))
    for endpoint, its_modes in endpoints.values():
        yield LlmAnalyzer(
            endpoint,
            its_modes,
            prompts,
            None if obstacles else clip,
            not obstacles and (bool(FROM_A_CAPTION & by_name) or clip.has_captions),
            choice.caption,
            choice.wishes,
            choice.keep,
            choice.candidates,
            choice.deep,
            progress,
        )
