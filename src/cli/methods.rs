//! `vitx methods [NAME]`: the method registry.

use anyhow::Result;
use clap::Parser;
use serde_json::{json, Value};
use std::process::ExitCode;
use vitx::method::{find, Entry, METHODS};

/// List the methods, or describe one
#[derive(Parser, Debug)]
pub struct Args {
    /// A method to describe
    name: Option<String>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// The table of the README
    #[arg(long, conflicts_with = "json")]
    markdown: bool,
}

/// Runs the subcommand.
pub fn run(args: Args) -> Result<ExitCode> {
    let one = args.name.as_deref().map(find).transpose()?;
    let entries = one.map_or(METHODS.iter().collect::<Vec<_>>(), |e| vec![e]);
    if args.json {
        entries.iter().for_each(|e| println!("{}", record(e)));
    } else if args.markdown {
        print!("{}", vitx::method::markdown());
    } else if let Some(entry) = one {
        describe(entry);
    } else {
        list(&entries);
    }
    Ok(ExitCode::SUCCESS)
}

fn record(e: &Entry) -> Value {
    let params: Vec<_> =
        e.parameters().iter().map(|p| json!({"key": p.key, "default": p.default, "about": p.about})).collect();
    json!({
        "name": e.name, "aliases": e.aliases, "title": e.title, "paper": e.paper, "group": e.group,
        "class_specific": e.class_specific, "params": params,
    })
}

fn list(entries: &[&Entry]) {
    let width = entries.iter().map(|e| e.name.len()).max().unwrap_or(0);
    let mut group = "";
    for e in entries {
        if e.group != group {
            group = e.group;
            println!("{group}:");
        }
        let class = if e.class_specific { "" } else { " (the same for every class)" };
        println!("  {:width$}  {}{class}", e.name, e.title);
    }
    println!("\n`vitx methods NAME` lists a method's parameters.");
}

fn describe(e: &Entry) {
    println!("{}: {}", e.name, e.title);
    println!("  paper: {}", e.paper);
    println!("  {}", if e.class_specific { "class-specific" } else { "the same for every class" });
    if !e.aliases.is_empty() {
        println!("  also called: {}", e.aliases.join(", "));
    }
    println!("  parameters ({}:key=value,...):", e.name);
    for p in e.parameters() {
        println!("    {}={}  {}", p.key, p.default, p.about);
    }
}
