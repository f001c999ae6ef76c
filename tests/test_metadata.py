"""The prompt that a picture file already holds, in files as the programs write them."""

from __future__ import annotations

import io
import json
import struct
import time
import zlib
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from promptglass.metadata import MAX_NESTING, Embedded, parse_parameters, read_embedded

INFOTEXT = (
    "a cat, masterpiece\n"
    "Negative prompt: ugly, blurry\n"
    "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 965400086, Size: 512x768, "
    "Model hash: 45dee52b, Model: v1-5, Version: v1.10.1"
)
GRAPH = {
    "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "x.safetensors"}},
    "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "a cat", "clip": ["1", 1]}},
    "3": {"class_type": "CLIPTextEncode", "inputs": {"text": "ugly", "clip": ["1", 1]}},
    "4": {
        "class_type": "KSampler",
        "inputs": {"seed": 7, "steps": 20, "positive": ["2", 0], "negative": ["3", 0], "model": ["1", 0]},
        "is_changed": [float("nan")],
    },
    "5": {"class_type": "SaveImage", "inputs": {"images": ["4", 0]}},
}
WORKFLOW = {
    "nodes": [
        {"id": 2, "type": "CLIPTextEncode", "widgets_values": ["a cat"]},
        {
            "id": 4,
            "type": "KSampler",
            "inputs": [{"name": "positive", "link": 1}],
            "widgets_values": [7, "fixed", 20, 8, "euler", "normal", 1],
        },
    ],
    "links": [[1, 2, 0, 4, 1, "CONDITIONING"]],
}


def opened(file_format: str, size: tuple[int, int] = (8, 8), **options: Any) -> Image.Image:
    stream = io.BytesIO()
    Image.new("RGB", size).save(stream, file_format, **options)
    return Image.open(io.BytesIO(stream.getvalue()))


def png(texts: dict[str, str], *, is_itxt: bool = False, **options: Any) -> Image.Image:
    info = PngImagePlugin.PngInfo()
    for name, text in texts.items():
        if is_itxt:
            info.add_itxt(name, text)
        else:
            info.add_text(name, text)
    return opened("PNG", pnginfo=info, **options)


def exif_packet(fields: dict[int, bytes], order: str = ">") -> bytes:
    """A TIFF block with its fields in IFD0, but UserComment and MakerNote in the Exif IFD."""
    inner = {tag: value for tag, value in fields.items() if tag in (0x9286, 0x927C)}
    outer = {tag: value for tag, value in fields.items() if tag not in inner}
    inner_at = 8 + 2 + 12 * (len(outer) + 1) + 4 + sum(len(value) + 4 for value in outer.values())
    head = (b"MM\0\x2a" if order == ">" else b"II\x2a\0") + struct.pack(order + "I", 8)
    return b"Exif\0\0" + head + _ifd(outer, order, 8, inner_at) + _ifd(inner, order, inner_at, None)


def _ifd(fields: dict[int, bytes], order: str, at: int, inner_at: int | None) -> bytes:
    count = len(fields) + (inner_at is not None)
    entries, values = b"", b""
    values_at = at + 2 + 12 * count + 4
    for tag, value in sorted(fields.items()):
        kind = 7 if tag in (0x9286, 0x927C) else 2
        padded = value + b"\0" * 4
        entries += struct.pack(order + "HHII", tag, kind, len(padded), values_at + len(values))
        values += padded
    if inner_at is not None:
        entries += struct.pack(order + "HHII", 0x8769, 4, 1, inner_at)
    return struct.pack(order + "H", count) + entries + b"\0\0\0\0" + values


def user_comment(comment: bytes, file_format: str = "JPEG", order: str = ">") -> Image.Image:
    return opened(file_format, exif=exif_packet({0x9286: comment}, order))


def prompts(found: Embedded | None) -> tuple[str, str, str] | None:
    return found and (found.source, found.positive, found.negative)


# A1111


