"""What the nodes that look at pictures answer: run as the host runs them, with a host that is made up."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import noise, tiny_encoder
from fakes.comfyui_running import Nodes
from fakes.comfyui_running import nodes as nodes  # a fixture
from fakes.word_encoder import WordEncoder, paint, show
from families import write_transformers_model
from test_caption import write_captioner
from test_tagger import BLUE, model_folder

LISTS = {
    "artists": ["Ada Bloom", "Carl Dane"],
    "flavors": [f"flavor{n}" for n in range(40)],
    "mediums": ["a photo", "an etching"],
    "movements": ["cubism"],
    "negative": ["blurry", "cropped"],
}
CAPTIONER, OWN = "Salesforce--blip-image-captioning-large", "openai--clip-vit-large-patch14"
TAGGER = "SmilingWolf/wd-vit-tagger-v3"


@pytest.fixture(autouse=True)
def word_lists(nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, labels in LISTS.items():
        place = tmp_path / "lists" / f"{name}.txt"
        place.parent.mkdir(exist_ok=True)
        place.write_text("\n".join(labels))
    tables = nodes.module("promptglass.clip.tables")
    monkeypatch.setattr(tables, "_reference_data", lambda: tmp_path / "lists")


def tensor(*pictures: Any) -> torch.Tensor:
    """One batch [B, H, W, 3]."""
    return torch.stack([torch.from_numpy(np.asarray(picture, np.float32) / 255) for picture in pictures])


# -- models, and what is here --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("node", "inputs"),
    [
        ("Caption", {}),
        ("Tags", {"tagger": TAGGER}),
        ("Score", {"texts": "a"}),
        ("Classify", {}),
        ("Interrogate", {"caption": "a cat"}),
    ],
)
def test_no_node_fetches_a_model(nodes: Nodes, monkeypatch: Any, node: str, inputs: dict[str, Any]) -> None:
    fetched: list[str] = []
    monkeypatch.setattr(nodes.module("promptglass.weights"), "get", lambda name, *_: fetched.append(name))
    with nodes.refused(r"is not here: .*, or get it: .*models get "):
        nodes.run(node, image=paint("cat"), **inputs)
    assert fetched == []


def test_a_caption_is_missed_only_where_none_is_connected(nodes: Nodes) -> None:
    inputs = {"image": [paint("cat"), paint("dog")], "encoder": nodes.clip(WordEncoder())}
    assert nodes.run("Interrogate", caption="a cat", **inputs)["prompt"]
    with nodes.refused("blip-large is not here"):
        nodes.run("Interrogate", caption=["a cat", ""], **inputs)


def test_captions_are_written_by_the_captioner_that_is_here(nodes: Nodes, tmp_path: Path) -> None:
    write_captioner(tmp_path / "models" / CAPTIONER, "blip")
    ran = nodes.run("Caption", image=[tensor(noise(1), noise(2)), tensor(noise(3, (9, 20)))])
    assert len(ran["caption"]) == len(ran["answers"]) == 3
    assert [card["text"] for card in ran.cards] == ran.text == ran["caption"]
    assert [(answer.mode, answer.model) for (answer,) in ran["answers"]] == [("caption", "blip-large")] * 3
    clip = nodes.clip(tiny_encoder())
    mode = nodes.run("Interrogate", image=tensor(noise(2)), mode="caption", encoder=clip)
    assert mode["prompt"] == [ran["caption"][1]]
    assert json.loads(mode["scores"][0])["settings"]["captioner"] == "blip-large"


def test_without_an_encoder_the_own_model_of_that_name_answers(nodes: Nodes, tmp_path: Path) -> None:
    write_transformers_model(tmp_path / "models" / OWN, "transformers")
    ran = nodes.run("Score", image=tensor(noise(1), noise(2)), texts="a cat\na dog")
    assert [card["model"] for card in ran.cards] == ["openai/clip-vit-large-patch14"] * 2
    assert all(-1 <= score <= 1 for score in ran["score"])


@pytest.mark.parametrize(("connected", "missing"), [("clip", "CLIP_VISION"), ("clip_vision", "CLIP")])
def test_one_tower_alone_is_not_enough(nodes: Nodes, connected: str, missing: str) -> None:
    with nodes.refused(f"connect a {missing}, too"):
        nodes.run("Score", image=paint("cat"), texts="a", **{connected: object()})


# -- the host's pair -----------------------------------------------------------------------------------------


def host_pair(nodes: Nodes, monkeypatch: Any, encoder: WordEncoder, **patches: Any) -> dict[str, Any]:
    """CLIP and CLIP_VISION, 8 wide, over which the encoder is the one that can be made."""
    layer = torch.nn.Linear(8, 8)
    model = SimpleNamespace(text_model=SimpleNamespace(final_layer_norm=None), text_projection=layer)
    patcher = SimpleNamespace(patches_uuid="0", load_device="cpu", patches=patches)
    clip = SimpleNamespace(
        cond_stage_model=SimpleNamespace(clip_l=SimpleNamespace(transformer=model)), patcher=patcher
    )
    monkeypatch.setattr(nodes.module("promptglass.clip.graph_encoder"), "GraphEncoder", lambda *_: encoder)
    for pair in nodes.module("promptglass.clip.self_test").PAIRS:
        show(pair.draw(), pair.caption)
    return {"clip": clip, "clip_vision": SimpleNamespace(model=SimpleNamespace(visual_projection=layer))}


def test_a_pair_is_checked_once_and_its_encoder_says_what_was_taken(nodes: Nodes, monkeypatch: Any) -> None:
    encoder = WordEncoder()
    pair = host_pair(nodes, monkeypatch, encoder)
    first, again = nodes.run("Encoder", **pair), nodes.run("Encoder", **pair)
    assert first["encoder"] is again["encoder"]
    assert len(encoder.seen) == 16
    assert first["text"] == "comfyui/clip_l-00000000, projection: the CLIP's own"
    nodes.run("Score", image=paint("cat"), texts="a", **pair)
    assert len(encoder.seen) == 17


def test_a_pair_that_does_not_meet_is_refused_with_the_file_to_get(nodes: Nodes, monkeypatch: Any) -> None:
    pair = host_pair(nodes, monkeypatch, WordEncoder(is_blind=True))
    with nodes.refused(r"do not work together: the CLIP's own: .*Get .*clip-vit-large-patch14\.safetensors"):
        nodes.run("Encoder", **pair)
    with nodes.refused("do not work together"):
        nodes.run("Score", image=paint("cat"), texts="a", **pair)


def test_a_projection_that_is_gone_is_an_error_of_its_own(nodes: Nodes, monkeypatch: Any) -> None:
    pair = host_pair(nodes, monkeypatch, WordEncoder())
    with nodes.refused("there is no file clip_vision/old.safetensors any more"):
        nodes.run("Encoder", **pair, projection="clip_vision/old.safetensors")


@pytest.mark.parametrize(("patches", "is_kept"), [({}, True), ({"a.weight": "a LoRA"}, False)])
def test_of_a_patched_clip_nothing_is_kept_on_disk(
    nodes: Nodes, monkeypatch: Any, tmp_path: Path, patches: dict[str, Any], is_kept: bool
) -> None:
    pair = host_pair(nodes, monkeypatch, WordEncoder(), **patches)
    nodes.run("Interrogate", image=paint("cat"), mode="tables", **pair)
    kept = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert bool(kept) == is_kept


# -- interrogate ---------------------------------------------------------------------------------------------


def interrogated(nodes: Nodes, encoder: Any = None, **inputs: Any) -> Any:
    given = {"image": paint("flavor3 etching"), "caption": "a cat", **inputs}
    return nodes.run("Interrogate", encoder=nodes.clip(encoder or WordEncoder()), **given)


def labels_of(prompt: str) -> list[str]:
    return prompt.split(", ")[1:]


def test_the_nearest_labels_follow_the_caption(nodes: Nodes) -> None:
    ran = interrogated(nodes)
    caption, first, *_ = ran["prompt"][0].split(", ")
    assert (caption, first) == ("a cat", "flavor3")
    scores, winners = (json.loads(ran[name][0]) for name in ("scores", "winners"))
    assert scores["prompt"] == ran["prompt"][0] == ran.text[0]
    assert (scores["mode"], scores["model"], scores["caption"]) == ("fast", "words", "a cat")
    assert {table: next(iter(labels)) for table, labels in winners.items()}["mediums"] == "an etching"
    assert [answer.mode for answer in ran["answers"][0]] == ["tables", "negative", "fast"]
    assert ran.cards[0]["negative"] == ran["negative"][0] != ""


def test_a_negative_that_is_not_wanted_costs_nothing(nodes: Nodes) -> None:
    wanted, unwanted = WordEncoder(), WordEncoder()
    assert interrogated(nodes, wanted)["negative"] != [""]
    ran = interrogated(nodes, unwanted, with_negative=False)
    assert ran["negative"] == [""]
    assert wanted.continued > 0 == unwanted.continued
    assert "negative" not in ran.cards[0]
    assert [answer.mode for answer in ran["answers"][0]] == ["tables", "fast"]


@pytest.mark.parametrize("tables", ["mediums", "mediums,movements", "none"])
def test_tables_without_negatives_leave_the_negative_out(nodes: Nodes, tables: str) -> None:
    ran = interrogated(nodes, tables=tables, own_labels="blue\nred", with_negative=True)
    assert ran["negative"] == [""]
    assert set(json.loads(ran["winners"][0])) == {"own", *tables.replace("none", "own").split(",")}


@pytest.mark.parametrize(
    ("mode", "asked", "count"),
    [
        ("fast", 0, 32),
        ("classic", 0, 3),
        ("fast", 5, 5),
        ("classic", 5, 5),
        ("best", 4, 4),
        ("negative", 2, 2),
    ],
)
def test_there_are_as_many_flavors_as_asked_for(nodes: Nodes, mode: str, asked: int, count: int) -> None:
    ran = interrogated(nodes, mode=mode, max_flavors=asked)
    assert json.loads(ran["scores"][0])["settings"]["max_flavors"] == count
    prompt = ran["prompt"][0]
    if mode == "fast":
        assert len(labels_of(prompt)) == count
    elif mode == "classic":
        assert prompt.count("flavor") == count
    elif mode == "best":
        assert len(labels_of(prompt)) <= count + 4


def test_one_caption_goes_to_all_pictures_and_several_to_each_its_own(nodes: Nodes) -> None:
    pictures = [paint("red"), paint("blue")]
    ran = interrogated(nodes, image=pictures, caption=["one", "two"], mode="caption")
    assert ran["prompt"] == ["one", "two"]
    assert [json.loads(scores)["caption"] for scores in ran["scores"]] == ["one", "two"]
    assert interrogated(nodes, image=pictures, caption="both", mode="caption")["prompt"] == ["both", "both"]
    with nodes.refused("3 captions for 2 pictures: give one for each, or one for all"):
        interrogated(nodes, image=pictures, caption=["one", "two", "three"])


def test_a_caption_alone_needs_no_labels(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes.module("promptglass.clip.tables"), "_reference_data", lambda: None)
    encoder = WordEncoder()
    interrogated(nodes, encoder, mode="caption")
    assert encoder.read == ["a cat"]


def test_own_labels_are_ranked_with_the_others_or_alone(nodes: Nodes) -> None:
    picture = paint("zebra flavor7")
    both = interrogated(nodes, image=picture, own_labels="zebra\n\n tiger \nzebra")
    assert {*labels_of(both["prompt"][0])[:2]} == {"zebra", "flavor7"}
    alone = interrogated(nodes, image=picture, own_labels=["zebra\ntiger", "ant"], tables="none")
    assert labels_of(alone["prompt"][0])[0] == "zebra"
    assert Counter(labels_of(alone["prompt"][0])) == Counter(["zebra", "tiger", "ant"])
    with nodes.refused("there are no labels: choose tables, or give own_labels"):
        interrogated(nodes, tables="none")


@pytest.mark.parametrize("tables", ["flavors=/etc/passwd", "flavors+=list.txt", "x=a,mediums", "../a"])
def test_a_workflow_reads_no_files_by_its_tables(nodes: Nodes, tables: str) -> None:
    with nodes.refused("is no choice of tables: connect lists of your own to own_labels"):
        interrogated(nodes, tables=tables)


def test_tables_that_are_switched_off_say_nothing(nodes: Nodes) -> None:
    winners = json.loads(interrogated(nodes, tables="artists=off, flavors=off")["winners"][0])
    assert winners.keys() == {"mediums", "movements", "trendings"}
    with nodes.refused("there is no table cats"):
        interrogated(nodes, tables="cats")


def test_pictures_come_in_batches_and_lists_of_any_size_and_depth(nodes: Nodes) -> None:
    encoder = WordEncoder()
    batch = torch.cat([paint("flavor1"), paint("flavor2")])
    images = [batch, paint("flavor3", (9, 4)), paint("flavor4", channels=4), paint("flavor5", channels=1)]
    ran = interrogated(nodes, encoder, image=images)
    assert encoder.seen == [(6, 5), (6, 5), (9, 4), (6, 5), (6, 5)]
    assert [labels_of(prompt)[0] for prompt in ran["prompt"]] == [f"flavor{n}" for n in range(1, 6)]
    assert {len(output) for output in ran.outputs.values()} == {5}


def test_every_mode_answers_on_a_real_clip(nodes: Nodes) -> None:
    encoder = tiny_encoder()
    for mode in nodes.module("nodes.interrogating").MODES:
        ran = nodes.run(
            "Interrogate", image=tensor(noise(1)), mode=mode, caption="a cat", encoder=nodes.clip(encoder)
        )
        assert ran["prompt"] == [ran.cards[0]["text"]] != [""]
        assert (ran["negative"] != [""]) == (mode != "caption"), mode
        assert mode in [answer.mode for answer in ran["answers"][0]]


def test_an_interrupt_ends_an_interrogation(nodes: Nodes) -> None:
    nodes.host.interrupt = KeyError("the user's wish")
    with pytest.raises(KeyError, match="wish"):
        interrogated(nodes)


# -- classify and score --------------------------------------------------------------------------------------


def classified(nodes: Nodes, picture: str, **inputs: Any) -> Any:
    return nodes.run("Classify", image=paint(picture), encoder=nodes.clip(WordEncoder()), **inputs)


def test_own_labels_compete_and_show_their_own_emoji(nodes: Nodes) -> None:
    ran = classified(nodes, "fox", categories="own labels only", labels="cat\nfox = 🛸\ndog\nant", top=2)
    assert ran["label"] == ["fox"]
    [line] = ran["text"][0].splitlines()
    assert line.startswith("labels: 🛸 fox ") and line.count(",") == 1
    shown = ran.cards[0]["bars"]
    assert (len(shown), shown[0]["label"], shown[0]["emoji"], shown[0]["group"]) == (2, "fox", "🛸", "labels")
    scores = json.loads(ran["scores"][0])["labels"]
    assert {entry["label"] for entry in scores} == {"cat", "fox", "dog", "ant"}
    assert sum(entry["confidence"] for entry in scores) == pytest.approx(1, abs=1e-4)
    [[answer]] = ran["answers"]
    assert (answer.mode, answer.details["labels"][0]["label"]) == ("categories", "fox")
    with nodes.refused("the list of labels is empty"):
        classified(nodes, "fox", categories="own labels only")


def test_a_category_is_chosen_from_all_of_its_labels(nodes: Nodes) -> None:
    categories = nodes.module("promptglass.clip.classifier").categories()
    [mood] = [name for name in categories if name == "mood"]
    label = categories[mood].labels[3]
    ran = classified(nodes, label, categories=mood, labels="cat")
    scores = json.loads(ran["scores"][0])
    assert [*scores] == ["mood", "labels"]
    assert {entry["label"] for entry in scores["mood"]} == {*categories[mood].labels}
    assert ran["label"] == [f"{label}, cat"]
    every = json.loads(classified(nodes, label)["scores"][0])
    assert [*every] == [*categories]


def scored(nodes: Nodes, *pictures: str, **inputs: Any) -> Any:
    return nodes.run("Score", image=[*map(paint, pictures)], encoder=nodes.clip(WordEncoder()), **inputs)


def test_texts_are_ranked_for_each_picture(nodes: Nodes) -> None:
    texts = "blue dog\n\nred cat\n red cat "
    ran = scored(nodes, "red cat", "dog", texts=texts, more_texts=["a red\n cat", ""])
    assert ran["best"] == ["red cat", "blue dog"]
    assert ran["score"][0] == pytest.approx(1)
    ranked = json.loads(ran["scores"][0])
    assert [*ranked] == ["red cat", "a red cat", "blue dog"]
    assert [*ranked.values()] == sorted(ranked.values(), reverse=True)
    assert (ran.cards[1]["text"], ran.cards[1]["model"]) == ("blue dog", "words")


def test_without_texts_there_is_nothing_to_compare(nodes: Nodes) -> None:
    for more in (None, ["", " \n"]):
        with nodes.refused("there are no texts to compare"):
            nodes.run("Score", image=paint("a"), texts=" \n", **({"more_texts": more} if more else {}))


# -- tags and colours ----------------------------------------------------------------------------------------


def test_tags_are_as_sure_as_asked_for(nodes: Nodes, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    model_folder(tmp_path / "models" / TAGGER.replace("/", "--"))
    picture = torch.tensor([*BLUE]).expand(1, 9, 9, 3) / 255 * 0.6
    found = {}
    for threshold in (0.55, 0.7, 0.4):
        ran = nodes.run("Tags", image=picture, tagger=TAGGER, threshold=threshold)
        found[threshold] = ran["tags"][0]
        [[answer]] = ran["answers"]
        assert answer.settings == {"threshold": threshold}
        assert json.loads(ran["scores"][0])[0]["category"] == "rating"
    assert found == {0.55: "blue sky", 0.7: "", 0.4: "blue sky"}


def test_a_palette_has_so_many_colours_at_most(nodes: Nodes) -> None:
    stripes = torch.zeros(1, 30, 30, 3)
    for place, colour in enumerate(([1, 0, 0], [0, 1, 0], [0, 0, 1])):
        stripes[:, 10 * place : 10 * place + 10] = torch.tensor(colour, dtype=torch.float32)
    three, one = (nodes.run("Palette", image=stripes, colours=count) for count in (6, 1))
    assert len(json.loads(three["colours"][0])) == len(three["names"][0].split(", ")) == 3
    assert len(json.loads(one["colours"][0])) == 1
    assert three.cards[0]["colours"] == json.loads(three["colours"][0])


def test_a_node_shows_24_cards_and_counts_the_rest(nodes: Nodes) -> None:
    ran = nodes.run("Palette", image=torch.rand(30, 4, 4, 3))
    assert (len(ran.cards), len(ran["names"]), ran.text) == (24, 30, ran["names"])
    assert ran.cards[-1]["note"] == "and 6 more"
    assert "note" not in ran.cards[-2]
    assert ran.cards[-1]["text"] == ran["names"][23]
    assert nodes.host.bars[-1] == (30, 30)
