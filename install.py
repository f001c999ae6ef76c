"""Adds what no host has, and nothing else: the word lists of clip-interrogator, and tenacity.

A1111 runs this at every start, ComfyUI's Manager after every update. Both packages are pure Python and come
without their dependencies, so nothing that the host has is up- or downgraded. Where nothing is missing, this
takes a few milliseconds and no network; without a network the host starts all the same.
"""

from __future__ import annotations

import importlib.util
import shlex
import shutil
import subprocess
import sys

PACKAGES = {"tenacity": "tenacity>=8.1", "clip_interrogator": "clip-interrogator==0.6.0"}


def missing() -> list[str]:
    return [package for module, package in PACKAGES.items() if importlib.util.find_spec(module) is None]


def main() -> None:
    packages = missing()
    if not packages:
        return
    print("promptglass: adding", ", ".join(packages), flush=True)
    command = [*_installer(), "--no-deps", *packages]
    if subprocess.run(command, check=False).returncode:
        typed = subprocess.list2cmdline(command) if sys.platform == "win32" else shlex.join(command)
        print(f"promptglass: that failed. When online, run: {typed}", file=sys.stderr)


def _installer() -> list[str]:
    """pip, or uv where this Python came without it. Offline it gives up soon: a host waits for this."""
    uv = shutil.which("uv")
    if uv and importlib.util.find_spec("pip") is None:
        return [uv, "pip", "install", "--python", sys.executable]
    return [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--retries", "1"]


if __name__ == "__main__":
    main()
