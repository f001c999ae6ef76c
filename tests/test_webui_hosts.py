"""promptglass in a real A1111, Forge or reForge: WEBUI=/path/to/it, see tests/webui.py."""

from __future__ import annotations

import base64
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import requests
from webui import WEBUI, WebUI, running_webui

pytestmark = pytest.mark.skipif(WEBUI is None, reason="no WebUI: set WEBUI to its folder")

SAMPLES = Path(__file__).parent.parent / "samples"
FIVE_MODES = ["caption", "best", "fast", "classic", "negative"]
PRE = "/promptglass/v1"


def image(name: str = "cat.jpg") -> str:
    return base64.b64encode((SAMPLES / name).read_bytes()).decode()


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebUI]:
    before = _state()
    with running_webui(tmp_path_factory.mktemp("webui") / "open") as host:
        yield host
    assert _state() == before  # no file of the host, no package has changed


def _state() -> tuple[str, str]:
    assert WEBUI is not None
    packages = (
        "import importlib.metadata as m; print(sorted(f'{d.name}=={d.version}' for d in m.distributions()))"
    )
    frozen = subprocess.run(
        [WEBUI / "venv/bin/python", "-c", packages], capture_output=True, text=True, check=True
    ).stdout
    files = subprocess.run(
        ["git", "status", "--short", "--untracked-files=no"],
        cwd=WEBUI,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return frozen, files


def test_the_fake_host_is_honest(host):
    """All that promptglass uses, and the fake has, is in the real one."""
    from fakes.webui_modules import ATTRIBUTES

    names = {module: [*attributes] for module, attributes in ATTRIBUTES.items()}
    assert host.post("/promptglass-test/missing", {"attributes": names}).json() == []
    wrong = {"modules.shared": ["nothing"], "modules.nothing": [], "~modules.nothing": ["a"]}
    told = host.post("/promptglass-test/missing", {"attributes": wrong}).json()
    assert told == ["modules.shared.nothing", "modules.nothing"]


def test_nothing_of_ours_fails_at_the_start(host):
    log = host.log.read_text("utf-8", "replace")
    ours = [line for line in log.splitlines() if "promptglass" in line and "Error" in line]
    assert ours == []


def test_the_tab_and_the_settings_are_there(host):
    labels = _labels(host)
    assert {"promptglass", "Single", "Folder", "Labels", "Wildcards", "Status"} <= {*labels}
    assert "Modes that are ticked at first" in labels


def _labels(host: WebUI) -> list[str]:
    """What is written on the components of the page."""
    parts = host.get("/config").json()["components"]
    return sorted(label for part in parts if (label := part["props"].get("label")))


def test_health_names_the_host_and_its_models(host):
    health = host.get(f"{PRE}/health").json()
    assert health["host"].startswith(("A1111", "Forge", "reForge"))
    assert health["facts"]["device"] == "cpu"
    assert health["modes"]["best"] is None  # nothing stands in its way
    assert str(host.outputs) in health["roots"]


def test_what_serve_answers_is_below_promptglass(host):
    form = {"file": ("a.png", base64.b64decode(image()), "image/png")}
    reply = requests.post(f"{host.url}/promptglass/analyze", files=form, timeout=120)
    assert reply.status_code == 200, reply.text
    assert reply.json()["predictions"]
    assert host.get("/promptglass/api/v1/images").status_code == 200
    assert host.get("/promptglass/openapi.json").json()["servers"] == [{"url": "/promptglass"}]


def test_all_modes_give_what_open_clip_gives_with_the_hosts_weights(host):
    answers = host.post(f"{PRE}/interrogate", {"image": image(), "modes": FIVE_MODES}).json()["answers"]
    found = {answer["mode"]: answer for answer in answers}
    reference = _reference(host.weights)
    from promptglass import open_picture

    cat = open_picture(SAMPLES / "cat.jpg").image
    for mode in FIVE_MODES:
        options = {} if mode == "negative" else {"captions": [found["caption"]["text"]]}
        (expected,) = getattr(reference, mode)([cat], **options)
        assert found[mode]["text"] == expected.prompt, mode
        assert found[mode]["score"] == pytest.approx(expected.score, abs=1e-4), mode


def _reference(weights: Path) -> Any:
    import open_clip
    import torch
    from PIL import Image

    from promptglass import Interrogator, OpenClipEncoder, Vocabulary

    model = open_clip.CLIP(
        embed_dim=48,
        vision_cfg={"image_size": 32, "layers": 2, "width": 64, "patch_size": 8, "head_width": 64},
        text_cfg={"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 3},
        quick_gelu=True,
    )
    model.load_state_dict(torch.load(weights, weights_only=True), strict=False)

    def preprocess(picture: Any) -> Any:
        import numpy as np

        scale = 32 / min(picture.size)
        width, height = (max(32, int(side * scale)) for side in picture.size)
        small = picture.resize((width, height), Image.Resampling.BICUBIC)
        left, top = round((width - 32) / 2), round((height - 32) / 2)
        pixels = np.asarray(small.crop((left, top, left + 32, top + 32)), np.float32) / 255
        means, deviations = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
        normal = (pixels - np.float32(means)) / np.float32(deviations)
        return torch.from_numpy(normal).permute(2, 0, 1)

    encoder = OpenClipEncoder(model.eval(), preprocess, open_clip.get_tokenizer("ViT-L-14"), "twin")
    return Interrogator(encoder, Vocabulary.default(encoder))


def test_captions_are_the_hosts_own(host):
    """Its own route, with one beam, says the same; with the setting that breaks it, ours still works."""
    host.post("/promptglass-test/options", {"options": {"interrogate_clip_num_beams": 1}})
    theirs = host.post("/sdapi/v1/interrogate", {"image": image(), "model": "clip"}).json()["caption"]
    host.post("/promptglass-test/options", {"options": {"interrogate_clip_num_beams": 4}})
    broken = host.post("/sdapi/v1/interrogate", {"image": image(), "model": "clip"}).json()["caption"]
    ours = host.post(f"{PRE}/interrogate", {"image": image(), "modes": ["caption"]}).json()["answers"][0]
    assert broken.endswith("<error>")
    assert ours["text"].startswith("a picture as bright as ")
    assert theirs.startswith(ours["text"])
    host.post("/promptglass-test/options", {"options": {"interrogate_clip_num_beams": 1}})


def test_labels_have_confidences(host):
    asked = {"image": image(), "categories": ["mood"], "labels": "cat = 🐱\ndog", "top": 2}
    found = host.post(f"{PRE}/analyze", asked).json()["categories"]
    assert [len(found["mood"]), len(found["labels"])] == [2, 2]
    assert sum(one["confidence"] for one in found["labels"]) == pytest.approx(1, abs=1e-4)


def test_the_extensions_routes_are_compatible(host):
    assert "ViT-L-14/openai" in host.get("/interrogator/models").json()
    asked = {"image": image(), "clip_model_name": "ViT-L-14/openai", "mode": "fast"}
    assert set(host.post("/interrogator/prompt", asked).json()) == {"prompt"}
    ranks = host.post("/interrogator/analyze", {"image": image()}).json()
    assert {name: len(labels) for name, labels in ranks.items()} == dict.fromkeys(
        ("medium", "artist", "movement", "trending", "flavor"), 5
    )


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ({"image": "no picture"}, 400),
        ({"image": base64.b64encode(b"GIF89a").decode()}, 400),
        ({"image": None}, 422),
        ({}, 422),
        ({"image": "", "modes": ["gone"]}, 400),
    ],
)
def test_bad_input_is_one_line(host, asked, status):
    reply = host.post(f"{PRE}/interrogate", asked)
    assert reply.status_code == status
    (said,) = reply.json().values()
    assert "\n" not in said and "Traceback" not in said


