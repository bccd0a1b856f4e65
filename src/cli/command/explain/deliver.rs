//! What becomes of explanations: files, records, lines.

use super::{tell_done, Work};
use crate::cli::noted::lost;
use crate::cli::report::interrupted;
use anyhow::Result;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use vitx::abreast::abreast;
use vitx::explain::desk::{Came, Going, Item, Part, Read, Sheet, Sheets};
use vitx::explain::Nothing;
use vitx::render::json::Record;
use vitx::render::out::Out;
use vitx::render::scale::{Range, Span};
use vitx::resume::Written;

impl<'a> Work<'a> {
    /// Whether no further input is to be begun.
    fn stopped(&self) -> bool {
        interrupted() || self.full || (self.args.input.fail_fast && self.report.failures() > 0)
    }

    /// Writes and says what came of some inputs; whether to go on.
    pub(super) fn chunk(&mut self, came: Came<'a>) -> Result<bool> {
        for going in &came.chunk {
            let (number, done) = (going.number, self.past.made.done(going.number));
            if self.plan.again || (self.plan.page.is_some() && !done) {
                continue; // all of it is made again
            }
            if done {
                let standing = self.past.made.records(number, &going.source.name, &self.model.checkpoint.id)?;
                self.index.note(number, &standing, self.plan, &going.source.stem);
            }
            tell_done(&self.report, self.plan, &self.past, &self.model.checkpoint.id, going.number, going.source)?;
        }
        for read in came.read {
            self.read(read)?;
        }
        for part in came.parts {
            if self.stopped() {
                break;
            }
            self.part(part)?;
        }
        self.report.advance(came.chunk.len());
        Ok(!self.stopped())
    }

    fn read(&self, (source, read): Read<'a>) -> Result<()> {
        match read {
            Ok((left_out, remarks)) => {
                self.report.truncation(&source.name, left_out);
                self.report.remarks(&source.name, &remarks);
                Ok(())
            }
            Err(e) => self.report.failed(&source.name, &e.to_string()),
        }
    }

    fn part(&mut self, part: Part<'a>) -> Result<()> {
        match part {
            Part::Failed(source, e) => self.report.failed(&source.name, &e.to_string()),
            Part::Nothing(going, nothing) => self.tell_nothing(&going, nothing),
            Part::Waiting(items) => {
                self.waiting.extend(items);
                Ok(())
            }
            Part::Drawn(sheets) => self.sheets(sheets),
        }
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
            let drawn = self.plan.style.evidence.of(&item.answer.explanation);
            let range = Span::Shared.range(&drawn, self.plan.style.units);
            ranges.entry(item.answer.method).and_modify(|r| *r = r.union(range)).or_insert(range);
        }
        waiting.sort_by_key(|i| i.going.number); // stable
        let inputs = waiting.chunk_by(|a: &Item<'a>, b| a.going.number == b.going.number);
        let desk = self.desk;
        abreast(
            inputs,
            desk.lanes(),
            |own| desk.drawn_late(own, &ranges),
            |part| {
                part.map_or(Ok(()), |part| self.part(part))?;
                Ok(!interrupted())
            },
        )
    }

    /// Writes all explanations of one input and notes them; the first failure is the input's.
    fn sheets(&mut self, Sheets { going, drawn, whole, asked, mut failure }: Sheets<'a>) -> Result<()> {
        let (mut written, mut own): (Vec<(&Sheet, Vec<Written>)>, _) = (Vec::new(), HashMap::new());
        for sheet in &drawn {
            match self.sheet(&going, sheet, &mut own)? {
                Ok(files) => written.push((sheet, files)),
                Err(e) => {
                    failure = Some(e);
                    break;
                }
            }
        }
        let mut pages = Vec::new();
        for (path, bytes) in &whole {
            match (&self.plan.out, &failure) {
                (_, Some(_)) => break,
                (Out::Stdout, None) => self.report.stdout(bytes)?,
                (_, None) => match self.write(path, bytes) {
                    Ok(written) => pages.extend(written),
                    Err(e) => failure = Some(e),
                },
            }
        }
        if failure.is_none() {
            let records = drawn.iter().map(|sheet| sheet.record.value()).collect::<vitx::Result<Vec<_>>>()?;
            self.index.note(going.number, &records, self.plan, &going.source.stem);
        }
        for (r, request) in self.plan.requests.iter().enumerate() {
            for (m, method) in self.plan.methods.iter().enumerate() {
                let own_asked = asked.iter().filter(|a| **a == (r, m)).count();
                let own: Vec<_> = written.iter().filter(|(s, _)| (s.request, s.method) == (r, m)).collect();
                if own_asked == 0
                    || own.len() < own_asked
                    || (self.plan.page.is_some() && failure.is_some())
                    || (self.plan.page.is_none() && self.past.stands(going.number, r, m))
                {
                    continue;
                }
                let files =
                    own.iter().flat_map(|(_, files)| files.iter().cloned()).chain(pages.iter().cloned()).collect();
                let records = own.iter().map(|(s, _)| s.record.value()).collect::<vitx::Result<_>>()?;
                let contents = going.contents.as_deref();
                let asked =
                    contents.and_then(|c| self.past.stated.identity(self.plan, going.source, c, request, method));
                if let Some(asked) = asked {
                    lost(self.past.add(&asked, files, records));
                }
            }
        }
        match failure {
            Some(e) => {
                self.full |= e.is_of_the_place();
                self.report.failed(&going.source.name, &e.to_string())
            }
            None => Ok(()),
        }
    }

