"""useImageAnalyzer in a real Chromium: real React, built by Vite, against the real service on another origin.

    python tests/browser_client.py --python /path/to/promptglass/python [--out DIR]

Not a part of the test suite; run by hand, in an environment with playwright, where npm reaches its registry.
--python: that of an environment with promptglass and its tests' packages, for the service.
Prints every step; exit code 1 if one failed or the console holds an error.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

ROOT = Path(__file__).parent.parent
CLIENT = ROOT / "javascript" / "client"
_FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
]
_INDEX = '<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><title>hook</title>'
_INDEX += '<div id="root"></div><script type="module" src="/main.jsx"></script>'
# MyComponent is seed 001's, with what it found below.
_MAIN = """
import React, { StrictMode, useState } from "react";
import { createRoot } from "react-dom/client";
import { useImageAnalyzer } from "promptglass-client/react";

function MyComponent() {
  const { analyzeImage, isAnalyzing, error, generatedPrompt, analysis, abort } = useImageAnalyzer();
  const handleImageSelect = async (imageFile) => {
    const result = await analyzeImage(imageFile, "optional user input", false);
    window.results = [...(window.results ?? []), result];
  };
  return (
    <div>
      <input type="file" accept="image/*" onChange={(e) => {
        if (e.target.files?.[0]) handleImageSelect(e.target.files[0]);
      }} />
      <button onClick={abort}>Abort</button>
      {isAnalyzing && <p>Analyzing...</p>}
      {error && <p>Error: {error}</p>}
      {generatedPrompt && <p id="prompt">{generatedPrompt}</p>}
      {analysis && Object.entries(analysis).map(([name, labels]) => (
        <p className="labels" key={name}><b>{name}</b> {labels.map((one) => one.value).join(", ")}</p>
      ))}
    </div>
  );
}

function Page() {
  const [isThere, setIsThere] = useState(true);
  return <>{isThere && <MyComponent />}<button onClick={() => setIsThere(!isThere)}>Leave</button></>;
}