def test_two_kinds_of_interrogation_wait_for_each_other(host):
    """Ours and the host's own, at the same time, on one lock; and the page goes on answering."""
    with ThreadPoolExecutor(6) as pool:
        asked = {"image": image(), "modes": ["best"]}
        ours = [pool.submit(host.post, f"{PRE}/interrogate", asked) for _ in range(3)]
        theirs = [
            pool.submit(host.post, "/sdapi/v1/interrogate", {"image": image(), "model": "clip"})
            for _ in range(2)
        ]
        began = time.monotonic()
        assert host.get("/sdapi/v1/progress?skip_current_image=true").status_code == 200
        waited_s = time.monotonic() - began
    assert len({reply.result().json()["answers"][0]["text"] for reply in ours}) == 1
    captions = {reply.result().json()["caption"] for reply in theirs}
    assert len(captions) == 1 and not captions.pop().endswith("<error>")
    assert waited_s < 10


def test_the_hosts_interrupt_ends_an_interrogation(host):
    replies: list[Any] = []
    asked = {"image": image("rocket.jpg"), "modes": ["best", "negative"], "caption": "x"}

    def ask() -> None:
        while not replies:
            replies.append(host.post(f"{PRE}/interrogate", asked))

    thread = threading.Thread(target=ask)
    thread.start()
    while (now := host.get("/sdapi/v1/progress?skip_current_image=true").json())["state"][
        "job"
    ] != "promptglass":
        assert thread.is_alive(), "it was done before it could be interrupted"
        time.sleep(0.02)
    pressed = time.monotonic()
    host.post("/sdapi/v1/interrupt", {})
    thread.join(60)
    assert replies[0].status_code == 409, replies[0].text
    assert "interrupted" in replies[0].json()["error"]
    assert time.monotonic() - pressed < 20
    assert now["state"]["job_count"] != 0
    state = host.get("/sdapi/v1/progress?skip_current_image=true").json()["state"]
    assert (state["job"], state["job_count"]) == ("", 0)
    assert host.post(f"{PRE}/interrogate", {"image": image(), "modes": ["fast"]}).status_code == 200


