"""Fixtures of models of two towers, a picture's and a text's: the embeddings, their logits and the gradient of attention in both.

    python tests/reference/towers.py [--check] [CASE ...]     all cases

A case is a folder tests/fixtures/towers/CASE/ (`--check` compares instead of writing):

* `model/`: a tiny random checkpoint as `save_pretrained` writes it, with its tokenizer and its image processor;
* `inputs.safetensors`: `pixel_values` of two pictures, `input_ids` and `attention_mask` of the prompts, padded on the right, and both
  with `classes.` in front for the template filled with each of the classes;
* `expected.safetensors`, computed in float64 from the float32 weights: `text_embeds`, `image_embeds` (of length 1), `logits_per_image`
  [pictures, prompts] (with scale and bias), `classes.logits_per_image`. Of the vision tower `hidden.l` (what block l reads; the last one is
  what the last block gives, before any final norm), `attention.l` and `attention_grad.l`, of the sum over pictures i of
  logits_per_image[i, targets[i]]; of the text tower `text.hidden.l`, `text.attention.l`, `text.attention_grad.l`, of the sum over prompts
  j of logits_per_image[0, j] (each prompt is explained for picture 0). Where the vision tower pools with attention also
  `pool.attention` and `pool.attention_grad` [pictures, heads, 1, patches], of the vision tower's sum;
* `case.json`: texts, tokens, targets, sizes, `f32_error` (how far the unmodified float32 model is from that) and `notes`.

Rows of attention that belong to padding are as the model has them. Making a case stops when the float32 model, a prompt without padding,
the reloaded folder or the tokenizer.json alone disagree.
"""
from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import re
import shutil
import string
import sys
import tempfile
import time
from dataclasses import dataclass, field
from typing import Callable

import torch
import transformers as tf
from safetensors.torch import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn

from cases import IMAGE_MEAN, IMAGE_STD, wordpieces
from families import IMAGE, PATCH, SIZES, Case, Exact, differences, pixels, randomise
from model import F32, F64

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../fixtures/towers")
WORDS = "a photo of the cat dog bird quiet very good red".split()
PROMPTS = ("a photo of a cat", "A quiet dog, very good", "birds", "the red car")


# --------------------------------------------------------------------------- tokenizers
def clip():
    """Merges that spell each word from its left; <|endoftext|> has the highest id."""
    merges = {}
    for word in WORDS:
        parts = [*word[:-1], word[-1] + "</w>"]
        merges |= {("".join(parts[:i]), parts[i]): None for i in range(1, len(parts))}
    signs = string.ascii_lowercase + string.digits + ",.!?'"
    vocab = [*signs, *(c + "</w>" for c in signs), *(a + b for a, b in merges), "<|startoftext|>", "<|endoftext|>"]
    return tf.CLIPTokenizer(vocab={w: i for i, w in enumerate(vocab)}, merges=list(merges), model_max_length=24)


def chinese():
    vocab = [*wordpieces(), "photo", "red", *"一张猫狗鸟的照片"]
    return tf.BertTokenizerFast(vocab={w: i for i, w in enumerate(vocab)}, model_max_length=24)


def siglip():
    """The class transformers has for SigLIP needs sentencepiece: here its steps in the form of a tokenizer.json."""
    words = [("▁" + w, -3 - i / 16) for i, w in enumerate(WORDS)] + [("▁", -5.0)]
    letters = [(c, -7 - i / 16) for i, c in enumerate(string.ascii_lowercase)]
    t = Tokenizer(models.Unigram([(w, 0.0) for w in ("<pad>", "</s>", "<unk>")] + words + letters, unk_id=2))
    t.normalizer = normalizers.Sequence([
        normalizers.Lowercase(), normalizers.Replace(Regex(r"[!-/:-@\[-`{-~]"), ""), normalizers.Replace(Regex(r"\s+"), " "),
        normalizers.Strip()])
    t.pre_tokenizer, t.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    t.post_processor = processors.TemplateProcessing(single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)])
    special = {k: AddedToken(w, lstrip=True, rstrip=True, normalized=False, special=True)
               for k, w in (("eos_token", "</s>"), ("pad_token", "</s>"), ("unk_token", "<unk>"))}
    named = type("SiglipTokenizer", (tf.PreTrainedTokenizerFast,), {})
    return named(tokenizer_object=t, **special, model_max_length=12, model_input_names=["input_ids"])


