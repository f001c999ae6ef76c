"""The page in a real Chromium: clicks through what people click, and takes pictures of it.

    python tests/browser_ui.py --url URL [--tab promptglass] [--out DIR] [--folder DIR] [--dark] [--width N]

Not a part of the test suite; run by hand, with playwright. URL: where `promptglass ui` runs, or a WebUI,
whose tab --tab is opened first. --folder: a folder with pictures that may be worked on. --llm NAME: an
endpoint that answers. Prints every step; exit code 1 if one failed or the console holds an error.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Locator, Page, expect, sync_playwright

SAMPLES = Path(__file__).parent.parent / "samples"
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
]
_LONG = 60_000  # ms


class Tab:
    """promptglass on a page that is open."""

    def __init__(self, page: Page, out: Path, name: str = "") -> None:
        self.page, self.out, self.name = page, out, name
        self.errors: list[str] = []
        self.failed: list[str] = []
        page.on("pageerror", self._note)
        page.set_default_timeout(15_000)

    def open(self, url: str, host_tab: str = "") -> None:
        """host_tab: of a WebUI, to be clicked first."""
        self.page.goto(url, wait_until="domcontentloaded")
        if host_tab:
            self.page.wait_for_selector("#txt2img_generate", state="visible", timeout=120_000)
            self.page.wait_for_timeout(1500)
            self.page.locator("#tabs button").filter(
                has_text=re.compile(f"^\\s*{host_tab}\\s*$")
            ).first.click()
        self.page.wait_for_selector("#promptglass_tabs", state="visible", timeout=_LONG)
        self.page.wait_for_timeout(500)

    def _note(self, error: Exception) -> None:
        self.errors.append(str(getattr(error, "stack", None) or error))
        print("console:", self.errors[-1][:400], flush=True)

    def part(self, name: str) -> Locator:
        return self.page.locator(f"#promptglass_{name}").first  # gradio 3 gives an id twice

    def field(self, name: str) -> Locator:
        return (
            self.part(name).locator("textarea, input[type=text], input[type=number], input:not([type])").first
        )

    def button(self, name: str) -> Locator:
        """gradio gives its id to the button, or to what is around it."""
        return self.page.locator(f"button#promptglass_{name}, #promptglass_{name} button").first

    def go(self, title: str) -> None:
        tabs = self.part("tabs").locator(".tab-nav > button, [role=tab]")
        tab = tabs.filter(has_text=_exactly(title)).locator("visible=true").first
        if not tab.count():  # a narrow window: gradio 5 and 6 put what does not fit into a menu
            self.part("tabs").locator(".overflow-menu > button").first.click()
            menu = self.part("tabs").locator(".overflow-dropdown button")
            tab = menu.filter(has_text=_exactly(title)).first
        tab.click()
        self.page.wait_for_timeout(400)

    def drop(self, area: str, file: Path) -> None:
        clear = self.part(f"{area}_file").locator("button[aria-label=Clear], button[title=Clear]")
        if clear.count():
            clear.first.click()
        self.part(f"{area}_file").locator("input[type=file]").set_input_files(str(file))

    def tick(self, group: str, *labels: str) -> None:
        """These and no others."""
        for label in self.part(group).locator("label").all():
            box = label.locator("input[type=checkbox]")
            wanted = label.inner_text().strip() in labels
            if box.count() and box.is_checked() != wanted:
                box.click()

    def unfold(self, name: str) -> None:
        fold = self.part(name).locator("button, .label-wrap").first
        fold.click()
        self.page.wait_for_timeout(300)

    def choose(self, name: str, option: str) -> None:
        """Of a dropdown."""
        field = self.part(name).locator("input").first
        field.click()
        options = self.page.locator("ul.options li, [role=option]").filter(has_text=option)
        options.locator("visible=true").first.click()

    def press(self, name: str) -> None:
        self.button(name).click()

    def wait_idle(self, run: str, timeout: float = _LONG) -> None:
        expect(self.button(f"{run}_start")).to_be_enabled(timeout=timeout)
        expect(self.button(f"{run}_stop")).to_be_disabled(timeout=timeout)

    def shot(self, name: str, is_whole: bool = True) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        self.page.wait_for_timeout(400)
        self.page.screenshot(path=self.out / f"{self.name}{name}.png", full_page=is_whole)

    def step(self, title: str, work: Callable[[], None]) -> None:
        try:
            work()
            print(f"ok      {title}", flush=True)
        except Exception as error:
            self.failed.append(title)
            print(f"FAILED  {title}: {str(error)[:400]}", flush=True)
            self.shot("failed-" + re.sub(r"\W+", "-", title))


def _exactly(text: str) -> re.Pattern[str]:
    return re.compile(rf"^\s*{text}\s*$")


# -- one picture ---------------------------------------------------------------------------------------------


def embedded_prompt_shows_at_once(tab: Tab) -> None:
    tab.drop("single", SAMPLES / "with-prompt.png")
    expect(tab.part("single_preview").locator("img")).to_have_attribute(
        "alt", "with-prompt.png", timeout=_LONG
    )
    expect(tab.field("answer_embedded_text")).to_have_value(re.compile("espresso"))
    expect(tab.field("prompt")).to_have_value(re.compile("espresso"))
    expect(tab.field("negative")).to_have_value(re.compile("blurry"))
    tab.shot("single-embedded")


def interrogates(tab: Tab, *modes: str) -> None:
    tab.tick("single_modes", *modes)
    tab.press("single_start")
    tab.page.wait_for_timeout(300)
    tab.wait_idle("single", 300_000)
    for mode in modes:
        expect(tab.part(f"answer_{mode}")).to_be_visible()
    tab.shot("single-answers")


def answer_is_used_as_prompt(tab: Tab, mode: str) -> None:
    tab.press(f"answer_{mode}_use")
    expect(tab.field("prompt")).to_have_value(tab.field(f"answer_{mode}_text").input_value())


def own_words_stay(tab: Tab) -> None:
    tab.field("prompt").fill("my own words")
    tab.drop("single", SAMPLES / "coffee.jpg")
    expect(tab.part("single_preview").locator("img")).to_have_attribute("alt", "coffee.jpg", timeout=_LONG)
    tab.page.wait_for_timeout(500)
    expect(tab.field("prompt")).to_have_value("my own words")
    expect(tab.part("answer_embedded")).to_be_hidden()
    tab.field("prompt").fill("")


def sidecar_is_saved(tab: Tab) -> None:
    tab.press("single_save")
    link = tab.part("single_sidecar").locator("a").first
    expect(link).to_be_visible()
    with tab.page.expect_download() as download:
        link.click()
    assert download.value.suggested_filename.endswith(".promptglass.json"), download.value.suggested_filename
    assert '"schema": 1' in Path(download.value.path()).read_text("utf-8")


def no_mode_is_one_plain_line(tab: Tab) -> None:
    tab.tick("single_modes")
    tab.press("single_start")
    expect(tab.part("single_status")).to_contain_text("no mode is chosen")
    expect(tab.field("prompt")).not_to_have_value(re.compile("no mode"))


def what_is_no_picture_is_said(tab: Tab) -> None:
    broken = tab.out / "<img src=x onerror=window.hacked=1>.png"
    tab.out.mkdir(parents=True, exist_ok=True)
    broken.write_bytes(b"this is no picture")
    tab.drop("single", broken)
    expect(tab.part("single_status")).to_contain_text("cannot", timeout=_LONG)
    broken.unlink()
    assert not tab.page.evaluate("() => window.hacked")
    tab.shot("single-no-picture")


def refines(tab: Tab, endpoint: str) -> None:
    tab.drop("single", SAMPLES / "astronaut.jpg")
    expect(tab.part("single_preview").locator("img")).to_be_visible(timeout=_LONG)
    tab.field("prompt").fill("a cup of coffee")
    tab.unfold("refine")
    tab.choose("refine_profile", endpoint)
    tab.press("refine_start")
    expect(tab.field("refine_heard")).to_be_visible(timeout=_LONG)
    tab.page.wait_for_timeout(700)
    tab.shot("single-refining")
    tab.wait_idle("refine")
    expect(tab.field("prompt")).not_to_have_value("a cup of coffee")
    tab.shot("single-refined")


def refining_is_stopped(tab: Tab) -> None:
    tab.press("refine_start")
    expect(tab.field("refine_heard")).to_be_visible()
    expect(tab.button("refine_stop")).to_be_enabled()
    tab.press("refine_stop")
    tab.wait_idle("refine")
    expect(tab.part("refine_status")).to_contain_text("Stopped")


def prompt_is_sent(tab: Tab, what: str, to: str) -> None:
    """To the host's own tab: its one box is set, the other stays."""
    words = f"sent to {to} as {what}"
    tab.field(what).fill(words)
    boxes = {"prompt": f"#{to}_prompt textarea", "negative": f"#{to}_neg_prompt textarea"}
    other = boxes["negative" if what == "prompt" else "prompt"]
    before = tab.page.locator(other).input_value()
    tab.press(f"send_{what}_{to}")
    expect(tab.page.locator(boxes[what])).to_have_value(words)
    expect(tab.page.locator(boxes[what])).to_be_visible()
    assert tab.page.locator(other).input_value() == before
    tab.page.locator("#tabs button").filter(has_text=_exactly("promptglass")).first.click()


