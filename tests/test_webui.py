"""promptglass in a WebUI: the host's models, its lock, its interrupt, its folders. The host is a fake.

tests/test_webui_hosts.py asks the real ones.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import types
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import noise, tiny_preprocess
from fakes.webui_modules import Host
from PIL import Image

from promptglass.choice import Choice
from promptglass.clip.encoder import OpenClipEncoder
from promptglass.clip.interrogator import Interrogator
from promptglass.errors import InputError, ModelError, Stopped
from promptglass.images import Picture
from promptglass.refine_request import Request
from promptglass.service import Service

TABLES = {
    "artists": ["by Rembrandt", "by Mucha", "by Hokusai"],
    "flavors": [f"{a} {b}" for a in ("soft", "hard", "warm") for b in ("light", "lines", "fog")],
    "mediums": ["a painting", "a photo", "an etching"],
    "movements": ["baroque", "cubism"],
    "trendings": ["Artstation", "behance"],
    "negative": ["blurry", "text", "watermark"],
}
FIVE_MODES = ("caption", "best", "fast", "classic", "negative")


def openai_clip() -> Any:
    """OpenAI's CLIP at toy size, whose texts differ clearly."""
    from families import openai_clip

    return openai_clip(heads=1)[0]  # as its loader reads off the width: one head for every 64


@contextlib.contextmanager
def casts_as_on_cuda() -> Iterator[None]:
    """The CPU's autocast leaves norms alone, CUDA's computes them in single precision."""
    norm = torch.nn.functional.layer_norm
    with pytest.MonkeyPatch.context() as patch, torch.autocast("cpu", dtype=torch.bfloat16):

        def cast(x: Any, shape: Any, weight: Any, bias: Any, eps: float) -> Any:
            return norm(x.float(), shape, weight.float(), bias.float(), eps)

        patch.setattr(torch.nn.functional, "layer_norm", cast)
        yield


Start = Callable[..., Host]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Starts a host; its caches and settings are the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PROMPTGLASS_CONFIG", str(tmp_path / "config.yaml"))
    (tmp_path / "config.yaml").write_text("{}")
    monkeypatch.delenv("PROMPTGLASS_ROOTS", raising=False)

    def started(make: Any = lambda: (openai_clip(), tiny_preprocess), **options: Any) -> Host:
        host = Host(tmp_path / "webui", make, **options)
        (tmp_path / "webui" / "outputs").mkdir(parents=True, exist_ok=True)
        for name, module in host.modules.items():
            monkeypatch.setitem(sys.modules, name, module)
        from promptglass.webui import running

        running.name.cache_clear()
        return host

    yield started
    from promptglass.webui import running

    running.name.cache_clear()
    if door := sys.modules.get("promptglass.webui.door"):
        door.service.cache_clear()


def service_of(host: Host) -> Service:
    from promptglass.webui.host import WebUI

    return Service(WebUI())


def picture(seed: int = 0) -> Picture:
    return Picture("p.png", noise(seed), None, "PNG", (40, 30))


def answers(service: Service, modes: tuple[str, ...], **choice: Any) -> dict[str, dict[str, Any]]:
    job = service.interrogate(picture(), Choice(modes=modes, tables=TABLES, **choice))
    return {answer["mode"]: answer for answer in job.wait()["answers"]}


