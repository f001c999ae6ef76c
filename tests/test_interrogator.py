"""The modes beyond parity: the exact pool, negatives, captions, evidence, determinism."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
import types
from unittest import mock

import pytest
import torch
from conftest import noise, tiny_encoder, tiny_open_clip, tiny_preprocess
from hypothesis import given, settings
from hypothesis import strategies as st

from promptglass import Interrogator, OpenClipEncoder, Vocabulary
from promptglass.clip.chain import Chain, grow
from promptglass.errors import CaptionerMissing, InputError, ModelError
from promptglass.progress import silent

FLAVORS = [
    f"{a} {b}"
    for a in ("red", "blue", "soft", "epic", "tiny", "vast", "old")
    for b in ("sky", "cat", "sea", "art")
]
ALIKE = [word for label in FLAVORS for word in (label, label.upper())]
TABLES = {
    "artists": ["by Ann Onym", "by Joe Bloggs"],
    "flavors": FLAVORS,
    "mediums": ["an oil painting", "a photo"],
    "movements": ["cubism", "realism"],
    "trendings": ["behance", "pixiv"],
    "negative": ["blurry", "extra fingers"],
}


class Parrot:
    """A captioner that says what it is told, and counts."""

    name = "parrot"

    def __init__(self) -> None:
        self.asked = 0

    def caption(self, images):
        self.asked += len(images)
        return [f"a picture {image.size[0]} wide" for image in images]


@pytest.fixture(scope="module")
def interrogator() -> Interrogator:
    encoder = tiny_encoder(1)
    return Interrogator(encoder, Vocabulary(TABLES, encoder))


def test_fast_takes_the_true_best_labels(interrogator: Interrogator) -> None:
    (subject,) = interrogator.look([noise(1)], ["a cat"])
    (found,) = interrogator.fast([subject], max_flavors=5)
    merged = [
        label
        for name in ("artists", "flavors", "mediums", "movements", "trendings")
        for label in TABLES[name]
    ]
    scores = interrogator.encoder.encode_texts(merged) @ subject.features
    expected = [merged[i] for i in scores.argsort(descending=True)[:5]]
    assert found.prompt == ", ".join(["a cat", *expected])


def test_classic_takes_one_of_each_table(interrogator: Interrogator) -> None:
    (found,) = interrogator.classic([noise(1)], ["a cat"])
    caption, medium_and_artist, trending, movement, *flavors = found.prompt.split(", ")
    assert caption == "a cat"
    assert any(medium_and_artist == f"{m} {a}" for m in TABLES["mediums"] for a in TABLES["artists"])
    assert trending in TABLES["trendings"] and movement in TABLES["movements"]
    assert len(flavors) == 3 and set(flavors) <= set(FLAVORS)


def test_best_is_at_least_as_close_as_what_it_chose_from(interrogator: Interrogator) -> None:
    for i in range(3):
        subjects = interrogator.look([noise(i)], ["a cat on a mat"])
        (best,) = interrogator.best(subjects)
        compared = set(subjects[0].scores)
        others = [interrogator.caption(subjects)[0], interrogator.fast(subjects)[0]]
        others += interrogator.classic(subjects, max_flavors=32)
        assert best.score >= max(other.score for other in others) - 1e-6
        assert others[-1].prompt in compared  # classic with as many flavors as the chain may have


@pytest.mark.parametrize("least", [False, True])
def test_the_chain_is_greedy(interrogator: Interrogator, least: bool) -> None:
    """Against the plainest possible loop over whole prompts."""
    (subject,) = interrogator.look([noise(5)], ["a cat"])
    encoder, sign = interrogator.encoder, -1 if least else 1
    labels = [label for label in interrogator.vocabulary.labels if label not in TABLES["negative"]]

    def score(text: str) -> float:
        return sign * (encoder.encode_texts([text])[0] @ subject.features).item()

    left, prompt, best = [*labels], "a cat", "a cat"
    for step in range(10):
        before, scores = score(prompt), [score(f"{prompt}, {label}") for label in left]
        prompt += f", {left.pop(scores.index(max(scores)))}"
        if max(scores) > score(best):
            best = prompt
        if max(scores) <= before and step >= 2:
            break
    chain = Chain(subject.features, labels, "a cat", sign * score("a cat"), least)
    grow([chain], encoder, 2, 10, silent)
    assert (chain.prompt, chain.best) == (prompt, best)
    assert chain.best_score == pytest.approx(sign * score(best), abs=1e-5)


def test_negative_chains_the_least_alike(interrogator: Interrogator) -> None:
    (subject,) = interrogator.look([noise(2)])
    (found,) = interrogator.negative([subject])
    labels = FLAVORS + TABLES["negative"]
    scores = dict(
        zip(labels, (interrogator.encoder.encode_texts(labels) @ subject.features).tolist(), strict=True)
    )
    assert found.prompt.split(", ")[0] == min(labels, key=scores.__getitem__)
    assert found.score <= min(scores.values()) + 1e-6
    assert set(found.prompt.split(", ")) <= set(labels)


def test_negative_ranks_by_dissimilarity_with_a_small_pool_too() -> None:
    """The reference loses `reverse` in its last stage; with few candidates it then picks the wrong end."""
    encoder = tiny_encoder(1)
    small = Interrogator(encoder, Vocabulary(TABLES, encoder), pool="reference", pool_size=3)
    (subject,) = small.look([noise(2)])
    small.negative([subject])
    scores = (encoder.encode_texts(FLAVORS) @ subject.features).tolist()
    worst = sorted(FLAVORS, key=lambda label: scores[FLAVORS.index(label)])[:3]
    assert small._ranked_table(subject, "flavors", 3, least=True) == worst


def test_labels_clip_cannot_tell_apart_are_taken_once() -> None:
    encoder = tiny_encoder(1)
    tables = {"flavors": ["sky", "Sky", "SKY", "", "sea"], "mediums": ["sky"]}
    exact = Interrogator(encoder, Vocabulary(tables, encoder))
    (found,) = exact.fast([noise(1)], ["a cat"])
    assert sorted(found.prompt.split(", ")[1:]) == ["sea", "sky"]
    (subject,) = exact.look([noise(1)])
    exact._score_labels([subject])
    assert exact._ranked_table(subject, "mediums", 1) == ["sky"]  # once in each table of its own


def test_any_table_can_be_off(interrogator: Interrogator) -> None:
    encoder = interrogator.encoder
    for missing in TABLES:
        kept = {name: labels for name, labels in TABLES.items() if name != missing}
        fewer = Interrogator(encoder, Vocabulary(kept, encoder))
        subjects = fewer.look([noise(1)], ["a cat"])
        for mode in (fewer.fast, fewer.classic, fewer.best, fewer.negative):
            (found,) = mode(subjects)
            assert ", ," not in found.prompt and not found.prompt.endswith((", ", " "))
            for label in TABLES[missing]:
                assert label not in found.prompt.split(", ")
    only = Interrogator(encoder, Vocabulary({"mine": ["x"]}, encoder))
    assert only.fast([noise(1)], ["a cat"])[0].prompt == "a cat, x"
    assert only.classic([noise(1)], ["a cat"])[0].prompt == "a cat"
    with pytest.raises(InputError, match="negative"):
        only.negative([noise(1)])


def test_captions_are_given_made_or_asked_for() -> None:
    encoder, parrot = tiny_encoder(1), Parrot()
    images = [noise(1), noise(2, (50, 20))]
    speechless = Interrogator(encoder, Vocabulary(TABLES, encoder))
    with pytest.raises(CaptionerMissing, match="--caption"):
        speechless.fast(images)
    assert len(speechless.negative(images)) == 2  # needs none
    with pytest.raises(InputError, match="2 pictures but 1 captions"):
        speechless.fast(images, ["one"])
    talking = Interrogator(encoder, Vocabulary(TABLES, encoder), parrot)
    assert [found.prompt for found in talking.caption(images)] == ["a picture 40 wide", "a picture 50 wide"]
    subjects = talking.look(images, ["mine", ""])
    first, second = talking.fast(subjects)
    assert first.prompt.startswith("mine, ") and first.settings["caption"] == "mine"
    assert second.prompt.startswith("a picture 50 wide, ") and second.settings["captioner"] == "parrot"
    asked = parrot.asked
    talking.best(subjects)
    assert parrot.asked == asked  # written once for all modes


def test_several_pictures_are_as_one_by_one(interrogator: Interrogator) -> None:
    images, captions = [noise(i) for i in range(4)], [f"caption {i}" for i in range(4)]
    for mode in (interrogator.fast, interrogator.classic, interrogator.best):
        together = [found.prompt for found in mode(images, captions)]
        assert together == [mode([i], [c])[0].prompt for i, c in zip(images, captions, strict=True)]
    for mode in (interrogator.negative, interrogator.tables):
        assert [found.prompt for found in mode(images)] == [mode([i])[0].prompt for i in images]
    assert interrogator.best([], []) == interrogator.tables([]) == []


# From one word to more than the model reads: 77 tokens with start and end.
STARTS = ["a", "a cat", "an epic cat, soft sea", *(f"{'word ' * n}end" for n in (60, 70, 72, 73, 74, 75, 90))]


@st.composite
def chains_of_pictures(draw):
    """What to start chains from: (seed of the picture, caption, labels to choose from, least)."""
    labels = st.lists(st.sampled_from([*ALIKE, "naïve", "art &amp; craft", "x" * 200]), max_size=12)
    one = st.tuples(st.integers(0, 9), st.sampled_from(STARTS), labels, st.booleans())
    return draw(st.lists(one, min_size=1, max_size=6))


@settings(max_examples=60)
@given(starts=chains_of_pictures(), min_count=st.integers(0, 4), max_count=st.integers(0, 9))
def test_chains_in_step_grow_as_each_would_alone(starts, min_count: int, max_count: int) -> None:
    def chain(seed: int, caption: str, labels: list[str], least: bool) -> Chain:
        features = ENCODER.encode_images([noise(seed)])[0]
        return Chain(features, labels, caption, 1.0 if least else -1.0, least)

    together, alone = [chain(*start) for start in starts], [chain(*start) for start in starts]
    grow(together, ENCODER, min_count, max_count, silent)
    for one in alone:
        grow([one], ENCODER, min_count, max_count, silent)
    found, expected = (
        [(c.best, c.best_score, c.prompt, c.labels) for c in chains] for chains in (together, alone)
    )
    assert found == expected  # to the last bit


ENCODER = tiny_encoder(1)


def test_chains_of_different_lengths_grow_in_step() -> None:
    """One step of all, then the next; who has stopped, or is full, or has nothing left, is not asked."""
    encoder = Flat(worse=0.01)
    asked: list[str] = []
    features = encoder.encode_texts(["a"])[0]

    def encode_continuations(prefix: str, suffixes: list[str]) -> torch.Tensor:
        asked.append(prefix)
        return encoder.encode_texts([prefix + suffix for suffix in suffixes])

    encoder.encode_continuations = encode_continuations
    encoder.fills_context = lambda text: text.startswith("full") and text.count(",") >= 1
    chains = [
        Chain(features, ["x", "y", "z"], "long", -1.0),
        Chain(features, ["x"], "short", -1.0),
        Chain(features, ["x", "y", "z"], "full", -1.0),
        Chain(features, [], "none", -1.0),
    ]
    grow(chains, encoder, 2, 5, silent)
    assert asked == ["long, ", "short, ", "full, ", "long, x, ", "long, x, y, "]


def test_an_answer_carries_its_evidence(interrogator: Interrogator) -> None:
    (found,) = interrogator.best([noise(1)], ["a cat"])
    features = interrogator.encoder.encode_images([noise(1)])[0]
    assert found.mode == "best" and found.model == "ViT-L-14/openai"
    assert found.score == pytest.approx(
        (interrogator.encoder.encode_texts([found.prompt])[0] @ features).item(), abs=1e-6
    )
    assert found.elapsed_s > 0 and found.tables == {}
    assert json.loads(json.dumps(dataclasses.asdict(found)))["settings"]["pool"] == "exact"
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.prompt = "other"  # type: ignore[misc]


def test_the_chain_stops_where_the_model_reads_no_more(interrogator: Interrogator) -> None:
    caption = "word " * 75 + "end"
    (found,) = interrogator.best([noise(1)], [caption])
    assert found.prompt == caption
    with mock.patch.object(interrogator.encoder, "encode_continuations", side_effect=AssertionError):
        interrogator.best([noise(1)], [caption])  # not a single step is tried


class Flat:
    """An encoder to which all pictures and texts are alike, but for `worse` with every comma."""

    name = "flat"

    def __init__(self, worse: float = 0.0) -> None:
        self.worse = worse
        self.steps = 0

    def encode_texts(self, texts):
        angle = torch.tensor([0.1 + self.worse * text.count(",") for text in texts])
        return torch.stack([angle.cos(), angle.sin()], 1)

    def encode_continuations(self, prefix, suffixes):
        self.steps += 1
        return self.encode_texts([prefix + suffix for suffix in suffixes])

    def encode_images(self, images):
        return torch.tensor([[1.0, 0.0]] * len(images))

    def fills_context(self, text):
        return False


@pytest.mark.parametrize("min_flavors", [0, 1, 4])
def test_the_first_labels_are_taken_even_where_they_do_not_help(min_flavors: int) -> None:
    encoder = Flat(worse=0.01)
    interrogator = Interrogator(encoder, Vocabulary({"flavors": FLAVORS}, encoder))
    (found,) = interrogator.best([noise(1)], ["a cat"], min_flavors=min_flavors)
    assert found.prompt == "a cat"  # nothing was better
    assert encoder.steps == min_flavors + 1


def test_negative_says_nothing_twice() -> None:
    encoder = tiny_encoder(1)
    tables = {"flavors": ["sky", "blurry", "ugly", "sea", ""], "negative": ["blurry", "ugly", "sky", ""]}
    for pool in ("exact", "reference"):
        interrogator = Interrogator(encoder, Vocabulary(tables, encoder), pool=pool)
        for i in range(4):
            parts = interrogator.negative([noise(i)])[0].prompt.split(", ")
            assert len(parts) == len(set(parts)) and "" not in parts


def test_a_subject_belongs_to_who_looked_at_it(interrogator: Interrogator) -> None:
    other = Interrogator(interrogator.encoder, Vocabulary({"flavors": ["x"]}, interrogator.encoder))
    with pytest.raises(InputError, match="belongs to"):
        other.fast(interrogator.look([noise(1)], ["a cat"]))


def test_a_captioner_without_words_is_an_error() -> None:
    encoder, mute = tiny_encoder(1), Parrot()
    mute.caption = lambda images: [""] * len(images)
    with pytest.raises(ModelError, match="no words"):
        Interrogator(encoder, Vocabulary(TABLES, encoder), mute).fast([noise(1)])


def test_more_pictures_than_go_together(interrogator: Interrogator) -> None:
    images, captions = [noise(i) for i in range(70)], [f"picture {i}" for i in range(70)]
    found = interrogator.fast(images, captions, max_flavors=2)
    assert [answer.prompt.split(", ")[0] for answer in found] == captions


def test_progress_may_interrupt() -> None:
    encoder = tiny_encoder(1)

    def stop(what: str, done: int, total: int) -> None:
        if what == "growing the prompt" and done == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        Interrogator(encoder, Vocabulary(TABLES, encoder), progress=stop).best([noise(1)], ["a cat"])


def test_progress_tells_how_many_prompts_grow() -> None:
    encoder, seen = tiny_encoder(1), []
    interrogator = Interrogator(encoder, Vocabulary(TABLES, encoder), progress=lambda *at: seen.append(at))
    interrogator.negative([noise(1)], max_flavors=2)
    assert [at for at in seen if "grow" in at[0]] == [("growing the prompt", i, 2) for i in range(3)]
    seen.clear()
    interrogator.best([noise(1), noise(2), noise(3)], ["a", "b", "c"], max_flavors=2)
    assert [at[1] for at in seen] == [0, 0, 0, 1, 1, 1, 2]  # often enough to interrupt a long step
    assert {at[0] for at in seen} == {"growing 3 prompts"}


def test_pictures_share_the_time_that_their_group_took(interrogator: Interrogator) -> None:
    for mode in (interrogator.best, interrogator.fast):
        started = time.perf_counter()
        found = mode([noise(i) for i in range(4)], ["a", "b", "c", "d"])
        took_s = time.perf_counter() - started
        assert took_s / 2 < sum(answer.elapsed_s for answer in found) <= took_s
        assert len({answer.elapsed_s for answer in found}) == 1


def test_tables_hold_the_best_of_each(interrogator: Interrogator) -> None:
    features = interrogator.encoder.encode_images([noise(1)])[0]
    (found,) = interrogator.tables([noise(1)], count=3)
    assert [*found.tables] == ["artists", "flavors", "mediums", "movements", "trendings"]
    for name, labels in found.tables.items():
        cosines = interrogator.encoder.encode_texts(TABLES[name]) @ features
        order = cosines.argsort(descending=True)[:3].tolist()
        assert [*labels] == [TABLES[name][i] for i in order]
        assert [*labels.values()] == pytest.approx(cosines[order].tolist(), abs=1e-3)
    assert found.prompt == ", ".join(next(iter(labels)) for labels in found.tables.values())
    assert found.score == pytest.approx(
        (interrogator.encoder.encode_texts([found.prompt])[0] @ features).item(), abs=1e-6
    )
    assert found.settings == {"pool": "exact", "vocabulary": interrogator.vocabulary.id, "count": 3}
    assert json.loads(json.dumps(dataclasses.asdict(found)))["tables"] == found.tables
    (five,) = interrogator.tables([noise(1)])
    assert len(five.tables["flavors"]) == 5


def test_tables_of_ones_own_and_labels_that_read_alike() -> None:
    encoder = tiny_encoder(1)
    tables = {
        "flavors": ["", "sky", "Sky", "SKY", "sea", "sea"],
        "mine": ["sky"],
        "none": [""],
        "negative": ["z"],
    }
    for pool in ("exact", "reference"):
        (found,) = Interrogator(encoder, Vocabulary(tables, encoder), pool=pool).tables([noise(1)])
        assert [*found.tables] == ["flavors", "mine", "none"] and "" not in found.tables["flavors"]
        assert found.tables["none"] == {} and [*found.tables["mine"]] == ["sky"]
        parts = found.prompt.split(", ")
        assert len(parts) == len(set(parts)) and "" not in parts
        if pool == "exact":
            assert sorted(found.tables["flavors"]) == ["sea", "sky"]
    twice = Vocabulary({"flavors": ["sky"], "mine": ["sky"]}, encoder)
    assert Interrogator(encoder, twice).tables([noise(1)])[0].prompt == "sky"
    with pytest.raises(InputError, match="besides negative"):
        Interrogator(encoder, Vocabulary({"negative": ["z"]}, encoder)).tables([noise(1)])


def test_tables_rank_as_the_references_do() -> None:
    ci = pytest.importorskip("clip_interrogator").clip_interrogator
    import open_clip

    model = tiny_open_clip(3)
    encoder = OpenClipEncoder(model, tiny_preprocess, open_clip.get_tokenizer("ViT-L-14"), "tiny")
    config = types.SimpleNamespace(
        chunk_size=2048, device="cpu", clip_model_name="tiny", cache_path=None, quiet=True
    )
    clip = types.SimpleNamespace(
        clip_model=model, config=config, tokenize=open_clip.get_tokenizer("ViT-L-14")
    )
    for pool in ("exact", "reference"):
        (found,) = Interrogator(encoder, Vocabulary(TABLES, encoder), pool=pool).tables([noise(4)], count=4)
        for name, labels in found.tables.items():
            table = ci.LabelTable(list(TABLES[name]), None, clip)
            assert [*labels] == table.rank(encoder.encode_images([noise(4)]), 4)


def test_unknown_pool(interrogator: Interrogator) -> None:
    with pytest.raises(InputError, match="exact or reference"):
        Interrogator(interrogator.encoder, interrogator.vocabulary, pool="deep")


HASHED = """
import sys
sys.path.insert(0, "tests")
from test_interrogator import *
encoder = tiny_encoder(1)
tables = {**TABLES, "flavors": ALIKE}
interrogator = Interrogator(encoder, Vocabulary(tables, encoder), pool="reference")
subjects = interrogator.look([noise(1)], ["a cat"])
for mode in ("best", "fast", "classic", "negative"):
    print(getattr(interrogator, mode)(subjects)[0].prompt)
