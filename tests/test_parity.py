"""The same prompts as clip-interrogator 0.6.0 on the same weights, and right where it is wrong."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

clip_interrogator = pytest.importorskip("clip_interrogator")

import open_clip  # noqa: E402
from conftest import noise, tiny_open_clip, tiny_preprocess  # noqa: E402

from promptglass import Interrogator, OpenClipEncoder, Vocabulary  # noqa: E402
from promptglass.clip.tables import default_tables  # noqa: E402

CAPTIONS = [
    "a painting of a cat sitting on a chair",
    "a man's dog, it's asleep.",
    "SCREAMING Upper Case Caption!",
    "3 people and 42 birds in 1984",
    "café à la plage, naïve ☕ 猫",
    "a photo of fish & chips <3 &amp; more",
    "ends in punctuation...",
    "a (very:1.2) [odd] {caption}, with, commas,",
    "fine art of a house",
    " ".join(f"long caption word{i}" for i in range(40)),
    ", ".join(f"part {i}" for i in range(30)),
    "a b c d e f g h i j k l m n o p q r s t u v w x y z " * 2 + "and so on",
]


def reference(model, data: Path, pool_size: int):
    """clip-interrogator over a model that exists and lists of our choice."""
    config = clip_interrogator.Config()
    config.clip_model, config.clip_preprocess = model, tiny_preprocess
    config.caption_model_name = None
    config.cache_path, config.download_cache = None, False
    config.data_path = str(data)
    config.device, config.quiet = "cpu", True
    config.flavor_intermediate_count = pool_size
    return clip_interrogator.Interrogator(config)


def write_lists(folder: Path, tables: dict[str, list[str]]) -> None:
    for name in ("artists", "flavors", "mediums", "movements", "negative"):
        (folder / f"{name}.txt").write_text("\n".join(tables[name]) + "\n", encoding="utf-8")


def sampled_tables(seed: int, flavors: int) -> dict[str, list[str]]:
    """A draw from the real lists, without texts CLIP cannot tell apart: there the reference tosses a coin."""
    real, rng = default_tables(), random.Random(seed)
    seen: set[str] = set()

    def draw(labels: list[str], count: int) -> list[str]:
        fresh = [x for x in labels if x.casefold() not in seen]
        drawn = rng.sample(fresh, min(count, len(fresh)))
        seen.update(x.casefold() for x in drawn)
        return drawn

    seen.update(x.casefold() for x in real["trendings"])
    return {
        "artists": [x.removeprefix("by ") for x in draw(real["artists"][:5265], 30)],
        "mediums": draw(real["mediums"], 20),
        "movements": draw(real["movements"], 20),
        "negative": draw(real["negative"], 20),
        "flavors": draw(real["flavors"], flavors),
    }


def pair(seed: int, tmp_path: Path, flavors: int, pool_size: int, **model_options):
    """The reference and ours over one model and one set of lists."""
    model = tiny_open_clip(seed, **model_options)
    lists = sampled_tables(seed, flavors)
    write_lists(tmp_path, lists)
    theirs = reference(model, tmp_path, pool_size)
    encoder = OpenClipEncoder(model, tiny_preprocess, open_clip.get_tokenizer("ViT-L-14"), "ViT-L-14/openai")
    tables = {
        name: getattr(theirs, name).labels
        for name in ("artists", "flavors", "mediums", "movements", "trendings", "negative")
    }
    ours = Interrogator(encoder, Vocabulary(tables, encoder), pool="reference", pool_size=pool_size)
    return theirs, ours


# Arithmetic: another Python asks one seed.
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in (1, 2, 3))])
def test_prompts_equal_the_reference(seed: int, tmp_path: Path) -> None:
    theirs, ours = pair(seed, tmp_path, flavors=150, pool_size=48, quick_gelu=bool(seed % 2))
    for i, caption in enumerate(CAPTIONS):
        image = noise(100 * seed + i)
        (subject,) = ours.look([image], [caption])
        assert ours.fast([subject])[0].prompt == theirs.interrogate_fast(image, caption=caption)
        assert ours.classic([subject])[0].prompt == theirs.interrogate_classic(image, caption=caption)
        assert ours.best([subject])[0].prompt == theirs.interrogate(image, caption=caption)


@pytest.mark.long
@pytest.mark.parametrize("seed", [20, 21])
def test_long_vocabularies_equal_the_reference(seed: int, tmp_path: Path) -> None:
    """More labels than the reference ranks at a time, so that its first stage keeps a share of each chunk."""
    theirs, ours = pair(seed, tmp_path, flavors=5000, pool_size=60)
    assert len(ours.vocabulary.labels) > 2 * 2048
    for i, caption in enumerate(CAPTIONS[:3]):
        image = noise(100 * seed + i)
        (subject,) = ours.look([image], [caption])
        assert ours.fast([subject])[0].prompt == theirs.interrogate_fast(image, caption=caption)
        assert ours.classic([subject])[0].prompt == theirs.interrogate_classic(image, caption=caption)
        assert ours.best([subject])[0].prompt == theirs.interrogate(image, caption=caption)


@pytest.mark.parametrize(
    "options", [{"width": 128, "layers": 2}, {"width": 32, "layers": 5, "quick_gelu": True}]
)
def test_other_models_equal_the_reference(options: dict[str, int], tmp_path: Path) -> None:
    theirs, ours = pair(30, tmp_path, flavors=100, pool_size=80, **options)
    for i in range(6):
        image, caption = noise(900 + i), CAPTIONS[i % 2]
        (subject,) = ours.look([image], [caption])
        assert ours.fast([subject], max_flavors=6)[0].prompt == theirs.interrogate_fast(image, 6, caption)
        assert ours.classic([subject], max_flavors=5)[0].prompt == theirs.interrogate_classic(
            image, 5, caption
        )
        (best,) = ours.best([subject], min_flavors=2, max_flavors=9)
        assert best.prompt == theirs.interrogate(image, 2, 9, caption)


@pytest.mark.long
def test_the_reference_pool_is_its_two_stage_selection(tmp_path: Path) -> None:
    theirs, ours = pair(40, tmp_path, flavors=4500, pool_size=2048)
    image = noise(7)
    (subject,) = ours.look([image])
    ours._score_labels([subject])
    merged = clip_interrogator.clip_interrogator._merge_tables(
        [theirs.artists, theirs.flavors, theirs.mediums, theirs.movements, theirs.trendings], theirs
    )
    expected = merged.rank(theirs.image_to_features(image), 2048)
    found = ours._ranked(subject, ours.vocabulary.merged, 2048)
    assert set(found) == set(expected) and found[:200] == expected[:200]
    exact = Interrogator(ours.encoder, ours.vocabulary)._ranked(subject, ours.vocabulary.merged, 2048)
    assert set(exact) != set(found) and exact[:50] == found[:50]


def test_the_references_negative_stays_at_its_first_label() -> None:
    """docs/modes.md says so: the first score is compared without its sign."""
    theirs = clip_interrogator.Interrogator.__new__(clip_interrogator.Interrogator)
    theirs.config = clip_interrogator.Config()
    theirs.config.quiet, theirs.tokenize = True, open_clip.get_tokenizer("ViT-L-14")
    theirs._prepare_clip = lambda: None
    theirs.rank_top = lambda features, texts, reverse: min(texts)
    theirs.similarity = lambda features, text: 0.2 / (1 + text.count(","))  # ever less like the picture
    assert theirs.chain(None, ["a", "b", "c"], max_count=2, reverse=True) == "a"
