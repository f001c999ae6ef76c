"""The pack in a real ComfyUI, asked as a browser asks: nodes, example workflows, errors, routes.

    COMFYUI=/path/to/ComfyUI python -m pytest tests/test_comfyui.py

in the host's environment (`.ci/comfyui` makes both). The models are tiny, and of the host's own classes.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import io
import json
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import requests
from comfyui import COMFYUI, Graph, Host, Refused, Run, graph_of, is_here, running_host
from conftest import noise
from PIL import Image

if not is_here:
    pytest.skip("COMFYUI names no ComfyUI whose requirements are here", allow_module_level=True)

from fakes.comfyui_models import ENCODER, OWN_MODELS, WHOLE, write_models
from fakes.llm_server import FakeServer, as_json, by_path, streamed, whole

ROOT = Path(__file__).parent.parent
FOLDER = "promptglass.v1-main(2)"  # a clone may have any name
PACKS = {FOLDER: ROOT, "tiny models": Path(__file__).parent / "fakes" / "comfyui_tiny_models"}
EXAMPLES = sorted((ROOT / "example_workflows").glob("*.json"))
WORDS = "mediums,movements"
SQUARE = noise(1, (224, 224))  # a size at which no tower resizes


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("comfyui")
    assert COMFYUI is not None
    write_models(COMFYUI, folder)
    return folder


@pytest.fixture(scope="module")
def language_model() -> Iterator[FakeServer]:
    def answer(handler: Any) -> None:
        is_streamed = handler.asked.body.get("stream")
        (streamed("openai", ["a red ", "cat"]) if is_streamed else whole("openai", "a red cat"))(handler)

    models = {"object": "list", "data": [{"id": "m", "object": "model", "created": 1, "owned_by": "fake"}]}
    with FakeServer(by_path(completions=answer, models=as_json(models))) as server:
        yield server


@pytest.fixture(scope="module")
def host(base: Path, language_model: FakeServer) -> Iterator[Host]:
    config = base / "promptglass.yaml"
    profile = {"protocol": "openai", "base_url": language_model.url, "model": "m"}
    config.write_text(json.dumps({"endpoints": {"ollama": profile}}))
    environment = {
        "PROMPTGLASS_CONFIG": str(config),
        "PROMPTGLASS_MODELS": str(base / OWN_MODELS),
        "PYTHONPATH": str(base / "python"),  # short word lists
        "XDG_CACHE_HOME": str(base / "cache"),
    }
    with running_host(base, PACKS, environment) as running:
        yield running
    log = running.log.read_text(encoding="utf-8", errors="replace")
    seconds = re.search(rf"([\d.]+) seconds: .*{re.escape(FOLDER)}", log)
    print(f"\nComfyUI says that the pack took {seconds[1] if seconds else '?'} s to import")


@pytest.fixture(autouse=True)
def the_server_still_answers(host: Host) -> Iterator[None]:
    yield
    assert host.get("/system_stats").ok
    # An answer is there a moment before the queue is told.
    assert within(5, lambda: host.get("/queue").json() == {"queue_running": [], "queue_pending": []})


def within(seconds: float, is_so: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if is_so():
            return True
        time.sleep(0.05)
    return False


def png(image: Image.Image) -> bytes:
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


def with_pair(host: Host, image: Image.Image = SQUARE, clip: str = WHOLE, projection: str = "auto") -> Graph:
    """A picture, and an encoder of the host's pair."""
    name = host.upload("picture.png", png(image))
    return {
        "image": {"class_type": "LoadImage", "inputs": {"image": name}},
        "clip": {
            "class_type": "CLIPLoader",
            "inputs": {"clip_name": f"{clip}.safetensors", "type": "stable_diffusion"},
        },
        "vision": {"class_type": "CLIPVisionLoader", "inputs": {"clip_name": f"{WHOLE}.safetensors"}},
        "encoder": {
            "class_type": "PromptglassEncoder",
            "inputs": {"clip": ["clip", 0], "clip_vision": ["vision", 0], "projection": projection},
        },
    }


