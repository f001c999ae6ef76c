"""Replies: the answer alone, whatever a model puts around it, and never less than the answer."""

from __future__ import annotations

import contextlib
import json
import math
import time

import jsonschema
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from promptglass.errors import ReplyError
from promptglass.llm.replies import check_schema, clean, parse, reasoning_filter

ANSWER = 'a "red" cat, oil on canvas, by Gustav Klimt (masterpiece:1.2)'

TAGS = {
    "type": "object",
    "properties": {
        "tags": {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 2, "maxItems": 3},
        "mood": {"enum": ["calm", "wild"]},
    },
    "required": ["tags"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    "wrapped",
    [
        f"<think>The user wants a cat.</think>\n\n{ANSWER}",
        f"<think>\n\n</think>\n\n{ANSWER}",
        f"<Thinking>hm</THINKING>{ANSWER}",
        f"<reasoning>hm</reasoning>{ANSWER}<think>and now",
        f"The template opened the tag in the prompt.</think>\n{ANSWER}",
        f"<think>a <think> in it</think> more of it</think> {ANSWER}",
        f"```\n{ANSWER}\n```",
        f"```text\n{ANSWER}\n```",
        f"```{ANSWER}```",
        f"Here is your prompt:\n\n{ANSWER}",
        f"Here's a prompt for SDXL, based on your tags: {ANSWER}",
        f"Sure! Here’s the refined prompt:\n{ANSWER}",
        f"Certainly! Here is a refined version of your prompt:\n\n```\n{ANSWER}\n```",
        f"Sure thing!\n\nPrompt: {ANSWER}",
        f"Prompt: {ANSWER}",
        f"PROMPT:\n{ANSWER}",
        f"**Prompt:** {ANSWER}",
        f"**Prompt**: {ANSWER}",
        f"**Prompt: {ANSWER}**",
        f"### Refined prompt\n\n{ANSWER}",
        f"Negative prompt: {ANSWER}",
        f"“{ANSWER}”",
        f"„{ANSWER}“",
        f"« {ANSWER} »",
        f"'{ANSWER}'",
        f'"""{ANSWER}"""',
        f"<think>x</think>Sure! Here's your prompt:\n```\n**Prompt:** “{ANSWER}”\n```\n",
    ],
)
def test_only_the_answer_is_left(wrapped: str) -> None:
    assert clean(wrapped) == ANSWER


@pytest.mark.parametrize("quoted", ['"a cat"', "'a cat'", "`a cat`", "‘a cat’", '**Prompt:** "a cat"'])
def test_quotes_around_the_whole_are_no_part_of_it(quoted: str) -> None:
    assert clean(quoted) == "a cat"


def test_an_apostrophe_is_no_quotation_mark() -> None:
    assert clean("'a cat's tail'") == "a cat's tail"
    assert clean("‘a cat’s tail’") == "a cat’s tail"


@pytest.mark.parametrize(
    "text",
    [
        '"a" and "b"',
        "'a' and 'b'",
        "“a” and “b”",
        "**cat** and **dog**",
        "a cat\n\nThis prompt captures the mood.",  # what follows is not guessed at
        "A poster: caption",
        "Movie poster, caption: OPEN",
        "Here is a poster that says: hello",
        "Portrait: a woman",
        "Great Wave off Kanagawa: prints",
        "Sure hands of a potter",
        "Great\nWaves",
        "prompt",
        "a <thinker> by Rodin, 1 < 2",
        "__prompt__, a cat",
        "```\na\n```\nor\n```\nb\n```",
        "(prompt:1.2), [cat|dog], {a|b}, <lora:x:1>",
    ],
)
def test_what_looks_alike_is_left_alone(text: str) -> None:
    assert clean(text) == text


@given(st.text())
def test_a_text_that_needs_nothing_comes_back_as_it_is(text: str) -> None:
    assume(text and text == text.strip())
    assume(not any(mark in text for mark in ":`<\"'*#“”‘’„«»"))
    assume(not text.lower().startswith(("sure", "certainly", "of", "absolutely", "ok", "great")))
    assert clean(text) == text


tags = ("<think>", "</think>", "<Reasoning>", "</thinking>", "<", "</th", ">")
layers = ("```", "```json\n", "Prompt:", "Sure!\n", "Here is your prompt:", "**", '"', "'", "“", "”")
fragments = st.sampled_from([*tags, *layers, "\n", " ", "a cat", "{", "}", ","])
pasted = st.lists(fragments | st.text(max_size=3), max_size=12).map("".join)


@given(pasted)
def test_what_is_clean_stays_so(text: str) -> None:
    try:
        answer = clean(text)
    except ReplyError:
        return
    assume("<" not in answer)  # cutting a tag out can make another of what stood around it
    assert clean(answer) == answer


@pytest.mark.parametrize(
    ("text", "way_out"),
    [
        ("<think>I should write", "only reasoning was returned: raise max_tokens or switch thinking off"),
        ("<think>done</think>\n", "only reasoning was returned: raise max_tokens or switch thinking off"),
        ("so be it</think>", "only reasoning was returned: raise max_tokens or switch thinking off"),
        ("", "nothing was returned: ask again, or use another model"),
        (" \n", "nothing was returned: ask again, or use another model"),
        ("Prompt:", 'nothing but "Prompt:" was returned: ask again, or use another model'),
        ("Sure!", 'nothing but "Sure!" was returned: ask again, or use another model'),
        ("```\n```", r'nothing but "```\n```" was returned: ask again, or use another model'),
        ('""', r'nothing but "\"\"" was returned: ask again, or use another model'),
    ],
)
def test_an_answer_without_content_is_an_error(text: str, way_out: str) -> None:
    with pytest.raises(ReplyError) as error:
        clean(text)
    assert str(error.value) == way_out


@given(pasted, st.data())
def test_a_stream_shows_what_cleaning_the_whole_leaves(text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    shown = "".join(reasoning_filter(pieces))
    expected, has_orphan = by_hand(text)
    if has_orphan:  # what stood before it was shown before it came
        assert shown.endswith(expected.lstrip())
    else:
        assert shown == expected.lstrip()
    with contextlib.suppress(ReplyError):
        assert clean(text) in expected


def by_hand(text: str) -> tuple[str, bool]:
    """The text without reasoning, read character by character; and whether a closing tag was never opened."""
    kept, is_inside, has_orphan = "", False, False
    while text:
        name = next(
            (n for n in ("think", "thinking", "reasoning") if text.lower().startswith(f"<{n}>")), None
        )
        end = next(
            (n for n in ("think", "thinking", "reasoning") if text.lower().startswith(f"</{n}>")), None
        )
        if name:
            is_inside, text = True, text[len(name) + 2 :]
        elif end:
            has_orphan |= not is_inside
            kept = kept if is_inside else ""
            is_inside, text = False, text[len(end) + 3 :]
        else:
            kept += "" if is_inside else text[0]
            text = text[1:]
    return kept, has_orphan


def test_a_stream_is_shown_as_it_comes() -> None:
    def pieces():
        for piece in ("<thi", "nk>hm", "</think", ">\n\n", "A c", "at <", "3"):
            seen.append(piece)
            yield piece

    seen: list[str] = []
    shown = [(text, len(seen)) for text in reasoning_filter(pieces())]
    assert shown == [("A c", 5), ("at ", 6), ("<3", 7)]


def test_a_stream_that_ends_in_reasoning_shows_none_of_it() -> None:
    assert list(reasoning_filter(["a cat<think>", "hm</th"])) == ["a cat"]


@pytest.mark.parametrize(
    "text",
    [
        '{"tags": ["a", "b"]}',
        '```json\n{"tags": ["a", "b"]}\n```',
        '```json\n{"tags": ["a", "b"]}',
        '<think>{"tags": ["x", "y"]}</think>{"tags": ["a", "b"]}',
        '{"tags": ["a", "b",],}',
        '{{"tags": ["a", "b"]}',
        '{{"tags": ["a", "b"]}}',
        'Here [as asked] is {my} answer: {"tags": ["a", "b"]} - I hope {it} helps.',
        'First [1], then {"tags": ["a", "b"]}',
    ],
)
def test_json_is_found_in_what_models_put_around_it(text: str) -> None:
    assert parse(text, TAGS) == {"tags": ["a", "b"]}


def test_no_part_of_another_answer_is_taken_for_the_answer() -> None:
    with pytest.raises(ReplyError, match="the answer does not fit: tags is missing"):
        parse('Well: {"picture": {"tags": ["a", "b"]}}', TAGS)


@pytest.mark.parametrize("word", ["<think>", "</think>", "}", "{", ",]", '"', "```", "a\nb", "Prompt:", "\\"])
def test_strings_are_not_touched(word: str) -> None:
    whole = json.dumps({"tags": [word, "b"]})
    assert parse(whole, TAGS) == {"tags": [word, "b"]}
    if "think" not in word:
        assert parse(f"Well: {whole} {{", TAGS) == {"tags": [word, "b"]}


def test_a_bare_newline_in_a_string_is_taken() -> None:
    assert parse('{"tags": ["a\nb", "c"]}', TAGS) == {"tags": ["a\nb", "c"]}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{}", "the answer does not fit: tags is missing"),
        ('{"tags": ["a"]}', "the answer does not fit: tags must have at least 2 items, not 1"),
        ('{"tags": ["a", "b", "c", "d"]}', "the answer does not fit: tags must have at most 3 items, not 4"),
        ('{"tags": ["a", 3]}', "the answer does not fit: tags[1] must be of type string, not 3"),
        ('{"tags": ["a", ""]}', "the answer does not fit: tags[1] must have at least 1 characters, not 0"),
        ('{"tags": "a, b"}', 'the answer does not fit: tags must be of type array, not "a, b"'),
        (
            '{"tags": ["a", "b"], "mood": "odd"}',
            'the answer does not fit: mood must be one of "calm", "wild", not "odd"',
        ),
        (
            '{"tags": ["a", "b"], "style": "oil"}',
            'the answer does not fit: the answer must not have the field "style", known are: tags, mood',
        ),
        ("[1]", "the answer does not fit: the answer must be of type object, not [1]"),
        ("No cats here", 'the answer is no JSON, it begins with "No cats here"'),
        ('{"tags": ["a", "b', "the JSON of the answer breaks off: shorten it, or raise max_tokens"),
        ("<think>{", "only reasoning was returned: raise max_tokens or switch thinking off"),
    ],
)
def test_a_wrong_answer_says_which_field_and_why(text: str, reason: str) -> None:
    with pytest.raises(ReplyError) as error:
        parse(text, TAGS)
    assert str(error.value) == reason


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_what_is_no_number_in_json_is_refused(number: str) -> None:
    with pytest.raises(ReplyError, match="malformed"):
        parse(f'{{"score": {number}}}', {})


