"""Captioners: every family through its real class, on tiny models that the tests save."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import noise

from promptglass.caption import TransformersCaptioner, load_captioner
from promptglass.errors import ModelError

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "[DEC]",
    "[ENC]",
    "a",
    "cat",
    "dog",
    "on",
    "the",
    "mat",
    "##s",
    "red",
    "sky",
]


def bert_tokenizer(folder: Path) -> Any:
    from transformers import BertTokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    return BertTokenizerFast(str(folder / "vocab.txt"))


def write_captioner(folder: Path, kind: str) -> None:
    """A tiny captioning model with random weights, as transformers saves it."""
    import transformers as t

    torch.manual_seed(0)
    text = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision = {**text, "image_size": 32, "patch_size": 8}
    tokenizer = bert_tokenizer(folder)
    size = {"height": 32, "width": 32}
    ids = {"bos_token_id": 5, "sep_token_id": 3, "eos_token_id": 3, "pad_token_id": 0}
    if kind == "blip":
        bert = {**text, **ids, "vocab_size": len(WORDS), "encoder_hidden_size": 32, "projection_dim": 16}
        model: Any = t.BlipForConditionalGeneration(t.BlipConfig(text_config=bert, vision_config=vision))
        processor: Any = t.BlipProcessor(t.BlipImageProcessor(size=size), tokenizer)
    elif kind == "git":
        config = t.GitConfig(
            vision_config=vision, vocab_size=len(WORDS), bos_token_id=2, eos_token_id=3, **text
        )
        model = t.GitForCausalLM(config)
        processor = t.GitProcessor(
            t.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=size), tokenizer
        )
    else:
        qformer = {**text, "vocab_size": len(WORDS), "encoder_hidden_size": 32}
        opt = {
            "vocab_size": len(WORDS) + 1,
            "hidden_size": 32,
            "ffn_dim": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "word_embed_proj_dim": 32,
            "bos_token_id": 2,
            "eos_token_id": 3,
            "pad_token_id": 0,
            "model_type": "opt",
        }
        config = t.Blip2Config(
            vision_config=vision,
            qformer_config=qformer,
            text_config=opt,
            num_query_tokens=4,
            image_token_index=len(WORDS),
        )
        model = t.Blip2ForConditionalGeneration(config)
        processor = t.Blip2Processor(t.BlipImageProcessor(size=size), tokenizer)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


@pytest.mark.parametrize("kind", ["blip", "git", "blip-2"])
def test_every_family_captions_in_batches(tmp_path: Path, kind: str) -> None:
    write_captioner(tmp_path / kind, kind)
    captioner = load_captioner(str(tmp_path / kind), device="cpu")
    images = [noise(i) for i in range(11)]  # more than one pass
    captions = captioner.caption(images)
    assert len(captions) == 11
    assert all(isinstance(caption, str) and caption == " ".join(caption.split()) for caption in captions)
    assert not any(special in caption for caption in captions for special in ("[SEP]", "[PAD]"))
    assert captioner.caption([images[3]]) == [captions[3]]
    assert captioner.caption(images) == captions


def test_a_caption_equals_clip_interrogators(tmp_path: Path) -> None:
    """clip_interrogator.generate_caption, on the same weights."""
    ci = pytest.importorskip("clip_interrogator")
    write_captioner(tmp_path, "blip")
    ours = TransformersCaptioner(tmp_path, "blip-base", torch.device("cpu"), torch.float32)
    theirs = ci.Interrogator.__new__(ci.Interrogator)
    theirs.config = ci.Config()
    theirs.config.caption_model_name = "blip-base"
    theirs.device, theirs.dtype, theirs.caption_offloaded = "cpu", torch.float32, False
    theirs.caption_model, theirs.caption_processor = ours.module, ours._processor
    for i in range(3):
        assert ours.caption([noise(i)]) == [" ".join(theirs.generate_caption(noise(i)).split())]


def test_nothing_is_loaded_before_the_first_caption(tmp_path: Path) -> None:
    write_captioner(tmp_path, "blip")
    captioner = load_captioner(str(tmp_path), device="cpu")
    assert "module" not in vars(captioner)


def test_another_kind_of_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ModelError, match="llama"):
        load_captioner(str(tmp_path), device="cpu")
    (tmp_path / "config.json").unlink()
    with pytest.raises(ModelError, match=r"config\.json"):
        load_captioner(str(tmp_path), device="cpu")


def test_missing_weights_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "blip"}')
    with pytest.raises(ModelError, match="cannot load"):
        load_captioner(str(tmp_path), device="cpu").caption([noise(1)])