def interrogate(**inputs: Any) -> dict[str, Any]:
    widgets = {
        "mode": "fast",
        "model": ENCODER,
        "captioner": "blip-large",
        "max_flavors": 4,
        "tables": WORDS,
        "with_negative": False,
    }
    linked = {"image": ["image", 0], "encoder": ["encoder", 0], "caption": ["caption", 0]}
    return {"class_type": "PromptglassInterrogate", "inputs": {**widgets, **linked, **inputs}}


def text(value: str) -> dict[str, Any]:
    return {"class_type": "PrimitiveStringMultiline", "inputs": {"value": value}}


def seen(node: str, output: int = 0) -> dict[str, Any]:
    """Shows an output, in the host's own way."""
    return {"class_type": "PreviewAny", "inputs": {"source": [node, output]}}


def score(texts: str, **inputs: Any) -> dict[str, Any]:
    widgets = {"texts": texts, "model": ENCODER, "image": ["image", 0], "encoder": ["encoder", 0]}
    return {"class_type": "PromptglassScore", "inputs": {**widgets, **inputs}}


def run_well(host: Host, graph: Graph) -> Run:
    run = host.run(graph)
    assert run.status == "success", run.error or run.events[-3:]
    return run


def shown(run: Run, node: str) -> list[Any]:
    """JSON that a PreviewAny shows, a text for each picture."""
    return [json.loads(text) for text in run.ui(node)["text"]]


# -- the examples --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_as_it_is_and_then_is_remembered(host: Host, path: Path) -> None:
    types = host.node_types()
    graph = graph_of(json.loads(path.read_text("utf-8")), types)
    give_pictures(host, graph)
    run = run_well(host, graph)
    ends = {node for node, what in graph.items() if types[what["class_type"]]["output_node"]}
    ours = {node for node in ends if graph[node]["class_type"].startswith("Promptglass")}
    assert ours
    for node in ours:
        cards = run.ui(node)["promptglass"]
        assert cards and len(run.ui(node)["text"]) >= len(cards), node
        assert all(card.get("title") for card in cards), cards
    run_well(host, graph)  # a node that reads files which another one here wrote looks once more
    again = run_well(host, graph)
    assert again.computed == [], [graph[node]["class_type"] for node in again.computed]
    for outputs in (run.record["outputs"], again.record["outputs"]):
        assert ends <= outputs.keys()


def give_pictures(host: Host, graph: Graph) -> None:
    """Puts a picture under every name that a workflow loads, and one into the folder of inputs."""
    content = (ROOT / "samples" / "with-prompt.png").read_bytes()
    host.upload("with-prompt.png", content)
    for node in graph.values():
        image = node["inputs"].get("image")
        if isinstance(image, str):
            subfolder, _, name = image.rpartition("/")
            host.upload(name, content, subfolder)


def test_there_are_examples() -> None:
    assert EXAMPLES
    assert all(path.with_suffix(".jpg").is_file() for path in EXAMPLES)


# -- runs that end early -------------------------------------------------------------------------------------


def test_an_interrupt_ends_a_long_run_and_the_next_one_works(host: Host) -> None:
    many = "\n".join(f"a label of its own kind, number {n * 7919}" for n in range(150_000))
    graph = with_pair(host) | {"caption": text("a cat"), "many": text(many)}
    graph["ours"] = interrogate(own_labels=["many", 0])
    run = host.run(graph, interrupt_at="progress")
    assert [kind for kind, _ in run.events][-1] == "execution_interrupted"
    told = [(about["value"], about["max"]) for kind, about in run.events if kind == "progress"]
    assert told[-1][0] < told[-1][1], "it went on to the end"
    print(f"\ninterrupted after {run.seconds:.2f} s")
    graph["many"] = text("a dog\nan oil painting")
    run_well(host, graph)


