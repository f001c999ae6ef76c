"""What several commands let the user choose: modes, models, word lists; where a server listens."""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..analyzers import CLIP_MODES, FIRST_CHOICE, Analyzer
from ..choice import CAPTIONER, CLIP_MODEL, Choice, analyzers_of, is_all, parse_modes, ready_modes
from ..clip.analyzer import ClipAnalyzer
from ..clip.tables import choose_tables
from ..errors import InputError
from ..progress import Progress
from ..refine import COUNT
from ..training import parse_list

if TYPE_CHECKING:
    from ..remote_analyzer import RemoteAnalyzer

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
  llm/ID@ENDPOINT, llm/ID@ENDPOINT/MODEL   another endpoint or model than that of --llm
  webui/clip, webui/deepdanbooru   a WebUI's own interrogation (--via)"""


def add_options(command: argparse.ArgumentParser) -> None:
    """Modes, models and word lists."""
    command.add_argument(
        "--modes", "--mode", dest="modes", metavar="MODE,…", help="one mode, several, or all"
    )
    command.add_argument(
        "--via",
        metavar="ADDRESS",
        help="have a running WebUI look, with the models that it has: http://host:7860, or auto for "
        "STABLE_DIFFUSION_BASE_URL or one on this machine; name and password in PROMPTGLASS_VIA_AUTH",
    )
    command.add_argument(
        "--model",
        metavar="NAME",
        help=f"open_clip name, hub repository, folder, or ARCH/FILE (default: {CLIP_MODEL}, or the WebUI's)",
    )
    command.add_argument(
        "--captioner",
        metavar="NAME",
        help=f"who writes captions: a name or a folder (default: {CAPTIONER})",
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


def add_server_options(command: argparse.ArgumentParser, port: int, port_help: str = "") -> None:
    """Where it listens, and the folders that it may use."""
    command.add_argument(
        "--host", default="127.0.0.1", help="the address to listen on (default: %(default)s)"
    )
    command.add_argument("--port", type=int, default=port, help=f"{port_help}(default: %(default)s)")
    command.add_argument(
        "--root",
        action="append",
        default=[],
        metavar="DIR",
        help="a folder whose pictures may be worked on; may be repeated",
    )
    command.add_argument("--wildcards", metavar="DIR", type=Path, help="where wildcards are written and read")


def chosen(arguments: argparse.Namespace, progress: Progress) -> tuple[list[Analyzer], list[str]]:
    """Who answers, and the modes to run."""
    if arguments.candidates < 1:
        raise InputError(f"--candidates {arguments.candidates}: give 1 or more")
    choice = Choice(
        modes=parse_modes(arguments.modes),
        model=arguments.model,
        captioner=arguments.captioner,
        caption=arguments.caption or "",
        tagger=arguments.tagger,
        tables=choose_tables(arguments.tables) if arguments.tables else None,
        device=arguments.device,
        dtype=arguments.dtype,
        llm=arguments.llm,
        wishes=arguments.wishes,
        keep=tuple(words for option in arguments.keep for words in parse_list(option)),
        candidates=arguments.candidates,
        deep=arguments.deep,
    )
    remote = _remote(arguments, choice, progress) if arguments.via is not None else None
    clip = ClipAnalyzer(
        CLIP_MODEL if remote or not arguments.model else arguments.model,
        arguments.captioner or CAPTIONER,
        choice.caption,
        choice.tables,
        choice.device,
        choice.dtype,
        progress,
    )
    if remote is None:
        analyzers = analyzers_of(choice, clip, progress)
        return analyzers, ready_modes(choice, analyzers)
    choice = _with_what_is_there(choice, remote)
    analyzers = analyzers_of(choice, clip, progress, remote)
    modes = ready_modes(choice, analyzers, remote.first_choice)
    remote.check([mode for mode in modes if mode in remote.modes])
    return analyzers, modes


def _remote(arguments: argparse.Namespace, choice: Choice, progress: Progress) -> RemoteAnalyzer | None:
    """The WebUI of --via; None where no mode asks for one."""
    from ..remote import RemoteWebUI
    from ..remote_analyzer import RemoteAnalyzer
    from ..remote_api import PREFIX, Wish

    remote = RemoteWebUI.from_environment(arguments.via)
    wanted = choice.modes or FIRST_CHOICE
    if not any(mode in CLIP_MODES or mode.startswith(PREFIX) for mode in wanted):
        return None
    if arguments.captioner or arguments.tables:
        raise InputError("--captioner and --tables are about models of this machine: not with --via")
    wish = Wish(choice.caption, arguments.model or "")
    return RemoteAnalyzer(remote, wish, progress)


def _with_what_is_there(choice: Choice, remote: RemoteAnalyzer) -> Choice:
    """Of `all` what the WebUI gives. Raises ModeUnavailable for a mode that was asked for by name."""
    if choice.modes is None:
        return choice
    missing = [mode for mode in choice.modes if mode in CLIP_MODES and mode not in remote.modes]
    theirs = [mode for mode in choice.modes if mode.startswith("webui/")]
    if not is_all(choice.modes):
        remote.check([*missing, *theirs])
        return choice
    if missing:
        log.warning("left out: %s: %s", ", ".join(missing), remote.obstacles(missing[0])[0])
    more = [mode for mode in remote.first_choice if mode.startswith("webui/") and mode not in theirs]
    return replace(choice, modes=[*choice.modes, *more])
