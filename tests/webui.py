"""A real WebUI for tests: started in its own folder, spoken to by HTTP, ended for good.

    with running_webui(base) as host:
        host.post("/promptglass/v1/interrogate", {…})

WEBUI names the host's folder, which holds its environment in `venv`: see docs/hosts.md. While a test runs
this checkout, and tiny models, are linked into its extensions; nothing else of it is touched.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

WEBUI = Path(os.environ["WEBUI"]) if os.environ.get("WEBUI") else None

_ROOT = Path(__file__).parent.parent
_START_S = 240
_FLAGS = (
    *(
        "--skip-prepare-environment",
        "--skip-install",
        "--skip-torch-cuda-test",
        "--skip-python-version-check",
    ),
    *("--api", "--ui-debug-mode", "--do-not-download-clip", "--no-download-sd-model"),
)


@dataclass
class WebUI:
    url: str
    log: Path
    outputs: Path  # a folder that promptglass may use
    weights: Path  # where the tiny CLIP's weights lie, once it is loaded
    auth: tuple[str, str] | None = None

    def get(self, path: str, **options: Any) -> requests.Response:
        return requests.get(self.url + path, timeout=60, auth=self.auth, **options)

    def post(self, path: str, content: Any, **options: Any) -> requests.Response:
        options = {"timeout": 300, "auth": self.auth, **options}
        return requests.post(self.url + path, json=content, **options)


def is_forge() -> bool:
    return WEBUI is not None and (WEBUI / "modules_forge").is_dir()


@contextlib.contextmanager
def running_webui(base: Path, *flags: str, **variables: str) -> Iterator[WebUI]:
    """flags: of the host's command line. Its log is in `base`, and so is all that is written."""
    assert WEBUI is not None
    outputs = base / "outputs of the host"
    outputs.mkdir(parents=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    on_cpu = ["--always-cpu"] if is_forge() else ["--use-cpu", "all", "--no-half"]
    command = [
        *("venv/bin/python", "launch.py", *_FLAGS, *on_cpu, "--port", str(port)),
        *("--promptglass-root", str(outputs), *flags),
    ]
    host = WebUI(f"http://127.0.0.1:{port}", base / "log", outputs, base / "weights.pt")
    links = {"promptglass": _ROOT, "promptglass-tiny-models": _ROOT / "tests/fakes/webui_tiny_models"}
    with _linked(links), host.log.open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=WEBUI,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**_environment(base, host.weights), **variables},
        )
        try:
            _wait(host, process)
            yield host
        finally:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(15)
            process.kill()
            process.wait()


@contextlib.contextmanager
def _linked(links: dict[str, Path]) -> Iterator[None]:
    assert WEBUI is not None
    places = {WEBUI / "extensions" / name: target for name, target in links.items()}
    for place, target in places.items():
        assert not place.exists() or place.is_symlink(), f"{place} is there, and no link: move it away"
        place.unlink(missing_ok=True)
        place.symlink_to(target)
    try:
        yield
    finally:
        for place in places:
            place.unlink(missing_ok=True)


def _environment(base: Path, weights: Path) -> dict[str, str]:
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONPATH", "VIRTUAL_ENV", "PYTHONDONTWRITEBYTECODE")
    }
    return {
        **inherited,
        "HF_HUB_OFFLINE": "1",
        "GRADIO_ANALYTICS_ENABLED": "False",
        "no_proxy": "127.0.0.1,localhost",
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONPYCACHEPREFIX": str(base.parent / "pycache"),
        "GRADIO_TEMP_DIR": str(base / "gradio"),
        "XDG_CACHE_HOME": str(base.parent / "cache"),
        "PROMPTGLASS_CONFIG": str(base / "config.yaml"),
        "PROMPTGLASS_TEST_WEIGHTS": str(weights),
    }


def _wait(host: WebUI, process: subprocess.Popen[bytes]) -> None:
    """The line is written after the extensions' routes are there; the page answers before that."""
    (host.log.parent / "config.yaml").write_text("{}")
    deadline = time.monotonic() + _START_S
    while "Startup time:" not in host.log.read_text("utf-8", "replace"):
        said = host.log.read_text("utf-8", "replace")[-3000:]
        assert process.poll() is None, f"the host has ended:\n{said}"
        assert time.monotonic() < deadline, f"the host does not start:\n{said}"
        time.sleep(0.2)