# --------------------------------------------------------------------------- the table
@dataclass(frozen=True)
class Towers:
    """How a case is made."""
    seed: int
    name: str                                     # of its classes in transformers
    tokenizer: Callable
    text: dict = field(default_factory=dict)      # what its text_config says beyond the sizes
    both: dict = field(default_factory=dict)      # what the config around both says, and both as well
    logits: dict = field(default_factory=dict)    # parameters with a given value
    prompts: tuple = PROMPTS
    template: str = "a photo of a {}"
    classes: tuple = ("cat", "dog", "red bird")
    prefix: int = 1                               # tokens before the first patch
    masked: bool = True                           # padded to the longest and masked; or to model_max_length, and seen
    rename: tuple = ()


EYES = (
    "Vision: as clip-image of the families (patch convolution without bias, class_embedding, position_embedding, pre_layrnorm, pre-norm "
    "blocks, quick_gelu, eps 1e-5), then post_layernorm on the class token alone and visual_projection (no bias). ")
LOGITS = "Embeddings are divided by their length; logits = exp(logit_scale) * cosine, logit_scale is one number (0 dimensions)."
SCALED, SCALE = dict(projection_dim=20), dict(logit_scale=2.6592)

TOWERS = {
    "clip": Towers(61000, "CLIP", clip, {}, SCALED, SCALE),
    "chinese_clip": Towers(
        62000, "ChineseCLIP", chinese, {}, SCALED, SCALE, ("a photo of a cat", "一张猫的照片", "A quiet dog, very good!", "狗"),
        "一张{}的照片", ("猫", "狗", "鸟")),
    "siglip": Towers(
        63000, "Siglip", siglip, dict(max_position_embeddings=12, projection_size=24), {},
        dict(logit_scale=math.log(10), logit_bias=-1.5), prefix=0, masked=False),
}

NOTES = {
    "clip": EYES + (
        "Text: token_embedding + position_embedding (counted from 0, no norm), pre-norm blocks, quick_gelu, eps 1e-5, final_layer_norm; "
        "row i sees the columns up to i that are not padding. Pooled: the first token that is eos_token_id of text_config, behind "
        "final_layer_norm, then text_projection (no bias). With eos_token_id 2 (older configs) it is the first of the tokens with the "
        "highest id instead: the same here. Padding is <|endoftext|> again, whatever pad_token_id of text_config is; masked or not, it "
        "changes no embedding, as it stands behind what is pooled. ") + LOGITS,
    "chinese_clip": EYES + (
        "Text: BERT (text_model.embeddings, text_model.encoder.layer.l; post-norm, gelu exact, eps 1e-12, row 0 of token_type_embeddings "
        "added), padding masked. No pooler, no tanh: the last hidden state of token 0 ([CLS]) goes through text_projection (no bias). ")
    + LOGITS,
    "siglip": (
        "Vision: as siglip-image of the families (patch convolution with bias, no class token, pre-norm blocks, gelu_pytorch_tanh, eps "
        "1e-6), post_layernorm on all tokens, then the attention pool vision_model.head: the query is `probe` [1, 1, D], keys and values "
        "are the tokens; attention.in_proj_weight [3D, D] and in_proj_bias hold query, key and value one below the other, then "
        "attention.out_proj; of what that gives, r, the embedding is r + mlp(layernorm(r)): the probe is not added, nothing is projected. "
        "Text: token_embedding + position_embedding, pre-norm blocks without any mask, final_layer_norm, and the LAST token (mostly "
        "padding), then text_model.head, a Linear with bias to projection_size (hidden_size, if absent), the vision tower's hidden_size. "
        "Texts are padded to max_position_embeddings with </s>, all attended: another length gives another embedding. bos_token_id and "
        "eos_token_id of text_config mean nothing. The tokenizer lowercases and drops ASCII punctuation. Embeddings are divided by their "
        "length; logits = exp(logit_scale) * cosine + logit_bias, both of shape [1]; probabilities are sigmoids, each text for itself."),
}


