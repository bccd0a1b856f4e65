//! The stack machine that pickles are programs of.

use super::literal::{bytes, line, literal};
use super::{broken, Id, Pickle, Value};
use crate::error::{Error, Result};
use std::collections::HashMap;
use std::io::BufRead;

/// More than a checkpoint of 100,000 tensors needs; a file that asks for more is refused.
const MOST_VALUES: usize = 1 << 23;

/// Bytes of names that were put together of texts, which a few instructions each could make of one long text.
const MOST_NAMED: usize = 1 << 24;

/// Classes whose objects are dicts.
const DICTS: &[&str] = &["collections.OrderedDict", "collections.defaultdict", "builtins.dict", "__builtin__.dict"];

fn too_many() -> Error {
    broken("it holds more values than a checkpoint can have")
}

#[derive(Default)]
pub(super) struct Machine {
    values: Vec<Value>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
    /// Members of lists and dicts.
    members: usize,
    /// See [`MOST_NAMED`].
    named: usize,
}

impl Machine {
    /// The pickle, after STOP.
    pub(super) fn finish(mut self) -> Result<Pickle> {
        let root = self.pop()?;
        Ok(Pickle { values: self.values, root })
    }

    fn push(&mut self, value: Value) -> Result<()> {
        if self.values.len() == MOST_VALUES {
            return Err(too_many());
        }
        self.stack.push(self.values.len());
        self.values.push(value);
        Ok(())
    }

    fn pop(&mut self) -> Result<Id> {
        // What lies below the last mark belongs to it.
        if self.stack.len() <= self.marks.last().copied().unwrap_or(0) {
            return Err(broken("its stack is empty"));
        }
        self.stack.pop().ok_or_else(|| broken("its stack is empty"))
    }

    fn top(&self) -> Result<Id> {
        self.stack.last().copied().ok_or_else(|| broken("its stack is empty"))
    }

