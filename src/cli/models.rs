//! `vitx models`: built-in models and supported families.

use super::args::ListArgs;
use super::voice::tell;
use anyhow::Result;
use clap::Parser;
use serde_json::json;
use std::process::ExitCode;
use vitx::model::builtin::BUILTINS;
use vitx::model::{Modality, FAMILIES};

/// List the built-in models and the families that are read
#[derive(Parser, Debug)]
#[command(after_help = super::examples::MODELS)]
pub struct Args {
    #[command(flatten)]
    list: ListArgs,
}

/// Runs the subcommand.
pub fn run(args: Args) -> Result<ExitCode> {
    if args.list.json {
        for b in BUILTINS {
            tell!("{}", json!({"builtin": b.name, "about": b.about}));
        }
        for f in FAMILIES {
            let reads = if f.modality == Modality::Image { "images" } else { "texts" };
            tell!(
                "{}",
                json!({"family": f.name, "title": f.title, "reads": reads, "architectures": f.architectures, "example": f.example})
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
            tell!(
                "  {:22} {:9} such as {}",
                f.name,
                if f.modality == Modality::Image { "images" } else { "texts" },
                f.example
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}
