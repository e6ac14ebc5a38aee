//! Sequences of text and images side by side, and the model's pass over them: what every objective begins with.

use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor};
use model::Qwen3Vl;
use model::autograd::recompute::Recomputation;
use model::qwen3_vl::processor::Grid;
use model::qwen3_vl::text::{DecoderInput, Position, Tapped};

/// One prompt with its response, ready for the model.
#[derive(Debug, Clone)]
pub struct Sequence {
    /// Images in the order of their placeholders, neighbours of one size together: `[images, patches, patch_dim]`, on the CPU.
    pub images: Vec<(Tensor, Grid)>,
    /// Prompt and response.
    pub ids: Vec<u32>,
    /// Places of `ids`.
    pub positions: Vec<Position>,
    /// Where the response begins.
    pub response: usize,
}

/// Sequences padded on the right to one width: a causal decoder never looks there.
#[derive(Debug, Clone)]
pub struct Batch {
    /// `b * width` ids, row after row.
    pub ids: Vec<u32>,
    /// Their places.
    pub positions: Vec<Position>,
    /// Tokens of the longest sequence.
    pub width: usize,
    /// Sequences.
    pub size: usize,
}

impl Batch {
    /// Of at least one sequence.
    pub fn new<'a>(sequences: impl IntoIterator<Item = &'a Sequence> + Clone, pad: u32) -> Self {
        let width = sequences.clone().into_iter().map(|s| s.ids.len()).max().unwrap_or(0);
        let mut batch = Self { ids: Vec::new(), positions: Vec::new(), width, size: 0 };
        for sequence in sequences {
            let padding = width - sequence.ids.len();
            batch.ids.extend(&sequence.ids);
            batch.ids.extend(std::iter::repeat_n(pad, padding));
            batch.positions.extend(&sequence.positions);
            batch.positions.extend(std::iter::repeat_n([0; 3], padding));
            batch.size += 1;
        }
        batch
    }

    /// Row, among all `b * width`, of a token of a sequence.
    pub fn row(&self, sequence: usize, token: usize) -> u32 {
        (sequence * self.width + token) as u32
    }

    /// Rows that hold a token, in order: those of `image_token` are the vision tokens, image after image.
    pub fn rows_of(&self, token: u32) -> Vec<u32> {
        self.ids.iter().zip(0u32..).filter(|(id, _)| **id == token).map(|(_, row)| row).collect()
    }
}

/// Rows whose hidden state predicts a token of a response, and those tokens, sequence after sequence.
pub fn predictions<'a>(
    batch: &'a Batch,
    sequences: impl IntoIterator<Item = &'a Sequence> + 'a,
) -> impl Iterator<Item = (u32, u32)> + 'a {
    let of = move |(b, s): (usize, &'a Sequence)| {
        (s.response.max(1)..s.ids.len()).map(move |i| (batch.row(b, i - 1), s.ids[i]))
    };
    sequences.into_iter().enumerate().flat_map(of)
}

/// Token embeddings, and what is added behind the first layers.
pub struct Embeddings {
    /// `[b, width, d]`
    pub tokens: Tensor,
    /// `[b, width, d]` each, zero at text.
    pub deepstack: Vec<Tensor>,
}

/// Runs the vision tower and puts its tokens among those of the text. `frozen`: without a graph over the tower.
///
/// # Errors
/// Images that do not agree with the placeholders.
pub fn embed<'a>(
    model: &Qwen3Vl,
    batch: &Batch,
    sequences: impl IntoIterator<Item = &'a Sequence>,
    frozen: bool,
) -> Result<Embeddings> {
    let (device, d) = (model.device(), model.config().text_config.hidden_size);
    let depth = model.config().vision_config.deepstack_visual_indexes.len();
    // Images of one size go through the tower together.
    let mut groups: Vec<(Vec<&Tensor>, Grid)> = Vec::new();
    for (patches, grid) in sequences.into_iter().flat_map(|s| &s.images) {
        match groups.last_mut() {
            Some((group, same)) if same == grid => group.push(patches),
            _ => groups.push((vec![patches], *grid)),
        }
    }
    let (mut tokens, mut features) = (Vec::new(), vec![Vec::new(); depth]);
    for (patches, grid) in groups {
        let patches = Tensor::cat(&patches, 0)?.to_device(device)?.to_dtype(model.dtype())?;
        let output = model.visual().forward(&patches, grid)?;
        let keep = |t: &Tensor| t.flatten_to(1).map(|t| if frozen { t.detach() } else { t });
        tokens.push(keep(&output.tokens)?);
        for (all, one) in features.iter_mut().zip(&output.deepstack) {
            all.push(keep(one)?);
        }
    }
    if tokens.is_empty() {
        let image = model.config().image_token_id;
        ensure!(!batch.ids.contains(&image), "{} image placeholders without images", batch.rows_of(image).len());
        let tokens = model.embed(&Tensor::new(batch.ids.as_slice(), device)?)?;
        return Ok(Embeddings { tokens: tokens.reshape((batch.size, batch.width, d))?, deepstack: Vec::new() });
    }
    let features = features.iter().map(|f| Tensor::cat(f, 0)).collect::<candle_core::Result<Vec<_>>>()?;
    let embedded = model.embed_batch(&batch.ids, batch.size, &Tensor::cat(&tokens, 0)?, &features)?;
    Ok(Embeddings { tokens: embedded.embeddings, deepstack: embedded.deepstack })
}

/// Hidden states behind the last layer's norm, `[b, width, d]`, with a look at every layer on the way.
///
/// # Errors
/// A tensor operation's.
pub fn decode(
    model: &Qwen3Vl,
    batch: &Batch,
    embeddings: &Embeddings,
    recomputation: Option<&Recomputation>,
    tap: &mut dyn FnMut(usize, Tapped<'_>),
) -> Result<Tensor> {
    let input = DecoderInput {
        embeddings: embeddings.tokens.clone(),
        positions: &batch.positions,
        deepstack: &embeddings.deepstack,
        cache: None,
        recomputation,
    };
    Ok(model.decoder().forward_with(input, tap)?)
}

/// Some rows of `[b, width, d]` hidden states, `[n, d]`.
///
/// # Errors
/// A row outside.
pub fn select(hidden: &Tensor, rows: &[u32]) -> Result<Tensor> {
    let index = Tensor::new(rows, hidden.device())?;
    hidden.flatten_to(1)?.index_select(&index, 0).with_context(|| format!("{} rows of {:?}", rows.len(), hidden.dims()))
}

/// A value of a scalar tensor of any type.
///
/// # Errors
/// Not a scalar.
pub fn scalar(x: &Tensor) -> Result<f64> {
    Ok(f64::from(x.to_device(&Device::Cpu)?.to_dtype(candle_core::DType::F32)?.to_scalar::<f32>()?))
}
