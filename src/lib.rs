//! Why did the model say that? Attribution for HuggingFace Vision Transformers and BERTs, on candle.
//!
//! One recorded forward pass and one reverse pass that we own become signed relevance over tokens:
//!
//! ```text
//! Checkpoint -> Model --+
//! picture, text -> Inputs --> Batch (one forward pass) -> Pass (one reverse pass a target) -> Run -> Explanation -> bytes
//! Target --------------------------------------------------^
//! ```
//!
//! Shape letters, everywhere: B batch, T tokens, H heads, D width, E = D/H, F feed-forward width, C classes, L layers.
//!
//! ```
//! # #[cfg(feature = "demo")] {
//! use candle_core::{DType, Device};
//! use vitx::{input, method, model, run, target::Target};
//!
//! let model = model::Checkpoint::open("demo-vit", &model::Access::default())?.load(DType::F32, &Device::Cpu)?;
//! let picture = input::image::decode(include_bytes!("../assets/cat.jpg"))?;
//! let model::Processor::Image(processor) = &model.checkpoint.processor else { unreachable!() };
//! let (inputs, layouts) = model.image_inputs(&[processor.apply(&picture)?])?;
//! let batch = run::Batch::new(&model.encoder, inputs, layouts)?;
//! let outputs = Target::Predicted.resolve(&batch.logits()?[0]);
//! let explanation = method::parse("gae")?.explain(&batch.pass(outputs)?.run(0))?;
//! assert_eq!(explanation.content().len(), 12 * 12); // one signed, unnormalised value a patch
//! # }
//! # Ok::<(), vitx::Error>(())
//! ```
//!
//! Nothing here prints or touches the network unless a hub id is opened; `render` returns bytes.

pub mod abreast;
pub mod device;
pub mod encoder;
pub mod error;
pub mod evaluate;
pub mod explain;
pub mod explanation;
pub mod guard;
pub mod identity;
pub mod input;
pub mod labels;
pub mod maximize;
pub mod method;
pub mod model;
pub mod nn;
pub mod output;
pub mod render;
pub mod resume;
pub mod run;
pub mod scale;
pub mod summary;
pub mod target;
pub mod trace;
pub mod worker;

pub use error::{Error, Result};
