"""`promptglass prompts`: what are language models told?"""

from __future__ import annotations

import argparse
import difflib
import sys
from dataclasses import asdict, fields

from ..errors import InputError, visible
from ..prompts import Prompt, built_in_prompts, load_prompts, user_place

_DESCRIPTION = """\
What language models are told. With ID: the whole prompt, as an entry that can stand in your own file."""

_EPILOG = """\
examples:
  promptglass prompts
  promptglass prompts refine

Prompts of your own, and changes to ours, go into {place}
(PROMPTGLASS_PROMPTS names another file):
  refine:                  # one of ours: what stands here changes, the rest stays
    temperature: 0.2
  haiku:                   # a new one
    title: Haiku
    text: |-
      Caption: {{caption}}
      Write a haiku about this picture.

In text, {{caption}} {{tags}} {{tables}} {{prompt}} and {{user}} are filled in; a line whose value is missing
is left out. What is sent: the system's words, input and output of each example, the text."""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "prompts",
        help="what are language models told?",
        description=_DESCRIPTION,
        epilog=_EPILOG.format(place=user_place()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("id", nargs="?", metavar="ID", help="a prompt, such as refine")
    command.add_argument("-v", "--verbose", action="store_true", help="say what happens, and tracebacks")
    command.set_defaults(run=_prompts)


def _prompts(arguments: argparse.Namespace) -> int:
    known = load_prompts()
    if arguments.id is None:
        print(_listing(known))
    elif arguments.id in known:
        print(as_yaml(known[arguments.id]), end="")
    else:
        near = difflib.get_close_matches(arguments.id, known)
        hint = f"Did you mean {' or '.join(near)}?" if near else f"There are: {', '.join(known)}."
        raise InputError(f"there is no prompt {visible(arguments.id)!r}. {hint}")
    return 0


def _listing(known: dict[str, Prompt]) -> str:
    ours = built_in_prompts()
    rows = [("ID", "TITLE", "PICTURE", "WHOSE")]
    for id_, prompt in known.items():
        needs = "needed" if prompt.needs_image else "no"
        rows.append((id_, visible(prompt.title), needs, _whose(prompt, ours.get(id_))))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)), whose])
        for *cells, whose in rows
    ]
    place = user_place()
    state = "" if place.is_file() else " (not there yet)"
    return "\n".join([*lines, "", f"Yours: {visible(str(place))}{state}; the same id changes single fields"])


def _whose(prompt: Prompt, ours: Prompt | None) -> str:
    if ours is None:
        return "yours"
    names = [field.name for field in fields(Prompt)]
    changed = [name for name in names if getattr(prompt, name) != getattr(ours, name)]
    return f"ours, with your {', '.join(changed)}" if changed else "ours"


def as_yaml(prompt: Prompt) -> str:
    """A prompt as an entry of the user's file: every field, so that it also takes back what ours has."""
    import yaml

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: object) -> bool:
            return True

    def text(dumper: yaml.SafeDumper, said: str) -> yaml.ScalarNode:
        # PyYAML reads other breaks than \n back as \n, unless they are escaped.
        style = '"' if {*"\x85\u2028\u2029"} & {*said} else "|" if "\n" in said else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", said, style=style)

    Dumper.add_representer(str, text)
    entry = asdict(prompt)
    id_ = entry.pop("id")
    first = {name: entry[name] for name in ("title", "needs_image", "system", "text")}
    can_show = (getattr(sys.stdout, "encoding", None) or "").lower().startswith("utf")  # else escaped
    return yaml.dump(
        {id_: {**first, **entry}}, Dumper=Dumper, sort_keys=False, allow_unicode=can_show, width=10**9
    )