def test_infotext_gives_prompts_and_settings_under_their_own_names():
    assert parse_parameters(INFOTEXT) == Embedded(
        "a1111",
        "a cat, masterpiece",
        "ugly, blurry",
        {
            "Steps": 20,
            "Sampler": "Euler a",
            "CFG scale": 7,
            "Seed": 965400086,
            "Size": "512x768",
            "Model hash": "45dee52b",
            "Model": "v1-5",
            "Version": "v1.10.1",
        },
    )


TAIL = "Steps: 20, Sampler: DPM++ 2M Karras, CFG scale: 6.5, Seed: 1, Size: 512x512"
INFOTEXTS = {
    "no negative": (f"a cat\n{TAIL}", "a cat", "", {"Steps": 20, "CFG scale": 6.5}),
    "no settings": ("a cat\nNegative prompt: ugly", "a cat", "ugly", {}),
    "bare": ("a cat,\nin a hat", "a cat,\nin a hat", "", {}),
    "no positive": (f"\nNegative prompt: ugly\n{TAIL}", "", "ugly", {"Steps": 20}),
    "negative over lines": (f"a\nNegative prompt: b,\nc\n\nd\n{TAIL}", "a", "b,\nc\n\nd", {"Seed": 1}),
    "windows line ends": (f"a\r\nb\r\nNegative prompt: c\r\n{TAIL}\r\n", "a\nb", "c", {"Seed": 1}),
    "line separators inside": (
        f"a cat\u2028in a fine hat\x0cand boots\n{TAIL}",
        "a cat\u2028in a fine hatand boots",
        "",
        {"Seed": 1},
    ),
    "steps in the prompt": (
        f"a temple\nSteps: 3, stone\nfog\n{TAIL}",
        "a temple\nSteps: 3, stone\nfog",
        "",
        {},
    ),
    "steps in the last line of a bare prompt": (
        "a temple\nSteps: 12, stone",
        "a temple\nSteps: 12, stone",
        "",
        {},
    ),
    "settings quoted inside the prompt": (
        f"{TAIL}, as text\nreally\n{TAIL}",
        f"{TAIL}, as text\nreally",
        "",
        {},
    ),
    "settings-like line inside a bare prompt": (f"a sign\n{TAIL}\nin fog", f"a sign\n{TAIL}\nin fog", "", {}),
    "truncated settings": ("a cat\nSteps: 20, Sampler: Eul", "a cat", "", {"Sampler": "Eul"}),
    "emphasis": (f"{{{{cat}}}}, [[dog]], (hat:1.2)\n{TAIL}", "{{cat}}, [[dog]], (hat:1.2)", "", {}),
    "quoted values": (
        f'a\n{TAIL}, Lora hashes: "x: 1f, y: 2e", Hires prompt: "a \\"big\\" cat,\\nfur", Model: m',
        "a",
        "",
        {"Lora hashes": "x: 1f, y: 2e", "Hires prompt": 'a "big" cat,\nfur', "Model": "m"},
    ),
    "civitai": (
        f'a\n{TAIL}, Civitai resources: [{{"type":"lora","weight":0.8}}, {{"id":NaN}}], '
        'Hashes: {"m": "1"}, RNG: CPU',
        "a",
        "",
        {
            "Civitai resources": [{"type": "lora", "weight": 0.8}, {"id": None}],
            "Hashes": {"m": "1"},
            "RNG": "CPU",
        },
    ),
    "broken quotes and braces": (
        f'a\n{TAIL}, Lora hashes: "x: 1f, Hashes: {{"m, Model: m',
        "a",
        "",
        {"Lora hashes": '"x: 1f', "Hashes": '{"m', "Model": "m"},
    ),
    "template lines": (
        f"a\nNegative prompt: b\n{TAIL}\nTemplate: {{a|b}},\nmore\nNegative Template: __x__",
        "a",
        "b",
        {"Template": "{a|b},\nmore", "Negative Template": "__x__", "Seed": 1},
    ),
    "hash like a number": (f"a\n{TAIL}, Model hash: 1234567890", "a", "", {"Model hash": "1234567890"}),
    "chinese": (f"一只猫\nNegative prompt: 丑\n{TAIL}", "一只猫", "丑", {"Seed": 1}),
}