"""


@pytest.mark.long
def test_the_hash_seed_changes_nothing() -> None:
    answers = set()
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        run = subprocess.run(
            [sys.executable, "-c", HASHED], env=environment, capture_output=True, text=True, check=True
        )
        answers.add(run.stdout)
    assert len(answers) == 1


def test_identical_scores_go_to_the_first_label() -> None:
    flat = Flat()
    (found,) = Interrogator(flat, Vocabulary({"flavors": FLAVORS}, flat)).fast(
        [noise(1)], ["a"], max_flavors=4
    )
    assert found.prompt.split(", ")[1:] == FLAVORS[:4]


def test_labels_that_read_alike_go_to_the_first_in_a_chain() -> None:
    """Wherever they stand: a matrix product rounds equal rows differently."""
    encoder = tiny_encoder(1)
    labels = [word for label in FLAVORS for word in (label, label.upper(), label.title())]
    interrogator = Interrogator(encoder, Vocabulary({"flavors": labels}, encoder), pool="reference")
    for i in range(4):
        (subject,) = interrogator.look([noise(i)])
        chain = Chain(subject.features, labels, "a cat", -1.0)
        grow([chain], encoder, 12, 12, silent)
        taken = chain.best.split(", ")[1:]
        assert len(taken) > 1
        for label in FLAVORS:
            spellings = [part for part in taken if part.lower() == label]
            assert spellings == [label, label.upper(), label.title()][: len(spellings)]
