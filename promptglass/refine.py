"""A language model proposes, CLIP judges.

Several prompts are asked for. Each is put right where that can be done: what must be kept, and how much CLIP
reads. The one closest to the picture is taken, if it is closer than what went in.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from .candidate import holds, put_right
from .errors import EndpointError, InputError, ReplyError
from .llm.queue import Ask, Listen, ask_all
from .progress import Progress, silent

if TYPE_CHECKING:
    from PIL import Image

    from .clip.interrogator import Interrogator, Subject
    from .clip.vocabulary import Vocabulary
    from .llm import Endpoint, Reply
    from .prompts import Prompt

COUNT = 4
# What counts as closer. An estimate: a synonym or another order of words moves a cosine by some thousandths.
MARGIN = 0.005
# Twice this far apart are the temperatures of the candidates.
_SPREAD = 0.3
DEEP_TEMPERATURE, DEEP_MAX_TOKENS = 0.7, 300

Scores = Callable[[Sequence[str]], Sequence[float]]  # the cosine of a picture with each of several texts


@dataclass(frozen=True)
class Notes:
    """What is known of a picture, and told to the language model."""

    caption: str = ""
    tables: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # table to label to cosine
    embedded: str = ""  # the prompt in its file
    embedded_artists: Sequence[str] = ()

    @property
    def labels(self) -> list[str]:
        """CLIP's best, the closest first, each once."""
        scores = {label: score for table in self.tables.values() for label, score in table.items()}
        return sorted(scores, key=lambda label: -scores[label])

    @property
    def artists(self) -> Sequence[str]:
        """Those named in the file; where there are none, CLIP's guess."""
        return self.embedded_artists or [*self.tables.get("artists", ())]

    @property
    def prompt(self) -> str:
        """Caption and labels as a prompt."""
        return ", ".join(filter(None, (self.caption, *self.labels)))


@dataclass(frozen=True)
class Candidate:
    prompt: str
    temperature: float
    score: float | None = None  # its cosine with the picture
    problem: str = ""  # why it cannot win


@dataclass(frozen=True)
class Refinement:
    """The prompt to use, and how it was chosen. Scores are cosines with the picture, None without CLIP."""

    prompt: str
    score: float | None
    is_refined: bool  # or what went in stands
    gain: float | None  # of the best candidate over what went in
    why: str
    input: str
    input_score: float | None
    candidates: Sequence[Candidate]


def refine(
    endpoint: Endpoint,
    prompt: Prompt,
    notes: Notes,
    scores: Scores | None = None,
    *,
    image: Image.Image | None = None,
    wishes: str = "",
    keep: Sequence[str] = (),
    count: int = COUNT,
    deep: bool = False,
    margin: float = MARGIN,
    seed: int = 0,
    progress: Progress = silent,
    listen: Listen | None = None,
) -> Refinement:
    """A prompt for one picture.

    scores: how CLIP judges; without, the first candidate that can be used is taken. image: shown to a model
    that sees. keep: words that must not be lost, such as a trigger; artists of the notes are kept anyway.
    seed: another one asks for other candidates. listen: see ask_all().
    deep: 0.7 and 300 tokens instead of the prompt's own temperature and length (0.5 and 150).
    Raises EndpointError where no candidate came, InputError where there is nothing to work on.
    """
    asks = asks_for(prompt, notes, wishes, count, deep, image, seed)
    replies = dict(ask_all(endpoint, asks, f"{endpoint.name}: {prompt.id}", progress, listen))
    return judged(prompt, notes, asks, [replies[place] for place in range(count)], scores, keep, margin)