def test_a_bad_graph_is_refused_before_it_runs(host: Host) -> None:
    graph = with_pair(host) | {"ours": interrogate()}
    del graph["ours"]["inputs"]["image"], graph["ours"]["inputs"]["caption"]
    with pytest.raises(Refused) as refused:
        host.run(graph)
    assert refused.value.reply["error"]["type"] == "prompt_outputs_failed_validation"
    (error,) = refused.value.reply["node_errors"]["ours"]["errors"]
    assert (error["type"], error["extra_info"]["input_name"]) == ("required_input_missing", "image")
    graph["ours"] = interrogate(mode="loudest", caption=["image", 0])
    with pytest.raises(Refused) as refused:
        host.run(graph)
    errors = refused.value.reply["node_errors"]["ours"]["errors"]
    assert {error["type"] for error in errors} == {"value_not_in_list", "return_type_mismatch"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"tables": "flavors=/etc/passwd"},
            "is no choice of tables: connect lists of your own",
        ),
        ({"tables": "flavours"}, "there is no table flavours: choose from"),
        ({"tables": "none"}, "there are no labels: choose tables, or give own_labels"),
        ({"encoder": None}, "promptglass models get ViT-B-32/openai"),
        ({"encoder": None, "clip": ["clip", 0]}, "connect a CLIP_VISION, too"),
    ],
    ids=["a file", "an unknown table", "no labels", "no model", "half a pair"],
)
def test_an_error_of_ours_is_one_line_that_says_what_to_do(
    host: Host, change: dict[str, Any], message: str
) -> None:
    graph = with_pair(host) | {"caption": text("a cat")}
    graph["ours"] = interrogate(**{"model": "ViT-B-32/openai", **change})
    inputs = graph["ours"]["inputs"]
    graph["ours"]["inputs"] = {name: value for name, value in inputs.items() if value is not None}
    run = host.run(graph)
    assert run.status == "error"
    assert message in run.error
    assert "\n" not in run.error and "Traceback" not in run.error


def test_a_clip_without_a_projection_names_the_file_to_get(host: Host) -> None:
    graph = with_pair(host, clip="clip_l", projection="built-in") | {"ours": score("a cat")}
    run = host.run(graph)
    assert run.status == "error"
    assert "\n" not in run.error
    assert "clip-vit-large-patch14.safetensors" in run.error or "promptglass models get" in run.error


# -- the same as the engine ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def engine(base: Path) -> Any:
    """The engine's own encoder, with the weights of the host's pair."""
    from promptglass.clip.loading import load_encoder

    return load_encoder(str(base / OWN_MODELS / ENCODER.replace("/", "--")), "cpu")


@pytest.fixture(scope="module")
def expected(engine: Any) -> Any:
    """What the engine says of SQUARE, by the tables of WORDS."""
    from fakes.comfyui_models import LISTS

    from promptglass import Interrogator, Vocabulary

    tables = {name: LISTS[name] for name in WORDS.split(",")}
    interrogator = Interrogator(engine, Vocabulary(tables, engine))
    subjects = interrogator.look([SQUARE], ["a cat"])
    return interrogator.tables(subjects)[0].tables, interrogator.best(subjects, max_flavors=4)[0]


def same_ranking(found: dict[str, float], wanted: dict[str, float]) -> None:
    assert [*found] == [*wanted]
    assert found == pytest.approx(wanted, abs=1e-4)


def tables_of(host: Host, graph: Graph, **inputs: Any) -> dict[str, dict[str, float]]:
    graph = {**graph, "caption": text("a cat"), "ours": interrogate(mode="tables", **inputs)}
    (tables,) = shown(run_well(host, {**graph, "seen": seen("ours", 3)}), "seen")
    return tables


@pytest.mark.parametrize("clip", [WHOLE, "clip_l"])
def test_the_hosts_pair_ranks_as_the_engines_own_encoder(host: Host, expected: Any, clip: str) -> None:
    """clip_l has no projection of its own: it is read from the other file."""
    wanted, wanted_best = expected
    graph = with_pair(host, clip=clip)
    found = tables_of(host, graph)
    assert found.keys() == wanted.keys() == {*WORDS.split(",")}
    for table, labels in found.items():
        same_ranking(labels, wanted[table])
    graph |= {"caption": text("a cat"), "ours": interrogate(mode="best"), "seen": seen("ours", 2)}
    (best,) = shown(run_well(host, graph), "seen")
    assert best["prompt"] == wanted_best.prompt
    assert best["score"] == pytest.approx(wanted_best.score, abs=1e-4)


