"""Weights: what is known, where it lies, and how it gets here when hub, line or process fail.

Real huggingface_hub code runs in subprocesses (it reads its environment once, at import) against the hub in
fakes/hub.py. Nothing here reaches a real network.
"""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fakes.hub import FakeHub

from promptglass import hub as hub_module
from promptglass import weights
from promptglass.errors import WeightsMissing

ROOT = Path(__file__).parent.parent
TAGGER = "SmilingWolf/wd-vit-tagger-v3"
NOISE = random.Random(0)
MODEL = NOISE.randbytes(3_000_000)
REPOS = {
    TAGGER: {
        "model.onnx": MODEL,
        "selected_tags.csv": b"tag_id,name,category,count\n",
        "model.safetensors": b"not asked for",
        "README.md": b"not asked for",
    },
    "openai/clip-vit-base-patch16": {
        "pytorch_model.bin": NOISE.randbytes(20_000),
        "tf_model.h5": b"not asked for",
        "config.json": b"{}",
        "preprocessor_config.json": b"{ }",
        "tokenizer.json": b"{  }",
        "vocab.json": b"{   }",
        "merges.txt": b"a b",
        "onnx/config.json": b"not asked for",
        "onnx/spiece.model": b"not asked for",
    },
    "Salesforce/blip2-opt-2.7b": {
        "model-00001-of-00002.safetensors": NOISE.randbytes(20_000),
        "model-00002-of-00002.safetensors": NOISE.randbytes(20_001),
        "model.safetensors.index.json": b"[1]",
        "pytorch_model-00001-of-00002.bin": b"not asked for",
        "pytorch_model-00002-of-00002.bin": b"not asked for",
        "pytorch_model.bin.index.json": b"not asked for",
        "config.json": b"[2]",
        "preprocessor_config.json": b"[3]",
        "tokenizer.json": b"[4]",
    },
}


@pytest.fixture
def hub():
    with FakeHub({repo: dict(files) for repo, files in REPOS.items()}) as server:
        yield server


