"""Class activation maps on the tokens of one layer."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from emit import Emit, Tolerance
from inputs import forward_row

TOLERANCE = Tolerance(1e-6, 2e-5, 10)

P = {"gradcam": "Selvaraju et al. 2017, Grad-CAM", "gradcam-plusplus": "Chattopadhyay et al. 2018, Grad-CAM++",
     "hirescam": "Draelos & Carin 2020, HiResCAM", "xgradcam": "Fu et al. 2020, Axiom-based Grad-CAM",
     "layercam": "Jiang et al. 2021, LayerCAM", "eigencam": "Muhammad & Yeasin 2020, Eigen-CAM",
     "scorecam": "Wang et al. 2020, Score-CAM"}


def activation_and_gradient(case, dtype, layer: int, where: str) -> tuple[Tensor, Tensor]:
    """Tokens [B,T,D] at a block and the gradient of the target logit there.

    where = "norm1": output of the first LayerNorm of block `layer` (pre-LN models only);
    where = "hidden": hidden.{layer}, i.e. the input of block `layer`.
    """
    lays, kept = case.layers(dtype), {}

    def hook(mod, args, out=None):
        t = args[0] if where == "hidden" else out
        if not t.requires_grad:
            t.requires_grad_(True)
        kept["a"] = t

    mod = lays[layer].module if where == "hidden" else lays[layer].ln1
    if where == "hidden":
        h = mod.register_forward_pre_hook(lambda m, a: hook(m, a))
    else:
        h = mod.register_forward_hook(lambda m, a, o: hook(m, a, o))
    try:
        out = case.picked(case.logits(dtype)).sum()
    finally:
        h.remove()
    g = torch.autograd.grad(out, kept["a"])[0]
    return kept["a"].detach(), g.detach()


def to_grid(case, t: Tensor) -> Tensor:
    """[B,T,D] -> [B,D,rows,cols] without the prefix tokens."""
    p = t[:, case.n_prefix:]
    return p.reshape(t.shape[0], *case.grid, -1).permute(0, 3, 1, 2)


def signed_maps(A: Tensor, G: Tensor) -> dict:
    """All gradient-based CAMs before the ReLU; A, G are [B,D,h,w] -> [B,h,w]."""
    out = {}
    weigh = lambda w: (w[:, :, None, None] * A).sum(1)
    out["gradcam"] = weigh(G.mean((2, 3)))
    total = A.sum((2, 3), keepdim=True)
    g2 = G * G
    alpha = g2 / (2 * g2 + total * g2 * G + 1e-6)
    alpha = torch.where(G != 0, alpha, torch.zeros_like(alpha))
    out["gradcam-plusplus"] = weigh((alpha * G.clamp(min=0)).sum((2, 3)))
    out["hirescam"] = (G * A).sum(1)
    out["xgradcam"] = weigh((G * A / (total + 1e-7)).sum((2, 3)))
    out["layercam"] = (G.clamp(min=0) * A).sum(1)
    return out


DEF = {
    "gradcam": "w_d = mean over patches of G_d; sum_d w_d A_d",
    "gradcam-plusplus": "alpha = G^2 / (2 G^2 + S_d G^3 + 1e-6) with S_d = sum over patches of A_d, alpha = 0 where "
                        "G = 0; w_d = sum over patches of alpha * max(G_d, 0); sum_d w_d A_d",
    "hirescam": "sum_d G_d A_d",
    "xgradcam": "w_d = sum over patches of G_d A_d / (S_d + 1e-7) with S_d = sum over patches of A_d; sum_d w_d A_d",
    "layercam": "sum_d max(G_d, 0) A_d",
}


def eigen_projection(A: Tensor) -> Tensor:
    """[B,D,h,w] -> [B,h,w]: patches as rows, columns centred, projection on the first right singular vector.

    The sign of a singular vector is arbitrary; here the entry of largest magnitude is made positive.
    """
    out = []
    for a in A:
        X = a.flatten(1).T
        X = X - X.mean(0)
        _, _, vt = torch.linalg.svd(X, full_matrices=False)
        p = X @ vt[0]
        if p[p.abs().argmax()] < 0:
            p = -p
        out.append(p.reshape(a.shape[1:]))
    return torch.stack(out)


def score_cam(case, dtype, A: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(signed map [B,h,w], channel weights [B,D], masked-image logits [B,D])."""
    x = case.inputs["pixel_values"].to(dtype)
    up = F.interpolate(A, size=x.shape[-2:], mode="bilinear", align_corners=True)
    lo, hi = up.amin((2, 3), keepdim=True), up.amax((2, 3), keepdim=True)
    up = (up - lo) / (hi - lo + 1e-8)
    scores = []
    for b in range(case.B):
        with torch.no_grad():
            z = forward_row(case, dtype, b, pixel_values=x[b][None] * up[b][:, None])
        scores.append(z[:, int(case.targets[b])])
    s = torch.stack(scores)
    w = torch.softmax(s, 1)
    return (w[:, :, None, None] * A).sum(1), w, s