# -- models --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_forge", [False, True])
def test_the_hosts_weights_give_the_prompts_that_open_clip_gives(start, is_forge):
    """Parity, in all modes."""
    import open_clip

    host = start(is_forge=is_forge)
    found = answers(service_of(host), FIVE_MODES)

    model = openai_clip()
    twin = open_clip.CLIP(
        embed_dim=48,
        vision_cfg={"image_size": 32, "layers": 2, "width": 64, "patch_size": 8, "head_width": 64},
        text_cfg={"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 3},
        quick_gelu=True,
    )
    twin.load_state_dict(model.state_dict(), strict=False)
    encoder = OpenClipEncoder(twin.eval(), tiny_preprocess, open_clip.get_tokenizer("ViT-L-14"), "twin")
    from promptglass.clip.vocabulary import Vocabulary

    reference = Interrogator(encoder, Vocabulary(TABLES, encoder))
    captions = [found["caption"]["text"]]
    for mode in FIVE_MODES:
        options = {} if mode == "negative" else {"captions": captions}
        (expected,) = getattr(reference, mode)([noise(0)], **options)
        assert found[mode]["text"] == expected.prompt, mode
        assert found[mode]["score"] == pytest.approx(expected.score, abs=1e-5), mode


def test_an_answer_names_the_hosts_models(start):
    found = answers(service_of(start()), ("fast",))["fast"]
    assert found["model"] == "ViT-L-14/openai"  # as open_clip names these weights: sidecars agree
    assert found["settings"]["captioner"] == "webui/blip-base"


def test_half_precision_is_computed_as_a1111_does(start):
    """Its norms are in half precision, too, which only its autocast makes right."""
    import clip

    model = openai_clip()
    reference = OpenClipEncoder(openai_clip(), tiny_preprocess, partial(clip.tokenize, truncate=True), "fp32")
    host = start(lambda: (model.to(torch.bfloat16), tiny_preprocess))
    host.casts = casts_as_on_cuda
    service = service_of(host)
    with service.host.turns().turn():
        encoder = service.host.loaded(Choice()).encoder
        texts = encoder.encode_continuations("a photo of ", ["a cat", "two dogs, oil painting"])
        pictures = encoder.encode_images([noise(1)])
    expected = reference.encode_texts(["a photo of a cat", "a photo of two dogs, oil painting"])
    assert (texts - expected).abs().max() < 0.03
    assert (pictures - reference.encode_images([noise(1)])).abs().max() < 0.03


def test_texts_take_the_fast_tower(start):
    service = service_of(start())
    with service.host.turns().turn():
        encoder = service.host.loaded(Choice()).encoder
        encoder.encode_texts(["a"])
        texts = encoder._encoder._texts
    assert texts._tower is not None
    assert texts._tokens._splits_at_spaces


def test_captions_are_of_one_beam_and_the_settings_lengths(start):
    host = start()
    host.options.data |= {"interrogate_clip_min_length": 3, "interrogate_clip_max_length": 9.0}
    found = answers(service_of(host), ("caption",))["caption"]
    (asked,) = host.interrogator.blip_model.asked
    assert (asked["num_beams"], asked["min_length"], asked["max_length"]) == (1, 3, 9)
    assert asked["pixels"].shape == (1, 3, 384, 384)
    assert "  " not in found["text"]
    assert host.options.data["interrogate_clip_num_beams"] == 4  # not touched, either


def test_a_picture_is_prepared_as_the_host_prepares_it():
    """Resize, ToTensor, Normalize of torchvision, which the host calls, as numbers."""
    from promptglass.webui.models import _pixels

    white = _pixels(Image.new("RGB", (7, 5), "white"), 384)
    expected = [
        (1 - m) / d for m, d in [(0.48145466, 0.26862954), (0.4578275, 0.26130258), (0.40821073, 0.27577711)]
    ]
    assert white.shape == (3, 384, 384)
    assert white.dtype == torch.float32
    assert white[:, 0, 0].tolist() == pytest.approx(expected, abs=1e-6)


def test_labels_are_classified_on_the_hosts_models(start):
    host = start()
    service = service_of(host)
    result = service.label(picture(), ["mood"], "cat = 🐱\ndog", top=2).wait()
    assert [len(found) for found in result["categories"].values()] == [2, 2]
    assert {one["emoji"] for one in result["categories"]["labels"] if one["label"] == "cat"} == {"🐱"}
    assert host.interrogator.log.count("unload") == 1


# -- the lock ------------------------------------------------------------------------------------------------


def test_one_turn_does_all_modes_and_gives_the_models_back(start):
    host = start()
    answers(service_of(host), FIVE_MODES)
    assert host.lock.turns == 1
    assert host.state.log == ["begin", "end"]
    assert host.interrogator.log == ["load", "unload"]  # Forge would tidy up its memory at every other load
    assert host.log.count("send_everything_to_cpu") == 1


def test_forge_is_left_to_make_room_itself(start):
    host = start(is_forge=True)
    answers(service_of(host), ("tables",))
    assert "send_everything_to_cpu" not in host.log


def test_no_lock_where_no_model_works(start):
    host = start()
    answers(service_of(host), ("palette",))
    assert host.lock.turns == 0


def test_a_language_model_is_asked_without_the_lock(start, tmp_path):
    from fakes.llm_server import FakeServer, streamed

    host = start()
    held: list[object] = []
    answer = streamed("openai", ["a cat, ", "oil painting, soft light"])

    def watched(handler: Any) -> None:
        held.append(host.lock.holder)
        answer(handler)

    with FakeServer(watched) as server:
        settings = f"protocol: openai, base_url: '{server.url}', model: m"
        (tmp_path / "config.yaml").write_text(f"endpoints: {{eyes: {{{settings}}}}}")
        request = Request(text="a cat, oil painting", profile="eyes", candidates=2)
        job = service_of(host).refine(request, picture(), Choice(tables=TABLES))
        refined = job.wait()["answers"][0]
    assert held and set(held) == {None}
    assert host.lock.turns == 2  # the notes, and the scores
    assert all(candidate["score"] is not None for candidate in refined["candidates"])


@pytest.mark.parametrize("is_forge", [False, True])
def test_a_failure_gives_everything_back(start, is_forge):
    host = start(is_forge=is_forge)
    host.interrogator.error = OSError("<urlopen error [Errno -2] Name or service not known>")
    service = service_of(host)
    with pytest.raises(ModelError, match=r"cannot load .*Name or service not known"):
        answers(service, ("fast",))
    assert host.lock.holder is None
    assert host.state.log.count("begin") == host.state.log.count("end")
    host.interrogator.error = None
    assert answers(service, ("fast",))["fast"]["text"]  # and the next one works


def test_no_memory_is_said_so(start):
    host = start()
    host.interrogator.error = torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")
    with pytest.raises(ModelError, match="no memory left"):
        answers(service_of(host), ("fast",))
    assert "torch_gc" in host.log


@pytest.mark.parametrize("how", ["interrupted", "skipped", "stopping_generation"])
def test_the_hosts_interrupt_stops_within_a_mode(start, monkeypatch, how):
    """The first click on Interrupt only asks to end after the current picture."""
    host = start()
    service = service_of(host)
    answers(service, ("tables",))
    from promptglass.clip import hosted

    monkeypatch.setattr(hosted, "_TEXTS_TOGETHER", 2)
    encoder = service.host.loaded(Choice()).encoder
    passes = 0
    inner = encoder._encoder.encode_continuations

    def pressed(prefix: str, suffixes: Any) -> Any:
        nonlocal passes
        passes += 1
        setattr(host.state, how, passes >= 3)
        return inner(prefix, suffixes)

    monkeypatch.setattr(encoder._encoder, "encode_continuations", pressed)
    job = service.interrogate(picture(), Choice(modes=("best",), caption="a cat", tables=TABLES))
    with pytest.raises(Stopped, match="interrupted"):
        job.wait()
    assert job.state == "stopped"
    assert passes == 3  # not one more
    assert host.lock.holder is None


def test_a_job_that_waits_for_the_host_can_be_stopped(start):
    host = start()
    service = service_of(host)
    with host.lock:  # somebody generates pictures
        job = service.interrogate(picture(), Choice(modes=("fast",), tables=TABLES))
        while job.now is None:
            threading.Event().wait(0.01)
        assert job.as_json()["progress"]["what"] == "waiting for the models"
        job.stop()
        assert job.as_json()["state"] == "stopping"
    with pytest.raises(Stopped):
        job.wait()
    assert host.interrogator.log == []  # nothing was loaded for it


def test_two_at_a_time_are_both_right(start):
    host = start()
    service = service_of(host)
    jobs = [service.interrogate(picture(n), Choice(modes=("best",), tables=TABLES)) for n in (1, 2, 1)]
    texts = [job.wait()["answers"][0]["text"] for job in jobs]
    assert texts[0] == texts[2] != texts[1]
    assert host.lock.turns == 3


def test_the_hosts_bar_moves(start):
    host = start()
    seen: list[tuple[str, int, int]] = []
    service = service_of(host)
    progress = service.host._progress

    def noted(what: str, done: int, total: int) -> None:
        progress(what, done, total)
        seen.append((host.state.textinfo, host.state.job_no, host.state.job_count))

    service.host._progress = noted
    answers(service, ("best",))
    assert any(what == "embedding labels" and count == 22 for what, _, count in seen)


# -- a host without models -----------------------------------------------------------------------------------


def test_without_an_interrogator_the_engines_own_models_are_used_and_it_is_said(start, monkeypatch):
    host = start(make=None)
    service = service_of(host)
    assert "no interrogation models" in service.host.note
    with pytest.raises(ModelError, match="promptglass models get"):
        service.interrogate(picture(), Choice(modes=("fast",))).wait()
    from promptglass.clip import analyzer, loading

    monkeypatch.setattr(analyzer, "not_here", lambda model: [])
    encoder = OpenClipEncoder(openai_clip(), tiny_preprocess, _tokenizer(), "ViT-L-14/openai")
    monkeypatch.setattr(loading, "load_encoder", lambda *_: encoder)
    found = answers(service, ("fast",), caption="a cat")
    assert found["fast"]["text"].startswith("a cat, ")
    assert host.lock.turns >= 1  # it is the same GPU
    assert host.state.log[-1] == "end"


def test_another_model_is_the_engines_own(start):
    service = service_of(start())
    with pytest.raises(ModelError, match="ViT-H-14"):
        service.interrogate(picture(), Choice(modes=("tables",), model="ViT-H-14/laion2b_s32b_b79k")).wait()


def test_models_of_our_own_rest_between_turns():
    from promptglass.host import OwnModels

    where: list[str] = []
    room: list[object] = []

    class Module:
        def to(self, device: object) -> None:
            where.append(str(device))

    models = OwnModels(lambda: torch.device("meta"), room.append)
    first, second = Module(), Module()
    for module in (first, second, first):
        models._bring(module)
    assert (where, room) == (["meta", "meta"], [first, second])
    models.rest()
    assert where == ["meta", "meta", "cpu", "cpu"]
    models._bring(first)
    assert where[-1] == "meta"


def _tokenizer() -> Any:
    import open_clip

    return open_clip.get_tokenizer("ViT-L-14")


# -- folders -------------------------------------------------------------------------------------------------


def test_roots_are_the_outputs_and_those_of_the_command_line(start, tmp_path, monkeypatch):
    mine, theirs = tmp_path / "my pictures", tmp_path / "theirs"
    mine.mkdir(), theirs.mkdir()
    monkeypatch.setenv("PROMPTGLASS_ROOTS", str(theirs))
    host = start(promptglass_root=[str(mine)])
    host.options.data["outdir_samples"] = "/"  # whoever can open the page may set this
    assert service_of(host).host.roots == [mine, theirs, host.base / "outputs"]


def test_a_root_that_is_gone_costs_neither_the_start_nor_the_others(start, tmp_path, caplog, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("PROMPTGLASS_ROOTS", str(tmp_path / "here"))
    host = start(promptglass_root=[str(tmp_path / "gone")])
    assert service_of(host).host.roots == [tmp_path / "here", host.base / "outputs"]
    assert "gone" in caplog.text


def test_a_batch_outside_of_the_roots_is_refused(start, tmp_path):
    service = service_of(start())
    link = tmp_path / "webui" / "outputs" / "link"
    link.symlink_to(tmp_path)
    for folder in (tmp_path, link, f"{tmp_path}/webui/outputs/../..", "", "~nobody/x", "a\0b"):
        with pytest.raises(InputError, match="not in a folder that may be used"):
            service.batch(str(folder), Choice(modes=("palette",)))


def test_a_batch_writes_sidecars_and_wildcards_where_dynamic_prompts_reads(start):
    host = start()
    service = service_of(host)
    folder = host.base / "outputs"
    for number in range(3):
        noise(number).save(folder / f"{number} 🦊.png")
    job = service.batch(str(folder), Choice(modes=("fast", "palette"), tables=TABLES))
    assert job.wait()["counts"] == {"done": 3, "unchanged": 0}
    extension = host.add_extension("my dynamic prompts", "sd_dynamic_prompts")
    written, notes = service.write_wildcards(str(folder))
    assert {one.path.parent for one in written} == {extension / "wildcards" / "promptglass"}
    assert notes == ["press Refresh wildcards in the Wildcards Manager, or start the WebUI again"]


def test_dynamic_prompts_is_told_of_new_files(start, monkeypatch, tmp_path):
    host = start()
    cleared: list[bool] = []
    paths, tab = types.ModuleType("sd_dynamic_prompts.paths"), types.ModuleType("tab")
    paths.get_wildcard_dir = lambda: tmp_path / "theirs"
    tab.wildcard_manager = types.SimpleNamespace(clear_cache=lambda: cleared.append(True))
    monkeypatch.setitem(sys.modules, "sd_dynamic_prompts.paths", paths)
    monkeypatch.setitem(sys.modules, "sd_dynamic_prompts.wildcards_tab", tab)
    webui = service_of(host).host
    assert webui.wildcard_folder().path == tmp_path / "theirs"
    assert webui.wildcards_changed() == ""
    assert cleared == [True]


def test_wildcards_go_where_the_setting_says_if_that_is_allowed(start, tmp_path):
    host = start()
    webui = service_of(host).host
    with pytest.raises(InputError, match="install sd-dynamic-prompts"):
        webui.wildcard_folder()
    host.options.data["promptglass_wildcard_folder"] = str(host.base / "outputs" / "w")
    assert webui.wildcard_folder().path == host.base / "outputs" / "w"
    host.options.data["promptglass_wildcard_folder"] = str(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="not in a folder that may be used"):
        webui.wildcard_folder()


# -- who may ask whom ----------------------------------------------------------------------------------------


def test_credentials_are_the_apis_else_the_pages(start):
    from promptglass.webui import running

    host = start()
    assert running.credentials() == {}
    host.gradio_credentials = [("ann", "a:b")]
    assert running.credentials() == {"ann": "a:b"}
    host.flags.api_auth = "bob:pass:word, eve:x"
    assert running.credentials() == {"bob": "pass:word", "eve": "x"}


def test_credentials_that_are_none_open_nothing(start, monkeypatch):
    from promptglass.webui import running

    host = start()
    host.flags.api_auth = "secret"
    with pytest.raises(InputError, match="NAME:PASSWORD"):
        running.credentials()
    host.flags.api_auth, host.flags.gradio_auth = None, "ann:x"
    monkeypatch.setitem(sys.modules, "modules.initialize_util", None)
    with pytest.raises(ImportError):
        running.credentials()
    host.flags.gradio_auth = host.flags.gradio_auth_path = None
    assert running.credentials() == {}


def test_only_endpoints_of_the_command_line_are_asked(start):
    service = service_of(start(promptglass_endpoints="ollama, lmstudio"))
    assert [profile.name for profile in service.profiles()] == ["ollama", "lmstudio"]
    with pytest.raises(InputError, match="openai may not be asked"):
        service.refine(Request(text="a cat", profile="openai"))
    with pytest.raises(InputError, match="openai may not be asked"):
        service.interrogate(picture(), Choice(modes=("llm/describe@openai/gpt",)))
    with pytest.raises(InputError, match="openai may not be asked"):
        service.interrogate(picture(), Choice(modes=("llm/describe",), llm="openai"))


# -- settings, tab, script -----------------------------------------------------------------------------------


def test_settings_hold_no_secrets_and_show_the_roots(start):
    pytest.importorskip("gradio")
    from promptglass.webui import settings

    host = start()
    settings.register(["/data/<pictures>"])
    added = host.options.added
    assert all(option.section == ("promptglass", "promptglass") for option in added.values())
    assert "&lt;pictures&gt;" in added["promptglass_roots_shown"].default
    assert not any("key" in name or "url" in name for name in added)
    assert settings.defaults()["modes"] == ["embedded", "fast", "negative", "palette"]


@pytest.mark.parametrize("stored", [["fast", "gone"], "fast", None, [1], []])
def test_settings_of_another_version_do_no_harm(start, stored):
    from promptglass.webui import settings

    host = start()
    host.options.data["promptglass_modes"] = stored
    modes = settings.defaults()["modes"]
    assert modes and set(modes) <= {"embedded", "fast", "negative", "palette"}


def _run_script() -> types.ModuleType:
    """As script_loading.load_module of the host does."""
    path = Path(__file__).parent.parent / "scripts" / "promptglass_webui.py"
    module = types.ModuleType("promptglass_webui.py")
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), vars(module))
    return module


