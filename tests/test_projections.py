"""Text projections: found in files of every layout, or fetched alone out of a model on the hub.

Fetching runs in subprocesses, as in test_weights.py, against a hub whose models are 40 MB of tensors.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes.hub import FakeHub, commit_of
from safetensors import safe_open
from safetensors.torch import load_file, save, save_file

from promptglass import weights
from promptglass.clip import projections
from promptglass.clip.projections import PUBLISHED, find_projection, how_to_get, projection_in
from promptglass.tensor_file import MAX_HEADER_BYTES, TensorFile, reader

ROOT = Path(__file__).parent.parent
L, H, BIGG = "projection:ViT-L-14", "projection:ViT-H-14", "projection:ViT-bigG-14"
REPOS = {name: weights.resolve(name).repo for name in (L, H, BIGG)}


def trained(width: int, seed: int = 0) -> torch.Tensor:
    """A projection as a Linear keeps it, [width, width]."""
    return torch.randn(width, width, generator=torch.Generator().manual_seed(seed)) * width**-0.5


def header(content: bytes) -> tuple[dict[str, Any], bytes]:
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def with_header(described: Any, body: bytes) -> bytes:
    text = described if isinstance(described, bytes) else json.dumps(described).encode()
    return len(text).to_bytes(8, "little") + text + body


# -- in files that are here ----------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def own_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PROMPTGLASS_MODELS", str(tmp_path / "own"))
    projections._read.cache_clear()
    return tmp_path / "own"


def file_of(path: Path, weight: torch.Tensor, key: str = "text_projection.weight") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: weight.contiguous(), "other": torch.zeros(3)}, path)
    return path


def fetched_file(own_models: Path, name: str, weight: torch.Tensor) -> Path:
    return file_of(own_models / REPOS[name].replace("/", "--") / "text_projection.safetensors", weight)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    "key",
    [
        "text_projection.weight",
        "text_projection",
        "text_model.text_projection",
        "text.text_projection",
        "clip_l.transformer.text_projection.weight",
        "cond_stage_model.model.text_projection",
        "conditioner.embedders.0.model.text_projection",
        "conditioner.embedders.1.model.text_projection.weight",
    ],
)
def test_every_layout_gives_the_orientation_of_a_linear(tmp_path: Path, key: str, dtype: torch.dtype) -> None:
    weight = trained(40).to(dtype)
    path = file_of(tmp_path / "a.safetensors", weight if key.endswith(".weight") else weight.T, key)
    found = find_projection(40, [path])
    assert found is not None and found.path == path
    assert found.weight.dtype == torch.float32 and torch.equal(found.weight, weight.float())


def test_the_layers_of_transformers_and_of_open_clip_project_alike(tmp_path: Path) -> None:
    """The reference is what the two libraries themselves compute with what they save."""
    from conftest import tiny_open_clip
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        hidden_size=48, projection_dim=48, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2
    )
    theirs = CLIPTextModelWithProjection(config)
    ours = tiny_open_clip(width=48, layers=1)
    save_file({k: v.contiguous() for k, v in theirs.state_dict().items()}, tmp_path / "linear.safetensors")
    save_file({k: v.contiguous() for k, v in ours.state_dict().items()}, tmp_path / "bare.safetensors")
    pooled = torch.randn(5, 48)
    for name, expected in (
        ("linear", theirs.text_projection(pooled)),
        ("bare", pooled @ ours.text_projection),
    ):
        found = find_projection(48, [tmp_path / f"{name}.safetensors"])
        assert found is not None
        assert (pooled @ found.weight.T - expected).abs().max() < 1e-5


def test_a_file_with_two_towers_gives_each_its_own(tmp_path: Path) -> None:
    small, large = trained(32), trained(40)
    keys = ("clip_l.transformer.text_projection.weight", "clip_g.transformer.text_projection.weight")
    save_file(dict(zip(keys, (small, large), strict=True)), tmp_path / "two.safetensors")
    for weight in (small, large):
        found = find_projection(len(weight), [tmp_path])
        assert found is not None and torch.equal(found.weight, weight)
    assert find_projection(768, [tmp_path]) is None


def test_files_with_none_or_with_another_width_give_none(tmp_path: Path) -> None:
    file_of(tmp_path / "t5.safetensors", trained(40), "shared.weight")
    file_of(tmp_path / "vision.safetensors", trained(40), "visual_projection.weight")
    file_of(tmp_path / "narrow.safetensors", trained(32))
    file_of(tmp_path / "oblong.safetensors", torch.randn(40, 32))
    (tmp_path / "model.bin").write_bytes(b"no safetensors file")
    assert find_projection(40, [tmp_path, tmp_path / "gone.safetensors", tmp_path / "no folder"]) is None


@pytest.mark.parametrize(
    "weight, fault",
    [
        (torch.eye(40), "it changes nothing"),
        (torch.zeros(40, 40), "empty rows"),
        (torch.full((40, 40), torch.nan), "it holds no numbers"),
    ],
)
def test_what_was_never_trained_is_passed_over(
    tmp_path: Path, caplog, weight: torch.Tensor, fault: str
) -> None:
    file_of(tmp_path / "a.safetensors", weight)
    good = file_of(tmp_path / "b.safetensors", trained(40))
    found = find_projection(40, [tmp_path])
    assert found is not None and found.path == good
    (warning,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert "a.safetensors" in warning and fault in warning


def damaged_files() -> dict[str, bytes]:
    content = save({"text_projection.weight": trained(40)})
    described, body = header(content)
    place = described["text_projection.weight"]

    def with_place(**changes: Any) -> bytes:
        return with_header({"text_projection.weight": {**place, **changes}}, body)

    return {
        "empty": b"",
        "five bytes": content[:5],
        "half a header": content[:40],
        "half a tensor": content[:-100],
        "a header as long as the disk": (2**62).to_bytes(8, "little") + content[8:],
        "a header above the limit": MAX_HEADER_BYTES.to_bytes(8, "little") + content[8:],
        "no header": (0).to_bytes(8, "little") + content[8:],
        "no JSON": with_header(b"{" * 50, body),
        "JSON without an end": with_header(b"[" * 200_000, body),
        "a list": with_header([1, 2], body),
        "a number": with_header({"text_projection.weight": 3}, body),
        "no place": with_place(data_offsets=None),
        "a place before the start": with_place(data_offsets=[-8, 6392]),
        "a place behind the end": with_place(data_offsets=[6400, 12800]),
        "too short a place": with_place(data_offsets=[0, 100]),
        "backwards": with_place(data_offsets=[6400, 0]),
        "a place in words": with_place(data_offsets=["0", "6400"]),
        "another format": with_place(dtype="F8_E4M3"),
        "an unheard-of format": with_place(dtype=[]),
        "a shape in words": with_place(shape="40"),
    }


@pytest.mark.parametrize("name", damaged_files())
def test_a_damaged_file_is_passed_over_with_one_line(tmp_path: Path, caplog, name: str) -> None:
    (tmp_path / "a.safetensors").write_bytes(damaged_files()[name])
    good = file_of(tmp_path / "b.safetensors", trained(40))
    for _ in range(2):
        found = find_projection(40, [tmp_path])
        assert found is not None and found.path == good
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1 and "a.safetensors is passed over: " in warnings[0] and "\n" not in warnings[0]


def test_of_a_large_file_only_header_and_tensor_are_read(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"large": torch.zeros(2_000_000), "text_projection.weight": trained(40)}, path)
    counts: list[int] = []

    def counting(place: Path) -> Any:
        read = reader(place)
        return lambda start, count: counts.append(count) or read(start, count)

    monkeypatch.setattr(projections, "reader", counting)
    for _ in range(3):
        assert find_projection(40, [path]) is not None
    assert counts[0] == 8 and counts[2:] == [40 * 40 * 4] and sum(counts) < 10_000


def test_a_file_that_was_replaced_is_read_again(tmp_path: Path) -> None:
    path = file_of(tmp_path / "a.safetensors", torch.eye(40))
    assert find_projection(40, [path]) is None
    file_of(path, trained(40))
    os.utime(path, ns=(1, 1))
    assert find_projection(40, [path]) is not None
    path.unlink()
    assert find_projection(40, [path]) is None


def test_ours_comes_first_then_a_file_by_its_name_then_any(tmp_path: Path, own_models: Path, caplog) -> None:
    caplog.set_level(logging.INFO)
    folder = tmp_path / "clip_vision"
    any_file = file_of(folder / "a.safetensors", trained(768, 1))
    found = find_projection(768, [folder])
    assert found is not None and (found.path, found.is_named) == (any_file, False)
    assert f"taken from {any_file}" in caplog.text
    caplog.clear()
    named = file_of(folder / "clip-vit-large-patch14.safetensors", trained(768, 2))
    found = find_projection(768, [folder])
    assert found is not None and (found.path, found.is_named) == (named, True)
    ours = fetched_file(own_models, L, trained(768, 3))
    found = find_projection(768, [folder])
    assert found is not None and (found.path, found.is_named) == (ours, True)
    assert caplog.text == ""
    assert (
        projection_in(any_file, 768).path == any_file
    )  # what a user chose is that file, whatever else is here
    ours.write_bytes(b"damaged")
    assert find_projection(768, [folder]).path == named


@pytest.mark.parametrize(
    "file, width, is_named",
    [
        ("clip-vit-large-patch14.safetensors", 768, True),
        ("openai_clip-vit-large-patch14_fp16.safetensors", 768, True),
        ("ViT-L-14.safetensors", 768, True),
        ("clip-vit-large-patch14/model.safetensors", 768, True),
        ("CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors", 1024, True),
        ("CLIP-ViT-bigG-14-laion2B-39B-b160k.safetensors", 1280, True),
        ("clip-vit-large-patch14-336.safetensors", 768, False),
        ("ViT-L-14-TEXT-detail-improved-hiT-GmP-TE-only-HF.safetensors", 768, False),
        ("clip_l.safetensors", 768, False),
        ("CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors", 768, False),
        ("clip-vit-large-patch14.safetensors", 1024, False),
    ],
)
def test_names_that_vouch_for_a_file(tmp_path: Path, file: str, width: int, is_named: bool) -> None:
    found = projection_in(file_of(tmp_path / file, trained(width)), width)
    assert found is not None and found.is_named is is_named


def test_how_to_get_names_the_command_and_the_file() -> None:
    said = how_to_get("clip_l")
    assert said.startswith("Get the text projection of clip_l (2.4 MB): `")
    assert said.endswith(
        f"promptglass models get {L}`, or put clip-vit-large-patch14.safetensors "
        "(the whole of openai/clip-vit-large-patch14) into ComfyUI's models/clip_vision."
    )
    assert H in how_to_get("clip_h") and BIGG in how_to_get("clip_g")


def test_every_tower_has_a_published_projection_of_its_width() -> None:
    from promptglass.clip.graph_encoder import TOWERS

    assert PUBLISHED.keys() == {*TOWERS}
    for width, name in PUBLISHED.values():
        assert weights.resolve(name).kind == "projection"
        assert weights.resolve(name).size_bytes == width * width * 4


# -- from the hub --------------------------------------------------------------------------------------------


def model_with(key: str, weight: torch.Tensor, filler: int = 40_000_000) -> bytes:
    """A file of a model, most of which is something else, before and behind the projection."""
    halves = {name: torch.zeros(filler // 4) for name in ("a.weight", "vision.weight")}
    return save({**halves, key: weight.contiguous()}, metadata={"format": "pt"})


@pytest.fixture(scope="module")
def models() -> dict[str, bytes]:
    weight = trained(768).half()
    return {
        "Linear": model_with("text_projection.weight", weight),
        "bare": model_with("text_projection", weight.T),
        "none": model_with("visual_projection.weight", weight),
        "identity": model_with("text_projection.weight", torch.eye(768).half()),
    }


@pytest.fixture
def hub(models: dict[str, bytes]) -> Iterator[FakeHub]:
    files = {
        "model.safetensors": models["Linear"],
        "pytorch_model.bin": b"not asked for",
        "config.json": b"{}",
    }
    with FakeHub({REPOS[L]: files}) as server:
        yield server


@pytest.fixture
def start(hub: FakeHub, tmp_path: Path) -> Any:
    def start(code: str, **environment: str) -> subprocess.Popen[str]:
        inherited = {key: os.environ[key] for key in ("PATH", "SYSTEMROOT") if key in os.environ}
        place = {
            "HOME": str(tmp_path),
            "HF_HOME": str(tmp_path / "hf"),
            "PROMPTGLASS_MODELS": str(tmp_path / "own"),
        }
        return subprocess.Popen(
            [sys.executable, "-c", f"from promptglass import weights\n{code}"],
            cwd=tmp_path,
            env={
                **inherited,
                **place,
                "PYTHONPATH": str(ROOT),
                "HF_ENDPOINT": hub.url,
                "HF_HUB_DISABLE_TELEMETRY": "1",
                "HF_HUB_DOWNLOAD_TIMEOUT": "2",
                "NO_PROXY": "127.0.0.1,localhost",
                "OMP_NUM_THREADS": "1",
                **environment,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.fixture
def run(start: Any) -> Any:
    def run(code: str, **environment: str) -> tuple[str, str]:
        process = start(code, **environment)
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        return out.strip(), err

    return run


def get(name: str = L) -> str:
    return f"print(weights.get({name!r}))"


def failure(name: str = L) -> str:
    return f"""
