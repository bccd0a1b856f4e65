//! Checkpoints in HuggingFace layout: found, checked against their config, and built into an [`Encoder`].

mod assemble;
pub mod builtin;
mod checkpoint;
mod classes;
mod config;
mod facts;
mod family;
mod given;
#[cfg(feature = "hub")]
pub mod hub;
mod hypotheses;
mod inputs;
mod naming;
mod pickle;
mod preparation;
mod safetensors;
mod said;
mod sentence;
mod sniff;
mod spec;
mod task;
mod torch;
mod towers;
mod weights;

pub use checkpoint::{Access, Files};
pub use config::Config;
pub use facts::Demand;
pub use given::Reference;
pub use hypotheses::Hypotheses;
pub use spec::{EmbeddingSpec, Family, Modality, Pooling, Spec, Task};
pub use towers::{Classes, Outputs};

pub use crate::input::prepare::Processor;

use crate::encoder::{Encoder, Neutral};
use crate::error::{Error, Result};
use crate::labels::Labels;
use crate::scale::Scale;
use assemble::{Classifier, Contents};
use candle_core::{DType, Device};
use given::Given;
use preparation::{image_processor, tables, text_processor, zero_shot};
use said::{said, Said};

/// Every family vitx reads.
pub const FAMILIES: &[Family] = &[
    family::vit::FAMILY,
    family::deit::FAMILY,
    family::dinov2::FAMILY,
    family::dinov2_with_registers::FAMILY,
    family::dinov3_vit::FAMILY,
    family::vit_msn::FAMILY,
    family::ijepa::FAMILY,
    family::beit::FAMILY,
    family::data2vec_vision::FAMILY,
    family::clip::FAMILY,
    family::chinese_clip::FAMILY,
    family::siglip::FAMILY,
    family::swin::FAMILY,
    family::swinv2::FAMILY,
    family::timm::FAMILY,
    family::bert::FAMILY,
    family::roberta::FAMILY,
    family::distilbert::FAMILY,
    family::modernbert::FAMILY,
    family::deberta_v2::FAMILY,
    family::deberta::FAMILY,
    family::xlm_roberta::FAMILY,
    family::camembert::FAMILY,
    family::electra::FAMILY,
    family::albert::FAMILY,
    family::mpnet::FAMILY,
    family::data2vec_text::FAMILY,
    family::roberta_prelayernorm::FAMILY,
    family::ernie::FAMILY,
];

/// Types that are asked for and not supported, and why; with the closest that works.
const OTHERS: &[(&[&str], &str)] = &[
    (
        &["donut-swin", "maxvit", "hiera", "pvt", "pvt_v2", "segformer", "cvt", "levit"],
        "its layers see grids of different sizes in a way of their own; the closest that works is swin",
    ),
    (
        &["convnext", "convnextv2", "resnet", "regnet", "efficientnet", "mobilenet_v1", "mobilenet_v2", "bit", "van"],
        "it is a convolutional network, without the attention that is explained here; tools for those are pytorch-grad-cam and captum",
    ),
    (
        &["longformer", "big_bird", "led", "funnel", "reformer", "nystromformer", "mega"],
        "its attention is sparse or approximate; the closest that works for long texts is modernbert",
    ),
    (
        &["gpt2", "gpt_neo", "gpt_neox", "llama", "mistral", "gemma", "gemma2", "gemma3_text", "qwen2", "qwen3", "phi", "phi3", "opt", "bloom", "xlnet"],
        "it writes text, each token seeing those before it; the closest that work are modernbert and deberta-v2",
    ),
    (
        &["t5", "mt5", "bart", "mbart", "marian", "pegasus"],
        "it has an encoder and a decoder; the closest that works is roberta",
    ),
    (
        &["siglip2", "align", "blip", "blip-2", "clipseg", "owlvit", "altclip"],
        "it reads pictures and texts in a way of its own; the closest that works is clip",
    ),
];