def clipboard_is_pasted(tab: Tab) -> None:
    """The image on the clipboard becomes the picture; a canvas puts one there."""
    tab.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    tab.page.evaluate("""async () => {
        const canvas = document.createElement("canvas"); canvas.width = 40; canvas.height = 30;
        canvas.getContext("2d").fillRect(0, 0, 20, 30);
        const blob = await new Promise((done) => canvas.toBlob(done, "image/png"));
        await navigator.clipboard.write([new ClipboardItem({ "image/png": blob })]);
    }""")
    tab.press("single_paste")
    expect(tab.part("single_preview")).to_contain_text("40 × 30 PNG", timeout=_LONG)


# -- the other tabs ------------------------------------------------------------------------------------------


def folder_is_refused(tab: Tab) -> None:
    tab.go("Folder")
    tab.field("folder_path").fill("/etc")
    tab.press("folder_start")
    expect(tab.part("folder_status")).to_contain_text("not in a folder that may be used")


def folder_is_worked_on(tab: Tab, folder: str) -> None:
    tab.go("Folder")
    tab.field("folder_path").fill(folder)
    tab.tick("folder_modes", "embedded", "palette")
    tab.part("folder_force").locator("input").first.check()
    tab.press("folder_start")
    tab.page.wait_for_timeout(300)
    tab.wait_idle("folder", 300_000)
    expect(tab.part("folder_status")).to_contain_text("Finished")
    expect(tab.part("folder_results")).to_contain_text("palette")
    expect(tab.part("folder_recent").locator("img").first).to_be_visible()
    tab.shot("folder")


