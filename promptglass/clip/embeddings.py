"""Embeddings of labels: computed once, kept as one memory-mapped float16 file.

A file is named by the encoder's text weights, the labels and this format's version, so it can never answer
for another model or another list. Rows that another file of the same weights holds are taken from there,
and so are those of clip-interrogator's own caches. While labels are embedded, rows are appended to a
`.part` file: an interrupted run goes on where it was. The finished file appears in one step.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import struct
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError, one_line
from ..folders import waiting_lock
from ..progress import Progress
from .tables import as_bytes, labels_hash

if TYPE_CHECKING:
    from .encoder import JointEncoder

log = logging.getLogger("promptglass")

_VERSION = 1
_LABELS_PER_STEP = 2048  # between two progress reports, and the most that an interrupt can lose


def embeddings(
    labels: Sequence[str],
    spans: Mapping[str, slice],
    encoder: JointEncoder,
    cache_dir: str | os.PathLike[str] | None,
    progress: Progress,
) -> np.ndarray:
    """Rows [n, d] float16 of the labels; `spans` names the tables, for clip-interrogator's files."""
    if cache_dir is None:
        return _embed_all(labels, encoder, progress)
    folder = Path(cache_dir)
    weights = encoder.fingerprint()[:16]
    path = folder / f"{weights}-{labels_hash(labels)[:16]}-v{_VERSION}.safetensors"
    found = _open(path, labels)
    if found is not None:
        return found
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with waiting_lock(path.with_suffix(".lock"), "embeds these labels", progress):
            found = _open(path, labels)  # it may have been faster
            if found is None:
                _build(path, labels, spans, encoder, progress)
                found = _open(path, labels)
    except InterruptedError:  # an OSError, too, and the natural one for a Progress to raise
        raise
    except OSError as error:
        place = f"cannot keep embeddings in {folder} (XDG_CACHE_HOME chooses another place)"
        raise InputError(f"{place}: {one_line(error)}") from error
    assert found is not None
    return found


def _build(
    path: Path, labels: Sequence[str], spans: Mapping[str, slice], encoder: JointEncoder, progress: Progress
) -> None:
    width = encoder.encode_texts(["a"]).shape[1]
    rows: dict[str, np.ndarray] = {}
    wanted = set(labels)
    for known, known_rows in (*_reference_files(path.parent, labels, spans, encoder), *_own_files(path)):
        if known_rows.shape == (len(known), width):
            rows.update((label, row) for label, row in zip(known, known_rows, strict=True) if label in wanted)
    # Neighbours in the alphabet begin alike, and the text tower computes a shared beginning once.
    missing = sorted(wanted - rows.keys())
    part = path.with_suffix(f".{labels_hash(missing)[:8]}.part")
    rows.update(zip(missing, _embed_resumably(missing, width, encoder, part, progress), strict=True))
    _write(path, labels, np.stack([rows[label] for label in labels]), encoder.name)
    for left_over in path.parent.glob(f"{path.stem}.*.part"):
        left_over.unlink()


def _embed_all(labels: Sequence[str], encoder: JointEncoder, progress: Progress) -> np.ndarray:
    order = sorted(range(len(labels)), key=labels.__getitem__)
    ordered = np.concatenate([*_embed([labels[i] for i in order], 0, encoder, progress)])
    rows = np.empty_like(ordered)
    rows[order] = ordered
    return rows


