//! What becomes of explanations: files, records, lines.

use super::explain::{Going, Item, Work};
use super::guard::guarded;
use super::outputs::{target_part, Format, Out};
use super::prepare::Ready;
use super::record::{Done, Record};
use super::report::interrupted;
use super::resume::Written;
use anyhow::Result;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;
use vitx::input::image::View;
use vitx::render::scale::{Range, Scale};
use vitx::render::{save, Scene, Style};

/// What one explanation became: its record and files.
type Drawn = (Value, Vec<Written>);

impl<'a> Work<'a> {
    /// Draws and reports, or sets aside when the scale needs the whole run.
    pub(super) fn deliver(&mut self, items: Vec<Item<'a>>, going: &[Going<'a>], ready: &[Ready]) -> Result<()> {
        if self.plan.style.scale == Scale::Shared {
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
            let range = Scale::Shared.range(&item.explanation);
            ranges.entry(item.method).and_modify(|r| *r = r.union(range)).or_insert(range);
        }
        waiting.sort_by_key(|i| i.going.number); // stable
        for own in waiting.chunk_by(|a, b| a.going.number == b.going.number) {
            if interrupted() {
                break;
            }
            let going = &own[0].going;
            match self.preparer.prepare(going.source) {
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
            match self.draw(item, ready, ranges.get(&item.method).copied())? {
                Ok(done) => drawn.push((item, done)),
                Err(e) => {
                    failure = Some(e);
                    break;
                }
            }
        }
        if let Some(contents) = &going.contents {
            for (r, request) in self.plan.requests.iter().enumerate() {
                for (m, method) in self.plan.methods.iter().enumerate() {
                    let of = |i: &Item<'a>| (i.request, i.method) == (r, m);
                    let whole = items.iter().filter(|i| of(i)).count();
                    let own: Vec<&Drawn> = drawn.iter().filter(|(i, _)| of(i)).map(|(_, d)| d).collect();
                    if whole == 0 || own.len() < whole || self.past.stands(going.number, r, m) {
                        continue;
                    }
                    let files = own.iter().flat_map(|(_, files)| files.iter().cloned()).collect();
                    let records = own.iter().map(|(record, _)| record.clone()).collect();
                    self.past.add(self.past.key(self.plan, going.source, contents, request, method), files, records);
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
        let plan = self.plan;
        let (source, method) = (item.going.source, &plan.methods[item.method]);
        let mut done = Done::new(&source.name, self.model, &item.logits, &item.explanation, plan.seed);
        let output = item.explanation.output;
        let said = output.said(&item.logits, self.model.checkpoint.scale);
        let headline = format!("{} {said} ({}, {})", done.target.label, output.which(), method.spec);
        let scene = scene(ready, &headline, shared, &plan.style);
        let paths: Vec<(Format, PathBuf)> = plan.file_formats(method).zip(self.paths(item)).collect();
        for (format, path) in &paths {
            done.outputs.insert(format.name().into(), Value::from(path.display().to_string()));
        }
        if !item.again {
            self.warn(&source.name, &method.spec, &done);
        }
        done.ms = ((item.ms + start.elapsed().as_secs_f64() * 1e3) * 10.0).round() / 10.0;
        let record = Record::Ok(Box::new(done));
        let mut files = Vec::new();
        for (format, path) in &paths {
            if item.again {
                files.extend(self.written.get(path).cloned().flatten());
                continue;
            }
            let bytes = match format {
                Format::Drawn(renderer) => match guarded(|| (renderer.render)(&scene, &item.explanation)) {
                    Ok(bytes) => bytes,
                    Err(e) => return Ok(Err(e)),
                },
                Format::Json => [serde_json::to_vec_pretty(&record)?, b"\n".to_vec()].concat(),
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
        if !item.again {
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
        let written = self.past.written(path, bytes);
        self.written.insert(path.to_path_buf(), written.clone());
        Ok(written)
    }

    /// What the checks of an explanation say against it.
    fn warn(&self, name: &str, method: &str, done: &Done) {
        if done.checks.contains_key("constant") {
            let value = done.relevance.max;
            self.report.note(&format!("warning: {name}: the {method} map is constant ({value}): it says nothing"));
        }
        if let Some(warning) = done.checks.get("warning").and_then(Value::as_str) {
            self.report.note(&format!("warning: {name}: {method}: {warning}"));
        }
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
            let tokens = (renderer.render)(scene, &item.explanation)?;
            return self.report.drawn(&tokens); // with its own escape sequences
        }
        let files: Vec<_> = paths.iter().map(|(_, p)| p.display().to_string()).collect();
        self.report.line(&format!("{name}: {headline} -> {}", files.join(" ")))
    }

    fn paths(&self, item: &Item<'a>) -> Vec<PathBuf> {
        let (request, method) = (&self.plan.requests[item.request], &self.plan.methods[item.method]);
        let target = target_part(request, item.explanation.output, &self.model.checkpoint.labels);
        let (name, stem) = (self.plan.name(method), &item.going.source.stem);
        self.plan.file_formats(method).map(|f| self.plan.out.path(stem, &name, &target, f)).collect()
    }
}

fn scene<'s>(ready: &'s Ready, caption: &str, shared: Option<Range>, style: &'s Style) -> Scene<'s> {
    let (picture, view, input) = match ready {
        Ready::Picture(p) => (Some(&p.0), p.1.view, p.1.size),
        Ready::Text(_) => (None, View { x: 0.0, y: 0.0, width: 0.0, height: 0.0 }, (0, 0)),
    };
    Scene { picture, view, input, caption: caption.to_string(), shared, style }
}
