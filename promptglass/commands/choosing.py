"""What several commands let the user choose: modes, models, word lists."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator

from ..analyzers import (
    CLIP_MODES,
    FIRST_CHOICE,
    FROM_A_CAPTION,
    MODES,
    Analyzer,
    ClipAnalyzer,
    EmbeddedAnalyzer,
    OcrAnalyzer,
    PaletteAnalyzer,
    TagsAnalyzer,
)
from ..clip.tables import choose_tables
from ..errors import InputError
from ..progress import Progress
from ..refine import COUNT
from ..training import parse_list

log = logging.getLogger("promptglass")

MODES_HELP = """\
modes:
  embedded  the prompt that is already in the file (A1111, ComfyUI, InvokeAI, NovelAI, Fooocus)
  best      a caption grown label by label towards the picture; the closest prompt, and the slowest
  fast      a caption and the labels nearest to the picture
  classic   a caption, then medium, artist, site, movement and flavors
  caption   the caption alone
  negative  the words least like the picture, for a negative prompt
  tables    the nearest medium, artist, movement, site and flavors, each with its score
  tags      what is in the picture, by a tagger
  ocr       the text in it, read without a language model
  palette   its dominant colours
  all       every mode above that can run
  llm/ID    a language model's answer to a prompt of `promptglass prompts`: llm/refine, llm/describe, llm/text
  llm/ID@ENDPOINT, llm/ID@ENDPOINT/MODEL   another endpoint or model than that of --llm"""


def add_options(command: argparse.ArgumentParser) -> None:
    """Modes, models and word lists."""
    command.add_argument(
        "--modes", "--mode", dest="modes", metavar="MODE,…", help="one mode, several, or all"
    )
    command.add_argument(
        "--model",
        default="ViT-L-14/openai",
        metavar="NAME",
        help="open_clip name, hub repository, folder, or ARCH/FILE (default: %(default)s)",
    )
    command.add_argument(
        "--captioner",
        default="blip-large",
        metavar="NAME",
        help="who writes captions: a name or a folder (default: %(default)s)",
    )
    command.add_argument("--caption", metavar="TEXT", help="start from this caption instead")
    command.add_argument(
        "--tagger",
        default="starter",
        metavar="NAME",
        help="starter, a WD14 tagger's name or its folder (default: %(default)s)",
    )
    command.add_argument(
        "--tables",
        action="append",
        default=[],
        metavar="TABLE…",
        help="which word lists: `flavors,mediums` only those; `artists=off` all but one; "
        "`flavors=FILE` your own instead; `flavors+=FILE` your own besides; may be repeated",
    )
    command.add_argument(
        "--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: %(default)s)"
    )
    command.add_argument(
        "--dtype",
        default="auto",
        choices=("auto", "fp32", "fp16", "bf16"),
        help="precision; auto is fp16 on a GPU, fp32 on the CPU",
    )

    _add_llm_options(command)


def _add_llm_options(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("language models, for the modes llm/…")
    group.add_argument(
        "--llm",
        default="ollama",
        metavar="ENDPOINT[/MODEL]",
        help="who is asked; `promptglass endpoints` lists them (default: %(default)s)",
    )
    group.add_argument(
        "--wishes", default="", metavar="TEXT", help='what the answer should heed: "make it rain"'
    )
    group.add_argument(
        "--keep",
        action="append",
        default=[],
        metavar="WORDS",
        help='words that a refined prompt must have, such as triggers: "ohwx woman,<lora:ohwx:1>"; '
        "artists are kept anyway; may be repeated",
    )
    group.add_argument(
        "--candidates",
        type=int,
        default=COUNT,
        metavar="N",
        help="how many refined prompts CLIP chooses from (default: %(default)s)",
    )
    group.add_argument(
        "--deep", action="store_true", help="bolder and longer candidates: temperature 0.7, 300 tokens"
    )


def chosen_analyzers(arguments: argparse.Namespace, progress: Progress) -> list[Analyzer]:
    clip = ClipAnalyzer(
        model=arguments.model,
        captioner=arguments.captioner,
        caption=arguments.caption,
        tables=choose_tables(arguments.tables) if arguments.tables else None,
        device=arguments.device,
        dtype=arguments.dtype,
        progress=progress,
    )
    return [
        EmbeddedAnalyzer(),
        clip,
        TagsAnalyzer(arguments.tagger),
        OcrAnalyzer(),
        PaletteAnalyzer(),
        *_llm_analyzers(arguments, clip, progress),
    ]


def _llm_analyzers(
    arguments: argparse.Namespace, clip: ClipAnalyzer, progress: Progress
) -> Iterator[Analyzer]:
    """One for each endpoint that the modes name."""
    wanted = _modes(arguments.modes)
    modes = [mode for mode in wanted if mode.startswith("llm/")]
    if not modes:
        return
    from ..llm import Endpoint
    from ..llm.analyzer import LlmAnalyzer, endpoint_of, prompt_id
    from ..prompts import load_prompts

    if arguments.candidates < 1:
        raise InputError(f"--candidates {arguments.candidates}: give 1 or more")
    prompts = load_prompts()
    unknown = [mode for mode in modes if prompt_id(mode) not in prompts]
    if unknown:
        known = ", ".join(f"llm/{id_}" for id_ in prompts)
        raise InputError(f"there is no mode {', '.join(unknown)}: language models answer {known}")
    # A mode that is asked for by name fetches its model.
    by_name = set() if {*MODES} <= {*wanted} else {*wanted}
    obstacles = [] if {*CLIP_MODES} & by_name else clip.obstacles("tables")
    default, default_model = endpoint_of(f"@{arguments.llm}")
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
            arguments.caption or "",
            arguments.wishes,
            [words for option in arguments.keep for words in parse_list(option)],
            arguments.candidates,
            arguments.deep,
            progress,
        )


def chosen_modes(wanted: str | None, analyzers: list[Analyzer]) -> list[str]:
    """The modes to run. Asked for by name, a mode may fetch what it needs; otherwise it must be ready."""
    modes = [mode for mode in _modes(wanted) if any(mode in analyzer.modes for analyzer in analyzers)]
    if wanted is not None and not {*MODES} <= {*modes}:
        return modes
    ours = [mode for mode in modes if mode in MODES]
    obstacles = {mode: _analyzer_of(mode, analyzers).obstacles(mode) for mode in ours}
    blocked = [mode for mode in ours if obstacles[mode]]
    if blocked:
        reasons = dict.fromkeys(reason for mode in blocked for reason in obstacles[mode])
        log.warning("left out: %s: %s", ", ".join(blocked), "; ".join(reasons))
    return [mode for mode in modes if mode not in blocked]


def _modes(wanted: str | None) -> list[str]:
    if wanted is None:
        return list(FIRST_CHOICE)
    names = [_normalised(name.strip()) for name in wanted.split(",") if name.strip()]
    modes = [mode for name in names for mode in (MODES if name == "all" else [name])]
    unknown = [mode for mode in modes if mode not in MODES and not mode.startswith("llm/")]
    if unknown or not modes:
        choices = ", ".join((*MODES, "all", "llm/…"))
        raise InputError(f"there is no mode {', '.join(unknown) or repr(wanted)}: choose from {choices}")
    return list(dict.fromkeys(modes))


def _normalised(name: str) -> str:
    mode, separator, endpoint = name.partition("@")  # names of endpoints and models are as they are
    return mode.lower() + separator + endpoint


def _analyzer_of(mode: str, analyzers: list[Analyzer]) -> Analyzer:
    return next(analyzer for analyzer in analyzers if mode in analyzer.modes)
