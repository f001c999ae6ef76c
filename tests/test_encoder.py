"""Encoders: the fast text path equals the model's own, on every family of modules."""

from __future__ import annotations

from unittest import mock

import pytest
import torch
from conftest import clip_tokenizer, noise, tiny_encoder, tiny_open_clip, tiny_preprocess
from families import FAMILIES, build
from hypothesis import given, settings
from hypothesis import strategies as st

from promptglass import OpenClipEncoder
from promptglass.clip import text_tower
from promptglass.clip.memory import is_out_of_memory
from promptglass.clip.text_tower import TokenTree
from promptglass.clip.tokens import Tokens
from promptglass.errors import ModelError

AWKWARD = [
    "",
    " ",
    "a",
    ", a",
    "a,",
    "...",
    "!!!",
    "it's",
    "'s",
    "don't 'll",
    "ＡＢＣ",
    "ﬁne art",
    "naïve café",
    "猫 と 犬",
    "☕️ coffee",
    "&amp;",
    "fish & chips",
    "a&lt;b",
    "<end_of_text>",
    "<|endoftext|> more",
    "x <start_of_text> y",
    "Ünïcödé ÀÉ",
    "ΟΔΥΣΣΕΥΣ ΣΑΣ",
    "\tTab\nnewline ",
    "â€™ mojibake Ã©",
    "1984 2 0 5 6",
    "a" * 300,
    "word " * 90,
    "e\u0301 combining",
    "\u0301",
    "\x1b[31mred",
    "\ufeffbom",
    "İstanbul",
    "ß",
    "ﷺ",
]
texts = st.one_of(
    st.sampled_from(AWKWARD),
    st.text(max_size=40),
    st.lists(
        st.sampled_from(["a", "cat,", "by", "Greg", "it's", "—", "é", "&", ". ", "42", "(x:1.2)"]),
        max_size=90,
    ).map(" ".join),
)
prefixes = st.builds(lambda text, end: text + end, texts, st.sampled_from(["", " ", ", ", ",", "."]))


def plain(model, tokenizer, batch: list[str]) -> torch.Tensor:
    with torch.no_grad():
        return torch.nn.functional.normalize(model.encode_text(tokenizer(batch)).float(), dim=-1)


@settings(max_examples=150)
@given(prefix=prefixes, suffixes=st.lists(texts, min_size=1, max_size=6))
def test_continuations_equal_the_plain_path(prefix: str, suffixes: list[str]) -> None:
    model, tokenizer = MODEL, clip_tokenizer()
    with mock.patch.object(text_tower, "_BLOCK", 8):  # several blocks
        found = ENCODER.encode_continuations(prefix, suffixes)
    assert (found - plain(model, tokenizer, [prefix + s for s in suffixes])).abs().max() < 1e-5


MODEL = tiny_open_clip(7)
TOKENIZER = clip_tokenizer()
ENCODER = OpenClipEncoder(MODEL, tiny_preprocess, TOKENIZER, "tiny")


@pytest.mark.parametrize("end", ["", " ", ", ", "."])
def test_continuations_tokenise_as_the_whole_text(end: str) -> None:
    """Every awkward text before every other: cleaning looks across a whole text for "<" and mojibake."""
    tokenizer = clip_tokenizer()
    tokens = Tokens(tokenizer, 49407, 77, splits_at_spaces=True)
    awkward = [*AWKWARD, "a < b", "&amp;amp;amp; c", "&lt;", "lt; x", "&#39"]
    for prefix in awkward:
        found = tokens.continuations(prefix + end, awkward)
        assert found == tokens.rows([prefix + end + suffix for suffix in awkward])


@given(
    st.lists(st.sampled_from([*AWKWARD, "a" * 300, "two words", "3D", "'s", "  "]), max_size=6),
    st.sampled_from(["", " ", ", "]),
)
@settings(max_examples=60)
def test_tokens_are_counted_as_they_are_made(parts: list[str], between: str) -> None:
    tokens = Tokens(TOKENIZER, 49407, 77, splits_at_spaces=True)
    text = between.join(parts)
    assert tokens.count(text) == len(tokens.rows([text])[0])


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_takes_its_own_answer(family: str) -> None:
    encoder, own_answer = build(family)
    batch = [text for text in AWKWARD if family not in ("transformers", "siglip") or text.strip()]
    expected = torch.nn.functional.normalize(own_answer(batch).float(), dim=-1)
    assert (encoder.encode_texts(batch) - expected).abs().max() < 1e-5
    continued = encoder.encode_continuations("a photo of a cat, ", batch)
    expected = torch.nn.functional.normalize(
        own_answer(["a photo of a cat, " + b for b in batch]).float(), dim=-1
    )
    assert (continued - expected).abs().max() < 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_causal_towers_are_recognised_and_others_are_not(family: str) -> None:
    encoder, _ = build(family)
    assert (encoder._texts._tower is not None) == (family not in ("siglip", "open_clip bidirectional"))


