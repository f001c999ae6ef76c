"""/analyze and /health: the labels of a picture, with confidences and emoji.

The wire is the CLIP service's of seed 004, for the clients it has. A failure is the same JSON with "status":
"error", no predictions, and "error": {"message": "one line"}.

No `annotations` from the future here: FastAPI reads them.
"""

import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, Query, Request, Response

from ..choice import Choice
from ..clip.classifier import categories, read_label_folder
from ..download import download
from ..errors import ImageError, InputError, ModelError
from ..host import allowed
from ..images import Picture, open_file
from ..progress import silent
from ..service import Service
from . import described
from .access import Access
from .classify_settings import ClassifySettings
from .clip_models import with_known_model
from .described import answers
from .door import NotFound, as_response, result_of
from .forms import FormAccess, Sent, form_described, form_door, sent_form, took_s
from .uploads import TooLarge
from .wire_pictures import picture_of_bytes

log = logging.getLogger("promptglass")

MOST_BYTES = 8 * 1024 * 1024
_TOO_LARGE = "File too large"
_IMAGENET = Path(__file__).parent.parent / "data" / "imagenet_classes.txt"


def router(
    service: Service,
    access: Access,
    settings: ClassifySettings | None = None,
    labels: Path | None = None,
    origins: Collection[str] | None = None,
) -> APIRouter:
    """settings: None for those of the environment. labels: a folder of .txt files; None for our own.

    origins: see FormAccess.of(). Raises InputError for settings that cannot be used.
    """
    settings = ClassifySettings.from_environment() if settings is None else settings
    own = FormAccess.of(access, origins)
    shaped = form_door(own, _failure, MOST_BYTES, _TOO_LARGE, settings.is_private)
    routes = APIRouter(tags=["clip"], route_class=shaped)
    classifier = _Classifier(service, settings, labels)
    failure = {**_failure(described.LINE), "metadata": {"processing_time": 0.01}}
    told = answers(described.CLASSIFIED, failure=failure)
    routes.get("/analyze", responses=told)(classifier.analyze)
    routes.post("/analyze", openapi_extra=form_described("file"), responses=told)(classifier.upload)
    routes.get("/health", responses=answers(described.CLASSIFIER, failure=failure))(classifier.health)
    return routes


def built_in_labels() -> list[str]:
    """What is in pictures: people and places of our categories, then the thousand things of ImageNet."""
    return [*categories()["subjects"].labels, *_IMAGENET.read_text("utf-8").splitlines()]


class _Classifier:
    def __init__(self, service: Service, settings: ClassifySettings, labels: Path | None) -> None:
        self._service = service
        self._settings = settings
        self._no_labels = ""
        try:
            found = dict.fromkeys(built_in_labels(), "") if labels is None else read_label_folder(labels)
        except InputError as error:  # it is told to whoever asks, and once here
            log.warning("no labels: %s", error)
            found, self._no_labels = {}, "No labels loaded"
        self._labels = _as_lines(found)

    def analyze(
        self,
        request: Request,
        url: str | None = Query(None, description="A picture's address on the public internet."),
        file: str | None = Query(None, description="A picture below the folders that may be used."),
    ) -> Response:
        """200 {service, status, predictions: [{label, confidence, emoji}, …], metadata}, the best first.

        One of url, of a picture on the public internet, and file, below the folders that may be used. There
        is no emoji where a label has none.
        """
        if url and file:
            raise InputError("Cannot provide both url and file parameters")
        if url:
            return self._classified(_picture_of_url(url), request)
        if file:
            return self._classified(self._picture_of_file(file), request)
        raise InputError("Must provide either url or file parameter")

    def upload(self, request: Request, sent: Sent = Depends(sent_form)) -> Response:
        """200, the same of a form's file, of 8 MB at most."""
        content = sent.file("file", MOST_BYTES, _TOO_LARGE)
        return self._classified(picture_of_bytes(content, "file"), request)

    def health(self) -> Response:
        """200 {status, model_status, device, num_labels}."""
        host = self._service.host
        obstacles = host.clip(self._choice(), silent).obstacles("tables")
        return as_response(
            {
                "status": "healthy",
                "model_status": "not_loaded" if obstacles else "loaded",
                "device": host.facts().get("device", ""),
                "num_labels": len(self._labels),
            }
        )

    def _choice(self) -> Choice:
        return with_known_model(Choice(model=self._settings.model), self._service.host)

    def _picture_of_file(self, file: str) -> Picture:
        """What is outside is not found, whether it is there or not; the console says why."""
        try:
            place = allowed(file, self._service.host.roots)
        except InputError as error:
            log.warning("/analyze: %s", error)
            raise NotFound(f"File not found: {file}") from error
        try:
            place.lstat()
        except (OSError, ValueError) as error:
            raise NotFound(f"File not found: {file}") from error
        with open_file(str(place)) as stream:
            content = stream.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise TooLarge(_TOO_LARGE)
        return picture_of_bytes(content, file)

    def _classified(self, picture: Picture, request: Request) -> Response:
        if self._no_labels:
            raise ModelError(self._no_labels)
        settings = self._settings
        try:
            lines = "\n".join(self._labels)
            job = self._service.label(
                picture, labels=lines, top=settings.max_predictions, choice=self._choice()
            )
            found = result_of(job, request)["categories"]["labels"]
        except ModelError as error:
            raise ModelError(f"Model not loaded: {error}") from error
        predictions = [
            _prediction(one) for one in found if one["confidence"] >= settings.confidence_threshold
        ]
        metadata = {"processing_time": took_s(), "model_info": {"framework": "OpenAI"}}
        return as_response(
            {"service": "clip", "status": "success", "predictions": predictions, "metadata": metadata}
        )


def _picture_of_url(url: str) -> Picture:
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        is_address = False
    if not is_address:
        raise InputError("Invalid URL")
    try:
        return picture_of_bytes(download(url, public_only=True, most_bytes=MOST_BYTES), "the picture")
    except ImageError as error:
        raise InputError(f"Failed to process image URL: {error.reason}") from error


def _prediction(found: Mapping[str, Any]) -> dict[str, Any]:
    told = {"label": found["label"], "confidence": round(found["confidence"], 3)}
    return {**told, "emoji": found["emoji"]} if found["emoji"] else told


def _failure(line: str) -> dict[str, Any]:
    return {
        "service": "clip",
        "status": "error",
        "predictions": [],
        "error": {"message": line},
        "metadata": {"processing_time": took_s()},
    }


def _as_lines(labels: Mapping[str, str]) -> list[str]:
    """As the files have them: `label`, or `label = EMOJI`."""
    return [f"{label} = {emoji}" if emoji else label for label, emoji in labels.items()]