@pytest.mark.parametrize(("text", "positive", "negative", "some"), INFOTEXTS.values(), ids=INFOTEXTS)
def test_infotexts_as_they_come(text: str, positive: str, negative: str, some: dict[str, Any]):
    found = parse_parameters(text)
    assert found is not None
    assert (found.positive, found.negative) == (positive, negative)
    assert {name: found.settings.get(name) for name in some} == some


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n ",
        TAIL,
        "\0\0\0",
        "\x01\x02\x03binary\x04",
        '{"prompt": "a',
        '[{"type": 1',
        '["a"]',
        "{}",
        "a" * 2_000_000,
    ],
)
def test_what_is_no_prompt_is_none(text: str):
    assert parse_parameters(text) is None


def test_half_surrogates_do_not_come_through():
    found = parse_parameters(f'a \ud83d\ude00 b\ud800 is a cat with a hat\n{TAIL}, Model: "\\ud800m,"')
    assert found is not None
    json.dumps([found.positive, found.settings], ensure_ascii=False).encode()
    assert found.positive.startswith("a \U0001f600 b")


@pytest.mark.parametrize("is_itxt", [False, True])
def test_png_parameters(is_itxt: bool):
    assert read_embedded(png({"parameters": INFOTEXT}, is_itxt=is_itxt)) == parse_parameters(INFOTEXT)


def test_png_parameters_in_any_script():
    assert prompts(read_embedded(png({"parameters": f"猫 café\n{TAIL}"}))) == ("a1111", "猫 café", "")


def test_png_text_chunk_holding_utf8_is_read_as_such():
    mistaken = f"café\n{TAIL}".encode().decode("latin-1")
    assert prompts(read_embedded(png({"parameters": mistaken}))) == ("a1111", "café", "")


CJK = f"一只猫，帽子\n{TAIL}"
COMMENTS = {
    "utf-16 be": b"UNICODE\0" + CJK.encode("utf-16-be"),
    "utf-16 le": b"UNICODE\0" + CJK.encode("utf-16-le"),
    "utf-16 with mark": b"UNICODE\0" + CJK.encode("utf-16"),
    "utf-8 called unicode": b"UNICODE\0" + CJK.encode(),
    "ascii prefix": b"ASCII\0\0\0" + CJK.encode(),
    "undefined prefix": b"\0" * 8 + CJK.encode(),
    "no prefix": CJK.encode(),
}
EXIF_FORMATS = ["JPEG", "WEBP", "PNG", *(["AVIF"] if ".avif" in Image.registered_extensions() else [])]


@pytest.mark.parametrize("order", [">", "<"])
@pytest.mark.parametrize("file_format", EXIF_FORMATS)
@pytest.mark.parametrize("comment", COMMENTS.values(), ids=COMMENTS)
def test_user_comment_in_every_encoding(comment: bytes, file_format: str, order: str):
    found = read_embedded(user_comment(comment, file_format, order))
    assert prompts(found) == ("a1111", "一只猫，帽子", "")


@pytest.mark.parametrize("file_format", ["GIF", "JPEG"])
def test_comment_segment(file_format: str):
    assert prompts(read_embedded(opened(file_format, comment=CJK.encode()))) == ("a1111", "一只猫，帽子", "")


