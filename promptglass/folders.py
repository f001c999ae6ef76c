"""Where promptglass keeps what it can make or fetch again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder(name: str) -> Path:
    """~/.cache/promptglass/NAME (as the hub's clients do on every system), or below XDG_CACHE_HOME."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "promptglass" / name
