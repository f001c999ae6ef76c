"""A WebUI on loopback, as far as one is asked to interrogate: its routes, its errors, its passwords.

    with FakeWebUI("forge", auth="u:p") as host: ...

What it answers was read off A1111 1.10.1 and Forge f2.0.1; tests/test_remote.py runs the same questions
against a real one (WEBUI=…), so it can be seen to be honest. Captions depend on the pixels alone.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import threading
import zlib
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

from fakes.llm_server import Recorded, _wait
from PIL import Image

Kind = Literal["a1111", "forge"]
Reply = tuple[int, Any]

_SDAPI = ("/sdapi/v1/interrogate", "/sdapi/v1/samplers", "/sdapi/v1/options")
_EXT = ("/interrogator/models", "/interrogator/prompt", "/interrogator/analyze")
_EXT_MODES = ("caption", "best", "fast", "classic", "negative")


class FakeWebUI:
    """auth: of --api-auth. extra: routes of other servers that answer as /sdapi/v1/interrogate does.

    fails: "" or what its interrogation meets: "blip" (it could not be fetched), "vram", "beams".
    instead: replies by path, in the place of the right ones; a function answers by itself.
    """

    def __init__(
        self,
        kind: Kind = "a1111",
        auth: str = "",
        has_api: bool = True,
        has_interrogation: bool = True,
        has_ext: bool = False,
        has_deepdanbooru: bool = False,
        extra: tuple[str, ...] = (),
        lists_routes: bool = True,
        fails: str = "",
        busy_s: float = 0.0,
        port: int = 0,
        **instead: Reply | Callable[[BaseHTTPRequestHandler], None],
    ) -> None:
        self.kind = kind
        self.auth = auth
        self.has_deepdanbooru = has_deepdanbooru
        self.extra = extra
        self.fails = fails
        self.busy_s = busy_s
        self.instead = {f"/{name}": reply for name, reply in instead.items()}
        self.asked: list[Recorded] = []
        self.hung_up = threading.Event()
        paths = ["/internal/ping", "/internal/progress", "/config"] if not extra else []
        paths += [path for path in _SDAPI if has_api and (has_interrogation or "interrogate" not in path)]
        paths += _EXT if has_ext else ()
        self.paths = [*paths, *extra]
        self.listed = self.paths if lists_routes else ["/internal/ping", "/config"]
        self._has_no_tags = False
        self._queue_lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> FakeWebUI:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def interrogations(self) -> list[Recorded]:
        return [asked for asked in self.asked if asked.method == "POST"]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, *args: object) -> None:
                pass

            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                body = json.loads(content) if content else None
                asked = Recorded(self.command, self.path, headers, body)
                fake.asked.append(asked)
                try:
                    instead = fake.instead.get(self.path)
                    if callable(instead):
                        instead(self)
                        return
                    if self.command == "POST" and fake.busy_s:
                        _wait(self, fake.busy_s)
                    self.reply(*(instead or fake._reply(asked)))
                except OSError:
                    fake.hung_up.set()
                    self.close_connection = True

            def reply(self, status: int, content: Any) -> None:
                body = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                kind = "text/html" if body.startswith(b"<") else "application/json"
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                if status == 429:
                    self.send_header("Retry-After", "0")
                if 300 <= status < 400:
                    self.send_header("Location", body.decode())
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST

        return Handler

    def _reply(self, asked: Recorded) -> Reply:
        if asked.path == "/openapi.json":
            return 200, {"openapi": "3.0.2", "paths": {path: {} for path in self.listed}}
        if asked.path not in self.paths:
            return 404, {"detail": "Not Found"}
        if asked.path.startswith("/sdapi/") and not self._is_allowed(asked):
            return self._http_error(401, self._why_refused(asked))
        if asked.path in ("/sdapi/v1/interrogate", *self.extra):
            return self._interrogated(asked) if asked.method == "POST" else self._not_allowed()
        if asked.path == "/sdapi/v1/samplers":
            return 200, [{"name": "Euler a", "aliases": ["k_euler_a"], "options": {}}]
        if asked.path == "/sdapi/v1/options":
            return 200, {"interrogate_clip_num_beams": 4.0 if self.fails == "beams" else 1}
        if asked.path == "/interrogator/models":
            return 200, ["ViT-L-14/openai", "ViT-H-14/laion2b_s32b_b79k"]
        return self._of_ext(asked) if asked.method == "POST" else self._not_allowed()

    # -- /sdapi/v1/interrogate -----------------------------------------------------------------------------

    def _interrogated(self, asked: Recorded) -> Reply:
        body = asked.body or {}
        if body.get("image", "") is None:
            message = "none is not an allowed value" if self.kind == "a1111" else "Input should be a string"
            return 422, {"detail": [{"loc": ["body", "image"], "msg": message, "type": "type_error"}]}
        picture = self._decoded(body.get("image", ""))
        if picture is None:
            return self._http_error(500, "Invalid encoded image")
        model = body.get("model", "clip")
        with self._queue_lock:
            if model == "clip":
                return 200, {"caption": self._caption(picture)}
            if model == "deepdanbooru":
                return self._tagged(picture)
        return self._http_error(404, "Model not found")

    def _caption(self, picture: Image.Image) -> str:
        if self.fails in ("blip", "beams"):
            return "<error>"
        caption = f"a picture of {seen(picture)}"
        return f"{caption}<error>" if self.fails == "vram" else f"{caption}, by Rembrandt, highly detailed"

    def _tagged(self, picture: Image.Image) -> Reply:
        if self.has_deepdanbooru:
            return 200, {"caption": f"1girl, solo, {seen(picture)} \\(hair\\)"}
        if self._has_no_tags and self.kind == "a1111":  # it keeps the model that it could not fill
            return 200, {"caption": ""}
        said = ("IndexError", "list index out of range")
        if self._has_no_tags:
            said = ("AttributeError", "'NoneType' object has no attribute 'load_device'")
        self._has_no_tags = True
        return 500, self._exception(*said)

    # -- clip-interrogator-ext -----------------------------------------------------------------------------

    def _of_ext(self, asked: Recorded) -> Reply:
        body = asked.body or {}
        picture = self._decoded(body.get("image", ""))
        if picture is None:
            return self._http_error(500, "Invalid encoded image")
        if asked.path == "/interrogator/analyze":
            names = ("medium", "artist", "movement", "trending", "flavor")
            return 200, {name: {f"{name} of {seen(picture)}": 0.25, f"another {name}": 0.2} for name in names}
        if self.fails == "vram":
            return 200, {"prompt": "Ran out of VRAM"}
        if self.fails:
            return 200, {"prompt": "Exception <class 'RuntimeError'>"}
        mode = body.get("mode", "fast")
        if mode not in _EXT_MODES:
            return 500, self._exception("Exception", f"Unknown mode {mode}")
        return 200, {"prompt": f"{mode} of {seen(picture)}"}

    # -- errors --------------------------------------------------------------------------------------------

    def _http_error(self, status: int, detail: str) -> Reply:
        if self.kind == "forge":
            return status, {"detail": detail}
        return status, {"error": "HTTPException", "detail": detail, "body": "", "errors": ""}

    def _exception(self, kind: str, text: str) -> dict[str, str]:
        name = "errors" if self.kind == "a1111" else "message"
        return {"error": kind, "detail": "", "body": "", name: text}

    def _not_allowed(self) -> Reply:
        return 405, {"detail": "Method Not Allowed"}

    def _decoded(self, image: str) -> Image.Image | None:
        try:
            picture = Image.open(io.BytesIO(base64.b64decode(image.rpartition(",")[2])))
            return picture.convert("RGB")
        except (binascii.Error, OSError, ValueError):
            return None

    def _is_allowed(self, asked: Recorded) -> bool:
        expected = f"Basic {base64.b64encode(self.auth.encode()).decode()}"
        return not self.auth or asked.headers.get("authorization") == expected

    def _why_refused(self, asked: Recorded) -> str:
        return "Incorrect username or password" if "authorization" in asked.headers else "Not authenticated"


def seen(picture: Image.Image) -> str:
    """What the fake sees: words that differ for pictures that differ."""
    return f"{picture.width} by {picture.height} number {zlib.crc32(picture.tobytes())}"