FOREIGN = {
    "gimp": lambda: png({"Comment": "Created with GIMP", "Software": "GIMP 2.10"}),
    "gimp jpeg": lambda: opened("JPEG", comment=b"Created with GIMP"),
    "camera": lambda: opened(
        "JPEG", exif=exif_packet({0x010F: b"Canon", 0x0110: b"EOS R5", 0x9286: b"ASCII\0\0\0Holiday in Rome"})
    ),
    "camera numbers": lambda: user_comment(
        b"ASCII\0\0\0Nice day\nExposure: 1/60, ISO: 100, Size: large, Seed: no"
    ),
    "blank user comment": lambda: user_comment(b"\0" * 200),
    "maker note": lambda: opened(
        "JPEG", exif=exif_packet({0x927C: b"Nikon\0\2\x10", 0x9286: b'{"prompt": "x"}'})
    ),
    "plain prompt chunk": lambda: png({"prompt": "x", "Description": "A holiday", "Title": "Rome"}),
    "unknown json": lambda: png({"parameters": '{"sui_image_params": {"prompt": "x"}}'}),
    "truncated graph": lambda: png({"prompt": json.dumps(GRAPH)[:-40]}),
    "other tool's comment": lambda: png({"Comment": '{"prompt": "x"}'}),
    "nothing": lambda: png({}),
}


@pytest.mark.parametrize("make", FOREIGN.values(), ids=FOREIGN)
def test_text_that_is_no_prompt_does_not_become_one(make: Any):
    assert read_embedded(make()) is None


def late_png(texts: dict[str, bytes], kind: bytes = b"tEXt", size: tuple[int, int] = (8, 8)) -> Image.Image:
    stream = io.BytesIO()
    Image.new("RGB", size).save(stream, "PNG")
    whole = stream.getvalue()
    chunks = b""
    for name, text in texts.items():
        body = kind + name.encode() + b"\0" + text
        chunks += struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    end = whole.rindex(b"IEND") - 4
    return Image.open(io.BytesIO(whole[:end] + chunks + whole[end:]))


def test_text_after_the_pixels_is_found_without_decoding_them():
    image = late_png({"parameters": INFOTEXT.encode()})
    assert image.fp is not None
    position = image.fp.tell()
    assert read_embedded(image) == parse_parameters(INFOTEXT)
    assert image.fp is not None, "the pixels were decoded"
    assert image.fp.tell() == position
    image.load()
    assert read_embedded(image) == parse_parameters(INFOTEXT)


def test_compressed_and_international_text_after_the_pixels():
    packed = b"\0" + zlib.compress(INFOTEXT.encode())
    assert prompts(read_embedded(late_png({"parameters": packed}, b"zTXt"))) is not None
    plain = b"\0\0\0\0" + CJK.encode()
    assert prompts(read_embedded(late_png({"parameters": plain}, b"iTXt"))) == ("a1111", "一只猫，帽子", "")


def test_damaged_late_text_is_none_and_pixels_stay_readable():
    bomb = b"\0" + zlib.compress(b"a" * 50_000_000)
    image = late_png({"parameters": bomb}, b"zTXt")
    assert read_embedded(image) is None
    image = late_png({"Comment": b"Created with GIMP"}, size=(300, 300))
    assert read_embedded(image) is None
    assert image.convert("RGB").getpixel((299, 299)) == (0, 0, 0)


def test_cut_files_never_raise():
    stream = late_png({"parameters": INFOTEXT.encode()}).fp
    assert stream is not None
    stream.seek(0)
    whole = stream.read()
    opened_count = 0
    for end in range(40, len(whole) - 16, 7):
        try:
            image = Image.open(io.BytesIO(whole[:end]))
        except OSError:
            continue
        opened_count += 1
        assert read_embedded(image) is None
    assert opened_count > 20


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_broken_exif_is_none():
    packet = exif_packet({0x9286: CJK.encode(), 0x010F: b"x" * 40})
    for end in range(6, len(packet), 5):
        image = Image.new("RGB", (8, 8))
        image.info["exif"] = packet[:end]
        read_embedded(image)


def test_pixels_of_an_untouched_image_are_never_needed():
    image = Image.new("RGB", (8, 8))
    assert read_embedded(image) is None
    image.info["parameters"] = INFOTEXT
    assert read_embedded(image) == parse_parameters(INFOTEXT)


