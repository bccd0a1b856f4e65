//! Python's pickle as data: protocols 0 to 5 are read into values, and nothing is ever called.
//!
//! Values live in one arena and name each other by index. A class or function is a name; calling it is recorded as a value
//! that holds the name and the arguments. So a hostile file cannot run code, cannot grow by copying what it remembers, and
//! cannot nest so deep that dropping it overflows the stack.

mod literal;
mod machine;

use crate::error::{Error, Result};
use machine::Machine;
use std::io::BufRead;

/// Index of a value in [`Pickle::values`].
pub type Id = usize;

/// What a pickle holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// None, floats, sets, integers beyond 64 bits: nothing a checkpoint's tensors are made of.
    Other,
    /// True or False.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A text.
    Text(String),
    /// Bytes, not kept.
    Bytes,
    /// A tuple.
    Tuple(Vec<Id>),
    /// A list.
    List(Vec<Id>),
    /// A dict or OrderedDict, in order.
    Dict(Vec<(Id, Id)>),
    /// A class or function, as `module.name`.
    Name(String),
    /// A call that was not made: what, with which arguments, and the state set on its result.
    Call {
        /// A [`Value::Name`].
        what: Id,
        /// A [`Value::Tuple`].
        with: Id,
        /// `__setstate__`, if there was one.
        state: Option<Id>,
    },
    /// Something stored beside the pickle, by an identifier.
    Stored(Id),
}

/// A pickle that was read.
#[derive(Debug)]
pub struct Pickle {
    values: Vec<Value>,
    root: Id,
}

impl Pickle {
    /// Reads one pickle, up to and with its STOP.
    ///
    /// # Errors
    /// [`Error::Model`] for what is no pickle, is cut off, or is beyond all measure.
    pub fn read(input: &mut impl BufRead) -> Result<Self> {
        let mut machine = Machine::default();
        while !machine.step(input)? {}
        machine.finish()
    }

    /// The outermost value.
    pub fn root(&self) -> &Value {
        self.get(self.root)
    }

    /// A value by its index.
    pub fn get(&self, id: Id) -> &Value {
        self.values.get(id).unwrap_or(&Value::Other)
    }

    /// Every value's index.
    pub fn ids(&self) -> std::ops::Range<Id> {
        0..self.values.len()
    }

    /// A text.
    pub fn text(&self, id: Id) -> Option<&str> {
        match self.get(id) {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A whole number of at least 0.
    pub fn number(&self, id: Id) -> Option<usize> {
        match self.get(id) {
            Value::Int(n) => usize::try_from(*n).ok(),
            _ => None,
        }
    }

    /// A tuple's members.
    pub fn tuple(&self, id: Id) -> Option<&[Id]> {
        match self.get(id) {
            Value::Tuple(members) => Some(members),
            _ => None,
        }
    }

    /// A class or function as `module.name`.
    pub fn name(&self, id: Id) -> Option<&str> {
        match self.get(id) {
            Value::Name(name) => Some(name),
            _ => None,
        }
    }
}

fn broken(what: &str) -> Error {
    Error::Model(format!("no pickle that can be read ({what})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Pickle> {
        Pickle::read(&mut &bytes[..])
    }

    #[test]
    fn protocols_2_and_4_give_the_same_values() {
        // {'a': (1, -2, 300), 'b': [True, None]} as Python's pickle.dumps writes it.
        let two = b"\x80\x02}q\x00(X\x01\x00\x00\x00aq\x01K\x01J\xfe\xff\xff\xffM,\x01\x87q\x02X\x01\x00\x00\x00bq\x03]q\x04(\x88Neu.";
        let four = b"\x80\x04\x95\x1f\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\x01a\x94K\x01J\xfe\xff\xff\xffM,\x01\x87\x94\x8c\x01b\x94]\x94(\x88Neu.";
        for bytes in [&two[..], &four[..]] {
            let p = read(bytes).unwrap();
            let Value::Dict(pairs) = p.root() else { panic!("{:?}", p.root()) };
            assert_eq!((p.text(pairs[0].0), p.text(pairs[1].0)), (Some("a"), Some("b")));
            let numbers: Vec<_> = p.tuple(pairs[0].1).unwrap().iter().map(|id| p.get(*id).clone()).collect();
            assert_eq!(numbers, [Value::Int(1), Value::Int(-2), Value::Int(300)]);
            assert!(matches!(p.get(pairs[1].1), Value::List(l) if l.len() == 2));
        }
    }

    #[test]
    fn calls_are_recorded_and_never_made() {
        let p = read(b"cos\nsystem\n(S'echo'\ntR.").unwrap();
        let Value::Call { what, with, .. } = p.root() else { panic!("{:?}", p.root()) };
        assert_eq!((p.name(*what), p.tuple(*with).map(<[_]>::len)), (Some("os.system"), Some(1)));
        let p = read(b"\x80\x02ccollections\nOrderedDict\n]]K\x01K\x02ea\x85R.").map(|p| p.root().clone());
        assert!(p.is_err() || matches!(p, Ok(Value::Dict(_))));
    }

    #[test]
    fn depth_and_bombs_cost_nothing() {
        let deep = [b"\x80\x02)".to_vec(), vec![0x85; 500_000], b".".to_vec()].concat();
        assert!(matches!(read(&deep).unwrap().root(), Value::Tuple(_)));
        let bomb: Vec<u8> = [b"\x80\x02)q\x00".to_vec(), b"h\0h\0h\0\x87q\0".repeat(40), b".".to_vec()].concat();
        assert!(read(&bomb).is_ok());
        let names = [&b"\x80\x02X\0\0\x10\0"[..], &[b'n'; 1 << 20], b"q\0", &b"h\0h\0\x930".repeat(40), b"."].concat();
        assert!(read(&names).unwrap_err().to_string().contains("names are longer"));
        // One list of pairs, made a dict again and again; what is on top, remembered under ever more numbers.
        let pairs = [b"\x80\x02K\x01K\x02\x86q\0](".to_vec(), b"h\0".repeat(10_000), b"e\x85q\x01".to_vec()].concat();
        let dicts = [&pairs[..], b"ccollections\nOrderedDict\nq\x02", &b"h\x02h\x01R0".repeat(1000), b"."].concat();
        let memo = [b"\x80\x02}".to_vec(), vec![0x94; 9 << 20]].concat();
        for many in [dicts, memo] {
            assert!(read(&many).unwrap_err().to_string().contains("more values than a checkpoint can have"));
        }
        for hostile in
            [&b"\x80\x02X\xff\xff\xff\xffab"[..], b"\x80\x02h\x05.", b"\x80\x02t.", b"R.", b"", b"\x80\x02\xfe."]
        {
            assert!(read(hostile).unwrap_err().to_string().contains("no pickle that can be read"), "{hostile:?}");
        }
    }
}