def test_without_host_models_the_engines_own_encoder_answers(host: Host, expected: Any) -> None:
    graph = with_pair(host) | {"caption": text("a cat"), "ours": interrogate(mode="tables")}
    del graph["ours"]["inputs"]["encoder"]
    (found,) = shown(run_well(host, graph | {"seen": seen("ours", 3)}), "seen")
    for table, labels in found.items():
        same_ranking(labels, expected[0][table])


def test_a_caption_is_written_where_none_is_connected(host: Host) -> None:
    graph = with_pair(host) | {"ours": interrogate(mode="caption"), "seen": seen("ours", 2)}
    del graph["ours"]["inputs"]["caption"]
    graph["theirs"] = {
        "class_type": "PromptglassCaption",
        "inputs": {"image": ["image", 0], "captioner": "blip-large"},
    }
    run = run_well(host, graph)
    (evidence,) = shown(run, "seen")
    assert evidence["caption"] == run.ui("theirs")["text"][0]


# -- patches -------------------------------------------------------------------------------------------------


def test_a_patched_clip_scores_otherwise_and_leaves_nothing_behind(
    host: Host, base: Path, engine: Any
) -> None:
    """Patched first, over tables of which nobody has embedded just these; then as the file has it."""
    from promptglass.clip.ranking import cosines

    kept = base / "cache" / "promptglass" / "embeddings"
    tables = "artists,flavors"
    plain = with_pair(host)
    patched = {**plain, "lora": {"class_type": "TinyLora", "inputs": {"clip": ["clip", 0], "strength": 0.05}}}
    patched["encoder"] = {**plain["encoder"], "inputs": {**plain["encoder"]["inputs"], "clip": ["lora", 0]}}
    before = {*kept.rglob("*.safetensors")}
    under_patch = tables_of(host, patched, tables=tables)
    assert {*kept.rglob("*.safetensors")} == before, "a patched CLIP's embeddings were kept"
    as_filed = tables_of(host, plain, tables=tables)
    assert {*kept.rglob("*.safetensors")} > before, "those of a CLIP as it is were not"
    features = engine.encode_images([SQUARE])[0]
    moved = []
    for table, labels in as_filed.items():
        wanted = cosines(engine.encode_texts([*labels]), features).tolist()
        same_ranking(labels, dict(zip(labels, wanted, strict=True)))
        patched_scores = under_patch[table]
        moved += [abs(labels[label] - patched_scores[label]) for label in labels if label in patched_scores]
    assert max(moved) > 1e-3
    assert tables_of(host, patched, tables=tables, max_flavors=5) == under_patch


# -- many pictures -------------------------------------------------------------------------------------------


def test_a_batch_and_a_list_of_sizes_are_both_pictures_one_by_one(host: Host, base: Path) -> None:
    texts = "red\na black square\nan oil painting"
    folder = base / "input" / "sizes"
    folder.mkdir(parents=True, exist_ok=True)
    pictures = [noise(5, (224, 224)), noise(6, (300, 200)), noise(7, (64, 400))]
    for n, picture in enumerate(pictures):
        picture.save(folder / f"{n}.png")
    loader = {"folder": "sizes", "recursive": False, "skip": 0, "count": 0}
    graph = with_pair(host) | {"image": {"class_type": "PromptglassLoadFolder", "inputs": loader}}
    graph |= {"ours": score(texts), "seen": seen("ours", 2), "name": seen("image", 2)}
    run = run_well(host, graph)
    assert run.ui("name")["text"] == ["0", "1", "2"]
    as_list = shown(run, "seen")
    one_by_one = [single_scores(host, picture, texts) for picture in pictures]
    assert as_list == one_by_one
    names = [host.upload(f"{n}.png", png(noise(5 + n, (224, 224)))) for n in range(2)]
    batch = with_pair(host)
    batch |= {name: {"class_type": "LoadImage", "inputs": {"image": name}} for name in names}
    both = {f"image{n}": [name, 0] for n, name in enumerate(names, 1)}
    batch["image"] = {"class_type": "ImageBatch", "inputs": both}
    found = shown(run_well(host, batch | {"ours": score(texts), "seen": seen("ours", 2)}), "seen")
    assert len(found) == 2
    assert found[0] == one_by_one[0] != found[1]


