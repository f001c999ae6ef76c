"""The client of language models against raw `requests`, and a batch with four questions at a time or one.

    python benchmarks/llm.py overhead [URL]    one call: same server, same body, both over a kept connection
    python benchmarks/llm.py batch [URL]       64 pictures, an answer of 24 tokens each

against a stub that answers at once (overhead) or after 0.25 s whatever the load (batch), and against the real
server at URL, such as llama.cpp's with four slots. Each prints JSON lines. Run it on a quiet machine.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parent.parent))

PICTURES = 64


# -- a stub, in a process of its own: it must not share our interpreter lock ---------------------------------


class Stub(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body in one packet
    delay_s = 0.0

    def do_GET(self) -> None:
        self._answer("application/json", b'{"object": "list", "data": [{"id": "stub", "object": "model"}]}')

    def do_POST(self) -> None:
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        time.sleep(self.delay_s)
        answer = {"id": "1", "object": "chat.completion", "created": 1, "model": "stub"}
        if question["stream"]:
            pieces = [{"delta": {"content": "hi"}}, {"delta": {}, "finish_reason": "stop"}]
            lines = [json.dumps({**answer, "choices": [{"index": 0, **piece}]}) for piece in pieces]
            stream = "".join(f"data: {line}\n\n" for line in (*lines, "[DONE]"))
            self._answer("text/event-stream", stream.encode())
        else:
            choice = {"index": 0, "message": {"content": "hi"}, "finish_reason": "stop"}
            self._answer("application/json", json.dumps({**answer, "choices": [choice]}).encode())

    def _answer(self, kind: str, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


def serve_stub(delay_s: str) -> None:
    Stub.delay_s = float(delay_s)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Stub)
    print(server.server_port, flush=True)
    server.serve_forever()


@contextlib.contextmanager
def stub(delay_s: float = 0.0) -> Iterator[str]:
    command = [sys.executable, __file__, "serve-stub", str(delay_s)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.wait()


# -- what is measured ----------------------------------------------------------------------------------------


def overhead(url: str) -> None:
    with stub() as address:
        compare_calls("a stub", address, 1000)
    if url:
        compare_calls("the real server", url, 200)


def compare_calls(server: str, url: str, times: int) -> None:
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    from promptglass.llm import Endpoint
    from promptglass.llm.openai import body
    from promptglass.llm.profiles import Profile
    from promptglass.llm.wire import Question, Turn

    model = requests.get(f"{url}/v1/models", timeout=5).json()["data"][0]["id"]
    endpoint = Endpoint(Profile("benchmark", "openai", url, model))
    session = requests.Session()
    session.trust_env = False  # nor do we ask for proxies on loopback
    # llama.cpp closes kept connections after some streams: what is sent over one of those goes out again.
    session.mount("http://", HTTPAdapter(max_retries=Retry(read=3, allowed_methods=None)))
    message = {"role": "user", "content": "Say hello."}

    def raw(is_streamed: bool) -> str:
        question = Question(model, (Turn(**message),), 0.0, 1, 1, is_streamed)
        content = json.dumps(body(question)).encode()
        headers = {"Content-Type": "application/json"}
        reply = session.post(f"{url}/v1/chat/completions", content, headers=headers, stream=is_streamed)
        if not is_streamed:
            return reply.json()["choices"][0]["message"]["content"]
        lines = [line[6:] for line in reply.iter_lines() if line.startswith(b"data: {")]
        choices = [choice for line in lines for choice in json.loads(line)["choices"]]
        return "".join(choice["delta"].get("content") or "" for choice in choices)

    def ours(is_streamed: bool) -> str:
        stop = threading.Event() if is_streamed else None  # as every mode asks
        return endpoint.chat([message], stop=stop, temperature=0.0, max_tokens=1, seed=1).text

    for is_streamed in (False, True):
        raw_s, ours_s = medians([partial(raw, is_streamed), partial(ours, is_streamed)], times)
        line = {
            "work": f"one call of {server}{', streamed' * is_streamed}",
            "requests_ms": round(raw_s * 1000, 2),
            "ours_ms": round(ours_s * 1000, 2),
            "more_ms": round((ours_s - raw_s) * 1000, 2),
            "goal_ms": round(raw_s * 50 + 1, 2),  # 5 % and 1 ms
        }
        print(json.dumps(line), flush=True)


def medians(runs: Sequence[Callable[[], str]], times: int) -> list[float]:
    took: list[list[float]] = [[] for _ in runs]
    for turn in range(times + 10):  # in turns: all meet the same weather
        for place, run in enumerate(runs):
            started = time.perf_counter()
            assert run()
            if turn >= 10:
                took[place].append(time.perf_counter() - started)
    return [median(seconds) for seconds in took]


def batch(url: str) -> None:
    with stub(0.25) as address:
        compare_batches("a stub of 0.25 s", address)
    if url:
        compare_batches("the real server", url)


def compare_batches(server: str, url: str) -> None:
    from PIL import Image

    seconds = {}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(PICTURES):
            Image.new("RGB", (64, 64), (number, 0, 0)).save(Path(folder, f"{number:02}.png"))
        for concurrency in (4, 1, 4, 1):
            took = batch_s(url, concurrency, folder)
            seconds[concurrency] = min(took, seconds.get(concurrency, took))
    line = {
        "work": f"{PICTURES} pictures, {server}",
        "one_s": round(seconds[1], 2),
        "four_s": round(seconds[4], 2),
    }
    print(json.dumps({**line, "times_as_fast": round(seconds[1] / seconds[4], 2)}), flush=True)


def batch_s(url: str, concurrency: int, folder: str) -> float:
    from promptglass.batch import Batch, Outcome
    from promptglass.llm import Endpoint
    from promptglass.llm.analyzer import LlmAnalyzer
    from promptglass.llm.profiles import Profile
    from promptglass.prompts import Prompt

    prompt = Prompt(
        "short", "Short", "Caption: {caption}\nTell a story about it.", temperature=0, max_tokens=24
    )
    endpoint = Endpoint(Profile("benchmark", "openai", url, concurrency=concurrency))
    analyzer = LlmAnalyzer(endpoint, ["llm/short"], {"short": prompt}, caption="a cat on a wall")
    run = Batch([analyzer], ["llm/short"], force=True)
    outcomes: list[Outcome] = []
    started = time.perf_counter()
    run.run(run.plan(folder), outcomes.append)
    took = time.perf_counter() - started
    assert len(outcomes) == PICTURES and all(outcome.status == "done" for outcome in outcomes)
    return took


def main() -> None:
    wanted = sys.argv[1:2] or ["overhead", "batch"]
    for work in (overhead, batch):
        if work.__name__ in wanted:
            work(sys.argv[2] if len(sys.argv) > 2 else "")


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve-stub"]:
        serve_stub(sys.argv[2])
    else:
        main()
