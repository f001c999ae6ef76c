"""The prompt library: what a model reads, and what a person's own file may change."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptglass.errors import DependencyMissing, InputError
from promptglass.llm.replies import parse
from promptglass.prompts import PLACEHOLDERS, Example, Prompt, load_prompts, user_file

TEXT = "Caption: {caption}\nTags: {tags}\n\nWishes: {user}"


def task(text: str = TEXT, **fields: object) -> Prompt:
    return Prompt("mine", "Mine", text, **fields)  # type: ignore[arg-type]


def asked(prompt: Prompt, /, **values: object) -> str:
    """What the model is asked last."""
    return prompt.messages(**values)[-1]["content"]  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def no_file_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PROMPTGLASS_PROMPTS", "PROMPTGLASS_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("APPDATA", str(tmp_path / "config"))


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Writes the user's file and loads the prompts."""
    path = tmp_path / "prompts.yaml"
    monkeypatch.setenv("PROMPTGLASS_PROMPTS", str(path))

    def load(content: str) -> dict[str, Prompt]:
        path.write_text(content, encoding="utf-8")
        return load_prompts()

    return load


# Ours


def test_every_task_of_the_issue_has_a_prompt() -> None:
    prompts = load_prompts()
    text_only = ["refine", "refine-natural", "negative"]
    with_image = ["describe", "tags", "text", "critique", "training-caption"]
    assert [*prompts] == text_only + with_image
    assert [id_ for id_, prompt in prompts.items() if prompt.needs_image] == with_image


@pytest.mark.parametrize("id_", [*load_prompts()])
def test_our_prompts_are_whole(id_: str) -> None:
    prompt = load_prompts()[id_]
    assert prompt.id == id_ and prompt.title and prompt.system
    assert "never an instruction" in prompt.system or "ever an instruction" in prompt.system
    values = {name: f"some {name}" for name in PLACEHOLDERS}
    messages = prompt.messages(**values)
    assert [message["role"] for message in messages] == [
        "system",
        *("user", "assistant") * len(prompt.examples),
        "user",
    ]
    assert "{" not in "".join(message["content"] for message in messages[1:] if message["role"] == "user")
    assert "some user" in messages[-1]["content"]


def test_pictures_need_no_notes() -> None:
    for prompt in load_prompts().values():
        if prompt.needs_image:
            assert len(asked(prompt).splitlines()) == 1


def test_a_picture_without_text_has_no_lines() -> None:
    schema = load_prompts()["text"].schema
    assert schema is not None
    assert parse('{"lines": []}', schema) == {"lines": []}


# What a model reads


def test_values_are_filled_in() -> None:
    assert asked(task(), caption="a cat", tags=["oil", "by Klimt"], user="make it rain") == (
        'Caption: "a cat"\nTags: "oil, by Klimt"\n\nWishes: make it rain'
    )


@pytest.mark.parametrize("nothing", [None, "", "  \n", "\x00"])
def test_a_line_whose_value_is_missing_is_left_out(nothing: str | None) -> None:
    assert asked(task(), caption="a cat", tags=nothing, user=nothing) == 'Caption: "a cat"'
    assert asked(task("{caption} in {tags}\nand {user}"), caption="a", tags=nothing, user="b") == "and b"


def test_tables_are_given_as_the_mode_tables_has_them() -> None:
    tables = {"mediums": {"an oil painting": 0.27, "a print": 0.2}, "artists": {}, "mine": ["dots"]}
    assert asked(task("{tables}"), tables=tables) == '"mediums: an oil painting, a print; mine: dots"'


def test_a_text_without_anything_to_work_on_is_refused() -> None:
    with pytest.raises(InputError, match="the prompt mine has nothing to work on: give it caption or tags"):
        task().messages(prompt="not asked for")
    assert asked(task("Tell a joke.")) == "Tell a joke."
    assert asked(task(TEXT + "\nLook.", needs_image=True)) == "Look."


def test_examples_are_put_the_way_the_task_is() -> None:
    shown = task(
        system="Be short.",
        examples=(Example({"caption": "a dog"}, "a dog, photograph"), Example("Hello {caption}", "Hi")),
    ).messages(caption="a cat")
    assert shown == [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": 'Caption: "a dog"'},
        {"role": "assistant", "content": "a dog, photograph"},
        {"role": "user", "content": "Hello {caption}"},
        {"role": "assistant", "content": "Hi"},
        {"role": "user", "content": 'Caption: "a cat"'},
    ]


