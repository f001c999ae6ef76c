"""Every error promptglass raises on purpose.

PromptglassError
├── InputError              what the user gave cannot be used: a mode, a table file, an option
│   ├── ImageError          a picture cannot be read; knows which one and why
│   ├── SidecarError        a sidecar cannot be used, and was left as it is
│   └── EncryptionKeyError  the key for what is encrypted is missing or wrong
├── ModelError              a model cannot be used as asked
│   ├── WeightsMissing      its weights are not here and cannot be fetched
│   └── CaptionerMissing    a mode needs a caption, and nobody can write one
└── DependencyMissing       an optional package is not installed

Their text is shown to the user as it is: one line that names the thing, the cause and the way out.
"""

from __future__ import annotations


class PromptglassError(Exception):
    """Base of all errors that are meant for the user."""


class InputError(PromptglassError):
    """What the user gave cannot be used."""


class ImageError(InputError):
    """A picture cannot be read. `name` is its path or URL, `reason` says why."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"cannot read {visible(str(name))}: {reason}")
        self.name = str(name)
        self.reason = reason


class SidecarError(InputError):
    """A sidecar cannot be used; it was left as it is."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"cannot use {visible(str(name))}: {reason}")
        self.name = str(name)
        self.reason = reason


class EncryptionKeyError(InputError):
    """The key for what is encrypted is missing or wrong."""


class ModelError(PromptglassError):
    """A model cannot be used as asked."""


class WeightsMissing(ModelError):
    """The weights of a model are not here and cannot be fetched."""


class CaptionerMissing(ModelError):
    """A mode needs a caption, none was given, and no captioner is there to write one."""


class DependencyMissing(PromptglassError):
    """An optional package is not installed.

    Names the packages rather than an extra: that works beside every host, however promptglass got there.
    """

    def __init__(self, purpose: str, *packages: str) -> None:
        super().__init__(f"{purpose} needs an optional package: pip install {' '.join(packages)}")
        self.packages = packages


def visible(text: str) -> str:
    """One line without control characters: a file name must not drive the terminal."""
    return "".join(c if c.isprintable() else " " for c in " ".join(text.split()))


def one_line(error: BaseException) -> str:
    """What a foreign library's error says, short enough to stand in one of ours."""
    text = visible(str(error)) or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."
