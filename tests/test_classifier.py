"""Closed sets of labels: CLIP's own confidences, lists of one's own, and an emoji where one fits."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence

import open_clip
import pytest
import torch
from conftest import noise, tiny_encoder, tiny_open_clip
from hypothesis import given
from hypothesis import strategies as st

from promptglass import emoji
from promptglass.clip.classifier import (
    MAX_LABELS,
    TEMPLATES,
    Classifier,
    LabelScore,
    categories,
    parse_labels,
    read_label_folder,
)
from promptglass.emoji import emoji_of, label_lines
from promptglass.errors import InputError

LABELS = ["a cat", "oil painting", "the sea at night", "robot", "3 trees", "{} in braces"]


def all_of(classifier: Classifier, image_features: torch.Tensor) -> list[list[LabelScore]]:
    return classifier.classify(image_features, count=len(classifier.labels), min_confidence=0.0)


def cosine_of(found: Sequence[LabelScore]) -> dict[str, float]:
    return {label.label: label.score for label in found}


class Counting:
    """An encoder that counts the texts it embeds."""

    def __init__(self) -> None:
        self._encoder = tiny_encoder()
        self.texts = 0

    def encode_texts(self, texts):
        self.texts += len(texts)
        return self._encoder.encode_texts(texts)


# The ensemble, its confidences and its order


def plain_ensemble(labels: Sequence[str], templates: Sequence[str]) -> torch.Tensor:
    """Radford et al.'s loop over the model itself: embed, normalise, mean, normalise."""
    model, tokenize = tiny_open_clip(), open_clip.get_tokenizer("ViT-L-14")
    rows = []
    with torch.no_grad():
        for label in labels:
            features = model.encode_text(tokenize([template.format(label) for template in templates]))
            mean = (features / features.norm(dim=-1, keepdim=True)).mean(0)
            rows.append(mean / mean.norm())
    return torch.stack(rows)


def test_the_ensemble_is_the_plain_loop_over_templates(encoder) -> None:
    image_features = encoder.encode_images([noise(1), noise(2)])
    templates = ("{}", "a photo of a {}.", "{} in the rain, {}")
    expected = image_features @ plain_ensemble(LABELS, ["{0}", "a photo of a {0}.", "{0} in the rain, {0}"]).T
    answers = all_of(Classifier(encoder, LABELS, templates), image_features)
    for found, scores in zip(answers, expected.tolist(), strict=True):
        assert cosine_of(found) == pytest.approx(dict(zip(LABELS, scores, strict=True)), abs=1e-5)


def test_the_ensemble_is_that_of_open_clip(encoder) -> None:
    judge = pytest.importorskip("open_clip.zero_shot_classifier")
    tokenize = open_clip.get_tokenizer("ViT-L-14")
    with torch.no_grad():
        weights = judge.build_zero_shot_classifier(tiny_open_clip(), tokenize, LABELS, list(TEMPLATES))
    (picture,) = image_features = encoder.encode_images([noise(3)])
    (found,) = all_of(Classifier(encoder, LABELS), image_features)
    expected = dict(zip(LABELS, (picture @ weights).tolist(), strict=True))
    assert cosine_of(found) == pytest.approx(expected, abs=1e-5)


def test_confidences_are_the_softmax_that_the_model_was_trained_with(encoder) -> None:
    for found in all_of(Classifier(encoder, LABELS), encoder.encode_images([noise(1), noise(2)])):
        expected = torch.tensor([100.0 * label.score for label in found]).softmax(0).tolist()
        assert [label.confidence for label in found] == pytest.approx(expected, abs=1e-5)
        assert sum(label.confidence for label in found) == pytest.approx(1, abs=1e-5)
        assert [label.score for label in found] == sorted((label.score for label in found), reverse=True)
        assert sorted(cosine_of(found)) == sorted(LABELS)


ROBOTS = ["".join(letters) for letters in itertools.product(*zip("robot", "ROBOT", strict=True))]


@pytest.mark.parametrize("same", [["CAT", "cat", "Cat"], ROBOTS[::-1]])
def test_ties_go_by_the_order_of_the_set(same: list[str], encoder) -> None:
    """CLIP reads in lower case, so all the cases of a word are one text to it."""
    classifier = Classifier(encoder, ["bird", *same[:-1], "sea", same[-1]])
    (found,) = all_of(classifier, encoder.encode_images([noise(4)]))
    assert len({label.score for label in found}) == 3
    assert [label.label for label in found if label.label in same] == same