def single_scores(host: Host, picture: Image.Image, texts: str) -> dict[str, float]:
    graph = with_pair(host, picture) | {"ours": score(texts), "seen": seen("ours", 2)}
    (scores,) = shown(run_well(host, graph), "seen")
    return scores


# -- files ---------------------------------------------------------------------------------------------------


def test_sidecars_stand_beside_the_pictures_and_keep_to_their_schema(host: Host, base: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((ROOT / "docs" / "sidecar.schema.json").read_text("utf-8"))
    folder = base / "input" / "to keep"
    folder.mkdir(parents=True)
    for n in range(2):
        noise(n).save(folder / f"{n} é🐱.png")
    loader = {"folder": "to keep", "recursive": False, "skip": 0, "count": 0}
    graph = with_pair(host) | {
        "image": {"class_type": "PromptglassLoadFolder", "inputs": loader},
        "caption": text("a cat"),
        "ours": interrogate(tables="", with_negative=True),
        "colours": {"class_type": "PromptglassPalette", "inputs": {"image": ["image", 0], "colours": 4}},
        "kept": {
            "class_type": "PromptglassSaveSidecar",
            "inputs": {"file": ["image", 1], "answers": ["ours", 4], "answers_2": ["colours", 2]},
        },
    }
    run_well(host, graph)
    for n in range(2):
        sidecar = json.loads((folder / f"{n} é🐱.png.promptglass.json").read_text("utf-8"))
        jsonschema.validate(sidecar, schema)
        assert {"fast", "negative", "tables", "palette"} <= sidecar["analysis"].keys()
        assert sidecar["analysis"]["fast"][0]["model"].startswith("comfyui/clip_l-")


def test_what_is_written_as_wildcards_is_drawn_by_dynamicprompts(host: Host, base: Path) -> None:
    generators = pytest.importorskip("dynamicprompts.generators")
    from dynamicprompts.wildcards import WildcardManager

    written = "50% off, {a|b} café"
    graph = {
        "text": text(written),
        "ours": {
            "class_type": "PromptglassWriteWildcards",
            "inputs": {"text": ["text", 0], "name": "mine", "folder": "auto", "format": "auto"},
        },
        "drawn": {
            "class_type": "PromptglassPreviewWildcard",
            "inputs": {
                "template": "a {red} __promptglass/mine__",
                "folder": "auto",
                "count": 3,
                "seed": 1,
                "after": ["ours", 0],
            },
        },
    }
    run = run_well(host, graph)
    manager = WildcardManager(base / "wildcards")
    drawn = {*generators.RandomPromptGenerator(manager).generate("a {red} __promptglass/mine__", 5)}
    assert drawn == {run.ui("drawn")["text"][0]}
    (line,) = drawn
    assert line.startswith("a red 50 percent off") and line.endswith("café")
    listed = host.get("/promptglass/wildcards").json()["folders"]
    assert {"name": "promptglass/mine", "lines": 1} in [file for one in listed for file in one["files"]]


def test_the_prompt_inside_a_file_is_found(host: Host) -> None:
    name = host.upload("with-prompt.png", (ROOT / "samples" / "with-prompt.png").read_bytes())
    graph = {"ours": {"class_type": "PromptglassEmbedded", "inputs": {"image": name}}}
    run = run_well(host, graph)
    assert run.ui("ours")["text"][0]
    graph["ours"]["inputs"]["image"] = "../../../etc/passwd"
    run = host.run(graph)
    assert run.status == "error" and "input folder" in run.error


def test_what_an_optional_package_is_for_is_one_line(host: Host) -> None:
    graph = with_pair(host)
    inputs = {"image": ["image", 0], "tagger": "starter", "threshold": 0.35}
    run = host.run({"image": graph["image"], "ours": {"class_type": "PromptglassTags", "inputs": inputs}})
    assert run.status == "error"
    assert "pip install" in run.error and "\n" not in run.error


# -- the browser's files -------------------------------------------------------------------------------------


def test_the_frontend_is_given_scripts_words_help_and_examples(host: Host) -> None:
    scripts = [unquote(path) for path in host.get("/extensions").json()]
    assert [path for path in scripts if FOLDER in path] == [f"/extensions/{FOLDER}/promptglass.js"]
    for name in ("promptglass.js", "docs/PromptglassInterrogate.md", "promptglass/cards.mjs"):
        assert host.get(f"/extensions/{FOLDER}/{name}").ok, name
    words = host.get("/i18n").json()
    assert all("PromptglassScore" in words[language]["nodeDefs"] for language in ("en", "zh"))
    assert {*host.get("/workflow_templates").json()[FOLDER]} == {path.stem for path in EXAMPLES}
    example = f"/api/workflow_templates/{FOLDER}/{EXAMPLES[0].stem}"
    assert host.get(f"{example}.json").json()["nodes"]
    assert host.get(f"{example}.jpg").ok


def test_it_loads_from_a_folder_of_any_name(tmp_path: Path) -> None:
    """Without its browser part: ComfyUI finds no web files of a pack whose name a URL has to escape."""
    with running_host(tmp_path, {"my promptglass 🔍": ROOT}) as host:
        assert "PromptglassInterrogate" in host.node_types()
        assert host.get("/promptglass/health").ok


# -- routes --------------------------------------------------------------------------------------------------


def test_a_picture_is_interrogated_by_its_name(host: Host) -> None:
    name = host.upload("asked.png", png(SQUARE))
    image = {"filename": name, "subfolder": "", "type": "input"}
    reply = host.post("/promptglass/interrogate", {"image": image, "mode": "fast"})
    assert reply.status_code == 202, reply.text
    prompt_id = reply.json()["prompt_id"]
    assert host.recorded(prompt_id)["status"]["status_str"] == "success"
    results = host.get("/api/promptglass/results?limit=5").json()["results"]
    (result,) = (one for one in results if one["prompt_id"] == prompt_id)
    assert (result["state"], result["error"], result["image"]) == ("done", None, image)
    assert result["cards"][0]["text"]


def test_health_tells_what_is_here(host: Host) -> None:
    health = host.get("/promptglass/health").json()
    assert health["pair"] == {"clip": f"{WHOLE}.safetensors", "clip_vision": f"{WHOLE}.safetensors"}
    here = {model["name"] for model in health["models"] if model["here"]}
    assert here == {ENCODER, "blip-large"}
    assert "ollama" in health["profiles"]


@pytest.mark.parametrize(
    "image",
    [
        {"filename": "../secret.png", "subfolder": "", "type": "input"},
        {"filename": "secret.png", "subfolder": "..", "type": "input"},
        {"filename": "secret.png", "subfolder": "a/../../", "type": "input"},
        {"filename": "link.png", "subfolder": "", "type": "input"},
        {"filename": "secret.png", "subfolder": "", "type": "/"},
        {"filename": "/etc/passwd", "subfolder": "", "type": "input"},
    ],
)
def test_no_name_leads_out_of_the_hosts_folders(host: Host, base: Path, image: dict[str, str]) -> None:
    secret, link = base / "secret.png", base / "input" / "link.png"
    secret.write_bytes(png(SQUARE))
    if not link.is_symlink():
        link.symlink_to(secret)
    reply = host.post("/promptglass/interrogate", {"image": image, "mode": "fast"})
    assert reply.status_code in (400, 404), reply.text
    assert "\n" not in reply.json()["error"]


@pytest.mark.parametrize("path", ["/promptglass/health", "/api/promptglass/interrogate"])
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example:8188"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Content-Type": "text/plain"}, 415),
    ],
    ids=["another name", "another site", "no JSON"],
)
def test_no_other_site_is_answered(host: Host, path: str, headers: dict[str, str], status: int) -> None:
    is_question = path.endswith("interrogate")
    if status == 415 and not is_question:
        pytest.skip("what only tells takes no body")
    reply = host.post(path, {}, headers=headers) if is_question else host.get(path, headers=headers)
    assert reply.status_code == status, reply.text