def asks_for(
    prompt: Prompt,
    notes: Notes,
    wishes: str = "",
    count: int = COUNT,
    deep: bool = False,
    image: Image.Image | None = None,
    seed: int = 0,
) -> list[Ask]:
    """The questions that are asked: the same one, from the most faithful to the boldest."""
    if count < 1:
        raise InputError(f"{count} candidates are none: ask for 1 or more")
    around, max_tokens = prompt.temperature, prompt.max_tokens
    if deep:
        around, max_tokens = DEEP_TEMPERATURE, max(DEEP_MAX_TOKENS, max_tokens)
    messages = prompt.messages(
        caption=notes.caption,
        tags=notes.labels,
        tables=notes.tables,
        prompt=notes.embedded,
        user=wishes,  # not what is to be kept: small models repeat the order; put_right sees to it
        with_image=image is not None,
    )
    images = [] if image is None else [image]
    steps = [2 * place / (count - 1) - 1 for place in range(count)] if count > 1 else [0.0]
    temperatures = [round(min(max(around + _SPREAD * step, 0.0), 2.0), 2) for step in steps]
    return [
        Ask(messages, images, temperature=temperature, max_tokens=max_tokens, seed=seed + place + 1)
        for place, temperature in enumerate(temperatures)
    ]


def judged(
    prompt: Prompt,
    notes: Notes,
    asks: Sequence[Ask],
    replies: Sequence[Reply | EndpointError],
    scores: Scores | None = None,
    keep: Sequence[str] = (),
    margin: float = MARGIN,
) -> Refinement:
    """What becomes of the replies."""
    errors = [reply for reply in replies if isinstance(reply, EndpointError)]
    if len(errors) == len(replies):
        raise errors[0]
    inputs = _inputs(prompt, notes, keep)
    candidates = [
        _candidate(prompt, notes, ask, reply, keep) for ask, reply in zip(asks, replies, strict=True)
    ]
    usable = _usable(candidates)
    cosines = scores([*inputs, *(candidates[place].prompt for place in usable)]) if scores else ()
    for place, score in zip(usable, cosines[len(inputs) :], strict=False):
        is_number = math.isfinite(score)
        problem = "" if is_number else "its score is no number"
        candidates[place] = replace(candidates[place], score=score if is_number else None, problem=problem)
    before = {text: score for text, score in zip(inputs, cosines, strict=False) if math.isfinite(score)}
    usable = _usable(candidates)
    if not usable and not (inputs if scores is None else before):
        raise ReplyError(f"no candidate can be used: {candidates[0].problem}")
    if scores is None:
        return _unjudged(inputs, candidates, usable)
    return _closest(before, candidates, usable, margin)


def _usable(candidates: Sequence[Candidate]) -> list[int]:
    return [place for place, candidate in enumerate(candidates) if not candidate.problem]


def _inputs(prompt: Prompt, notes: Notes, keep: Sequence[str]) -> list[str]:
    """The prompts that there were without a language model: a refined one has to be closer than each."""
    made = put_right(notes.prompt, keep, notes.artists, prompt.clip_tokens)[0]
    missing = [words for words in keep if not holds(notes.embedded, words)]
    given = ", ".join((notes.embedded, *missing)) if notes.embedded else ""
    return [text for text in (made, given) if text]


def _closest(
    inputs: Mapping[str, float], candidates: Sequence[Candidate], usable: Sequence[int], margin: float
) -> Refinement:
    before = max(inputs, key=lambda text: inputs[text]) if inputs else ""
    before_score = inputs.get(before)
    if not usable:
        why = _no_candidate(candidates)
        return Refinement(before, before_score, False, None, why, before, before_score, candidates)
    place = max(usable, key=lambda place: candidates[place].score or 0.0)
    text, score = candidates[place].prompt, candidates[place].score
    assert score is not None
    if before_score is None:
        why = f"candidate {place + 1} is the closest of {len(usable)}"
        return Refinement(text, score, True, None, why, before, None, candidates)
    gain = score - before_score
    if gain >= margin:
        why = f"candidate {place + 1} is closer by {gain:.3f}"
        return Refinement(text, score, True, gain, why, before, before_score, candidates)
    how = f"{-gain:.3f} farther" if gain < 0 else f"only {gain:.3f} closer"
    why = f"what went in stands: the best candidate is {how}"
    return Refinement(before, before_score, False, gain, why, before, before_score, candidates)


