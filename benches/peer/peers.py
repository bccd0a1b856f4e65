"""The peers' side: one explanation as a script, as people write them with transformers, captum and pytorch-grad-cam.

    python peers.py METHOD MODEL INPUT [--repeat N] [--threads N]

Prints, as JSON, the seconds of each repetition of the computation alone (input prepared, model loaded).
"""

import argparse
import json
import time

parser = argparse.ArgumentParser()
parser.add_argument("method")
parser.add_argument("model")
parser.add_argument("input")
parser.add_argument("--repeat", type=int, default=1)
parser.add_argument("--threads", type=int, default=2)
args = parser.parse_args()

import torch  # noqa: E402  (the time to import is part of a process)
from transformers import (  # noqa: E402
    AutoConfig,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
)

torch.set_num_threads(args.threads)
config = AutoConfig.from_pretrained(args.model)
text = config.model_type == "bert"
auto = AutoModelForSequenceClassification if text else AutoModelForImageClassification
model = auto.from_pretrained(args.model, attn_implementation="eager").eval().requires_grad_(False)
if text:
    from transformers import AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(args.model)(open(args.input).read().strip(), return_tensors="pt")
    inputs = {"input_ids": tokens["input_ids"], "attention_mask": tokens["attention_mask"]}
    layers = model.bert.encoder.layer
else:
    from PIL import Image
    from transformers import AutoImageProcessor

    processor = AutoImageProcessor.from_pretrained(args.model)
    inputs = {"pixel_values": processor(Image.open(args.input).convert("RGB"), return_tensors="pt")["pixel_values"]}
    layers = model.vit.layers if hasattr(model.vit, "layers") else model.vit.encoder.layer


def logits(pixels):
    return model(pixel_values=pixels).logits


def attention_gradients():
    embedded = inputs["pixel_values"].clone().requires_grad_() if not text else None
    if text:
        ids = inputs["input_ids"]
        words = model.bert.embeddings.word_embeddings(ids).requires_grad_()
        out = model(inputs_embeds=words, attention_mask=inputs["attention_mask"], output_attentions=True)
    else:
        out = model(pixel_values=embedded, output_attentions=True)
    top = out.logits[0].argmax()
    return out.attentions, torch.autograd.grad(out.logits[0, top], out.attentions)


def gae():
    attentions, gradients = attention_gradients()
    n = attentions[0].shape[-1]
    r = torch.eye(n)
    for a, g in zip(attentions, gradients):
        r = r + (a[0] * g[0]).clamp(min=0).mean(0) @ r
    return r[0]


@torch.no_grad()
def rollout():
    attentions = model(**inputs, output_attentions=True).attentions
    n = attentions[0].shape[-1]
    r = torch.eye(n)
    for a in attentions:
        a = a[0].mean(0) + torch.eye(n)
        r = (a / a.sum(-1, keepdim=True)) @ r
    return r[0]


def attention():
    with torch.no_grad():
        return model(**inputs, output_attentions=True).attentions[-1][0, :, 0].mean(0)


def grid(states):
    states = states[:, 1:]
    side = int(states.shape[1] ** 0.5)
    return states.transpose(1, 2).reshape(states.shape[0], -1, side, side)


def gradcam():
    from pytorch_grad_cam import GradCAM

    with GradCAM(Logits(), [layers[-1].layernorm_before], reshape_transform=grid) as cam:
        return cam(inputs["pixel_values"].clone().requires_grad_(), targets=None)


def scorecam():
    from pytorch_grad_cam import ScoreCAM

    with ScoreCAM(Logits(), [layers[-1].layernorm_before], reshape_transform=grid) as cam:
        return cam(inputs["pixel_values"], targets=None)


class Logits(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.model = model

    def forward(self, pixels):
        return logits(pixels)


def integrated_gradients():
    if text:
        from captum.attr import LayerIntegratedGradients

        forward = lambda ids, mask: model(input_ids=ids, attention_mask=mask).logits  # noqa: E731
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        top = int(forward(ids, mask)[0].argmax())
        ig = LayerIntegratedGradients(forward, model.bert.embeddings.word_embeddings)
        return ig.attribute(ids, torch.zeros_like(ids), target=top, additional_forward_args=(mask,), n_steps=32, internal_batch_size=8)
    from captum.attr import IntegratedGradients

    pixels = inputs["pixel_values"]
    top = int(logits(pixels)[0].argmax())
    return IntegratedGradients(logits).attribute(pixels, target=top, n_steps=32, internal_batch_size=8)


def smoothgrad():
    from captum.attr import NoiseTunnel, Saliency

    pixels = inputs["pixel_values"]
    top = int(logits(pixels)[0].argmax())
    return NoiseTunnel(Saliency(logits)).attribute(pixels, nt_type="smoothgrad", nt_samples=32, nt_samples_batch_size=8, stdevs=0.1, target=top)


def occlusion():
    from captum.attr import Occlusion

    pixels = inputs["pixel_values"]
    top = int(logits(pixels)[0].argmax())
    with torch.no_grad():
        return Occlusion(logits).attribute(pixels, (3, 16, 16), (3, 16, 16), target=top, perturbations_per_eval=8)


run = globals()[args.method.replace("-", "_")]
seconds = []
for _ in range(args.repeat):
    start = time.perf_counter()
    run()
    seconds.append(time.perf_counter() - start)
print(json.dumps({"seconds": seconds}))