# ComfyUI


def test_png_graph_with_nan():
    found = read_embedded(png({"prompt": json.dumps(GRAPH), "workflow": json.dumps(WORKFLOW)}))
    assert found == Embedded(
        "comfyui", "a cat", "ugly", {"seed": 7, "steps": 20, "ckpt_name": "x.safetensors"}
    )


def test_png_workflow_alone():
    assert prompts(read_embedded(png({"workflow": json.dumps(WORKFLOW)}))) == ("comfyui", "a cat", "")


GRAPH_FIELDS = {
    "core webp": {0x0110: f"prompt:{json.dumps(GRAPH)}", 0x010F: f"workflow:{json.dumps(WORKFLOW)}"},
    "capitals": {0x010F: f"Prompt: {json.dumps(GRAPH)}", 0x010E: f"Workflow: {json.dumps(WORKFLOW)}"},
    "user comment": {0x9286: json.dumps({"prompt": GRAPH, "workflow": WORKFLOW})},
    "user comment, labelled": {0x9286: f"prompt:{json.dumps(GRAPH)}"},
    "user comment, nested text": {0x9286: json.dumps({"prompt": json.dumps(GRAPH)})},
}


@pytest.mark.parametrize("file_format", ["WEBP", "JPEG"])
@pytest.mark.parametrize("fields", GRAPH_FIELDS.values(), ids=GRAPH_FIELDS)
def test_graph_in_exif(fields: dict[int, str], file_format: str):
    packet = exif_packet({tag: text.encode() for tag, text in fields.items()})
    assert prompts(read_embedded(opened(file_format, exif=packet))) == ("comfyui", "a cat", "ugly")


def test_utf8_graph_in_an_ascii_field():
    text = json.dumps(GRAPH, ensure_ascii=False).replace("a cat", "一只猫")
    packet = exif_packet({0x0110: f"prompt:{text}".encode()})
    assert prompts(read_embedded(opened("WEBP", exif=packet))) == ("comfyui", "一只猫", "ugly")


def test_parameters_win_over_a_graph_only_when_they_are_infotext():
    graph = json.dumps(GRAPH)
    assert prompts(read_embedded(png({"prompt": graph, "parameters": INFOTEXT}))) == (
        "a1111",
        "a cat, masterpiece",
        "ugly, blurry",
    )
    assert prompts(read_embedded(png({"prompt": graph, "parameters": "x"}))) == ("comfyui", "a cat", "ugly")
    assert prompts(read_embedded(png({"parameters": "x"}))) == ("a1111", "x", "")


# InvokeAI, NovelAI, Fooocus


def test_invokeai():
    made = {"positive_prompt": "a cat", "negative_prompt": None, "seed": 1, "model": {"name": "m"}}
    found = read_embedded(png({"invokeai_metadata": json.dumps(made)}))
    assert found == Embedded("invokeai", "a cat", "", {"seed": 1, "model": {"name": "m"}})


@pytest.mark.parametrize(
    "prompt", ["a cat [ugly] in a hat [bad]", [{"prompt": "a cat [ugly] in a hat [bad]"}]]
)
def test_older_invokeai(prompt: Any):
    made = {"model_weights": "sd1.5", "image": {"prompt": prompt, "steps": 50, "seed": 3}}
    found = read_embedded(png({"sd-metadata": json.dumps(made), "Dream": "ignored -s 1"}))
    settings = {"model_weights": "sd1.5", "steps": 50, "seed": 3}
    assert found == Embedded("invokeai", "a cat in a hat", "ugly, bad", settings)


@pytest.mark.parametrize(
    "dream",
    ['"a "big" cat [ugly]" -s 50 -S 12 -W 512 -A k_lms', 'a "big" cat [ugly] -s50 -S12 -W512 -Ak_lms'],
)
def test_dream(dream: str):
    settings = {"steps": "50", "seed": "12", "width": "512", "sampler": "k_lms"}
    assert read_embedded(png({"Dream": dream})) == Embedded("invokeai", 'a "big" cat', "ugly", settings)


