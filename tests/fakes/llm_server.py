"""An LLM server on loopback that answers as it is told to: rightly, in three protocols, or in all ways wrong.

    with FakeServer(broken(429), whole("openai", "hi")) as server: ...

Each request gets the next answer, and the last one stays. It records what it was asked, and when who asked
hung up. Its right answers are judged by the official clients (test_llm_wire.py); its wrong ones are only as
wrong as what is known of real servers.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[BaseHTTPRequestHandler], None]

MODELS = {
    "openai": {"object": "list", "data": [{"id": "m", "object": "model", "created": 1, "owned_by": "fake"}]},
    "anthropic": {
        "data": [
            {
                "id": "m",
                "type": "model",
                "display_name": "M",
                "created_at": "2026-01-01T00:00:00Z",
                "lifecycle": "active",
                "capabilities": None,
            }
        ],
        "has_more": False,
        "first_id": "m",
        "last_id": "m",
    },
    "ollama": {
        "models": [{"name": "m:latest", "model": "m:latest", "size": 1, "digest": "0", "details": {}}]
    },
}


@dataclass(frozen=True)
class Recorded:
    method: str
    path: str
    headers: dict[str, str]  # names in lower case
    body: Any


class FakeServer:
    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.asked: list[Recorded] = []
        self.times: list[float] = []
        self.hung_up = threading.Event()
        self._lock = threading.Lock()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True
            asked: Recorded  # the request that is being answered

            def log_message(self, *args: object) -> None:
                pass

            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                with fake._lock:
                    headers = {name.lower(): value for name, value in self.headers.items()}
                    body = json.loads(content) if content else None
                    self.asked = Recorded(self.command, self.path, headers, body)
                    fake.asked.append(self.asked)
                    fake.times.append(time.monotonic())
                    answer = fake.answers.pop(0) if len(fake.answers) > 1 else fake.answers[0]
                try:
                    answer(self)
                except OSError:
                    fake.hung_up.set()
                    self.close_connection = True

            do_GET = do_POST

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> FakeServer:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def answer(status: int, content: bytes, kind: str = "application/json", **headers: str) -> Answer:
    def send(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(content)

    return send


def as_json(content: object, status: int = 200, **headers: str) -> Answer:
    return answer(status, json.dumps(content).encode(), **headers)


def broken(status: int, message: str = "slow down", **headers: str) -> Answer:
    return as_json({"error": {"message": message, "type": "x", "code": status}}, status, **headers)


def by_path(**answers: Answer) -> Answer:
    """The answer whose name the path ends in: by_path(models=…, chat=…, completions=…)."""

    def send(handler: BaseHTTPRequestHandler) -> None:
        path = handler.path.partition("?")[0].rsplit("/", 1)[-1]
        answers.get(path, broken(404, "File Not Found"))(handler)

    return send


# Right answers


def whole(protocol: str, text: str | None, finish_reason: str = "stop", **more: Any) -> Answer:
    return as_json(whole_body(protocol, text, finish_reason, **more))


def whole_body(protocol: str, text: str | None, finish_reason: str = "stop", **more: Any) -> dict[str, Any]:
    model = more.pop("model", "m")
    if protocol == "openai":
        message = {"role": "assistant", "content": text, **more}
        return {
            "id": "c",
            "object": "chat.completion",
            "created": 1,
            "model": model,
            "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
            "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
        }
    if protocol == "anthropic":
        return {
            "id": "m",
            "type": "message",
            "role": "assistant",
            "model": model,
            "content": more.get("content", [{"type": "text", "text": text or ""}]),
            "stop_reason": {"stop": "end_turn", "length": "max_tokens"}.get(finish_reason, finish_reason),
            "stop_sequence": None,
            "usage": {"input_tokens": 3, "output_tokens": 2},
        }
    return {
        "model": model,
        "created_at": "2026-01-01T00:00:00Z",
        "message": {"role": "assistant", "content": text or "", **more},
        "done": True,
        "done_reason": finish_reason,
        "total_duration": 1,
        "prompt_eval_count": 3,
        "eval_count": 2,
    }


def lines_of(protocol: str, words: list[str], finish_reason: str = "stop") -> list[str]:
    """The lines of a stream, in the manner of llama.cpp, Anthropic and Ollama."""
    if protocol == "openai":
        events: list[Any] = [_chunk({"role": "assistant", "content": None})]
        events += [_chunk({"content": word}) for word in words]
        events += [_chunk({}, finish_reason)]
        usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
        events += [{**_chunk({}), "choices": [], "usage": usage}]
        return [f"data: {json.dumps(event)}\n\n" for event in events] + ["data: [DONE]\n\n"]
    if protocol == "anthropic":
        start = whole_body("anthropic", None)
        start.update(content=[], stop_reason=None, usage={"input_tokens": 3, "output_tokens": 0})
        block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
        deltas = [
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}}
            for word in words
        ]
        reason = {"stop": "end_turn", "length": "max_tokens"}[finish_reason]
        end = {
            "type": "message_delta",
            "delta": {"stop_reason": reason, "stop_sequence": None},
            "usage": {"output_tokens": 2},
        }
        events = [{"type": "message_start", "message": start}, block, *deltas]
        events += [{"type": "content_block_stop", "index": 0}, end, {"type": "message_stop"}]
        return [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events]
    part = {"model": "m", "created_at": "2026-01-01T00:00:00Z", "done": False}
    parts = [{**part, "message": {"role": "assistant", "content": word}} for word in words]
    return [json.dumps(event) + "\n" for event in (*parts, whole_body("ollama", "", finish_reason))]


def _chunk(delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


def streamed(protocol: str, words: list[str], finish_reason: str = "stop") -> Answer:
    return stream_of(lines_of(protocol, words, finish_reason), protocol)


# Wrong answers


def stream_of(
    lines: list[str],
    protocol: str = "openai",
    then: str = "end",
    pause_s: float = 0.0,
    is_chunked: bool = True,
) -> Answer:
    """A stream of these lines; then: end it, drop the connection, or fall silent."""

    def send(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        kind = "application/x-ndjson" if protocol == "ollama" else "text/event-stream"
        handler.send_header("Content-Type", kind)
        if is_chunked:
            handler.send_header("Transfer-Encoding", "chunked")
        else:
            handler.send_header("Connection", "close")
            handler.close_connection = True
        handler.end_headers()
        for line in lines:
            content = line.encode("utf-8", "surrogateescape")
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(content), content) if is_chunked else content)
            handler.wfile.flush()
            if pause_s:
                _wait(handler, pause_s)
        if then == "silence":
            silence(handler)
        elif then == "drop":
            drop(handler)
        elif is_chunked:
            handler.wfile.write(b"0\r\n\r\n")

    return send


def drop(handler: BaseHTTPRequestHandler) -> None:
    """The connection is reset, as by a server that was killed."""
    linger = struct.pack("ii", 1, 0)
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    handler.connection.close()
    raise ConnectionResetError


def silence(handler: BaseHTTPRequestHandler) -> None:
    """Nothing, until who asked has had enough."""
    _wait(handler, 30)


def drip(handler: BaseHTTPRequestHandler) -> None:
    """A stream that never ends, and never has anything in it."""
    stream_of([": ping\n"] * 3000, pause_s=0.02)(handler)


def pour(handler: BaseHTTPRequestHandler) -> None:
    """The same, without a pause to look at the clock in."""
    stream_of([": ping\n" * 10] * 1_000_000)(handler)


def drip_headers(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    for i in range(3000):
        handler.wfile.write(b"x")
        handler.wfile.flush()
        _wait(handler, 0.02)
        if i == 60:
            handler.wfile.write(b": y\r\n")


def huge(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(1 << 40))
    handler.end_headers()
    while True:
        handler.wfile.write(b'{"choices": "' + b"x" * (1 << 16))


def cut(handler: BaseHTTPRequestHandler) -> None:
    """Half of a whole answer."""
    content = json.dumps(whole_body("openai", "half of it")).encode()
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content[:40])
    handler.wfile.flush()
    drop(handler)


def _wait(handler: BaseHTTPRequestHandler, seconds: float) -> None:
    """Wait, and notice a hang-up at once, as llama.cpp and Ollama do."""
    readable, _, _ = select.select([handler.connection], [], [], seconds)
    if readable and not handler.connection.recv(1, socket.MSG_PEEK):
        raise ConnectionAbortedError
