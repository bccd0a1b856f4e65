"""Write src/model/family/timm.json: the arguments behind timm's names of plain vision transformers, BEiTs and EVAs, which its checkpoints do
not repeat.

    pip install timm==1.0.31 && python tests/reference/timm_architectures.py

Left out is what vitx's encoder does not do: other blocks (parallel, differential), RMS norms, norms of queries and keys, no final norm.
"""
from __future__ import annotations

import functools
import json
import os

import timm
from timm.models import beit, deit, eva, vision_transformer as vit
from torch import nn

KNOWN = ("img_size", "patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio", "qkv_bias", "init_values", "class_token", "no_embed_class",
         "reg_tokens", "pre_norm", "global_pool", "fc_norm", "act_layer", "dynamic_img_size", "distilled",
         "use_abs_pos_emb", "use_rel_pos_bias", "eva", "qkv_fused", "swiglu_mlp", "scale_mlp", "scale_attn_inner", "use_rot_pos_emb", "use_post_norm")
OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../src/model/family/timm.json")


def plain(args: dict) -> dict | None:
    """The arguments as JSON; none for what is not done."""
    out = {}
    for key, value in args.items():
        if key == "norm_layer" and isinstance(value, functools.partial) and set(value.keywords) == {"eps"} and value.func.__name__ == "LayerNorm":
            out["norm_eps"] = value.keywords["eps"]
        elif key == "mlp_layer" and value is vit.SwiGLUPacked:
            out["swiglu"] = True
        elif key == "act_layer" and value is nn.SiLU:
            out["act_layer"] = "silu"
        elif key == "ref_feat_shape" and value[0] == value[1]:
            out[key] = value[0]
        elif key in KNOWN and isinstance(value, (bool, int, float, str)):
            out[key] = value
        else:
            return None
    return out


def main() -> None:
    made: dict = {}
    taken = {}

    def take(name, pretrained=False, distilled=False, **args):
        args.pop("weight_init", None)
        taken[name] = dict(args, **({"distilled": True} if distilled else {}))

    def take_beit(name, pretrained=False, **args):
        take(name, **{"global_pool": "avg", **args})

    def take_eva(name, pretrained=False, **args):
        take_beit(name, eva=True, **args)

    setattr(beit, "_create_beit", take_beit)
    setattr(eva, "_create_eva", take_eva)
    for module in (beit, eva):
        for name in timm.list_models(module=module.__name__.rsplit(".", 1)[-1]):
            if module is beit or name.startswith("eva"):
                getattr(module, name)()
    for module, maker in ((vit, "_create_vision_transformer"), (deit, "_create_deit")):
        setattr(module, maker, take)
        for name in timm.list_models(module=module.__name__.rsplit(".", 1)[-1]):
            getattr(module, name)()
    for name in sorted(taken):
        if (args := plain(taken[name])) is not None:
            made[name] = args
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(args)}" for name, args in made.items())
    with open(OUT, "w") as file:
        file.write("{\n" + lines + "\n}\n")
    print(f"{len(made)} of {len(taken)} architectures")


if __name__ == "__main__":
    main()