NOVELAI = {"Software": "NovelAI", "Source": "Stable Diffusion F1022A28", "Description": "a cat"}


def test_novelai():
    comment = {"steps": 28, "scale": 11.0, "uc": "ugly", "seed": 4}
    found = read_embedded(png({**NOVELAI, "Comment": json.dumps(comment)}))
    settings = {"steps": 28, "scale": 11.0, "seed": 4, "Source": "Stable Diffusion F1022A28"}
    assert found == Embedded("novelai", "a cat", "ugly", settings)
    assert prompts(read_embedded(png({**NOVELAI, "Comment": "{broken"}))) == ("novelai", "a cat", "")


def test_novelai_v4_with_characters():
    def caption(base: str, *characters: str) -> dict[str, Any]:
        return {"caption": {"base_caption": base, "char_captions": [{"char_caption": c} for c in characters]}}

    comment = {"prompt": "x", "uc": "y", "v4_prompt": caption("two girls", "red hair", "blue hair")}
    comment["v4_negative_prompt"] = caption("ugly", "", "hat")
    found = read_embedded(png({**NOVELAI, "Comment": json.dumps(comment)}))
    assert prompts(found) == ("novelai", "two girls\nred hair\nblue hair", "ugly\nhat")


FOOOCUS = {
    "prompt": "a cat",
    "negative_prompt": "ugly",
    "full_prompt": ["a cat, cinematic"],
    "steps": 30,
    "base_model": "juggernaut",
    "performance": "Speed",
}


def test_fooocus():
    expected = ("fooocus", "a cat", "ugly")
    log = json.dumps(FOOOCUS)
    found = read_embedded(png({"parameters": log, "fooocus_scheme": "fooocus"}))
    assert prompts(found) == expected
    assert found is not None and found.settings["base_model"] == "juggernaut"
    packet = exif_packet({0x9286: log.encode(), 0x927C: b"fooocus", 0x0131: b"Fooocus v2.5"})
    assert prompts(read_embedded(opened("JPEG", exif=packet))) == expected
    assert prompts(read_embedded(png({"Comment": log}))) == expected
    empty = {**FOOOCUS, "prompt": "", "negative_prompt": ""}
    found = read_embedded(png({"parameters": json.dumps(empty), "fooocus_scheme": "fooocus"}))
    assert prompts(found) == ("fooocus", "a cat, cinematic", "")


def test_fooocus_lists_without_their_empty_texts():
    lists = {"full_prompt": ["", "a cat", " "], "full_negative_prompt": ["bad, ugly", ""]}
    log = {**FOOOCUS, "prompt": "", "negative_prompt": "", **lists}
    found = read_embedded(png({"parameters": json.dumps(log), "fooocus_scheme": "fooocus"}))
    assert prompts(found) == ("fooocus", "a cat", "bad, ugly")


def test_fooocus_in_a1111_scheme():
    assert prompts(read_embedded(png({"parameters": INFOTEXT, "fooocus_scheme": "a1111"}))) == (
        "fooocus",
        "a cat, masterpiece",
        "ugly, blurry",
    )
    packet = exif_packet({0x9286: INFOTEXT.encode(), 0x927C: b"a1111"})
    assert prompts(read_embedded(opened("WEBP", exif=packet)))[0] == "fooocus"  # type: ignore[index]


# Anything at all


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a": ', "}")])
def test_nested_settings_end_at_a_depth_every_host_can_walk(opening: str, closing: str):
    nested = opening * 200 + "1" + closing * 200
    found = read_embedded(png({"invokeai_metadata": f'{{"positive_prompt": "a", "n": {nested}}}'}))
    assert found is not None
    value, depth = found.settings["n"], 0
    while isinstance(value, (dict, list)):
        (value,), depth = value.values() if isinstance(value, dict) else value, depth + 1
    assert (value, depth) == (None, MAX_NESTING)


