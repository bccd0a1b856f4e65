//! Gradient times input: what each pixel or word adds to the explained logit, to first order.
//!
//! Shrikumar et al. 2016. `G * x`, summed over channels and patches, or over a word's vector; signed, `[T]` and
//! `[H,W]`. It depends on where zero lies, hence on the normalisation. `at=embedding` multiplies at the state entering
//! the first layer instead (prefix tokens and position embeddings then have a share), the default with `libra=true`
//! (Mehri et al., CVPR 2025; the authors' choice). `reduce=l2`: the length of `G * E` over a word's vector (texts).
//!
//! With `libra=true` states and constants sum to the logit; the record carries both sums and the gap. Class-specific.

use crate::encoder::Facts;
use crate::error::Result;
use crate::method::account::checks;
use crate::method::combine::values;
use crate::method::contract::{Entry, Method, Relevance};
use crate::method::input_map::{of_layer, of_pixels, PixelOptions, Place, Pool, Reduce};
use crate::nn::{numbers, Rules};
use crate::run::{Params, Reads, Run};

pub(super) const ENTRY: Entry = Entry {
    name: "gradient-x-input",
    aliases: &["input-x-gradient"],
    title: "gradient times input: first-order share of each pixel or word",
    paper: "Shrikumar et al. 2016; libra: Mehri et al., CVPR 2025",
    class_specific: true,
    build,
};

struct GradientXInput {
    rules: Rules,
    place: Place,
    reduce: Reduce,
    options: PixelOptions,
}

fn build(params: &mut Params) -> Result<Box<dyn Method>> {
    let rules = params.libra()?;
    let about =
        "where it is multiplied: pixels and word vectors, or the first layer's input (auto: embedding with libra)";
    let auto = if rules == Rules::LIBRA { Place::Embedding } else { Place::Input };
    let places = [&[("auto", auto)], Place::NAMES].concat();
    let place = params.one_of("at", &places, about)?;
    let reduce = Reduce::read(params)?;
    Ok(Box::new(GradientXInput { rules, place, reduce, options: PixelOptions::read(params, false)? }))
}

impl Method for GradientXInput {
    fn reads(&self) -> Reads {
        Reads::Constants
    }

    fn staged(&self) -> bool {
        true
    }

    fn explain(&self, run: &Run<'_>) -> Result<Relevance> {
        let mut relevance = match self.place {
            Place::Embedding => {
                let (state, gradient) = run.state_and(&*run.reverse(&self.rules)?, 0)?;
                of_layer(run, numbers(&self.reduce.apply(&(state * gradient)?)?)?, 0, Pool::Sum)?
            }
            Place::Input => {
                let product = (run.subject()?.values()? * run.input_under(&self.rules)?)?;
                if run.is_text() {
                    values(&self.reduce.apply(&product)?)?
                } else {
                    of_pixels(run, &product.sum(0)?, Pool::Sum, self.options)?
                }
            }
        };
        if self.rules.conserves() {
            relevance.checks = checks(run, &self.rules)?;
        }
        Ok(relevance)
    }

    fn signed(&self) -> bool {
        self.reduce == Reduce::Sum
    }

    fn pixels(&self, model: &Facts) -> bool {
        self.place == Place::Input || model.staged()
    }

    fn rules(&self) -> Vec<Rules> {
        vec![self.rules]
    }
}