@pytest.mark.parametrize("family", FAMILIES)
def test_image_features_are_normalised_float32(family: str) -> None:
    encoder, _ = build(family)
    features = encoder.encode_images([noise(1), noise(2).convert("L").convert("RGB"), noise(3, (31, 200))])
    assert features.dtype == torch.float32
    assert features.shape[0] == 3
    assert torch.allclose(features.norm(dim=-1), torch.ones(3), atol=1e-5)
    alone = encoder.encode_images([noise(2).convert("L").convert("RGB")])
    assert torch.allclose(features[1], alone[0], atol=1e-5)


def test_no_texts_and_no_images_are_no_features(encoder) -> None:
    assert len(encoder.encode_texts([])) == 0
    assert len(encoder.encode_continuations("a ", [])) == 0
    assert len(encoder.encode_images([])) == 0


def test_a_model_that_a_host_casts_later_keeps_working() -> None:
    model, tokenizer = tiny_open_clip(8), clip_tokenizer()
    encoder = OpenClipEncoder(model, tiny_preprocess, tokenizer, "tiny")
    before = encoder.encode_texts(["a cat"]), encoder.encode_images([noise(1)])
    model.bfloat16()
    after = encoder.encode_texts(["a cat"]), encoder.encode_images([noise(1)])
    for one, other in zip(before, after, strict=True):
        assert (one * other).sum() > 0.99


def test_numbers_that_are_none_are_an_error() -> None:
    model, tokenizer = tiny_open_clip(8), clip_tokenizer()
    encoder = OpenClipEncoder(model, tiny_preprocess, tokenizer, "tiny")
    model.visual.proj.data.fill_(float("nan"))
    with pytest.raises(ModelError, match="fp32"):
        encoder.encode_images([noise(1)])
    model.text_projection.data.fill_(float("inf"))
    with pytest.raises(ModelError, match="fp32"):
        encoder.encode_texts(["a cat"])


def test_a_tower_built_otherwise_takes_the_plain_path() -> None:
    model, tokenizer = tiny_open_clip(8), clip_tokenizer()
    for block in model.transformer.resblocks:
        block.attn = torch.nn.MultiheadAttention(64, 4, bias=False, batch_first=block.attn.batch_first)
    encoder = OpenClipEncoder(model, tiny_preprocess, tokenizer, "tiny")
    assert encoder._texts._tower is None
    assert torch.allclose(encoder.encode_texts(["a cat"]), plain(model, tokenizer, ["a cat"]), atol=1e-5)


def test_a_transformers_tokenizer_inside_open_clip_knows_its_end(tmp_path) -> None:
    """As SigLIP's and XLM-R's: the end token is not the highest id, and says how long a text is."""
    import open_clip
    from families import write_clip_tokenizer

    write_clip_tokenizer(tmp_path)
    tokenizer = open_clip.tokenizer.HFTokenizer(str(tmp_path))
    encoder = OpenClipEncoder(tiny_open_clip(8), tiny_preprocess, tokenizer, "tiny")
    assert not encoder.fills_context("red cat") and not encoder.fills_context("a red cat")
    assert encoder.fills_context("red cat " * 60)


@pytest.mark.parametrize(
    "text",
    [
        "CUDA error: out of memory",
        "CUBLAS_STATUS_ALLOC_FAILED when calling",
        "HIP out of memory. Tried",
        "MPS backend out of memory",
    ],
)
def test_every_way_to_say_that_memory_ran_out(text: str) -> None:
    assert is_out_of_memory(RuntimeError(text))
    assert not is_out_of_memory(RuntimeError("shape mismatch")) and not is_out_of_memory(ValueError(text))


def test_fingerprint_tells_activations_apart() -> None:
    tokenizer = clip_tokenizer()
    models = [tiny_open_clip(3, quick_gelu=quick) for quick in (False, True)]
    assert len({OpenClipEncoder(m, tiny_preprocess, tokenizer, "x").fingerprint() for m in models}) == 2


def test_text_hooks_of_a_host_still_fire() -> None:
    model = tiny_open_clip(1)
    seen: list[str] = []
    block = model.transformer.resblocks[1]
    for name in ("ln_1", "ln_2", "mlp.c_fc", "attn.out_proj"):
        block.get_submodule(name).register_forward_hook(lambda *_, name=name: seen.append(name))
    encoder = OpenClipEncoder(model, tiny_preprocess, clip_tokenizer(), "tiny")
    seen.clear()
    encoder.encode_texts(["a", "b"])
    assert seen == ["ln_1", "attn.out_proj", "ln_2", "mlp.c_fc"]


def test_a_changed_weight_is_used_where_it_lies(encoder) -> None:
    model = tiny_open_clip(2)
    encoder = OpenClipEncoder(model, tiny_preprocess, clip_tokenizer(), "tiny")
    before, name = encoder.encode_texts(["a cat"]), encoder.fingerprint()
    model.transformer.resblocks[0].mlp.c_fc.weight.data *= 1.5
    after = encoder.encode_texts(["a cat"])
    assert (before - after).abs().max() > 1e-3
    assert torch.allclose(after, plain(model, clip_tokenizer(), ["a cat"]), atol=1e-5)
    assert encoder.fingerprint() != name


