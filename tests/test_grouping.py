"""Pictures that are asked about at once: grouped, each as if alone, fair, and none the worse for another."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from conftest import noise
from PIL import Image

pytest.importorskip("torch")

from fakes.word_encoder import WordEncoder

from promptglass.analyzers import Answer
from promptglass.clip.analyzer import ClipAnalyzer
from promptglass.clip.interrogator import Interrogator
from promptglass.clip.vocabulary import Vocabulary
from promptglass.errors import InputError, ModelError, Stopped
from promptglass.grouped import Groups
from promptglass.images import Picture
from promptglass.progress import Progress, silent
from promptglass.turns import Line, Turns

KIND = ("red", "green", "blue", "golden", "silver", "tiny", "huge")
TABLES = {
    "artists": [f"by {kind} Rembrandt" for kind in KIND],
    "flavors": [f"{kind} light" for kind in KIND],
    "mediums": [f"a {kind} photo" for kind in KIND],
    "negative": ["blurry", "text"],
}


class Encoder(WordEncoder):
    """Notes how many pictures come at once; chokes on those of a certain width."""

    def __init__(self) -> None:
        super().__init__(is_blind=True)
        self.groups: list[int] = []
        self.widths: list[list[int]] = []  # of the pictures in each group

    def encode_images(self, images: Sequence[Image.Image]) -> Any:
        if images:
            self.groups.append(len(images))
            self.widths.append([image.width for image in images])
        if any(image.width == 13 for image in images):
            raise ModelError("it chokes on this one")
        return super().encode_images(images)


class Captioner:
    name = "fake"

    def __init__(self) -> None:
        self.groups: list[int] = []

    def caption(self, images: Sequence[Image.Image]) -> list[str]:
        self.groups.append(len(images))
        return [f"a picture {image.width} wide" for image in images]


class Place:
    """One model, and the line before it."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.groups = Groups(self.turns)
        self.encoder = Encoder()
        self.captioner = Captioner()
        vocabulary = Vocabulary(TABLES, self.encoder)
        self.interrogator = Interrogator(
            self.encoder, vocabulary, self.captioner, progress=self.turns.progress
        )

    def analyzer(self, caption: str = "", progress: Progress = silent, key: str = "one") -> ClipAnalyzer:
        def together(analyzer: ClipAnalyzer, picture: Picture, modes: Sequence[str]) -> Any:
            return self.groups.answers(analyzer, picture, modes, key, progress)

        return ClipAnalyzer(
            "words",
            self.captioner,
            caption,
            TABLES,
            interrogator=lambda: self.interrogator,
            turn=lambda: self.turns.turn(progress),
            is_here=True,
            together=together,
        )

    def alone(self, picture: Picture, modes: Sequence[str], caption: str = "") -> list[Answer]:
        analyzer = ClipAnalyzer(caption=caption, captioner=Captioner(), interrogator=Place().interrogator)
        return [found for _, found in analyzer.analyze([picture], modes)]


def picture(seed: int, width: int = 20) -> Picture:
    return Picture(f"{seed}.png", noise(seed, (width, 15)), None, "PNG", (width, 15))


def ask(place: Place, asked: Picture, modes: Sequence[str] = ("fast",), **how: Any) -> list[Answer]:
    return [found for _, found in place.analyzer(**how).analyze([asked], modes)]