def batch_is_taken_up_again(tab: Tab, folder: str, url: str, host_tab: str) -> None:
    """The page is loaded again in the middle; then it is stopped, and goes on."""
    tab.go("Folder")
    tab.field("folder_path").fill(folder)
    tab.tick("folder_modes", "embedded", "palette")
    tab.part("folder_force").locator("input").first.check()
    tab.press("folder_start")
    expect(tab.part("folder_status")).to_contain_text(re.compile("pictures: [1-9].* of"), timeout=_LONG)
    tab.shot("folder-running")
    tab.open(url, host_tab)
    tab.go("Folder")
    expect(tab.button("folder_stop")).to_be_enabled()
    expect(tab.part("folder_status")).to_contain_text(re.compile("pictures: [1-9].* of"))
    tab.press("folder_stop")
    tab.wait_idle("folder")
    expect(tab.part("folder_status")).to_contain_text("Stopped")
    tab.shot("folder-stopped")
    tab.field("folder_path").fill(folder)
    tab.tick("folder_modes", "embedded", "palette")
    tab.press("folder_start")
    expect(tab.part("folder_status")).to_contain_text(re.compile("as they were"), timeout=_LONG)
    tab.wait_idle("folder", 300_000)


def wildcards_are_written(tab: Tab) -> None:
    tab.go("Folder")
    tab.unfold("folder_wildcards")
    tab.press("folder_write")
    expect(tab.part("folder_written")).to_contain_text("__promptglass/palette__")
    tab.shot("folder-wildcards")


def wildcards_are_previewed(tab: Tab) -> None:
    tab.go("Wildcards")
    expect(tab.part("wildcards_files")).to_contain_text("__promptglass/palette__", timeout=_LONG)
    tab.field("wildcards_template").fill("{a|b} painting, __promptglass/palette__, __nothing/here__")
    tab.press("wildcards_preview")
    expect(tab.part("wildcards_drawn")).to_contain_text("no file gives __nothing/here__")
    expect(tab.part("wildcards_drawn").locator("li").first).to_contain_text("painting")
    tab.shot("wildcards")


