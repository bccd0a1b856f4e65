"""The cases: tiny random models of every family, their inputs and the classes that are explained."""
from __future__ import annotations

import os
import tempfile

import numpy as np
import torch
import transformers as tf
from PIL import Image
from torch import Tensor, nn

from case import Case
from model import ATTENTION, F32, F64, DINOv3ViTForImageClassification

HIDDEN, LAYERS, HEADS, MLP, PATCH, LABELS, IMAGE = 32, 3, 4, 2, 8, 5, 32
IMAGE_MEAN, IMAGE_STD = [0.48, 0.46, 0.41], [0.23, 0.22, 0.25]
REGISTERS = {"dinov2_with_registers": 4, "dinov3_vit": 2}

# name: (seed, description, model type, (rows, columns) of patches, configured image size, what else its config says)
VISION = {
    "vit-square": (1000, "ViT, square input at the native resolution", "vit", (4, 4), IMAGE, {}),
    "vit-rect": (2000, "ViT with a square position grid evaluated on a taller input (bicubic interpolation of the "
                       "position embeddings)", "vit", (6, 4), IMAGE, {}),
    "deit-distilled": (3000, "DeiT with teacher: class and distillation token, the two heads averaged", "deit", (4, 4), IMAGE, {}),
    "dinov2": (4000, "DINOv2 classifier: layer scale, head on [class token, mean of patch tokens]", "dinov2", (4, 4), IMAGE, {}),
    "dinov2-registers": (5000, "DINOv2 classifier with 4 register tokens", "dinov2_with_registers", (4, 4), IMAGE, {}),
    "dinov2-interp": (9000, "DINOv2 evaluated below its configured image size (position grid shrunk, bicubic without "
                            "antialiasing)", "dinov2", (4, 4), IMAGE * 3 // 2, {"num_hidden_layers": 1}),
    "dinov2-registers-interp": (10000, "DINOv2 with registers evaluated below its configured image size (position grid "
                                       "shrunk, bicubic WITH antialiasing)", "dinov2_with_registers", (4, 4), IMAGE * 3 // 2,
                                {"num_hidden_layers": 1}),
    "dinov3": (11001, "DINOv3 with a linear head on [class token, mean of patch tokens], 2 register tokens, rotary positions of "
                      "the patches; a wide image", "dinov3_vit", (3, 4), IMAGE, {}),
    "dinov3-gated": (12001, "DINOv3 with a gated feed-forward (silu), otherwise as dinov3; a square image", "dinov3_vit", (4, 4),
                     IMAGE, {"use_gated_mlp": True, "hidden_act": "silu"}),
}
# name: (seed, description, model type, texts, what else its config says)
LOCAL = dict(hidden_size=16, num_attention_heads=2, intermediate_size=24, local_attention=6, global_rope_theta=500.0,
             local_rope_theta=20.0)
TEXT = {
    "bert": (6000, "BERT sequence classifier; row 0 is a sentence pair, row 1 is short and padded", "bert",
             [("The quiet film was very good!", "I liked it"), ("Unplayable plots.", None)], {}),
    "roberta": (7000, "RoBERTa sequence classifier (position ids start at padding_idx + 1), row 1 padded", "roberta",
                [("The quiet film was not bad", None), ("a bird sang", None)], {}),
    "distilbert": (8000, "DistilBERT sequence classifier (no token types), row 0 padded", "distilbert",
                   [("the dog sat quickly", None), ("We believed this singer was a great actor, not dull", None)], {}),
    "modernbert": (13004, "ModernBERT sequence classifier on the class token: layers 0 and 3 see everything, 1, 2 and 4 only tokens "
                          "at most 3 away; row 0 is a sentence pair, row 1 padded; config.json in the form of the hub", "modernbert",
                   [("The quiet film was very good!", "I liked it"), ("This actor was not bad, we liked it", None)],
                   dict(**LOCAL, num_hidden_layers=5, global_attn_every_n_layers=3, classifier_pooling="cls")),
    "modernbert-mean": (14000, "ModernBERT sequence classifier on the mean of the real tokens: layers 0 and 3 see everything, 1 and 2 "
                               "only tokens at most 3 away; row 0 padded", "modernbert",
                        [("The dog sat slowly, not quickly", None), ("We watched this great song and it was good", None)],
                        dict(**LOCAL, num_hidden_layers=4, global_attn_every_n_layers=3, classifier_pooling="mean")),
}
CASES = (*VISION, *TEXT)
# cases that exist for their position embeddings alone carry a few attention arrays
SMALL = ("dinov2-interp", "dinov2-registers-interp")

WORDS = ("the a of and is was very not this that film movie book cat dog bird river mountain bright dull good bad "
         "great awful quiet loud plot actor song scene sat ran saw liked hated slowly quickly un ##able ##ing ##ed "
         "##ly ##s ##er watch think believ play sing ! ? . , ' - i we you it").split()


def randomise(model: nn.Module, seed: int) -> None:
    """Re-initialise every parameter so that nothing is degenerate."""
    g = torch.Generator().manual_seed(seed)
    n = lambda p, std, mean=0.0: p.copy_(mean + std * torch.randn(p.shape, generator=g))
    norms = {id(m.weight) for m in model.modules() if isinstance(m, nn.LayerNorm)}
    with torch.no_grad():
        for name, p in model.named_parameters():
            if id(p) in norms:
                n(p, 0.2, 1.0)
            elif name.endswith("lambda1"):
                n(p, 0.2, 0.7)
            elif name.endswith("bias"):
                n(p, 0.2)
            elif any(s in name for s in ("cls_token", "distillation_token", "register_tokens", "mask_token", "position_embeddings")):
                n(p, 0.6)
            elif "embeddings" in name and p.dim() == 2:
                n(p, 0.8)
            elif any(s in name for s in ("q_proj", "k_proj", "query", "key", "q_lin", "k_lin")):
                n(p, 1.25 * p.shape[1] ** -0.5)
            else:
                n(p, 1.2 * p[0].numel() ** -0.5)


# --------------------------------------------------------------------------- pictures
def pictures(B: int, H: int, W: int, seed: int) -> Tensor:
    """Smooth coloured blobs plus grain, uint8 [B,H,W,3]."""
    g = np.random.default_rng(seed)
    yy, xx = np.mgrid[0:H, 0:W]
    out = []
    for _ in range(B):
        img = np.zeros((H, W, 3)) + g.uniform(60, 160, 3)
        for _ in range(4):
            cy, cx, r = g.uniform(0, H), g.uniform(0, W), g.uniform(3, 9)
            img += np.exp(-((yy - cy) ** 2 + (xx - cx) ** 2) / (2 * r * r))[..., None] * g.uniform(-150, 150, 3)
        img += g.normal(0, 25, img.shape)
        out.append(np.clip(np.round(img), 0, 255).astype(np.uint8))
    return torch.from_numpy(np.stack(out))


def image_processor(kind: str, H: int, W: int):
    norm = dict(image_mean=IMAGE_MEAN, image_std=IMAGE_STD, do_normalize=True, do_rescale=True)
    if kind == "vit":
        return tf.ViTImageProcessor(size={"height": H, "width": W}, **norm)
    if kind == "deit":
        return tf.DeiTImageProcessor(size={"height": H, "width": W}, crop_size={"height": H, "width": W}, **norm)
    if kind == "dinov3_vit":
        return tf.DINOv3ViTImageProcessor(size={"height": H, "width": W}, **norm)
    return tf.BitImageProcessor(size={"shortest_edge": min(H, W)}, crop_size={"height": H, "width": W},
                                do_center_crop=True, do_convert_rgb=True, **norm)


def vision_model(kind: str, image: int, more: dict) -> nn.Module:
    common = dict(hidden_size=HIDDEN, num_hidden_layers=LAYERS, num_attention_heads=HEADS, image_size=image, patch_size=PATCH,
                  num_labels=LABELS) | more
    cls, config = {
        "vit": (tf.ViTForImageClassification, lambda: tf.ViTConfig(intermediate_size=HIDDEN * MLP, **common)),
        "deit": (tf.DeiTForImageClassificationWithTeacher, lambda: tf.DeiTConfig(intermediate_size=HIDDEN * MLP, **common)),
        "dinov2": (tf.Dinov2ForImageClassification, lambda: tf.Dinov2Config(mlp_ratio=MLP, **common)),
        "dinov2_with_registers": (tf.Dinov2WithRegistersForImageClassification, lambda: tf.Dinov2WithRegistersConfig(
            mlp_ratio=MLP, num_register_tokens=REGISTERS[kind], **common)),
        "dinov3_vit": (DINOv3ViTForImageClassification, lambda: tf.DINOv3ViTConfig(
            intermediate_size=HIDDEN * MLP, num_register_tokens=REGISTERS[kind], **common)),
    }[kind]
    return cls._from_config(config(), attn_implementation=ATTENTION)


def vision_case(name: str) -> Case:
    seed, description, kind, (rows, cols), image, more = VISION[name]
    torch.manual_seed(seed)
    model = vision_model(kind, image, more)
    H, W = rows * PATCH, cols * PATCH
    u8 = pictures(2, H, W, seed + 7)
    pixels = (u8.to(F32) / 255 - torch.tensor(IMAGE_MEAN)) / torch.tensor(IMAGE_STD)
    pixels = pixels.permute(0, 3, 1, 2).contiguous()
    call = {"interpolate_pos_encoding": True} if kind == "vit" and (H, W) != (image, image) else {}
    prefix = 1 + (kind == "deit") + REGISTERS.get(kind, 0)
    case = Case(name, description, model, {"pixel_values": pixels}, call, seed, prefix, (rows, cols), PATCH,
                processor=image_processor(kind, H, W))
    case.extra_inputs["image_u8"] = u8
    images = [Image.fromarray(x.numpy()) for x in u8]
    got = case.processor(images=images, return_tensors="pt")["pixel_values"]
    case.info["preprocess_error"] = float((got - pixels).abs().max())
    return case


# --------------------------------------------------------------------------- texts
def wordpieces() -> list:
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + WORDS
    vocab += sorted({c for w in WORDS for c in w.replace("#", "") if c.isalpha()} - set(vocab))
    return vocab + ["##" + c for c in "abcdefghijklmnopqrstuvwxyz" if "##" + c not in vocab]


def tokenizer(kind: str, tmp: str):
    """Tiny tokenizer of the right kind; `tmp` is a scratch folder for its vocabulary files."""
    if kind in ("bert", "distilbert"):
        path = os.path.join(tmp, "vocab.txt")
        with open(path, "w") as f:
            f.write("\n".join(wordpieces()) + "\n")
        return (tf.BertTokenizerFast if kind == "bert" else tf.DistilBertTokenizerFast)(vocab=path)
    if kind == "modernbert":
        from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
        words = {w: i for i, w in enumerate(wordpieces())}
        t = Tokenizer(models.WordPiece(words, unk_token="[UNK]"))
        t.normalizer, t.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
        t.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1",
            special_tokens=[(w, words[w]) for w in ("[CLS]", "[SEP]")])
        return tf.PreTrainedTokenizerFast(
            tokenizer_object=t, cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]", pad_token="[PAD]", unk_token="[UNK]",
            model_input_names=["input_ids", "attention_mask"], model_max_length=40)
    from tokenizers import ByteLevelBPETokenizer
    corpus = ["The quiet film was not bad, I liked it very much!", "this movie is awful and the plot is slow",
              "the bird sang by the river and the dog ran", "a great book, a great actor, a bright scene",
              "we watched the mountain slowly; you believed that song was good"] * 4
    t = ByteLevelBPETokenizer()
    t.train_from_iterator(corpus, vocab_size=330, min_frequency=2, show_progress=False,
                          special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    t.save_model(tmp)
    return tf.RobertaTokenizerFast(vocab=os.path.join(tmp, "vocab.json"), merges=os.path.join(tmp, "merges.txt"))


def text_model(kind: str, tok, more: dict) -> nn.Module:
    common = dict(vocab_size=len(tok), max_position_embeddings=40, pad_token_id=tok.pad_token_id, num_labels=LABELS)
    sizes = dict(hidden_size=HIDDEN, num_hidden_layers=LAYERS, num_attention_heads=HEADS, intermediate_size=HIDDEN * MLP)
    cls, config = {
        "bert": (tf.BertForSequenceClassification, lambda: tf.BertConfig(**sizes, **common)),
        "roberta": (tf.RobertaForSequenceClassification, lambda: tf.RobertaConfig(
            **sizes, **common, type_vocab_size=1, bos_token_id=tok.bos_token_id, eos_token_id=tok.eos_token_id, layer_norm_eps=1e-5)),
        "distilbert": (tf.DistilBertForSequenceClassification, lambda: tf.DistilBertConfig(
            dim=HIDDEN, n_layers=LAYERS, n_heads=HEADS, hidden_dim=HIDDEN * MLP, **common)),
        "modernbert": (tf.ModernBertForSequenceClassification, lambda: tf.ModernBertConfig(
            **common, **more, bos_token_id=tok.cls_token_id, cls_token_id=tok.cls_token_id, eos_token_id=tok.sep_token_id,
            sep_token_id=tok.sep_token_id)),
    }[kind]
    return cls._from_config(config(), attn_implementation=ATTENTION)


def as_on_the_hub(config: dict) -> dict:
    """ModernBERT's config in the form of the published checkpoints: one theta each, and every n-th layer sees everything."""
    ropes = config["rope_parameters"]
    config = {k: v for k, v in config.items() if k not in ("rope_parameters", "layer_types")}
    return {**config, "global_rope_theta": ropes["full_attention"]["rope_theta"],
            "local_rope_theta": ropes["sliding_attention"]["rope_theta"], "position_embedding_type": "absolute"}


def as_transformers_writes(config: dict) -> dict:
    """ModernBERT's config in the form of transformers 5: a list of layer types, and a rotation for each."""
    return {k: v for k, v in config.items() if k != "global_attn_every_n_layers"}


def text_case(name: str) -> Case:
    seed, description, kind, texts, more = TEXT[name]
    torch.manual_seed(seed)
    with tempfile.TemporaryDirectory() as tmp:
        tok = tokenizer(kind, tmp)
    rows = [tok(a, b) if b is not None else tok(a) for a, b in texts]
    batch = tok.pad([dict(r) for r in rows], return_tensors="pt")
    keys = ("input_ids", "attention_mask") + (("token_type_ids",) if kind == "bert" else ())
    case = Case(name, description, text_model(kind, tok, more), {k: batch[k] for k in keys}, {}, seed,
                texts=[list(t) for t in texts], processor=tok)
    if kind == "modernbert":
        case.config_edit = as_on_the_hub if name == "modernbert" else as_transformers_writes
    case.info["tokens"] = [tok.convert_ids_to_tokens(r) for r in case.inputs["input_ids"].tolist()]
    return case


def build(name: str) -> Case:
    """Model, inputs and targets of one case; everything follows from its entry above."""
    case = vision_case(name) if name in VISION else text_case(name)
    randomise(case.model, case.seed)
    case.model.eval()
    for lay in case.layers(F32):
        lay.attn._layer_index = lay.index
    with torch.no_grad():
        top = case.logits(F64).argmax(1)
    # first row: the predicted class; second row: some other class
    case.targets = torch.tensor([int(top[0])] + [(int(t) + 1) % LABELS for t in top[1:]])
    return case
