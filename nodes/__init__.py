"""The nodes, by the names that workflows know them by: a class is never renamed, a widget only appended."""

from __future__ import annotations

from . import comparing, files, interrogating, language, looking, wildcards

_NODES = {
    "PromptglassEncoder": (interrogating.Encoder, "CLIP Encoder (from host)"),
    "PromptglassInterrogate": (interrogating.Interrogate, "Interrogate"),
    "PromptglassCaption": (looking.Caption, "Caption"),
    "PromptglassTags": (looking.Tags, "Tags"),
    "PromptglassClassify": (comparing.Classify, "Classify"),
    "PromptglassPalette": (looking.Palette, "Palette"),
    "PromptglassEmbedded": (looking.EmbeddedPrompt, "Embedded prompt"),
    "PromptglassScore": (comparing.Score, "Score"),
    "PromptglassRefine": (language.Refine, "Refine with LLM"),
    "PromptglassDescribe": (language.Describe, "Describe with LLM"),
    "PromptglassLoadFolder": (files.LoadFolder, "Load images from folder"),
    "PromptglassSaveSidecar": (files.SaveSidecar, "Save sidecar"),
    "PromptglassAppendCaption": (files.AppendCaption, "Append to caption file"),
    "PromptglassWriteWildcards": (wildcards.WriteWildcards, "Write wildcards"),
    "PromptglassPreviewWildcard": (wildcards.PreviewWildcard, "Wildcard preview"),
}

NODE_CLASS_MAPPINGS = {name: node for name, (node, _) in _NODES.items()}
NODE_DISPLAY_NAME_MAPPINGS = {name: f"{title} · promptglass" for name, (_, title) in _NODES.items()}