try:
    weights.get({name!r})
except weights.WeightsMissing as error:
    print(error)
"""


def nothing_is_left(tmp_path: Path) -> bool:
    return not [path for path in (tmp_path / "own").rglob("*") if path.is_file()]


def test_the_projection_alone_is_fetched_and_found(run, hub, tmp_path, own_models, models) -> None:
    out, err = run(get())
    folder = own_models / "openai--clip-vit-large-patch14"
    assert out == str(folder)
    assert [path.name for path in folder.iterdir()] == ["text_projection.safetensors"]
    assert len(models["Linear"]) > 80_000_000
    assert 768 * 768 * 2 < hub.sent_bytes() < 768 * 768 * 2 + 2_000
    assert hub.fetched() == {"model.safetensors"}
    found = find_projection(768, [])
    assert found is not None and found.is_named and torch.equal(found.weight, trained(768).half().float())
    assert err.count("fetching") == 1
    for part in (L, "1.2 MB of model.safetensors", f"{hub.url}/{REPOS[L]}", str(folder)):
        assert part in err


def test_the_file_says_where_it_is_from(run, own_models) -> None:
    folder = Path(run(get())[0])
    with safe_open(folder / "text_projection.safetensors", "pt") as file:
        assert [*file.keys()] == ["text_projection.weight"]
        assert file.metadata() == {
            "format": "pt",
            "source": REPOS[L],
            "commit": commit_of(REPOS[L]),
            "file": "model.safetensors",
            "tensor": "text_projection.weight",
        }


def test_parts_are_of_the_commit_that_was_listed(run, hub) -> None:
    run(get())
    resolved = [request.path for request in hub.requests if "/resolve/" in request.path]
    assert len(resolved) == 3 and all(f"/resolve/{commit_of(REPOS[L])}/" in path for path in resolved)


def test_what_is_here_is_not_asked_for_again(run, hub) -> None:
    folder, _ = run(get())
    hub.requests.clear()
    assert run(get()) == (folder, "")
    assert run(get(), HF_HUB_OFFLINE="1") == (folder, "")
    assert run(f"print(weights.local_path({L!r}))")[0] == folder
    assert hub.requests == []


def test_a_token_goes_to_the_hub_and_not_to_where_it_redirects(run, hub) -> None:
    run(get(), HF_TOKEN="hf_secret", HUGGING_FACE_HUB_TOKEN="hf_secret")
    tokens = {request.path.startswith("/cdn/"): request.token for request in hub.requests}
    assert tokens == {False: "Bearer hf_secret", True: None}


def test_open_clips_layout_is_turned_round(run, hub, models) -> None:
    hub.repos[REPOS[L]] = {"open_clip_model.safetensors": models["bare"]}
    run(get())
    found = find_projection(768, [])
    assert found is not None and torch.equal(found.weight, trained(768).half().float())


def test_of_shards_only_the_one_that_holds_it_is_asked(run, hub) -> None:
    weight = trained(1280)
    shards = {
        "model-00001-of-00002.safetensors": save({"vision.weight": torch.zeros(10_000)}),
        "model-00002-of-00002.safetensors": save({"text_projection.weight": weight, "b": torch.zeros(9)}),
    }
    index = {"vision.weight": "model-00001-of-00002.safetensors"}
    index["text_projection.weight"] = "model-00002-of-00002.safetensors"
    described = json.dumps({"metadata": {}, "weight_map": index, "padding": " " * 20_000}).encode()
    hub.repos[REPOS[BIGG]] = {**shards, "model.safetensors.index.json": described}
    folder = Path(run(get(BIGG))[0])
    assert torch.equal(load_file(folder / "text_projection.safetensors")["text_projection.weight"], weight)
    assert "model-00001-of-00002.safetensors" not in hub.fetched()


@pytest.mark.long
@pytest.mark.parametrize("index", [b"[]", b"{", b'{"weight_map": 3}'])
def test_a_damaged_index_is_one_line(run, hub, index: bytes) -> None:
    hub.repos[REPOS[BIGG]] = {"model.safetensors.index.json": index}
    assert "model.safetensors.index.json is no index of tensors" in one_line(run(failure(BIGG))[0])


def one_line(message: str) -> str:
    assert message.startswith("no weights for projection:") and len(message.splitlines()) == 1
    return message


def test_a_server_that_knows_no_ranges_does_not_make_us_read_the_whole(run, hub, tmp_path, models) -> None:
    hub.has_ranges = False
    message = one_line(run(failure())[0])
    assert "gives out model.safetensors only as a whole" in message
    assert "put clip-vit-large-patch14.safetensors" in message
    assert hub.sent_bytes() < len(models["Linear"]) / 5  # what the sockets had taken in already
    assert nothing_is_left(tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("cut_after", [4, 100, 500_000])
def test_a_connection_that_breaks_is_one_line(run, hub, tmp_path, cut_after: int) -> None:
    hub.cut_after = cut_after
    assert "connection broke" in one_line(run(failure())[0])
    assert nothing_is_left(tmp_path)


@pytest.mark.long
def test_a_hub_that_falls_silent_is_given_up(run, hub, tmp_path) -> None:
    hub.stall_after = 500_000
    message = one_line(run(failure(), HF_HUB_DOWNLOAD_TIMEOUT="1")[0])
    assert "in time" in message or "connection broke" in message
    assert nothing_is_left(tmp_path)


def test_killed_in_the_middle_it_leaves_nothing_and_starts_again(run, start, hub, tmp_path) -> None:
    hub.stall_after = 500_000
    process = start(get(), HF_HUB_DOWNLOAD_TIMEOUT="60")
    end = time.monotonic() + 100
    while not any(request.sent_bytes == 500_000 for request in hub.requests) and time.monotonic() < end:
        time.sleep(0.05)
    process.kill()
    process.communicate(timeout=60)
    assert any(request.sent_bytes == 500_000 for request in hub.requests) and nothing_is_left(tmp_path)
    hub.behave()
    hub.released.set()
    assert (Path(run(get())[0]) / "text_projection.safetensors").is_file()


def broken_header(model: bytes, how: str) -> bytes:
    described, body = header(model)
    if how == "a header as long as the disk":
        return (2**62).to_bytes(8, "little") + model[8:]
    if how == "a header above the limit":
        return MAX_HEADER_BYTES.to_bytes(8, "little") + model[8:] + bytes(30_000_000)
    if how == "no JSON":
        return with_header(b"<html>" * 100, body)
    place = described["text_projection.weight"]
    behind = [len(body), len(body) + 768 * 768 * 2]
    changes = {
        "behind the end": {"data_offsets": behind},
        "half behind the end": {"data_offsets": [place - 100 for place in behind]},
        "too short": {"data_offsets": [0, 10]},
        "another width": {"shape": [768, 512]},
    }
    return with_header({**described, "text_projection.weight": {**place, **changes[how]}}, body)


@pytest.mark.long
@pytest.mark.parametrize(
    "how, said",
    [
        ("a header as long as the disk", "no safetensors file"),
        ("no JSON", "no safetensors file"),
        ("a header above the limit", "no safetensors file"),
        ("behind the end", "the hub answered 416"),
        ("half behind the end", "model.safetensors ends early"),
        ("too short", "its header does not say where text_projection.weight is"),
        ("another width", "its header does not say where text_projection.weight is"),
    ],
)
def test_a_header_that_lies_is_one_line(run, hub, tmp_path, models, how: str, said: str) -> None:
    hub.repos[REPOS[L]]["model.safetensors"] = broken_header(models["Linear"], how)
    assert said in one_line(run(failure())[0])
    assert nothing_is_left(tmp_path) and hub.sent_bytes() < 2_000


@pytest.mark.long
def test_other_content_than_a_trained_projection_is_one_line(run, hub, tmp_path, models) -> None:
    hub.repos[REPOS[L]]["model.safetensors"] = models["identity"]
    assert "is no trained projection: it changes nothing" in one_line(run(failure())[0])
    hub.repos[REPOS[L]]["model.safetensors"] = models["none"]
    assert "no text projection 768 wide in model.safetensors" in one_line(run(failure())[0])
    del hub.repos[REPOS[L]]["model.safetensors"]
    assert "in any safetensors file" in one_line(run(failure())[0])
    assert nothing_is_left(tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("status", [404, 503])
def test_an_error_of_the_hub_is_one_line(run, hub, status: int) -> None:
    hub.status_of_large = status
    assert f"the hub answered {status}" in one_line(run(failure())[0])


def test_the_offline_message_names_three_ways_out(run, hub, own_models) -> None:
    message = one_line(run(failure(H), HF_HUB_OFFLINE="1")[0])
    for part in (
        f"no weights for {H}: HF_HUB_OFFLINE is set.",
        f"`promptglass models get {H}` when online",
        "HF_ENDPOINT",
        "Point to them: put CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors (the whole of laion/CLIP-ViT-H-14-",
        ") into ComfyUI's models/clip_vision, or copy",
        f"copy text_projection.safetensors to {own_models}/laion--CLIP-ViT-H-14-laion2B-s32B-b79K.",
    ):
        assert part in message
    assert "Use another" not in message
    assert hub.requests == []


def test_an_unreachable_hub_is_one_line(run) -> None:
    assert "cannot be reached" in one_line(run(failure(), HF_ENDPOINT="http://127.0.0.1:9")[0])


def test_a_place_that_cannot_be_written_is_one_line(run, tmp_path) -> None:
    (tmp_path / "own").write_text("a file where the folder should be")
    message = one_line(run(failure())[0])
    assert str(tmp_path / "own") in message.partition("Looked in")[0]


def test_it_works_without_open_clip(run) -> None:
    code = "import sys; sys.modules['open_clip'] = sys.modules['clip_interrogator'] = None"
    assert Path(run(f"{code}\n{get()}")[0]).is_dir()


def test_models_lists_them_with_size_and_place(run, own_models) -> None:
    code = "from promptglass.cli import main; main(['models'])"
    listed = {line.split()[0]: line for line in run(code)[0].splitlines()}
    for name, size in ((L, "2.4 MB"), (H, "4.2 MB"), (BIGG, "6.6 MB")):
        assert size in listed[name] and "projection" in listed[name] and "not here" in listed[name]
    run(get())
    listed = {line.split()[0]: line for line in run(code)[0].splitlines()}
    assert listed[L].endswith(str(own_models / "openai--clip-vit-large-patch14"))


def test_the_command_fetches_it(run, own_models) -> None:
    out, _ = run(f"from promptglass.cli import main; main(['models', 'get', {L!r}])")
    assert Path(out) == own_models / "openai--clip-vit-large-patch14"


# -- names ---------------------------------------------------------------------------------------------------


def test_a_projection_does_not_answer_to_the_name_of_its_model() -> None:
    assert weights.find("projection:vit-l-14").name == L
    for name in ("ViT-L-14", "openai/clip-vit-large-patch14", "CLIP-ViT-H-14-laion2B-s32B-b79K"):
        assert weights.find(name).kind == "clip"
    with pytest.raises(weights.ModelError, match="is for projection, not for clip"):
        weights.ready(L, "clip")
    with pytest.raises(weights.WeightsMissing, match=f"Did you mean {L}"):
        weights.resolve("projection:ViT-L14")


def test_a_projection_that_is_here_is_no_whole_model(own_models) -> None:
    fetched_file(own_models, L, trained(768))
    assert weights.local_path(L) == own_models / "openai--clip-vit-large-patch14"
    assert weights.local_path("openai/clip-vit-large-patch14") is None


def test_a_tensor_file_is_iterable_by_name(tmp_path: Path) -> None:
    path = file_of(tmp_path / "a.safetensors", trained(40))
    assert {*TensorFile(reader(path))} == {"text_projection.weight", "other"}