def test_the_best_few_keep_their_share_of_the_whole_set(encoder) -> None:
    classifier, image_features = Classifier(encoder, LABELS), encoder.encode_images([noise(1)])
    (everything,) = all_of(classifier, image_features)
    assert classifier.classify(image_features, count=2, min_confidence=0.0) == [everything[:2]]
    limit = everything[1].confidence
    assert classifier.classify(image_features, min_confidence=limit) == [everything[:2]]
    assert classifier.classify(image_features, min_confidence=1.1) == [[]]


def test_labels_are_embedded_once() -> None:
    encoder, pictures = Counting(), tiny_encoder().encode_images([noise(1), noise(2), noise(3)])
    steps: list[tuple[int, int]] = []
    labels = [f"label {i}" for i in range(150)]
    classifier = Classifier(encoder, labels, progress=lambda what, *step: steps.append(step))  # type: ignore[arg-type]
    classifier.classify(pictures)
    classifier.classify(pictures)
    assert encoder.texts == 150 * len(TEMPLATES) == 750
    assert steps == [(0, 750), (512, 750), (750, 750)]


def test_no_pictures_and_no_labels(encoder) -> None:
    assert Classifier(encoder, LABELS).classify(encoder.encode_images([noise(1)])[:0]) == []
    with pytest.raises(InputError, match="at least one label"):
        Classifier(encoder, [])


# The built-in categories


def test_the_categories_of_the_seed_are_there() -> None:
    assert {"style", "mood", "composition", "color_palette", "subjects"} <= categories().keys()


@pytest.mark.parametrize("name", categories())
def test_a_category_is_well_formed(name: str, encoder) -> None:
    category = categories()[name]
    assert category.name == name
    assert 12 <= len(category.labels) <= 30
    assert len({label.casefold() for label in category.labels}) == len(category.labels)
    assert len(set(category.templates)) == len(category.templates) >= 3
    assert all(template.count("{}") == 1 for template in category.templates)
    assert all(label == " ".join(label.split()) and "=" not in label for label in category.labels)
    texts = [t.replace("{}", label) for t in category.templates for label in category.labels]
    assert not any(encoder.fills_context(text) for text in texts)
    assert len(Classifier(encoder, category.labels, category.templates).labels) == len(category.labels)


def test_categories_and_labels_are_read_without_torch() -> None:
    code = (
        "import sys; from promptglass.clip.classifier import categories, parse_labels\n"
        "assert categories() and parse_labels('cat')\n"
        "sys.exit('torch' in sys.modules or 'emoji' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# A list of one's own


def test_a_list_of_ones_own() -> None:
    text = "\ufeff# pets\r\n  red   fox=🦊 \n\nCat\ncat = 🐈\n# dog\npilot = 👩‍✈️\nbird =\n= 🦆\n"
    formulas = "e=mc2\na = b\nfox = dog = 🦊"
    pets = {"red fox": "🦊", "Cat": "", "pilot": "👩‍✈️", "bird": ""}
    assert parse_labels(text + formulas) == {**pets, "e=mc2": "", "a = b": "", "fox = dog": "🦊"}


words = st.text("abcXYZéß漢019'&,()", min_size=1, max_size=6)
labels_ = st.lists(words, min_size=1, max_size=3).map(" ".join)
lines = st.tuples(labels_, st.sampled_from(["", "🦊", "👩‍🚀", "1️⃣", "❤️"]), st.sampled_from(["", " ", "\t "]))
noises = st.sampled_from(["", "   ", "# comment", "  #cat = 🐈"])


@given(given_lines=st.lists(lines, min_size=1, max_size=12), between=noises)
def test_every_label_comes_back_once_with_its_emoji(
    given_lines: list[tuple[str, str, str]], between: str
) -> None:
    expected: dict[str, str] = {}
    for label, symbol, _ in given_lines:
        if label.casefold() not in {known.casefold() for known in expected}:
            expected[label] = symbol
    text = f"\n{between}\n".join(
        f"{blank}{label}{blank}{'=' + blank + symbol if symbol else ''}{blank}"
        for label, symbol, blank in given_lines
    )
    assert parse_labels(text) == expected
    assert list(parse_labels(text)) == list(expected)


@given(text=st.text())
def test_whatever_is_written_gives_clean_labels_or_one_line(text: str) -> None:
    try:
        labels = parse_labels(text)
    except InputError as error:
        assert "\n" not in str(error)
        return
    assert all(label and label == " ".join(label.split()) and label[0] != "#" for label in labels)
    assert len({label.casefold() for label in labels}) == len(labels)


@pytest.mark.parametrize("text", ["", " \n\t\n", "# only\n# comments", "= 🦊"])
def test_an_empty_list_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="list of labels is empty"):
        parse_labels(text)


