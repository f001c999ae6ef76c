"""A hub on 127.0.0.1, as much of one as huggingface_hub 0.17 to 2.4 and promptglass ask for.

What it is: HTTP over a real socket, so that real clients, broken connections and killed processes are tested.
What it fakes: the protocol was read off huggingface_hub's sources, not recorded from the real hub, which the
machines that build this cannot reach. It knows one commit per repository, no tokens, no Xet, no pages of
results, and its repositories hold noise, or a few tensors of it, under the names of real models' files.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# Files above this go the way of LFS: the hub redirects to another address, the ETag is the SHA-256.
LARGE_BYTES = 10_000


@dataclass
class Request:
    method: str
    path: str
    range: str | None
    token: str | None
    sent_bytes: int = 0


class FakeHub:
    """`with FakeHub({"org/name": {"file": b"..."}}) as hub:`, then HF_ENDPOINT=hub.url."""

    def __init__(self, repos: dict[str, dict[str, bytes]]) -> None:
        self.repos = repos
        self.requests: list[Request] = []
        self.cut_after: int | None = None  # close the connection after so many bytes of each large file
        self.stall_after: int | None = None  # or fall silent there
        self.status: int | None = None  # answer everything with this
        self.status_of_large: int | None = None  # answer requests for the content of large files with this
        self.has_ranges = True
        self.damaged = False  # send large files with their first byte changed
        self.released = threading.Event()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        # The large files lie on another host, as they do in life: clients follow that redirect differently.
        self.cdn_url = f"http://localhost:{self.server.server_port}/cdn"

    def __enter__(self) -> FakeHub:
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self.server.shutdown()
        self.server.server_close()

    def behave(self) -> None:
        """Forget the faults and the requests seen."""
        self.cut_after = self.stall_after = self.status = self.status_of_large = None
        self.has_ranges, self.damaged = True, False
        self.requests.clear()

    def fetched(self) -> set[str]:
        """The files whose content somebody asked for."""
        contents = {
            hashlib.sha256(content).hexdigest(): name
            for files in self.repos.values()
            for name, content in files.items()
        }
        parts = [request.path.rpartition("/")[2] for request in self.requests if request.method == "GET"]
        return {contents.get(part, part) for part in parts if part != "main"}

    def sent_bytes(self) -> int:
        return sum(request.sent_bytes for request in self.requests if request.path.startswith("/cdn/"))

    def ranges(self) -> list[str]:
        return [r.range for r in self.requests if r.range and r.path.startswith("/cdn/")]


@functools.lru_cache(maxsize=64)
def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def commit_of(repo: str) -> str:
    return hashlib.sha1(repo.encode()).hexdigest()


def _handler(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            asked = (self.headers.get("Range"), self.headers.get("Authorization"))
            self.request_seen = Request(self.command, self.path, *asked)
            hub.requests.append(self.request_seen)
            path = self.path.partition("?")[0]
            if hub.status:
                return self.answer(hub.status)
            if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/main", path):
                return self.answer_listing(found[1])
            if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
                return self.answer_file(*found.groups())
            if found := re.fullmatch(r"/cdn/(\w+)", path):
                return self.answer_large(found[1])
            return self.answer(404)

        def answer_listing(self, repo: str) -> None:
            if repo not in hub.repos:
                # The real hub does not tell strangers whether a repository exists.
                return self.answer(401, {"X-Error-Code": "RepoNotFound"})
            siblings = [{"rfilename": name} for name in hub.repos[repo]]
            info = {"id": repo, "modelId": repo, "sha": commit_of(repo), "siblings": siblings, "tags": []}
            info |= {"private": False, "downloads": 0, "likes": 0}
            return self.answer(200, {"Content-Type": "application/json"}, json.dumps(info).encode())

        def answer_file(self, repo: str, revision: str, name: str) -> None:
            content = hub.repos.get(repo, {}).get(name)
            if content is None or revision not in ("main", commit_of(repo)):
                return self.answer(404, {"X-Error-Code": "EntryNotFound"})
            headers = {"X-Repo-Commit": commit_of(repo), "Accept-Ranges": "bytes"}
            if len(content) > LARGE_BYTES:
                sha256 = _sha256(content)
                headers |= {"X-Linked-Size": str(len(content)), "X-Linked-Etag": f'"{sha256}"'}
                return self.answer(302, {**headers, "Location": f"{hub.cdn_url}/{sha256}"})
            blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            return self.answer(200, {**headers, "ETag": f'"{blob}"'}, content)

        def answer_large(self, sha256: str) -> None:
            if hub.status_of_large:
                return self.answer(hub.status_of_large)
            contents = [content for files in hub.repos.values() for content in files.values()]
            content = next(c for c in contents if _sha256(c) == sha256)
            if hub.damaged:
                content = bytes([content[0] ^ 1]) + content[1:]
            asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.request_seen.range or "")
            if not asked or not hub.has_ranges:
                return self.answer(200, {}, content, is_large=True)
            start, end = int(asked[1]), min(int(asked[2] or len(content)), len(content) - 1)
            if start >= len(content):
                return self.answer(416)
            headers = {"Content-Range": f"bytes {start}-{end}/{len(content)}"}
            return self.answer(206, headers, content[start : end + 1], is_large=True)

        def answer(
            self,
            status: int,
            headers: dict[str, str] | None = None,
            body: bytes = b"",
            is_large: bool = False,
        ) -> None:
            self.send_response(status)
            for key, value in (headers or {}).items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "HEAD":
                return
            limits = [limit for limit in (hub.cut_after, hub.stall_after) if limit is not None and is_large]
            sent = body[: limits[0]] if limits else body
            for start in range(0, len(sent), 2**16):
                try:
                    self.wfile.write(sent[start : start + 2**16])
                except ConnectionError:  # the client has read enough
                    self.close_connection = True
                    return
                self.request_seen.sent_bytes += len(sent[start : start + 2**16])
            if len(sent) < len(body):
                if hub.stall_after is not None:
                    hub.released.wait(60)
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    return Handler
