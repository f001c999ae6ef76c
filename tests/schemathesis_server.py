"""schemathesis over all that /openapi.json describes: no 500, and every answer as it is described there.

    pip install schemathesis && python tests/schemathesis_server.py [EXAMPLES OF EACH ROUTE]

By itself it asks two services: one without models, over an empty folder; and one with toy models, pictures
and a language model that is none, in questions that can be answered. There every route has to answer well.
Nothing listens on a port but that language model.
"""

from __future__ import annotations

import base64
import io
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings

Known = Mapping[str, Mapping[str, Any]]


def failures(app: Any, examples: int = 50, known: Known | None = None) -> list[str]:
    """One line for each route whose answers are not as they should be.

    known: by how a path begins, or by "METHOD path", values of fields that can be answered, in place of
    made-up ones; every route then has to answer well at least once.
    """
    import schemathesis
    from schemathesis.checks import load_all_checks
    from schemathesis.generation import GenerationMode
    from schemathesis.specs.openapi import checks

    load_all_checks()
    # Not among them: that all that is well-formed is accepted. A folder may not be there.
    wanted = [
        checks.status_code_conformance,
        checks.content_type_conformance,
        checks.response_headers_conformance,
        checks.response_schema_conformance,
    ]
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    modes = (
        (GenerationMode.POSITIVE, GenerationMode.NEGATIVE) if known is None else (GenerationMode.POSITIVE,)
    )
    found = []
    for operation in (result.ok() for result in schema.get_all_operations()):
        values = {
            name: value
            for start, its_values in (known or {}).items()
            if operation.path.startswith(start) or operation.label == start
            for name, value in its_values.items()
        }
        for mode in modes:
            if line := _failure(operation, mode, wanted, examples, values, said := set()):
                found.append(line)
            elif known is not None and not any(200 <= status < 300 for status in said):
                found.append(f"{operation.label}: never answered well, but {said}")
    return found


def _failure(
    operation: Any, mode: Any, checks: list[Any], examples: int, known: Mapping[str, Any], said: set[int]
) -> str:
    """said: the statuses of its answers go in there."""
    from hypothesis.errors import InvalidArgument, Unsatisfiable

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=[*HealthCheck],
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        if isinstance(case.body, dict):  # where a field too many is none
            case.body.update(known)
        for fields in (case.query, case.path_parameters):
            fields.update({name: value for name, value in known.items() if name in fields})
        answered = case.call(timeout=120)  # batches that were started before take their turns
        said.add(answered.status_code)
        assert answered.status_code != 500, answered.text
        case.validate_response(answered, checks=checks)

    try:
        ask()
    except (Unsatisfiable, InvalidArgument):  # there is no wrong way to ask for it
        return ""
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # several failures are a group, which Python before 3.11 has no name for
        line = " ".join(str(error).split())
        return f"{operation.label} ({mode.value}): {type(error).__name__}: {line[:600]}"
    return ""


# -- services ------------------------------------------------------------------------------------------------


def _place() -> Path:
    """A folder for a service, with pictures in one within; and nothing of whoever runs this is seen."""
    sys.path.insert(0, str(Path(__file__).parent.parent))
    place = Path(tempfile.mkdtemp())
    (place / "pictures").mkdir()
    (place / "config.yaml").write_text("{}")
    os.environ |= {
        "PROMPTGLASS_CONFIG": str(place / "config.yaml"),
        "XDG_CACHE_HOME": str(place / "cache"),
        "HF_HUB_CACHE": str(place / "hub"),
        "HF_HUB_OFFLINE": "1",
        "OLLAMA_HOST": "127.0.0.1:9",
        "STABLE_DIFFUSION_BASE_URL": "http://127.0.0.1:9",
        "PRIVATE": "False",  # schemathesis asks from no address
    }
    return place


def _app(place: Path, endpoints: list[str]) -> Any:
    from promptglass import jobs
    from promptglass.host import Standalone
    from promptglass.library import Library
    from promptglass.server.access import Access
    from promptglass.server.app import create_app
    from promptglass.service import Service

    jobs._KEPT_JOBS = 10_000  # one that is asked for again and again is among many others
    host = Standalone([place / "pictures"], place / "wildcards", endpoints=endpoints)
    service = Service(host, frees_language_models=False)
    access = Access(dict, {"testserver", "localhost"}, cors=frozenset())
    library = Library(place / "library.sqlite")
    return create_app(service, access, library, has_page=False, stops_within_s=0)


