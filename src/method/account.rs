//! The account of a reverse pass that carries relevance as gradients: where it all went.

use crate::error::Result;
use crate::nn::{numbers, Rules};
use crate::run::Run;
use candle_core::Tensor;
use serde_json::{Map, Value};

/// Where relevance goes under rules that carry gradients: of the input, of what the embedding adds, of the constants
/// behind it, and the logit they should sum to.
pub fn terms(run: &Run<'_>, rules: &Rules) -> Result<[f64; 4]> {
    let reversed = run.reverse(rules)?;
    let total = |t: Tensor| -> Result<f64> { Ok(numbers(&t)?.iter().sum()) };
    let input = total((run.subject()?.values()? * run.input_under(rules)?)?)?;
    let (state, carried) = run.state_and(&reversed, 0)?;
    let embedding = total((state * carried)?)? - input;
    let constants = run.constants(&reversed)?.into_iter().map(total).sum::<Result<f64>>()?;
    Ok([input, embedding, constants, run.logit()?])
}

/// The record's account of [`terms`].
pub fn checks(run: &Run<'_>, rules: &Rules) -> Result<Map<String, Value>> {
    let [input, embedding, constants, logit] = terms(run, rules)?;
    let account = [
        ("relevance_input", input),
        ("relevance_embedding", embedding),
        ("relevance_constants", constants),
        ("logit", logit),
        ("conservation_gap", logit - input - embedding - constants),
    ];
    let mut checks: Map<String, Value> = account.into_iter().map(|(k, v)| (k.to_string(), v.into())).collect();
    checks.insert("conserves".into(), rules.conserves().into());
    Ok(checks)
}