createRoot(document.getElementById("root")).render(<StrictMode><Page /></StrictMode>);
"""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...


@contextlib.contextmanager
def service(python: str, origin: str) -> Iterator[str]:
    environment = {**os.environ, "PROMPTGLASS_ORIGINS": origin, "OLLAMA_HOST": "127.0.0.1:9"}
    with subprocess.Popen(
        [python, str(ROOT / "tests" / "served.py")],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin
        assert process.stdout
        yield process.stdout.readline().strip()
        process.stdin.close()


def build(place: Path, address: str) -> Path:
    """The page, as its author would: packed, installed, built."""

    def npm(*arguments: str, at: Path = place) -> str:
        return subprocess.run(arguments, cwd=at, check=True, capture_output=True, text=True).stdout

    package = {"private": True, "type": "module"}
    (place / "package.json").write_text(json.dumps(package))
    packed = npm("npm", "pack", "--silent", "--pack-destination", str(place), at=CLIENT).strip()
    npm("npm", "install", "--no-audit", "--no-fund", f"./{packed}", "react", "react-dom", "vite")
    (place / "index.html").write_text(_INDEX)
    (place / "main.jsx").write_text(_MAIN)
    (place / ".env.local").write_text(f"VITE_API_BASE_URL={address}\n")
    npm("npx", "vite", "build")
    return place / "dist"


def jobs(address: str) -> list[str]:
    with urllib.request.urlopen(f"{address}/jobs") as answer:
        found: list[str] = json.load(answer)
    return found


def wait_for(what: str, address: str, state: str) -> None:
    """Until the newest job is in a state."""
    for _ in range(100):
        if jobs(address)[:1] == [state]:
            return
        time.sleep(0.05)
    raise AssertionError(f"{what}: {jobs(address)}")


class Steps:
    def __init__(self, page: Page, address: str, out: Path) -> None:
        self.page, self.address, self.out = page, address, out
        self.failed: list[str] = []
        self.complaints: list[str] = []
        page.on("console", lambda message: message.type == "error" and self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    @contextlib.contextmanager
    def step(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.failed.append(what)
            print(f"FAILED  {what}: {str(error).strip()[:600]}")
            self.shot("failed")
        else:
            print(f"ok      {what}")

    def shot(self, name: str) -> None:
        self.page.screenshot(path=self.out / f"{name}.png")

    def choose(self, name: str, content: bytes) -> None:
        file = {"name": name, "mimeType": "image/png", "buffer": content}
        self.page.locator("input[type=file]").set_input_files([file])

    def last_result(self, count: int) -> dict[str, object]:
        self.page.wait_for_function(f"() => window.results?.length === {count}")
        found: dict[str, object] = self.page.evaluate("() => window.results.at(-1)")
        return found

    def run(self) -> None:
        page, analyzing = self.page, self.page.get_by_text("Analyzing...")
        cat, coffee = (
            (ROOT / "samples" / "cat.jpg").read_bytes(),
            (ROOT / "samples" / "coffee.jpg").read_bytes(),
        )
        with self.step("a file is chosen, analyzing is shown, and then the prompt"):
            self.choose("cat.jpg", cat)
            expect(analyzing).to_be_visible()
            self.shot("analyzing")
            expect(page.locator("#prompt")).to_have_text(re.compile("^optional user input, "))
            expect(analyzing).to_have_count(0)
            expect(page.locator(".labels")).to_have_count(5)
            assert self.last_result(1)["success"] is True
            self.shot("prompt")
        with self.step("aborted, it says nothing, and the service stops its work"):
            self.choose("coffee.jpg", coffee)
            wait_for("begun", self.address, "running")
            page.get_by_text("Abort").click()
            expect(analyzing).to_have_count(0)
            expect(page.get_by_text("Error:")).to_have_count(0)
            assert self.last_result(2)["error"] == "aborted"
            wait_for("aborted", self.address, "stopped")
        with self.step("a second picture ends the first"):
            self.choose("cat.jpg", cat)
            wait_for("begun", self.address, "running")
            self.choose("coffee.jpg", coffee)
            assert self.last_result(3)["error"] == "aborted"
            expect(analyzing).to_be_visible()
            assert self.last_result(4)["success"] is True
            assert sorted(jobs(self.address)[:2]) == ["done", "stopped"]
        with self.step("what is no picture is an error that is shown"):
            self.choose("notes.png", b"only text")
            shown = page.get_by_text("Error: cannot read image: it is text")
            expect(shown).to_be_visible()
            expect(page.locator("#prompt")).to_have_count(0)
            assert self.last_result(5)["success"] is False
            self.shot("error")
            self.complaints[:] = [line for line in self.complaints if "400 (Bad Request)" not in line]
        with self.step("the component goes away, and its work ends"):
            self.choose("cat.jpg", cat)
            wait_for("begun", self.address, "running")
            page.get_by_text("Leave").click()
            wait_for("left", self.address, "stopped")
            assert self.last_result(6)["error"] == "aborted"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()) / "promptglass-client")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place, sync_playwright() as playwright:
        dist = Path(place) / "dist"
        pages = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(dist)))
        threading.Thread(target=pages.serve_forever, daemon=True).start()
        origin = f"http://127.0.0.1:{pages.server_address[1]}"
        with service(given.python, origin) as address:
            build(Path(place), address)
            browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=_FLAGS)
            page = browser.new_page(viewport={"width": 700, "height": 420})
            page.set_default_timeout(15_000)
            steps = Steps(page, address, given.out)
            page.goto(origin)
            steps.run()
            browser.close()
    for complaint in steps.complaints:
        print(f"console: {complaint[:400]}")
    return 1 if steps.failed or steps.complaints else 0


if __name__ == "__main__":
    sys.exit(main())