@pytest.fixture
def python(hub, tmp_path):
    """Starts a Python with promptglass at hand, the fake hub, and homes and caches under tmp_path."""

    def start(code: str, **environment: str) -> subprocess.Popen:
        inherited = {key: os.environ[key] for key in ("PATH", "SYSTEMROOT") if key in os.environ}
        return subprocess.Popen(
            [sys.executable, "-c", f"from promptglass import weights\nfrom pathlib import Path\n{code}"],
            cwd=tmp_path,
            env={
                **inherited,
                "PYTHONPATH": str(ROOT),
                "HOME": str(tmp_path),
                "HF_HOME": str(tmp_path / "hf"),
                "HF_ENDPOINT": hub.url,
                "HF_HUB_DISABLE_TELEMETRY": "1",
                "HF_HUB_DOWNLOAD_TIMEOUT": "2",
                "NO_PROXY": "127.0.0.1,localhost",
                **environment,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.fixture
def run(python):
    def run(code: str, **environment: str) -> tuple[str, str]:
        process = python(code, **environment)
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        return out.strip(), err

    return run


def get(name: str) -> str:
    return f"print(weights.get({name!r}))"


def failure(name: str) -> str:
    return f"""
try:
    weights.get({name!r}, progress=False)
except weights.WeightsMissing as error:
    print(error)
"""


def where(name: str) -> str:
    return f"print(weights.local_path({name!r}))"


def final_files(tmp_path: Path) -> list[Path]:
    """Everything in the cache that somebody could take for a whole file."""
    names = (path for path in (tmp_path / "hf").rglob("*") if path.is_file())
    return [path for path in names if path.suffix not in (".incomplete", ".lock")]


# What is known


def test_every_known_model_has_its_own_name_and_is_found_by_it_and_by_its_repository():
    assert len({known.name for known in weights.KNOWN}) == len(weights.KNOWN)
    for known in weights.KNOWN:
        assert weights.find(known.name) is known
        assert weights.find(known.repo) is known
        assert known.kind in ("clip", "caption", "tags") and known.size_bytes > 10**8 and known.licence


@pytest.mark.parametrize(
    "alias, name",
    [
        ("ViT-L-14", "ViT-L-14/openai"),
        ("vit-l/14", "ViT-L-14/openai"),
        ("BLIP_large", "blip-large"),
        ("wd-vit-tagger-v3", TAGGER),
        ("clip-vit-base-patch32", "openai/clip-vit-base-patch32"),
    ],
)
def test_short_forms_are_understood(alias, name):
    assert weights.find(alias).name == name


def test_what_could_mean_several_models_means_none(monkeypatch):
    first, second = weights.find("ViT-L-14/openai"), weights.find("ViT-B-32/openai")
    twin = weights.Weights("ViT-L-14/other", "clip", second.repo, second.files, 1, "MIT")
    monkeypatch.setattr(weights, "KNOWN", (first, twin))
    assert weights.find("ViT-L-14") is None
    assert weights.find("ViT-L-14/other") is twin


def test_known_repositories_are_those_that_open_clip_itself_asks():
    from open_clip.pretrained import get_pretrained_cfg

    checked = 0
    for known in weights.KNOWN:
        hub_name = get_pretrained_cfg(*known.name.split("/")).get("hf_hub") if "/" in known.name else None
        if hub_name:
            assert hub_name == f"{known.repo}/"
            checked += 1
    assert checked >= 2


def test_any_model_of_open_clip_can_be_named():
    found = weights.resolve("ViT-B-32/laion2b_s34b_b79k")
    assert (found.repo, found.kind) == ("laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "clip")
    assert weights.resolve("ORG/a-model").repo == "ORG/a-model"


def test_a_model_that_open_clip_knows_only_by_url_says_where_to_download_it(monkeypatch):
    import open_clip.pretrained

    url = "https://example.invalid/model.pt"
    monkeypatch.setattr(open_clip.pretrained, "get_pretrained_cfg", lambda *_: {"url": url, "hf_hub": ""})
    with pytest.raises(WeightsMissing, match=f"{url}.*`--model RN50/PATH`"):
        weights.resolve("RN50/yfcc15m")


@pytest.mark.parametrize(
    "typed, meant",
    [
        ("blip-larg", "blip-large"),
        ("ViT-L-14/opnai", "ViT-L-14/openai"),
        ("vit-bigg", "ViT-bigG-14/laion2b_s39b_b160k"),
    ],
)
def test_an_unknown_name_is_answered_with_its_neighbours(typed, meant):
    assert weights.local_path(typed) is None
    with pytest.raises(WeightsMissing, match="Did you mean") as caught:
        weights.get(typed)
    assert meant in str(caught.value)


@pytest.mark.parametrize(
    "typed", ["", "a cat, " * 100, "x\0y", "../../no-such", "models/gone.pt", "zzzzqqqq"]
)
def test_a_senseless_name_is_one_line_not_a_traceback(typed):
    assert weights.local_path(typed) is None
    with pytest.raises(WeightsMissing, match="no model and no file"):
        weights.get(typed)


def test_importing_it_costs_nothing_heavy(run):
    heavy = "('torch', 'transformers', 'huggingface_hub', 'open_clip', 'requests')"
    assert run(f"import sys; print([name for name in {heavy} if name in sys.modules])")[0] == "[]"


# Getting


def test_get_fetches_what_it_announced_and_nothing_else(run, hub, tmp_path):
    out, err = run(get(TAGGER))
    folder = Path(out)
    assert (folder / "model.onnx").read_bytes() == MODEL
    assert hub.fetched() == {"model.onnx", "selected_tags.csv"}
    assert err.count("fetching") == 1
    for part in (TAGGER, "3.0 MB in 2 files", hub.url, str(tmp_path / "hf")):
        assert part in err


def test_what_is_here_is_found_offline_and_not_asked_for_again(run, hub):
    folder, _ = run(get(TAGGER))
    hub.requests.clear()
    assert run(where(TAGGER), HF_HUB_OFFLINE="1")[0] == folder
    assert run(get(TAGGER), HF_HUB_OFFLINE="1") == (folder, "")
    assert run(get(TAGGER)) == (folder, "")
    assert hub.requests == []


def test_other_programs_find_it_in_the_hub_cache(run):
    folder, _ = run(get(TAGGER))
    code = "from huggingface_hub import hf_hub_download, try_to_load_from_cache, scan_cache_dir"
    download = f"hf_hub_download({TAGGER!r}, 'model.onnx', local_files_only=True)"
    seen, _ = run(f"{code}\nprint({download}, try_to_load_from_cache({TAGGER!r}, 'model.onnx'))")
    assert seen == f"{folder}/model.onnx {folder}/model.onnx"
    assert run(f"{code}\nprint(len(scan_cache_dir().repos), scan_cache_dir().warnings)")[0] == "1 []"


def test_without_the_right_to_make_links_the_files_themselves_are_put_in_place(run):
    code = "def refuse(*_): raise OSError('no privilege')\nPath.symlink_to = refuse"
    folder = Path(run(f"{code}\n{get(TAGGER)}")[0])
    assert (folder / "model.onnx").read_bytes() == MODEL and not (folder / "model.onnx").is_symlink()
    assert run(where(TAGGER))[0] == str(folder)
    assert not list((folder.parent.parent / "blobs").iterdir())


def test_files_that_huggingface_hub_fetched_are_not_fetched_again(run, hub):
    code = "from huggingface_hub import hf_hub_download"
    run(f"{code}\nhf_hub_download({TAGGER!r}, 'model.onnx')", HF_HUB_DISABLE_XET="1")
    hub.requests.clear()
    run(get(TAGGER))
    assert hub.fetched() == {"selected_tags.csv"}


def test_bin_weights_are_taken_where_there_are_no_safetensors(run, hub):
    run(get("openai/clip-vit-base-patch16"))
    files = REPOS["openai/clip-vit-base-patch16"]
    assert hub.fetched() == {name for name, content in files.items() if content != b"not asked for"}
    assert not any("onnx/" in request.path for request in hub.requests)


def test_all_shards_come_and_a_missing_one_is_noticed(run, hub):
    folder = Path(run(get("blip2-2.7b"))[0])
    assert hub.fetched() == {
        name for name, content in REPOS["Salesforce/blip2-opt-2.7b"].items() if content != b"not asked for"
    }
    assert run(where("blip2-2.7b"))[0] == str(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()
    assert run(where("blip2-2.7b"))[0] == "None"


# Breaking


def test_a_connection_that_is_cut_is_taken_up_in_the_same_run(run, hub):
    hub.cut_after = 1_100_000
    folder = Path(run(get(TAGGER))[0])
    assert (folder / "model.onnx").read_bytes() == MODEL
    assert len(hub.ranges()) == 2
    assert hub.sent_bytes() < len(MODEL) + 200_000  # what was on its way is asked for again


def test_a_failed_download_resumes_in_the_next_run(run, python, hub, tmp_path):
    hub.stall_after = 1_500_000
    process = python(get(TAGGER))
    partial = wait_for_partial(tmp_path)
    hub.status_of_large = 503
    hub.released.set()  # cut what is under way; what follows is refused
    _, err = process.communicate(timeout=60)
    assert process.returncode != 0 and "WeightsMissing: no weights for" in err.splitlines()[-1]
    kept = partial.stat().st_size
    assert kept >= 1_000_000
    hub.behave()
    folder, announced = run(get(TAGGER))
    assert (Path(folder) / "model.onnx").read_bytes() == MODEL
    assert hub.ranges() == [f"bytes={kept}-"]
    assert hub.sent_bytes() == len(MODEL) - kept
    assert "already here" in announced


@pytest.mark.parametrize("how", ["SIGKILL", "SIGINT"])
def test_a_killed_download_leaves_nothing_that_looks_whole_and_resumes(run, python, hub, tmp_path, how):
    hub.stall_after = 1_500_000
    process = python(get(TAGGER), HF_HUB_DOWNLOAD_TIMEOUT="30")
    partial = wait_for_partial(tmp_path)
    process.send_signal(getattr(signal, how))
    process.communicate(timeout=60)
    kept = partial.stat().st_size
    assert not [path for path in final_files(tmp_path) if path.name == "model.onnx"]
    assert all(path.stat().st_size < 100 for path in final_files(tmp_path))
    assert run(where(TAGGER))[0] == "None"
    hub.behave()
    hub.released.set()
    folder = Path(run(get(TAGGER))[0])
    assert (folder / "model.onnx").read_bytes() == MODEL
    assert hub.sent_bytes() == len(MODEL) - kept
    assert not list((tmp_path / "hf").rglob("*.incomplete"))


def test_a_hub_without_ranges_starts_over_instead_of_appending(run, hub, tmp_path):
    partial = partial_of_model(tmp_path)
    partial.write_bytes(b"x" * 1000)
    hub.has_ranges = False
    folder = Path(run(get(TAGGER))[0])
    assert (folder / "model.onnx").read_bytes() == MODEL


def test_damaged_bytes_are_thrown_away(run, hub, tmp_path):
    hub.damaged = True
    message, _ = run(failure(TAGGER))
    assert "arrived damaged" in message
    assert run(where(TAGGER))[0] == "None"
    assert not list((tmp_path / "hf").rglob("*.incomplete"))
    hub.behave()
    assert (Path(run(get(TAGGER))[0]) / "model.onnx").read_bytes() == MODEL


def test_two_processes_share_one_download(python, hub):
    processes = [python(get(TAGGER)) for _ in range(2)]
    folders = {process.communicate(timeout=60)[0] for process in processes}
    assert [process.returncode for process in processes] == [0, 0]
    assert len(folders) == 1
    assert hub.sent_bytes() == len(MODEL)


def test_a_full_disk_is_refused_before_it_starts(run, hub):
    patch = "import shutil; shutil.disk_usage = lambda path: type('', (), {'free': 3_000_000})"
    message, _ = run(f"{patch}\n{failure(TAGGER)}")
    assert message.startswith(f"no room for {TAGGER}: 3.0 MB to fetch, 3.0 MB free at ")
    assert "\n" not in message
    assert hub.fetched() == set()


# Not reaching the hub


def test_the_offline_message_names_model_place_and_three_ways_out(run, hub, tmp_path):
    message, _ = run(failure("ViT-L-14"), HF_HUB_OFFLINE="1")
    assert "\n" not in message
    for part in (
        "no weights for ViT-L-14/openai: HF_HUB_OFFLINE is set.",
        f"Looked in {tmp_path / 'hf' / 'hub'}; ",
        f"its source is {hub.url}/timm/vit_large_patch14_clip_224.openai.",
        "`promptglass models get ViT-L-14/openai`",
        "HF_ENDPOINT",
        "`--model PATH`",
        f"copy open_clip_model.safetensors to {tmp_path}/.cache/promptglass/models/timm--vit_large",
        "Use another: the modes embedded, palette and tags",
    ):
        assert part in message
    assert hub.requests == []


def test_a_model_of_the_same_kind_that_is_here_is_offered(run):
    run(get(TAGGER))
    message, _ = run(failure("wd-swinv2-tagger-v3"), HF_HUB_OFFLINE="1")
    assert f"Use another: {TAGGER} is here." in message


@pytest.mark.parametrize(
    "environment, name, cause",
    [
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, TAGGER, "cannot be reached"),
        ({"HF_ENDPOINT": "http://no-such-host.invalid"}, TAGGER, "cannot be reached"),
        ({}, "ORG/not-there", "the hub answered 401"),
        ({}, "blip-large", "the hub answered 401"),
    ],
)
def test_a_hub_that_fails_is_one_line(run, environment, name, cause):
    message, err = run(failure(name), **environment)
    assert message.startswith(f"no weights for {name}: ") and cause in message
    assert "Traceback" not in err and len(message.splitlines()) == 1


@pytest.mark.parametrize("status", [404, 503])
def test_an_error_page_is_one_line(run, hub, status):
    hub.status = status
    message, _ = run(failure(TAGGER))
    assert f"the hub answered {status}" in message and len(message.splitlines()) == 1


def test_a_hub_that_falls_silent_is_given_up(run, hub):
    hub.stall_after = 0
    message, _ = run(failure(TAGGER), HF_HUB_DOWNLOAD_TIMEOUT="1")
    assert "no weights for" in message and ("in time" in message or "connection broke" in message)


def test_a_repository_without_the_files_says_which(run, hub):
    del hub.repos[TAGGER]["selected_tags.csv"]
    assert "it holds no selected_tags.csv" in run(failure(TAGGER))[0]
    assert hub.fetched() == set()


def test_a_disk_that_fills_up_is_called_by_its_name():
    wrapped = RuntimeError("something")
    wrapped.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    assert hub_module.reason(wrapped) == "the disk is full"


# Local files


def test_a_path_of_the_user_is_taken_as_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "mine.pt"
    file.touch()
    assert weights.local_path(str(file)) == weights.get(str(file)) == file
    assert weights.local_path(str(tmp_path)) == tmp_path
    assert weights.local_path(f"ViT-L-14/{file}") == file
    assert weights.local_path("ViT-L-14/mine.pt") == Path("mine.pt")


def test_a_file_in_the_current_folder_does_not_hide_a_known_model(run, tmp_path):
    (tmp_path / "openai").touch()
    (tmp_path / "blip-large").mkdir()
    assert run(f"{where('ViT-L-14/openai')}; {where('blip-large')}")[0].split() == ["None", "None"]


def test_files_copied_by_hand_are_found_when_all_are_there(run, tmp_path):
    folder = tmp_path / "models" / "SmilingWolf--wd-vit-tagger-v3"
    folder.mkdir(parents=True)
    place = {"PROMPTGLASS_MODELS": str(tmp_path / "models"), "HF_HUB_OFFLINE": "1"}
    (folder / "model.onnx").touch()
    assert run(where(TAGGER), **place)[0] == "None"
    (folder / "selected_tags.csv").touch()
    assert run(get(TAGGER), **place)[0] == str(folder)


def test_an_older_snapshot_serves_when_the_current_one_is_not_whole(run, tmp_path):
    old = Path(run(get(TAGGER))[0])
    new = old.with_name("f" * 40)
    new.mkdir()
    (new / "selected_tags.csv").touch()
    (old.parent.parent / "refs" / "main").write_text(new.name)
    assert run(where(TAGGER))[0] == str(old)


def test_listing_shows_what_is_here(run):
    run(get(TAGGER))
    out, _ = run("print([known.name for known, folder in weights.listing() if folder])")
    assert out == str([TAGGER])
    assert run("print(len(weights.listing()) == len(weights.KNOWN + weights.PROJECTIONS))")[0] == "True"


def partial_of_model(tmp_path: Path) -> Path:
    import hashlib

    storage = tmp_path / "hf" / "hub" / f"models--{TAGGER.replace('/', '--')}"
    (storage / "blobs").mkdir(parents=True)
    return storage / "blobs" / f"{hashlib.sha256(MODEL).hexdigest()}.promptglass.incomplete"


def wait_for_partial(tmp_path: Path, at_least: int = 1_000_000) -> Path:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        for path in (tmp_path / "hf").rglob("*.incomplete"):
            if path.stat().st_size >= at_least:
                return path
        time.sleep(0.05)
    raise AssertionError("the download never started")