def test_the_script_registers_tab_settings_and_routes(start):
    pytest.importorskip("gradio")
    host = start()
    _run_script()
    assert {name: len(found) for name, found in host.callbacks.items()} == {
        "on_ui_settings": 1,
        "on_app_started": 1,
        "on_ui_tabs": 1,
    }
    ((blocks, title, element),) = host.callbacks["on_ui_tabs"][0]()
    assert (title, element) == ("promptglass", "promptglass")
    assert "Single" in str(blocks.get_config_file())


def test_a_failing_import_still_shows_the_tab_with_the_reason(start, monkeypatch, capsys):
    pytest.importorskip("gradio")
    host = start()
    monkeypatch.setitem(sys.modules, "promptglass.webui.door", None)
    monkeypatch.delattr("promptglass.webui.door", raising=False)
    _run_script()
    ((blocks, title, _),) = host.callbacks["on_ui_tabs"][0]()
    assert title == "promptglass"
    assert "promptglass cannot be shown" in str(blocks.get_config_file())
    assert "Traceback" in capsys.readouterr().err


def test_a_tab_that_cannot_be_built_says_why(start, monkeypatch):
    pytest.importorskip("gradio")
    host = start()
    _run_script()
    from promptglass.webui import door

    def broken() -> None:
        raise RuntimeError("no such <component>")

    monkeypatch.setattr(door, "tabs", broken)
    ((blocks, _, _),) = host.callbacks["on_ui_tabs"][0]()
    assert "no such &lt;component&gt;" in str(blocks.get_config_file())


def test_reloading_the_page_keeps_the_jobs(start):
    pytest.importorskip("gradio")
    start()
    _run_script()
    from promptglass.webui import door

    before = door.service()
    _run_script()
    assert door.service() is before


def test_preload_adds_flags_that_default_to_nothing():
    import argparse
    import runpy

    parser = argparse.ArgumentParser()
    runpy.run_path(str(Path(__file__).parent.parent / "preload.py"))["preload"](parser)
    assert vars(parser.parse_args([])) == {"promptglass_root": None, "promptglass_endpoints": None}
    told = parser.parse_args(["--promptglass-root", "a b", "--promptglass-root", "c"])
    assert told.promptglass_root == ["a b", "c"]