def test_a_list_that_is_too_long_is_refused() -> None:
    labels = [f"label {i}" for i in range(MAX_LABELS)]
    assert len(parse_labels("\n".join([*labels, *labels]))) == MAX_LABELS
    with pytest.raises(InputError, match="has 2,001 labels"):
        parse_labels("\n".join([*labels, "one more"]))


def test_a_folder_of_lists_is_one_set(tmp_path) -> None:
    (tmp_path / "people.txt").write_text("\ufeffman\nCAT", "utf-8")
    (tmp_path / "animals.txt").write_text("cat\nfox = 🦊", "utf-8")
    (tmp_path / "notes.md").write_text("not a label", "utf-8")
    assert read_label_folder(tmp_path) == {"cat": "", "fox": "🦊", "man": ""}
    (tmp_path / "odd.txt").mkdir()
    with pytest.raises(InputError, match=r"cannot read the labels .*odd\.txt"):
        read_label_folder(tmp_path)
    with pytest.raises(InputError, match="there are no labels in"):
        read_label_folder(tmp_path / "odd.txt")


# Emoji


def forget_names() -> None:
    emoji._own_names.cache_clear()
    emoji._library_names.cache_clear()


@pytest.fixture
def without_library(monkeypatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, "emoji", None)
    forget_names()
    yield
    forget_names()


@pytest.fixture
def with_library() -> Iterator[None]:
    pytest.importorskip("emoji")
    forget_names()
    yield
    forget_names()


OURS = {
    "man": "👨",
    "Women": "👩",
    "a child": "🧒",
    "military uniform": "👔",
    "portrait of a cat": "👤",
    "landscape": "🏞️",
    "Anime": "🎌",
    "digital painting": "🖼️",
    "tiger cat": "🐈",
    "tiger_cats": "🐈",
    "  Polar  Bears ": "🐻‍❄️",
    "girl with a pearl earring": "👧",
    "black-and-white": "⚫",
    "wolves": "🐺",
    "fairies": "🧚",
    "foxes": "🦊",
    "princess": "👸",
    "kiss": "💋",  # the library has a pair of people
}
LIBRARYS = {"accordion": "🪗", "grape": "🍇", "two otters": "🦦", "bell pepper": "🫑", "Eight O'Clock": "🕗"}
NOBODYS = [
    "",
    "   ",
    "it",
    "on",
    "de",
    "epic",
    "rule of thirds",
    "out of focus",
    "xyzzy",
    "漢字",
    "cat litter",
    "a",
]


@pytest.mark.parametrize("library", ["with_library", "without_library"])
def test_our_own_emoji_need_no_library(library: str, request: pytest.FixtureRequest) -> None:
    request.getfixturevalue(library)
    assert {label: emoji_of(label) for label in OURS} == OURS


@pytest.mark.parametrize("library", ["with_library", "without_library"])
def test_nothing_is_guessed(library: str, request: pytest.FixtureRequest) -> None:
    request.getfixturevalue(library)
    assert {label: emoji_of(label) for label in NOBODYS} == dict.fromkeys(NOBODYS, "")


def test_the_library_knows_more(with_library) -> None:
    assert {label: emoji_of(label) for label in LIBRARYS} == LIBRARYS
    assert emoji_of("statue of liberty") == "🗽"  # and not of any statue


def test_without_the_library_its_names_are_unknown(without_library) -> None:
    assert {label: emoji_of(label) for label in LIBRARYS} == dict.fromkeys(LIBRARYS, "")


def test_no_flags_for_birds_and_shirts_and_no_empty_boxes(with_library) -> None:
    assert emoji_of("turkey") == "🦃"
    assert emoji_of("jersey") == emoji_of("Chad") == ""
    assert emoji_of("lime") == ""  # of 2023


def test_another_module_of_the_librarys_name_does_no_harm(without_library, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "emoji", type(sys)("emoji"))
    assert emoji_of("accordion") == ""
    assert emoji_of("cat") == "🐈"


def test_our_list_has_an_emoji_for_each_name() -> None:
    text = emoji._OURS.read_text("utf-8")
    written = [line for line in text.splitlines() if line and not line.startswith("#")]
    names = label_lines(text)
    assert len(written) == len(names) == len(emoji._own_names())
    assert all(names.values())


@pytest.mark.parametrize("labels", [{"cat": "😼", "robot": "", "epic": ""}])
def test_a_stated_emoji_comes_before_ours(labels: Mapping[str, str], encoder) -> None:
    (found,) = all_of(Classifier(encoder, labels), encoder.encode_images([noise(1)]))
    assert {label.label: label.emoji for label in found} == {"cat": "😼", "robot": "🤖", "epic": ""}
