"""A proposed prompt, put right: what counts as kept, what is left out, what cannot be used."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptglass import candidate
from promptglass.candidate import clip_token_counter, holds, put_right


@pytest.mark.parametrize(
    ("text", "words", "is_held"),
    [
        ("in the style of gustav  klimt, oil", "Gustav Klimt", True),
        ("by Gustav Klimts", "Gustav Klimt", False),
        ("a boat in the sea", "by the sea", False),
        ("(ohwx woman:1.2)", "ohwx woman", True),
        ("ohwxwoman", "ohwx", False),
        ("a <lora:x:1>", "<lora:x:1>", True),
        ("a <lora:x:1.5>", "<lora:x:1>", False),
        ("by", "by", True),
        ("c++ and c", "c++", True),
    ],
)
def test_what_counts_as_kept(text: str, words: str, is_held: bool) -> None:
    assert holds(text, words) is is_held


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("a cat,\n a CAT , sat", "a cat, sat"),
        ("a cat, red\nNegative prompt: blurry, bad", "a cat, red"),
        ("a cat. **Negative Prompt**: blurry", "a cat"),
        ("a cat, (red dress, long:1.2), [a, b]", "a cat, (red dress, long:1.2), [a, b]"),
        ("((a, b), c), d", "((a, b), c), d"),
        ("a ( b, c", "a ( b, c"),
        ("a negative space, b", "a negative space, b"),
        ("a cat, BREAK, a dog, BREAK, a cat, red", "a cat, BREAK, a dog, BREAK, red"),
        ("a cat, __Negative prompt:__ blurry", "a cat"),
        *[(", ".join(f"in the style of {who}" for who in "ABCD"),) * 2],
    ],
)
def test_a_candidate_in_one_line_each_phrase_once(text: str, right: str) -> None:
    assert put_right(text, clip_tokens=77) == (right, "")


@pytest.mark.parametrize(
    ("text", "right"),
    [
        (
            "a cat in the style of klimt. ",
            "a cat in the style of klimt, <ohwx>, <lora:x:0.8>, by Gustav Klimt",
        ),
        ("a cat! ", "a cat, <ohwx>, <lora:x:0.8>, by Gustav Klimt"),
        ("猫。", "猫, <ohwx>, <lora:x:0.8>, by Gustav Klimt"),
        ("‹ohwx> by gustav klimt <LORA:X:0.5>", "<ohwx> by gustav klimt <lora:x:0.8>"),
        ("gustav klimt, <lora:x>, <ohwx>", "gustav klimt, <lora:x:0.8>, <ohwx>"),
    ],
)
def test_what_is_to_be_kept_is_there_once_and_as_it_was_given(text: str, right: str) -> None:
    assert put_right(text, ["<ohwx>", "<lora:x:0.8>"], ["by Gustav Klimt"]) == (right, "")


def test_what_is_kept_is_appended_once() -> None:
    kept = put_right("a man at sea", ["by Ivan Aivazovsky", "ohwx", "ohwx woman"], ["by Ivan Aivazovsky"], 77)
    assert kept == ("a man at sea, by Ivan Aivazovsky, ohwx woman", "")
    assert put_right("a cat, wow!", ["wow!"], ["by X"], 77) == ("a cat, wow!, by X", "")


def test_sentences_are_left_as_they_are() -> None:
    text = "A woman, smiling, and a man, smiling, walk by the sea. The cat, smiling, looks up."
    assert put_right(text) == (text, "")


def test_brackets_are_left_out_whole_or_not_at_all() -> None:
    text = ", ".join(
        [*(f"long phrase number {n}" for n in range(15)), "((golden light, silver mist), (fog, rain))"]
    )
    right, problem = put_right(text, clip_tokens=77)
    assert not problem
    assert right.count("(") == right.count(")")


def test_what_is_endless_costs_no_time() -> None:
    endless = ", ".join(
        str(n) for n in range(1500)
    )  # a minute, if every phrase were weighed against every other
    assert put_right(endless, ["keep me"], clip_tokens=77)[0].endswith(", keep me")
    assert put_right("." * 9_000, clip_tokens=77)[1] == "it is longer than the 77 tokens that CLIP reads"
    assert put_right("a" * 10_001) == ("", "it is too long to be a prompt")


def test_a_candidate_that_cannot_be_put_right() -> None:
    assert put_right(" , ,") == ("", "there is no prompt in it")
    assert put_right("Negative prompt: blurry", ["x"]) == ("", "there is no prompt in it")
    loop = "the man stands by the sea. " * 4
    assert put_right(loop)[1] == "it repeats itself"
    long = "word " * 80
    assert put_right(f"{long}, end", clip_tokens=77)[1] == "it is longer than the 77 tokens that CLIP reads"
    assert put_right("a cat", [long], clip_tokens=77)[1] == "it is longer than the 77 tokens that CLIP reads"


def test_it_is_as_long_as_clip_reads_counted_with_its_own_tokenizer() -> None:
    import open_clip

    phrases = [f"phrase{n} n{n} of ümläut" for n in range(40)]
    right, problem = put_right(", ".join([*phrases, "by Gustav Klimt"]), ["by Gustav Klimt"], clip_tokens=77)
    assert not problem
    assert right.endswith(", by Gustav Klimt")
    ids = open_clip.get_tokenizer("ViT-L-14")([right])[0]
    length = int((ids != 0).sum())
    assert 70 < length <= 77
    assert int(ids[length - 1]) == 49407  # the end is there: nothing was cut
    # One phrase more would not have fitted.
    kept = right.count("phrase")
    more = ", ".join([*phrases[: kept + 1], "by Gustav Klimt"])
    assert clip_token_counter()(more) > 77


def test_a_host_that_brings_the_tokenizer_counts_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidate, "_of_host", [])
    candidate.count_clip_tokens_by(lambda text: 2 + 30 * len(text.split()))
    assert put_right("one, two, three", clip_tokens=77) == ("one, two", "")


words = st.text(st.sampled_from("abcdé (),.<>:_-\n🦊1"), max_size=12)


@given(st.lists(words, max_size=40).map(", ".join), st.lists(words.filter(str.strip), max_size=3))
def test_put_right_keeps_its_promises(text: str, keep: list[str]) -> None:
    right, problem = put_right(text, keep, clip_tokens=77)
    assert "\n" not in right
    if problem:
        return
    assert right
    assert all(holds(right, bare) for words in keep if (bare := words.strip(", \n")))
    assert clip_token_counter()(right) <= 77
    assert put_right(right, keep, clip_tokens=77)[1] == ""
