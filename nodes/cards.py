"""What a node shows of its answers, as the frontend draws it (javascript/comfyui/promptglass/cards.mjs)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

Card = dict[str, Any]

_MOST = 24  # a folder of a thousand pictures would weigh on the browser
_MOST_BARS = 12


def shown(cards: Sequence[Card]) -> dict[str, list[Any]]:
    """The `ui` of a node. `text` is what other packs and scripts look for."""
    drawn = [*cards[:_MOST]]
    if left := len(cards) - len(drawn):
        drawn[-1] = {**drawn[-1], "note": f"and {left:,} more"}
    return {"text": [card.get("text", "") for card in cards], "promptglass": drawn}


def bars(
    scores: Mapping[str, float], group: str | None = None, emoji: Mapping[str, str] | None = None
) -> list[Card]:
    """Labels with their numbers. The longest bar is the highest number's."""
    most = max([*scores.values(), 1e-9])
    found = []
    for label, score in [*scores.items()][:_MOST_BARS]:
        bar = {"label": label, "value": round(max(score / most, 0.0), 4), "shown": f"{score:.3f}"}
        bar |= {"group": group} if group else {}
        bar |= {"emoji": emoji[label]} if emoji and emoji.get(label) else {}
        found.append(bar)
    return found


def as_json(content: Any) -> str:
    return json.dumps(content, ensure_ascii=False, indent=1)
