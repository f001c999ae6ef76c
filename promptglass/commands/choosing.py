"""What several commands let the user choose: modes, models, word lists."""

from __future__ import annotations

import argparse
import logging

from ..analyzers import (
    FIRST_CHOICE,
    MODES,
    Analyzer,
    ClipAnalyzer,
    EmbeddedAnalyzer,
    PaletteAnalyzer,
    TagsAnalyzer,
)
from ..clip.tables import choose_tables
from ..errors import InputError
from ..progress import Progress

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
  palette   its dominant colours
  all       every mode that can run"""


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


def chosen_analyzers(arguments: argparse.Namespace, progress: Progress) -> list[Analyzer]:
    return [
        EmbeddedAnalyzer(),
        ClipAnalyzer(
            model=arguments.model,
            captioner=arguments.captioner,
            caption=arguments.caption,
            tables=choose_tables(arguments.tables) if arguments.tables else None,
            device=arguments.device,
            dtype=arguments.dtype,
            progress=progress,
        ),
        TagsAnalyzer(arguments.tagger),
        PaletteAnalyzer(),
    ]


def chosen_modes(wanted: str | None, analyzers: list[Analyzer]) -> list[str]:
    """The modes to run. Asked for by name, a mode may fetch what it needs; otherwise it must be ready."""
    modes = _modes(wanted)
    if wanted is not None and modes != list(MODES):
        return modes
    obstacles = {mode: _analyzer_of(mode, analyzers).obstacles(mode) for mode in modes}
    blocked = [mode for mode in modes if obstacles[mode]]
    if blocked:
        reasons = dict.fromkeys(reason for mode in blocked for reason in obstacles[mode])
        log.warning("left out: %s: %s", ", ".join(blocked), "; ".join(reasons))
    return [mode for mode in modes if mode not in blocked]


def _modes(wanted: str | None) -> list[str]:
    if wanted is None:
        return list(FIRST_CHOICE)
    modes = [mode.strip().lower() for mode in wanted.split(",") if mode.strip()]
    if "all" in modes:
        return list(MODES)
    unknown = [mode for mode in modes if mode not in MODES]
    if unknown or not modes:
        raise InputError(
            f"there is no mode {', '.join(unknown) or repr(wanted)}: choose from {', '.join(MODES)}, all"
        )
    return list(dict.fromkeys(modes))


def _analyzer_of(mode: str, analyzers: list[Analyzer]) -> Analyzer:
    return next(analyzer for analyzer in analyzers if mode in analyzer.modes)