    fn since_mark(&mut self) -> Result<Vec<Id>> {
        let mark = self.marks.pop().ok_or_else(|| broken("a mark is missing"))?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    /// Makes room for more members of lists and dicts.
    fn hold(&mut self, more: usize) -> Result<()> {
        self.members = self.members.saturating_add(more);
        if self.members > MOST_VALUES {
            return Err(too_many());
        }
        Ok(())
    }

    fn pop_text(&mut self) -> Result<String> {
        let id = self.pop()?;
        match self.values.get(id) {
            Some(Value::Text(text)) => Ok(text.clone()),
            _ => Err(broken("a name is no text")),
        }
    }

    fn tuple(&mut self, count: usize) -> Result<()> {
        let mut members = (0..count).map(|_| self.pop()).collect::<Result<Vec<_>>>()?;
        members.reverse();
        self.push(Value::Tuple(members))
    }

    /// Adds pairs to the dict on top; a call's result (a class of its own) keeps none.
    fn set_items(&mut self, items: &[Id]) -> Result<()> {
        self.hold(items.len())?;
        let top = self.top()?;
        if let Some(Value::Dict(pairs)) = self.values.get_mut(top) {
            pairs.extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1])));
        }
        Ok(())
    }

    fn append(&mut self, items: &[Id]) -> Result<()> {
        self.hold(items.len())?;
        let top = self.top()?;
        if let Some(Value::List(list)) = self.values.get_mut(top) {
            list.extend(items);
        }
        Ok(())
    }

    /// A call: of a dict's class it is a dict, with the pairs of its argument (a list of lists, as Python 2 wrote them).
    fn call(&mut self, what: Id, with: Id) -> Result<()> {
        let dict = match self.values.get(what) {
            Some(Value::Name(name)) => DICTS.contains(&name.as_str()),
            _ => false,
        };
        if !dict {
            return self.push(Value::Call { what, with, state: None });
        }
        let members = |id: Id| match self.values.get(id) {
            Some(Value::Tuple(m) | Value::List(m)) => m.as_slice(),
            _ => &[],
        };
        let list = members(with).first().map_or(&[] as &[Id], |first| members(*first));
        let pairs = list.iter().filter_map(|pair| Some((*members(*pair).first()?, *members(*pair).get(1)?)));
        let pairs: Vec<_> = pairs.take(MOST_VALUES).collect();
        // One list may be made a dict again and again.
        self.hold(2 * pairs.len())?;
        self.push(Value::Dict(pairs))
    }

    fn build(&mut self) -> Result<()> {
        let state = self.pop()?;
        let top = self.top()?;
        // A dict's state is its attributes (`_metadata`), not its contents.
        if let Some(Value::Call { state: place, .. }) = self.values.get_mut(top) {
            *place = Some(state);
        }
        Ok(())
    }

    fn remember(&mut self, at: u64) -> Result<()> {
        let top = self.top()?;
        self.memo.insert(at, top);
        if self.memo.len() > MOST_VALUES {
            return Err(too_many());
        }
        Ok(())
    }

    fn recall(&mut self, at: u64) -> Result<()> {
        let id = *self.memo.get(&at).ok_or_else(|| broken("it recalls what it never stored"))?;
        self.again(id)
    }

    fn again(&mut self, id: Id) -> Result<()> {
        if self.stack.len() == MOST_VALUES {
            return Err(too_many());
        }
        self.stack.push(id);
        Ok(())
    }

    /// One instruction; true at STOP.
    pub(super) fn step(&mut self, input: &mut impl BufRead) -> Result<bool> {
        let [code] = bytes(input)?;
        match code {
            b'.' => return Ok(true),
            0x80 => drop(bytes::<1>(input)?), // PROTO
            0x95 => drop(bytes::<8>(input)?), // FRAME
            b'(' => {
                if self.marks.len() == MOST_VALUES {
                    return Err(broken("it holds more marks than a checkpoint can have"));
                }
                self.marks.push(self.stack.len());
            }
            b'0' => drop(self.pop()?),
            b'1' => drop(self.since_mark()?),
            b'2' => {
                let top = self.top()?;
                self.again(top)?;
            }
            b'q' | b'r' | b'p' | 0x94 | b'h' | b'j' | b'g' => self.memory(code, input)?,
            b'}' | b']' | b')' | b'd' | b'l' | b't' | 0x85..=0x87 | b's' | b'u' | b'a' | b'e' | 0x8f..=0x91 => {
                self.collection(code)?;
            }
            b'c' | b'i' | 0x93 | b'R' | 0x81 | 0x92 | b'o' | b'b' | b'P' | b'Q' => self.object(code, input)?,
            _ => {
                let value = literal(code, input)?;
                self.push(value)?;
            }
        }
        Ok(false)
    }

    fn memory(&mut self, code: u8, input: &mut impl BufRead) -> Result<()> {
        let named = |line: String| line.parse().map_err(|_| broken("a memo's number"));
        match code {
            b'q' => self.remember(bytes::<1>(input)?[0].into()),
            b'r' => self.remember(u32::from_le_bytes(bytes(input)?).into()),
            b'p' => self.remember(named(line(input)?)?),
            0x94 => self.remember(self.memo.len() as u64),
            b'h' => self.recall(bytes::<1>(input)?[0].into()),
            b'j' => self.recall(u32::from_le_bytes(bytes(input)?).into()),
            _ => self.recall(named(line(input)?)?),
        }
    }

    fn collection(&mut self, code: u8) -> Result<()> {
        match code {
            b'}' => self.push(Value::Dict(Vec::new())),
            b']' => self.push(Value::List(Vec::new())),
            b')' => self.push(Value::Tuple(Vec::new())),
            b'd' => {
                let items = self.since_mark()?;
                self.push(Value::Dict(Vec::new()))?;
                self.set_items(&items)
            }
            b'l' => {
                let items = self.since_mark()?;
                self.push(Value::List(items))
            }
            b't' => {
                let items = self.since_mark()?;
                self.push(Value::Tuple(items))
            }
            0x85..=0x87 => self.tuple(usize::from(code - 0x84)),
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set_items(&[key, value])
            }
            b'u' => {
                let items = self.since_mark()?;
                self.set_items(&items)
            }
            b'a' => {
                let item = self.pop()?;
                self.append(&[item])
            }
            b'e' => {
                let items = self.since_mark()?;
                self.append(&items)
            }
            0x90 => self.since_mark().map(drop), // ADDITEMS: into a set, which is not kept
            0x91 => {
                self.since_mark()?;
                self.push(Value::Other)
            }
            _ => self.push(Value::Other), // EMPTY_SET
        }
    }

    fn object(&mut self, code: u8, input: &mut impl BufRead) -> Result<()> {
        match code {
            b'c' => {
                let name = Value::Name(format!("{}.{}", line(input)?, line(input)?));
                self.push(name)
            }
            0x93 => {
                let (name, module) = (self.pop_text()?, self.pop_text()?);
                self.named += name.len() + module.len();
                if self.named > MOST_NAMED {
                    return Err(broken("its names are longer than a checkpoint's can be"));
                }
                self.push(Value::Name(format!("{module}.{name}")))
            }
            b'R' | 0x81 => {
                let (with, what) = (self.pop()?, self.pop()?);
                self.call(what, with)
            }
            0x92 => {
                let (_, with, what) = (self.pop()?, self.pop()?, self.pop()?);
                self.call(what, with)
            }
            b'i' | b'o' => {
                let mut items = self.since_mark()?;
                if code == b'i' {
                    let name = Value::Name(format!("{}.{}", line(input)?, line(input)?));
                    self.push(name)?;
                    items.insert(0, self.pop()?);
                }
                let what = *items.first().ok_or_else(|| broken("an object without a class"))?;
                self.push(Value::Tuple(items.split_off(1)))?;
                let with = self.pop()?;
                self.call(what, with)
            }
            b'b' => self.build(),
            b'P' => {
                let name = Value::Text(line(input)?);
                self.push(name)?;
                let id = self.pop()?;
                self.push(Value::Stored(id))
            }
            _ => {
                let id = self.pop()?;
                self.push(Value::Stored(id))
            }
        }
    }
}
