"""`promptglass wildcards`: wildcard files for dynamic-prompts and Impact-Pack, from a folder of sidecars."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from ..errors import ImageError, SidecarError, visible
from ..hosts import WildcardFolder, wildcard_folders
from ..scan import read_sidecars
from ..terminal import complain
from ..wildcards import FORMATS, collect, write_wildcards

log = logging.getLogger("promptglass")

_DESCRIPTION = """\
Write wildcard files from the sidecars of a folder, one per mode and one per table: promptglass/best.txt
is __promptglass/best__ in a prompt. Lines of your own stay where they are; one you delete stays deleted."""

_EPILOG = """\
examples:
  promptglass wildcards pictures --out ~/wildcards
  promptglass wildcards pictures --host ~/stable-diffusion-webui
  promptglass wildcards pictures --host ~/ComfyUI --format yaml
  promptglass wildcards pictures --recursive --per-folder --out ~/wildcards"""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "wildcards",
        help="wildcard files from a folder's sidecars",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("folder", metavar="FOLDER", help="where `promptglass batch` has been")
    target = command.add_mutually_exclusive_group(required=True)
    target.add_argument("--out", metavar="DIR", type=Path, help="write to DIR/promptglass")
    target.add_argument(
        "--host",
        metavar="ROOT",
        type=Path,
        help="write where this A1111, Forge, reForge or ComfyUI reads wildcards",
    )
    command.add_argument("-r", "--recursive", action="store_true", help="folders within it, too")
    command.add_argument(
        "--per-folder", action="store_true", help="files for each folder within it (with --recursive)"
    )
    command.add_argument(
        "--format",
        choices=FORMATS,
        default="txt",
        help="txt (default); yaml, for Impact-Pack and letters beyond ASCII; json, for dynamic-prompts",
    )
    command.add_argument(
        "--weights", action="store_true", help="weigh lines by how many pictures gave them (json)"
    )
    command.add_argument(
        "--keep-networks", action="store_true", help="keep <lora:…> and the like, which load when drawn"
    )
    command.add_argument("-v", "--verbose", action="store_true", help="say what happens, and tracebacks")
    command.set_defaults(run=_wildcards)


def _wildcards(arguments: argparse.Namespace) -> int:
    failures: list[Exception] = []

    def report(error: ImageError | SidecarError) -> None:
        complain(error)
        failures.append(error)

    target = _target(arguments)
    folder = Path(arguments.folder)
    sidecars = read_sidecars(folder, arguments.recursive or arguments.per_folder, report)
    lines = collect(sidecars, arguments.per_folder, arguments.keep_networks)
    written = write_wildcards(lines, target.path, str(folder.resolve()), arguments.format, arguments.weights)
    if not written:
        print("no wildcards: there are no sidecars with prompts (promptglass batch makes them)")
    for file in written:
        count = f"{file.lines:,} line{'s' * (file.lines != 1)}"
        print(f"__{file.name}__  {count}  {file.state}  {visible(str(file.path))}")
    if arguments.format == "txt" and target.is_read_as_latin1 and not all(file.is_ascii for file in written):
        log.warning("Impact-Pack misreads letters beyond ASCII in .txt files: use --format yaml")
    return 1 if failures else 0


def _target(arguments: argparse.Namespace) -> WildcardFolder:
    if arguments.out is not None:
        return WildcardFolder("", arguments.out)
    chosen, *others = wildcard_folders(arguments.host)
    for other in others:
        log.warning("%s reads %s: --out writes there", other.reader, other.path)
    return chosen
