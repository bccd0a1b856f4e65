//! `vitx worker`: the model stays loaded, and explains what it is asked.

use crate::cli::args::{ModelArgs, ReportArgs, ShapeArgs};
use crate::cli::job::{self, Job};
use crate::cli::report::{catch_interrupts, interrupted};
use crate::cli::{offered, print_error, voice, INTERRUPTED, NOTHING_DONE};
use anyhow::Result;
use clap::Parser;
use std::io::{stdin, BufReader};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use vitx::input::Shape;
use vitx::run::Memory;
use vitx::worker::{lines, Engine, Limits, Root, Settings};

/// Explain as a service: JSON lines in, JSON lines out, or HTTP; the model stays loaded
#[derive(Parser, Debug)]
#[command(after_help = crate::cli::examples::WORKER)]
pub struct Args {
    /// NAME[:key=value,...] of requests that name none (default: the usual one of the model)
    #[arg(long, value_name = "METHOD", value_parser = offered::METHODS, hide_possible_values = true)]
    method: Vec<String>,
    /// The target of requests that name none
    #[arg(short, long, default_value = "predicted", value_name = "TARGET", value_parser = offered::TARGETS, hide_possible_values = true, allow_hyphen_values = true)]
    target: Vec<String>,
    /// Seed of methods that draw random numbers
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u64,
    /// Answer over HTTP instead: 127.0.0.1:PORT (0: any that is free), or unix:/PATH. POST /explain, /healthz, /metrics
    #[cfg(feature = "serve")]
    #[arg(long, value_name = "ADDR", value_parser = vitx::worker::http::Address::parse)]
    listen: Option<vitx::worker::http::Address>,
    /// The folder that requests may name files of with `path` and `out` (default: none may be named)
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Answer as soon as it is done, and not in the order of the lines
    #[cfg_attr(feature = "serve", arg(long, conflicts_with = "listen"))]
    #[cfg_attr(not(feature = "serve"), arg(long))]
    unordered: bool,
    /// Requests that may go through the model together
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    batch_size: u16,
    /// How long the first of them waits for others, in milliseconds
    #[arg(long, default_value_t = 5, value_name = "MS")]
    max_wait: u32,
    /// Requests that are read before the first of them is answered; over HTTP more are told to come again
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    queue: u16,
    /// Largest line or body
    #[arg(long, default_value = "64M", value_name = "BYTES", value_parser = Memory::parse)]
    max_body: Memory,
    /// Largest picture file, in base64 or by its path
    #[arg(long, default_value = "32M", value_name = "BYTES", value_parser = Memory::parse)]
    max_picture: Memory,
    /// Longest time for a request, in seconds (default: 60 over HTTP, none for lines)
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    time_limit: Option<u32>,
    /// Only errors on stderr
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    shape: ShapeArgs,
    /// Read texts that are too long in overlapping windows, of which neighbours share N tokens (default: cut them off)
    #[arg(long, value_name = "N")]
    stride: Option<usize>,
}

/// Runs the subcommand.
pub fn run(mut args: Args) -> Result<ExitCode> {
    args.model.classes.targets = vitx::target::texts(&args.target);
    let reporting = ReportArgs { json: true, quiet: args.quiet, verbose: false };
    let root = args.root.as_deref().map(Root::new).transpose()?;
    let device = job::device(&args.model)?;
    let id = args.model.model.clone().unwrap_or_else(|| job::default_model(false, reporting));
    let checkpoint = job::open(&id, &args.model, reporting)?;
    let shape = Shape { stride: args.stride, ..args.shape.shape() };
    checkpoint.check_shape(shape)?;
    #[cfg(feature = "serve")]
    let usual = args.listen.is_some().then_some(60);
    #[cfg(not(feature = "serve"))]
    let usual = None;
    let limits = Limits { line: args.max_body.most, picture: args.max_picture.most, ..Limits::default() };
    let settings = Settings {
        memory: args.model.memory(),
        together: args.batch_size.into(),
        max_wait: Duration::from_millis(args.max_wait.into()),
        queue: args.queue.into(),
        time: args.time_limit.or(usual).map(|seconds| Duration::from_secs(seconds.into())),
        method: args.method,
        target: args.target,
        seed: args.seed,
        bytes: Settings::default().bytes.max(limits.line),
        shape,
        limits,
        root,
    };
    settings.check(&checkpoint)?;
    catch_interrupts()?;
    let model = Job::load(checkpoint, &args.model, &device, reporting)?;
    let going = || !interrupted();
    let engine = Engine::new(&model, settings, &going)?;
    #[cfg(feature = "serve")]
    if let Some(address) = &args.listen {
        vitx::worker::http::serve(&engine, address, |place| voice::say(&format!("listening on {place}")))?;
        return Ok(ended());
    }
    // Lines that cannot be written end the program here: whoever asks may never send another one.
    let write = |line: &[u8]| {
        voice::out(line).map_err(|e| {
            print_error(&e);
            std::process::exit(NOTHING_DONE.into())
        })
    };
    lines::serve(&engine, BufReader::new(stdin()), write, !args.unordered)?;
    Ok(ended())
}

fn ended() -> ExitCode {
    ExitCode::from(if interrupted() { INTERRUPTED } else { 0 })
}
