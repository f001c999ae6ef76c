"""Files of a hub repository, brought into huggingface_hub's own cache.

Promises: what an interrupted call fetched, the next call keeps; a file gets its final name only when it is
whole; a snapshot becomes the current one only when all its files are there. huggingface_hub says what the hub
has and where the cache is; the bytes are fetched here, because its own download cannot continue after the
process ended: recent versions give every partial file a random name (its issue 4196), older ones start over
unless asked.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import WeightsMissing, one_line
from .folders import waiting_lock

if TYPE_CHECKING:
    import requests

logger = logging.getLogger("promptglass")

# What is left on the disk for everybody else after a download.
DISK_MARGIN_BYTES = 64 * 2**20
# A connection that breaks is taken up again; it ends when this many attempts in a row brought nothing.
FRUITLESS_ATTEMPTS = 3
SMALL_FILE_BYTES = 16 * 2**20  # an index of the largest models is under one


def cache_folder() -> Path:
    from huggingface_hub import constants

    # huggingface_hub before 0.20 knows neither the constant nor the variable.
    folder = getattr(constants, "HF_HUB_CACHE", None) or os.environ.get("HF_HUB_CACHE")
    return Path(folder or constants.HUGGINGFACE_HUB_CACHE).expanduser()


def endpoint() -> str:
    from huggingface_hub import constants

    return constants.ENDPOINT.rstrip("/")


def shown_endpoint() -> str:
    """The endpoint for messages: a mirror's address may hold a password."""
    scheme, _, rest = endpoint().rpartition("//")
    return f"{scheme}//{rest.rpartition('@')[2]}"


def is_offline() -> bool:
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE


def snapshots(repo: str) -> list[Path]:
    """The folders the cache holds for a repository: the current commit, then older ones, newest first."""
    main = _storage(repo) / "refs" / "main"
    try:
        folders = sorted((_storage(repo) / "snapshots").iterdir(), key=lambda path: -path.stat().st_mtime)
        current = main.read_text().strip() if main.is_file() else ""
    except OSError:
        return []
    return sorted(folders, key=lambda path: path.name != current)


def fetch(repo: str, choose: Callable[[list[str]], list[str]], label: str, progress: bool) -> Path:
    """The snapshot folder, after fetching those files of `repo` that `choose` picks from all their names."""
    commit, names = contents(repo)
    names, storage = choose(names), _storage(repo)
    snapshot = storage / "snapshots" / commit
    absent = [_look_up(repo, name, commit) for name in names if not (snapshot / name).is_file()]
    _check_disk(label, storage, absent)
    _announce(label, f"{shown_endpoint()}/{repo}", storage, absent, progress)
    snapshot.mkdir(parents=True, exist_ok=True)
    (storage / "blobs").mkdir(exist_ok=True)
    with waiting_lock(storage / ".promptglass.lock", f"fetches {label}"):
        for file in absent:
            _place(file, storage / "blobs", snapshot / file.name, progress)
        _replace_text(storage / "refs" / "main", commit)
    return snapshot


def contents(repo: str) -> tuple[str, list[str]]:
    """The current commit of a repository, and the names of its files."""
    from huggingface_hub import HfApi

    info = HfApi().model_info(repo, revision="main", timeout=_timeout_s())
    commit = str(info.sha)
    if not re.fullmatch(r"[0-9a-f]{40}", commit):
        raise ValueError("it does not name the commit of its files")
    return commit, [sibling.rfilename for sibling in info.siblings or []]


def remote_reader(repo: str, name: str, commit: str) -> Callable[[int, int], bytes]:
    """Reads parts of a file: from `start` exactly `count` bytes. What is not asked for is not fetched."""

    def read(start: int, count: int) -> bytes:
        asked = {"Range": f"bytes={start}-{start + count - 1}"}
        with _opened(_url(repo, name, commit), asked) as response:
            answered = response.headers.get("Content-Range", "")
            if response.status_code != 206 or not answered.startswith(f"bytes {start}-"):
                raise ValueError(f"the hub, or a proxy before it, gives out {name} only as a whole")
            content = _at_most(response, count)
        if len(content) != count:
            raise ValueError(f"the connection broke, or {name} ends early")
        return content

    return read


def small_file(repo: str, name: str, commit: str) -> bytes:
    with _opened(_url(repo, name, commit), {}) as response:
        content = _at_most(response, SMALL_FILE_BYTES + 1)
    if len(content) > SMALL_FILE_BYTES:
        raise ValueError(f"{name} is too large to be what it is called")
    return content


def announce(text: str, progress: bool) -> None:
    logger.info(text)
    if progress:
        print(text, file=sys.stderr, flush=True)


def human(size_bytes: int) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.1f} {unit}"
    return f"{size_bytes} B"


