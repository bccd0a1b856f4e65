"""Fixtures of families that differ from plain ViT and BERT in some detail: only the forward pass and the gradient of attention.

    python tests/reference/families.py [--check] [--tensors] [CASE ...]     all cases without a name

A case is a folder tests/fixtures/families/CASE/ (`--check` compares instead of writing, `--tensors` lists what model.safetensors holds):

* `model/`: a tiny random checkpoint as `save_pretrained` writes it, with its tokenizer or image processor;
* `inputs.safetensors`: `pixel_values`, or `input_ids`, `attention_mask` and, where the model has more than one type, `token_type_ids`;
  two rows, of texts the second is padded on the right;
* `expected.safetensors`: `logits`, `hidden.l` (what block l reads; the last one is what the last block gives, before any final norm),
  `attention.l` and `attention_grad.l` (of the sum of the targets' logits), computed in float64 from the float32 weights;
* `case.json`: targets, sizes, `f32_error` (how far the unmodified float32 model is from that) and `notes`, what an implementer must know.

The `timm-*` cases need timm (pip install timm==1.0.31); their model.safetensors and config.json are what timm saves for the hub. Of Swin,
attention is per window. The rows of attention that belong to padding are as the model has them: of most models they read the real tokens;
in DeBERTa, where a padded row sees nothing at all, they are uniform. Making a case stops when the float32 model, the unpadded second row,
the reloaded folder or the tokenizer.json alone disagree.
"""
from __future__ import annotations

import argparse
import contextlib
import copy
import json
import os
import re
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass, field
from typing import Any, Callable

import torch
import transformers as tf
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from cases import IMAGE_MEAN, IMAGE_STD, pictures, wordpieces
from model import F32, F64

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../fixtures/families")
LABELS, IMAGE, PATCH = 5, 32, 8
SIZES = dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=40)
PAIR, SHORT = ("The quiet film was very good!", "I liked it"), ("Unplayable plots.", None)
LONG = ("The film was not bad, the plot was very good and the play was great!", "I liked it, a quiet movie")     # far enough for buckets


# --------------------------------------------------------------------------- tokenizers
LETTERS = "abcdefghijklmnopqrstuvwxyzTIU"
WHOLE = "the The a of and was very not film movie good bad great quiet plot play liked I it Un ! . , ?".split()
PARTS = "able ing ed ly s er et lm".split()


def pieces(*special: str) -> list:
    """A SentencePiece vocabulary with its scores: special tokens, words, parts of words, letters."""
    scored = [("▁" + w, -3 - i / 16) for i, w in enumerate(WHOLE)] + [(w, -4 - i / 16) for i, w in enumerate(PARTS)]
    return [(w, 0.0) for w in special] + scored + [("▁", -5.0)] + [(c, -7 - i / 16) for i, c in enumerate((*LETTERS, "!", ".", ","))]


def xlm_roberta():
    return tf.XLMRobertaTokenizer(vocab=pieces("<s>", "<pad>", "</s>", "<unk>") + [("<mask>", 0.0)])


def camembert():
    special = pieces("<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED", "<s>", "</s>")
    return tf.CamembertTokenizer(vocab=special + [("<mask>", 0.0)])


def albert():
    return tf.AlbertTokenizer(vocab=pieces("<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"))


def bert():
    return tf.BertTokenizerFast(vocab={w: i for i, w in enumerate(wordpieces())})


def mpnet():
    """BERT's pieces behind RoBERTa's special tokens; [UNK] keeps its name."""
    return tf.MPNetTokenizer(vocab={w: i for i, w in enumerate(["<s>", "<pad>", "</s>", "<unk>", *wordpieces()[1:], "<mask>"])})


def byte_pairs(special: list) -> tuple[dict, list]:
    """Vocabulary and merges of a byte-level BPE that knows only the letters it has seen."""
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    corpus = [" ".join(WHOLE), *PAIR, SHORT[0], " ".join(LETTERS), "a quiet film, a good plot", "we liked the play", "very"]
    t.train_from_iterator(corpus * 2, trainers.BpeTrainer(
        vocab_size=110, min_frequency=2, show_progress=False, special_tokens=special))
    made = json.loads(t.to_str())["model"]
    return made["vocab"], [tuple(m) for m in made["merges"]]


