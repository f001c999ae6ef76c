"""/api/images/…: a picture analysed by category, and the prompt that a language model makes of that.

The wire is the image analyzer's of seed 001, for the clients it has: forms in, JSON or server-sent events
out. A failure is {"success": false, "error": "one line"} with a status, in a stream {"status": "error",
"message": "one line"}. Where no language model can be reached, the prompt is CLIP's own words, and `note`
says so.

No `annotations` from the future here: FastAPI reads them.
"""

import json
import logging
import re
import threading
import time
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import StreamingResponse

from ..choice import Choice
from ..errors import PromptglassError, Stopped, visible
from ..images import Picture
from ..jobs import Job
from ..progress import silent
from ..refine_request import Request as Wish
from ..service import Service
from . import described
from .access import Access
from .described import answers, errors, events
from .door import as_response, result_of, said
from .forms import FormAccess, Sent, form_described, form_door, sent_form
from .streaming import EventStream
from .wire_pictures import picture_of_bytes

log = logging.getLogger("promptglass")

PREFIX = "/api/images"
MOST_BYTES = 20 * 1024 * 1024
CATEGORIES = ("style", "mood", "composition", "color_palette", "subjects")
LABELS = 3  # of each category
PROMPT_ID = "refine"
_OLLAMA_MODEL = "mistral:latest"  # the seed's, where the profile names none
# The picture in words: the thing itself first, as in prompts.
_IN_A_PROMPT = ("subjects", "style", "composition", "color_palette", "mood")
_SURE = 0.2  # from this confidence on, a second label of a category is said as well
_TOO_LARGE = f"Image file too large: more than {MOST_BYTES // 2**20} MB. Make it smaller."
_STREAM = (
    "JSON as `data`, step by step. The last is “complete”, with a `note` as /analyze may have one, "
    "or {status: “error”, message: one line}."
)
_EVERY_S, _STILL_HERE_EVERY_S = 0.25, 15.0

_ADDRESS = re.compile(r" \(https?://[^)]*\)")  # of an endpoint: not for whoever asks

Step = dict[str, Any]


def router(
    service: Service,
    access: Access,
    llm: str = "ollama",
    model: str | None = None,
    prompt_id: str = PROMPT_ID,
    origins: Collection[str] | None = None,
) -> APIRouter:
    """llm: ENDPOINT or ENDPOINT/MODEL. model: of CLIP, None for the host's. origins: see FormAccess.of()."""
    own = FormAccess.of(access, origins)
    shaped = form_door(own, _failure, MOST_BYTES, _TOO_LARGE)
    routes = APIRouter(prefix=PREFIX, tags=["image-analyzer"], route_class=shaped)
    analyzer = _Analyzer(service, llm, Choice(model=model), prompt_id)
    form = form_described("image", user_prompt="a beautiful landscape", deep_thinking=False)
    failure = _failure(described.LINE)
    told = answers(described.ANALYZED, failure=failure)
    routes.post("/analyze", openapi_extra=form, responses=told)(analyzer.analyze)
    routes.post(
        "/analyze-stream",
        openapi_extra=form,
        response_class=StreamingResponse,
        responses={**events(_STREAM, _event, *described.ANALYSIS_EVENTS), **errors(failure)},
    )(analyzer.analyze_stream)
    routes.get("/health", responses=answers(described.ANALYZER, failure=failure))(analyzer.health)
    return routes


def _failure(line: str) -> dict[str, Any]:
    return {"success": False, "error": line}


@dataclass(frozen=True)
class _Asked:
    picture: Picture
    user_prompt: str
    is_deep: bool


@dataclass(frozen=True)
class _Written:
    prompt: str
    note: str = ""

    def as_json(self) -> dict[str, str]:
        return {"generatedPrompt": self.prompt, **({"note": self.note} if self.note else {})}


