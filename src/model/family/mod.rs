//! One file a model family: its config read into a spec, and the names of its tensors.
//!
//! # To add a family
//!
//! 1. A file `model_type.rs` here with a `FAMILY` (see `bert.rs`; a family that differs little from another is a difference
//!    from it, see `roberta.rs`), `pub(super) mod model_type;` below and `family::model_type::FAMILY` in `FAMILIES` of
//!    `src/model/mod.rs`. The command line, `vitx models` and the README's table follow.
//! 2. `spec` reads `config.json` with HuggingFace's defaults into a [`Spec`](crate::model::Spec): sizes, where the norms
//!    stand, the embedding, what the head pools, and every layer as data. Layers that are all alike are a `Uniform`, spelled
//!    out under one or more ways of naming tensors; single layers are changed afterwards (`modernbert.rs`: a window, another
//!    base of the rotation, no first norm). What the config asks for and the family does not do is an error naming the key:
//!    never a guess.
//! 3. What the encoder cannot do yet is a variant of one of its small enums, with forward, reverse, rules and tests in one
//!    file: scores of queries and keys and which keys are seen (`src/nn/scores.rs`), norms (`src/nn/norm.rs`), gates
//!    (`src/encoder/feed_forward.rs`), what a head pools and the steps behind (`src/encoder/head.rs`). The compiler names every
//!    place to extend; methods need no change, since they read the trace and not the layer.
//! 4. A case in `tests/reference/families.py` (its passes), held by `tests/all/kin.rs`; what is built otherwise than all others gets
//!    golden arrays of every method: an entry in `tests/reference/cases.py`, `python tests/reference/make.py CASE`, the case's name in `CASES`
//!    of `tests/all/support.rs`. They hold the passes to transformers' own model, and every method to its reference.
//! 5. The family in `FAMILIES` of `tests/all/conservation.rs`: random models of it must keep relevance.
//! 6. `vitx models --markdown` into the README, a line in the CHANGELOG, `cargo test`.

pub(super) mod albert;
pub(super) mod beit;
pub(super) mod bert;
pub(super) mod camembert;
pub(super) mod chinese_clip;
pub(super) mod clip;
pub(super) mod data2vec_text;
pub(super) mod data2vec_vision;
pub(super) mod deberta;
pub(super) mod deberta_v2;
pub(super) mod deit;
pub(super) mod dinov2;
pub(super) mod dinov2_with_registers;
pub(super) mod dinov3_vit;
pub(super) mod distilbert;
pub(super) mod electra;
pub(super) mod ernie;
pub(super) mod ijepa;
pub(super) mod modernbert;
pub(super) mod mpnet;
pub(super) mod roberta;
pub(super) mod roberta_prelayernorm;
pub(super) mod siglip;
pub(super) mod swin;
pub(super) mod swinv2;
pub(super) mod timm;
pub(super) mod vit;
pub(super) mod vit_msn;
pub(super) mod xlm_roberta;