def roberta():
    vocab, merges = byte_pairs(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    return tf.RobertaTokenizer(vocab=vocab, merges=merges)


def deberta():
    vocab, merges = byte_pairs(["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"])
    return tf.DebertaTokenizer(vocab=vocab, merges=merges)


def deberta_v2():
    return tf.DebertaV2Tokenizer(vocab=pieces("[PAD]", "[CLS]", "[SEP]", "[UNK]") + [("[MASK]", 0.0)])


# --------------------------------------------------------------------------- the table
@dataclass(frozen=True)
class Family:
    """How a case is made."""
    seed: int
    name: str                          # of its classes in transformers, or of timm's architecture
    layers: str                        # the blocks; * is a number
    config: dict = field(default_factory=dict)
    tokenizer: Callable | None = None
    texts: tuple = (PAIR, SHORT)
    processor: str = "ViTImageProcessor"
    prefix: int = 1                    # tokens before the first patch
    patch: int = PATCH
    attention: str = ""                # what in a block gives its attention, if transformers does not return it
    rename: tuple = ()                 # (written by save_pretrained, here) beginnings of tensor names
    notes: str = ""


EARLY = dict(type_vocab_size=1, layer_norm_eps=1e-5)
DISENTANGLED = dict(relative_attention=True, pos_att_type=["p2c", "c2p"])
V3 = dict(DISENTANGLED, hidden_size=16, position_buckets=8, norm_rel_ebd="layer_norm", share_att_key=True, position_biased_input=False,
          type_vocab_size=0)
PLAIN = dict(DISENTANGLED, max_relative_positions=8, share_att_key=False, type_vocab_size=2)
V1 = dict(DISENTANGLED, max_relative_positions=16, position_biased_input=False, type_vocab_size=0)
BEIT_CONFIG = dict(use_absolute_position_embeddings=False, layer_scale_init_value=0.1)
SWIN_CONFIG = dict(embed_dim=8, mlp_ratio=2.0)

ROBERTA = (
    "Position ids count the tokens that are not padding from pad_token_id + 1 on, padding itself has position pad_token_id. One row of "
    "token types is added to all tokens. Head on token 0: classifier.dense, tanh, classifier.out_proj; no pooler. ")
DEBERTA = (
    "Scores are (q.k + c2p + p2c) / sqrt(head width * (1 + terms of pos_att_type)): c2p = q_i . posk[clamp(d + s, 0, 2s - 1)] and p2c = "
    "k_j . posq[the same index], d = bucket(i - j), s = buckets or max_relative_positions (max_position_embeddings if that is below 1). "
    "Bucket: d itself up to mid = buckets / 2, beyond sign(d) (mid + ceil(log(|d| / mid) / log((max - 1) / mid) * (mid - 1))) in float32. "
    "Embeddings of padding are 0 (mask behind the LayerNorm); a padded row's attention is uniform over all tokens, padding too. Head: "
    "pooler.dense on token 0, pooler_hidden_act (gelu), classifier. layer_norm_eps 1e-7. ")
BEIT = (
    "Pre-norm, the branches scaled by lambda_1 and lambda_2; the key projection has no bias; layer_norm_eps 1e-12. No absolute positions. "
    "Bias table [(2r - 1)(2c - 1) + 3, heads] for r x c patches, added to the scaled scores: (dy + r - 1)(2c - 1) + dx + c - 1 with (dy, "
    "dx) = query patch - key patch, and the last three rows for class to patch, patch to class, class to class. Files of the hub also "
    "hold relative_position_index, which is derived. ")
SWIN = (
    "The grid is cut into windows, and attention is [images * windows, heads, w^2, w^2], image by image, windows row by row, in the order "
    "of the shifted grid. Every second block of a stage rolls the grid by -(w // 2) both ways and masks (-100) pairs of different regions "
    "of the rolled grid. hidden.l is what block l reads (a stage's first block: behind patch merging). LayerNorm behind the patch "
    "convolution (eps 1e-5); no class token, no absolute positions; classifier on the mean of all tokens behind layernorm. ")
TIMM_VIT = (
    "config.json of timm: architecture, num_classes, model_args (over the architecture's own), pretrained_cfg (input_size, mean, std, "
    "crop_pct, interpolation). Names: patch_embed.proj, cls_token, reg_token, pos_embed, blocks.l.norm1, attn.qkv (q, k, v one below the "
    "other), attn.proj, norm2, mlp.fc1, mlp.fc2, head. Pre-norm, gelu exact, eps 1e-6. ")
MAP = (
    "class_token false: no cls_token, pos_embed [1, patches, D]. global_pool map: `norm` on all tokens, `attn_pool` (AttentionPoolLatent), "
    "head (unless num_classes is 0); no fc_norm, unless model_args has fc_norm true: then fc_norm behind attn_pool, and no `norm`. In "
    "attn_pool: query = q(latent), nothing added, no norm; k, v = kv(x), one below the other, x being what `norm` gives; softmax(query . k "
    "/ sqrt(D / heads)) v of each head; y = proj(that), the latent is not added; y + mlp.fc2(act(mlp.fc1(norm(y)))), the only residual; "
    "token 0 (of one). No pos_embed, q_norm, k_norm or layer scale. Heads, activation, eps and int(D * mlp_ratio) are as in the blocks; "
    "the biases are there whatever qkv_bias is, and where the blocks have SwiGLU, this mlp is plain (fc1 is int(D * mlp_ratio) wide). "
    "Tensors: attn_pool.latent [1, 1, D] and weight and bias of attn_pool.q [D, D], kv [2D, D], proj [D, D], norm [D], mlp.fc1, mlp.fc2. "
    "Class and register tokens, where there are any, pass `norm` and are dropped before attn_pool (pool_include_prefix true keeps them). ")
EVA = (
    "timm's config.json and names as timm-vit. pos_embed of all tokens and rotary positions as well, of the patches' query and key only: "
    "pairs (2p, 2p + 1) of a head turn by row * f_p for the first half of the pairs and by column * f_p for the second, f_p = 10000^(-p / "
    "n), n = head width / 4, row and column scaled by 16 / grid (ref_feat_shape). Pre-norm, eps 1e-6; global_pool avg: no `norm`, fc_norm "
    "on the mean of the patches. ")

TEXT = {
    "xlm-roberta": Family(
        21000, "XLMRoberta", "roberta.encoder.layer.*", EARLY, xlm_roberta,
        notes=ROBERTA + "RoBERTa in every tensor (prefix `roberta.`); only model_type and the tokenizer (Unigram) are its own."),
    "camembert": Family(
        22001, "Camembert", "roberta.encoder.layer.*", EARLY, camembert,
        notes=ROBERTA + "RoBERTa in every tensor (prefix `roberta.`). The tokenizer is Unigram, <s> and </s> are 5 and 6, padding is 1. "
                        "The first five pieces are fairseq's leftovers."),
    "electra": Family(
        23000, "Electra", "electra.encoder.layer.*", dict(embedding_size=16), bert,
        notes="BERT's blocks. The embeddings and their LayerNorm have embedding_size; electra.embeddings_project (with bias) maps what "
              "that norm gives to hidden_size, hidden.0 is behind it. No pooler: the head is classifier.dense, gelu (exact, whatever "
              "hidden_act is), classifier.out_proj on token 0. layer_norm_eps 1e-12."),
    "electra-same": Family(
        24002, "Electra", "electra.encoder.layer.*", dict(embedding_size=24), bert,
        notes="embedding_size equals hidden_size: there is no embeddings_project. Otherwise as electra."),
    "mpnet": Family(
        25000, "MPNet", "mpnet.encoder.layer.*", dict(max_position_embeddings=34, layer_norm_eps=1e-5, hidden_size=16), mpnet, (LONG, PAIR),
        notes="No token types. Position ids as RoBERTa's, from 2 on and 1 for padding whatever pad_token_id is. "
              "mpnet.encoder.relative_attention_bias [buckets, heads], one table for all layers, is added to the scaled scores: T5's "
              "bucket of j - i, 32 buckets and distance 128 fixed in the code (16 more for j > i; n = |j - i| itself below 8, then 8 + "
              "floor(log(n / 8) / log(16) * 8) in float32, at most 15). Names: attention.attn.q, k, v, o, attention.LayerNorm. Head on "
              "token 0: classifier.dense, tanh, classifier.out_proj."),
    "albert": Family(
        26000, "Albert", "albert.encoder.albert_layer_groups.0.albert_layers.*", dict(embedding_size=16, num_hidden_layers=3), albert,
        notes="All layers are one: albert_layer_groups.0.albert_layers.0 runs num_hidden_layers times (with more groups, layer i is of "
              "group i * groups / layers, and a group runs its inner_group_num layers in a row). Embeddings of embedding_size; "
              "encoder.embedding_hidden_mapping_in (always there, with bias) maps what their LayerNorm gives, hidden.0 is behind it. "
              "Post-norm as BERT: attention.LayerNorm, full_layer_layer_norm; attention.query, key, value, dense; feed-forward ffn, "
              "ffn_output with gelu_new (tanh). albert.pooler is the Linear itself, then tanh and classifier."),
    "roberta-prelayernorm": Family(
        27000, "RobertaPreLayerNorm", "roberta_prelayernorm.encoder.layer.*", EARLY, roberta,
        notes=ROBERTA + "Pre-norm: attention.LayerNorm before attention, intermediate.LayerNorm before the feed-forward, a final "
                        "roberta_prelayernorm.LayerNorm; the embeddings keep their LayerNorm. transformers returns the last hidden state "
                        "behind the final norm, the fixture has it before."),
    "data2vec-text": Family(
        28000, "Data2VecText", "data2vec_text.encoder.layer.*", EARLY, roberta,
        notes=ROBERTA + "RoBERTa with the prefix `data2vec_text.`."),
    "ernie": Family(
        29001, "Ernie", "ernie.encoder.layer.*", {}, bert,
        notes="BERT with the prefix `ernie.` (pooler with tanh, classifier). With use_task_id true, row 0 of "
              "embeddings.task_type_embeddings would be added before the LayerNorm; here it is false and the table absent."),
    "deberta-v2": Family(
        41000, "DebertaV2", "deberta.encoder.layer.*", V3, deberta_v2, (LONG, PAIR),
        notes=DEBERTA + "The form of DeBERTa-v3. Post-norm; no absolute positions and no token types. Log buckets, and one table "
                        "deberta.encoder.rel_embeddings [2 * buckets, D] behind encoder.LayerNorm for all layers; query_proj and "
                        "key_proj map it too (share_att_key)."),
    "deberta-v2-plain": Family(
        42001, "DebertaV2", "deberta.encoder.layer.*", PLAIN, deberta_v2,
        notes=DEBERTA + "Absolute positions and token types are added as well. No buckets: the distance itself, rel_embeddings [2 * "
                        "max_relative_positions, D] without a norm, pos_key_proj and pos_query_proj of its own in each layer (both with "
                        "bias)."),
    "deberta": Family(
        43000, "Deberta", "deberta.encoder.layer.*", V1, deberta,
        notes=DEBERTA + "Version 1. attention.self.in_proj [3D, D] without bias, of each head its query, key and value rows in turn "
                        "(head 0: q, k, v; head 1: q, k, v); q_bias and v_bias [D], none for the key. rel_embeddings [2 * "
                        "max_relative_positions, D] without a norm; pos_proj (no bias) makes the keys of positions, pos_q_proj (bias) "
                        "the queries. The tokenizer is a byte-level BPE."),
}

VISION = {
    "vit_msn": Family(
        31002, "ViTMSN", "vit.layers.*",
        notes="ViT with another model_type: prefix `vit.`, classifier on the class token behind vit.layernorm, layer_norm_eps 1e-6. "
              "save_pretrained of transformers 5.24 forgets the `vit.` of `vit.encoder.layer.*`, as here; the hub has it, as "
              "vit_msn-hub."),
    "vit_msn-hub": Family(
        31002, "ViTMSN", "vit.layers.*", rename=("encoder.", "vit.encoder."),
        notes="vit_msn with the tensor names of transformers 4, as on the hub; the same numbers."),
    "ijepa": Family(
        32000, "IJepa", "ijepa.layers.*", prefix=0,
        notes="ViT without a class token: position_embeddings [1, patches, D], classifier on the mean of all tokens behind "
              "ijepa.layernorm. No pooler."),
    "beit": Family(
        33000, "Beit", "beit.layers.*", dict(BEIT_CONFIG, use_mean_pooling=True, use_relative_position_bias=True),
        processor="BeitImageProcessor",
        notes=BEIT + "A table in each layer. use_mean_pooling: no final norm on the tokens, but pooler.layernorm on the mean of the "
                     "patches (without the class token)."),
    "beit-shared": Family(
        34000, "Beit", "beit.layers.*", dict(BEIT_CONFIG, use_mean_pooling=False, use_shared_relative_position_bias=True),
        processor="BeitImageProcessor",
        notes=BEIT + "One table for all layers. Without use_mean_pooling the classifier reads the class token behind beit.layernorm."),
    "data2vec-vision": Family(
        35000, "Data2VecVision", "data2vec_vision.encoder.layer.*",
        dict(BEIT_CONFIG, use_mean_pooling=True, use_relative_position_bias=True), processor="BeitImageProcessor",
        notes=BEIT + "BEiT in everything but the prefix: a table in each layer, pooler.layernorm on the mean of the patches, no final "
                     "norm on the tokens."),
    "clip-image": Family(
        36000, "CLIP", "vision_model.encoder.layers.*", processor="CLIPImageProcessor",
        notes="The sizes stand in vision_config. Patch convolution without bias, class_embedding [D], a LayerNorm `pre_layrnorm` (so "
              "spelt) before the first block (hidden.0 is behind it), pre-norm blocks, quick_gelu x * sigmoid(1.702 x). The classifier "
              "reads the mean of the patches (without the class token) of the last block's output: post_layernorm is saved, but not "
              "used. layer_norm_eps 1e-5."),
    "siglip-image": Family(
        37001, "Siglip", "vision_model.encoder.layers.*", dict(hidden_size=16), processor="SiglipImageProcessor", prefix=0,
        notes="The sizes stand in vision_config. No class token; patch convolution with bias; gelu_pytorch_tanh. The classifier reads "
              "the mean of all tokens behind post_layernorm; vision_model.head (the attention pool) is saved, but not used. "
              "layer_norm_eps 1e-6."),
    "swin": Family(
        38014, "Swin", "swin.encoder.layers.*.blocks.*", dict(SWIN_CONFIG, window_size=4, num_heads=[1, 2], depths=[2, 1]),
        attention="attention", patch=4, prefix=0,
        notes=SWIN + "The second stage's grid is not larger than its window, so that its blocks do not shift. Pre-norm; the table "
                     "relative_position_bias_table [(2w - 1)^2, heads] in each block, index as BEiT's (query - key) without the class "
                     "token, is added to the scaled scores. Patch merging: concatenate (even row, even column), (odd, even), (even, "
                     "odd), (odd, odd), then norm, then reduction 4D -> 2D without bias."),
    "swinv2": Family(
        39000, "Swinv2", "swinv2.encoder.layers.*.blocks.*", dict(SWIN_CONFIG, window_size=2, num_heads=[2, 2], depths=[1, 2]),
        attention="attention", patch=4, prefix=0,
        notes=SWIN + "Norms behind: x + layernorm_before(attention(x)), x + layernorm_after(mlp(x)). Scores: cosine of query and key "
                     "(each divided by its length, at least 1e-12) times exp(min(logit_scale, log 100)), plus 16 "
                     "sigmoid(continuous_position_bias_mlp(table)), Linear 2 -> 512 with bias, relu, Linear 512 -> heads without; table: "
                     "sign(t) log2(|t| + 1) / 3 of t = 8 * offset / (w - 1), (dy, dx) each, or pretrained_window_sizes' w where it is "
                     "not 0. The shift's mask is added twice. The key has no bias. Patch merging: reduction first, then norm."),
}

TIMM = {
    "timm-vit": Family(
        51000, "vit_tiny_patch16_224", "blocks.*", dict(global_pool="token"),
        notes=TIMM_VIT + "`norm` on all tokens, head on the class token."),
    "timm-vit-avg": Family(
        52000, "vit_tiny_patch16_224", "blocks.*", dict(global_pool="avg"),
        notes=TIMM_VIT + "global_pool avg: no `norm`, but `fc_norm` on the mean of the patches (without the class token), then head."),
    "timm-vit-reg": Family(
        53000, "vit_giant_patch14_reg4_dinov2", "blocks.*", dict(global_pool="token", reg_tokens=2, init_values=0.1, mlp_ratio=5.0),
        prefix=3,
        notes=TIMM_VIT + "The architecture's arguments hold unless model_args says otherwise: no_embed_class (pos_embed [1, patches, D] "
                         "is added to the patches before class and register tokens, in this order, come in front), layer scale ls1.gamma "
                         "and ls2.gamma, SwiGLUPacked with mlp_ratio of both halves: fc2(silu(first half of fc1) * second half)."),
    "timm-deit3": Family(
        54000, "deit3_small_patch16_224", "blocks.*", dict(global_pool="token", init_values=0.1),
        notes=TIMM_VIT + "no_embed_class: pos_embed [1, patches, D] is added to the patches alone, the class token has no position. "
                         "Layer scale ls1.gamma, ls2.gamma."),
    "timm-beit": Family(
        58000, "beit_base_patch16_224", "blocks.*", dict(global_pool="avg"),
        notes="config.json of timm as in timm-vit. Names: patch_embed.proj, cls_token, no pos_embed, blocks.l.norm1, attn.qkv.weight (q, k, v one below "
              "the other, no bias), attn.q_bias, attn.v_bias (keys have none), attn.relative_position_bias_table [(2h-1)(2w-1)+3, heads] of "
              "each block as BEiT's in transformers, attn.proj, gamma_1, norm2, mlp.fc1, mlp.fc2, gamma_2. Pre-norm, gelu exact, eps 1e-6. "
              "global_pool avg: no `norm`, `fc_norm` on the mean of the patches, head."),
    "timm-map": Family(
        57000, "vit_base_patch32_siglip_256", "blocks.*", dict(global_pool="map", mlp_ratio=2.55), prefix=0,
        notes=TIMM_VIT.replace("gelu exact", "gelu_tanh (act_layer of the architecture)") + MAP),
    "timm-eva02": Family(
        55000, "eva02_tiny_patch14_224", "blocks.*", dict(global_pool="avg"),
        notes=EVA + "qkv fused without a bias of its own: q_bias and v_bias, none for the key. SwiGLU packed: fc2(silu(first half of "
                    "fc1) * second half), the hidden width is int(D * mlp_ratio) per half."),
    "timm-eva02-base": Family(
        56000, "eva02_base_patch14_224", "blocks.*", dict(global_pool="avg"),
        notes=EVA + "q_proj, v_proj with bias, k_proj without. SwiGLU apart: fc2(norm(silu(fc1_g(x)) * fc1_x(x))), with a LayerNorm "
                    "mlp.norm (scale_mlp)."),
    "timm-eva02-clip": Family(
        59000, "eva02_base_patch16_clip_224", "blocks.*", dict(global_pool="token"),
        notes=EVA + "As timm-eva02-base, and a LayerNorm attn.norm between the heads' values and attn.proj (scale_attn_inner). global_pool "
                    "token: `norm` on all tokens, head on the class token."),
    "timm-eva02-post": Family(
        60000, "eva02_enormous_patch14_clip_224", "blocks.*", dict(global_pool="token", mlp_ratio=2.0),
        notes=EVA + "use_post_norm: x + norm1(attn(x)), x + norm2(mlp(x)); no rotary positions, no SwiGLU; head on the class token."),
}

CASES = (*TEXT, *VISION, *TIMM)


# --------------------------------------------------------------------------- making
@dataclass
class Case:
    name: str
    family: Family
    model: nn.Module
    inputs: dict
    processor: Any
    info: dict

    @property
    def timm(self) -> bool:
        return self.name in TIMM

    @property
    def lengths(self) -> list:
        if "pixel_values" in self.inputs:
            return [self.info["prefix"] + self.info["grid"][0] * self.info["grid"][1]] * 2
        return self.inputs["attention_mask"].sum(1).tolist()

    def modules(self, model: nn.Module, below: str = "") -> list:
        """The blocks, or what stands under this name in each."""
        name = re.escape(self.family.layers + below).replace(r"\*", r"\d+")
        return [m for n, m in model.named_modules() if re.fullmatch(name, n)]

    def save_model(self, folder: str) -> None:
        if self.timm:
            import timm.models
            timm.models.save_for_hf(self.model, folder, safe_serialization=True)
            return
        self.model.save_pretrained(folder)
        self.processor.save_pretrained(folder)
        if self.family.rename:
            old, new = self.family.rename
            path = os.path.join(folder, "model.safetensors")
            renamed = {new + k.removeprefix(old) if k.startswith(old) else k: v for k, v in load_file(path).items()}
            save_file(renamed, path, {"format": "pt"})

    def load_model(self, folder: str) -> nn.Module:
        if self.timm:
            import timm
            return timm.create_model("local-dir:" + folder, pretrained=True).eval()
        return type(self.model).from_pretrained(folder, attn_implementation="eager").eval()

    def exact(self) -> nn.Module:
        """The model in float64, and what it derives from its config (rotations, coordinates) too."""
        model = copy.deepcopy(self.model).to(F64)
        with Exact(integers=True):
            for m in model.modules():
                if hasattr(m, "create_coords_table_and_index"):
                    m.relative_coords_table = m.create_coords_table_and_index()[0]
                elif hasattr(m, "_build_embed_cat"):
                    m.pos_embed = m._build_embed_cat(m.feat_shape, m._compute_bands())
        return model


def randomise(model: nn.Module, seed: int) -> None:
    """Redraw every parameter so that no term vanishes and attention is far from uniform."""
    g = torch.Generator().manual_seed(seed)
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    with torch.no_grad():
        for name, p in model.named_parameters():
            leaf = name.split(".")[-1]
            if p.dim() == 1 and leaf == "weight":                                  # norms
                mean, std = 1.0, 0.2
            elif leaf.startswith(("lambda", "gamma")):
                mean, std = 0.7, 0.2
            elif leaf == "logit_scale":
                mean, std = 1.0, 0.3
            elif "bias_table" in name or "relative_attention_bias" in name:
                mean, std = 0.0, 1.0
            elif id(p) in tables or "token" in leaf or leaf in ("position_embeddings", "pos_embed", "class_embedding", "probe", "latent"):
                mean, std = 0.0, 0.7
            elif p.dim() == 1:
                mean, std = 0.0, 0.2
            else:
                sharp = any(s in name for s in ("q_proj", "k_proj", "query", "key", "attn.q.", "attn.k.", "qkv", "self.in_proj",
                                                "attn_pool.q.", "attn_pool.kv."))
                mean, std = 0.0, (1.5 if sharp else 1.2) * p[0].numel() ** -0.5
            p.copy_(mean + std * torch.randn(p.shape, generator=g))


def text_case(name: str, f: Family) -> Case:
    tok = f.tokenizer()
    config = dict(SIZES, vocab_size=len(tok), max_position_embeddings=32, num_labels=LABELS, pad_token_id=tok.pad_token_id)
    config |= {k: getattr(tok, k) for k in ("bos_token_id", "eos_token_id") if getattr(tok, k) is not None}
    config = getattr(tf, f.name + "Config")(**config | f.config)
    model = getattr(tf, f.name + "ForSequenceClassification")._from_config(config, attn_implementation="eager")
    batch = tok.pad([tok(*(t for t in text if t is not None), return_token_type_ids=True) for text in f.texts], return_tensors="pt")
    keys = ["input_ids", "attention_mask"] + ["token_type_ids"] * (getattr(config, "type_vocab_size", 0) > 1)
    inputs = {k: batch[k] for k in keys}
    tokens = [tok.convert_ids_to_tokens(r) for r in inputs["input_ids"].tolist()]
    assert len(tok) <= 120 and len(tokens[0]) <= 30 and len(tokens[0]) > inputs["attention_mask"][1].sum(), (len(tok), tokens)
    return Case(name, f, model, inputs, tok, {"texts": f.texts, "tokens": tokens})


def pixels(seed: int) -> tuple[list, Tensor]:
    """Two pictures, and what a processor makes of them that has nothing to resize."""
    u8 = pictures(2, IMAGE, IMAGE, seed)
    scaled = (u8.to(F32) / 255 - torch.tensor(IMAGE_MEAN)) / torch.tensor(IMAGE_STD)
    return [Image.fromarray(x.numpy()) for x in u8], scaled.permute(0, 3, 1, 2).contiguous()


def vision_case(name: str, f: Family) -> Case:
    images, values = pixels(f.seed + 7)
    info = {"prefix": f.prefix, "grid": [IMAGE // f.patch] * 2}
    if name in TIMM:
        return Case(name, f, timm_model(f), {"pixel_values": values}, None, info)
    sizes = ({} if f.name.startswith("Swin") else SIZES) | f.config | dict(image_size=IMAGE, patch_size=f.patch)
    make = getattr(tf, f.name + "Config")
    config = make(vision_config=sizes, num_labels=LABELS) if name.endswith("-image") else make(**sizes, num_labels=LABELS)
    model = getattr(tf, f.name + "ForImageClassification")._from_config(config, attn_implementation="eager")
    side = {"height": IMAGE, "width": IMAGE}
    clip = {"size": {"shortest_edge": IMAGE}, "crop_size": side} if f.processor.startswith("CLIP") else {"size": side}
    processor = getattr(tf, f.processor)(image_mean=IMAGE_MEAN, image_std=IMAGE_STD, do_normalize=True, do_rescale=True, **clip)
    assert float((processor(images=images, return_tensors="pt")["pixel_values"] - values).abs().max()) < 1e-5, name
    return Case(name, f, model, {"pixel_values": values}, processor, info)


def timm_model(f: Family) -> nn.Module:
    import timm
    sizes = dict(img_size=IMAGE, patch_size=f.patch, embed_dim=16, depth=2, num_heads=2)
    model = timm.create_model(f.name, num_classes=LABELS, **sizes, **f.config, pretrained_cfg_overlay=dict(
        input_size=(3, IMAGE, IMAGE), mean=tuple(IMAGE_MEAN), std=tuple(IMAGE_STD), crop_pct=1.0))
    for m in model.modules():
        if hasattr(m, "fused_attn"):
            m.fused_attn = False
    return model


def build(name: str) -> Case:
    family = (TEXT | VISION | TIMM)[name]
    torch.manual_seed(family.seed)
    case = (text_case if name in TEXT else vision_case)(name, family)
    randomise(case.model, family.seed)
    case.model.eval()
    return case


# --------------------------------------------------------------------------- running
class Exact(TorchFunctionMode):
    """Whatever the code casts to float32 on the way (softmax, norms, scales) stays in float64.

    Integers made float (distances for a bucket) become float32 all the same, unless `integers` is set.
    """

    def __init__(self, integers: bool = False):
        super().__init__()
        self.integers = integers

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        x = args[0] if args else None
        if not torch.is_tensor(x) or x.dtype == F64 or self.integers:
            if func is torch.Tensor.float:
                return x.to(F64)
            swap = lambda v: F64 if v is F32 else v
            args, kwargs = tuple(swap(v) for v in args), {k: swap(v) for k, v in kwargs.items()}
        return func(*args, **kwargs)


@dataclass
class Trace:
    logits: Tensor
    hidden: list
    attention: list
    attention_grad: list

    def arrays(self) -> dict:
        out = {"logits": self.logits}
        for k in ("hidden", "attention", "attention_grad"):
            out |= {f"{k}.{l}": t for l, t in enumerate(getattr(self, k))}
        return out


def run(case: Case, model: nn.Module, dtype, targets=None, inputs=None) -> Trace:
    """A pass and the gradient of the targets' logits (as predicted, if not given)."""
    reads, gives, attention = [], [], []

    def keep(module, args, kwargs, out):
        reads.append(args[0] if args else kwargs["hidden_states"])
        gives.append(out[0] if isinstance(out, tuple) else out)

    seen = lambda module, args, out: attention.append(out[1] if isinstance(out, tuple) else out)
    where = "attn.attn_drop" if case.timm else case.family.attention
    hooks = [m.register_forward_hook(keep, with_kwargs=True) for m in case.modules(model)]
    hooks += [m.register_forward_hook(seen) for m in case.modules(model, "." + where)] if where else []
    kw = {k: v.to(dtype) if v.is_floating_point() else v for k, v in (inputs or case.inputs).items()}
    try:
        with Exact() if dtype == F64 else contextlib.nullcontext():
            out = model(kw["pixel_values"]) if case.timm else model(**kw, output_attentions=True, output_hidden_states=True)
    finally:
        for h in hooks:
            h.remove()
    hidden = [*reads, gives[-1]]
    logits, attention = (out, attention) if case.timm else (out.logits, attention or list(out.attentions))
    assert len(attention) == len(reads), (case.name, len(attention), len(reads))
    if not case.timm:      # all that transformers returns is among it (but the last one, which some give behind the final norm)
        assert all(any(torch.equal(x, y) for y in hidden) for x in out.hidden_states[:-1]), case.name
    picked = logits.gather(1, (logits.argmax(1) if targets is None else torch.tensor(targets))[:, None])
    grads = torch.autograd.grad(picked.sum(), attention)
    detach = lambda ts: [t.detach() for t in ts]
    return Trace(logits.detach(), detach(hidden), detach(attention), detach(grads))


def far(a: Trace, b: Trace) -> dict:
    """Largest differences of two passes."""
    worst: dict = {}
    for (k, x), y in zip(a.arrays().items(), b.arrays().values()):
        k = k.split(".")[0]
        worst[k] = max(worst.get(k, 0.0), float((x - y).abs().max()))
    return worst


def check(case: Case, tr: Trace) -> None:
    """Far from a tie, attention not uniform, padding without influence."""
    top = tr.logits.topk(2, 1).values
    assert float((top[:, 0] - top[:, 1]).min()) > 0.1, (case.name, "too close to a tie", tr.logits)
    n = min(case.lengths)
    for l, a in enumerate(tr.attention):
        assert float(a[1, :, :n].amax(-1).mean()) > 1.5 / min(n, a.shape[-1]), (case.name, l, "attention is close to uniform")
        assert float(tr.attention_grad[l].abs().max()) > 1e-3, (case.name, l, "nothing depends on attention")
    if "attention_mask" not in case.inputs:
        return
    alone = run(case, case.exact(), F64, case.info["targets"][1:], {k: v[1:, :n] for k, v in case.inputs.items()})
    cut = lambda ts, *at: [t[(slice(1, 2), *at)] for t in ts]
    rows, square = (slice(n),), (slice(None), slice(n), slice(n))
    padded = Trace(tr.logits[1:], cut(tr.hidden, *rows), cut(tr.attention, *square), cut(tr.attention_grad, *square))
    assert max(far(alone, padded).values()) < 1e-10, (case.name, far(alone, padded))


def check_reload(case: Case, folder: str, tr: Trace) -> None:
    """The saved folder gives the logits, its tokenizer.json the ids."""
    with torch.no_grad():
        again = case.load_model(folder)(*case.inputs.values()) if case.timm else case.load_model(folder)(**case.inputs)
    logits = again if torch.is_tensor(again) else again.logits
    assert float((logits - tr.logits).abs().max()) < 1e-5, (case.name, "reloaded", logits, tr.logits)
    if "texts" in case.info:
        bare, auto = Tokenizer.from_file(os.path.join(folder, "tokenizer.json")), tf.AutoTokenizer.from_pretrained(folder)
        for (a, b), ids, n in zip(case.info["texts"], case.inputs["input_ids"].tolist(), case.lengths):
            assert bare.encode(a, b).ids == ids[:n] == auto(*(t for t in (a, b) if t))["input_ids"], (case.name, "tokenizer")


# --------------------------------------------------------------------------- writing
def make(name: str, out: str) -> Case:
    case = build(name)
    exact = case.exact()
    top = run(case, exact, F64).logits.argmax(1).tolist()
    case.info["targets"] = [top[0], (top[1] + 1) % LABELS]          # the predicted class, and another one
    tr = run(case, exact, F64, case.info["targets"])
    error = far(tr, run(case, case.model, F32, case.info["targets"]))
    assert max(error.values()) < 5e-5, (name, error)
    check(case, tr)
    folder = os.path.join(out, name)
    shutil.rmtree(folder, ignore_errors=True)
    case.save_model(os.path.join(folder, "model"))
    check_reload(case, os.path.join(folder, "model"), tr)
    save_file({k: v.contiguous().clone() for k, v in case.inputs.items()}, os.path.join(folder, "inputs.safetensors"))
    save_file({k: v.to(F32).contiguous().clone() for k, v in tr.arrays().items()}, os.path.join(folder, "expected.safetensors"))
    with open(os.path.join(folder, "model/config.json")) as f:
        config = json.load(f)
    meta = {"case": name, "model_type": config.get("model_type"), "architecture": config.get("architecture") or config["architectures"][0],
            "lengths": case.lengths, **case.info, "f32_error": {k: float(f"{v:.2g}") for k, v in error.items()}, "notes": case.family.notes}
    with open(os.path.join(folder, "case.json"), "w") as f:
        lines = [f" {json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}" for k, v in meta.items()]
        f.write("{\n" + ",\n".join(lines) + "\n}\n")
    for path, _, files in os.walk(folder):
        for file in files:
            os.chmod(os.path.join(path, file), 0o644)
    return case


def differences(new: str, old: str) -> list:
    """What `new` has otherwise than `old`, a line each; the last bits may differ between machines."""
    out = []
    for file in ("model/model", "inputs", "expected"):
        a, b = (load_file(os.path.join(d, file + ".safetensors")) for d in (new, old))
        out += [f"{file}: {k} only {'made' if k in a else 'stored'}" for k in sorted(a.keys() ^ b.keys())]
        for k in sorted(a.keys() & b.keys()):
            x, y = a[k].to(F64), b[k].to(F64)
            if x.shape != y.shape:
                out.append(f"{file}: {k} is {list(x.shape)}, stored {list(y.shape)}")
            elif float((x - y).abs().max()) > 1e-9 + 2.0 ** -22 * float(y.abs().max()):
                out.append(f"{file}: {k} differs by {float((x - y).abs().max()):.3g} of {float(y.abs().max()):.3g}")
    for file in ("case.json", "model/config.json"):
        a, b = (json.load(open(os.path.join(d, file))) for d in (new, old))
        out += [f"{file}: {k} is {a.get(k)}, stored {b.get(k)}" for k in sorted(a.keys() | b.keys())
                if a.get(k) != b.get(k) and k not in ("f32_error", "transformers_version")]
    return out


def tensors(folder: str) -> list:
    return [f"{k} {list(v.shape)}" for k, v in sorted(load_file(os.path.join(folder, "model/model.safetensors")).items())]



def main() -> int:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    ap.add_argument("--check", action="store_true", help="compare with what is there, write nothing")
    ap.add_argument("--tensors", action="store_true", help="list the tensors of model.safetensors")
    args = ap.parse_args()
    if wrong := set(args.cases) - set(CASES):
        ap.error(f"no such case: {', '.join(sorted(wrong))}; there are {', '.join(CASES)}")
    bad = 0
    for name in args.cases or CASES:
        start = time.time()
        with tempfile.TemporaryDirectory() as tmp:
            out = tmp if args.check else OUT
            make(name, out)
            lines = differences(os.path.join(tmp, name), os.path.join(OUT, name)) if args.check else []
            bad += len(lines)
            size = sum(os.path.getsize(os.path.join(p, f)) for p, _, files in os.walk(os.path.join(out, name)) for f in files)
            lines += tensors(os.path.join(out, name)) if args.tensors else []
        told = "checked" if args.check else "written"
        print(f"{name:22s} {size / 1000:5.0f} KB  {told}  {time.time() - start:5.1f} s", *lines, sep="\n  ")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
