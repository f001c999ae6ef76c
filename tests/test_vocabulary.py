"""Vocabularies: labels are embedded once, and nothing a crash or another model leaves is ever trusted."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import noise, tiny_encoder

from promptglass import Vocabulary, default_tables, without_artists
from promptglass.clip.tables import read_labels, vocabulary_id
from promptglass.errors import InputError

LABELS = [f"label number {i}" for i in range(300)]


class Counting:
    """An encoder that counts the texts it embeds (and may be interrupted)."""

    def __init__(self, seed: int = 0, interrupt_after: int | None = None) -> None:
        self._encoder = tiny_encoder(seed)
        self.name = self._encoder.name
        self.fingerprint = self._encoder.fingerprint
        self.texts = 0
        self._interrupt_after = interrupt_after

    def encode_texts(self, texts):
        if list(texts) == ["a"]:  # asks for the width only
            return self._encoder.encode_texts(texts)
        if self._interrupt_after is not None and self.texts >= self._interrupt_after:
            raise KeyboardInterrupt
        self.texts += len(texts)
        return self._encoder.encode_texts(texts)


def scores(vocabulary: Vocabulary, encoder) -> torch.Tensor:
    features = tiny_encoder(0).encode_images([noise(1), noise(2)])
    return vocabulary.scores(features)


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    # In another batch the last bit may round another way, and half precision makes 5e-4 of that.
    return torch.allclose(one, other, atol=1e-3)


def test_scores_are_the_cosines_in_table_order(encoder) -> None:
    tables = {"flavors": LABELS[5:90], "artists": LABELS[:5], "mine": ["x", "y"], "negative": ["z"]}
    vocabulary = Vocabulary(tables, encoder)
    assert vocabulary.labels == [*LABELS[:5], *LABELS[5:90], "x", "y", "z"]
    assert vocabulary.spans["mine"] == slice(90, 92)
    assert vocabulary.merged == slice(0, 92)
    images = encoder.encode_images([noise(1), noise(2)])
    expected = images @ encoder.encode_texts(vocabulary.labels).T
    assert torch.allclose(vocabulary.scores(images), expected, atol=2e-3)  # kept in half precision
    assert vocabulary.scores(images).dtype == torch.float32


def test_a_second_start_embeds_nothing(tmp_path: Path) -> None:
    first, second = Counting(), Counting()
    expected = scores(Vocabulary({"flavors": LABELS}, first, tmp_path), first)
    assert first.texts == 300
    assert torch.equal(scores(Vocabulary({"flavors": LABELS}, second, tmp_path), second), expected)
    assert second.texts == 0
    assert [path.suffix for path in tmp_path.iterdir() if path.suffix != ".lock"] == [".safetensors"]


def test_a_changed_list_embeds_only_what_is_new(tmp_path: Path) -> None:
    encoder = Counting()
    scores(Vocabulary({"flavors": LABELS}, encoder, tmp_path), encoder)
    encoder.texts = 0
    changed = Vocabulary({"mediums": ["oil", LABELS[7]], "flavors": LABELS[::2]}, encoder, tmp_path)
    found = scores(changed, encoder)
    assert encoder.texts == 1
    assert same(
        found, scores(Vocabulary({"mediums": ["oil", LABELS[7]], "flavors": LABELS[::2]}, encoder), encoder)
    )


def test_other_weights_never_share_embeddings(tmp_path: Path) -> None:
    one, other = Counting(0), Counting(1)
    assert one.name == other.name
    first = scores(Vocabulary({"flavors": LABELS}, one, tmp_path), one)
    second = scores(Vocabulary({"flavors": LABELS}, other, tmp_path), other)
    assert other.texts == 300
    assert not torch.allclose(first, second, atol=0.05)


def test_an_interrupted_run_goes_on(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("promptglass.clip.embeddings._LABELS_PER_STEP", 50)
    interrupted, resumed = Counting(interrupt_after=200), Counting()
    with pytest.raises(KeyboardInterrupt):
        scores(Vocabulary({"flavors": LABELS}, interrupted, tmp_path), interrupted)
    (part,) = tmp_path.glob("*.part")
    with part.open("ab") as file:
        file.write(b"torn")  # half a row, as a kill leaves it
    found = scores(Vocabulary({"flavors": LABELS}, resumed, tmp_path), resumed)
    assert resumed.texts == 100
    assert same(found, scores(Vocabulary({"flavors": LABELS}, resumed), resumed))
    assert not list(tmp_path.glob("*.part"))


KILLED = """
import sys
sys.path.insert(0, "tests")
from test_vocabulary import Counting, LABELS, Vocabulary, scores
import promptglass.clip.embeddings as embeddings, time
embeddings._LABELS_PER_STEP = 10
encoder = Counting()
real = encoder.encode_texts
def slow(texts):
    print(encoder.texts, flush=True)
    time.sleep(0.02)
    return real(texts)