/// A checkpoint whose small files are read and checked; its weights are not yet.
pub struct Checkpoint {
    /// As the user named it.
    pub id: String,
    /// The commit, for hub models.
    pub revision: Option<String>,
    /// The family its `model_type` names.
    pub family: &'static Family,
    /// Sizes and names.
    pub spec: Spec,
    /// Class names.
    pub labels: Labels,
    /// What the logits are.
    pub scale: Scale,
    /// How inputs are prepared.
    pub processor: Processor,
    /// What a user should know of these files: what stood in for a missing one, what was not read. One sentence each.
    pub notes: Vec<String>,
    /// Where its classifier comes from, if not from its files.
    given: Option<Given>,
    files: Files,
}

/// What a model that finds answers says of tokens: an answer begins there, ends there; and of two tokens, that it is the answer.
pub const SPANS: [&str; 3] = ["start", "end", "answer"];

/// What stands for "nothing there" in the inputs that a processor makes.
fn neutral(processor: &Processor) -> Neutral {
    match processor {
        Processor::Image(image) => Neutral { black: image.black(), ..Neutral::default() },
        Processor::Text(text) => Neutral { mask_id: text.mask_id(), pad_id: text.pad_id(), ..Neutral::default() },
    }
}

/// A classifier ready to explain.
pub struct Model {
    /// What was known before the weights were read.
    pub checkpoint: Checkpoint,
    /// The network.
    pub encoder: Encoder,
}

impl Checkpoint {
    /// Finds a model and reads its configuration, labels and processor.
    ///
    /// # Errors
    /// [`Error::Model`] for anything missing, unknown or inconsistent, before any weight is read.
    pub fn open(id: &str, access: &Access) -> Result<Self> {
        Self::open_as(id, access, &Outputs::default())
    }

    /// The same, with outputs that are what the user says.
    ///
    /// # Errors
    /// As [`Checkpoint::open`]; [`Error::Usage`] for a softmax over one output, and for classes that are not to be had.
    pub fn open_as(id: &str, access: &Access, outputs: &Outputs) -> Result<Self> {
        let files = Files::locate(id, access)?;
        Self::read(id, files, outputs).map_err(|e| match e {
            Error::Model(message) if !message.starts_with("model `") => {
                Error::Model(format!("model `{id}`: {message}"))
            }
            other => other,
        })
    }

    fn read(id: &str, files: Files, outputs: &Outputs) -> Result<Self> {
        let bytes = files.read("config.json")?;
        let bytes = bytes.ok_or_else(|| match files.other_kind() {
            Some(what) => Error::Model(format!("there is no config.json: this is {what}")),
            None => Error::Model(
                "there is no config.json; is this a checkpoint in HuggingFace layout (save_pretrained)?".into(),
            ),
        })?;
        let config = Config::parse(&bytes)?;
        let family = family_of(&config, &files)?;
        let class = task::check(&config, family)?;
        config.plain()?;
        let task = task::of(&config, family);
        let mut spec = task::headed((family.spec)(&config)?, task, family).checked()?;
        spec.headless |= task::backbone(&config) && !files.hold_a_head(&spec);
        // A text model's are hypotheses, beside its own classes.
        let texts = outputs.classes.as_ref().filter(|_| spec.beside.is_some() || family.modality == Modality::Image);
        let zero_shot = texts.map(|classes| zero_shot((&files, family), classes, &mut spec)).transpose()?;
        let mut notes = Vec::new();
        let processor = match family.modality {
            Modality::Image => Processor::Image(image_processor((&files, &config), family, &spec, &mut notes)?),
            Modality::Text => Processor::Text(Box::new(text_processor(&files, family, &mut spec)?)),
        };
        let Said { labels, scale, given, odd } = said((&config, family), &spec, outputs, zero_shot)?;
        Ok(Checkpoint {
            id: id.to_string(),
            revision: files.revision(),
            family,
            labels,
            scale,
            spec,
            processor,
            notes: class.into_iter().chain(odd).chain(notes).collect(),
            given,
            files,
        })
    }

