"""/openapi.json says of every route what it does, and of every field, asked or answered, what it means."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")

from promptglass.host import Standalone
from promptglass.library import Library
from promptglass.server.access import Access
from promptglass.server.app import create_app
from promptglass.service import Service

Operation = tuple[str, dict[str, Any]]
METHODS = ("get", "post", "put", "patch", "delete")


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    (tmp_path / "config.yaml").write_text("{}")
    monkeypatch.setenv("PROMPTGLASS_CONFIG", str(tmp_path / "config.yaml"))
    service = Service(Standalone([tmp_path], endpoints=[]))
    library = Library(tmp_path / "library.sqlite")
    return create_app(service, Access(dict, ()), library, has_page=False).openapi()


def operations(spec: dict[str, Any]) -> Iterator[Operation]:
    for path, methods in spec["paths"].items():
        yield from ((f"{method} {path}", said) for method, said in methods.items() if method in METHODS)


def schemas(spec: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Of every body and every answer; of a stream, its events'."""
    for name, said in operations(spec):
        contents = {"body": said.get("requestBody", {}), **said["responses"]}
        for where, told in contents.items():
            for kind, content in told.get("content", {}).items():
                of_what = "itemSchema" if kind == "text/event-stream" else "schema"
                yield f"{name} {where}", content.get(of_what, {})


def undescribed(schema: dict[str, Any], name: str, spec: dict[str, Any]) -> Iterator[str]:
    """Fields without a word that says what they are; those within others, too."""
    if "$ref" in schema:
        schema = spec["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    for field, said in schema.get("properties", {}).items():
        if not said.get("description"):
            yield f"{name}.{field}"
        yield from undescribed(said, f"{name}.{field}", spec)
    for within in {"items", "additionalProperties", "contentSchema"} & {*schema}:
        yield from undescribed(schema[within], f"{name}[]", spec)
    for one in schema.get("anyOf", []):
        yield from undescribed(one, name, spec)


def test_every_route_says_what_it_does(spec: dict[str, Any]):
    found = [name for name, said in operations(spec) if not (said.get("summary") and said.get("description"))]
    assert found == []
    assert len([*operations(spec)]) > 40


def test_every_field_of_questions_and_answers_is_described(spec: dict[str, Any]):
    parameters = [
        f"{name} {parameter['name']}"
        for name, said in operations(spec)
        for parameter in said.get("parameters", [])
        if not parameter.get("description")
    ]
    fields = [line for name, schema in schemas(spec) for line in undescribed(schema, name, spec)]
    shapeless = [name for name, schema in schemas(spec) if not schema]
    assert parameters + fields + shapeless == []


def test_every_answer_is_told_with_its_status_and_an_example(spec: dict[str, Any]):
    for name, said in operations(spec):
        assert {"4XX", "5XX"} <= {*said["responses"]}, name
        status = re.match(r"2\d\d", said["description"])
        assert status, f"{name} begins with the status of its answer"
        for kind, content in said["responses"][status[0]]["content"].items():
            assert "example" in content, f"{name} {kind}"


def test_streams_of_events_are_told_as_such(spec: dict[str, Any]):
    streams = []
    for name, said in operations(spec):
        kinds = [*said["responses"].get("200", {}).get("content", {})]
        if "text/event-stream" in kinds or "server-sent events" in said["description"]:
            assert kinds == ["text/event-stream"], name
            streams.append(name)
    assert streams == [
        "get /v1/batches/{id}/events",
        "get /promptglass/v1/batches/{id}/events",
        "post /api/images/analyze-stream",
    ]
