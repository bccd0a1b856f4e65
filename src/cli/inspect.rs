//! `vitx inspect MODEL`: what a checkpoint is, without running it.

use super::args::{ModelArgs, Precision, ReportArgs};
use super::job;
use super::voice::tell;
use anyhow::Result;
use clap::Parser;
use serde_json::json;
use std::process::ExitCode;
use vitx::model::{Checkpoint, EmbeddingSpec, Processor};
use vitx::render::printable;
use vitx::target::Scale;

/// Show a model's family, sizes, tokens, parameters, and the memory a run will need
#[derive(Parser, Debug)]
#[command(after_help = super::examples::INSPECT)]
pub struct Args {
    /// A built-in, a directory in HuggingFace layout, or a hub id
    id: String,
    /// Branch, tag or commit of a hub model
    #[arg(long)]
    revision: Option<String>,
    /// Use the local hub cache only
    #[arg(long)]
    offline: bool,
    /// What the outputs are, for checkpoints that do not say
    #[arg(long, value_name = "HEAD", value_parser = super::args::heads())]
    head: Option<Scale>,
    /// List every label
    #[arg(long)]
    labels: bool,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand.
pub fn run(args: Args) -> Result<ExitCode> {
    let model = ModelArgs {
        model: None,
        revision: args.revision,
        offline: args.offline,
        device: "cpu".into(),
        dtype: Precision::F32,
        threads: None,
        head: args.head,
    };
    let report = ReportArgs { json: args.json, quiet: false, verbose: false };
    let mut c = job::found(&args.id, &model, report)?;
    c.notes.extend(c.check_weights()?);
    let facts = Facts::of(&c)?;
    if args.json {
        tell!("{}", printable::json(&facts.json(&c).to_string()));
        return Ok(ExitCode::SUCCESS);
    }
    facts.print(&c);
    if args.labels {
        (0..c.labels.len() as u32).for_each(|i| tell!("{i}\t{}", c.labels.name(i)));
    }
    Ok(ExitCode::SUCCESS)
}

struct Facts {
    parameters: usize,
    input: String,
    tokens: usize,
    memory: Memory,
}

/// Bytes, for f32 and one input.
struct Memory {
    weights: usize,
    pass: usize,
}

impl Facts {
    fn of(c: &Checkpoint) -> Result<Self> {
        let (input, tokens) = match (&c.processor, &c.spec.embedding) {
            (Processor::Image(p), EmbeddingSpec::Patches { image, patch, distillation, registers, .. }) => {
                let (h, w) = p.input_size().unwrap_or(*image);
                let grid = (h / patch.0, w / patch.1);
                let prefix = 1 + usize::from(*distillation) + registers;
                let text = format!(
                    "{h}x{w} pixels, {}x{} patches of {}x{}, {prefix} prefix tokens",
                    grid.0, grid.1, patch.0, patch.1
                );
                (text, prefix + grid.0 * grid.1)
            }
            (Processor::Text(p), _) => (format!("at most {} tokens", p.max_tokens()), p.max_tokens()),
            _ => (String::new(), 0),
        };
        let s = &c.spec;
        let parameters = c.parameters()?;
        // A recorded forward pass keeps per layer the states [T,D] (query, key, value, context and four more), the
        // feed-forward [T,F] and the attention [H,T,T]; the reverse pass about half as much again.
        let layer = tokens * (8 * s.width + s.feed_forward) + s.heads * tokens * tokens;
        let memory = Memory { weights: 4 * parameters, pass: 4 * s.layers * layer * 3 / 2 };
        Ok(Facts { parameters, input, tokens, memory })
    }

    fn print(&self, c: &Checkpoint) {
        let s = &c.spec;
        let outputs = match (c.scale, c.labels.len()) {
            (Scale::Softmax, n) => format!("{n} classes"),
            (Scale::Sigmoid, n) => format!("{n} labels with a probability each"),
            (Scale::Value, 1) => "one value".to_string(),
            (Scale::Value, n) => format!("{n} values"),
        };
        tell!("{}: {} ({}), {outputs}", c.id, c.family.title, c.family.name);
        if let Some(revision) = &c.revision {
            tell!("  revision    {revision}");
        }
        tell!("  input       {}", self.input);
        tell!("  tokens      {}", self.tokens);
        tell!(
            "  sizes       {} layers, {} heads, width {}, feed-forward {}",
            s.layers,
            s.heads,
            s.width,
            s.feed_forward
        );
        tell!("  parameters  {:.2} M", self.parameters as f64 / 1e6);
        let mb = |bytes: usize| bytes as f64 / 1e6;
        tell!(
            "  memory      {:.0} MB weights in f32, about {:.0} MB for an input's forward and reverse pass",
            mb(self.memory.weights),
            mb(self.memory.pass)
        );
        let some: Vec<_> = (0..c.labels.len().min(6) as u32).map(|i| c.labels.name(i)).collect();
        tell!(
            "  labels      {}{}",
            some.join("; "),
            if c.labels.len() > 6 { "; ... (--labels lists all)" } else { "" }
        );
        c.notes.iter().for_each(|note| tell!("  note        {note}"));
    }

    fn json(&self, c: &Checkpoint) -> serde_json::Value {
        let s = &c.spec;
        json!({
            "id": c.id, "revision": c.revision, "family": c.family.name, "classes": c.labels.len(),
            "head": c.scale.name(),
            "labels": (0..c.labels.len() as u32).map(|i| c.labels.name(i)).collect::<Vec<_>>(),
            "input": self.input, "tokens": self.tokens, "layers": s.layers, "heads": s.heads, "width": s.width,
            "feed_forward": s.feed_forward, "parameters": self.parameters,
            "memory": {"weights": self.memory.weights, "pass": self.memory.pass}, "notes": c.notes,
        })
    }
}
