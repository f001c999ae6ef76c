"""What the page draws, as HTML. Every text that comes in is escaped: it may be a stranger's."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

_MOST_BARS = 12
_PALETTE_HEX = re.compile(r"#[0-9a-fA-F]{6}")


class Html(str):
    """HTML of ours, as it is."""


def element(tag: str, content: Iterable[Any] | str = "", kind: str = "", **attributes: Any) -> Html:
    """<tag class="promptglass-kind …">content</tag>. Strings are escaped, Html is not."""
    parts = [content] if isinstance(content, str) else content
    inner = "".join(part if isinstance(part, Html) else escape(str(part)) for part in parts)
    classes = " ".join(f"promptglass-{name}" for name in kind.split())
    named = {"class": classes, **attributes} if kind else attributes
    written = "".join(f' {name}="{escape(str(value))}"' for name, value in named.items())
    return Html(f"<{tag}{written}>{inner}</{tag}>")


# -- lines ---------------------------------------------------------------------------------------------------


def failure(text: str) -> Html:
    """What went wrong, in one plain line."""
    return element("p", [element("strong", "Error: ", "offscreen"), text], "failure", role="alert")


def note(text: str) -> Html:
    return element("p", text, "note")


def folded(title: str, content: Html) -> Html:
    return element("details", [element("summary", title), content], "fold")


def failures(found: Sequence[tuple[str, str]]) -> Html:
    """Pairs of a mode, or a file, and why there is no answer."""
    lines = [element("li", [element("b", name), f" {why}"]) for name, why in found]
    return element("ul", lines, "failures") if lines else Html()


def progress(what: str, done: int = 0, total: int = 0, is_shown_as_share: bool = True) -> Html:
    """A bar, and beneath it what is being done; without a total, only that something is."""
    share = min(max(done / total, 0.0), 1.0) if total > 0 else 0.0
    is_known = total > 1 and is_shown_as_share
    said = f"{what}: {done:,} of {total:,}" if is_known else what
    width = f"width:{share * 100:.1f}%" if is_known else ""
    fill = element("span", "", "fill" if is_known else "fill busy", style=width)
    told = {"aria-valuenow": round(share * 100)} if is_known else {}
    bar = element(
        "div", [fill], "track", role="progressbar", **{"aria-label": what, "aria-valuemax": 100, **told}
    )
    return element("div", [bar, element("p", said, "note")], "progress", role="status")


# -- what is known of a picture ------------------------------------------------------------------------------


def bars(rows: Sequence[Mapping[str, Any]], group: str = "", most: int = _MOST_BARS) -> Html:
    """rows: label, value (a share of the longest bar's, 0..1), shown, emoji."""
    drawn = []
    for row in [*rows][:most]:
        label = " ".join(filter(None, (row.get("emoji", ""), row["label"])))
        width = f"width:{min(max(float(row['value']), 0.0), 1.0) * 100:.1f}%"
        filled = element("span", "", "fill", style=width)
        track = element("span", [filled], "track", **{"aria-hidden": "true"})
        value = element("span", row["shown"], "value")
        drawn.append(element("li", [element("span", label, "label", title=row["label"]), track, value]))
    title = [element("h4", group)] if group else []
    return element("section", [*title, element("ul", drawn)], "bars") if drawn else Html()


def scored(scores: Mapping[str, float], group: str = "", most: float | None = None) -> Html:
    """Labels with numbers of any scale: the highest, or `most`, is a whole bar."""
    finite = {label: score for label, score in scores.items() if math.isfinite(score)}
    whole = max([*finite.values(), 1e-9]) if most is None else most
    rows = [{"label": label, "value": s / whole, "shown": f"{s:.3f}"} for label, s in finite.items()]
    return bars(rows, group)


def swatches(colours: Sequence[Mapping[str, Any]]) -> Html:
    """A strip in the colours' proportions, and their names."""
    safe = [c for c in colours if _PALETTE_HEX.fullmatch(str(c["hex"]))]
    strip = [
        element("span", "", style=f"background:{c['hex']};flex-grow:{float(c['share']) * 100:.2f}")
        for c in safe
    ]
    names = [
        element(
            "li",
            [
                element("span", "", "swatch", style=f"background:{c['hex']}"),
                f"{c['name']} ",
                element("span", f"{float(c['share']):.0%}", "quiet"),
            ],
            title=c["hex"],
        )
        for c in safe
    ]
    return element(
        "div", [element("div", strip, "strip", **{"aria-hidden": "true"}), element("ul", names)], "colours"
    )


def evidence(answer: Mapping[str, Any]) -> Html:
    """What an answer rests on: see analyzers.as_json."""
    parts: list[Html] = []
    if tables := answer.get("tables"):
        drawn = element("div", [scored(scores, table) for table, scores in tables.items() if scores], "sets")
        is_the_answer = answer["mode"] == "tables"
        parts.append(drawn if is_the_answer else folded("Winners of each table", drawn))
    if tags := answer.get("tags"):
        parts.append(scored({tag["label"]: tag["confidence"] for tag in tags}, most=1.0))
    if colours := answer.get("colours"):
        parts.append(swatches(colours))
    if lines := answer.get("lines"):
        parts.append(scored({line["text"]: line["confidence"] for line in lines}, most=1.0))
    if answer["mode"] == "embedded":
        parts.append(_embedded(answer))
    elif model := answer.get("model"):
        parts.append(note(model))
    return Html("".join(parts))


def _embedded(answer: Mapping[str, Any]) -> Html:
    parts: list[Html] = []
    if negative := answer.get("negative"):
        parts += [element("h4", "negative"), element("p", negative, "text")]
    short = {name: value for name, value in (answer.get("settings") or {}).items() if len(str(value)) < 60}
    said = " · ".join([f"from {answer.get('source', '')}", *(f"{n} {v}" for n, v in [*short.items()][:8])])
    return Html("".join([*parts, note(said)]))


def candidates(answer: Mapping[str, Any]) -> Html:
    """The prompts a language model proposed, how CLIP judged them, and what came of it."""
    if "candidates" not in answer:
        return Html()
    before, written = answer["input"], answer["candidates"]
    rows: list[Sequence[Any]] = []
    if before.get("prompt"):
        rows.append(("before", _score(before["score"]), before["prompt"]))
    for number, one in enumerate(written, 1):
        is_taken = answer.get("refined") and one["prompt"] == answer["text"]
        name = f"{number}, taken" if is_taken else f"{number}"
        rows.append((name, _score(one["score"]), f"{one['prompt']} {_in_brackets(one['problem'])}".strip()))
    lines = note(answer["why"]) if answer.get("why") else Html()
    return Html(lines + table(("candidate", "score", "prompt"), rows))


def _score(score: float | None) -> str:
    return "–" if score is None else f"{score:.3f}"


def _in_brackets(text: str) -> str:
    return f"({text})" if text else ""


# -- files and tables ----------------------------------------------------------------------------------------


def preview(uri: str, name: str, facts: str) -> Html:
    """A picture with its name: what was dropped is what will be looked at."""
    caption = [element("b", name), element("span", facts, "quiet")]
    image = Html(f'<img src="{escape(uri)}" alt="{escape(name)}">')
    return element("figure", [image, element("figcaption", caption)], "preview")


def thumbnails(shown: Sequence[tuple[str, str]]) -> Html:
    """Pairs of a data: address and a name."""
    images = [
        Html(f'<li><img src="{escape(uri)}" alt="{escape(name)}" title="{escape(name)}"></li>')
        for uri, name in shown
    ]
    return element("ul", images, "thumbnails") if images else Html()


def table(headers: Sequence[str], rows: Iterable[Sequence[Any]]) -> Html:
    body = [element("tr", [element("td", [cell]) for cell in row]) for row in rows]
    if not body:
        return Html()
    head = element("tr", [element("th", header, scope="col") for header in headers])
    inner = element("table", [element("thead", [head]), element("tbody", body)])
    return element("div", [inner], "table", tabindex="0", role="region", **{"aria-label": headers[0]})


def code(text: str) -> Html:
    return element("code", text)


def facts(pairs: Mapping[str, Any]) -> Html:
    """Names and what is known of them."""
    parts = [Html(element("dt", name) + element("dd", [value])) for name, value in pairs.items()]
    return element("dl", parts, "facts")
