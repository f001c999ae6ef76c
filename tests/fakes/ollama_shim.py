"""Ollama's routes in front of llama.cpp's server: a real model, as no registry has a real Ollama.

Its shapes are from Ollama's documentation and the official client reads them; the real one was never here.
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import requests


class OllamaShim:
    def __init__(self, upstream: str, model: str, sees: bool = False) -> None:
        self.asked: list[tuple[str, Any]] = []
        shim = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, *args: object) -> None:
                pass

            def do_GET(self) -> None:
                entry = {"name": f"{model}:latest", "model": f"{model}:latest", "size": 1, "digest": "0"}
                self._send(200, {"models": [{**entry, "details": {}}]})

            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                shim.asked.append((self.path, asked))
                if asked["model"].removesuffix(":latest") != model:
                    return self._send(404, {"error": f"model '{asked['model']}' not found"})
                if self.path == "/api/show":
                    capabilities = ["completion"] + ["vision"] * sees
                    return self._send(200, {"capabilities": capabilities, "details": {}, "model_info": {}})
                if not asked["messages"]:
                    return self._send(200, _last(model, "unload"))
                return self._chat(asked)

            def _chat(self, asked: dict[str, Any]) -> None:
                is_streamed = asked.get("stream", True)
                address = f"{upstream}/v1/chat/completions"
                with requests.post(address, json=_upwards(asked, is_streamed), stream=True) as answer:
                    if answer.status_code != 200:
                        return self._send(answer.status_code, {"error": answer.json()["error"]["message"]})
                    if not is_streamed:
                        choice = answer.json()["choices"][0]
                        last = _last(model, choice["finish_reason"], choice["message"]["content"])
                        return self._send(200, last)
                    self.send_response(200)
                    self.send_header("Content-Type", "application/x-ndjson")
                    self.send_header("Transfer-Encoding", "chunked")
                    self.end_headers()
                    reason = "stop"
                    for line in answer.iter_lines():
                        if not line.startswith(b"data: {"):
                            continue
                        choice = json.loads(line[6:])["choices"][0]
                        reason = choice["finish_reason"] or reason
                        word = choice["delta"].get("content")
                        if word:
                            message = {"role": "assistant", "content": word}
                            self._chunk({**_last(model, reason), "message": message, "done": False})
                    self._chunk(_last(model, reason))
                    self.wfile.write(b"0\r\n\r\n")

            def _send(self, status: int, content: object) -> None:
                body = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def _chunk(self, content: object) -> None:
                body = json.dumps(content).encode() + b"\n"
                self.wfile.write(b"%x\r\n%s\r\n" % (len(body), body))

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> OllamaShim:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def _last(model: str, reason: str, text: str = "") -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    moment = "2026-01-01T00:00:00Z"
    counts = {"prompt_eval_count": 1, "eval_count": 1, "total_duration": 1}
    return {
        "model": model,
        "created_at": moment,
        "message": message,
        "done": True,
        "done_reason": reason,
        **counts,
    }


def _upwards(asked: dict[str, Any], is_streamed: bool) -> dict[str, Any]:
    names = {"temperature": "temperature", "seed": "seed", "num_predict": "max_tokens"}
    options = {names[name]: value for name, value in (asked.get("options") or {}).items()}
    messages = [_message(message) for message in asked["messages"]]
    body = {"model": asked["model"], "messages": messages, "stream": is_streamed, **options}
    wished = asked.get("format")
    if wished:
        schema = {"type": "json_schema", "json_schema": {"name": "r", "schema": wished}}
        body["response_format"] = {"type": "json_object"} if wished == "json" else schema
    return body


def _message(message: dict[str, Any]) -> dict[str, Any]:
    pictures = [
        {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{content}"}}
        for content in message.get("images") or ()
    ]
    text = {"type": "text", "text": message["content"]}
    return {"role": message["role"], "content": [text, *pictures] if pictures else message["content"]}