    /// Refuses a backbone for what needs a classifier.
    ///
    /// # Errors
    /// [`Error::Refused`] saying what it is good for.
    pub fn needs_classes(&self) -> Result<()> {
        match self.spec.headless {
            true => Err(Error::Refused(format!("model `{}` has no classes: {}", self.id, self.without_classes()))),
            false => Ok(()),
        }
    }

    /// What a model without classes can be asked.
    pub fn without_classes(&self) -> &'static str {
        match self.spec.beside {
            Some(_) => "it compares pictures with texts; name texts as its classes, as in --classes \"cat, dog\" --prompt \"a photo of a {}\"",
            None => "it is a backbone without a classifier; `vitx explain` and `vitx heads` show what it attends to, and -t similarity:REF and -t norm explain its state",
        }
    }

    /// Reads the weights (f16 and bf16 are converted once) and builds the model. What there is to say of them is
    /// added to its notes.
    ///
    /// # Errors
    /// [`Error::Model`] naming a missing, wrong-shaped or non-finite tensor; [`Error::Usage`] for a `VITX_KERNELS` that is none.
    pub fn load(mut self, dtype: DType, device: &Device) -> Result<Model> {
        crate::nn::instructions()?;
        let (mut encoder, notes) = self.assembled(Contents::Read, (dtype, device))?;
        self.notes.extend(notes);
        self.spec.pooling = Pooling::of(&encoder.head);
        encoder.neutral = neutral(&self.processor);
        encoder.head.scale = self.scale;
        Ok(Model { checkpoint: self, encoder })
    }

    /// What tells the contents of its files (config, processor, tokenizer, weights) from others, whatever their names: a
    /// checkpoint that was changed in place has another; and what its logits are taken for. See [`crate::identity`].
    ///
    /// # Errors
    /// [`Error::Io`] when a file cannot be read.
    pub fn identity(&self) -> Result<String> {
        let classes = self.given.as_ref().map(|own| format!(" {}", own.identity())).unwrap_or_default();
        Ok(format!("{} {}{classes}", self.files.identity()?, self.scale.name()))
    }

    /// Whether the weights' names, shapes and dtypes are those the config asks for, without reading them; and what there
    /// is to say of them.
    ///
    /// # Errors
    /// As [`Checkpoint::load`], but for weights that are not finite.
    pub fn check_weights(&self) -> Result<Vec<String>> {
        Ok(self.assembled(Contents::Checked, (DType::F32, &Device::Cpu))?.1)
    }

    /// Whose names its tensors have, and how they differ from those.
    ///
    /// # Errors
    /// When the weights cannot be read, or are another family's.
    pub fn naming(&self) -> Result<String> {
        assemble::names(&self.spec, self.family.name, &self.files.weights()?)
    }

    fn assembled(&self, contents: Contents, to: (DType, &Device)) -> Result<(Encoder, Vec<String>)> {
        let built = self.files.weights().and_then(|weights| {
            let outputs = match &self.given {
                Some(Given::Hypotheses(own)) => own.outputs,
                None if self.spec.task == Task::Spans => SPANS.len() - 1, // an answer is both
                _ => self.labels.len(),
            };
            let given = self.given.as_ref().map(|own| own.classifier(&weights, contents, to)).transpose()?.flatten();
            let classifier = given.as_ref().map_or(Classifier::Stored(outputs), Classifier::Given);
            assemble::assemble(&self.spec, classifier, &weights, contents, to)
        });
        built.map_err(|e| match e {
            Error::Model(message) if !message.starts_with("model `") => {
                Error::Model(format!("model `{}`: {message}", self.id))
            }
            other => other,
        })
    }

    /// Number of weights in the files.
    pub fn parameters(&self) -> Result<usize> {
        Ok(self.files.weights()?.parameters())
    }
}