def test_the_server_answers_while_a_node_works(host: Host) -> None:
    """Nothing of ours holds the event loop."""
    slowest = 0.0
    name = host.upload("asked.png", png(SQUARE))
    asked = {"image": {"filename": name, "subfolder": "", "type": "input"}, "mode": "best"}
    prompt_id = host.post("/promptglass/interrogate", asked).json()["prompt_id"]
    while host.history(prompt_id) is None:
        started = time.monotonic()
        host.get("/promptglass/health")
        slowest = max(slowest, time.monotonic() - started)
    print(f"\nthe slowest answer took {slowest:.2f} s")
    assert host.recorded(prompt_id)["status"]["status_str"] == "success"


# -- the service, below /promptglass -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def service(host: Host) -> Host:
    pytest.importorskip("fastapi")
    return host


def as_base64(image: Image.Image) -> str:
    return base64.b64encode(png(image)).decode()


def test_what_serve_answers_is_answered_here_on_the_hosts_pair(service: Host) -> None:
    known = service.get("/promptglass/v1/health").json()
    assert known["host"] == "ComfyUI"
    assert known["facts"]["CLIP"] == f"comfyui/{WHOLE}.safetensors"
    asked = {"image": as_base64(SQUARE), "modes": "fast,negative"}
    for prefix in ("/promptglass", "/api/promptglass"):
        reply = service.post(f"{prefix}/v1/interrogate", asked)
        assert reply.status_code == 200, reply.text
        answers = {answer["mode"]: answer for answer in reply.json()["answers"]}
        assert answers.keys() == {"fast", "negative"}
        assert answers["fast"]["text"]
        assert answers["fast"]["model"] == f"comfyui/{WHOLE}.safetensors"


