"""`promptglass serve` under load: 64 clients that ask again as soon as they are answered; a toy CLIP.

    python benchmarks/server.py [SECONDS] [CLIENTS]       60 and 64 where nothing is said

Each prints one JSON line: the service as it is, then the same with nothing grouped (a picture at a time),
both on this machine and by the same clients; and what grouping made of it. Statuses other than 200 and 429
are errors, whatever they are. Memory is the server's, after a tenth of the time and at the end. The clients
take a processor, too: the more there are, the better. Run it on a quiet machine.
"""

from __future__ import annotations

import base64
import io
import json
import multiprocessing
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
SERVER = ROOT / "tests" / "fakes" / "toy_server.py"
PICTURES = 32
# Two modes that company makes cheaper: a caption's words, and how every label scores.
MODES = "fast,tables"
_UNTIL_UP_S = 3.0  # the clients


class Server:
    def __init__(self, *options: str) -> None:
        self._place = tempfile.TemporaryDirectory()
        environment = {**os.environ, "XDG_CACHE_HOME": self._place.name, "HF_HUB_OFFLINE": "1"}
        environment |= {"OMP_NUM_THREADS": "1", "PROMPTGLASS_CONFIG": ""}
        command = [sys.executable, str(SERVER), "--port", "0", "--no-page", "--library", "off", "-q"]
        command += ["--log", str(Path(self._place.name, "log")), *options]
        self.process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        self.host, self.port = self._address()

    def _address(self) -> tuple[str, int]:
        for _ in range(600):
            log = Path(self._place.name, "log")
            found = re.search(r"http://([^:\s]+):(\d+)", log.read_text() if log.exists() else "")
            if found:
                return found[1], int(found[2])
            time.sleep(0.1)
        raise SystemExit("the server did not start")

    def resident_mb(self) -> float:
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def files(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))  # noqa: PTH208

    def stop(self) -> int:
        self.process.terminate()
        code = self.process.wait(60)
        self._place.cleanup()
        return code


def questions() -> list[bytes]:
    from PIL import Image

    found = []
    for seed in range(PICTURES):
        colours = random.Random(seed).randbytes(5 * 6 * 3)
        picture = Image.frombytes("RGB", (6, 5), colours).resize((320, 240), Image.Resampling.BICUBIC)
        file = io.BytesIO()
        picture.save(file, "JPEG")
        image = base64.b64encode(file.getvalue()).decode()
        found.append(json.dumps({"image": image, "modes": MODES}).encode())
    return found


def ask(connection: HTTPConnection, body: bytes) -> int:
    connection.request("POST", "/v1/interrogate", body, {"Content-Type": "application/json"})
    answered = connection.getresponse()
    answered.read()
    return answered.status


def clients(address: tuple[str, int], count: int, start_at: float, until: float, told: Any) -> None:
    """A process full of them: it must not share the server's interpreter lock."""
    bodies = questions()
    found: list[tuple[str, float]] = []

    def client(number: int) -> None:
        connection = HTTPConnection(*address, timeout=120)
        asked = number
        time.sleep(max(0.0, start_at - time.time()))
        while time.time() < until:
            began = time.perf_counter()
            try:
                status = str(ask(connection, bodies[asked % PICTURES]))
            except (OSError, HTTPException) as error:
                status = type(error).__name__
                connection.close()
            found.append((status, time.perf_counter() - began))
            asked += 1
            if status == "429":
                time.sleep(0.25)  # less than Retry-After says: a load, not a good client
        connection.close()

    threads = [threading.Thread(target=client, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    told.put(found)


def load(what: str, seconds: float, count: int, *options: str) -> dict[str, Any]:
    server = Server(*options)
    warm = HTTPConnection(server.host, server.port, timeout=120)
    for body in questions():
        ask(warm, body)
    warm.close()
    context = multiprocessing.get_context("spawn")
    told = context.Queue()
    start_at = time.time() + _UNTIL_UP_S
    arguments = ((server.host, server.port), count, start_at, start_at + seconds, told)
    process = context.Process(target=clients, args=arguments)
    process.start()
    time.sleep(_UNTIL_UP_S + seconds / 10)
    early = server.resident_mb()
    found = told.get(timeout=seconds + 180)
    process.join()
    late, files = server.resident_mb(), server.files()
    times = sorted(took for status, took in found if status == "200")
    statuses = Counter(status for status, _ in found)
    line = {
        "work": what,
        "clients": count,
        "seconds": seconds,
        "answered": statuses["200"],
        "per_s": round(statuses["200"] / seconds, 1),
        "p50_ms": round(statistics.median(times) * 1000),
        "p99_ms": round(times[int(len(times) * 0.99)] * 1000),
        "busy_429": statuses["429"],
        "errors": {status: number for status, number in statuses.items() if status not in ("200", "429")},
        "rss_mb": [round(early), round(late)],
        "files": files,
        "exit": server.stop(),
    }
    print(json.dumps(line), flush=True)
    return line


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 64
    grouped = load("grouped", seconds, count)
    alone = load("one by one", seconds, count, "--one-by-one")
    load("grouped, room for half of them", seconds / 3, count, "--queue", str(max(1, count // 2)))
    ratio = round(grouped["per_s"] / alone["per_s"], 2)
    print(json.dumps({"work": "grouped against one by one", "times_as_many": ratio}), flush=True)


if __name__ == "__main__":
    main()