def _embed_resumably(
    labels: list[str], width: int, encoder: JointEncoder, part: Path, progress: Progress
) -> np.ndarray:
    """Rows [n, width] of the labels; those already in the part file are not computed again."""
    row_bytes = 2 * width
    with part.open("ab") as file:
        done = min(file.tell() // row_bytes, len(labels))
        file.truncate(done * row_bytes)  # a kill can tear the last row
        if done:
            log.info("embedding labels: going on after the %d of the last run", done)
        for rows in _embed(labels, done, encoder, progress):
            file.write(rows.tobytes())
            file.flush()
    return np.fromfile(part, np.float16).reshape(len(labels), width)


def _embed(
    labels: Sequence[str], start: int, encoder: JointEncoder, progress: Progress
) -> Iterator[np.ndarray]:
    for begin in range(start, len(labels), _LABELS_PER_STEP):
        progress("embedding labels", begin, len(labels))
        yield encoder.encode_texts(labels[begin : begin + _LABELS_PER_STEP]).cpu().numpy().astype(np.float16)
    progress("embedding labels", len(labels), len(labels))


def _write(path: Path, labels: Sequence[str], rows: np.ndarray, model: str) -> None:
    from safetensors.numpy import save

    text = np.frombuffer(as_bytes(labels), np.uint8)
    content = save({"embeddings": rows, "labels": text}, {"model": model})
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _open(path: Path, labels: Sequence[str]) -> np.ndarray | None:
    """The rows of a finished file, mapped; None where there is none (or a damaged one: it is made anew)."""
    tensors = _map(path)
    if tensors is None or tensors.get("labels", np.empty(0)).tobytes() != as_bytes(labels):
        return None
    rows = tensors.get("embeddings")
    return rows if rows is not None and len(rows) == len(labels) else None


def _map(path: Path) -> dict[str, np.ndarray] | None:
    """A safetensors file's arrays as copy-on-write maps: nothing is read until it is used.

    Format: https://github.com/huggingface/safetensors#format
    """
    kinds = {"F16": np.float16, "U8": np.uint8, "I8": np.int8, "F32": np.float32}
    try:
        with path.open("rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(size))
        header.pop("__metadata__", None)
        return {
            name: np.memmap(
                path, kinds[item["dtype"]], "c", 8 + size + item["data_offsets"][0], tuple(item["shape"])
            )
            for name, item in header.items()
        }
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError, struct.error, OverflowError, MemoryError) as error:
        log.warning("ignoring the damaged embeddings %s: %s", path, error)
        return None


def _own_files(path: Path) -> Iterator[tuple[list[str], np.ndarray]]:
    """Labels and rows of the other files of the same weights."""
    weights = path.name.split("-")[0]
    for other in sorted(path.parent.glob(f"{weights}-*-v{_VERSION}.safetensors")):
        tensors = _map(other)
        if tensors is None or not {"labels", "embeddings"} <= tensors.keys():
            continue
        try:
            yield json.loads(tensors["labels"].tobytes()), tensors["embeddings"]
        except ValueError as error:
            log.warning("ignoring the damaged embeddings %s: %s", other, error)


def _reference_files(
    folder: Path, labels: Sequence[str], spans: Mapping[str, slice], encoder: JointEncoder
) -> Iterator[tuple[Sequence[str], np.ndarray]]:
    """Tables that clip-interrogator embedded with a model of this name, here or in its own ./cache.

    Its files say which labels they hold (LabelTable._load_cached, 0.6.0) but know the model by name only, so
    a few labels are embedded to see whether it is this one.
    """
    name = encoder.name.replace("/", "_").replace("@", "_")
    for table, span in spans.items():
        for place in (folder, Path("cache")):
            tensors = _map(place / f"{name}_{table}.safetensors")
            if tensors is None or not {"hash", "embeds"} <= tensors.keys():
                continue
            of_table = labels[span]
            digest = hashlib.sha256(",".join(of_table).encode("utf-8", "replace")).hexdigest()
            if tensors["hash"].tobytes() != digest.encode():
                continue
            if not _are_of(encoder, of_table, tensors["embeds"]):
                log.warning("not taking %s: another model made it", place / f"{name}_{table}.safetensors")
                continue
            log.info("taking clip-interrogator's embeddings of %s from %s", table, place)
            yield of_table, tensors["embeds"]
            break


def _are_of(encoder: JointEncoder, labels: Sequence[str], rows: np.ndarray) -> bool:
    """Whether rows are what the encoder makes of the labels, by a few of them."""
    some = [*range(0, len(labels), max(1, len(labels) // 4))]
    expected = encoder.encode_texts([labels[i] for i in some]).cpu().numpy()
    if rows.shape != (len(labels), expected.shape[1]):
        return False
    return bool((rows[some].astype(np.float32) * expected).sum(1).min() > 0.999)