def computes(dtype: torch.dtype) -> bool:
    """Whether this torch multiplies such matrices on the CPU: 2.1 and before cannot in half precision."""
    try:
        torch.ones(2, 2, dtype=dtype) @ torch.ones(2, 2, dtype=dtype)
    except RuntimeError:
        return False
    return True


@pytest.mark.skipif(not computes(torch.float16), reason="no half precision on this CPU")
def test_fingerprint_ignores_precision_and_image_tower() -> None:
    tokenizer = clip_tokenizer()
    full, half = tiny_open_clip(3), tiny_open_clip(3).half()
    half.visual.conv1.weight.data += 1
    first = OpenClipEncoder(full, tiny_preprocess, tokenizer, "a").fingerprint()
    assert first == OpenClipEncoder(half, tiny_preprocess, tokenizer, "b").fingerprint()
    assert first != tiny_encoder(4).fingerprint()


def test_half_precision_stays_close() -> None:
    tokenizer = clip_tokenizer()
    exact = OpenClipEncoder(tiny_open_clip(5), tiny_preprocess, tokenizer, "a").encode_texts(
        ["a cat", "two dogs"]
    )
    for dtype in filter(computes, (torch.float16, torch.bfloat16)):
        encoder = OpenClipEncoder(tiny_open_clip(5).to(dtype), tiny_preprocess, tokenizer, "a")
        assert encoder._texts._tower is not None
        found = encoder.encode_texts(["a cat", "two dogs"])
        assert found.dtype == torch.float32
        assert (found * exact).sum(-1).min() > 0.99


@pytest.mark.parametrize("fits", [1, 3, 40])
def test_out_of_memory_halves_the_batch_and_says_so_once(monkeypatch, caplog, fits: int) -> None:
    model = tiny_open_clip(6)
    encoder = OpenClipEncoder(model, tiny_preprocess, clip_tokenizer(), "tiny")
    images, words = [noise(i) for i in range(40)], [f"text number {i} of {i * i}" for i in range(60)]
    expected = encoder.encode_images(images), encoder.encode_texts(words)
    real_image, real_project = model.encode_image, encoder._texts._tower.project

    def small_image(pixels: torch.Tensor) -> torch.Tensor:
        if len(pixels) > fits:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return real_image(pixels)

    def small_texts(x: torch.Tensor) -> torch.Tensor:
        if len(x) > max(fits, 4):
            raise RuntimeError("MPS backend out of memory (tried to allocate)")
        return real_project(x)

    monkeypatch.setattr(encoder._pictures, "_encode", small_image)
    object.__setattr__(encoder._texts._tower, "project", small_texts)
    assert torch.allclose(encoder.encode_images(images), expected[0], atol=1e-5)
    assert torch.allclose(encoder.encode_texts(words), expected[1], atol=1e-5)
    assert torch.allclose(encoder.encode_texts(words), expected[1], atol=1e-5)
    assert len(caplog.records) == (
        1 if fits >= 32 else 2
    )  # the pictures (32 at a time) and the texts, once each


def test_a_single_picture_that_does_not_fit_is_one_error(monkeypatch) -> None:
    encoder = tiny_encoder(6)

    def never(pixels: torch.Tensor) -> torch.Tensor:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(encoder._pictures, "_encode", never)
    with pytest.raises(ModelError, match="smaller model"):
        encoder.encode_images([noise(0)])


rows_of_tokens = st.lists(
    st.lists(st.integers(1, 4), max_size=12).map(lambda ids: (9, *ids, 0)), min_size=1, max_size=60
)


@settings(max_examples=200)
@given(rows=rows_of_tokens, limit=st.integers(1, 80), block=st.integers(1, 30))
def test_a_token_tree_spells_out_its_rows(rows: list[tuple[int, ...]], limit: int, block: int) -> None:
    ordered = sorted(rows)
    with mock.patch.object(text_tower, "_BLOCK", block):
        tree = TokenTree(ordered, limit)
    P, L = tree.prefix_length, tree.block_length
    taken = len(tree.leaf_of_row)
    assert 1 <= taken <= len(rows)
    assert tree.nodes <= max(limit, *map(len, rows))
    assert len(set(tree.slots.tolist())) == tree.nodes == len(tree.ids) - P
    for row, leaf in zip(ordered, tree.leaf_of_row, strict=False):
        slot = int(tree.slots[tree.leaves[leaf]])
        seen = tree.visible[slot, P:].nonzero()[:, 0] + slot // L * L
        nodes = [P + tree.slots.tolist().index(slot) for slot in seen.tolist()]
        assert (*tree.ids[:P].tolist(), *tree.ids[nodes].tolist()) == row
        assert (*tree.positions[:P].tolist(), *tree.positions[nodes].tolist()) == tuple(range(len(row)))
        assert int(tree.leaf_slots[leaf]) // tree.block_leaves == slot // L
