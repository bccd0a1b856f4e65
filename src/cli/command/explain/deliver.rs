//! What becomes of explanations: files, records, lines.

use super::{Going, Item, Work};
use crate::cli::outputs::{Format, Out};
use crate::cli::report::interrupted;
use anyhow::Result;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;
use vitx::guard::guarded;
use vitx::input::Ready;
use vitx::render::json::{Done, Record};
use vitx::render::names::target_part;
use vitx::render::scale::{Range, Span};
use vitx::render::{save, Scene};
use vitx::resume::Written;

/// What one explanation became: its record and files.
type Drawn = (Value, Vec<Written>);

impl<'a> Work<'a> {
    /// Draws and reports, or sets aside when the scale needs the whole run.
    pub(super) fn deliver(&mut self, items: Vec<Item<'a>>, going: &[Going<'a>], ready: &[Ready]) -> Result<()> {
        if self.plan.style.scale == Span::Shared {
            self.waiting.extend(items);
            return Ok(());
        }
        for (one, ready) in going.iter().zip(ready) {
            let own: Vec<&Item<'a>> = items.iter().filter(|i| i.going.number == one.number).collect();
            self.draw_all(one, &own, ready, &BTreeMap::new())?;
        }
        Ok(())
    }

    /// Draws what waited for the scale of the whole run: one range a method. A part of the run has another scale, so that
    /// nothing is drawn of a run that was stopped.
    pub(super) fn draw_waiting(&mut self) -> Result<()> {
        let mut waiting = std::mem::take(&mut self.waiting);
        if self.stopped() && !waiting.is_empty() {
            self.report.note("nothing was drawn: --normalize shared needs every input");
            return Ok(());
        }
        let mut ranges: BTreeMap<usize, Range> = BTreeMap::new();
        for item in &waiting {
            let range = Span::Shared.range(&item.answer.explanation);
            ranges.entry(item.answer.method).and_modify(|r| *r = r.union(range)).or_insert(range);
        }
        waiting.sort_by_key(|i| i.going.number); // stable
        for own in waiting.chunk_by(|a, b| a.going.number == b.going.number) {
            if interrupted() {
                break;
            }
            let Some(Item { going, .. }) = own.first() else { continue };
            match going.source.prepare(&mut self.preparer) {
                Ok(ready) => self.draw_all(going, &own.iter().collect::<Vec<_>>(), &ready, &ranges)?,
                Err(e) => self.report.failed(&going.source.name, &e.to_string())?,
            }
        }
        Ok(())
    }

    /// Draws all explanations of one input and notes them; the first failure is the input's.
    fn draw_all(
        &mut self,
        going: &Going<'a>,
        items: &[&Item<'a>],
        ready: &Ready,
        ranges: &BTreeMap<usize, Range>,
    ) -> Result<()> {
        let mut drawn: Vec<(&Item<'a>, Drawn)> = Vec::new();
        let mut failure = None;
        for item in items {
            match self.draw(item, ready, ranges.get(&item.answer.method).copied())? {
                Ok(done) => drawn.push((item, done)),
                Err(e) => {
                    failure = Some(e);
                    break;
                }
            }
        }
        for (r, request) in self.plan.requests.iter().enumerate() {
            for (m, method) in self.plan.methods.iter().enumerate() {
                let of = |i: &Item<'a>| (i.answer.request, i.answer.method) == (r, m);
                let whole = items.iter().filter(|i| of(i)).count();
                let own: Vec<&Drawn> = drawn.iter().filter(|(i, _)| of(i)).map(|(_, d)| d).collect();
                if whole == 0 || own.len() < whole || self.past.stands(going.number, r, m) {
                    continue;
                }
                let files = own.iter().flat_map(|(_, files)| files.iter().cloned()).collect();
                let records = own.iter().map(|(record, _)| record.clone()).collect();
                let contents = going.contents.as_deref();
                let asked = contents.and_then(|c| self.past.identity(self.plan, going.source, c, request, method));
                if let Some(asked) = asked {
                    self.past.add(&asked, files, records);
                }
            }
        }
        match failure {
            Some(e) => self.report.failed(&going.source.name, &e.to_string()),
            None => Ok(()),
        }
    }

    /// Writes one explanation in every format. The outer error ends the run, the inner one is the input's.
    fn draw(&mut self, item: &Item<'a>, ready: &Ready, shared: Option<Range>) -> Result<vitx::Result<Drawn>> {
        let start = Instant::now();
        let (plan, answer, source) = (self.plan, &item.answer, item.going.source);
        let (Some(request), Some(method)) = (plan.requests.get(answer.request), plan.methods.get(answer.method)) else {
            return Ok(Err(vitx::Error::Fault("an answer to what was not asked".into())));
        };
        let mut done = Done::new(&source.name, &self.model.into(), &answer.logits, &answer.explanation, plan.seed);
        done.size = matches!(ready, Ready::Picture(_)).then(|| ready.size());
        let contents = item.going.contents.as_deref();
        done.identity = contents.and_then(|c| self.past.identity(plan, source, c, request, method));
        let output = answer.explanation.output;
        let said = output.said(&answer.logits, self.model.checkpoint.scale);
        let headline = format!("{} {said} ({}, {})", done.target.label, output.which(), method.spec);
        let target = target_part(request, output, &self.model.checkpoint.labels);
        let path = |f: Format| (f, plan.out.path(&source.stem, &plan.name(method), &target, f));
        let paths: Vec<(Format, PathBuf)> = plan.file_formats(method).map(path).collect();
        for (format, path) in &paths {
            done.outputs.insert(format.name.into(), Value::from(path.display().to_string()));
        }
        if !answer.again {
            let warnings = done.warnings(&method.spec);
            warnings.iter().for_each(|w| self.report.note(&format!("warning: {}: {w}", source.name)));
        }
        done.ms = ((answer.ms + start.elapsed().as_secs_f64() * 1e3) * 10.0).round() / 10.0;
        let record = Record::Ok(Box::new(done));
        let caption = headline.clone();
        let scene = Scene { caption, shared, record: Some(&record), ..Scene::of(ready, &plan.style) };
        let mut files = Vec::new();
        for (format, path) in &paths {
            if answer.again {
                files.extend(self.written.get(path).cloned().flatten());
                continue;
            }
            let bytes = match guarded(|| (format.render)(&scene, &answer.explanation)) {
                Ok(bytes) => bytes,
                Err(e) => return Ok(Err(e)),
            };
            if plan.out == Out::Stdout {
                self.report.stdout(&bytes)?;
                continue;
            }
            match self.write(path, &bytes) {
                Ok(written) => files.extend(written),
                Err(e) => return Ok(Err(e)),
            }
        }
        if !answer.again {
            self.tell(item, &record, &headline, &scene, &paths)?;
        }
        Ok(Ok((record.value()?, files)))
    }

    /// Writes a file of this run, once.
    fn write(&mut self, path: &Path, bytes: &[u8]) -> vitx::Result<Option<Written>> {
        if self.written.contains_key(path) {
            return Err(vitx::Error::Input(format!(
                "{} is another result of this run already; pass an --out of its own for this one",
                path.display()
            )));
        }
        save::save(path, bytes, self.plan.replace)?;
        let written = self.past.made.written(path, bytes);
        self.written.insert(path.to_path_buf(), written.clone());
        Ok(written)
    }

    /// The result on stdout: a record, or a line and, for texts, the tokens.
    fn tell(
        &self,
        item: &Item<'a>,
        record: &Record,
        headline: &str,
        scene: &Scene<'_>,
        paths: &[(Format, PathBuf)],
    ) -> Result<()> {
        let name = &item.going.source.name;
        if self.plan.out == Out::Stdout {
            self.report.detail(&format!("{name}: {headline}"));
            return Ok(());
        }
        self.report.record(record)?;
        if self.plan.to_stdout {
            self.report.line(headline)?;
            let renderer = vitx::render::find("ansi")?;
            let tokens = (renderer.render)(scene, &item.answer.explanation)?;
            return self.report.drawn(&tokens); // with its own escape sequences
        }
        let files: Vec<_> = paths.iter().map(|(_, p)| p.display().to_string()).collect();
        self.report.line(&format!("{name}: {headline} -> {}", files.join(" ")))
    }
}