def produce(case, emit: Emit) -> None:
    L = len(case.layers())
    if not case.vision:
        return text(case, emit)
    spots = [("", L - 1, "norm1"), (".layer1", 1, "norm1"), (f".hidden{L - 1}", L - 1, "hidden")]
    for suffix, layer, where in spots:
        A, G = activation_and_gradient(case, emit.dtype, layer, where)
        A, G = to_grid(case, A), to_grid(case, G)
        at = (f"output of the first LayerNorm of block {layer}" if where == "norm1"
              else f"hidden.{layer} (input of block {layer})")
        par = {"layer": layer, "where": where}
        pre = (f"A = {at}, G = d logit[target] / d A, both [B,D,rows,cols] after dropping the {case.n_prefix} prefix "
               "token(s); ")
        for name, v in signed_maps(A, G).items():
            if suffix.startswith(".hidden") and name != "gradcam":
                continue
            emit(f"method.{name}{suffix}.signed", v, method=name, params=par, meaning="before the ReLU [B,rows,cols]",
                 definition=pre + DEF[name], paper=P[name])
            emit(f"method.{name}{suffix}", v.clamp(min=0), method=name, params=par, meaning="[B,rows,cols], >= 0",
                 definition=pre + "max(0, " + DEF[name] + ")", paper=P[name])
        if suffix:
            continue
        v = eigen_projection(A)
        emit("method.eigencam.signed", v, params={**par, "sign": "entry of largest magnitude positive"},
             meaning="[B,rows,cols], sign canonicalised", paper=P["eigencam"],
             definition=pre + "X = patches x D matrix, columns centred; X v1, v1 = first right singular vector. The sign "
                              "of v1 is arbitrary: flipped so that the entry of largest magnitude is positive")
        emit("method.eigencam", v.clamp(min=0), params={**par, "sign": "entry of largest magnitude positive"},
             meaning="[B,rows,cols], >= 0", definition="max(0, eigencam.signed)", paper=P["eigencam"])
        v, w, s = score_cam(case, emit.dtype, A)
        d = (pre + "M_d = A_d resized to the image by bilinear interpolation WITH align_corners=True, then min-max "
                   "normalised (divisor max-min+1e-8); s_d = logit[target](pixel_values * M_d); w = softmax over d of s; "
                   "sum_d w_d A_d")
        emit("method.scorecam.logits", s, params=par, meaning="s_d [B,D]", definition=d, paper=P["scorecam"])
        emit("method.scorecam.weights", w, params=par, meaning="w_d [B,D]", definition=d, paper=P["scorecam"])
        emit("method.scorecam.signed", v, params=par, meaning="before the ReLU [B,rows,cols]", definition=d,
             paper=P["scorecam"])
        emit("method.scorecam", v.clamp(min=0), params=par, meaning="[B,rows,cols], >= 0",
             definition="max(0, scorecam.signed)", paper=P["scorecam"])


def text(case, emit: Emit) -> None:
    """Token version: the states entering the last block, statistics over the real tokens only."""
    L = len(case.layers())
    A, G = activation_and_gradient(case, emit.dtype, L - 1, "hidden")
    m = case.mask2d.to(emit.dtype)[..., None]
    n = m.sum(1)
    cam = ((G * m).sum(1, keepdim=True) / n[:, None] * A * m).sum(-1)
    hi = (G * A * m).sum(-1)
    par = {"layer": L - 1, "where": "hidden"}
    pre = f"A = hidden.{L - 1} (input of the last block), G = d logit[target] / d A, padded tokens excluded; "
    for name, v, d in (("gradcam", cam, "w_d = mean over real tokens of G_d; sum_d w_d A_d"), ("hirescam", hi, DEF["hirescam"])):
        emit(f"method.{name}.signed", v, params=par, meaning="before the ReLU [B,T]", definition=pre + d, paper=P[name])
        emit(f"method.{name}", v.clamp(min=0), params=par, meaning="[B,T], >= 0", definition=pre + f"max(0, {d})",
             paper=P[name])
