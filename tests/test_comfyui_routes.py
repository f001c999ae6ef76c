"""The routes in ComfyUI's server: whom they answer, which pictures they take, what they queue and report.

The host is not here (tests/test_comfyui.py has it): these are the parts that decide, given what it would say.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from fakes.comfyui_host import host_modules, imported

LOCAL = {"Host": "127.0.0.1:8188"}
JSON = {"Content-Type": "application/json"}
CLIP = "clip-vit-large-patch14.safetensors"


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    base = tmp_path_factory.mktemp("host")
    with pytest.MonkeyPatch.context() as patch:
        for name, module in host_modules(base).items():
            patch.setitem(sys.modules, name, module)
        pack = imported(f"{base}/custom_nodes/routes of promptglass")
        yield sys.modules[f"{pack.__name__}.nodes"]
        for name in [*sys.modules]:
            if name.startswith(pack.__name__):
                del sys.modules[name]


# -- which pictures they take --------------------------------------------------------------------------------


def test_a_picture_of_the_host_is_named_as_a_load_image_takes_it(nodes, tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "ü [1].PNG").touch()
    asked = {"filename": "ü [1].PNG", "subfolder": "sub", "type": "output"}
    picture = nodes.jobs.Picture.parsed(asked)
    picture.check(tmp_path)
    assert picture.annotation == "sub/ü [1].PNG [output]"
    assert nodes.jobs.Picture.annotated(picture.annotation) == picture
    assert nodes.jobs.Picture.annotated("a.png") == nodes.jobs.Picture("a.png", "", "input")


@pytest.mark.parametrize(
    "asked",
    [
        None,
        "cat.png",
        {},
        {"filename": "cat.png", "type": "models"},
        {"filename": "cat.png"},
        {"filename": "", "type": "input"},
        {"filename": ["cat.png"], "type": "input"},
        {"filename": "cat.png", "subfolder": {"a": 1}, "type": "input"},
        {"filename": "../cat.png", "type": "input"},
        {"filename": "..\\cat.png", "type": "input"},
        {"filename": "/etc/cat.png", "type": "input"},
        {"filename": "cat.png\0.txt", "type": "input"},
        {"filename": "cat.safetensors", "type": "input"},
        {"filename": "..", "type": "input"},
    ],
)
def test_what_names_no_picture_is_refused(nodes, asked):
    with pytest.raises(nodes.jobs.InputError):
        nodes.jobs.Picture.parsed(asked)


@pytest.mark.parametrize("subfolder", ["..", "../other", "sub/../../other", "/etc", "..\\other", "link", ""])
def test_no_name_leads_out_of_the_folder(nodes, tmp_path, subfolder):
    for folder in ("input", "other"):
        (tmp_path / folder).mkdir()
    (tmp_path / "other" / "cat.png").touch()
    (tmp_path / "cat.png").touch()
    (tmp_path / "input" / "link").symlink_to(tmp_path / "other", target_is_directory=True)
    picture = nodes.jobs.Picture.parsed({"filename": "cat.png", "subfolder": subfolder, "type": "input"})
    with pytest.raises(nodes.jobs.ImageError, match="no such file in its input folder") as caught:
        picture.check(tmp_path / "input")
    assert str(tmp_path) not in str(caught.value)


def test_a_linked_folder_of_the_host_is_its_folder(nodes, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "cat.png").touch()
    (tmp_path / "output").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    nodes.jobs.Picture("cat.png", "", "output").check(tmp_path / "output")


# -- what they queue -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text_encoders", "clip_visions", "expected"),
    [
        ([CLIP, "clip_l.safetensors"], [CLIP], (CLIP, CLIP)),
        (["a/" + CLIP, CLIP], [CLIP], (CLIP, CLIP)),
        (["flux/clip_l.safetensors"], ["sdxl/" + CLIP], ("flux/clip_l.safetensors", "sdxl/" + CLIP)),
        (["clip_l.safetensors"], ["CLIP-ViT-L-14.bin"], ("clip_l.safetensors", "CLIP-ViT-L-14.bin")),
        (
            ["t5xxl.safetensors", "clip_g.safetensors"],
            ["CLIP-ViT-bigG-14-laion2B-39B-b160k.safetensors"],
            ("clip_g.safetensors", "CLIP-ViT-bigG-14-laion2B-39B-b160k.safetensors"),
        ),
        (["clip_l.safetensors"], ["CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors"], None),
        (["clip_l.safetensors"], ["sigclip_vision_patch14_384.safetensors"], None),
        (["clip_l.safetensors"], ["clip-vit-large-patch14-336.safetensors"], None),
        (["t5xxl_fp16.safetensors"], [CLIP], None),
        ([], [CLIP], None),
        ([], [], None),
    ],
)
def test_the_halves_of_a_pair_belong_together(nodes, text_encoders, clip_visions, expected):
    found = nodes.jobs.find_pair(text_encoders, clip_visions)
    assert (found and (found.clip, found.clip_vision)) == expected


def inputs(nodes: Any) -> dict[str, Any]:
    return nodes.NODE_CLASS_MAPPINGS["PromptglassInterrogate"].INPUT_TYPES()["required"]


def made(nodes: Any, mode: str, pair: Any, *here: str) -> dict[str, Any]:
    here_is = here.__contains__
    plan = nodes.jobs.plan(mode, *nodes.jobs.best_clip(pair, here_is), here_is)
    return nodes.jobs.graph(nodes.jobs.Picture("cat.png", "", "temp"), mode, plan, inputs(nodes))


def test_the_hosts_pair_answers_before_a_model_of_ours(nodes):
    graph = made(nodes, "fast", nodes.jobs.Pair("a", "b"), "ViT-L-14/openai", "blip-large")
    by_class = {node["class_type"]: node["inputs"] for node in graph.values()}
    assert by_class["LoadImage"] == {"image": "cat.png [temp]"}
    assert by_class["CLIPLoader"]["clip_name"] == "a"
    assert by_class["CLIPVisionLoader"] == {"clip_name": "b"}
    assert by_class["PromptglassInterrogate"]["encoder"] == ["promptglass-encoder", 0]
    assert by_class["PromptglassInterrogate"]["mode"] == "fast"


def test_without_a_pair_the_model_and_the_captioner_that_are_here_are_taken(nodes):
    graph = made(nodes, "fast", None, "ViT-B-32/openai", "blip-base")
    assert {node["class_type"] for node in graph.values()} == {"LoadImage", "PromptglassInterrogate"}
    asked = graph["promptglass-interrogate"]["inputs"]
    assert (asked["model"], asked["captioner"]) == ("ViT-B-32/openai", "blip-base")
    assert {*inputs(nodes)} <= {*asked}, "the host fills in nothing"


def test_no_node_is_called_as_one_of_a_workflow_could_be(nodes):
    graph = made(nodes, "fast", nodes.jobs.Pair("a", "b"), "blip-large")
    assert all(name.startswith("promptglass-") for name in graph)


def test_what_is_not_here_is_said_with_the_command_that_gets_it(nodes):
    pair = nodes.jobs.Pair("a", "b")
    with pytest.raises(nodes.jobs.CaptionerMissing, match="promptglass models get blip-large"):
        made(nodes, "fast", pair)
    with pytest.raises(
        nodes.jobs.WeightsMissing, match="promptglass models get openai/clip-vit-large-patch14"
    ):
        made(nodes, "negative", None, "blip-large")
    with pytest.raises(nodes.jobs.InputError, match="Choose fast"):
        made(nodes, "slow", pair, "blip-large")
    assert made(nodes, "negative", pair)


@pytest.mark.parametrize(
    ("address", "has_tls", "expected"),
    [
        ("127.0.0.1", False, "http://127.0.0.1:8188"),
        ("0.0.0.0", False, "http://127.0.0.1:8188"),
        ("::", True, "https://[::1]:8188"),
        ("192.168.1.20", True, "https://192.168.1.20:8188"),
        ("gpu-box", False, "http://gpu-box:8188"),
    ],
)
def test_the_host_asks_itself_where_it_listens(nodes, address, has_tls, expected):
    assert nodes.routes.loopback_url(address, 8188, has_tls) == expected


def test_the_hosts_refusal_is_one_line(nodes):
    said = {
        "error": {"type": "prompt_outputs_failed_validation", "message": "Prompt outputs failed validation"},
        "node_errors": {
            "promptglass-clip": {
                "class_type": "CLIPLoader",
                "errors": [{"message": "Value not in list", "details": "clip_name: 'a'\nnot in []"}],
            }
        },
    }
    expected = "CLIPLoader: Value not in list: clip_name: 'a' not in []"
    assert nodes.routes.host_error(said) == expected
    assert nodes.routes.host_error({"error": {"message": "No prompt provided"}}) == "No prompt provided"
    assert nodes.routes.host_error({"error": "no"}) == "no"
    assert nodes.routes.host_error(None) == "it gives no reason."


# -- what they report ----------------------------------------------------------------------------------------

CARD = {"title": "fast", "text": "a cat"}


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def entry(graph: dict[str, Any], outputs: dict[str, Any], *messages: tuple[str, dict[str, Any]]) -> Any:
    status = {"status_str": "success", "completed": True, "messages": [list(message) for message in messages]}
    return {"prompt": (1, "id", graph, {}, []), "outputs": outputs, "status": status}


def done(image: str = "cat.png", **card: Any) -> Any:
    graph = {"1": node("LoadImage", image=image), "2": node("PromptglassInterrogate", image=["1", 0])}
    ended = ("execution_success", {"timestamp": 1_700_000_000_000})
    return entry(graph, {"2": {"promptglass": [CARD | card]}}, ended)


def failed(kind: str, error: str, graph: dict[str, Any] | None = None, name: str = "2") -> Any:
    graph = graph or {"1": node("LoadImage", image="cat.png"), name: node(kind, image=["1", 0])}
    said = {"node_id": name, "node_type": kind, "exception_message": f"{error}\n", "exception_type": "X"}
    return entry(graph, {}, ("execution_error", said))


def test_a_result_is_what_a_node_has_shown_and_its_picture(nodes):
    (result,) = nodes.history.results({"a": done("sub/cat.png [output]")}, 50)
    assert result == {
        "prompt_id": "a",
        "node": "2",
        "title": "Interrogate",
        "state": "done",
        "error": None,
        "at": "2023-11-14T22:13:20+00:00",
        "image": {"filename": "cat.png", "subfolder": "sub", "type": "output"},
        "cards": [CARD],
    }


def test_the_newest_come_first_and_no_more_than_were_asked_for(nodes):
    history = {str(number): done(text=str(number)) for number in range(300)}
    texts = [result["cards"][0]["text"] for result in nodes.history.results(history, 3)]
    assert texts == ["299", "298", "297"]
    assert len(nodes.history.results(history, 0)) == 1
    assert len(nodes.history.results(history, 10**9)) == 200


def test_failures_of_our_nodes_are_results_and_those_of_others_are_not(nodes):
    ours = failed("PromptglassInterrogate", "no captioner is here")
    results = nodes.history.results({"a": failed("KSampler", "out of memory"), "b": ours}, 50)
    assert [(result["prompt_id"], result["state"], result["error"]) for result in results] == [
        ("b", "failed", "no captioner is here")
    ]


def test_whatever_fails_in_our_graph_is_the_interrogation_of_its_picture(nodes):
    graph = made(nodes, "negative", nodes.jobs.Pair("a", "b"))
    history = {"a": failed("CLIPLoader", "broken file", graph, "promptglass-clip")}
    (result,) = nodes.history.results(history, 50)
    assert (result["title"], result["node"]) == ("Interrogate", "promptglass-interrogate")
    assert result["image"] == {"filename": "cat.png", "subfolder": "", "type": "temp"}


def test_an_interrupted_prompt_and_foreign_ones_are_no_results(nodes):
    graph = {"2": node("PromptglassInterrogate")}
    history = {
        "a": entry(graph, {}, ("execution_interrupted", {"node_id": "2", "timestamp": 1})),
        "b": entry({"1": node("SaveImage")}, {"1": {"images": [{"filename": "a.png"}]}}),
        "c": {"prompt": (1, "id", graph, {}, []), "outputs": {}, "status": None},
    }
    assert nodes.history.results(history, 50) == []


@pytest.mark.parametrize(
    ("raised", "shown"),
    [
        ("first\nlast line\n\n", "last line"),
        ("cannot open /home/me/secret place.bin", "cannot open secret place.bin"),
        ("[Errno 2] No such file: '/home/me/models/a.bin'", "[Errno 2] No such file: 'a.bin'"),
        (r"cannot open C:\Users\me\a.bin", "cannot open a.bin"),
        ("see https://example.org/a/b and 1/2", "see https://example.org/a/b and 1/2"),
    ],
)
def test_of_a_foreign_error_the_last_line_is_shown_without_folders(nodes, raised, shown):
    (result,) = nodes.history.results({"a": failed("PromptglassTags", raised)}, 1)
    assert result["error"] == shown


def test_the_picture_is_found_through_what_lies_between(nodes):
    graph = {
        "1": node("LoadImage", image="cat.png"),
        "2": node("ImageScale", image=["1", 0], width=8),
        "3": node("PromptglassCaption", image=["2", 0]),
        "4": node("PromptglassRefine", text=["3", 0], image=["2", 0]),
    }
    history = {"a": entry(graph, {"4": {"promptglass": [CARD]}})}
    (result,) = nodes.history.results(history, 1)
    assert result["image"]["filename"] == "cat.png"


def test_a_picture_made_in_the_graph_is_shown_as_it_was_saved(nodes):
    graph = {
        "1": node("KSampler", model=["2", 0], latent_image=["1", 0]),  # a circle ends nobody's search
        "2": node("VAEDecode", samples=["1", 0]),
        "3": node("SaveImage", images=["2", 0]),
        "4": node("PromptglassInterrogate", image=["2", 0]),
    }
    saved = {"filename": "out_1.png", "subfolder": "day", "type": "output"}
    history = {"a": entry(graph, {"3": {"images": [saved]}, "4": {"promptglass": [CARD]}})}
    assert nodes.history.results(history, 1)[0]["image"] == saved
    history = {"a": entry(graph, {"4": {"promptglass": [CARD]}})}
    assert nodes.history.results(history, 1)[0]["image"] is None


def test_an_error_is_a_status_and_one_line(nodes):
    async def answered(error: Exception) -> Any:
        async def answer(request: Any) -> Any:
            raise error

        class Request:
            method, path = "GET", "/promptglass/health"

        return await nodes.routes._answered(answer, Request())

    errors = nodes.jobs
    missing = errors.ImageError("cat.png", "gone")
    assert asyncio.run(answered(missing)) == (404, {"error": "cannot read cat.png: gone"})
    assert asyncio.run(answered(errors.InputError("no"))) == (400, {"error": "no"})
    assert asyncio.run(answered(errors.WeightsMissing("get it"))) == (409, {"error": "get it"})
    status, content = asyncio.run(answered(KeyError("/home/me/secret")))
    assert status == 500
    assert "secret" not in content["error"]


class Body:
    def __init__(self, content: bytes) -> None:
        self.content = self
        self._content = content

    async def iter_chunked(self, size: int) -> Any:
        for start in range(0, len(self._content), size):
            yield self._content[start : start + size]


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"{" * 10, "not JSON"),
        (b"[" * 60_000, "not JSON"),
        (b"\xff", "not JSON"),
        (b"[]", "JSON object"),
        (b'{"a": "' + b" " * 70_000 + b'"}', "longer than 64 KB"),
    ],
)
def test_what_is_no_question_is_refused(nodes, sent, reason):
    with pytest.raises(nodes.jobs.InputError, match=reason):
        asyncio.run(nodes.routes._body(Body(sent)))


def test_wildcard_files_are_counted_by_their_lines(nodes, tmp_path):
    (tmp_path / "promptglass").mkdir()
    (tmp_path / "promptglass" / "best.txt").write_text("# a comment\na cat\n\na dog\n")
    (tmp_path / "promptglass.tables.artists.yaml").write_text("promptglass/tables/artists: [Hokusai]\n")
    (tmp_path / "promptglass" / "broken.json").write_text("{")
    (tmp_path / "theirs.txt").write_text("x\n")
    assert nodes.routes._wildcard_files(tmp_path) == [
        {"name": "promptglass/best", "lines": 2},
        {"name": "promptglass/broken", "lines": None},
        {"name": "promptglass/tables/artists", "lines": 1},
    ]