def reason(error: BaseException) -> str:
    """What went wrong on the way to the hub, in half a line, whichever HTTP library said it."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    statuses = [getattr(getattr(link, "response", None), "status_code", None) for link in chain]
    status = next((status for status in statuses if status), None)
    names = " ".join(type(link).__name__ for link in chain)
    if status in (401, 403, 404):
        return f"the hub answered {status}: it is not there, or private, or gated and you are not logged in"
    if status:
        return f"the hub answered {status}"
    if any(getattr(link, "errno", None) == errno.ENOSPC for link in chain):
        return "the disk is full"
    if "Timeout" in names:
        return "the hub does not answer in time"
    if re.search("Connect|Protocol|ChunkedEncoding", names):
        return "the hub cannot be reached, or the connection broke"
    return one_line(error).rstrip(".")


@dataclass(frozen=True)
class _RemoteFile:
    name: str
    url: str
    etag: str
    size_bytes: int


def _storage(repo: str) -> Path:
    return cache_folder() / f"models--{repo.replace('/', '--')}"


def _url(repo: str, name: str, commit: str) -> str:
    from huggingface_hub import hf_hub_url

    return hf_hub_url(repo, name, revision=commit)


def _look_up(repo: str, name: str, commit: str) -> _RemoteFile:
    from huggingface_hub import get_hf_file_metadata

    url = _url(repo, name, commit)
    found = get_hf_file_metadata(url, timeout=_timeout_s())
    if found.etag is None or found.size is None or not re.fullmatch(r"[\w.-]+", found.etag):
        raise ValueError(f"it does not announce the size and ETag of {name}")
    return _RemoteFile(name, url, found.etag, found.size)


def _check_disk(label: str, storage: Path, absent: list[_RemoteFile]) -> None:
    needed = sum(file.size_bytes for file in absent) - _partial_bytes(storage, absent)
    folder = next(parent for parent in (storage, *storage.parents) if parent.exists())
    free = shutil.disk_usage(folder).free
    if free < needed + DISK_MARGIN_BYTES:
        raise WeightsMissing(
            f"no room for {label}: {human(needed)} to fetch, {human(free)} free at {folder}. "
            "Free some, or set HF_HOME to a folder on another disk."
        )


def _announce(label: str, source: str, storage: Path, absent: list[_RemoteFile], progress: bool) -> None:
    files = f"{len(absent)} file{'s' if len(absent) != 1 else ''}"
    already = _partial_bytes(storage, absent)
    text = (
        f"fetching {label}: {human(sum(file.size_bytes for file in absent))} in {files}"
        f"{f' ({human(already)} already here)' if already else ''} from {source} to {storage}"
    )
    announce(text, progress)


def _place(file: _RemoteFile, blobs: Path, pointer: Path, progress: bool) -> None:
    """One file in the cache's layout: the content under its ETag, the name a link to it."""
    if pointer.is_file():  # another process was faster
        return
    blob = blobs / file.etag
    if not blob.is_file():
        _download(file, _partial(blobs, file), progress)
        _partial(blobs, file).replace(blob)
    pointer.unlink(missing_ok=True)
    try:
        pointer.symlink_to(os.path.relpath(blob, pointer.parent))
    except OSError:  # Windows without the right to make links
        blob.replace(pointer)


def _download(file: _RemoteFile, partial: Path, progress: bool) -> None:
    from tqdm import tqdm

    if _size_bytes(partial) > file.size_bytes:
        partial.unlink()
    with tqdm(
        total=file.size_bytes,
        initial=_size_bytes(partial),
        desc=file.name,
        unit="B",
        unit_scale=True,
        disable=None if progress else True,
    ) as bar:
        _continue_until_whole(file, partial, bar.update)
    # Large files are stored under their SHA-256.
    if re.fullmatch(r"[0-9a-f]{64}", file.etag) and _sha256(partial) != file.etag:
        partial.unlink()
        raise ValueError(f"{file.name} arrived damaged and was thrown away, so try again")


def _continue_until_whole(file: _RemoteFile, partial: Path, on_bytes: Callable[[int], object]) -> None:
    import requests

    most_bytes, fruitless = _size_bytes(partial), 0
    while _size_bytes(partial) != file.size_bytes or not partial.is_file():
        error: Exception = ValueError(f"{file.name} ends early")
        try:
            _append(file.url, partial, on_bytes)
        except requests.RequestException as caught:
            error = caught
        fruitless = 0 if _size_bytes(partial) > most_bytes else fruitless + 1
        most_bytes = max(most_bytes, _size_bytes(partial))
        if fruitless >= FRUITLESS_ATTEMPTS:
            raise error
        if fruitless:
            time.sleep(fruitless)


def _append(url: str, partial: Path, on_bytes: Callable[[int], object]) -> None:
    have = _size_bytes(partial)
    with _opened(url, {"Range": f"bytes={have}-"} if have else {}) as response:
        is_rest = response.status_code == 206
        if not is_rest:
            on_bytes(-have)  # a server without ranges starts over
        with partial.open("ab" if is_rest else "wb") as out:
            # Small pieces: the one that is under way when a connection breaks is lost.
            for chunk in response.iter_content(2**16):
                out.write(chunk)
                on_bytes(len(chunk))
            out.flush()
            os.fsync(out.fileno())


def _opened(url: str, headers: dict[str, str]) -> requests.Response:
    """To be closed. A token goes with it to the hub, and not on to where the hub redirects."""
    import requests
    from huggingface_hub.utils import build_hf_headers

    headers = {**build_hf_headers(), "Accept-Encoding": "identity", **headers}
    response = requests.get(url, headers=headers, stream=True, timeout=_timeout_s())
    try:
        response.raise_for_status()
    except requests.HTTPError:
        response.close()
        raise
    return response


def _at_most(response: requests.Response, count: int) -> bytes:
    content = bytearray()
    for chunk in response.iter_content(2**16):
        content += chunk
        if len(content) >= count:
            break
    return bytes(content[:count])


def _timeout_s() -> float:
    # huggingface_hub's own variable and default; old versions do not read it.
    return float(os.environ.get("HF_HUB_DOWNLOAD_TIMEOUT") or 10)


def _partial(blobs: Path, file: _RemoteFile) -> Path:
    # Not huggingface_hub's name: it may write there without our lock.
    return blobs / f"{file.etag}.promptglass.incomplete"


def _partial_bytes(storage: Path, files: list[_RemoteFile]) -> int:
    return sum(_size_bytes(_partial(storage / "blobs", file)) for file in files)


def _size_bytes(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _replace_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.promptglass.incomplete")
    partial.write_text(text)
    partial.replace(path)
