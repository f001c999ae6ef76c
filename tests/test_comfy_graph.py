"""What a ComfyUI graph says its prompt was, for the families of graphs people share."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptglass.comfy_graph import MAX_INPUTS, read_graph
from promptglass.comfy_workflow import to_api


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs, "_meta": {"title": kind}}


def ksampler(positive: Any, negative: Any, latent: Any = ("latent", 0), **more: Any) -> dict[str, Any]:
    values = {
        "seed": 7,
        "steps": 20,
        "cfg": 6.5,
        "sampler_name": "euler",
        "scheduler": "normal",
        "denoise": 1.0,
    }
    links = {"model": ["model", 0], "positive": positive, "negative": negative, "latent_image": list(latent)}
    return node("KSampler", **{**values, **links, **more})


def encode(text: Any) -> dict[str, Any]:
    return node("CLIPTextEncode", text=text, clip=["model", 1])


def graph(positive: Any = ("pos", 0), negative: Any = ("neg", 0), **more: Any) -> dict[str, Any]:
    """The default workflow; `more` adds or replaces nodes."""
    return {
        "model": node("CheckpointLoaderSimple", ckpt_name="sd15.safetensors"),
        "pos": encode("a cat"),
        "neg": encode("ugly"),
        "latent": node("EmptyLatentImage", width=512, height=768, batch_size=1),
        "ks": ksampler(list(positive), list(negative)),
        "vae": node("VAEDecode", samples=["ks", 0], vae=["model", 2]),
        "save": node("SaveImage", images=["vae", 0], filename_prefix="ComfyUI"),
        **more,
    }


def texts(graph: dict[str, Any]) -> tuple[str, str]:
    found = read_graph(graph)
    assert found is not None
    return found.positive, found.negative


def test_default_workflow_gives_texts_and_settings():
    found = read_graph(graph())
    assert found is not None
    assert (found.positive, found.negative) == ("a cat", "ugly")
    assert found.settings == {
        "seed": 7,
        "steps": 20,
        "cfg": 6.5,
        "sampler_name": "euler",
        "scheduler": "normal",
        "denoise": 1.0,
        "ckpt_name": "sd15.safetensors",
        "width": 512,
        "height": 768,
    }


def test_roles_follow_links_not_order_or_titles():
    swapped = graph(positive=("neg", 0), negative=("pos", 0))
    assert texts(swapped) == ("ugly", "a cat")


PASS_THROUGH = {
    "combine": (
        {"mid": node("ConditioningCombine", conditioning_1=["pos", 0], conditioning_2=["two", 0])},
        "a cat\na hat",
    ),
    "concat": (
        {"mid": node("ConditioningConcat", conditioning_to=["pos", 0], conditioning_from=["two", 0])},
        "a cat\na hat",
    ),
    "average": (
        {
            "mid": node(
                "ConditioningAverage",
                conditioning_to=["pos", 0],
                conditioning_from=["two", 0],
                conditioning_to_strength=0.5,
            )
        },
        "a cat\na hat",
    ),
    "the same text twice": (
        {"mid": node("ConditioningCombine", conditioning_1=["pos", 0], conditioning_2=["pos", 0])},
        "a cat",
    ),
    "controlnet": (
        {"mid": node("ControlNetApply", conditioning=["pos", 0], control_net=["cn", 0], image=["img", 0])},
        "a cat",
    ),
    "area": ({"mid": node("ConditioningSetArea", conditioning=["pos", 0], width=64, height=64)}, "a cat"),
    "timesteps": ({"mid": node("ConditioningSetTimestepRange", conditioning=["pos", 0], end=0.1)}, "a cat"),
    "guidance": ({"mid": node("FluxGuidance", conditioning=["pos", 0], guidance=3.5)}, "a cat"),
    "zeroed": ({"mid": node("ConditioningZeroOut", conditioning=["pos", 0])}, "a cat"),
    "reroute": ({"mid": node("Reroute (rgthree)", **{"": ["pos", 0]})}, "a cat"),
    "any switch": (
        {"mid": node("Any Switch (rgthree)", any_01=["gone", 0], any_02=["two", 0], any_03=["pos", 0])},
        "a hat",
    ),
    "numbered switch": (
        {"mid": node("ImpactSwitch", select=2, input1=["pos", 0], input2=["two", 0], sel_mode=False)},
        "a hat",
    ),
    "context": (
        {
            "mid": node("Context (rgthree)", base_ctx=["ctx", 0]),
            "ctx": node("Context (rgthree)", positive=["pos", 0], negative=["neg", 0]),
        },
        "a cat",
    ),
}


@pytest.mark.parametrize(("nodes", "positive"), PASS_THROUGH.values(), ids=PASS_THROUGH)
def test_conditioning_nodes_pass_their_texts_on(nodes: dict[str, Any], positive: str):
    two = {"two": encode("a hat"), "cn": node("ControlNetLoader"), "img": node("LoadImage", image="x.png")}
    assert texts(graph(positive=("mid", 0), **two, **nodes)) == (positive, "ugly")


def test_controlnet_advanced_keeps_the_roles_apart():
    links = {"positive": ["pos", 0], "negative": ["neg", 0], "control_net": ["cn", 0], "strength": 1.0}
    both = graph(positive=("cn", 0), negative=("cn", 1), cn=node("ControlNetApplyAdvanced", **links))
    assert texts(both) == ("a cat", "ugly")


def test_zeroed_positive_is_no_negative():
    zeroed = graph(negative=("zero", 0), zero=node("ConditioningZeroOut", conditioning=["pos", 0]))
    assert texts(zeroed) == ("a cat", "")


TEXT_NODES: dict[str, tuple[dict[str, Any], str]] = {
    "primitive": ({"t": node("PrimitiveStringMultiline", value="a dog")}, "a dog"),
    "core concat": (
        {"t": node("StringConcatenate", string_a="a dog", string_b=["u", 0], delimiter=" in ")},
        "a dog in rain",
    ),
    "was concat": (
        {
            "t": node(
                "Text Concatenate", delimiter=", ", clean_whitespace="true", text_a="a dog", text_c=["u", 0]
            )
        },
        "a dog, rain",
    ),
    "concat without delimiter": ({"t": node("ConcatString", text1="a dog", text2="rain")}, "a dog rain"),
    "one text in two places": ({"t": node("Concat", text1=["u", 0], text2=["u", 0])}, "rain rain"),
    "shown text": ({"t": node("ShowText|pysssss", text=["u", 0], text_0="rain")}, "rain"),
    "impact wildcard": (
        {
            "t": node(
                "ImpactWildcardProcessor", wildcard_text="a __pet__", populated_text="a dog", mode="fixed"
            )
        },
        "a dog",
    ),
    "styler": (
        {"t": node("SDXLPromptStyler", text_positive="a dog", text_negative="cats", style="base")},
        "a dog",
    ),
    "reroute": ({"t": node("Reroute", **{"": ["u", 0]})}, "rain"),
    "what an LLM wrote is not in the file": (
        {"t": node("OllamaGenerate", prompt="Describe", temperature=0.7)},
        "",
    ),
    "nor what a tagger wrote": ({"t": node("WD14Tagger", image=["latent", 0], text_input="tags")}, ""),
}


@pytest.mark.parametrize(("nodes", "positive"), TEXT_NODES.values(), ids=TEXT_NODES)
def test_texts_are_followed_through_string_nodes(nodes: dict[str, Any], positive: str):
    rain = node("PrimitiveString", value="rain")
    assert texts(graph(pos=encode(["t", 0]), u=rain, **nodes)) == (positive, "ugly")


ENCODERS = {
    "sdxl, one text": (node("CLIPTextEncodeSDXL", clip=["model", 1], text_g="a", text_l="a", width=1), "a"),
    "sdxl, two": (node("CLIPTextEncodeSDXL", clip=["model", 1], text_g="a", text_l="b"), "a\nb"),
    "sd3": (
        node("CLIPTextEncodeSD3", clip=["model", 1], clip_l="a", clip_g="a", t5xxl="b", empty_padding="none"),
        "a\nb",
    ),
    "flux": (node("CLIPTextEncodeFlux", clip=["model", 1], clip_l="", t5xxl="a", guidance=3.5), "a"),
    "bnk": (
        node(
            "BNK_CLIPTextEncodeAdvanced",
            clip=["model", 1],
            text="a",
            token_normalization="none",
            weight_interpretation="comfy",
        ),
        "a",
    ),
    "smz": (
        node("smZ CLIPTextEncode", clip=["model", 1], text="a", parser="A1111", text_g="", text_l=""),
        "a",
    ),
    "lumina": (
        node("CLIPTextEncodeLumina2", clip=["model", 1], system_prompt="superior", user_prompt="a"),
        "a",
    ),
    "qwen edit": (
        node("TextEncodeQwenImageEdit", clip=["model", 1], vae=["model", 2], image=["latent", 0], prompt="a"),
        "a",
    ),
    "wan": (node("WanVideoTextEncode", positive_prompt="a", negative_prompt="b", t5=["model", 0]), "a"),
    "unknown pack, both roles": (
        node("MyPairEncoder", clip=["model", 1], my_negative_prompt="b", my_prompt="a"),
        "a",
    ),
    "unknown pack": (node("MyPackEncoder", clip=["model", 1], my_prompt="a", parser="A1111"), "a"),
}


@pytest.mark.parametrize(("encoder", "positive"), ENCODERS.values(), ids=ENCODERS)
def test_encoders_of_every_family(encoder: dict[str, Any], positive: str):
    assert texts(graph(pos=encoder)) == (positive, "ugly")


def flux(guider: dict[str, Any]) -> dict[str, Any]:
    return {
        "unet": node("UNETLoader", unet_name="flux1-dev.safetensors", weight_dtype="default"),
        "pos": encode("a cat"),
        "neg": encode("ugly"),
        "g": node("FluxGuidance", conditioning=["pos", 0], guidance=3.5),
        "guider": guider,
        "noise": node("RandomNoise", noise_seed=99),
        "select": node("KSamplerSelect", sampler_name="euler"),
        "sigmas": node("BasicScheduler", model=["unet", 0], scheduler="simple", steps=28, denoise=1.0),
        "latent": node("EmptySD3LatentImage", width=1024, height=1024, batch_size=1),
        "ks": node(
            "SamplerCustomAdvanced",
            noise=["noise", 0],
            guider=["guider", 0],
            sampler=["select", 0],
            sigmas=["sigmas", 0],
            latent_image=["latent", 0],
        ),
        "vae": node("VAEDecode", samples=["ks", 0]),
        "save": node("SaveImage", images=["vae", 0]),
    }


def test_flux_through_a_basic_guider():
    found = read_graph(flux(node("BasicGuider", model=["unet", 0], conditioning=["g", 0])))
    assert found == (
        "a cat",
        "",
        {
            "noise_seed": 99,
            "sampler_name": "euler",
            "scheduler": "simple",
            "steps": 28,
            "denoise": 1.0,
            "guidance": 3.5,
            "unet_name": "flux1-dev.safetensors",
            "width": 1024,
            "height": 1024,
        },
    )


def test_cfg_guider_has_both_roles():
    guider = node("CFGGuider", model=["unet", 0], positive=["g", 0], negative=["neg", 0], cfg=4.0)
    found = read_graph(flux(guider))
    assert found is not None
    assert (found.positive, found.negative, found.settings["cfg"]) == ("a cat", "ugly", 4.0)


def test_sampler_custom():
    custom = node(
        "SamplerCustom",
        model=["model", 0],
        noise_seed=5,
        cfg=1.0,
        positive=["pos", 0],
        negative=["neg", 0],
        sampler=["select", 0],
        sigmas=["sigmas", 0],
        latent_image=["latent", 0],
    )
    turbo = node("SDTurboScheduler", steps=1)
    found = read_graph(graph(ks=custom, sigmas=turbo, select=node("KSamplerSelect", sampler_name="lcm")))
    assert found is not None
    assert (found.positive, found.negative) == ("a cat", "ugly")
    assert (found.settings["steps"], found.settings["sampler_name"]) == (1, "lcm")


def test_efficiency_loader_holds_its_own_texts():
    loader = node(
        "Efficient Loader",
        ckpt_name="x.ckpt",
        positive="a cat",
        negative="ugly",
        lora_name="None",
        empty_latent_width=640,
        empty_latent_height=512,
    )
    found = read_graph({"1": loader, "2": ksampler(["1", 1], ["1", 2], ("1", 3), model=["1", 0])})
    assert found is not None
    assert (found.positive, found.negative) == ("a cat", "ugly")
    assert (found.settings["ckpt_name"], found.settings["width"]) == ("x.ckpt", 640)


def test_pipes_carry_both_roles():
    pipe = node("ToBasicPipe", model=["model", 0], positive=["pos", 0], negative=["neg", 0])
    sampler = node(
        "ImpactKSamplerBasicPipe", basic_pipe=["pipe", 0], seed=3, steps=9, latent_image=["latent", 0]
    )
    found = read_graph(graph(pipe=pipe, ks=sampler))
    assert found is not None
    assert (found.positive, found.negative) == ("a cat", "ugly")
    assert found.settings["ckpt_name"] == "sd15.safetensors"


def test_loras_of_all_loaders_are_listed():
    found = read_graph(
        graph(
            ks=ksampler(["pos", 0], ["neg", 0], model=["lora", 0]),
            lora=node("LoraLoader", model=["power", 0], lora_name="a.safetensors", strength_model=0.8),
            power=node(
                "Power Lora Loader (rgthree)",
                model=["model", 0],
                lora_1={"on": True, "lora": "b.safetensors", "strength": 1},
                lora_2={"on": False, "lora": "off.safetensors", "strength": 1},
            ),
        )
    )
    assert found is not None
    assert found.settings["loras"] == [
        {"lora_name": "a.safetensors", "strength_model": 0.8},
        {"lora_name": "b.safetensors", "strength_model": 1},
    ]
    assert found.settings["ckpt_name"] == "sd15.safetensors"


def test_linked_seed_and_size_are_resolved():
    found = read_graph(
        graph(
            ks=ksampler(["pos", 0], ["neg", 0], seed=["s", 0]),
            s=node("Seed (rgthree)", seed=123),
            latent=node("EmptyLatentImage", width=["w", 0], height=640),
            w=node("PrimitiveInt", value=832),
        )
    )
    assert found is not None
    assert (found.settings["seed"], found.settings["width"], found.settings["height"]) == (123, 832, 640)


def test_saved_picture_beats_other_samplers():
    other = {"0": ksampler(["q", 0], ["neg", 0]), "q": encode("never saved")}
    assert texts({**other, **graph()}) == ("a cat", "ugly")


def test_preview_is_taken_when_nothing_is_saved_and_saved_before_previewed():
    preview = {
        "0": ksampler(["q", 0], ["neg", 0]),
        "00": node("PreviewImage", images=["0", 0]),
        "q": encode("a draft"),
    }
    assert texts(graph(**preview)) == ("a cat", "ugly")
    unsaved = graph(**preview)
    del unsaved["save"]
    assert texts(unsaved) == ("a draft", "ugly")


def test_first_pass_beats_upscale_and_face_passes():
    face = node(
        "FaceDetailer",
        image=["vae2", 0],
        seed=1,
        steps=5,
        cfg=2.0,
        positive=["facepos", 0],
        negative=["neg", 0],
    )
    found = read_graph(
        graph(
            facepos=encode("a face"),
            up=node("LatentUpscale", samples=["ks", 0], width=2048, height=2048),
            hires=ksampler(["pos", 0], ["neg", 0], ("up", 0), denoise=0.4),
            vae2=node("VAEDecode", samples=["hires", 0]),
            face=face,
            save=node("SaveImage", images=["face", 0]),
        )
    )
    assert found is not None
    assert (found.positive, found.settings["denoise"], found.settings["width"]) == ("a cat", 1.0, 512)


def test_sampler_of_a_reference_picture_is_not_the_one():
    links = {"positive": ["pos", 0], "negative": ["neg", 0], "image": ["0", 0]}
    reference = {"0": ksampler(["q", 0], ["neg", 0]), "q": encode("a reference")}
    guided = graph(positive=("cn", 0), negative=("cn", 1), cn=node("ControlNetApplyAdvanced", **links))
    assert texts({**reference, **guided}) == ("a cat", "ugly")


def test_graph_without_prompt_is_none():
    assert read_graph({}) is None
    assert (
        read_graph({"1": node("LoadImage", image="x.png"), "2": node("SaveImage", images=["1", 0])}) is None
    )
    assert read_graph(graph(pos=encode(""), neg=encode(""))) is None
    assert read_graph({"1": "junk", "2": {"class_type": 3}, "3": node("SaveImage", images=["9", 0])}) is None


def test_cycles_and_dangling_links_end():
    assert read_graph(graph(pos=node("Reroute", **{"": ["pos", 0]}), neg=encode(["neg", 0]))) is None
    assert texts(graph(negative=("gone", 0))) == ("a cat", "")
    loop = graph(latent=node("VAEEncode", pixels=["vae", 0]))
    assert texts(loop) == ("a cat", "ugly")


def test_text_doubled_a_hundred_times_ends_soon():
    doubled = {f"d{i}": node("Concat", text1=[f"d{i + 1}", 0], text2=[f"d{i + 1}", 0]) for i in range(100)}
    started = time.monotonic()
    read_graph(graph(pos=encode(["d0", 0]), d100=node("PrimitiveString", value="x" * 1000), **doubled))
    assert time.monotonic() - started < 2


def test_large_hostile_graph_ends_soon():
    many = {str(i): ksampler([str(i + 1), 0], [str(i + 2), 0], (str(i + 3), 0)) for i in range(10_000)}
    started = time.monotonic()
    read_graph(many)
    assert time.monotonic() - started < 5


def fan(kind: str, name: str, value: Any, count: int, /, **more: Any) -> dict[str, Any]:
    return node(kind, **{f"{name}{i}": value for i in range(count)}, **more)


def hostile_options() -> dict[str, Any]:
    """Every option of every node in reach leads to one node with no end of inputs."""
    names = ("seed", "steps", "cfg", "sampler_name", "scheduler", "denoise", "add_noise", "max_shift")
    options: dict[str, Any] = {name: ["wide", 0] for name in names}
    chain = {f"g{i}": node("Reroute", guider=[f"g{i + 1}", 0], **options) for i in range(2_000)}
    return graph(
        ks=ksampler(["pos", 0], ["neg", 0], guider=["g0", 0]), wide=fan("Wide", "i", 1, 90_000), **chain
    )


def hostile_texts() -> dict[str, Any]:
    """Many samplers, whose texts are one wide node that joins wide nodes."""
    wide = {f"w{i}": fan("Join", "text", [f"w{i + 1}", 0], 900) for i in range(60)}
    samplers = {f"s{i}": ksampler(["w0", 0], ["w1", 0]) for i in range(60)}
    return {**wide, **samplers}


def hostile_lengths() -> dict[str, Any]:
    """Encoders of long texts that want to be stripped and compared."""
    joins = {f"w{i}": fan("Encoder", "text", ["long", 0], 900, clip=["long", 0]) for i in range(60)}
    both = node("Join", **{f"text{i}": [f"w{i}", 0] for i in range(60)})
    samplers = {f"s{i}": ksampler(["both", 0], ["both", 0]) for i in range(60)}
    return {**joins, **samplers, "both": both, "long": node("String", value=" x" * 49_000)}


def hostile_names() -> dict[str, Any]:
    guider = node("Guider", **{"positive": "", "p" * 1_400_000: 1})
    return {"g": guider, **{str(i): node("Sampler", guider=["g", 0]) for i in range(100)}}


def hostile_guiders() -> dict[str, Any]:
    chain = {f"g{i}": fan("Reroute", "i", ["z", 0], 900, value=[f"g{i + 1}", 0]) for i in range(250)}
    return {"z": node("String"), **chain, **{str(i): node("Sampler", guider=["g0", 0]) for i in range(100)}}


@pytest.mark.parametrize(
    "make", [hostile_options, hostile_texts, hostile_lengths, hostile_names, hostile_guiders]
)
def test_graph_that_multiplies_its_own_size_ends_soon(make: Any):
    hostile = make()
    assert 800_000 < len(json.dumps(hostile)) < 5_000_000
    started = time.monotonic()
    read_graph(hostile)
    assert time.monotonic() - started < 2


def test_inputs_of_a_node_beyond_the_limit_are_not_read():
    within = fan("Join", "text", "", MAX_INPUTS - 1, text_last="a dog")
    assert texts(graph(pos=encode(["t", 0]), t=within)) == ("a dog", "ugly")
    beyond = fan("Join", "text", "", MAX_INPUTS, text_last="a dog")
    assert texts(graph(pos=encode(["t", 0]), t=beyond)) == ("", "ugly")


# The UI graph

WORKFLOW: dict[str, Any] = {
    "version": 0.4,
    "nodes": [
        {
            "id": 3,
            "type": "KSampler",
            "mode": 0,
            "inputs": [
                {"name": "model", "type": "MODEL", "link": 1},
                {"name": "positive", "type": "CONDITIONING", "link": 4},
                {"name": "negative", "type": "CONDITIONING", "link": 6},
                {"name": "latent_image", "type": "LATENT", "link": 2},
            ],
            "widgets_values": [42, "randomize", 25, 8, "dpmpp_2m", "karras", 1],
        },
        {"id": 4, "type": "CheckpointLoaderSimple", "mode": 0, "widgets_values": ["v1.ckpt"]},
        {"id": 5, "type": "EmptyLatentImage", "mode": 0, "widgets_values": [512, 640, 1]},
        {
            "id": 6,
            "type": "CLIPTextEncode",
            "mode": 0,
            "inputs": [{"name": "clip", "type": "CLIP", "link": 3}],
            "widgets_values": ["a cat"],
        },
        {
            "id": 7,
            "type": "CLIPTextEncode",
            "mode": 0,
            "inputs": [
                {"name": "clip", "type": "CLIP", "link": 5},
                {"name": "text", "type": "STRING", "link": 9, "widget": {"name": "text"}},
            ],
            "widgets_values": ["stale"],
        },
        {"id": 8, "type": "VAEDecode", "mode": 0, "inputs": [{"name": "samples", "link": 7}]},
        {"id": 9, "type": "SaveImage", "mode": 0, "inputs": [{"name": "images", "link": 8}]},
        {"id": 10, "type": "PrimitiveNode", "mode": 0, "widgets_values": ["ugly", "fixed"]},
        {"id": 11, "type": "Note", "mode": 0, "widgets_values": ["read me"]},
    ],
    "links": [
        [1, 4, 0, 3, 0, "MODEL"],
        [2, 5, 0, 3, 3, "LATENT"],
        [3, 4, 1, 6, 0, "CLIP"],
        [4, 6, 0, 3, 1, "CONDITIONING"],
        [5, 4, 1, 7, 0, "CLIP"],
        [6, 7, 0, 3, 2, "CONDITIONING"],
        [7, 3, 0, 8, 0, "LATENT"],
        [8, 8, 0, 9, 0, "IMAGE"],
        [9, 10, 0, 7, 1, "STRING"],
    ],
}


def with_nodes(*changed: dict[str, Any]) -> dict[str, Any]:
    by_id = {each["id"]: each for each in (*WORKFLOW["nodes"], *changed)}
    return {**WORKFLOW, "nodes": list(by_id.values())}


def test_ui_graph_reads_like_the_api_graph():
    found = read_graph(to_api(WORKFLOW))
    assert found is not None
    assert (found.positive, found.negative) == ("a cat", "ugly")
    assert found.settings == {
        "seed": 42,
        "steps": 25,
        "cfg": 8,
        "sampler_name": "dpmpp_2m",
        "scheduler": "karras",
        "denoise": 1,
        "ckpt_name": "v1.ckpt",
        "width": 512,
        "height": 640,
    }


def test_ui_graph_with_links_as_objects():
    names = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    links = [dict(zip(names, link, strict=True)) for link in WORKFLOW["links"]]
    assert texts(to_api({**WORKFLOW, "links": links})) == ("a cat", "ugly")


def test_ui_widgets_named_by_the_frontend_or_by_themselves():
    listed = {
        "id": 6,
        "type": "UnknownEncoder",
        "inputs": [
            {"name": "clip", "link": 3},
            {"name": "parser", "link": None, "widget": {"name": "parser"}},
            {"name": "my_text", "link": None, "widget": {"name": "my_text"}},
        ],
        "widgets_values": ["A1111", "a dog"],
    }
    assert texts(to_api(with_nodes(listed)))[0] == "a dog"
    named = {"id": 6, "type": "UnknownEncoder", "inputs": [{"name": "clip", "link": 3}]}
    assert texts(to_api(with_nodes({**named, "widgets_values": {"text": "a cow"}})))[0] == "a cow"
    assert texts(to_api(with_nodes({**named, "widgets_values": [0.5, "a hen", "x"]})))[0] == "a hen"


def test_ui_nodes_that_did_not_run_say_nothing():
    muted = {**WORKFLOW["nodes"][3], "mode": 2}
    assert texts(to_api(with_nodes(muted))) == ("", "ugly")
    sampler = {**WORKFLOW["nodes"][0], "mode": 4}
    assert read_graph(to_api(with_nodes(sampler))) is None


def test_ui_get_and_set_nodes_are_links():
    setter = {"id": 20, "type": "SetNode", "inputs": [{"name": "C", "link": 20}], "widgets_values": ["p"]}
    getter = {"id": 21, "type": "GetNode", "widgets_values": ["p"]}
    changed = with_nodes(setter, getter)
    links = [[20, 6, 0, 20, 0, "*"], [4, 21, 0, 3, 1, "*"]]
    changed["links"] = [link for link in WORKFLOW["links"] if link[0] != 4] + links
    assert texts(to_api(changed)) == ("a cat", "ugly")


# Any JSON

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)
LINK = st.tuples(st.sampled_from("abcdef"), st.integers(0, 3)).map(list)
INPUT_NAMES = [
    "positive", "negative", "text", "clip", "conditioning", "guider", "seed", "model", "latent_image",
    "images", "pipe", "select", "input1", "value", "width", "height", "lora_name", "",
]  # fmt: skip
INPUTS = st.dictionaries(st.sampled_from(INPUT_NAMES), LINK | JSON)
KINDS = st.sampled_from(["SaveImage", "KSampler", "CLIPTextEncode", "Any Switch", "ConditioningZeroOut"])
GRAPHS = st.dictionaries(
    st.sampled_from("abcdef"),
    st.fixed_dictionaries({"class_type": KINDS, "inputs": INPUTS}) | JSON,
)
SLOTS = st.fixed_dictionaries({"name": JSON, "link": st.integers(0, 4)}, optional={"widget": JSON})
UI_NODE = st.fixed_dictionaries(
    {"id": st.integers(0, 5) | JSON, "type": KINDS | JSON},
    optional={"inputs": st.lists(SLOTS | JSON) | JSON, "widgets_values": JSON, "mode": st.integers(0, 4)},
)
UI_LINK = st.lists(st.integers(0, 5), max_size=6) | JSON


@settings(max_examples=300)
@given(GRAPHS)
def test_any_graph_is_read_without_error(any_graph: dict[str, Any]):
    found = read_graph(any_graph)
    assert found is None or found.positive.strip() or found.negative.strip()


@settings(max_examples=200)
@given(
    st.fixed_dictionaries({}, optional={"nodes": st.lists(UI_NODE) | JSON, "links": st.lists(UI_LINK) | JSON})
)
def test_any_workflow_is_read_without_error(workflow: dict[str, Any]):
    read_graph(to_api(workflow))
