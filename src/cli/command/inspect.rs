//! `vitx inspect MODEL`: what a checkpoint is, without running it.

use crate::cli::args::{ClassArgs, ModelArgs, ReportArgs};
use crate::cli::job;
use crate::cli::voice::tell;
use anyhow::Result;
use candle_core::DType;
use clap::Parser;
use serde_json::json;
use std::collections::BTreeMap;
use std::process::ExitCode;
use vitx::model::{Checkpoint, Demand};
use vitx::render::printable;
use vitx::run::Memory;
use vitx::target::Scale;

/// Show a model's family, sizes, tokens, parameters, and the memory a run will need
#[derive(Parser, Debug)]
#[command(after_help = crate::cli::examples::INSPECT)]
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
    #[arg(long, value_name = "HEAD", value_parser = crate::cli::args::heads())]
    head: Option<Scale>,
    #[command(flatten)]
    classes: ClassArgs,
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
        dtype: DType::F32,
        memory: None,
        threads: None,
        head: args.head,
        classes: args.classes,
    };
    let report = ReportArgs { json: args.json, quiet: false, verbose: false };
    let mut c = job::found(&args.id, &model, report)?;
    c.notes.extend(c.check_weights()?);
    let (demand, naming) = (c.demand()?, c.naming()?);
    let budget = model.memory();
    if args.json {
        let mut record = c.record(demand);
        let refused = vitx::explain::refused(&c).into_iter().map(|(name, why)| (name, why.to_string()));
        record["naming"] = naming.into();
        record["methods_refused"] = json!(refused.collect::<BTreeMap<_, _>>());
        record["budget"] = budget.map(|m| json!({"kept": m.kept, "most": m.most})).unwrap_or_default();
        tell!("{}", printable::json(&record.to_string()));
        return Ok(ExitCode::SUCCESS);
    }
    print(&c, demand, &naming, budget);
    if args.labels && !c.spec.headless {
        (0..c.labels.len() as u32).for_each(|i| tell!("{i}\t{}", c.labels.name(i)));
    }
    Ok(ExitCode::SUCCESS)
}

fn print(c: &Checkpoint, demand: Demand, naming: &str, budget: Option<Memory>) {
    let s = &c.spec;
    let outputs = match (c.scale, c.labels.len()) {
        _ if s.headless && s.beside.is_some() => "pictures beside texts, which --classes names".to_string(),
        _ if s.headless => "a backbone without a classifier".to_string(),
        (Scale::Softmax, n) => format!("{n} classes"),
        (Scale::Sigmoid, n) => format!("{n} labels with a probability each"),
        (Scale::Value, 1) => "one value".to_string(),
        (Scale::Value, n) => format!("{n} values"),
    };
    tell!("{}: {} ({}), {outputs}", c.id, c.family.title, c.family.name);
    if let Some(revision) = &c.revision {
        tell!("  revision    {revision}");
    }
    tell!("  input       {}", c.reads());
    tell!("  tokens      {}", demand.tokens);
    let (layers, heads, width, inner) = (s.layers().len(), s.heads(), s.last_width(), s.feed_forward());
    tell!("  sizes       {layers} layers, {heads} heads, width {width}, feed-forward {inner}");
    for (number, stage) in c.stages().iter().enumerate() {
        tell!("  stage{}      {stage}", number + 1);
    }
    tell!("  names       {naming}");
    tell!("  parameters  {:.2} M", demand.parameters as f64 / 1e6);
    let (weights, pass) = (demand.weights as f64 / 1e6, demand.pass as f64 / 1e6);
    tell!("  memory      {weights:.0} MB weights in f32, about {pass:.0} MB for an input's forward and reverse pass");
    if let Some(Memory { kept, most }) = budget {
        let (kept, most) = (kept as f64 / 1e6, most as f64 / 1e6);
        tell!("  budget      {kept:.0} MB on this machine for what passes keep, {most:.0} MB for all they take (--memory)");
    }
    tell!("  structure   {}", c.structure());
    let refused: Vec<_> = vitx::explain::refused(c).into_iter().map(|(name, _)| name).collect();
    let but = if refused.is_empty() { String::new() } else { format!(" but {}", refused.join(", ")) };
    tell!("  methods     all{but}");
    if !s.headless {
        let some: Vec<_> = (0..c.labels.len().min(6) as u32).map(|i| c.labels.name(i)).collect();
        let more = if c.labels.len() > 6 { "; ... (--labels lists all)" } else { "" };
        tell!("  labels      {}{more}", some.join("; "));
    }
    c.notes.iter().for_each(|note| tell!("  note        {note}"));
}