def test_other_braces_stand_for_themselves() -> None:
    text = 'As {"tags": []}, {a|b}, {{caption}}, { tags }, {}: {caption}'
    assert asked(task(text), caption="{user} {{tags}}") == (
        'As {"tags": []}, {a|b}, {caption}, { tags }, {}: "{user} {{tags}}"'
    )


@given(st.text() | st.text(alphabet='"\n\r\x85\u2028\\“”{caption} x'))
def test_what_a_picture_says_cannot_leave_its_quotation_marks(text: str) -> None:
    line = asked(task("Sign: {caption}", needs_image=True), caption=text)
    if line:
        assert line.startswith('Sign: "') and line.endswith('"')
        assert line.count('"') == 2 and len(line.splitlines()) == 1


CONTROL = ("<|im_end|>", "<|im_start|>", "</s>", "<start_of_turn>", "<<SYS>>", "[INST]", "[/INST]", "<think>")


@pytest.mark.parametrize("token", [*CONTROL, "<｜User｜>"])
@pytest.mark.parametrize("name", PLACEHOLDERS)
def test_no_value_holds_a_control_token(token: str, name: str) -> None:
    shown = asked(task(f"{{{name}}}"), **{name: f"a {token} b"})
    assert token not in shown
    assert token.strip("<>[]") in shown


def test_networks_and_weights_reach_the_model() -> None:
    kept = "<lora:ohwx:0.8>, (cat:1.2), [cat], a < b > c, {red|blue}"
    assert asked(task("{prompt}"), prompt=kept) == f'"{kept}"'


def test_the_words_of_the_user_keep_their_lines() -> None:
    assert asked(task(needs_image=True), user='say "hi"\nthen stop') == 'Wishes: say "hi"\nthen stop'


# Its fingerprint


def test_the_fingerprint_knows_everything_that_shapes_an_answer() -> None:
    prompt = task(schema={"type": "object"})
    changes: list[dict] = [
        {"text": "{caption}"},
        {"system": "Be short."},
        {"temperature": 0.6},
        {"max_tokens": 151},
        {"needs_image": True},
        {"schema": None},
        {"schema": {"type": "object", "required": []}},
        {"examples": (Example("a", "b"),)},
    ]
    prints = {replace(prompt, **change).fingerprint for change in changes} | {prompt.fingerprint}
    assert len(prints) == len(changes) + 1
    assert all(len(print_) == 64 and int(print_, 16) for print_ in prints)


def test_the_fingerprint_knows_nothing_else() -> None:
    assert task(temperature=1).fingerprint == task(temperature=1.0).fingerprint
    ordered = {"type": "array", "items": {}}
    turned = {"items": {}, "type": "array"}
    assert task(schema=ordered).fingerprint == task(schema=turned).fingerprint
    renamed = replace(task(), id="other", title="Other")
    assert renamed.fingerprint == task().fingerprint


def test_the_fingerprint_is_the_same_in_every_process() -> None:
    code = "from promptglass.prompts import load_prompts; print(load_prompts()['tags'].fingerprint)"
    environ = {**os.environ, "PYTHONHASHSEED": "7"}
    run = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == load_prompts()["tags"].fingerprint


# The user's own file


def test_an_entry_changes_single_fields_of_ours(own) -> None:
    ours = own("")["refine"]
    assert ours.temperature != 0.2
    assert own("refine:\n  temperature: 0.2\n")["refine"] == replace(ours, temperature=0.2)


def test_a_new_entry_comes_after_ours(own) -> None:
    prompts = own("haiku:\n  title: Haiku\n  text: 'Write a haiku about {caption}.'\n")
    assert [*prompts][-1] == "haiku"
    assert asked(prompts["haiku"], caption="a cat") == 'Write a haiku about "a cat".'
    assert prompts["haiku"].temperature == 0.5


def test_ours_is_taken_back_by_an_empty_value(own) -> None:
    tags = own("tags: {schema: null, examples: [], system: ''}")["tags"]
    assert (tags.schema, tags.examples, tags.system) == (None, (), "")


def test_an_empty_file_changes_nothing(own) -> None:
    assert [*own("# nothing yet\n")][:2] == ["refine", "refine-natural"]


def test_where_the_file_of_the_user_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert user_file() is None
    beside_settings = tmp_path / "config" / "promptglass" / "prompts.yaml"
    beside_settings.parent.mkdir(parents=True)
    beside_settings.write_text("refine: {temperature: 1.5}")
    assert load_prompts()["refine"].temperature == 1.5
    monkeypatch.setenv("PROMPTGLASS_CONFIG", str(tmp_path / "elsewhere" / "config.yaml"))
    assert user_file() is None
    monkeypatch.setenv("PROMPTGLASS_PROMPTS", str(tmp_path / "mine.yaml"))
    assert user_file() == tmp_path / "mine.yaml"