class Asked(threading.Thread):
    """A question on a thread of its own."""

    def __init__(self, question: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self.question = question
        self.found: Any = None
        self.error: Exception | None = None
        self.ended_at = 0.0
        self.start()

    def run(self) -> None:
        try:
            self.found = self.question()
        except Exception as error:
            self.error = error
        self.ended_at = time.monotonic()

    def result(self) -> Any:
        self.join(20)
        assert not self.is_alive()
        if self.error:
            raise self.error
        return self.found


class Busy:
    """Somebody is at the models until it is said that they are done."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._is_done = threading.Event()
        begun = threading.Event()

        def hold() -> None:
            with turns.turn():
                begun.set()
                self._is_done.wait(20)

        self._thread = threading.Thread(target=hold, daemon=True)
        self._thread.start()
        assert begun.wait(5)

    def done(self) -> None:
        self._is_done.set()
        self._thread.join(5)


def until(holds: Callable[[], bool]) -> None:
    for _ in range(500):
        if holds():
            return
        time.sleep(0.01)
    raise AssertionError("it never came to that")


@pytest.fixture
def place() -> Place:
    return Place()


def all_wait(place: Place, count: int) -> None:
    """Until as many stand in the line, beside the one that its thread keeps there."""
    until(lambda: len(place.groups._waiting) == count)


def test_what_waits_is_answered_together_and_each_as_if_alone(place: Place):
    busy = Busy(place.turns)
    pictures = [picture(seed, 20 + seed) for seed in range(6)]
    captions = ["", "", "a cat", "a dog", "a cat", ""]
    modes = ("best", "fast", "classic", "caption", "negative", "tables")
    asked = [
        Asked(lambda one=one, caption=caption: ask(place, one, modes, caption=caption))
        for one, caption in zip(pictures, captions, strict=True)
    ]
    all_wait(place, 6)
    busy.done()
    found = [one.result() for one in asked]
    assert sorted(place.encoder.groups) == [3, 3]  # with a caption, and without
    assert place.captioner.groups == [3]
    for one, caption, answers in zip(pictures, captions, found, strict=True):
        alone = place.alone(one, modes, caption)
        assert [answer.mode for answer in answers] == list(modes)
        assert [(a.text, a.settings) for a in answers] == [(a.text, a.settings) for a in alone]
        assert [a.score for a in answers] == pytest.approx([a.score for a in alone], abs=1e-6)


def test_while_nobody_is_at_the_models_nothing_waits(place: Place):
    ask(place, picture(0))
    began = time.monotonic()
    ask(place, picture(1))
    assert time.monotonic() - began < 0.2  # less than a look at who has left
    assert place.encoder.groups == [1, 1]


def test_other_wishes_are_other_groups_in_the_order_they_came(place: Place):
    busy = Busy(place.turns)
    asked = []
    for number, (modes, key) in enumerate([(("fast",), "a"), (("tables",), "a"), (("fast",), "b")] * 2):
        asked.append(Asked(lambda n=number, m=modes, k=key: ask(place, picture(n, 20 + n), m, key=k)))
        all_wait(place, number + 1)
    busy.done()
    for one in asked:
        one.result()
    assert place.encoder.widths == [[20, 23], [21, 24], [22, 25]]


def test_a_group_has_a_most_and_the_first_come_first(place: Place):
    busy = Busy(place.turns)
    asked = []
    for number in range(40):
        asked.append(Asked(lambda n=number: ask(place, picture(n))))
        all_wait(place, number + 1)
    busy.done()
    for one in asked:
        one.result()
    assert place.encoder.groups == [32, 8]
    assert max(one.ended_at for one in asked[:32]) <= min(one.ended_at for one in asked[32:]) + 0.05


def test_one_that_fails_costs_the_others_nothing(place: Place):
    busy = Busy(place.turns)
    asked = [Asked(lambda n=n: ask(place, picture(n, 13 if n == 1 else 20))) for n in range(4)]
    all_wait(place, 4)
    busy.done()
    with pytest.raises(ModelError, match="chokes"):
        asked[1].result()
    for number in (0, 2, 3):
        (answer,) = asked[number].result()
        assert answer.text == place.alone(picture(number), ["fast"])[0].text


def test_without_a_model_all_are_told_and_the_line_goes_on(place: Place, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        ClipAnalyzer, "interrogator", property(lambda self: (_ for _ in ()).throw(ModelError("no weights")))
    )
    busy = Busy(place.turns)
    asked = [Asked(lambda n=n: ask(place, picture(n))) for n in range(3)]
    all_wait(place, 3)
    busy.done()
    for one in asked:
        with pytest.raises(ModelError, match="no weights"):
            one.result()
    monkeypatch.undo()
    assert ask(place, picture(9))[0].mode == "fast"


def test_who_leaves_is_taken_out(place: Place):
    left = threading.Event()

    def progress(*_: Any) -> None:
        if left.is_set():
            raise Stopped("stopped")

    busy = Busy(place.turns)
    leaving = Asked(lambda: ask(place, picture(0), progress=progress))
    staying = Asked(lambda: ask(place, picture(1)))
    all_wait(place, 2)
    left.set()
    all_wait(place, 1)
    with pytest.raises(Stopped):
        leaving.result()
    busy.done()
    assert staying.result()[0].mode == "fast"
    assert place.encoder.groups == [1]


def test_work_for_nobody_ends(place: Place, monkeypatch: pytest.MonkeyPatch):
    """One leaves while its prompt grows; the next in the group is answered all the same."""
    begun, left = threading.Event(), threading.Event()
    steps: list[str] = []
    encode = Encoder.encode_continuations

    def slowly(self: Encoder, prefix: str, suffixes: Sequence[str]) -> Any:
        if prefix.startswith("a picture 21"):
            steps.append(prefix)
            begun.set()
            left.wait(5)
            time.sleep(0.4)  # until it is noticed
        return encode(self, prefix, suffixes)

    def progress(*_: Any) -> None:
        if left.is_set():
            raise Stopped("stopped")

    monkeypatch.setattr(Encoder, "encode_continuations", slowly)
    busy = Busy(place.turns)
    leaving = Asked(lambda: ask(place, picture(0, 21), ["best"], progress=progress))
    all_wait(place, 1)
    staying = Asked(lambda: ask(place, picture(1, 22), ["best"]))
    all_wait(place, 2)
    busy.done()
    assert begun.wait(5)
    left.set()
    with pytest.raises(Stopped):
        leaving.result()
    assert staying.result()[0].text.startswith("a picture 22")
    assert len(steps) <= 2


def test_in_a_turn_of_its_own_a_thread_waits_for_nobody(place: Place):
    with place.turns.turn():
        assert ask(place, picture(0))[0].mode == "fast"


def test_several_pictures_of_one_asker_are_a_group_already(place: Place):
    answers = [*place.analyzer().analyze([picture(0), picture(1)], ["fast"])]
    assert [number for number, _ in answers] == [0, 1]
    assert place.encoder.groups == [2]


def test_what_was_seen_in_a_group_is_not_looked_at_again(place: Place):
    analyzer, one = place.analyzer(), picture(0)
    [*analyzer.analyze([one], ["fast"])]
    analyzer.scores(one, ["a cat"])
    assert place.encoder.groups == [1]


def test_a_wrong_table_fails_each_by_itself(place: Place):
    place.interrogator = Interrogator(place.encoder, Vocabulary({"negative": ["blurry"]}, place.encoder))
    with pytest.raises(InputError, match="no labels to rank"):
        ask(place, picture(0), ["tables"])


def test_a_line_goes_to_who_has_waited_longest():
    line, order = Line(), []

    def pass_through(name: int) -> None:
        with line:
            order.append(name)

    line.__enter__()
    threads = []
    for name in range(5):
        threads.append(threading.Thread(target=pass_through, args=(name,)))
        threads[-1].start()
        until(lambda: len(line._waiting) == len(threads))
    line.__exit__()
    with line:  # behind them all
        order.append(5)
    for thread in threads:
        thread.join(5)
    assert order == [0, 1, 2, 3, 4, 5]