    /// Writes one explanation and says so; the input's `own` files are those written before. The outer error ends the run, the inner
    /// one is the input's.
    fn sheet(
        &mut self,
        going: &Going<'a>,
        sheet: &Sheet,
        own: &mut HashMap<PathBuf, Option<Written>>,
    ) -> Result<vitx::Result<Vec<Written>>> {
        let name = &going.source.name;
        sheet.warnings.iter().for_each(|w| self.report.note(&format!("warning: {name}: {w}")));
        let mut files = Vec::new();
        for (path, bytes) in &sheet.files {
            if sheet.again {
                files.extend(own.get(path).cloned().flatten());
                continue;
            }
            if self.plan.out == Out::Stdout {
                self.report.stdout(bytes)?;
                continue;
            }
            match self.write(path, bytes) {
                Ok(written) => {
                    own.insert(path.clone(), written.clone());
                    files.extend(written);
                }
                Err(e) => return Ok(Err(e)),
            }
        }
        if !sheet.again {
            let place = self.maps.as_mut().zip(sheet.map.as_ref()).map(|(maps, map)| maps.add(map)).transpose();
            match place {
                Ok(place) => self.tell(name, sheet, place)?,
                Err(e) => return Ok(Err(e)),
            }
        }
        Ok(Ok(files))
    }

    /// Writes a file of this run, once.
    fn write(&mut self, path: &Path, bytes: &[u8]) -> vitx::Result<Option<Written>> {
        self.files.write(self.plan, path, bytes)?;
        Ok(self.past.made.written(path, bytes))
    }

    /// The result on stdout: a record, or a line and, for texts, the tokens; with the `place` of its map in the run's array.
    fn tell(&self, name: &str, sheet: &Sheet, place: Option<usize>) -> Result<()> {
        let headline = &sheet.headline;
        self.report.mapped(&sheet.record, place)?;
        if self.plan.out == Out::Stdout {
            self.report.detail(&format!("{name}: {headline}"));
            return Ok(());
        }
        if let Some(tokens) = &sheet.tokens {
            self.report.line(headline)?;
            return self.report.drawn(tokens); // with its own escape sequences
        }
        let page = self.plan.page.and_then(|_| vitx::explain::pages::of(&sheet.record));
        let files: Vec<_> = sheet.files.iter().map(|(p, _)| p.display().to_string()).chain(page).collect();
        self.report.line(&format!("{name}: {headline} -> {}", files.join(" ")))
    }

    /// Writes the index of the pages; of a run that was stopped none, since it would lack the rest.
    pub(super) fn write_index(&self) -> Result<()> {
        if self.stopped() {
            return Ok(());
        }
        match self.index.finish(self.plan, &self.model.checkpoint.id)? {
            Some(file) => self.report.line(&format!("index -> {}", file.display())),
            None => Ok(()),
        }
    }

    fn tell_nothing(&mut self, going: &Going<'a>, nothing: Nothing) -> Result<()> {
        let Some(request) = self.plan.requests.get(nothing.request) else { return Ok(()) };
        let (input, target) = (going.source.name.clone(), request.text.clone());
        self.report.note(&format!("note: {input}: {}", nothing.note));
        let record = Record::Nothing { input, target, note: nothing.note };
        for (contents, method) in going.contents.iter().flat_map(|c| self.plan.methods.iter().map(move |m| (c, m))) {
            if let Some(asked) = self.past.stated.identity(self.plan, going.source, contents, request, method) {
                lost(self.past.add(&asked, Vec::new(), vec![record.value()?]));
            }
        }
        self.report.record(&record)
    }
}