def test_the_service_ranks_as_the_engines_own_encoder(service: Host, expected: Any) -> None:
    wanted, _ = expected
    asked = {"image": as_base64(SQUARE), "modes": "tables", "tables": WORDS.split(",")}
    (answer,) = service.post("/promptglass/v1/interrogate", asked).json()["answers"]
    assert answer["tables"].keys() == wanted.keys()
    for table, labels in answer["tables"].items():
        nearest = dict([*wanted[table].items()][: len(labels)])
        same_ranking(labels, nearest)


def test_seeds_and_docs_are_below_the_same_path(service: Host) -> None:
    form = {"file": ("a.png", png(SQUARE), "image/png")}
    reply = requests.post(f"{service.url}/promptglass/analyze", files=form, timeout=60)
    assert reply.status_code == 200, reply.text
    assert reply.json()["predictions"]
    described = service.get("/promptglass/openapi.json").json()
    assert described["servers"] == [{"url": "/promptglass"}]
    assert "/v1/interrogate" in described["paths"]
    assert service.get("/promptglass/nothing").status_code == 404


def test_events_come_as_they_happen_and_the_host_answers_meanwhile(service: Host) -> None:
    form = {"image": ("a.png", png(SQUARE), "image/png")}
    address = f"{service.url}/promptglass/api/images/analyze-stream"
    with requests.post(address, files=form, stream=True, timeout=60) as reply:
        told = []
        for line in reply.iter_lines():
            if line.startswith(b"data: "):
                told.append(json.loads(line[6:])["status"])
                assert service.get("/queue").ok
    assert told == ["analyzing", "analyzed", "generating", "complete"]


def long_question() -> dict[str, Any]:
    """Of as many and as long labels as there may be; others every time, as what was embedded is kept."""
    labels = "\n".join(f"{uuid.uuid4().hex} {'so it goes on ' * 12}{n}" for n in range(2000))
    return {"image": as_base64(SQUARE), "categories": [], "labels": labels}