def test_half_a_character_is_refused() -> None:
    with pytest.raises(ReplyError, match="malformed"):
        parse(r'{"text": "\ud83d"}', {})


@given(pasted)
def test_whatever_comes_ends_in_json_or_one_line(text: str) -> None:
    try:
        json.dumps(parse(text, {"type": "object"}))
    except ReplyError as error:
        assert str(error).isprintable() and len(str(error)) < 250


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 20_000, '"\\"' * 50_000, "[]" * 50_000, ", " * 100_000]
)
def test_an_answer_made_to_be_slow_is_not(text: str) -> None:
    started = time.process_time()
    with pytest.raises(ReplyError):
        parse(text, TAGS)
    assert time.process_time() - started < 10


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 9) | st.floats(-3, 9) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)


@given(json_values)
def test_any_json_survives_a_fence_and_an_introduction(value: object) -> None:
    text = json.dumps(value)
    assert same(parse(text, {}), value)
    if isinstance(value, (dict, list)):
        assert same(parse(f"Here is the result:\n```json\n{text}\n```\nDone.", {}), value)


def same(one: object, other: object) -> bool:
    return json.dumps(one) == json.dumps(other)


def schemas() -> st.SearchStrategy[dict]:
    counts = st.integers(0, 4)
    leaf: dict[str, st.SearchStrategy] = {
        "type": st.sampled_from(["object", "array", "string", "number", "integer", "boolean", "null"]),
        "enum": st.lists(st.none() | st.booleans() | st.integers(0, 2) | st.text(max_size=1), min_size=1),
        "minItems": counts,
        "maxItems": counts,
        "minLength": counts,
        "maxLength": counts,
        "minimum": st.integers(-3, 9) | st.floats(-3, 9),
        "maximum": st.integers(-3, 9) | st.floats(-3, 9),
        "required": st.lists(st.sampled_from("abc"), unique=True),
        "additionalProperties": st.booleans(),
        "description": st.text(max_size=2),
    }
    return st.recursive(
        st.fixed_dictionaries({}, optional=leaf),
        lambda inner: st.fixed_dictionaries(
            {},
            optional={
                **leaf,
                "items": inner,
                "properties": st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
            },
        ),
        max_leaves=4,
    )