def _without_models(examples: int) -> list[str]:
    return failures(_app(_place(), []), examples)


def _with_toys(examples: int) -> list[str]:
    place = _place()
    from conftest import noise, tiny_encoder
    from fakes.llm_server import MODELS, FakeServer, as_json, by_path, streamed
    from fakes.toy_server import TABLES, ToyCaptioner
    from fastapi.testclient import TestClient
    from PIL.PngImagePlugin import PngInfo

    from promptglass import host
    from promptglass.clip import analyzer, loading

    loading.load_encoder = lambda name, *_: tiny_encoder(name=name)
    host.default_tables = lambda: TABLES
    host.OwnModels._writer = lambda *_: ToyCaptioner()
    analyzer.not_here = lambda model: []

    prompt = PngInfo()
    prompt.add_text("parameters", "a cat on a mat\nNegative prompt: blurry\nSteps: 20, Sampler: Euler")
    pictures = [place / "pictures" / name for name in ("a.png", "b.png")]
    for number, picture in enumerate(pictures):
        noise(number).save(picture, pnginfo=prompt)
    content = io.BytesIO()
    noise(2).save(content, "PNG")
    image = base64.b64encode(content.getvalue()).decode()

    app, folder = _app(place, ["ollama"]), str(place / "pictures")
    answers = by_path(chat=streamed("ollama", ["a cat ", "on a mat"]), tags=as_json(MODELS["ollama"]))
    with FakeServer(answers) as ollama, TestClient(app, base_url="http://localhost") as client:
        os.environ["OLLAMA_HOST"] = ollama.url
        wanted = {"folder": folder, "modes": ["fast", "tables"], "txt": "overwrite"}
        batch = client.post("/v1/batches", json=wanted).json()
        _ended(client, f"/v1/batches/{batch['id']}")
        client.post("/api/v1/images/scan", json={"path": folder})
        ids = [one["id"] for one in client.get("/api/v1/images").json()["images"]]
        job = client.post("/api/v1/images/interrogate", json={"all": True, "mode": "fast"}).json()
        _ended(client, f"/api/v1/images/interrogate/{job['id']}")
        ours = {
            "id": batch["id"],
            "after": 0,
            "image": image,
            "folder": folder,
            "path": str(pictures[0]),
            "paths": [*map(str, pictures)],
            "force": False,  # or many batches are under way at once
            "modes": ["fast", "palette"],
            "model": None,
            "tables": None,
            "categories": None,
            "llm": "ollama",
            "format": "txt",
            "txt": "overwrite",
            "replace": ["dog=cat"],
        }
        refine = {"text": "a cat", "prompt_id": "refine", "profile": "ollama", "model": "", "candidates": 2}
        known = {
            "/v1": ours,
            "/v1/refine": refine,
            "/promptglass/v1": ours,
            "/promptglass/v1/refine": refine,
            "/sdapi": {"image": image, "model": "clip"},
            "/interrogator": {"image": image, "mode": "fast", "clip_model_name": "ViT-L-14/openai"},
            "/api/images": {"image": content.getvalue(), "user_prompt": "golden", "deep_thinking": True},
            "GET /analyze": {"url": None, "file": str(pictures[0])},
            "POST /analyze": {"file": content.getvalue()},
            "/api/v1": {
                "id": ids[0],
                "job": job["id"],
                "ids": None,
                "all": True,
                "model": None,
                "mode": "fast",
            },
            "/api/v1/images/interrogate": {"force": False},
            "/api/v1/images/scan": {"path": folder},
            "/api/v1/prompts": {"q": "cat"},
        }
        return failures(app, examples, known)


def _ended(client: Any, job: str) -> None:
    while client.get(job).json()["state"] == "running":
        time.sleep(0.05)


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    lines = [*_without_models(count), *_with_toys(max(10, count // 5))]
    print("\n".join(lines) or "nothing found")
    raise SystemExit(1 if lines else 0)