@contextlib.contextmanager
def asking(service: Host) -> Iterator[list[requests.Response]]:
    """One whose turn lasts until it is interrupted; its answer, afterwards."""
    replies: list[requests.Response] = []
    address = "/promptglass/v1/analyze"
    thread = threading.Thread(target=lambda: replies.append(service.post(address, long_question())))
    thread.start()
    while not service.get("/queue").json()["queue_running"]:
        assert thread.is_alive(), replies[0].text
    yield replies
    service.post("/interrupt", {})
    thread.join(60)


def test_an_interrupt_of_the_host_ends_a_question(service: Host) -> None:
    with asking(service) as replies:
        pass
    assert replies[0].status_code == 409, replies[0].text
    assert "interrupted in ComfyUI" in replies[0].json()["error"]


def test_whoever_leaves_stops_the_work(service: Host) -> None:
    with pytest.raises(requests.Timeout):
        requests.post(f"{service.url}/promptglass/v1/analyze", json=long_question(), timeout=0.5)
    assert within(1.5, lambda: not service.get("/queue").json()["queue_running"])


def test_whoever_leaves_while_it_waits_leaves_the_queue(service: Host) -> None:
    with asking(service):
        asked = {"image": as_base64(SQUARE), "modes": "fast"}
        with pytest.raises(requests.Timeout):
            requests.post(f"{service.url}/promptglass/v1/interrogate", json=asked, timeout=1)
        assert within(5, lambda: not service.get("/queue").json()["queue_pending"])
        assert service.get("/queue").json()["queue_running"], "the other one goes on"


def test_questions_leave_no_history(service: Host) -> None:
    asked = {"image": as_base64(SQUARE), "modes": "fast"}
    assert service.post("/promptglass/v1/interrogate", asked).status_code == 200
    assert within(10, lambda: "PromptglassTurn" not in service.get("/history").text)


def test_the_bridge_keeps_to_the_wire(service: Host) -> None:
    def said(question: str) -> bytes:
        with socket.create_connection(("127.0.0.1", int(service.url.rpartition(":")[2])), 10) as wire:
            wire.sendall(question.encode())
            return b"".join(iter(lambda: wire.recv(65536), b""))

    alive = "GET /promptglass/healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    # No body after a HEAD: the next answer on this connection would begin with it.
    told = said(f"HEAD /promptglass/v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n{alive}")
    assert told.partition(b"\r\n\r\n")[2].startswith(b"HTTP/1.1 200")
    assert (
        said("GET /promptglass/v1/health HTTP/1.1\r\nHost: a:b\r\nConnection: close\r\n\r\n")[9:12] == b"403"
    )
    assert said("GET /promptglass/healthz HTTP/1.0\r\n\r\n")[9:12] == b"200"
    query = "file=%E7%8C%AB%2525.png"
    assert "猫%25.png" in service.get(f"/promptglass/analyze?{query}").json()["error"]["message"]


def test_events_reach_an_old_proxy(service: Host) -> None:
    """It speaks HTTP/1.0, which has no chunks."""
    form = requests.Request(
        "POST", service.url, files={"image": ("a.png", png(SQUARE), "image/png")}
    ).prepare()
    old = http.client.HTTPConnection(service.url.partition("//")[2], timeout=60)
    old._http_vsn, old._http_vsn_str = 10, "HTTP/1.0"  # type: ignore[attr-defined]
    headers = {"Content-Type": form.headers["Content-Type"], "Host": "localhost"}
    old.request("POST", "/promptglass/api/images/analyze-stream", form.body, headers)
    assert b'"complete"' in old.getresponse().read()
    old.close()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example:8188"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Content-Type": "text/plain"}, 415),
    ],
)
def test_the_service_answers_no_other_site_either(
    service: Host, headers: dict[str, str], status: int
) -> None:
    assert service.post("/promptglass/v1/interrogate", {}, headers=headers).status_code == status
