"""How this program is started here: under its own name, or as a folder that some host's Python runs."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

_HERE = Path(__file__).resolve().parent


def command(arguments: str) -> str:
    """What to type: "promptglass models get blip-large" where that is installed with this Python."""
    if shutil.which("promptglass", path=str(Path(sys.executable).parent)):
        return f"promptglass {arguments}"
    return f"{python()} {_quoted(_HERE)} {arguments}"


def python() -> str:
    """The Python that runs this, as it is typed."""
    return _quoted(Path(sys.executable))


def _quoted(path: Path) -> str:
    return f'"{path}"' if " " in str(path) else str(path)