encoder.encode_texts = slow
scores(Vocabulary({"flavors": LABELS}, encoder, sys.argv[1]), encoder)
print("done", flush=True)
"""


@pytest.mark.skipif(os.name == "nt", reason="kills with SIGKILL")
def test_kill_9_loses_one_step_at_most(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    seen = 0
    for line in child.stdout:
        seen = int(line)
        if seen >= 100:
            break
    child.send_signal(signal.SIGKILL)
    child.wait()
    encoder = Counting()
    found = scores(Vocabulary({"flavors": LABELS}, encoder, tmp_path), encoder)
    assert encoder.texts <= 300 - seen + 10
    assert same(found, scores(Vocabulary({"flavors": LABELS}, encoder), encoder))
    assert {path.suffix for path in tmp_path.iterdir()} <= {".safetensors", ".lock"}


def _embed_in_process(folder: str, counts) -> None:
    encoder = Counting()
    scores(Vocabulary({"flavors": LABELS}, encoder, folder), encoder)
    counts.put(encoder.texts)


@pytest.mark.long
def test_two_processes_embed_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    counts = context.Queue()
    both = [context.Process(target=_embed_in_process, args=(str(tmp_path), counts)) for _ in range(2)]
    for process in both:
        process.start()
    assert sorted(counts.get(timeout=120) for _ in both) == [0, 300]
    for process in both:
        process.join()


@pytest.mark.parametrize(
    "damage", [b"", b"garbage", b"\xff" * 64, b"\x10\x00\x00\x00\x00\x00\x00\x00not json at all!"]
)
def test_a_damaged_file_is_made_anew(tmp_path: Path, damage: bytes) -> None:
    encoder = Counting()
    expected = scores(Vocabulary({"flavors": LABELS}, encoder, tmp_path), encoder)
    (path,) = tmp_path.glob("*.safetensors")
    path.write_bytes(damage)
    assert torch.equal(scores(Vocabulary({"flavors": LABELS}, encoder, tmp_path), encoder), expected)


def test_a_file_cut_short_is_made_anew(tmp_path: Path) -> None:
    encoder = Counting()
    expected = scores(Vocabulary({"flavors": LABELS}, encoder, tmp_path), encoder)
    (path,) = tmp_path.glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:5000])
    assert torch.equal(scores(Vocabulary({"flavors": LABELS}, encoder, tmp_path), encoder), expected)


def reference_cache(path: Path, labels: list[str], rows: np.ndarray) -> None:
    """As clip_interrogator.LabelTable saves it."""
    from safetensors.numpy import save_file

    digest = hashlib.sha256(",".join(labels).encode()).hexdigest()
    save_file({"embeds": rows, "hash": np.array([ord(c) for c in digest], dtype=np.int8)}, str(path))


def test_clip_interrogators_own_cache_is_taken(tmp_path: Path) -> None:
    encoder = Counting()
    rows = encoder.encode_texts(LABELS).numpy().astype(np.float16)
    reference_cache(tmp_path / "ViT-L-14_openai_flavors.safetensors", LABELS, rows)
    encoder.texts = 0
    found = scores(Vocabulary({"flavors": LABELS, "mediums": ["oil"]}, encoder, tmp_path), encoder)
    assert encoder.texts == 1 + 4  # four to see whether it is this model
    assert same(found, scores(Vocabulary({"flavors": LABELS, "mediums": ["oil"]}, encoder), encoder))


def test_its_real_cache_has_that_format(tmp_path: Path) -> None:
    ci = pytest.importorskip("clip_interrogator")
    import types

    from conftest import tiny_open_clip

    open_clip = pytest.importorskip("open_clip")
    config = types.SimpleNamespace(
        chunk_size=2048,
        device="cpu",
        clip_model_name="ViT-L-14/openai",
        cache_path=str(tmp_path),
        download_cache=False,
        quiet=True,
    )
    model = types.SimpleNamespace(
        clip_model=tiny_open_clip(0), config=config, tokenize=open_clip.get_tokenizer("ViT-L-14")
    )
    ci.clip_interrogator.LabelTable(list(LABELS), "flavors", model)
    encoder = Counting()
    scores(Vocabulary({"flavors": LABELS}, encoder, tmp_path), encoder)
    assert encoder.texts == 4


def test_a_reference_cache_of_another_model_is_not_taken(tmp_path: Path, caplog) -> None:
    """It knows the model by name only: a patched one, or one of another activation, is called the same."""
    other, encoder = Counting(1), Counting(0)
    rows = other.encode_texts(LABELS).numpy().astype(np.float16)
    reference_cache(tmp_path / "ViT-L-14_openai_flavors.safetensors", LABELS, rows)
    found = scores(Vocabulary({"flavors": LABELS}, encoder, tmp_path), encoder)
    assert same(found, scores(Vocabulary({"flavors": LABELS}, encoder), encoder))
    assert "another model" in caplog.text


def test_a_damaged_neighbour_costs_nothing(tmp_path: Path) -> None:
    encoder = Counting()
    scores(Vocabulary({"flavors": LABELS}, encoder, tmp_path), encoder)
    (path,) = tmp_path.glob("*.safetensors")
    content = path.read_bytes()
    path.write_bytes(content[:2000] + bytes(len(content) - 2000))  # what a power cut can leave
    for labels in (LABELS, LABELS[:50]):
        found = scores(Vocabulary({"flavors": labels}, encoder, tmp_path), encoder)
        assert same(found, scores(Vocabulary({"flavors": labels}, encoder), encoder))


def test_a_reference_cache_of_another_list_or_width_is_not_taken(tmp_path: Path) -> None:
    encoder = Counting()
    reference_cache(
        tmp_path / "ViT-L-14_openai_flavors.safetensors", LABELS[1:], np.zeros((299, 48), np.float16)
    )
    reference_cache(tmp_path / "ViT-L-14_openai_mediums.safetensors", LABELS, np.zeros((300, 47), np.float16))
    scores(Vocabulary({"flavors": LABELS, "mediums": LABELS}, encoder, tmp_path), encoder)
    assert encoder.texts == 300 + 4  # of the second, four labels are looked at


def test_progress_counts_up_and_may_interrupt(encoder) -> None:
    seen: list[tuple[str, int, int]] = []
    vocabulary = Vocabulary({"flavors": LABELS}, encoder, progress=lambda *at: seen.append(at))
    assert seen == []  # nothing is embedded before it is needed
    scores(vocabulary, encoder)
    assert seen[0][1:] == (0, 300) and seen[-1][1:] == (300, 300)

    def stop(*_: object) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        scores(Vocabulary({"flavors": LABELS}, encoder, progress=stop), encoder)


def test_a_second_start_with_110_000_labels_embeds_none(tmp_path: Path) -> None:
    """The real size. How fast it loads is benchmarked; that it loads is tested."""

    class Random:
        name = "random"
        texts = 0

        def fingerprint(self) -> str:
            return "0" * 64

        def encode_texts(self, texts):
            self.texts += len(texts)
            return torch.randn(len(texts), 64)

    tables, encoder = {"flavors": [f"label {i}" for i in range(110_000)]}, Random()
    features = torch.randn(1, 64)
    first = Vocabulary(tables, encoder, tmp_path).scores(features)
    encoder.texts = 0
    assert torch.equal(Vocabulary(tables, encoder, tmp_path).scores(features), first)
    assert encoder.texts == 0


def test_the_default_tables_are_clip_interrogators() -> None:
    tables = default_tables()
    assert {name: len(labels) for name, labels in tables.items()} == {
        "artists": 10530,
        "flavors": 100970,
        "mediums": 95,
        "movements": 200,
        "negative": 41,
        "trendings": 72,
    }
    assert tables["artists"][0].startswith("by ") and tables["artists"][5265].startswith("inspired by ")
    assert "trending on Artstation" in tables["trendings"]


def test_a_vocabularys_id_is_known_without_a_model(encoder) -> None:
    """Sidecars hold it: it stays what it is, and comparing them loads nothing."""
    tables = {"negative": ["z"], "mine": ["x", "naïve"], "flavors": ["a", "b"], "artists": ["by c"]}
    assert vocabulary_id(tables) == Vocabulary(tables, encoder).id == "866d96bc8689e959"
    assert vocabulary_id(dict(sorted(tables.items()))) == vocabulary_id(tables)
    moved = {**tables, "flavors": ["a"], "mine": ["b", "x", "naïve"]}
    assert vocabulary_id(moved) != vocabulary_id(tables)
    code = "import sys; from promptglass.clip.tables import default_tables, vocabulary_id\n"
    code += "vocabulary_id(default_tables()); sys.exit(bool({'torch', 'numpy'} & {*sys.modules}))"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_artists_their_names_are_gone_everywhere() -> None:
    tables = {
        "artists": ["by Greg Rutkowski", "inspired by Greg Rutkowski", "by Beeple"],
        "flavors": [
            "in the style of greg rutkowski",
            "gregarious",
            "beeple, octane",
            "Greg  Rutkowski's dragon",
            "sharp focus",
        ],
    }
    assert without_artists(tables) == {"flavors": ["gregarious", "beeple, octane", "sharp focus"]}
    assert len(default_tables()["flavors"]) - len(without_artists(default_tables())["flavors"]) > 1000


def test_lists_are_read_as_people_write_them(tmp_path: Path) -> None:
    path = tmp_path / "my list 🎨.txt"
    path.write_bytes("\ufeffoil painting\r\n\r\n  gouache \r\nnaïve art\x85still one\n".encode())
    assert read_labels(path) == ["oil painting", "gouache", "naïve art\x85still one"]
    with pytest.raises(InputError, match="cannot read the table"):
        read_labels(tmp_path / "missing.txt")


def test_an_empty_vocabulary_says_so(encoder) -> None:
    with pytest.raises(InputError, match="empty"):
        Vocabulary({"flavors": []}, encoder)


def test_order_of_labels_does_not_change_their_embeddings(encoder) -> None:
    shuffled = random.Random(0).sample(LABELS, len(LABELS))
    features = encoder.encode_images([noise(1)])
    straight = dict(
        zip(LABELS, Vocabulary({"flavors": LABELS}, encoder).scores(features)[0].tolist(), strict=True)
    )
    mixed = dict(
        zip(shuffled, Vocabulary({"flavors": shuffled}, encoder).scores(features)[0].tolist(), strict=True)
    )
    assert mixed == pytest.approx(straight, abs=1e-6)


def test_a_list_of_the_moment_has_nothing_written_again(tmp_path: Path) -> None:
    tables = {"flavors": LABELS, "negative": ["z"]}
    counting = Counting()
    lasting = Vocabulary(tables, counting, tmp_path)
    scores(lasting, counting)
    kept, embedded = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}, counting.texts
    joined = lasting.joined(Vocabulary({"mine": ["x", "y"]}, counting))
    assert joined.labels == [*LABELS, "x", "y", "z"] and joined.merged == slice(0, 302)
    whole = Vocabulary({**tables, "mine": ["x", "y"]}, counting)
    assert joined.id == whole.id
    found = scores(joined, counting)
    assert counting.texts == embedded + 2
    assert same(found, scores(whole, counting))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == kept
    assert lasting.labels == [*LABELS, "z"]
