//! Relevance propagation: how does the output divide among the inputs, layer by layer?

mod attn_lrp;
mod lrp;

use super::contract::Group;

/// The methods of this kind.
pub(super) const GROUP: Group = Group {
    name: "relevance propagation",
    question: "how does the output divide among the inputs, layer by layer?",
    notice: Some(PATENT),
    methods: &[lrp::LRP, lrp::PARTIAL_LRP, lrp::FULL_LRP, attn_lrp::ATTN_LRP, attn_lrp::CP_LRP, attn_lrp::RESLRP],
};

const PATENT: &str =
    "patent: layer-wise relevance propagation is covered by a patent whose holders let it be used free of
  charge for research; commercial users should check";