# --------------------------------------------------------------------------- making
def encode(t: Towers, tok, texts: list) -> dict:
    """Rows padded on the right; the tokenizer itself is left without a rule for padding."""
    batch = tok.pad({"input_ids": [tok(x)["input_ids"] for x in texts]}, padding="longest" if t.masked else "max_length",
                    max_length=tok.model_max_length, return_attention_mask=True, return_tensors="pt")
    ids, mask = batch["input_ids"], batch["attention_mask"]
    return {"input_ids": ids, "attention_mask": mask if t.masked else torch.ones_like(ids)}


def build(name: str) -> tuple:
    """The case and its tokenizer."""
    t = TOWERS[name]
    torch.manual_seed(t.seed)
    tok = t.tokenizer()
    text = dict(SIZES, hidden_size=16, max_position_embeddings=24, vocab_size=len(tok)) | t.both | t.text
    if name == "clip":
        text |= dict(bos_token_id=tok.bos_token_id, eos_token_id=tok.eos_token_id)
        assert tok.eos_token_id == len(tok) - 1
    sizes = dict(text_config=text, vision_config=dict(SIZES, image_size=IMAGE, patch_size=PATCH) | t.both)
    model = getattr(tf, t.name + "Model")._from_config(getattr(tf, t.name + "Config")(**sizes, **t.both), attn_implementation="eager")
    randomise(model, t.seed)
    with torch.no_grad():
        for k, v in t.logits.items():
            getattr(model, k).fill_(v)
    images, values = pixels(t.seed + 7)
    side = {"height": IMAGE, "width": IMAGE}
    size = {"size": side} if t.name == "Siglip" else {"size": {"shortest_edge": IMAGE}, "crop_size": side}
    processor = getattr(tf, t.name + "ImageProcessor")(image_mean=IMAGE_MEAN, image_std=IMAGE_STD, **size)
    assert float((processor(images=images, return_tensors="pt")["pixel_values"] - values).abs().max()) < 1e-5, name
    second = encode(t, tok, [t.template.format(c) for c in t.classes])
    inputs = {"pixel_values": values, **encode(t, tok, t.prompts), **{"classes." + k: v for k, v in second.items()}}
    tokens = [tok.convert_ids_to_tokens(tok(x)["input_ids"]) for x in t.prompts]
    info = {"prompts": t.prompts, "tokens": tokens, "lengths": [len(x) for x in tokens], "template": t.template, "classes": t.classes,
            "prefix": t.prefix, "grid": [IMAGE // PATCH] * 2}
    info |= {at: {k: getattr(getattr(model.config, at + "_config"), k) for k in SIZES} for at in ("text", "vision")}
    return Case(name, t, model.eval(), inputs, processor, info), tok


# --------------------------------------------------------------------------- running
def pooled(m: nn.MultiheadAttention, seen: list, query: Tensor, key: Tensor, value: Tensor) -> tuple:
    """What the module computes, with the probabilities on the way to the output, where a gradient can be asked for."""
    split = lambda x: x.unflatten(-1, (m.num_heads, -1)).transpose(1, 2)
    q, k, v = (split(x @ w.T + b) for x, w, b in zip((query, key, value), m.in_proj_weight.chunk(3), m.in_proj_bias.chunk(3)))
    p = (q @ k.transpose(2, 3) * q.shape[-1] ** -0.5).softmax(-1)
    out = m.out_proj((p @ v).transpose(1, 2).flatten(2))
    for x, y in zip((out, p), nn.MultiheadAttention.forward(m, query, key, value, average_attn_weights=False)):
        assert float((x - y).detach().abs().max()) < (1e-12 if x.dtype == F64 else 1e-5)
    seen.append(p)
    return out, None


def call(case: Case, model: nn.Module, second: bool = False, **kw):
    """The model on the prompts, or on the template filled with classes; floats as the model's."""
    at, pixel_values = "classes." if second else "", case.inputs["pixel_values"].to(model.dtype)
    with Exact() if model.dtype == F64 else contextlib.nullcontext():
        return model(pixel_values=pixel_values, **{k: case.inputs[at + k] for k in ("input_ids", "attention_mask")}, **kw)


def run(case: Case, model: nn.Module, targets=None) -> dict:
    """What is stored: a pass and the gradients of the targets' logits (of the best prompts, if not given)."""
    text, head = model.text_model.encoder, getattr(model.vision_model, "head", None)
    blocks = {"": model.vision_model.encoder.layers, "text.": text.layer if hasattr(text, "layer") else text.layers}
    hidden, pool, hooks = {at: [] for at in blocks}, [], []
    for at, layers in blocks.items():
        hooks += [m.register_forward_pre_hook(lambda module, args, at=at: hidden[at].append(args[0])) for m in layers]
        hooks.append(layers[-1].register_forward_hook(lambda module, args, out, at=at: hidden[at].append(out)))
    if head is not None:
        head.attention.forward = lambda *qkv: pooled(head.attention, pool, *qkv)
    try:
        out = call(case, model, output_attentions=True)
    finally:
        for h in hooks:
            h.remove()
        if head is not None:
            del head.attention.forward
    got = {k: getattr(out, k) for k in ("text_embeds", "image_embeds", "logits_per_image")}
    logits = got["logits_per_image"]
    got["classes.logits_per_image"] = call(case, model, second=True).logits_per_image
    picked = logits.gather(1, (logits.argmax(1) if targets is None else torch.tensor(targets))[:, None]).sum()
    for at, score, attention in (("", picked, out.vision_model_output.attentions), ("pool.", picked, pool),
                                 ("text.", logits[0].sum(), out.text_model_output.attentions)):
        grads = torch.autograd.grad(score, attention, retain_graph=True) if len(attention) else ()
        for kind, ts in (("hidden", hidden.get(at, ())), ("attention", attention), ("attention_grad", grads)):
            got |= {at + kind + (f".{l}" if at != "pool." else ""): x for l, x in enumerate(ts)}
    return {k: v.detach() for k, v in got.items()}


def far(a: dict, b: dict) -> dict:
    """Largest differences of two passes."""
    worst: dict = {}
    for k in a:
        kind = re.sub(r"\.\d+$", "", k)
        worst[kind] = max(worst.get(kind, 0.0), float((a[k] - b[k]).abs().max()))
    return worst


def check(case: Case, got: dict) -> None:
    """Far from a tie, attention not uniform, padding without influence (or with it, where it has to be there)."""
    name, exact, ids, lengths = case.name, case.exact(), case.inputs["input_ids"], case.info["lengths"]
    top = got["logits_per_image"].topk(2, 1).values
    assert float((top[:, 0] - top[:, 1]).min()) > 0.1, (name, "too close to a tie", got["logits_per_image"])
    for k, v in got.items():
        if "attention_grad" in k:
            assert float(v.abs().max()) > 1e-3, (name, k, "nothing depends on attention")
        elif "attention" in k:
            assert float(v.amax(-1).mean()) > 1.5 / v.shape[-1], (name, k, "attention is close to uniform")

    def off(j: slice, n: int) -> float:
        """How far the embeddings of the first n tokens, without a mask, are from those of the batch."""
        with torch.no_grad(), Exact():
            x = exact.get_text_features(input_ids=ids[j, :n]).pooler_output
        return float((x / x.norm(dim=-1, keepdim=True) - got["text_embeds"][j]).abs().max())

    cut = [off(slice(j, j + 1), n) for j, n in enumerate(lengths) if n < ids.shape[1]]
    assert cut and (max(cut) < 1e-12 if case.family.masked else min(cut) > 1e-2), (name, "without padding", cut)
    if name != "chinese_clip":           # SigLIP's mask is full, what CLIP pools is before the padding
        assert off(slice(None), ids.shape[1]) < 1e-12, (name, "without a mask")
    if name == "clip":
        exact.text_model.eos_token_id = 2
        assert off(slice(None), ids.shape[1]) < 1e-12, (name, "pooled at the highest id")


def check_reload(case: Case, folder: str, got: dict) -> None:
    """The saved folder gives the logits, its tokenizer.json the ids."""
    with torch.no_grad():
        logits = call(case, case.load_model(folder)).logits_per_image
    assert float((logits - got["logits_per_image"]).abs().max()) < 5e-5, (case.name, "reloaded", logits)
    bare, fast = Tokenizer.from_file(os.path.join(folder, "tokenizer.json")), tf.PreTrainedTokenizerFast.from_pretrained(folder)
    for text, ids, n in zip(case.info["prompts"], case.inputs["input_ids"].tolist(), case.info["lengths"]):
        assert bare.encode(text).ids == ids[:n] == fast(text)["input_ids"], (case.name, "tokenizer", text)


# --------------------------------------------------------------------------- writing
def make(name: str, out: str) -> None:
    case, tok = build(name)
    top = run(case, case.exact())["logits_per_image"].argmax(1).tolist()
    targets = [top[0], (top[1] + 1) % len(case.info["prompts"])]    # the best prompt, and another one
    got = run(case, case.exact(), targets)
    error = far(got, run(case, case.model, targets))
    assert max(error.values()) < 5e-5, (name, error)
    check(case, got)
    folder = os.path.join(out, name)
    shutil.rmtree(folder, ignore_errors=True)
    case.save_model(os.path.join(folder, "model"))
    tok.save_pretrained(os.path.join(folder, "model"))
    check_reload(case, os.path.join(folder, "model"), got)
    save_file({k: v.contiguous().clone() for k, v in case.inputs.items()}, os.path.join(folder, "inputs.safetensors"))
    save_file({k: v.to(F32).contiguous().clone() for k, v in got.items()}, os.path.join(folder, "expected.safetensors"))
    config = case.model.config
    meta = {"case": name, "model_type": config.model_type, "architecture": config.architectures[0], **case.info, "targets": targets,
            "embed": got["text_embeds"].shape[1], "f32_error": {k: float(f"{v:.2g}") for k, v in error.items()}, "notes": NOTES[name]}
    with open(os.path.join(folder, "case.json"), "w") as f:
        f.write("{\n" + ",\n".join(f" {json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}" for k, v in meta.items()) + "\n}\n")
    for path, _, files in os.walk(folder):
        for file in files:
            os.chmod(os.path.join(path, file), 0o644)


def command(about: str, into: str, cases, make: Callable[[str, str], None]) -> int:
    """The command line: makes the named cases, all without a name, or checks what is there."""
    ap = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(cases))
    ap.add_argument("--check", action="store_true", help="compare with what is there, write nothing")
    args = ap.parse_args()
    if wrong := set(args.cases) - set(cases):
        ap.error(f"no such case: {', '.join(sorted(wrong))}; there are {', '.join(cases)}")
    bad = 0
    for name in args.cases or cases:
        start = time.time()
        with tempfile.TemporaryDirectory() as tmp:
            out = tmp if args.check else into
            make(name, out)
            lines = differences(os.path.join(tmp, name), os.path.join(into, name)) if args.check else []
            bad += len(lines)
            size = sum(os.path.getsize(os.path.join(p, f)) for p, _, files in os.walk(os.path.join(out, name)) for f in files)
        told = "checked" if args.check else "written"
        print(f"{name:22s} {size / 1000:5.0f} KB  {told}  {time.time() - start:5.1f} s", *lines, sep="\n  ")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(command(__doc__, OUT, TOWERS, make))
