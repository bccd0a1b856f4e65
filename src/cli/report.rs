//! What the user sees: results on stdout, everything else on stderr, and the exit code.

use super::args::ReportArgs;
use super::{voice, INTERRUPTED, SOME_FAILED};
use anyhow::Result;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use vitx::explain::{patience, rows::Rows};
use vitx::input::image::Remark;
use vitx::input::{Preparer, Ready, Shape, Source};
use vitx::method::Configured;
use vitx::model::Checkpoint;
use vitx::render::json::Record;
use vitx::render::printable::{in_a_line, json, printable};
use vitx::run::Watch;

static STOP: AtomicBool = AtomicBool::new(false);
static AT_ONCE: AtomicBool = AtomicBool::new(false);
/// Downloads that go on.
static DOWNLOADS: AtomicUsize = AtomicUsize::new(0);

/// Catches Ctrl-C and SIGTERM: the first stops at the next step (an input that is not finished leaves nothing behind), the
/// second ends at once. Once is enough.
pub fn catch_interrupts() -> Result<()> {
    let caught = ctrlc::set_handler(|| {
        let (again, downloads) = (STOP.swap(true, Ordering::SeqCst), DOWNLOADS.load(Ordering::SeqCst) > 0);
        if downloads {
            voice::say(
                "interrupted: nothing is half done; a download that was not finished goes on there in the next run",
            );
        } else if AT_ONCE.load(Ordering::SeqCst) {
            voice::say("interrupted before anything was done");
        }
        if again || downloads || AT_ONCE.load(Ordering::SeqCst) {
            std::process::exit(i32::from(INTERRUPTED));
        }
    });
    match caught {
        Ok(()) | Err(ctrlc::Error::MultipleHandlers) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Runs what may wait long and leaves nothing half done: the first Ctrl-C ends the program.
pub fn ending_at_once<T>(work: impl FnOnce() -> T) -> T {
    AT_ONCE.store(true, Ordering::SeqCst);
    let done = work();
    AT_ONCE.store(false, Ordering::SeqCst);
    done
}

/// Notes that a download begins or is over.
#[cfg(feature = "hub")]
pub fn downloading(begins: bool) {
    if begins {
        // Where it cannot be caught, Ctrl-C ends the program anyway.
        let _ = catch_interrupts();
        DOWNLOADS.fetch_add(1, Ordering::SeqCst);
    } else {
        DOWNLOADS.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Whether the user has asked to stop.
pub fn interrupted() -> bool {
    STOP.load(Ordering::SeqCst)
}

/// What an input is called in a message: of a long text the beginning.
fn short(input: &str) -> String {
    let start: String = input.chars().take(80).collect();
    let dots = if start.len() < input.len() { "..." } else { "" };
    format!("{}{dots}", in_a_line(&start))
}

/// Collects what happens during a run.
pub struct Reporter {
    args: ReportArgs,
    bar: ProgressBar,
    /// Steps of a slow method within one input.
    steps: ProgressBar,
    /// Inputs that failed: one that fails twice is one.
    failed: RefCell<BTreeSet<String>>,
    resumable: bool,
    /// One row a record, where a table is written.
    table: RefCell<Option<Rows>>,
    /// Remarks that were made of an earlier picture.
    made: RefCell<Vec<std::mem::Discriminant<Remark>>>,
}

impl Reporter {
    /// With a progress bar over `inputs` if stderr is a terminal and there is more than one.
    pub fn new(args: ReportArgs, inputs: usize) -> Self {
        let (bar, steps) = (ProgressBar::hidden(), ProgressBar::hidden());
        let visible = !args.quiet && std::io::stderr().is_terminal();
        if visible && inputs == 1 {
            let style = ProgressStyle::with_template("{bar:32} {pos}/{len} steps, {eta} left {msg}");
            steps.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            steps.set_draw_target(ProgressDrawTarget::stderr());
        }
        if visible && inputs > 1 {
            bar.set_length(inputs as u64);
            let style = ProgressStyle::with_template("{bar:32} {pos}/{len} {elapsed} elapsed, {eta} left {msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        Reporter {
            args,
            bar,
            steps,
            failed: RefCell::default(),
            resumable: false,
            table: RefCell::default(),
            made: RefCell::default(),
        }
    }

    /// For commands with `--resume`: an interruption names it.
    pub fn resumable(self) -> Self {
        Reporter { resumable: true, ..self }
    }

    /// Writes a table of the records, one row each, in the place of an earlier one or behind its rows.
    ///
    /// # Errors
    /// When it cannot be begun.
    pub fn tabled(self, table: Option<&Path>, further: bool) -> Result<Self> {
        let table = RefCell::new(table.map(|table| Rows::begin(table, further)).transpose()?);
        Ok(Reporter { table, ..self })
    }

    fn row(&self, record: &serde_json::Value) -> Result<()> {
        self.table.borrow_mut().as_mut().map_or(Ok(()), |table| Ok(table.add(record)?))
    }

    /// Shows the steps of slow methods, a bar of their own for a single input, a message beside the bar otherwise, and ends
    /// them when the user wants to stop.
    pub fn watch<'m>(&self) -> Watch<'m> {
        let (bar, steps) = (self.bar.clone(), self.steps.clone());
        Box::new(move |done, total| {
            bar.set_message(if done < total { format!("(step {done}/{total})") } else { String::new() });
            steps.set_length(total as u64);
            steps.set_position(done as u64);
            !interrupted()
        })
    }

    /// Step `done` of `total` of a single job, with a message that is only made where it is shown.
    ///
    /// # Errors
    /// Whatever making the message reports.
    pub fn step(&self, done: usize, total: usize, message: impl FnOnce() -> Result<String>) -> Result<()> {
        self.steps.set_length(total as u64);
        self.steps.set_position(done as u64);
        // Telling costs a forward pass: a tenth of the steps is often enough.
        if !self.steps.is_hidden() && done.is_multiple_of(10) {
            self.steps.set_message(message()?);
        }
        Ok(())
    }

    /// A JSON object, if `--json` is set.
    pub fn json_line(&self, value: &serde_json::Value) -> Result<()> {
        self.row(value)?;
        self.printed(value)
    }

    fn printed(&self, value: &serde_json::Value) -> Result<()> {
        if self.args.json {
            self.stdout(json(&format!("{value}\n")).as_bytes())
        } else {
            Ok(())
        }
    }

    /// A record of what stands already. Its row is as the run that made it has written it.
    pub fn standing(&self, mut record: serde_json::Value, status: &str) -> Result<()> {
        self.row(&record)?;
        record["status"] = status.into();
        self.printed(&record)
    }

    /// Whether `--json` is set.
    pub fn json(&self) -> bool {
        self.args.json
    }

    /// Bytes to stdout. A reader that has gone away ends the program quietly, as `head` expects.
    ///
    /// # Errors
    /// Any other write error.
    pub fn stdout(&self, bytes: &[u8]) -> Result<()> {
        self.bar.suspend(|| voice::out(bytes))
    }

    /// A record, if `--json` is set.
    pub fn record(&self, record: &Record) -> Result<()> {
        self.mapped(record, None)
    }

    /// The same; its row says where in the run's array its map is.
    pub fn mapped(&self, record: &Record, place: Option<usize>) -> Result<()> {
        if self.table.borrow().is_some() {
            let mut row = record.value()?;
            row["array"] = place.into();
            self.row(&row)?;
        }
        if !self.args.json {
            return Ok(());
        }
        let mut line = serde_json::to_string(record)?;
        line.push('\n');
        self.stdout(json(&line).as_bytes())
    }

    /// A line of text results, unless `--json` is set.
    pub fn line(&self, line: &str) -> Result<()> {
        if self.args.json {
            Ok(())
        } else {
            self.stdout(printable(&format!("{line}\n")).as_bytes())
        }
    }

    /// What a renderer of texts has drawn, escape sequences and all, unless `--json` is set.
    pub fn drawn(&self, bytes: &[u8]) -> Result<()> {
        if self.args.json {
            Ok(())
        } else {
            self.stdout(bytes)
        }
    }

    /// One input failed.
    pub fn failed(&self, input: &str, error: &str) -> Result<()> {
        self.failed.borrow_mut().insert(input.to_string());
        self.bar.suspend(|| voice::say(&format!("error: {}: {error}", short(input))));
        self.record(&Record::Error { input: input.to_string(), error: error.to_string() })
    }

    /// A hint or warning.
    pub fn note(&self, text: &str) {
        if !self.args.quiet {
            self.bar.suspend(|| voice::say(text));
        }
    }

    /// A text that did not fit: `left_out` says what of it was not read.
    pub fn truncation(&self, input: &str, left_out: Option<String>) {
        if let Some(left_out) = left_out {
            self.note(&format!("warning: {}: too long for the model; {left_out}", short(input)));
        }
    }

    /// Prepares an input and says what is to be said of it; none when it cannot be used, which is reported.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub fn prepared(&self, source: &Source, preparer: &mut Preparer<'_>) -> Result<Option<Ready>> {
        match source.prepare(preparer) {
            Ok(ready) => {
                self.truncation(&source.name, ready.truncated());
                self.remarks(&source.name, ready.remarks());
                Ok(Some(ready))
            }
            Err(e) => self.failed(&source.name, &e.to_string()).map(|()| None),
        }
    }

    /// What is to be said of a picture; most of it once a run.
    pub fn remarks(&self, input: &str, remarks: &[Remark]) {
        for remark in remarks {
            let kind = std::mem::discriminant(remark);
            let known = self.made.borrow().contains(&kind);
            if remark.always() {
                self.note(&format!("note: {input}: {remark}"));
            } else if !known {
                self.made.borrow_mut().push(kind);
                self.note(&format!("note: {input}: {remark} (said once a run)"));
            }
        }
    }

    /// Says beforehand when a method will take long on this model.
    pub fn patience(&self, checkpoint: &Checkpoint, methods: &[Configured], shape: Shape) {
        patience(checkpoint, methods, shape).iter().for_each(|text| self.note(&format!("note: {text}")));
    }

    /// More detail, for `-v`.
    pub fn detail(&self, text: &str) {
        if self.args.verbose {
            self.note(text);
        }
    }

    /// So many inputs are done.
    pub fn advance(&self, inputs: usize) {
        self.bar.inc(inputs as u64);
    }

    /// Number of inputs that failed so far.
    pub fn failures(&self) -> usize {
        self.failed.borrow().len()
    }

    /// Ends the run.
    pub fn finish(self, inputs: usize) -> ExitCode {
        self.bar.finish_and_clear();
        self.steps.finish_and_clear();
        let ended = self.table.take().map_or(Ok(()), Rows::finish);
        let lost = ended.map_err(|e| voice::say(&format!("error: {e}"))).is_err();
        if interrupted() {
            let hint = if self.resumable { " (continue with --resume)" } else { "" };
            voice::say(&format!("interrupted; what was finished is complete{hint}"));
            return ExitCode::from(INTERRUPTED);
        }
        if self.failures() == 0 {
            return if lost { ExitCode::from(SOME_FAILED) } else { ExitCode::SUCCESS };
        }
        if inputs > 1 && !self.args.quiet {
            voice::say(&format!("{} of {inputs} inputs failed", self.failures()));
        }
        ExitCode::from(SOME_FAILED)
    }
}
