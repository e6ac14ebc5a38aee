//! FlashAttention (Dao 2023) on NVIDIA GPUs: no scores are held. In 16 bits, and without a way back.

use candle_core::{DType, Tensor};

use crate::Result;

/// Widest head that its kernels are compiled for, and what widths must be a multiple of.
const WIDEST: usize = 512;
const MULTIPLE: usize = 8;

/// Attention of several queries on a GPU, the last of s tokens where `causal`; nothing where the kernels do not apply. A single
/// query is left to the products: one block of threads for each head would read the whole cache.
///
/// # Shapes
/// q `[b, h, t, e]`, keys and values `[b, kv, s, e]` -> `[b, t, h * e]`
///
/// # Errors
/// Shapes that do not fit each other.
pub(super) fn attention(q: &Tensor, (keys, values): &(Tensor, Tensor), causal: bool) -> Result<Option<Tensor>> {
    let (b, h, t, e) = q.dims4()?;
    let is_half = matches!(q.dtype(), DType::F16 | DType::BF16);
    let is_wide = e.is_multiple_of(MULTIPLE) && e <= WIDEST;
    if !q.device().is_cuda() || !is_half || !is_wide || t == 1 {
        return Ok(None);
    }
    // Theirs is [b, t, h, e], read by its strides; the last of s keys belongs to the last of t queries, as here.
    let rows = |x: &Tensor| x.transpose(1, 2);
    let scale = 1.0 / (e as f32).sqrt();
    let mixed = candle_flash_attn::flash_attn(&rows(q)?, &rows(keys)?, &rows(values)?, scale, causal)?;
    Ok(Some(mixed.reshape((b, t, h * e))?))
}
