//! What the features of every layer find, seen from inside a forward pass: queries of one frame against keys of another
//! (Eq. 10), and the embeddings of the heads.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use candle_core::{DType, Tensor};
use model::qwen3_vl::text::Tapped;

use super::head::{Heads, unit};
use super::pck::{Tally, TokenGrid};
use super::set::FrameSet;

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Features {
    /// Queries and keys before the rotary embedding.
    QueryKey,
    /// The same behind it, which has a bias by place of its own.
    Rotated,
    /// The heads' embeddings.
    Head,
}

impl Features {
    /// As reports name them.
    pub fn name(self) -> &'static str {
        match self {
            Self::QueryKey => "qk",
            Self::Rotated => "qk_rope",
            Self::Head => "head",
        }
    }
}

/// Tallies by features and layer.
pub type Tallies = BTreeMap<(Features, usize), Tally>;

/// The matches of one frame in another.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair {
    /// The one.
    pub from: usize,
    /// The other.
    pub to: usize,
    /// Frames of the film from one to the other.
    pub distance: usize,
    /// Token in the one, place in the other, tokens from its upper left corner.
    pub matches: Vec<(usize, [f64; 2])>,
}

/// Looks into one pass over one set.
pub struct Probe<'a> {
    /// Rows of the vision tokens in the sequence.
    rows: Vec<u32>,
    grid: TokenGrid,
    pairs: Vec<Pair>,
    tau: f64,
    heads: Option<&'a Heads>,
    tallies: &'a mut Tallies,
    failed: Option<anyhow::Error>,
}

impl<'a> Probe<'a> {
    /// Of the pairs of frames that `wanted` says yes to, in both directions; `rows` are those of the set's tokens.
    pub fn new(
        set: &FrameSet,
        rows: Vec<u32>,
        tau: f64,
        heads: Option<&'a Heads>,
        wanted: &dyn Fn(usize, usize) -> bool,
        tallies: &'a mut Tallies,
    ) -> Self {
        /// A token, and its place in the other frame.
        type Match = (usize, [f64; 2]);
        let mut pairs: BTreeMap<(usize, usize), Vec<Match>> = BTreeMap::new();
        for m in &set.matches {
            let ((from, token), (to, other)) = (m.from, m.to);
            if wanted(from.min(to), from.max(to)) {
                pairs.entry((from, to)).or_default().push((token, set.grid.centre(other)));
            }
        }
        let distance = |from: usize, to: usize| set.numbers[from].abs_diff(set.numbers[to]);
        let pair = |((from, to), matches)| Pair { from, to, distance: distance(from, to), matches };
        Self::of(pairs.into_iter().map(pair).collect(), set.grid, rows, (tau, heads), tallies)
    }

