"""`promptglass models`: which models are known and here; get one."""

from __future__ import annotations

import argparse


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "models",
        help="which models are known and here; get one",
        description="Which models are known, where each lies, its size and licence. `get NAME` fetches one.",
        epilog="HF_ENDPOINT names a mirror, HF_HUB_OFFLINE=1 keeps to what is here, HF_HOME moves the cache.",
    )
    command.add_argument("-v", "--verbose", action="store_true", help="say what happens, and tracebacks")
    command.set_defaults(run=_list_models)
    actions = command.add_subparsers(metavar="")
    get = actions.add_parser("get", help="fetch a model; run again to continue", description="Fetch a model.")
    get.add_argument("name", metavar="NAME")
    get.set_defaults(run=_get_model)


def _list_models(arguments: argparse.Namespace) -> int:
    from ..hub import human
    from ..weights import listing

    rows = [("NAME", "FOR", "SIZE", "LICENCE", "WHERE")]
    for weights, folder in listing():
        size, where = human(weights.size_bytes), str(folder or "not here")
        rows.append((weights.name, weights.kind, size, weights.licence, where))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for *cells, where in rows:
        print("  ".join([*(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)), where]))
    return 0


def _get_model(arguments: argparse.Namespace) -> int:
    from ..weights import get

    print(get(arguments.name))
    return 0