def _unjudged(inputs: Sequence[str], candidates: Sequence[Candidate], usable: Sequence[int]) -> Refinement:
    before = inputs[-1] if inputs else ""  # the prompt in the file rather than a caption
    if not usable:
        return Refinement(before, None, False, None, _no_candidate(candidates), before, None, candidates)
    why = f"candidate {usable[0] + 1}, not compared with the picture: there is no CLIP to do it"
    text = candidates[usable[0]].prompt
    return Refinement(text, None, text not in inputs, None, why, before, None, candidates)


def _no_candidate(candidates: Sequence[Candidate]) -> str:
    return f"what went in stands: no candidate can be used ({candidates[0].problem})"


# -- one candidate -------------------------------------------------------------------------------------------


def _candidate(
    prompt: Prompt, notes: Notes, ask: Ask, reply: Reply | EndpointError, keep: Sequence[str]
) -> Candidate:
    temperature = ask.temperature or 0.0
    if isinstance(reply, EndpointError):
        return Candidate("", temperature, problem=_ADDRESS.sub("", str(reply)))
    said, is_whole = reply.text, reply.finish_reason != "length"
    if not is_whole and prompt.clip_tokens:  # of a list only the last phrase is broken
        said, comma, _ = said.rpartition(",")
        is_whole = bool(comma)
    text, problem = put_right(said, keep, notes.artists, prompt.clip_tokens, _learned_by_heart(prompt, ask))
    if not is_whole:
        problem = "it was cut off: raise max_tokens"
    elif not problem and not ask.images and not _has_something_of(notes, reply.text):
        problem = "it has nothing of what went in"  # a worked example, say
    return Candidate(text, temperature, problem=problem)


_ADDRESS = re.compile(r" \(https?://[^)]*\)|https?://\S+")  # not for sidecars, which are passed on


def _learned_by_heart(prompt: Prompt, ask: Ask) -> set[str]:
    """Phrases of the worked examples that nothing of this question is about: small models copy them."""
    told = ask.messages[-1]["content"]
    if ask.images:  # it may see them
        return set()
    phrases = {phrase.strip() for example in prompt.examples for phrase in example.output.split(",")}
    return {phrase for phrase in phrases if not holds(told, phrase)}


def _has_something_of(notes: Notes, text: str) -> bool:
    """Whether a word is left of what went in; of English, as answers are."""
    asked = _long_words(f"{notes.prompt} {notes.embedded}")
    return len(asked) < 3 or bool(asked & _long_words(text))


def _long_words(text: str) -> set[str]:
    return {*re.findall(r"[a-z]{4,}", text.casefold())}


# -- what CLIP sees ------------------------------------------------------------------------------------------

_FLAVORS = 8


def notes_of(
    interrogator: Interrogator, subjects: Sequence[Subject], embedded: Sequence[str] = ()
) -> list[Notes]:
    """CLIP's notes on pictures: the caption if there is one, of every table the best label, of flavors eight.

    Not the sites: nothing of them is in a picture. embedded: the prompts in their files.
    """
    found: list[Notes] = []
    answers = interrogator.tables(subjects, _FLAVORS)
    for subject, answer, prompt in zip(subjects, answers, embedded or [""] * len(subjects), strict=True):
        tables = {
            name: dict([*labels.items()][: _FLAVORS if name == "flavors" else 1])
            for name, labels in answer.tables.items()
            if name != "trendings"
        }
        named = _artists_in(prompt, interrogator.vocabulary) if prompt else ()
        found.append(Notes(subject.caption or "", tables, prompt, named))
    return found


def _artists_in(prompt: str, vocabulary: Vocabulary) -> list[str]:
    labels = vocabulary.labels[vocabulary.spans.get("artists", slice(0))]
    lower = prompt.casefold()
    named: list[str] = []
    for label in labels:
        name = label.removeprefix("by ")
        # A name of two words needs no "by"; one of a single word may be any word.
        shown = name if " " in name else label
        # `in` first: it looks through ten thousand labels in a few milliseconds.
        if label.startswith("by ") and shown.casefold() in lower and holds(prompt, shown):
            named.append(label)
    return named