def test_a_batch_becomes_wildcards_that_dynamic_prompts_draws_at_once(host):
    folder = host.outputs / "my pictures 🦊"
    copytree(SAMPLES, folder, ignore=lambda _, names: [n for n in names if n.endswith(".md")])
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    drawn = host.post("/promptglass-test/draw", {"template": "__promptglass/fast__", "count": 1}).json()
    assert drawn == ["__promptglass/fast__"] or "fast" not in str(drawn[0])
    started = host.post(f"{PRE}/batches", {"folder": str(folder), "modes": ["embedded", "fast", "palette"]})
    assert started.status_code == 202
    job = started.json()
    while job["state"] == "running":
        time.sleep(0.2)
        job = host.get(f"{PRE}/batches/{job['id']}").json()
    assert (job["state"], job["counts"]["done"], job["counts"]["failed"]) == ("done", 5, 1)
    assert len([*folder.glob("*.promptglass.json")]) == 5

    again = host.post(
        f"{PRE}/batches", {"folder": str(folder), "modes": ["embedded", "fast", "palette"]}
    ).json()
    while again["state"] == "running":
        time.sleep(0.1)
        again = host.get(f"{PRE}/batches/{again['id']}").json()
    assert again["counts"]["unchanged"] == 5

    written = host.post(f"{PRE}/wildcards", {"folder": str(folder)}).json()
    try:
        assert "__promptglass/fast__" in {f"__{file['name']}__" for file in written["files"]}
        assert not any("Refresh" in note for note in written["notes"])
        drawn = host.post("/promptglass-test/draw", {"template": "__promptglass/fast__", "count": 8}).json()
        lines = {
            line
            for file in written["files"]
            if file["name"] == "promptglass/fast"
            for line in Path(file["path"]).read_text("utf-8").splitlines()
        }
        assert set(drawn) <= lines and len(set(drawn)) > 1
    finally:
        for file in written["files"]:
            Path(file["path"]).unlink()


def test_reloading_the_page_keeps_tab_routes_and_jobs(host):
    started = host.post(f"{PRE}/batches", {"folder": str(host.outputs), "modes": ["palette"]}).json()
    before = _labels(host)
    starts = host.log.read_text("utf-8", "replace").count("Startup time:")
    host.post("/promptglass-test/reload", {})
    deadline = time.monotonic() + 60
    while host.log.read_text("utf-8", "replace").count("Startup time:") == starts:
        assert time.monotonic() < deadline, "the page does not come back"
        time.sleep(0.2)
    assert host.get(f"{PRE}/batches/{started['id']}").json()["state"] == "done"
    added = Counter(_labels(host)) - Counter(before)  # the host's own Lora page is there more than once then
    assert not {"promptglass", "Single", "Status", "Modes", "Folder for wildcards"} & {*added}
    asked = {"image": image(), "modes": ["fast"]}
    assert host.post(f"{PRE}/interrogate", asked).status_code == 200


def test_folders_that_are_not_allowed_are_not_read(host, tmp_path):
    reply = host.post(f"{PRE}/batches", {"folder": str(tmp_path), "modes": ["palette"]})
    assert (reply.status_code, [*tmp_path.iterdir()]) == (400, [])


@pytest.mark.parametrize("flag", ["--api-auth", "--gradio-auth"])
def test_the_hosts_credentials_guard_our_routes(tmp_path, flag):
    with running_webui(tmp_path / "guarded", flag, "ann:se cret,bob:x") as host:
        routes = [f"{PRE}/health", f"{PRE}/batches", "/interrogator/models", "/promptglass/health"]
        assert [host.get(route).status_code for route in routes] == [401] * 4
        assert host.post(f"{PRE}/interrogate", {"image": image()}).status_code == 401
        for auth, status in {
            ("ann", "wrong"): 401,
            ("", ""): 401,
            ("ann", "se cret"): 200,
            ("bob", "x"): 200,
        }.items():
            host.auth = auth
            assert host.get(f"{PRE}/health").status_code == status, auth
        asked = {"image": image(), "modes": ["palette"]}
        assert host.post(f"{PRE}/interrogate", asked).status_code == 200
        host.auth = None
        other_site = {"Sec-Fetch-Site": "cross-site"}
        assert host.get(f"{PRE}/health", headers=other_site).status_code in (401, 403)


def test_a_host_without_interrogation_models_says_so(tmp_path):
    """As Forge Neo and Forge Classic are."""
    with running_webui(tmp_path / "bare", PROMPTGLASS_TEST_BARE="1") as host:
        assert "no interrogation models" in host.get(f"{PRE}/health").json()["note"]
        asked = {"image": image(), "modes": ["fast", "palette"]}
        found = host.post(f"{PRE}/interrogate", asked).json()
        assert [answer["mode"] for answer in found["answers"]] == ["palette"]
        assert "models get ViT-L-14/openai" in found["left_out"][0]["error"]
        reply = host.post(f"{PRE}/interrogate", {**asked, "modes": ["fast"]})
        assert (reply.status_code, [*reply.json()]) == (409, ["error"])
        assert "Single" in _labels(host)