KEYS = [
    "parameters", "prompt", "workflow", "comment", "Comment", "Description", "Software", "Dream",
    "sd-metadata", "invokeai_metadata", "fooocus_scheme", "exif",
]  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [*KEYS, "image", "v4_prompt", "caption", "positive_prompt", "class_type", "inputs", "nodes"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=15,
)
PIECES = st.sampled_from(
    ["Steps: 20, ", "Seed: 1", "Negative prompt:", "\n", ": ", ", ", '"', "[", "{", "-s 5", "Template: "]
)
TEXT = st.text() | JSON.map(json.dumps) | st.lists(PIECES | st.text(max_size=5)).map("".join)
ANY_TEXT = st.text(st.characters(exclude_categories=()))


@settings(max_examples=400)
@given(
    st.dictionaries(
        st.sampled_from(KEYS), TEXT | ANY_TEXT | st.binary() | st.just("NovelAI") | st.just("a1111")
    )
)
@example({"prompt": "[" * 100_000, "parameters": '{"a":' * 100_000})
@example({"parameters": "a\nSteps: 1, Seed: 2, x: " + "[" * 100_000})
@example({"invokeai_metadata": '{"positive_prompt": "a", "seed": 1e999, "n": ' + "[" * 200 + "]" * 200 + "}"})
def test_any_metadata_is_read_without_error_into_clean_json(info: dict[str, Any]):
    image = Image.new("RGB", (8, 8))
    image.info.update(info)
    found = read_embedded(image)
    if found is not None:
        assert found.positive or found.negative
        everything = [found.source, found.positive, found.negative, found.settings]
        json.dumps(everything, allow_nan=False, ensure_ascii=False).encode()


WORDS = st.text(
    st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="\ufffd"), min_size=1, max_size=60
)
PROMPT = (
    st.lists(WORDS, min_size=1, max_size=4)
    .map("\n".join)
    .map(lambda text: text.strip("\0 \t\r\n"))
    .filter(
        lambda text: (
            text and not any(line.lstrip().startswith("Negative prompt:") for line in text.split("\n"))
        )
    )
    .filter(lambda text: text[0] not in "[{")
)
VALUES = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1).map(str.strip).filter(bool)


@settings(max_examples=300)
@given(
    PROMPT,
    PROMPT | st.just(""),
    st.dictionaries(st.sampled_from(["Model", "Sampler", "Hires prompt", "TI hashes"]), VALUES),
)
def test_written_infotext_parses_back(positive: str, negative: str, more: dict[str, str]):
    written = {"Steps": 20, "Seed": -1, "Size": "512x768", **more}
    quoted = {name: json.dumps(value) if name in more else value for name, value in written.items()}
    lines = [positive, *([f"Negative prompt: {negative}"] if negative else [])]
    text = "\n".join([*lines, ", ".join(f"{name}: {value}" for name, value in quoted.items())])
    assert parse_parameters(text) == Embedded("a1111", positive, negative, written)


@pytest.mark.parametrize(
    "text",
    [
        "a" * 900_000,
        " " * 900_000,
        "\n" * 900_000,
        "a\nSteps: 1, Seed: 1" + ", k: [" * 100_000,
        "Steps: 1, " * 90_000,
        'k: "' * 200_000,
        "Steps: 20, Seed: 1, Size: 8x8, " + "[0," * 900 + "1," * 150_000,
    ],
    ids=["word", "spaces", "lines", "brackets", "steps", "quotes", "arrays"],
)
@pytest.mark.parametrize("key", ["parameters", "Dream", "Comment"])
def test_hostile_text_takes_no_time(text: str, key: str):
    image = Image.new("RGB", (8, 8))
    image.info[key] = text + "x"
    started = time.monotonic()
    read_embedded(image)
    assert time.monotonic() - started < 3
