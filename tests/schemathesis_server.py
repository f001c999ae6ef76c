"""schemathesis over all that /openapi.json describes: no 500, and every answer as it is described there.

    pip install schemathesis && python tests/schemathesis_server.py [EXAMPLES OF EACH ROUTE]

By itself it asks a service without models, over an empty folder; nothing listens on a port.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings


def failures(app: Any, examples: int = 50) -> list[str]:
    """One line for each route whose answers are not as they should be."""
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
    found = []
    for operation in (result.ok() for result in schema.get_all_operations()):
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            if line := _failure(operation, mode, wanted, examples):
                found.append(line)
    return found


def _failure(operation: Any, mode: Any, checks: list[Any], examples: int) -> str:
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
        answered = case.call()
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


def _service() -> Any:
    sys.path.insert(0, str(Path(__file__).parent.parent))
    place = Path(tempfile.mkdtemp())
    (place / "pictures").mkdir()
    (place / "config.yaml").write_text("{}")
    os.environ |= {"PROMPTGLASS_CONFIG": str(place / "config.yaml"), "HF_HUB_CACHE": str(place / "hub")}
    os.environ |= {"HF_HUB_OFFLINE": "1", "OLLAMA_HOST": "127.0.0.1:9"}

    from promptglass.host import Standalone
    from promptglass.library import Library
    from promptglass.server.access import Access
    from promptglass.server.app import create_app
    from promptglass.service import Service

    service = Service(Standalone([place / "pictures"], place / "wildcards", endpoints=[]))
    access = Access(dict, {"testserver", "localhost"}, cors=frozenset())
    library = Library(place / "library.sqlite")
    return create_app(service, access, library, has_page=False, stops_within_s=0)


if __name__ == "__main__":
    lines = failures(_service(), int(sys.argv[1]) if len(sys.argv) > 1 else 50)
    print("\n".join(lines) or "nothing found")
    raise SystemExit(1 if lines else 0)
