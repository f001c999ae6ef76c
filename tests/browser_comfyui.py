"""ComfyUI's frontend in a real Chromium, with promptglass in it: clicks through what people click, and looks.

    COMFYUI=/path/to/ComfyUI python tests/browser_comfyui.py [--url URL] [--out DIR] [--set NAME VALUE]…

Not a part of the test suite; run by hand, in the host's environment with playwright. It starts a ComfyUI with
models of toy size; or takes one that runs (--url), which must have them and the pictures of samples/.
--set Comfy.ColorPalette light, --set Comfy.VueNodes.Enabled true: the frontend's settings to look at it with.
Prints every step; exit code 1 if one failed or the console holds an error of ours.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from playwright.sync_api import ConsoleMessage, Page, expect, sync_playwright

ROOT = Path(__file__).parent.parent
_FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
]
_IS_UP = "() => window.app?.vueAppReady && window.app.extensionManager && window.app.canvas?.graph"
_IS_IDLE = """async () => { const { queue_running, queue_pending } = await (await fetch("/queue")).json();
    return !queue_running.length && !queue_pending.length; }"""
_MENU = "Interrogate with promptglass"


def _node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


GRAPH = {
    "1": _node("LoadImage", image="coffee.jpg"),
    "2": _node(
        "PromptglassInterrogate",
        image=["1", 0],
        mode="fast",
        model="openai/clip-vit-large-patch14",
        captioner="blip-large",
        max_flavors=0,
        tables="",
        with_negative=True,
    ),
    "3": _node("PromptglassPalette", image=["1", 0], colours=6),
    "4": _node("CheckpointLoaderSimple", ckpt_name="none.safetensors"),
    "5": _node("CLIPTextEncode", clip=["4", 1], text="the prompt of before"),
    "6": _node("CLIPTextEncode", clip=["4", 1], text="blurry"),
    "7": _node(
        "KSampler", model=["4", 0], positive=["5", 0], negative=["6", 0], latent_image=["8", 0],
        seed=1, steps=4, cfg=7.0, sampler_name="euler", scheduler="normal", denoise=1.0,
    ),
    "8": _node("EmptyLatentImage", width=512, height=512, batch_size=1),
}  # fmt: skip


class Browser:
    """A page with ComfyUI, what its console says, and a folder for pictures of it."""

    def __init__(self, page: Page, url: str, out: Path) -> None:
        self.page, self.out = page, out
        self.complaints: list[str] = []
        self.failed: list[str] = []
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self._note(str(error.stack or error)))
        page.goto(url)
        page.wait_for_function(_IS_UP, timeout=60_000)
        page.evaluate("() => app.extensionManager.setting.set('Comfy.TutorialCompleted', true)")
        page.wait_for_timeout(1500)
        page.keyboard.press("Escape")  # the template browser of a first start

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self._note(f"{message.type}: {message.text} ({message.location.get('url', '')})")

    def _note(self, complaint: str) -> None:
        """Others have theirs."""
        if "promptglass" in complaint.lower():
            self.complaints.append(complaint)

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
        self.page.wait_for_timeout(300)
        self.page.screenshot(path=self.out / f"{name}.png")

    def set(self, name: str, value: Any) -> None:
        self.page.evaluate("([k, v]) => app.extensionManager.setting.set(k, v)", [name, value])

    def load(self, graph: dict[str, Any]) -> None:
        self.page.evaluate("(graph) => app.loadApiJson(graph, 'promptglass.json')", graph)
        self.page.wait_for_timeout(800)
        for dialog in self.page.locator(".p-dialog-close-button, [aria-label='Close dialog']").all():
            dialog.click()  # a model of the graph is not here, and is not needed
        self.page.evaluate(
            """() => { const place = (id, x, y) => { app.graph.getNodeById(id).pos = [x, y]; };
            place(1, 100, 130); place(2, 440, 130); place(3, 100, 540); place(5, 860, 130);
            place(6, 860, 360); place(4, 860, 590); place(7, 1290, 130); place(8, 1290, 500);
            app.canvas.ds.reset(); app.canvas.ds.scale = 0.8; app.canvas.setDirty(true, true); }"""
        )
        self.page.wait_for_timeout(800)

    def at(self, node: int, right: int = 60, down: int = -15) -> tuple[float, float]:
        """Where on the page a point of a node is: of its title, by default."""
        x, y = self.page.evaluate(
            """([id, right, down]) => { const { pos } = app.graph.getNodeById(id);
            const [x, y] = app.canvas.ds.convertOffsetToCanvas([pos[0] + right, pos[1] + down]);
            const at = app.canvas.canvas.getBoundingClientRect(); return [at.x + x, at.y + y]; }""",
            [node, right, down],
        )
        return x, y

    def widget(self, node: int, name: str) -> Any:
        question = "([id, name]) => app.graph.getNodeById(id).widgets.find((w) => w.name === name).value"
        return self.page.evaluate(question, [node, name])


def menu_and_toast(browser: Browser) -> None:
    page = browser.page
    toast = page.locator(".promptglass-toast")
    with browser.step("the menu of a picture offers the modes"):
        page.mouse.click(*browser.at(1), button="right")
        page.get_by_text(_MENU).hover()  # opens it with the new nodes; the old ones want a click
        page.wait_for_timeout(500)
        if not page.get_by_text("Fast: a caption").is_visible():
            page.get_by_text(_MENU).click()
        page.get_by_text("Fast: a caption").wait_for()
        browser.shot("menu")
    with browser.step("a mode is clicked, and a toast tells of it until the prompt is there"):
        page.get_by_text("Fast: a caption").click()
        toast.get_by_role("button", name="Cancel").wait_for()
        browser.shot("toast-running")
        toast.get_by_role("button", name="To prompt node").wait_for(timeout=60_000)
        browser.shot("toast")
    with browser.step("to prompt node: the positive one takes it, and Ctrl+Z gives back the old"):
        prompt = toast.locator(".promptglass-text").first.inner_text()
        toast.get_by_role("button", name="To prompt node").click()
        assert browser.widget(5, "text") == prompt, browser.widget(5, "text")
        assert browser.widget(6, "text") == "blurry"
        browser.shot("to-prompt-node")
        page.keyboard.press("Control+z")
        page.wait_for_timeout(1000)
        assert browser.widget(5, "text") == "the prompt of before", browser.widget(5, "text")
    with browser.step("copy, and Esc closes"):
        toast.get_by_role("button", name="Copy", exact=True).click()
        toast.get_by_text("Copied").wait_for()
        page.keyboard.press("Escape")
        expect(toast).to_have_count(0)


def closed_while_it_runs(browser: Browser) -> None:
    page = browser.page
    with browser.step("a toast that is closed ends its job, and nothing of it comes back"):
        page.mouse.click(*browser.at(1))
        page.locator("button:has(.pi-eye):not([class*=side-bar])").first.click()
        toast = page.locator(".promptglass-toast")
        toast.get_by_role("button", name="Cancel").wait_for()
        toast.get_by_role("button", name="Close").click()
        page.wait_for_function(_IS_IDLE, timeout=60_000)
        page.wait_for_timeout(1500)
        expect(toast).to_have_count(0)


def examples(browser: Browser) -> None:
    page = browser.page
    for path in sorted((ROOT / "example_workflows").glob("*.json")):
        with browser.step(f"the example {path.stem} is loaded, and runs"):
            page.evaluate("(workflow) => app.loadGraphData(workflow)", json.loads(path.read_text("utf-8")))
            page.wait_for_timeout(1000)
            page.evaluate("() => app.queuePrompt(0)")
            page.wait_for_timeout(500)
            page.wait_for_function(_IS_IDLE, timeout=90_000)
            page.locator(".promptglass-on-node").first.wait_for()
            state = page.evaluate(
                "async () => Object.values(await (await fetch('/history?max_items=1')).json())"
            )
            assert state[0]["status"]["status_str"] == "success", state[0]["status"]["messages"][-1]
            page.wait_for_timeout(1500)
            browser.shot(f"example {path.stem}")


def toolbox(browser: Browser) -> None:
    page = browser.page
    with browser.step("the eye on the toolbox interrogates with the default mode"):
        page.mouse.click(*browser.at(1))
        page.locator("button:has(.pi-eye):not([class*=side-bar])").first.click()
        toast = page.locator(".promptglass-toast")
        toast.get_by_role("button", name="To prompt node").wait_for(timeout=60_000)
        toast.get_by_role("button", name="Close").click()
        expect(toast).to_have_count(0)


def cards(browser: Browser) -> None:
    page = browser.page
    with browser.step("nodes that have run show their cards"):
        page.evaluate("() => app.queuePrompt(0)")
        page.locator(".promptglass-on-node .promptglass-prompt").first.wait_for(timeout=60_000)
        page.locator(".promptglass-on-node .promptglass-strip").wait_for()
        page.wait_for_timeout(500)
        browser.shot("cards")


def sidebar(browser: Browser) -> None:
    page = browser.page
    with browser.step("the sidebar shows the latest results"):
        page.locator(".promptglass\\.panel-tab-button").click()
        page.locator(".promptglass-result").first.wait_for()
        page.wait_for_timeout(700)
        browser.shot("sidebar-results")
    for name in ("Health", "Wildcards"):
        with browser.step(f"the sidebar shows {name.lower()}"):
            page.get_by_role("tab", name=name).click()
            page.locator(".promptglass-panel .promptglass-section, .promptglass-empty").first.wait_for()
            if name == "Health":
                page.get_by_role("button", name="Check", exact=True).click()
                page.get_by_role("button", name="Check again").wait_for(timeout=30_000)
            browser.shot(f"sidebar-{name.lower()}")
    with browser.step("arrow keys turn between its tabs"):
        page.keyboard.press("Shift+Tab")
        page.get_by_role("tab", name="Wildcards").focus()
        page.keyboard.press("ArrowRight")
        expect(page.get_by_role("tab", name="Results")).to_be_focused()
        page.locator(".promptglass\\.panel-tab-button").click()


def settings(browser: Browser) -> None:
    page = browser.page
    with browser.step("the settings are there"):
        page.keyboard.press("Control+,")
        page.get_by_text("promptglass", exact=True).last.click()
        page.get_by_text("Default mode").first.wait_for()
        browser.shot("settings")
        page.keyboard.press("Escape")


@contextlib.contextmanager
def own_host() -> Iterator[str]:
    """The address of a ComfyUI of our own."""
    sys.path.insert(0, str(ROOT))
    from comfyui import COMFYUI, running_host
    from fakes.comfyui_models import OWN_MODELS, write_models
    from fakes.llm_server import FakeServer, as_json, by_path, streamed

    if COMFYUI is None:
        sys.exit("COMFYUI must name ComfyUI's folder; or name a ComfyUI that runs, with --url")
    models = as_json({"object": "list", "data": [{"id": "m", "object": "model"}]})
    answers = by_path(completions=streamed("openai", ["a red ", "cat"]), models=models)
    with tempfile.TemporaryDirectory() as folder, FakeServer(answers) as server:
        base = Path(folder)
        write_models(COMFYUI, base)
        shutil.copytree(ROOT / "samples", base / "input")
        shutil.copy(ROOT / "samples" / "coffee.jpg", base / "input" / "example.png")
        profile = {"protocol": "openai", "base_url": server.url, "model": "m"}
        (base / "promptglass.yaml").write_text(json.dumps({"endpoints": {"ollama": profile}}))
        packs = {"promptglass": ROOT, "tiny models": ROOT / "tests" / "fakes" / "comfyui_tiny_models"}
        environment = {
            "PROMPTGLASS_MODELS": str(base / OWN_MODELS),
            "PYTHONPATH": str(base / "python"),
            "XDG_CACHE_HOME": str(base / "cache"),
            "PROMPTGLASS_CONFIG": str(base / "promptglass.yaml"),
        }
        with running_host(base, packs, environment) as host:
            yield host.url


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", help="a ComfyUI that runs")
    parser.add_argument("--out", type=Path, default=Path("shots"), help="for the pictures")
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    parser.add_argument("--set", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    running = contextlib.nullcontext(arguments.url) if arguments.url else own_host()
    with running as url, sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=arguments.chromium, args=_FLAGS)
        context = chromium.new_context(viewport={"width": 1440, "height": 900})
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        context.set_default_timeout(10_000)
        browser = Browser(context.new_page(), url, arguments.out)
        for name, value in arguments.set:
            browser.set(name, {"true": True, "false": False}.get(value, value))
        browser.load(GRAPH)
        for look in (menu_and_toast, toolbox, closed_while_it_runs, cards, sidebar, settings, examples):
            look(browser)
        chromium.close()
    for complaint in browser.complaints:
        print(f"console {complaint}")
    print(f"pictures in {arguments.out.resolve()}")
    return 1 if browser.failed or browser.complaints else 0


if __name__ == "__main__":
    sys.exit(main())
