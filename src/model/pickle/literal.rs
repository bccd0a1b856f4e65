//! Bytes, lines and counted blocks of a pickle, and the instructions that push one value of their own.

use super::{broken, Value};
use crate::error::{Error, Result};
use std::io::{BufRead, Read};

fn cut(_: std::io::Error) -> Error {
    broken("it ends too early")
}

pub(super) fn bytes<const N: usize>(input: &mut impl BufRead) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    input.read_exact(&mut bytes).map_err(cut)?;
    Ok(bytes)
}

/// How many bytes a length has before what it counts.
enum Length {
    Short,
    Medium,
    Wide,
}

impl Length {
    fn read(self, input: &mut impl BufRead) -> Result<u64> {
        Ok(match self {
            Length::Short => bytes::<1>(input)?[0].into(),
            Length::Medium => u32::from_le_bytes(bytes(input)?).into(),
            Length::Wide => u64::from_le_bytes(bytes(input)?),
        })
    }
}

/// A counted block, read without believing that there is so much.
fn block(input: &mut impl BufRead, length: Length) -> Result<Vec<u8>> {
    let length = length.read(input)?;
    let mut block = Vec::new();
    input.take(length).read_to_end(&mut block).map_err(cut)?;
    if block.len() as u64 == length {
        Ok(block)
    } else {
        Err(broken("it ends too early"))
    }
}

pub(super) fn line(input: &mut impl BufRead) -> Result<String> {
    let mut line = Vec::new();
    input.take(1 << 20).read_until(b'\n', &mut line).map_err(cut)?;
    if line.pop() != Some(b'\n') {
        return Err(broken("a line does not end"));
    }
    Ok(String::from_utf8_lossy(&line).trim_end_matches('\r').to_string())
}

fn text(bytes: Vec<u8>) -> Value {
    Value::Text(String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()))
}

/// A little-endian number in two's complement of any length.
fn long(bytes: &[u8]) -> Value {
    let mut wide = [if bytes.last().is_some_and(|b| b & 0x80 != 0) { 0xff } else { 0 }; 8];
    if bytes.len() > 8 {
        return Value::Other;
    }
    wide[..bytes.len()].copy_from_slice(bytes);
    Value::Int(i64::from_le_bytes(wide))
}

/// Instructions that push one value of their own.
pub(super) fn literal(code: u8, input: &mut impl BufRead) -> Result<Value> {
    Ok(match code {
        b'N' => Value::Other,
        0x88 => Value::Bool(true),
        0x89 => Value::Bool(false),
        b'K' => Value::Int(bytes::<1>(input)?[0].into()),
        b'M' => Value::Int(u16::from_le_bytes(bytes(input)?).into()),
        b'J' => Value::Int(i32::from_le_bytes(bytes(input)?).into()),
        0x8a => long(&block(input, Length::Short)?),
        0x8b => long(&block(input, Length::Medium)?),
        b'I' | b'L' => match line(input)?.trim_end_matches('L') {
            "00" => Value::Bool(false),
            "01" => Value::Bool(true),
            number => number.parse().map_or(Value::Other, Value::Int),
        },
        b'F' => {
            line(input)?;
            Value::Other
        }
        b'G' => {
            bytes::<8>(input)?;
            Value::Other
        }
        b'X' => text(block(input, Length::Medium)?),
        0x8c | b'U' => text(block(input, Length::Short)?),
        0x8d => text(block(input, Length::Wide)?),
        b'T' => text(block(input, Length::Medium)?),
        b'V' => Value::Text(line(input)?),
        b'S' => Value::Text(line(input)?.trim_matches(['\'', '"']).to_string()),
        b'C' => skip(input, Length::Short)?,
        b'B' => skip(input, Length::Medium)?,
        0x8e | 0x96 => skip(input, Length::Wide)?,
        _ => return Err(broken(&format!("unknown instruction {code:#04x}"))),
    })
}

fn skip(input: &mut impl BufRead, length: Length) -> Result<Value> {
    let length = length.read(input)?;
    let skipped = std::io::copy(&mut input.take(length), &mut std::io::sink()).map_err(cut)?;
    if skipped == length {
        Ok(Value::Bytes)
    } else {
        Err(broken("it ends too early"))
    }
}