    /// Of pairs of frames that are known already.
    pub fn of(
        pairs: Vec<Pair>,
        grid: TokenGrid,
        rows: Vec<u32>,
        (tau, heads): (f64, Option<&'a Heads>),
        tallies: &'a mut Tallies,
    ) -> Self {
        Self { rows, grid, pairs, tau, heads, tallies, failed: None }
    }

    /// What a tap of the decoder is given.
    pub fn look(&mut self, layer: usize, seen: Tapped<'_>) {
        if self.failed.is_none()
            && let Err(error) = self.take(layer, seen)
        {
            self.failed = Some(error);
        }
    }

    /// Whether all went well.
    ///
    /// # Errors
    /// The first that a look ended in: taps can't return one.
    pub fn done(self) -> Result<()> {
        self.failed.map_or(Ok(()), Err)
    }

    fn take(&mut self, layer: usize, seen: Tapped<'_>) -> Result<()> {
        match seen {
            Tapped::Attention { query, key, rotated_query, rotated_key } => {
                let heads = query.dim(1)?;
                for (features, q, k) in
                    [(Features::QueryKey, query, key), (Features::Rotated, rotated_query, rotated_key)]
                {
                    let (q, k) = (joined(&self.rows, q, heads)?, joined(&self.rows, k, heads)?);
                    self.compare((features, layer), &q, &k)?;
                }
            }
            Tapped::Hidden(x) => {
                let Some(head) = self.heads.and_then(|heads| heads.head(layer)) else { return Ok(()) };
                let rows = Tensor::new(self.rows.as_slice(), x.device())?;
                let z = head.forward(&x.detach().flatten_to(1)?.index_select(&rows, 0)?)?.detach();
                self.compare((Features::Head, layer), &z, &z)?;
            }
        }
        Ok(())
    }

    /// Looks for every match among the tokens of its frame.
    fn compare(&mut self, kind: (Features, usize), q: &Tensor, k: &Tensor) -> Result<()> {
        let tokens = self.grid.tokens();
        let tally = self.tallies.entry(kind).or_default();
        for pair in &self.pairs {
            let rows: Vec<u32> = pair.matches.iter().map(|(token, _)| (pair.from * tokens + token) as u32).collect();
            let keys = k.narrow(0, pair.to * tokens, tokens)?;
            let similarity = q.index_select(&Tensor::new(rows, q.device())?, 0)?.matmul(&keys.t()?)?;
            for (row, &(_, truth)) in similarity.to_vec2::<f32>()?.iter().zip(&pair.matches) {
                let (best, confidence) = best(row, self.tau);
                tally.push(pair.distance, self.grid.reaches(best, truth), confidence);
            }
        }
        Ok(())
    }
}

/// Heads of the vision tokens, which are `rows` of the sequence, side by side, a key head once for each of the `heads` query heads that
/// it serves: `[1, kv, t, e]` -> `[n, h * e]`, of length 1, in f32.
///
/// # Errors
/// Several sequences, rows that are not there.
pub fn joined(rows: &[u32], x: &Tensor, heads: usize) -> Result<Tensor> {
    let (b, kv, _, e) = x.dims4()?;
    ensure!(b == 1, "expected one sequence, got {b}");
    let index = Tensor::new(rows, x.device())?;
    let x = x.detach().squeeze(0)?.contiguous()?.index_select(&index, 1)?.to_dtype(DType::F32)?; // [kv, n, e]
    let x = x.transpose(0, 1)?.contiguous()?.unsqueeze(2)?; // [n, kv, 1, e]
    let x = x.repeat((1, 1, heads / kv, 1))?.reshape((rows.len(), heads * e))?;
    Ok(unit(&x)?)
}

/// The most similar token, and its share in the softmax of the similarities over tau.
pub fn best(row: &[f32], tau: f64) -> (usize, f64) {
    let best = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(i, _)| i);
    let sum: f64 = row.iter().map(|s| (f64::from(s - row[best]) / tau).exp()).sum();
    (best, 1.0 / sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Sequence;
    use candle_core::Device;
    use nalgebra::Point2;
    use training_data::chains::tracks::{Match, Pooled};

    const GRID: TokenGrid = TokenGrid { columns: 12, rows: 12 };

    /// Two frames, the second four frames on, every token matched with itself.
    fn set() -> FrameSet {
        let m = |k: usize, (a, b)| Match { from: (a, k), to: (b, k), pixel: Point2::new(0.0, 0.0), depth: 1.0 };
        let matches = (0..144).flat_map(|k| [m(k, (0, 1)), m(k, (1, 0))]).collect();
        let sequence = Sequence { images: Vec::new(), ids: Vec::new(), positions: Vec::new(), response: 0 };
        let pooled = vec![Pooled { depth: 1.0, known: 1.0, spread: 0.0 }; 288];
        FrameSet { sequence, numbers: vec![3, 7], grid: GRID, matches, pooled }
    }

    fn look(q: &Tensor, k: &Tensor) -> Tallies {
        let set = set();
        let mut tallies = Tallies::new();
        // The tokens stand behind two of text.
        let mut probe = Probe::new(&set, (2..290).collect(), 0.07, None, &|_, _| true, &mut tallies);
        probe.look(1, Tapped::Attention { query: q, key: k, rotated_query: q, rotated_key: k });
        probe.done().unwrap();
        tallies
    }

    fn random(heads: usize, width: usize) -> Tensor {
        Tensor::randn(0f32, 1.0, (1, heads, 290, width), &Device::Cpu).unwrap()
    }

    #[test]
    fn perfect_features_find_all_and_random_ones_what_a_guess_finds() {
        // Both frames alike, and keys that two query heads share.
        let one = random(1, 64).narrow(2, 2, 144).unwrap();
        let text = Tensor::zeros((1, 1, 2, 64), DType::F32, &Device::Cpu).unwrap();
        let key = Tensor::cat(&[&text, &one, &one], 2).unwrap();
        let query = key.repeat((1, 2, 1, 1)).unwrap();
        let tallies = look(&query, &key);
        let tally = &tallies[&(Features::QueryKey, 1)];
        assert_eq!((tally.all.hits, tally.all.matches), (288, 288));
        assert_eq!(tally.by_distance.keys().collect::<Vec<_>>(), [&4]);
        assert_eq!(tally.correlation.value(), None, "always right: no correlation");
        assert_eq!(tallies.len(), 2);

        let tallies = look(&random(2, 64), &random(1, 64));
        let tally = &tallies[&(Features::Rotated, 1)];
        let (pck, chance) = (tally.all.pck().unwrap(), GRID.chances().iter().sum::<f64>() / 144.0);
        // 288 looks: the standard deviation of the share is 1.6 %.
        assert!((pck - chance).abs() < 0.08, "{pck}, by chance {chance}");
    }

    #[test]
    fn each_query_head_meets_its_own_key_head() {
        let (first, second) = (random(1, 32), random(1, 32));
        let keys = Tensor::cat(&[&first, &second], 1).unwrap();
        let own = Tensor::cat(&[&first, &first, &second, &second], 1).unwrap();
        let rows: Vec<u32> = (2..290).collect();
        let far = (joined(&rows, &own, 4).unwrap() - joined(&rows, &keys, 4).unwrap()).unwrap();
        assert!(far.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap() < 1e-6);
    }

    #[test]
    fn pairs_are_chosen_and_a_failure_is_told() {
        let set = set();
        let mut tallies = Tallies::new();
        let (q, k) = (random(2, 8), random(1, 8));
        let mut probe = Probe::new(&set, (2..290).collect(), 0.07, None, &|_, _| false, &mut tallies);
        probe.look(0, Tapped::Attention { query: &q, key: &k, rotated_query: &q, rotated_key: &k });
        probe.done().unwrap();
        assert!(tallies.values().all(|tally| tally.all.matches == 0));
        let mut probe = Probe::new(&set, vec![400], 0.07, None, &|_, _| true, &mut tallies);
        probe.look(0, Tapped::Attention { query: &q, key: &k, rotated_query: &q, rotated_key: &k });
        assert!(probe.done().is_err());
    }

    #[test]
    fn confidence_is_the_largest_share() {
        let (place, confidence) = best(&[0.1, 0.8, 0.3], 0.1);
        let exp = [0.1f64, 0.8, 0.3].map(|s| (s / 0.1).exp());
        assert!(place == 1 && (confidence - exp[1] / exp.iter().sum::<f64>()).abs() < 1e-6);
    }
}