class _Analyzer:
    def __init__(self, service: Service, llm: str, choice: Choice, prompt_id: str) -> None:
        self._service = service
        self._llm = llm
        self._choice = choice
        self._prompt_id = prompt_id

    def analyze(self, request: Request, sent: Sent = Depends(sent_form)) -> Response:
        """200 {success, generatedPrompt, analysis: {category: [{value, score}, …]}, userInput}; note: or not.

        A form: image, a file of 20 MB at most; user_prompt; deep_thinking, "true" or "false".
        """
        asked = _asked(sent)
        told: Step = {}

        def ended(job: Job) -> Iterator[None]:
            result_of(job, request)
            return iter(())

        for step in self._steps(asked, ended):
            told.update(step or {})
        note = {"note": told["note"]} if "note" in told else {}
        return as_response(
            {
                "success": True,
                "generatedPrompt": told["generatedPrompt"],
                "analysis": told["analysis"],
                "userInput": asked.user_prompt,
                **note,
            }
        )

    def analyze_stream(self, sent: Sent = Depends(sent_form)) -> Response:
        """200: server-sent events, {status: analyzing | analyzed | generating | complete, …} each.

        The form is that of /analyze.
        """
        asked, is_gone = _asked(sent), threading.Event()
        steps = self._steps(asked, lambda job: _watched(job, is_gone))
        return EventStream(_as_events(steps), is_gone)

    def health(self) -> Response:
        """200 {status, service, analyzer_initialized}; the last is whether CLIP is here."""
        is_here = not self._service.host.clip(self._choice, silent).obstacles("tables")
        return as_response({"status": "ok", "service": "image-analyzer", "analyzer_initialized": is_here})

    def _steps(
        self, asked: _Asked, ended: Callable[[Job], Iterator[None]]
    ) -> Generator[Step | None, None, None]:
        """What is told, step by step. ended: waits for a job, and may have None told meanwhile."""
        yield {"status": "analyzing", "message": "Analyzing image..."}
        job = self._service.label(asked.picture, CATEGORIES, top=LABELS, choice=self._choice)
        yield from ended(job)
        analysis = _analysis(job.wait()["categories"])
        yield {"status": "analyzed", "analysis": analysis}
        yield {"status": "generating", "message": "Generating prompt..."}
        written = yield from self._written(asked, analysis, ended)
        yield {"status": "complete", **written.as_json()}

    def _written(
        self, asked: _Asked, analysis: Mapping[str, Any], ended: Callable[[Job], Iterator[None]]
    ) -> Generator[None, None, _Written]:
        labels = _in_words(analysis)
        try:
            job = self._service.refine(self._wish(asked, labels))
            yield from ended(job)
            (answer,) = job.wait()["answers"]
        except Stopped:
            raise
        except PromptglassError as error:
            line = visible(_ADDRESS.sub("", str(error)))
            log.warning("%s: the prompt is CLIP's own: %s", PREFIX, line)
            words = [asked.user_prompt.strip(), *labels]
            note = f"made of CLIP's labels, without a language model: {line}"
            return _Written(", ".join(filter(None, words)), note)
        is_used = not all(candidate["problem"] for candidate in answer["candidates"])
        return _Written(answer["text"], "" if is_used else answer["why"])

    def _wish(self, asked: _Asked, labels: Sequence[str]) -> Wish:
        """By the seed's temperatures and lengths: 0.5 and 150 tokens, deep 0.7 and 300."""
        profile, model = self._endpoint()
        return Wish(
            text=", ".join(labels),
            prompt_id=self._prompt_id,
            profile=profile,
            model=model,
            wishes=asked.user_prompt,
            deep=asked.is_deep,
        )

    def _endpoint(self) -> tuple[str, str]:
        from ..llm.analyzer import endpoint_of
        from ..llm.profiles import profile

        name, model = endpoint_of(f"@{self._llm}")
        if not model and name == "ollama" and not profile(name).model:
            model = _OLLAMA_MODEL
        return name, model


def _asked(sent: Sent) -> _Asked:
    content = sent.file("image", MOST_BYTES, _TOO_LARGE)
    user_prompt, is_deep = sent.text("user_prompt"), sent.switch("deep_thinking")
    return _Asked(picture_of_bytes(content, "image"), user_prompt, is_deep)


def _analysis(categories: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    return {
        name: [{"value": one["label"], "score": round(one["confidence"], 4)} for one in categories[name]]
        for name in CATEGORIES
    }


def _in_words(analysis: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """The best label of every category, and the second where CLIP is sure of that, too."""
    return [
        one["value"]
        for name in _IN_A_PROMPT
        for place, one in enumerate(analysis[name][:2])
        if place == 0 or one["score"] >= _SURE
    ]


def _watched(job: Job, is_gone: threading.Event) -> Iterator[None]:
    """Until the job has ended; None now and then. Whoever asked and is gone stops it."""
    told_at = time.monotonic()
    while not job.has_ended(_EVERY_S):
        if is_gone.is_set():
            job.stop()
        elif time.monotonic() - told_at > _STILL_HERE_EVERY_S:
            told_at = time.monotonic()
            yield None


def _as_events(steps: Iterator[Step | None]) -> Iterator[str]:
    try:
        for step in steps:
            # A proxy hangs up on what says nothing.
            yield ": still here\n\n" if step is None else _event(step)
    except Stopped:  # nobody is there any more
        return
    except Exception as error:
        status, line = said(error)
        if status == 500:
            log.exception("%s/analyze-stream failed", PREFIX)
        yield _event({"status": "error", "message": line})


def _event(content: Step) -> str:
    return f"data: {json.dumps(content)}\n\n"
