//! From typed arguments to a resolved job: every mistake is found here, before any weight is read.

use super::args::{InputArgs, ModelArgs, ReportArgs};
use super::sources::Sources;
use super::{report, voice};
use anyhow::{bail, Result};
use candle_core::Device;
use std::path::Path;
use vitx::explain::likeness::{words_of, Likeness};
use vitx::input::Shape;
use vitx::model::builtin::{usual, BUILTINS};
use vitx::model::{Access, Checkpoint, Model};

/// Model, device and inputs of a run.
pub struct Job {
    /// What is explained.
    pub sources: Sources,
    /// The model, weights not yet read.
    pub checkpoint: Checkpoint,
    /// Where it will run.
    pub device: Device,
}

impl Job {
    /// Resolves what all commands that read inputs share.
    ///
    /// # Errors
    /// The first mistake found.
    pub fn resolve(model: &ModelArgs, input: &InputArgs, reporting: ReportArgs, out: Option<&Path>) -> Result<Self> {
        let device = device(model)?;
        let sources = Sources::list(input, out)?;
        if let Some(left_out) = vitx::input::formats::left_out(&sources.left_out).filter(|_| !reporting.quiet) {
            voice::say(&format!("note: {left_out}"));
        }
        let readable = sources.list.iter().filter_map(|s| s.input.as_ref().ok());
        let (texts, all) = (readable.clone().filter(|i| i.is_text()).count(), readable.count());
        if texts != 0 && texts != all {
            bail!("texts and images in one run ({texts} of {all} inputs are texts); run vitx once for each");
        }
        let id = model.model.clone().unwrap_or_else(|| default_model(texts > 0, reporting));
        let checkpoint = open(&id, model, reporting)?;
        if all > 0 {
            checkpoint.check_modality(texts > 0)?;
        }
        checkpoint.check_shape(input.shape())?;
        if sources.made > 0 && !reporting.quiet {
            voice::say(&format!(
                "note: {} files that vitx made itself are left out; name one to have it read",
                sources.made
            ));
        }
        report::catch_interrupts()?;
        Ok(Job { sources, checkpoint, device })
    }

    /// The same for targets that are no classes: similarities to other inputs, lengths of states; or with `words` for the words of
    /// texts, explained for all its pictures.
    ///
    /// # Errors
    /// As [`Likeness::model`] and [`words_of`].
    pub fn asked(mut self, targets: &[String], words: bool, model: &ModelArgs, shape: Shape) -> Result<Self> {
        let to = (model.dtype, &self.device);
        if words {
            let classes = model.outputs()?.classes.unwrap_or_default();
            (self.sources.list, self.checkpoint) = words_of(&classes, &self.sources.list, self.checkpoint, shape, to)?;
        } else if let Some(likeness) = Likeness::asked(targets)? {
            self.checkpoint = likeness.model(self.checkpoint, (&self.sources.list, shape), to)?;
        }
        Ok(self)
    }

    /// Reads the weights and says what is to be known of them. Ctrl-C ends the program at once meanwhile: nothing is
    /// begun yet, and a download goes on where it was.
    ///
    /// # Errors
    /// As [`Checkpoint::load`].
    pub fn load(checkpoint: Checkpoint, args: &ModelArgs, device: &Device, reporting: ReportArgs) -> Result<Model> {
        let said = checkpoint.notes.len();
        let model = report::ending_at_once(|| checkpoint.load(args.dtype, device))?;
        if !reporting.quiet {
            model.checkpoint.notes.iter().skip(said).for_each(|note| voice::say(&format!("note: {note}")));
        }
        Ok(model)
    }
}

/// The built-in model of such inputs, and what is to be known of it.
pub fn default_model(text: bool, reporting: ReportArgs) -> String {
    let (id, real) = usual(text);
    if !reporting.quiet {
        voice::say(&format!(
            "note: {id} is a small built-in model trained on little data; for real work pass --model, such as {real}"
        ));
    }
    id.to_string()
}

/// Opens a checkpoint, showing downloads on a terminal and saying what is to be known of its files.
///
/// # Errors
/// As [`Checkpoint::open`].
pub fn open(id: &str, args: &ModelArgs, reporting: ReportArgs) -> Result<Checkpoint> {
    let checkpoint = found(id, args, reporting)?;
    if !reporting.quiet {
        checkpoint.notes.iter().for_each(|note| voice::say(&format!("note: {note}")));
    }
    Ok(checkpoint)
}

/// Opens a checkpoint, showing downloads on a terminal; its notes are the caller's to say.
///
/// # Errors
/// As [`Checkpoint::open`].
pub fn found(id: &str, args: &ModelArgs, reporting: ReportArgs) -> Result<Checkpoint> {
    if args.revision.is_some() && (Path::new(id).is_dir() || BUILTINS.iter().any(|b| b.name == id)) {
        bail!("--revision is for models of the hub; `{id}` is read from where it is");
    }
    Ok(Checkpoint::open_as(id, &access(args, reporting), &args.outputs()?)?)
}

/// How models are found.
pub fn access(args: &ModelArgs, reporting: ReportArgs) -> Access {
    #[cfg(not(feature = "hub"))]
    let _ = reporting;
    Access {
        revision: args.revision.clone(),
        offline: args.offline,
        #[cfg(feature = "hub")]
        on_download: Some(downloads(reporting.quiet)),
    }
}

/// What of downloads is told on stderr: a line a file and why it is waited, a bar on a terminal; of quiet runs nothing. Ctrl-C ends
/// the program at once meanwhile, wherever in its work that is.
#[cfg(feature = "hub")]
fn downloads(quiet: bool) -> vitx::model::hub::OnDownload {
    use indicatif::{ProgressBar, ProgressStyle};
    use std::io::IsTerminal;
    use vitx::model::hub::Download;
    let shown = !quiet && std::io::stderr().is_terminal();
    let bar = if shown { ProgressBar::new(0) } else { ProgressBar::hidden() };
    let style = ProgressStyle::with_template("{msg} {bar:32} {bytes}/{total_bytes} {bytes_per_sec}, {eta} left");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let say = move |bar: &ProgressBar, line: &str| {
        if !quiet {
            bar.suspend(|| voice::say(line));
        }
    };
    std::sync::Arc::new(move |download| match download {
        Download::Begins => report::downloading(true),
        Download::Over => {
            bar.finish_and_clear();
            report::downloading(false);
        }
        Download::Comes { file, done, total } => {
            if bar.is_finished() {
                bar.reset();
            }
            bar.set_message(file.to_string());
            bar.set_length(total);
            bar.set_position(done);
        }
        Download::Waits(why) => say(&bar, &format!("note: {why}")),
        Download::Done { file, size, folder } => {
            say(&bar, &format!("downloaded {file} ({size} bytes) to {}", folder.display()));
        }
    })
}

/// The device that was asked for; must run before the first tensor operation.
///
/// # Errors
/// When this build or this machine does not have it.
pub fn device(args: &ModelArgs) -> Result<Device> {
    if let Some(threads) = args.threads {
        // Read by rayon's global pool and by candle's matrix product when they start.
        std::env::set_var("RAYON_NUM_THREADS", threads.to_string());
    }
    Ok(vitx::device::named(&args.device)?)
}