def labels_say_what_is_missing(tab: Tab) -> None:
    tab.go("Labels")
    tab.drop("labels", SAMPLES / "cat.jpg")
    expect(tab.part("labels_preview").locator("img")).to_be_visible(timeout=_LONG)
    tab.press("labels_start")
    tab.page.wait_for_timeout(300)
    tab.wait_idle("labels", 300_000)
    tab.shot("labels")


def status_is_told(tab: Tab) -> None:
    tab.go("Status")
    expect(tab.part("status_facts")).to_contain_text("ViT-L-14/openai", timeout=_LONG)
    tab.press("status_ask_endpoints")
    expect(tab.part("status_endpoints")).to_contain_text("llama.cpp", timeout=_LONG)
    tab.press("status_refresh")
    tab.shot("status")


def keyboard_reaches_the_button(tab: Tab) -> None:
    tab.go("Single")
    tab.field("single_caption").focus()
    for _ in range(3):
        tab.page.keyboard.press("Tab")
        if tab.page.evaluate("() => document.activeElement.id.includes('single_start')"):
            return
    raise AssertionError("three times Tab after the caption, and not at the button")


def click_through(
    tab: Tab, folder: str, endpoint: str, is_in_webui: bool, many: str = "", url: str = "", host_tab: str = ""
) -> None:
    """Every control, once."""
    tab.shot("single-empty")
    tab.step("embedded prompt", lambda: embedded_prompt_shows_at_once(tab))
    tab.step("interrogate", lambda: interrogates(tab, "embedded", "palette"))
    tab.step("use as prompt", lambda: answer_is_used_as_prompt(tab, "palette"))
    tab.step("sidecar", lambda: sidecar_is_saved(tab))
    tab.step("own words stay", lambda: own_words_stay(tab))
    tab.step("no mode", lambda: no_mode_is_one_plain_line(tab))
    tab.step("no picture", lambda: what_is_no_picture_is_said(tab))
    tab.step("keyboard", lambda: keyboard_reaches_the_button(tab))
    if endpoint:
        tab.step("refine", lambda: refines(tab, endpoint))
        tab.step("stop refining", lambda: refining_is_stopped(tab))
    if is_in_webui:
        for to in ("txt2img", "img2img"):
            for what in ("prompt", "negative"):
                tab.step(f"send {what} to {to}", lambda what=what, to=to: prompt_is_sent(tab, what, to))
        tab.step("paste", lambda: clipboard_is_pasted(tab))
    tab.step("folder refused", lambda: folder_is_refused(tab))
    if folder:
        tab.step("folder", lambda: folder_is_worked_on(tab, folder))
        tab.step("wildcards written", lambda: wildcards_are_written(tab))
        tab.step("wildcards previewed", lambda: wildcards_are_previewed(tab))
    if many:
        tab.step("taken up again", lambda: batch_is_taken_up_again(tab, many, url, host_tab))
    tab.step("labels", lambda: labels_say_what_is_missing(tab))
    tab.step("status", lambda: status_is_told(tab))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--tab", default="")
    parser.add_argument("--out", type=Path, default=Path("/tmp/promptglass-shots"))
    parser.add_argument("--name", default="")
    parser.add_argument("--folder", default="")
    parser.add_argument("--many", default="", help="a folder with a hundred pictures or more")
    parser.add_argument("--llm", default="")
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--width", type=int, default=1280)
    arguments = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        context = browser.new_context(
            viewport={"width": arguments.width, "height": 900},
            color_scheme="dark" if arguments.dark else "light",
        )
        # Fonts and the like from elsewhere: nothing but this machine is asked.
        own = ("http://127.0.0.1", "http://localhost", "data:", "blob:")
        context.route(lambda url: not url.startswith(own), lambda route: route.abort())
        tab = Tab(context.new_page(), arguments.out, arguments.name)
        url = arguments.url + ("?__theme=dark" if arguments.dark else "")
        tab.open(url, arguments.tab)
        is_in_webui = bool(arguments.tab)
        click_through(tab, arguments.folder, arguments.llm, is_in_webui, arguments.many, url, arguments.tab)
        browser.close()
    return 1 if tab.failed or tab.errors else 0


if __name__ == "__main__":
    sys.exit(main())
