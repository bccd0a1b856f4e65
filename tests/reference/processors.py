"""What the image processors of transformers make of a small picture: writes tests/fixtures/processors.json.

    pip install -r tests/reference/requirements.txt; python tests/reference/processors.py

The picture is a formula, so that a test makes it too. Of each result nine values, evenly spread, and the sum are kept. A configuration that
transformers refuses is kept as refused.
"""
import json, os, random, tempfile, warnings

import numpy as np
from PIL import Image
from transformers import AutoImageProcessor, logging

warnings.filterwarnings("ignore")
logging.set_verbosity_error()
CLASSES = "ViT DeiT Beit Bit CLIP ChineseCLIP Siglip Blip ConvNext PoolFormer Levit MobileViT MobileNetV1 MobileNetV2 EfficientNet Perceiver Pvt Segformer DINOv3ViT".split()


def picture(width, height):
    y, x, c = np.mgrid[:height, :width, :3]
    return Image.fromarray(((x * 7 + y * 13 + c * 50 + x * y // 3) % 256).astype(np.uint8))


def configuration(name, draw):
    side = lambda: draw.randint(16, 40)
    j = {"image_processor_type": name + draw.choice(["ImageProcessor", "ImageProcessorFast"])}
    sizes = [{"height": side(), "width": side()}, {"shortest_edge": side()}, {"shortest_edge": 24, "longest_edge": draw.randint(24, 40)},
             {"max_height": side(), "max_width": side()}, side(), [side(), side()]]
    if draw.random() < 0.85:
        j["size"] = draw.choice(sizes[:2] if name in ("Perceiver", "ConvNext", "PoolFormer", "Levit") else sizes)
    for key, values, chance in [
        ("crop_size", [{"height": 20, "width": 23}, 18, [31, 22]], 0.9), ("do_center_crop", [True, False], 0.4), ("do_resize", [False, None], 0.1),
        ("resample", [0, 1, 2, 3] if name == "DINOv3ViT" else [0, 1, 2, 3, 4, 5, None], 0.6), ("do_normalize", [True, False, None], 0.3), ("do_rescale", [True, None], 0.2),
        ("image_mean", [[0.1, 0.5, 0.7], 0.3], 0.4), ("image_std", [[0.2, 0.5, 0.3], 0.25], 0.4), ("rescale_factor", [1 / 127.5], 0.2),
        ("do_pad", [True], 0.3), ("pad_size", [{"height": 60, "width": 70}], 0.9), ("crop_pct", [0.8, 0.95, None], 0.4),
        ("do_flip_channel_order", [True, False, None], 0.4), ("rescale_offset", [True, False], 0.4), ("include_top", [False, None], 0.4),
        ("do_convert_rgb", [True, None], 0.3), ("default_to_square", [True, False], 0.2), ("use_square_size", [True], 0.1)]:
        if draw.random() < chance:
            j[key] = draw.choice(values)
    return j


def main():
    draw, out = random.Random(7), []
    for name in CLASSES:
        for number in range(4):
            config, size = configuration(name, draw) if number else {"image_processor_type": name + "ImageProcessor"}, draw.choice([(48, 36), (30, 45), (41, 40)])
            with tempfile.TemporaryDirectory() as folder:
                json.dump(config, open(os.path.join(folder, "preprocessor_config.json"), "w"))
                try:
                    processor = AutoImageProcessor.from_pretrained(folder, backend="torchvision" if name == "DINOv3ViT" else "pil")
                    a = processor(picture(*size), return_tensors="np")["pixel_values"][0].astype(np.float64)
                    flat = a.ravel()
                    at = [i * (flat.size - 1) // 8 for i in range(9)]
                    found = {"size": list(a.shape[1:]), "sum": round(float(flat.sum()), 3), "values": [round(float(flat[i]), 5) for i in at]}
                except Exception as e:
                    found = {"refused": type(e).__name__}
            out.append({"config": config, "picture": list(size), **found})
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../fixtures/processors.json")
    with open(path, "w") as f:
        f.write("[\n" + ",\n".join(json.dumps(o) for o in out) + "\n]\n")
    print(len(out), "cases,", sum("refused" in o for o in out), "refused")


if __name__ == "__main__":
    main()