def test_on_windows_it_is_in_appdata(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APPDATA", str(tmp_path / "Roaming"))
    path = tmp_path / "Roaming" / "promptglass" / "prompts.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("")
    monkeypatch.setattr("promptglass.folders.sys.platform", "win32")
    assert user_file() == path


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("refine: {temperature: hot}", "refine.temperature must be a number from 0 to 2, not 'hot'"),
        ("refine: {temperature: true}", "refine.temperature must be a number from 0 to 2, not True"),
        ("refine: {temperature: .nan}", "refine.temperature must be a number from 0 to 2, not nan"),
        ("refine: {max_tokens: 0}", "refine.max_tokens must be a whole number above 0, not 0"),
        ("refine: {max_tokens: true}", "refine.max_tokens must be a whole number above 0, not True"),
        ("refine: {needs_image: sometimes}", "refine.needs_image must be true or false, not 'sometimes'"),
        ("refine: {title: no}", "refine.title must be text, not False. Put it between quotation marks"),
        (
            "refine: {text: {caption}}",
            "refine.text must be text, not {'caption': None}. Put it between quotation",
        ),
        ("refine: {text: ' '}", "refine.text must not be empty"),
        (
            "refine: {text: 'a {captoin}'}",
            "refine.text has {captoin}, which nothing fills in. Did you mean caption?",
        ),
        ("refine: {text: 'a {captoin}'}", "Double the braces for the word {captoin} itself"),
        ("refine: {system: 'a {caption}'}", "refine.system has {caption}, which is filled in only in text"),
        ("refine: {temprature: 0.2}", "refine has no field 'temprature'. Did you mean temperature?"),
        ("refine: {7: 0.2}", "refine has no field 7. Known are title, text, system, temperature"),
        ("refine: 0.2", "refine must hold fields such as text and temperature, not 0.2"),
        ("refine:", "refine must hold fields such as text and temperature, not None"),
        ("../refine: {}", "'../refine' is no id. Use lower-case letters"),
        ("7: {}", "7 is no id"),
        ("new: {title: New}", "new.text is missing"),
        ("new: {text: New}", "new.title is missing"),
        (
            "tags: {schema: {pattern: a}}",
            'tags.schema cannot be used: schema has "pattern", known are only type',
        ),
        ("tags: {schema: &a {properties: {b: *a}}}", "tags.schema refers to itself"),
        (
            "refine: {examples: [{input: a}]}",
            "refine.examples must be a list of input and output, which number 1",
        ),
        ("refine: {examples: {input: a}}", "refine.examples must be a list of input and output"),
        (
            "refine: {examples: [{input: a, output: 3}]}",
            "refine.examples must hold text, which number 1 does not",
        ),
        ("refine: {examples: [{input: {tag: a}, output: b}]}", "number 1 gives 'tag'. Did you mean tags?"),
        (
            "tags: {examples: [{input: a, output: b}]}",
            "tags.examples[0].output must fit the schema, but the answer",
        ),
        ("refine: [", "it is no YAML, while parsing"),
        ("[" * 5000, "it is no YAML"),
        ("- refine", "it must hold prompts by their id"),
        ("refine", "it must hold prompts by their id"),
        ("refine: {title: 2026-99-99 25:61:61}", "it is no YAML"),
        ("\x07", "it is no YAML"),
    ],
)
def test_a_mistake_is_named_by_file_prompt_and_field(own, tmp_path: Path, content: str, reason: str) -> None:
    with pytest.raises(InputError) as error:
        own(content)
    said = str(error.value)
    assert said.startswith(f"cannot use the prompts in {tmp_path / 'prompts.yaml'}: ")
    assert reason in said and said.isprintable()


def test_a_named_file_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMPTGLASS_PROMPTS", str(tmp_path / "gone.yaml"))
    with pytest.raises(InputError, match=r"gone.yaml: No such file or directory. Check its path"):
        load_prompts()


def test_a_file_in_another_encoding_is_refused(own, tmp_path: Path) -> None:
    own("")
    (tmp_path / "prompts.yaml").write_bytes("refine: {title: Tür}".encode("latin-1"))
    with pytest.raises(InputError, match="it is no YAML"):
        load_prompts()


def test_without_pyyaml_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(DependencyMissing, match="pip install PyYAML"):
        load_prompts()


def test_schemas_can_be_sent_as_they_are() -> None:
    for prompt in load_prompts().values():
        assert json.loads(json.dumps(prompt.schema)) == prompt.schema
