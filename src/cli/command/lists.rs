//! `vitx methods [NAME]`, `vitx metrics [NAME]`, `vitx models`: what the registries hold.

use crate::cli::args::ListArgs;
use crate::cli::offered;
use crate::cli::voice::tell;
use anyhow::Result;
use clap::Parser;
use serde_json::json;
use std::process::ExitCode;
use vitx::evaluate::{self, Direction, METRICS};
use vitx::method::{self, Configured};
use vitx::model::builtin::BUILTINS;
use vitx::model::{Modality, FAMILIES};

/// List the methods, or describe one
#[derive(Parser, Debug)]
#[command(after_help = crate::cli::examples::METHODS)]
pub struct MethodsArgs {
    /// A method to describe, with parameters if you like (the rule table follows them): NAME[:key=value,...]
    #[arg(value_parser = offered::METHODS, hide_possible_values = true)]
    name: Option<String>,
    #[command(flatten)]
    list: ListArgs,
}

/// List the metrics of `evaluate` and `tune`, or describe one
#[derive(Parser, Debug)]
#[command(after_help = crate::cli::examples::METRICS)]
pub struct MetricsArgs {
    /// A metric to describe, with parameters if you like: NAME[:key=value,...]
    #[arg(value_parser = offered::METRICS)]
    name: Option<String>,
    #[command(flatten)]
    list: ListArgs,
}

/// List the built-in models and the families that are read
#[derive(Parser, Debug)]
#[command(after_help = crate::cli::examples::MODELS)]
pub struct ModelsArgs {
    #[command(flatten)]
    list: ListArgs,
}

/// `vitx methods`
pub fn methods(args: MethodsArgs) -> Result<ExitCode> {
    let one = args.name.as_deref().map(method::parse).transpose()?;
    match (one, args.list.json) {
        (Some(one), true) => tell!("{}", method::record(&one)),
        (Some(one), false) => describe_method(&one),
        (None, true) => {
            for entry in method::all() {
                tell!("{}", method::record(&method::parse(entry.name)?));
            }
        }
        (None, false) if args.list.markdown => tell!("{}", method::markdown().trim_end_matches('\n')),
        (None, false) => list_methods(),
    }
    Ok(ExitCode::SUCCESS)
}

/// `vitx metrics`
pub fn metrics(args: MetricsArgs) -> Result<ExitCode> {
    let one = args.name.as_deref().map(evaluate::parse).transpose()?;
    if args.list.markdown {
        tell!("{}", evaluate::markdown().trim_end_matches('\n'));
        return Ok(ExitCode::SUCCESS);
    }
    let all = match one {
        Some(one) => vec![one],
        None => METRICS.iter().map(|e| evaluate::parse(e.name)).collect::<vitx::Result<Vec<_>>>()?,
    };
    for metric in &all {
        match args.list.json {
            true => tell!("{}", metric.record()),
            false => describe_metric(metric),
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// `vitx models`
pub fn models(args: ModelsArgs) -> Result<ExitCode> {
    let reads = |modality| if modality == Modality::Image { "images" } else { "texts" };
    if args.list.json {
        for b in BUILTINS {
            tell!("{}", json!({"builtin": b.name, "about": b.about}));
        }
        for f in FAMILIES {
            let (title, reads, all) = (f.title, reads(f.modality), f.architectures);
            tell!(
                "{}",
                json!({"family": f.name, "title": title, "reads": reads, "architectures": all, "example": f.example})
            );
        }
    } else if args.list.markdown {
        tell!("{}", vitx::model::markdown().trim_end_matches('\n'));
    } else {
        tell!("built-in:");
        for b in BUILTINS {
            tell!("  {:10} {}", b.name, b.about);
        }
        tell!("\nfamilies (any HuggingFace checkpoint of these, as a directory or hub id):");
        for f in FAMILIES {
            tell!("  {:22} {:9} such as {}", f.name, reads(f.modality), f.example);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn list_methods() {
    let width = method::all().map(|e| e.name.len()).max().unwrap_or(0);
    for group in method::GROUPS {
        tell!("{}: {}", group.name, group.question);
        for e in group.methods {
            let class = if e.class_specific { "" } else { " (the same for every class)" };
            tell!("  {:width$}  {}{class}", e.name, e.title);
        }
    }
    tell!("\n`vitx methods NAME` lists a method's parameters.");
}

fn describe_method(one: &Configured) {
    let e = one.entry;
    tell!("{}: {}", e.name, e.title);
    tell!("  paper: {}", e.paper);
    tell!("  {}", if e.class_specific { "class-specific" } else { "the same for every class" });
    if !e.aliases.is_empty() {
        tell!("  also called: {}", e.aliases.join(", "));
    }
    tell!("  parameters ({}:key=value,...):", e.name);
    for p in e.parameters() {
        tell!("    {}={}  {}", p.key, p.default, p.about);
    }
    for rules in one.method.rules() {
        tell!("  rules of its reverse pass (`{}`):", rules.name);
        let table = rules.table();
        let width = table.iter().map(|r| r.operation.len()).max().unwrap_or(0);
        table.iter().for_each(|r| tell!("    {:width$}  {}", r.operation, r.rule));
    }
    if let Some(notice) = method::group(e).and_then(|g| g.notice) {
        tell!("  {notice}");
    }
}

fn describe_metric(metric: &evaluate::Configured) {
    let e = metric.entry;
    let better = if e.direction == Direction::Higher { "higher" } else { "lower" };
    tell!("{}: {} ({better} is better; {})", e.name, e.title, e.paper);
    tell!("  {}", metric.convention());
    let reads = [(e.images, "images"), (e.texts, "texts")].into_iter().filter_map(|(r, name)| r.then_some(name));
    let needs = e.needs.what().map(|n| format!(" with {n}")).unwrap_or_default();
    tell!("  for {}{needs}", reads.collect::<Vec<_>>().join(", "));
    e.parameters().iter().for_each(|p| tell!("  {}={}  {}", p.key, p.default, p.about));
}
