"""ViT-CX: causal scores of clustered feature-map masks."""
from __future__ import annotations

import torch
from torch import Tensor

from cam import activation_and_gradient, to_grid
from emit import Emit, Tolerance
from inputs import patch_pool, score_row, upsample

TOLERANCE = Tolerance(1e-6, 2e-5, 10)

DELTA = 0.1
K_NOISE = 2
NOISE_STD = 0.1
PAPER = "Xie, Li, Cao & Zhang 2023, ViT-CX: causal explanation of vision transformers"


def min_max_rows(m: Tensor) -> Tensor:
    """[N, ...] -> each row mapped to [0,1]; a constant row becomes 0 (the original code yields NaN)."""
    f = m.flatten(1)
    lo, hi = f.amin(1, keepdim=True), f.amax(1, keepdim=True)
    return torch.where(hi > lo, (f - lo) / torch.where(hi > lo, hi - lo, torch.ones_like(hi)),
                       torch.zeros_like(f)).reshape(m.shape)


def complete_linkage(distance: Tensor, delta: float) -> tuple[list, list]:
    """Agglomerative clustering, complete linkage: keep merging the closest pair while its distance < delta.

    Returns (label of every item, merge distances including the first one that was refused).
    Clusters are numbered by their smallest member.
    """
    groups = [[i] for i in range(distance.shape[0])]
    d = distance.tolist()
    link = lambda a, b: max(d[i][j] for i in a for j in b)
    heights = []
    while len(groups) > 1:
        best = min(((link(groups[i], groups[j]), i, j) for i in range(len(groups)) for j in range(i + 1, len(groups))))
        heights.append(best[0])
        if best[0] >= delta:
            break
        _, i, j = best
        groups[i] = groups[i] + groups[j]
        del groups[j]
    groups.sort(key=min)
    label = [0] * distance.shape[0]
    for k, g in enumerate(groups):
        for i in g:
            label[i] = k
    return label, heights


def feature_masks(case, dtype) -> Tensor:
    """[B,D,H,W]: patch features of the last block's first LayerNorm, resized to the image, min-max per channel."""
    L = len(case.layers())
    A, _ = activation_and_gradient(case, dtype, L - 1, "norm1")
    size = tuple(case.inputs["pixel_values"].shape[-2:])
    up = upsample(to_grid(case, A), size)
    return torch.stack([min_max_rows(m) for m in up])


def cosine_distance(masks: Tensor) -> Tensor:
    """[N,H,W] -> [N,N] = 1 - cosine similarity; similarity 0 where a mask is identically 0."""
    f = masks.flatten(1)
    n = f.norm(dim=1)
    sim = f @ f.T / (n[:, None] * n[None])
    return 1 - torch.nan_to_num(sim, nan=0.0)


def explain_row(case, dtype, b: int, masks: Tensor, labels: list, noise: Tensor) -> dict:
    """Steps after the clustering for example b; masks [D,H,W], noise [K,3,H,W] standard normal, reused cyclically."""
    x = case.inputs["pixel_values"][b].to(dtype)
    n = max(labels) + 1
    cl = torch.zeros(n, *masks.shape[1:], dtype=dtype)
    for i, k in enumerate(labels):
        cl[k] += masks[i]
    cl = min_max_rows(cl)
    extra = NOISE_STD * noise[torch.arange(n) % len(noise)] * (1 - cl[:, None])
    _, p_masked = score_row(case, dtype, b, pixel_values=x * cl[:, None] + extra)
    _, p_noisy = score_row(case, dtype, b, pixel_values=x + extra)
    _, p = score_row(case, dtype, b, pixel_values=x[None])
    s = p_masked - p_noisy + p
    cover = cl.sum(0)
    share = torch.where(cover > 0, cl / torch.where(cover > 0, cover, torch.ones_like(cover)), torch.zeros_like(cl))
    return {"masks": cl, "p_masked": p_masked, "p_noisy": p_noisy, "scores": s,
            "map": torch.einsum("n,nhw->hw", s, share) / n}


def produce(case, emit: Emit) -> None:
    if not case.vision:
        return
    dtype = emit.dtype
    masks = feature_masks(case, dtype)
    cut, labels, margins = [], [], []
    for b in range(case.B):
        lab, heights = complete_linkage(cosine_distance(masks[b]), DELTA)
        labels.append(lab)
        margins.append(min(abs(h - DELTA) for h in heights))
        cut.append(max(lab) + 1)
        assert margins[-1] > 2e-5, (case.name, "a merge distance is too close to the threshold", margins)
    N = max(cut)
    H, W = masks.shape[-2:]
    noise = emit.normal("vit-cx", (K_NOISE, 3, H, W))
    rows = [explain_row(case, dtype, b, masks[b], labels[b], noise) for b in range(case.B)]

    def stack(key):
        full = torch.zeros(case.B, N, *rows[0][key].shape[1:], dtype=dtype)
        for b, r in enumerate(rows):
            full[b, :r[key].shape[0]] = r[key]
        return full

    par = {"layer": len(case.layers()) - 1, "where": "norm1", "delta": DELTA, "noise_std": NOISE_STD,
           "clusters": cut, "cut_margin": [float(m) for m in margins],
           "noise": "noise.vit-cx [2,3,H,W] standard normal; cluster i of every example uses noise[i mod 2]"}
    kw = dict(method="vit-cx", params=par, paper=PAPER)
    emit("method.vit-cx.feature-masks", masks[0], meaning="one mask per channel, before clustering, of example 0 [D,H,W]", big=True,
         definition="patch tokens of the first LayerNorm of the last block, one map per channel, bilinear resize to the "
                    "image (half-pixel centres, edges clamped), then min-max to [0,1] per channel", **kw)
    emit("method.vit-cx.labels", torch.tensor(labels, dtype=dtype), meaning="cluster index of every channel [B,D]",
         definition="complete-linkage agglomerative clustering of the flattened feature masks with distance 1 - cosine "
                    "similarity; pairs of clusters are merged while the smallest linkage distance is < delta; clusters "
                    "are numbered in the order of their smallest channel index", atol=0.0, rtol=0.0, **kw)
    emit("method.vit-cx.count", torch.tensor(cut, dtype=dtype), meaning="number of clusters [B]",
         definition="number of distinct labels of the row", atol=0.0, rtol=0.0, **kw)
    emit("method.vit-cx.masks", stack("masks"), meaning="clustered masks [B,N,H,W], zero for i >= count[b]",
         definition="sum of the member feature masks, min-max to [0,1]", big=True, **kw)
    emit("method.vit-cx.p-masked", stack("p_masked"), meaning="[B,N]",
         definition="softmax probability of the target for X*M_i + 0.1*noise_i*(1-M_i)", **kw)
    emit("method.vit-cx.p-noisy", stack("p_noisy"), meaning="[B,N]",
         definition="softmax probability of the target for X + 0.1*noise_i*(1-M_i)", **kw)
    emit("method.vit-cx.scores", stack("scores"), meaning="causal score [B,N], zero for i >= count[b]",
         definition="s_i = p_masked_i - p_noisy_i + p(X)", **kw)
    m = torch.stack([r["map"] for r in rows])
    d = "(1/N) sum_i s_i M_i / sum_j M_j per pixel, N = count[b]; pixels covered by no mask get 0"
    emit("method.vit-cx", m, meaning="[B,H,W]", definition=d, **kw)
    emit("method.vit-cx.patch", patch_pool(case, m, "mean"), meaning="[B,rows,cols]",
         definition=d + "; mean over the pixels of a patch", **kw)
