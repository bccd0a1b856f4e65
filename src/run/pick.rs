//! What users choose of a model's attention: heads, layers, and the output tokens whose rows are read.

use super::view::Run;
use crate::encoder::Facts;
use crate::error::{Error, Result};
use crate::explanation::Layout;
use crate::nn::attention::mean_heads;
use candle_core::{Tensor, D};

/// How a layer's heads become one matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heads {
    /// Their mean.
    Mean,
    /// Their maximum, entry by entry.
    Max,
    /// Their minimum, entry by entry.
    Min,
    /// One of them.
    One(usize),
}

/// A layer, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layer {
    /// This one.
    Number(usize),
    /// The last.
    Last,
}

/// A layer, or the end of a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// This layer.
    Layer(Layer),
    /// The last one of this stage, counted from 1, of a model whose tokens are merged between stages.
    Stage(usize),
}

/// The output token whose row is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Row {
    /// What the classifier reads: the class token, or the mean of all tokens.
    Auto,
    /// The class token.
    Class,
    /// DeiT's distillation token.
    Distillation,
    /// A token by number.
    Token(usize),
}

impl Heads {
    /// Reads `mean`, `max`, `min` or a head's number.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "mean" => Heads::Mean,
            "max" => Heads::Max,
            "min" => Heads::Min,
            n => Heads::One(n.parse().ok()?),
        })
    }

    /// `[H,T,T]` -> `[T,T]`
    pub fn join(self, attention: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Heads::Mean => mean_heads(attention)?,
            Heads::Max => attention.max(0)?,
            Heads::Min => attention.min(0)?,
            Heads::One(h) => attention.get(h)?,
        })
    }

    /// Refuses a head the model does not have.
    pub fn check(self, model: &Facts) -> Result<()> {
        match self {
            Heads::One(h) if h >= model.heads => {
                Err(Error::Usage(format!("heads={h}: this model has heads 0 to {}", model.heads - 1)))
            }
            _ => Ok(()),
        }
    }
}

impl Layer {
    /// Its number in a model of `layers`.
    pub fn index(self, layers: usize) -> usize {
        match self {
            Layer::Number(n) => n,
            Layer::Last => layers - 1,
        }
    }

    /// Refuses a layer the model does not have.
    pub fn check(self, key: &str, model: &Facts) -> Result<()> {
        match self {
            Layer::Number(n) if n >= model.layers => {
                Err(Error::Usage(format!("{key}={n}: this model has layers 0 to {}", model.layers - 1)))
            }
            _ => Ok(()),
        }
    }
}

/// The output tokens whose rows a method returns: its parameters `row` and `matrix`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rows {
    /// The row, unless the run asks for another.
    pub row: Row,
    /// All rows: the relevance of every token for every token.
    pub matrix: bool,
}

/// Rows, resolved for one input: the output rows that are explained.
#[derive(Debug, Clone, Copy)]
pub enum Pick<'p> {
    /// One token's row.
    One(usize),
    /// Every row.
    All,
    /// The rows as the head pools them, `[1,T]`: 1/N of each where it reads the mean. What a method makes of single rows is
    /// made first.
    Pooled(&'p Tensor),
}

impl Rows {
    /// What the classifier reads, for methods without a choice.
    pub const HEAD: Rows = Rows { row: Row::Auto, matrix: false };

    /// The rows of this input.
    ///
    /// # Errors
    /// [`Error::Refused`] or [`Error::Usage`] when there is no such token.
    pub fn pick<'p>(self, run: &Run<'p>) -> Result<Pick<'p>> {
        match (self.matrix, run.row(), self.row) {
            (true, _, _) => Ok(Pick::All),
            (false, Some(row), _) => Ok(Pick::One(row)),
            (false, None, Row::Auto) => match run.pooled()? {
                Some(shares) => Ok(Pick::Pooled(shares)),
                None => run.read_token().map_or_else(|| self.row.index(run.layout()), Ok).map(Pick::One),
            },
            (false, None, row) => row.index(run.layout()).map(Pick::One),
        }
    }

    /// Refuses a special token the model does not have, and the class token's row where the classifier does not read it.
    pub fn check(self, model: &Facts) -> Result<()> {
        let missing = match self.row {
            _ if self.matrix => return Ok(()),
            Row::Class if model.mean => {
                let why = "the classifier reads no class token; row=auto explains what it reads, row=N a single token";
                return Err(Error::Refused(why.into()));
            }
            Row::Class if !model.class_token => "class",
            Row::Auto if !model.class_token && !model.mean => "class",
            Row::Distillation if !model.distillation_token => "distillation",
            Row::Auto | Row::Class | Row::Distillation | Row::Token(_) => return Ok(()),
        };
        Err(Error::Refused(format!("the model has no {missing} token whose row could be read")))
    }
}

impl Pick<'_> {
    /// These rows of a matrix, `[T,T]` -> `[R,T]`.
    pub fn read(self, matrix: &Tensor) -> Result<Tensor> {
        self.read_dim(matrix, 0)
    }

    /// These entries along a dimension, whose others stay.
    pub fn read_dim(self, tensor: &Tensor, dim: usize) -> Result<Tensor> {
        Ok(match self {
            Pick::One(row) => tensor.narrow(dim, row, 1)?.contiguous()?,
            Pick::All => tensor.clone(),
            Pick::Pooled(shares) => {
                let ones = (0..tensor.rank()).map(|d| if d == dim { tensor.dims()[d] } else { 1 }).collect::<Vec<_>>();
                let shares = shares.to_dtype(tensor.dtype())?.to_device(tensor.device())?.reshape(ones)?;
                tensor.broadcast_mul(&shares)?.sum_keepdim(dim)?
            }
        })
    }

    /// These rows of the identity, `[R,T]`, with the width of `like`.
    pub fn identity(self, like: &Tensor) -> Result<Tensor> {
        self.read(&Tensor::eye(like.dim(D::Minus1)?, like.dtype(), like.device())?)
    }
}

impl Pick<'_> {
    /// What is computed before these rows can be read: every row where they are pooled.
    pub fn unpooled(self) -> Self {
        match self {
            Pick::Pooled(_) => Pick::All,
            Pick::One(_) | Pick::All => self,
        }
    }

    /// Pools rows that [`Pick::unpooled`] asked for.
    pub fn pool(self, rows: Tensor) -> Result<Tensor> {
        match self {
            Pick::Pooled(_) => self.read(&rows),
            Pick::One(_) | Pick::All => Ok(rows),
        }
    }
}

impl Row {
    /// Its token number.
    fn index(self, layout: &Layout) -> Result<usize> {
        let none = |what: &str| Error::Refused(format!("this model has no {what} token whose row could be read"));
        match self {
            Row::Auto | Row::Class => layout.class_token().ok_or_else(|| none("class")),
            Row::Distillation => layout.distillation_token().ok_or_else(|| none("distillation")),
            Row::Token(n) if n < layout.len() => Ok(n),
            Row::Token(n) => Err(Error::Usage(format!("row={n}: this input has tokens 0 to {}", layout.len() - 1))),
        }
    }
}
