"""Every error promptglass raises on purpose.

PromptglassError
|-- InputError              what the user gave cannot be used: a mode, a table file, an option
|   |-- ImageError          a picture cannot be read; knows which one and why
|   |-- SidecarError        a sidecar cannot be used, and was left as it is
|   `-- EncryptionKeyError  the key for what is encrypted is missing or wrong
|-- ModelError              a model cannot be used as asked
|   |-- WeightsMissing      its weights are not here and cannot be fetched
|   `-- CaptionerMissing    a mode needs a caption, and nobody can write one
|-- EndpointError           a language model's endpoint, or a remote WebUI, cannot be used as asked
|   |-- EndpointUnreachable no connection, a broken one, or silence for too long
|   |-- EndpointRefused     key, account or model will not do: whatever else is asked, the answer is the same
|   |-- ModeUnavailable     a mode cannot be had there; others may
|   |-- ModelSeesNot        the model does not see pictures; what shows it none may fare better
|   `-- ReplyError          what an endpoint answered cannot be used
|-- Busy                    more is under way than is good: the same may go through later
|-- Stopped                 the caller's own wish, and no failure of what was under way
`-- DependencyMissing       an optional package is not installed

Their text is shown to the user as it is: one line that names the thing, the cause and the way out.
"""

from __future__ import annotations

import errno

from .program import python


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


class EndpointError(PromptglassError):
    """An endpoint cannot be used as asked. `status` is what it answered, if it did."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class EndpointUnreachable(EndpointError):
    """No connection to an endpoint, a broken one, or silence for too long."""


class EndpointRefused(EndpointError):
    """The key, the account or the model will not do: nothing that is still in the queue would fare better."""


class ModeUnavailable(EndpointError):
    """A mode cannot be had of this endpoint, whatever the picture; others may."""


class ModelSeesNot(EndpointError):
    """The model that was shown a picture does not see any; without one it may well answer."""


class ReplyError(EndpointError):
    """What an endpoint answered cannot be used. `text` is the whole of it, where there is any."""

    def __init__(self, message: str, text: str = "", status: int | None = None) -> None:
        super().__init__(message, status)
        self.text = text


class Busy(PromptglassError):
    """More is under way than is good: the same may go through later."""


class Stopped(PromptglassError):
    """The caller asked to stop, and nothing is under way any more."""


class DependencyMissing(PromptglassError):
    """An optional package is not installed.

    Names the packages rather than an extra: that works beside every host, however promptglass got there.
    """

    def __init__(self, purpose: str, *packages: str) -> None:
        install = f"{python()} -m pip install {' '.join(packages)}"
        super().__init__(f"{purpose} needs an optional package: {install}")
        self.packages = packages


def cause_of(error: OSError) -> str:
    """Why the system refused, and the way out: a sentence or two to stand behind the name of the file."""
    if error.errno in _CAUSES:
        return _CAUSES[error.errno]
    return f"{error.strerror or type(error).__name__}. Check the disk or the network share."


_CAUSES = {
    errno.ENOENT: "there is no such file. Check the path.",
    errno.ENOTDIR: "there is no such file. Check the path.",
    errno.EACCES: "no permission. Change its permissions, or run as a user who may.",
    errno.EPERM: "no permission. Change its permissions, or run as a user who may.",
    errno.ELOOP: "it is a link that leads back to itself. Delete the link.",
    errno.ENAMETOOLONG: "the name is too long. Rename the picture.",
    errno.ENOSPC: "the disk is full. Make room and run again.",
    errno.EROFS: "the disk can only be read. Copy the pictures to another.",
    getattr(errno, "EDQUOT", errno.ENOSPC): "the disk is full. Make room and run again.",
}
# No other file would fare better.
NO_ROOM = frozenset((errno.ENOSPC, errno.EROFS, getattr(errno, "EDQUOT", errno.ENOSPC)))


def visible(text: str) -> str:
    """One line without control characters: a file name must not drive the terminal."""
    return "".join(c if c.isprintable() else " " for c in " ".join(text.split()))


def one_line(error: BaseException) -> str:
    """What a foreign library's error says, short enough to stand in one of ours."""
    text = visible(str(error)) or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."
