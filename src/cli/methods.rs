//! `vitx methods [NAME]`: the method registry.

use super::args::ListArgs;
use super::offered;
use super::voice::tell;
use anyhow::Result;
use clap::Parser;
use serde_json::{json, Value};
use std::process::ExitCode;
use vitx::method::{self, parse, Configured};

/// List the methods, or describe one
#[derive(Parser, Debug)]
#[command(after_help = super::examples::METHODS)]
pub struct Args {
    /// A method to describe, with parameters if you like (the rule table follows them): NAME[:key=value,...]
    #[arg(value_parser = offered::METHODS, hide_possible_values = true)]
    name: Option<String>,
    #[command(flatten)]
    list: ListArgs,
}

/// Runs the subcommand.
pub fn run(args: Args) -> Result<ExitCode> {
    let one = args.name.as_deref().map(parse).transpose()?;
    match (one, args.list.json) {
        (Some(one), true) => tell!("{}", record(&one)),
        (Some(one), false) => describe(&one),
        (None, true) => {
            for entry in method::all() {
                tell!("{}", record(&parse(entry.name)?));
            }
        }
        (None, false) if args.list.markdown => tell!("{}", vitx::method::markdown().trim_end_matches('\n')),
        (None, false) => list(),
    }
    Ok(ExitCode::SUCCESS)
}

fn record(one: &Configured) -> Value {
    let e = one.entry;
    let group = method::group(e);
    let rules: Vec<_> = one.method.rules().iter().map(|r| json!({"name": r.name, "table": r.table()})).collect();
    let params: Vec<_> =
        e.parameters().iter().map(|p| json!({"key": p.key, "default": p.default, "about": p.about})).collect();
    json!({
        "name": e.name, "aliases": e.aliases, "title": e.title, "paper": e.paper, "group": group.map(|g| g.name), "question": group.map(|g| g.question),
        "class_specific": e.class_specific, "params": params, "rules": rules,
    })
}

fn list() {
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

fn describe(one: &Configured) {
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