/// The README's table of families.
pub fn markdown() -> String {
    let row = |f: &Family| {
        let reads = if f.modality == Modality::Image { "images" } else { "texts" };
        let classes: Vec<_> = f.architectures.iter().map(|a| format!("`{a}`")).collect();
        format!("| `{}` | {reads} | {} | `{}` |\n", f.name, classes.join(", "), f.example)
    };
    let rows: String = FAMILIES.iter().map(row).collect();
    format!("| `model_type` | reads | classes | such as |\n| --- | --- | --- | --- |\n{rows}")
}

fn family_of(config: &Config, files: &Files) -> Result<&'static Family> {
    let name = config.text("model_type");
    // A picture tower that was saved alone.
    let whole = name.map(|name| name.strip_suffix("_vision_model").unwrap_or(name));
    if let Some(family) = FAMILIES.iter().find(|f| Some(f.name) == whole) {
        return Ok(family);
    }
    if config.text("architecture").is_some() && (name == Some("timm_wrapper") || name.is_none()) {
        return Ok(&family::timm::FAMILY);
    }
    let Some(name) = name else {
        let kind = files.other_kind().map(|what| format!(": this is {what}"));
        return Err(Error::Model(format!(
            "config.json: `model_type` is missing{}",
            kind.unwrap_or_else(|| "; is this a checkpoint of transformers?".into())
        )));
    };
    if let Some((_, what)) = OTHERS.iter().find(|(types, _)| types.contains(&name)) {
        return Err(Error::Model(format!("config.json: model_type `{name}` is not supported: {what}")));
    }
    let list = |modality| FAMILIES.iter().filter(move |f| f.modality == modality).map(|f| f.name).collect::<Vec<_>>();
    Err(Error::Model(format!(
        "config.json: model_type `{name}` is not supported; supported are {} for images and {} for texts",
        list(Modality::Image).join(", "),
        list(Modality::Text).join(", ")
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configs_are_checked_before_weights() {
        let files = Files::Directory("/nowhere".into());
        for (json, part) in [
            (r#"{"model_type": "nothing"}"#, "model_type `nothing` is not supported; supported are vit"),
            (r#"{"model_type": "hiera"}"#, "model_type `hiera` is not supported: its layers see grids"),
            (r#"{"hidden_size": 8}"#, "`model_type` is missing"),
            (
                r#"{"model_type": "bert", "architectures": ["BertForMaskedLM"]}"#,
                "BertForMaskedLM, which fills in masked",
            ),
            (
                r#"{"model_type": "bert", "architectures": ["BertForMultipleChoice"]}"#,
                "chooses between several endings",
            ),
            (r#"{"model_type": "bert", "quantization_config": {"load_in_8bit": true}}"#, "`quantization_config`"),
            (r#"{"model_type": "bert", "pruned_heads": {"1": [0]}}"#, "`pruned_heads`"),
        ] {
            let config = Config::parse(json.as_bytes()).unwrap();
            let read = family_of(&config, &files).and_then(|f| task::check(&config, f)).and_then(|_| config.plain());
            let error = read.unwrap_err().to_string();
            assert!(error.contains(part) && !error.contains("did you mean"), "{error}");
        }
        let own = Config::parse(br#"{"model_type": "vit", "architectures": ["MyViT"]}"#).unwrap();
        let note = task::check(&own, family_of(&own, &files).unwrap()).unwrap();
        assert!(note.unwrap().contains("MyViT, which is read as ViTForImageClassification"));
        for (json, part) in [
            (r#"{"hidden_size": 30, "num_attention_heads": 4}"#, "4 attention heads do not divide the hidden size 30"),
            (r#"{"hidden_act": "prelu"}"#, "activation `prelu`"),
            (r#"{"hidden_act": 3}"#, "`hidden_act` is 3"),
            (r#"{"image_size": 8, "patch_size": 16}"#, "smaller than patch_size"),
        ] {
            let config = Config::parse(json.as_bytes()).unwrap();
            let error = (family::vit::FAMILY.spec)(&config).and_then(Spec::checked).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