@settings(max_examples=500)
@given(schemas(), json_values)
def test_a_schema_means_what_json_schema_means(schema: dict, value: object) -> None:
    is_valid = jsonschema.Draft202012Validator(schema).is_valid(value)
    try:
        assert same(parse(json.dumps(value), schema), value)
        assert is_valid
    except ReplyError:
        assert not is_valid


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"pattern": "a"}, 'schema has "pattern", known are only type, properties'),
        ({"properties": {"a": {"$ref": "#"}}}, r'schema.properties.a has "\$ref"'),
        ({"items": {"oneOf": []}}, 'schema.items has "oneOf"'),
        ({"type": "text"}, 'schema.type cannot be "text"'),
        ({"type": ["string", "null"]}, "schema.type cannot be"),
        ({"required": "tags"}, 'schema.required cannot be "tags"'),
        ({"minItems": -1}, "schema.minItems cannot be -1"),
        ({"maximum": True}, "schema.maximum cannot be true"),
        ({"enum": []}, r"schema.enum cannot be \[\]"),
        ({"enum": [{}]}, "schema.enum cannot be"),
        ({"additionalProperties": {}}, "schema.additionalProperties cannot be"),
        ({"properties": {"a": 3}}, "schema.properties.a must hold keywords, not 3"),
        ([], "schema must hold keywords"),
    ],
)
def test_a_schema_that_asks_for_more_is_a_mistake_of_the_program(schema: dict, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        check_schema(schema)
    with pytest.raises(ValueError, match=reason):
        parse("{}", schema)


def test_integers_may_be_written_as_floats() -> None:
    assert parse("2.0", {"type": "integer"}) == 2
    with pytest.raises(ReplyError):
        parse("2.5", {"type": "integer"})
    assert math.isclose(parse("2.5", {"type": "number"}), 2.5)
