"""Which pictures of a folder could not be done, and why: one JSON line each, for the morning after."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Collection
from datetime import datetime, timezone
from pathlib import Path

from .atomic import locked, replace_file

NAME = ".promptglass.journal.jsonl"


class Journal:
    """The journal of a folder. A line is on the disk as soon as something failed, whatever happens next."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME

    def failed(self, picture: str, reason: str) -> None:
        at = datetime.now(timezone.utc).isoformat(timespec="seconds")
        line = json.dumps({"picture": self._name(picture), "error": reason, "at": at})
        with contextlib.suppress(OSError), locked(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def settle(self, succeeded: Collection[str]) -> bool:
        """Strike out what succeeded and what is gone; whether anything is left. No empty journal stays."""
        with contextlib.suppress(OSError):
            if not self.path.exists():
                return False
            done = {self._name(picture) for picture in succeeded}
            with locked(self.path):
                last = {}
                for line in self.path.read_text("utf-8", errors="replace").splitlines():
                    # Torn by a crash, or not ours.
                    with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
                        last[str(json.loads(line)["picture"])] = line
                left = [
                    line
                    for name, line in last.items()
                    if name not in done and os.path.lexists(self.path.parent / name)
                ]
                if left:
                    replace_file(self.path, "".join(f"{line}\n" for line in left).encode())
                else:
                    self.path.unlink()
                return bool(left)
        return False

    def _name(self, picture: str) -> str:
        return Path(os.path.relpath(picture, self.path.parent)).as_posix()
