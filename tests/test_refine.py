"""A language model proposes, CLIP judges: what is put right, who wins, and what is said about it."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from conftest import noise

from promptglass.errors import EndpointError, EndpointUnreachable, InputError, ReplyError
from promptglass.llm import Reply
from promptglass.llm.queue import Ask, ask_all
from promptglass.prompts import load_prompts
from promptglass.refine import (
    MARGIN,
    Notes,
    Refinement,
    asks_for,
    notes_of,
    refine,
)

PROMPTS = load_prompts()
NOTES = Notes(
    "a woman in a red dress",
    {
        "mediums": {"oil painting": 0.24},
        "artists": {"by Gustav Klimt": 0.26},
        "flavors": {"golden hour": 0.22, "intricate detail": 0.2},
    },
)
MADE = "a woman in a red dress, by Gustav Klimt, oil painting, golden hour, intricate detail"


class Model:
    """An endpoint that says what it is told to, and writes down what it is asked."""

    name = "model"
    concurrency = 4

    def __init__(self, *answers: str | Exception | Reply) -> None:
        self.answers = answers
        self.asked: list[dict[str, Any]] = []

    def chat(self, messages: Sequence[Mapping[str, str]], images: Sequence[Any], schema: Any, **how: Any):
        self.asked.append({"messages": messages, "images": images, "schema": schema, **how})
        answer = self.answers[how["seed"] - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, Reply) else said(answer)


def said(text: str, finish_reason: str = "stop") -> Reply:
    return Reply(text, "m", finish_reason, {"completion_tokens": 5}, 0.1)


def by_likeness(**cosines: float):
    """A judge who knows what some words are worth, and compares what it is given."""

    def scores(texts: Sequence[str]) -> list[float]:
        return [sum(worth for word, worth in cosines.items() if word in text) for text in texts]

    return scores


def refined(
    *answers: Any, notes: Notes = NOTES, scores=None, prompt: str = "refine", **how: Any
) -> Refinement:
    return refine(Model(*answers), PROMPTS[prompt], notes, scores, count=len(answers), **how)


# Who wins


def test_the_closest_candidate_wins() -> None:
    judge = by_likeness(woman=0.2, silk=0.03, Klimt=0.01, misty=0.05)
    answers = (
        "a woman in silk, by Gustav Klimt",
        "a misty woman, by Gustav Klimt",
        "a woman, by Gustav Klimt",
    )
    found = refined(*answers, scores=judge)
    assert found.prompt == answers[1]
    assert found.is_refined
    assert (found.input, found.input_score) == (MADE, pytest.approx(0.21))
    assert found.score == pytest.approx(0.26)
    assert found.gain == pytest.approx(0.05)
    assert found.why == "candidate 2 is closer by 0.050"
    assert [c.score for c in found.candidates] == pytest.approx([0.24, 0.26, 0.21])


def test_what_went_in_stands_unless_a_candidate_is_closer_by_the_margin() -> None:
    for worth, shown in ((-0.05, "0.050 farther"), (0.0, "only 0.000 closer"), (0.004, "only 0.004 closer")):
        found = refined("a woman in silk, by Gustav Klimt", scores=by_likeness(woman=0.2, silk=worth))
        assert (found.prompt, found.is_refined, found.score) == (MADE, False, pytest.approx(0.2))
        assert found.gain == pytest.approx(worth)
        assert found.why == f"what went in stands: the best candidate is {shown}"
    silk = by_likeness(woman=0.2, silk=0.004)
    assert refined("a woman in silk, by Gustav Klimt", scores=silk, margin=0.003).is_refined
    assert MARGIN == 0.005


def test_the_prompt_in_the_file_is_a_rival_too_and_stays_as_it_is() -> None:
    embedded = ", ".join(f"long phrase {n}" for n in range(60)) + ", misty\nBREAK"
    notes = Notes(NOTES.caption, NOTES.tables, embedded)
    judge = by_likeness(woman=0.2, misty=0.3, silk=0.05)
    found = refined("a woman in silk, by Gustav Klimt", notes=notes, scores=judge)
    assert (found.prompt, found.score, found.gain) == (embedded, 0.3, pytest.approx(-0.05))


def test_without_clip_the_first_usable_candidate_is_taken_and_it_is_said() -> None:
    found = refined("masked rider in a desert", "a woman in silk, oil painting", "a woman")
    assert found.prompt == "a woman in silk, oil painting, by Gustav Klimt"
    assert found.candidates[0].problem == "it has nothing of what went in"
    assert (found.score, found.gain, found.input_score) == (None, None, None)
    assert found.why == "candidate 2, not compared with the picture: there is no CLIP to do it"


def test_errors_of_some_candidates_cost_the_others_nothing() -> None:
    broken = ReplyError("only reasoning was returned")
    found = refined(broken, said("a woman in silk", "length"), scores=by_likeness(woman=0.2))
    assert [c.problem for c in found.candidates] == [str(broken), "it was cut off: raise max_tokens"]
    assert found.prompt == MADE
    assert found.score == 0.2
    assert found.why == "what went in stands: no candidate can be used (only reasoning was returned)"
    with pytest.raises(ReplyError, match="only reasoning"):
        refined(broken, EndpointError("other"), scores=by_likeness())


def test_with_nothing_that_went_in_a_candidate_has_to_be_usable() -> None:
    notes = Notes()
    with pytest.raises(InputError, match="nothing to work on"):
        refined("a woman", notes=notes)
    answers = ("a cat", "a woman in silk")
    found = refined(*answers, notes=notes, image=noise(1), scores=by_likeness(woman=0.2))
    assert (found.prompt, found.gain, found.why) == (answers[1], None, "candidate 2 is the closest of 2")
    with pytest.raises(ReplyError, match="no candidate can be used: it was cut off"):
        refined(said("a woman", "length"), notes=notes, image=noise(1))
    with pytest.raises(InputError, match="nothing to work on"):
        refined("a woman", notes=notes, wishes="more light", keep=["ohwx"])
    with pytest.raises(InputError, match="ask for 1 or more"):
        refined(notes=NOTES)


def test_a_score_that_is_no_number_is_a_problem_of_its_candidate() -> None:
    def scores(texts: Sequence[str]) -> list[float]:
        return [math.nan if "silk" in text else 0.3 if "misty" in text else 0.2 for text in texts]

    found = refined("a woman in silk, by Gustav Klimt", "a misty woman, by Gustav Klimt", scores=scores)
    assert found.prompt == "a misty woman, by Gustav Klimt"
    assert [c.problem for c in found.candidates] == ["its score is no number", ""]


def test_an_input_without_a_score_is_no_rival() -> None:
    found = refined("a woman in silk", scores=lambda texts: [math.nan, 0.2][: len(texts)])
    assert (found.prompt, found.score, found.gain) == ("a woman in silk, by Gustav Klimt", 0.2, None)


def test_no_address_gets_into_a_sidecar() -> None:
    error = EndpointError(
        "home (http://10.0.0.7:8080/v1) answered 400: bad. Change what is asked, or the model."
    )
    found = refined(error, "a woman in silk", scores=by_likeness(woman=0.2))
    assert found.candidates[0].problem == "home answered 400: bad. Change what is asked, or the model."


def test_what_is_learned_by_heart_from_the_examples_is_left_out() -> None:
    copied = "a woman in silk, overcast, by Ivan Aivazovsky, dramatic lighting, by Gustav Klimt"
    judge = by_likeness(silk=0.3)
    found = refined(copied.replace("by Ivan Aivazovsky, ", ""), scores=judge)
    assert found.prompt == "a woman in silk, by Gustav Klimt"
    wished = refined(copied, scores=judge, wishes="overcast, dramatic lighting")
    assert wished.prompt == "a woman in silk, overcast, dramatic lighting, by Gustav Klimt"


def test_a_list_that_was_cut_off_loses_its_last_phrase() -> None:
    found = refined(
        said("a woman in silk, by Gustav Klimt, at the se", "length"), scores=by_likeness(silk=0.3)
    )
    assert found.prompt == "a woman in silk, by Gustav Klimt"
    cut = refined(
        said("A woman in silk, at the se", "length"), prompt="refine-natural", scores=by_likeness(silk=0.3)
    )
    assert cut.candidates[0].problem == "it was cut off: raise max_tokens"


def test_the_artists_of_the_file_are_kept_rather_than_a_guess() -> None:
    notes = Notes(NOTES.caption, NOTES.tables, "a lady by greg rutkowski", ["by Greg Rutkowski"])
    found = refined("a woman in silk", notes=notes, scores=by_likeness(silk=0.2))
    assert found.prompt == "a woman in silk, by Greg Rutkowski"


def test_without_clip_and_without_candidate_the_prompt_in_the_file_stands() -> None:
    found = refined(said("a woman", "length"), notes=Notes("a cat", embedded="a whole prompt"))
    assert (found.prompt, found.is_refined) == ("a whole prompt", False)


# What is put right


def test_triggers_and_artists_are_kept_also_where_the_input_stands() -> None:
    keep = ["ohwx woman", "<lora:ohwx:0.8>"]
    found = refined("a woman in silk.", keep=keep, scores=by_likeness(silk=0.3))
    assert found.prompt == "a woman in silk, ohwx woman, <lora:ohwx:0.8>, by Gustav Klimt"
    stands = refined("a woman in silk.", keep=keep, scores=by_likeness(red=0.3))
    assert stands.prompt == f"{MADE}, ohwx woman, <lora:ohwx:0.8>"


# What is asked


def test_candidates_are_asked_for_from_faithful_to_bold() -> None:
    model = Model(*["a woman, by Gustav Klimt"] * 4)
    refine(model, PROMPTS["refine"], NOTES, wishes="make it rain", keep=["ohwx"])
    asked = sorted(model.asked, key=lambda ask: ask["seed"])
    assert [ask["temperature"] for ask in asked] == [0.2, 0.4, 0.6, 0.8]
    assert [ask["seed"] for ask in asked] == [1, 2, 3, 4]
    assert {ask["max_tokens"] for ask in asked} == {150}
    question = asked[0]["messages"][-1]["content"]
    assert 'Caption: "a woman in a red dress"' in question
    assert 'Tags: "by Gustav Klimt, oil painting, golden hour, intricate detail"' in question
    assert "Wishes: make it rain" in question
    assert "ohwx" not in question  # small models repeat the order; it is put right instead


def test_deep_is_bolder_and_longer() -> None:
    asks = asks_for(PROMPTS["refine"], NOTES, deep=True)
    assert [ask.temperature for ask in asks] == [0.4, 0.6, 0.8, 1.0]
    assert {ask.max_tokens for ask in asks} == {300}
    assert [ask.temperature for ask in asks_for(PROMPTS["refine"], NOTES, count=1)] == [0.5]


def test_a_model_that_sees_is_shown_the_picture() -> None:
    picture = noise(1)
    asked = asks_for(PROMPTS["refine"], NOTES, count=2, image=picture)
    assert [ask.images for ask in asked] == [[picture]] * 2
    lighthouse = "a lighthouse, huge waves of a stormy sea, dramatic lighting"
    assert (
        refined(lighthouse, image=picture, notes=Notes()).prompt == lighthouse
    )  # it saw one, as in an example
    seen = refined("masked rider in a desert", image=picture)  # what it saw need not be in the notes
    assert seen.prompt == "masked rider in a desert, by Gustav Klimt"


def test_notes_are_what_clip_sees(encoder) -> None:
    from promptglass import Interrogator, Vocabulary

    tables = {
        "artists": ["by A", "by B"],
        "flavors": [f"flavor {n}" for n in range(20)],
        "trendings": ["pixiv"],
        "negative": ["blurry"],
        "mine": ["one", "two"],
    }
    interrogator = Interrogator(encoder, Vocabulary(tables, encoder))
    subjects = interrogator.look([noise(1), noise(2)], ["a cat", ""])
    notes = notes_of(interrogator, subjects, ["", "in the file by b"])
    assert [note.caption for note in notes] == ["a cat", ""]
    assert (notes[1].embedded, notes[1].artists) == ("in the file by b", ["by B"])
    sizes = {name: len(labels) for name, labels in notes[0].tables.items()}
    assert sizes == {"artists": 1, "flavors": 8, "mine": 1}
    assert notes[0].artists[0] in ("by A", "by B")
    by_label = {label: score for labels in notes[0].tables.values() for label, score in labels.items()}
    scores = [by_label[label] for label in notes[0].labels]
    assert scores == sorted(scores, reverse=True)
    assert scores == pytest.approx(interrogator.scores(subjects[0], notes[0].labels), abs=1e-3)
    assert notes[0].prompt == ", ".join(["a cat", *notes[0].labels])


# Many questions at a time


class Slow(Model):
    def __init__(self, concurrency: int) -> None:
        super().__init__()
        self.concurrency = concurrency
        self.at_once = self.most = 0
        self.lock = threading.Lock()
        self.stopped = 0

    def chat(self, messages, images, schema, *, stop: threading.Event, **how):
        with self.lock:
            self.at_once += 1
            self.most = max(self.most, self.at_once)
        was_stopped = stop.wait(messages[0]["content"])
        with self.lock:
            self.at_once -= 1
            self.stopped += was_stopped
        return said("ok")


def asks(*seconds: float) -> list[Ask]:
    return [Ask([{"role": "user", "content": s}]) for s in seconds]


@pytest.mark.parametrize("concurrency", [1, 3])
def test_as_many_at_a_time_as_the_endpoint_wants(concurrency: int) -> None:
    model, told = Slow(concurrency), []
    found = [*ask_all(model, asks(*[0.03] * 9), "asking", lambda *step: told.append(step))]
    assert sorted(place for place, _ in found) == list(range(9))
    assert model.most == concurrency
    assert told[0] == ("asking", 0, 9)
    assert told[-1] == ("asking", 9, 9)


def test_what_is_ready_does_not_wait_for_what_is_slow() -> None:
    places = [place for place, _ in ask_all(Slow(2), asks(0.4, 0.01, 0.01), "asking")]
    assert places == [1, 2, 0]


def test_a_progress_that_raises_stops_every_call_at_once() -> None:
    model = Slow(2)

    def interrupt(what: str, done: int, total: int) -> None:
        if time.monotonic() > start + 0.2:
            raise KeyboardInterrupt

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        list(ask_all(model, asks(*[30] * 6), "asking", interrupt))
    assert time.monotonic() - start < 0.5
    assert (model.stopped, model.at_once) == (2, 0)


def test_who_listens_is_told_whose_words_they_are() -> None:
    heard: dict[int, str] = {}

    class Talking(Model):
        def chat(self, *asked: Any, listen: Any, **how: Any) -> Reply:
            reply = super().chat(*asked, **how)
            listen(reply.text)
            return reply

    found = ask_all(
        Talking("a cat", "a dog"), [Ask([], seed=1), Ask([], seed=2)], "asking", listen=heard.__setitem__
    )
    assert [reply.text for _, reply in sorted(found)] == ["a cat", "a dog"]
    assert heard == {0: "a cat", 1: "a dog"}


def test_another_seed_asks_for_other_candidates() -> None:
    seeds = [[ask.seed for ask in asks_for(PROMPTS["refine"], NOTES, count=3, seed=seed)] for seed in (0, 40)]
    assert seeds == [[1, 2, 3], [41, 42, 43]]


def test_leaving_early_stops_the_rest() -> None:
    model = Slow(2)
    replies = ask_all(model, asks(0.01, 30, 30), "asking")
    assert next(replies)[0] == 0
    replies.close()
    assert model.at_once == 0


def test_errors_of_the_endpoint_are_answers_others_are_raised() -> None:
    model = Model(EndpointUnreachable("gone"), said("ok"))
    found = dict(ask_all(model, [Ask([], seed=1), Ask([], seed=2)], "asking"))
    assert isinstance(found[0], EndpointUnreachable)
    assert found[1] == said("ok")
    with pytest.raises(InputError, match="no key"):
        list(ask_all(Model(InputError("no key")), [Ask([], seed=1)], "asking"))
