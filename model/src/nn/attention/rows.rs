//! Queries, keys and values where they lie.

use candle_core::{CpuStorage, Layout, Result, Shape, bail};

/// Rows of `[b, heads, rows, width]` numbers whose last dimension lies in order.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    numbers: &'a [f32],
    start: usize,
    stride: [usize; 3],
    pub width: usize,
}

impl<'a> Rows<'a> {
    pub fn new(storage: &'a CpuStorage, layout: &Layout) -> Result<Self> {
        let CpuStorage::F32(numbers) = storage else { bail!("attention: expected f32 on the CPU") };
        let (&[batch, heads, rows, 1], &[.., width]) = (layout.stride(), layout.dims()) else {
            bail!("attention: expected rows in order")
        };
        Ok(Self { numbers, start: layout.start_offset(), stride: [batch, heads, rows], width })
    }

    #[inline(always)]
    pub fn row(self, batch: usize, head: usize, row: usize) -> &'a [f32] {
        let at = self.start + batch * self.stride[0] + head * self.stride[1] + row * self.stride[2];
        &self.numbers[at..at + self.width]
    }

    /// From a row on, and how far apart the rows behind it are.
    pub fn matrix(self, batch: usize, head: usize, row: usize) -> (&'a [f32], usize) {
        let at = self.start + batch * self.stride[0] + head * self.stride[1] + row * self.stride[2];
        (&self.numbers[at..], self.stride[2])
    }
}

/// What attention is of: queries `[b, h, t, e]`, keys and values `[b, heads, s, e]`.
pub(super) struct Parts<'a> {
    pub queries: Rows<'a>,
    pub keys: Rows<'a>,
    pub values: Rows<'a>,
    pub b: usize,
    pub h: usize,
    pub heads: usize,
    pub t: usize,
    pub s: usize,
    /// Whether the t queries are the last of the s tokens, and see none behind them.
    causal: bool,
}

/// Numbers on the CPU, and how they lie there.
pub(super) type Numbers<'a> = (&'a CpuStorage, &'a Layout);

impl<'a> Parts<'a> {
    /// Checks that they fit each other.
    pub fn new(q: Numbers<'a>, k: Numbers<'a>, v: Numbers<'a>, causal: bool) -> Result<Self> {
        let ((b, h, t, e), (batch, heads, s, width)) = (q.1.shape().dims4()?, k.1.shape().dims4()?);
        if v.1.dims() != k.1.dims() || (batch, width) != (b, e) || !h.is_multiple_of(heads) || (causal && s < t) {
            bail!("attention: queries {:?}, keys {:?}, values {:?}", q.1, k.1, v.1);
        }
        let (queries, keys, values) = (Rows::new(q.0, q.1)?, Rows::new(k.0, k.1)?, Rows::new(v.0, v.1)?);
        Ok(Self { queries, keys, values, b, h, heads, t, s, causal })
    }

    /// How many tokens a query sees.
    pub fn seen(&self, query: usize) -> usize {
        if self.causal { self.s - self.t + query + 1 } else { self.s }
    }

    /// The head of keys and values that a head of queries looks at.
    pub fn of(&self, head: usize) -> usize {
        head / (self.h / self.heads)
    }

    /// `[b, t, h * e]`, where [`Self::place`] is in.
    pub fn empty(&self) -> Vec<f32> {
        vec![0f32; self.b * self.t * self.h * self.queries.width]
    }

    /// Where what a query comes to is written.
    pub fn place(&self, batch: usize, head: usize, query: usize) -> usize {
        ((batch * self.t + query) * self.h + head) * self.queries.width
    }

    /// Its shape.
    pub fn shape(&self) -> Shape {
        (self.b, self.t, self.h * self.queries.width).into()
    }
}
