//! The two terms that a head is trained by: correspondence (InfoNCE, Eq. 5) and depth consistency (Eqs. 6 to 8).

use candle_core::{Device, Result, Tensor};

use super::config::Negatives;
use super::pck::TokenGrid;
use super::set::Targets;

/// What keeps the relative difference of two depths from dividing by nothing.
const EPSILON: f64 = 1e-6;

/// The targets of one set as tensors, which the heads of all layers share. A anchors, M matches, D of them with depth,
/// n tokens in F frames.
#[derive(Debug)]
pub struct Prepared {
    anchors: Tensor, // [A]
    /// Places of the matches among A x n similarities.
    places: Tensor, // [M]
    denominators: Denominators,
    depth: Option<Depth>,
    /// Frame of each match and token in it, behind the place among A x F of its anchor and that frame.
    found: Vec<(usize, usize)>,
    grid: TokenGrid,
    frames: usize,
    tau: f64,
}

#[derive(Debug)]
enum Denominators {
    /// Anchor of each match `[M]`, and 1 where a token is a negative of an anchor, else 0 `[A, n]`.
    AllFrames(Tensor, Tensor),
    /// The same, where the match itself is one of the tokens.
    AllPatches(Tensor, Tensor),
    /// Place among A x F of each match's anchor and frame `[M]`.
    TargetFrame(Tensor),
}

#[derive(Debug)]
struct Depth {
    /// Place among A x F of each match's anchor and frame.
    places: Tensor, // [D]
    /// True depth of the point there.
    truth: Tensor, // [D]
    /// Of the tokens, 0 where none is known.
    pooled: Tensor, // [1, n]
    /// 1 where it is known, else 0.
    known: Tensor, // [1, n]
}

/// Sums over the matches of a set.
#[derive(Debug)]
pub struct Terms {
    /// `-log softmax` of the matches.
    pub correspondence: Tensor,
    /// Relative differences in depth, each in [0, 1); nothing where no match has depth.
    pub depth: Option<Tensor>,
    /// Matches whose most similar token in their frame is near enough.
    pub hits: usize,
}

impl Prepared {
    /// Of a set with matches.
    ///
    /// # Errors
    /// A tensor operation's.
    pub fn new(targets: &Targets, negatives: Negatives, tau: f64, device: &Device) -> Result<Self> {
        let (tokens, frames) = (targets.grid.tokens(), targets.frames);
        let (n, anchors) = (tokens * frames, targets.anchors.len());
        let index = |values: Vec<usize>| -> Result<Tensor> {
            let values: Vec<u32> = values.into_iter().map(|value| value as u32).collect();
            Tensor::new(values, device)
        };
        let positives = &targets.positives;
        let in_frame = |p: &super::set::Positive| p.anchor * frames + p.frame;
        let denominators = match negatives {
            Negatives::AllFrames => {
                let mut mask = vec![1f32; anchors * n];
                for (k, &anchor) in targets.anchors.iter().enumerate() {
                    let row = &mut mask[k * n..(k + 1) * n];
                    let own = anchor / tokens * tokens;
                    row[own..own + tokens].fill(0.0);
                    targets.same[k].iter().for_each(|&token| row[token] = 0.0);
                }
                let mask = Tensor::from_vec(mask, (anchors, n), device)?;
                Denominators::AllFrames(index(positives.iter().map(|p| p.anchor).collect())?, mask)
            }
            Negatives::AllPatches => {
                let mut mask = vec![1f32; anchors * n];
                targets.anchors.iter().enumerate().for_each(|(k, &anchor)| mask[k * n + anchor] = 0.0);
                let mask = Tensor::from_vec(mask, (anchors, n), device)?;
                Denominators::AllPatches(index(positives.iter().map(|p| p.anchor).collect())?, mask)
            }
            Negatives::TargetFrame => Denominators::TargetFrame(index(positives.iter().map(in_frame).collect())?),
        };
        let (mut places, mut truth) = (Vec::new(), Vec::new());
        for (positive, depth) in positives.iter().filter_map(|p| Some((p, p.depth?))) {
            places.push(in_frame(positive));
            truth.push(depth as f32);
        }
        let depth = if places.is_empty() {
            None
        } else {
            let known: Vec<f32> = targets.depth.iter().map(|&depth| if depth > 0.0 { 1.0 } else { 0.0 }).collect();
            Some(Depth {
                places: index(places)?,
                truth: Tensor::new(truth, device)?,
                pooled: Tensor::from_slice(&targets.depth, (1, n), device)?,
                known: Tensor::from_vec(known, (1, n), device)?,
            })
        };
        Ok(Self {
            anchors: index(targets.anchors.clone())?,
            places: index(positives.iter().map(|p| p.anchor * n + p.row).collect())?,
            denominators,
            depth,
            found: positives.iter().map(|p| (in_frame(p), p.row % tokens)).collect(),
            grid: targets.grid,
            frames,
            tau,
        })
    }

    /// Terms of one layer's embeddings.
    ///
    /// # Shapes
    /// `embeddings` `[n, e]`, of length 1, in f32
    ///
    /// # Errors
    /// Another number of tokens than the set's.
    pub fn terms(&self, embeddings: &Tensor) -> Result<Terms> {
        let (anchors, tokens) = (self.anchors.elem_count(), self.grid.tokens());
        let by_frame = (anchors, self.frames, tokens);
        let similarity = embeddings.index_select(&self.anchors, 0)?.matmul(&embeddings.t()?)?; // [A, n]
        let hits = self.hits(&similarity.detach().reshape(by_frame)?)?;
        // Less by 1 / tau, which all have in common: exp of it is at most 1.
        let logits = similarity.affine(1.0 / self.tau, -1.0 / self.tau)?;
        let weights = logits.exp()?;
        let positives = logits.flatten_all()?.index_select(&self.places, 0)?; // [M]
        let denominators = match &self.denominators {
            Denominators::AllFrames(anchor, mask) => {
                let negatives = (&weights * mask)?.sum(1)?; // [A]
                (negatives.index_select(anchor, 0)? + positives.exp()?)?
            }
            Denominators::AllPatches(anchor, mask) => (&weights * mask)?.sum(1)?.index_select(anchor, 0)?,
            Denominators::TargetFrame(places) => {
                weights.reshape(by_frame)?.sum(2)?.flatten_all()?.index_select(places, 0)?
            }
        };
        let correspondence = (denominators.log()? - positives)?.sum_all()?;
        let depth = self.depth.as_ref().map(|depth| depth.term(&weights, by_frame)).transpose()?;
        Ok(Terms { correspondence, depth, hits })
    }

    fn hits(&self, similarity: &Tensor) -> Result<usize> {
        let best = similarity.argmax(2)?.flatten_all()?.to_vec1::<u32>()?; // [A * F]
        Ok(self.found.iter().filter(|(place, token)| self.grid.near(best[*place] as usize, *token)).count())
    }
}

impl Depth {
    /// Sum of `|expected - true| / (expected + true)`, where the expected depth is that of the tokens of the match's
    /// frame, weighed by their similarity (a softmax over the tokens with depth). `weights` `[A, n]`.
    fn term(&self, weights: &Tensor, by_frame: (usize, usize, usize)) -> Result<Tensor> {
        let of = |values: &Tensor| -> Result<Tensor> {
            let sums = weights.broadcast_mul(values)?.reshape(by_frame)?.sum(2)?; // [A, F]
            sums.flatten_all()?.index_select(&self.places, 0)
        };
        let expected = (of(&self.pooled)? / of(&self.known)?)?; // [D]
        let apart = (&expected - &self.truth)?.abs()?;
        (apart / ((expected + &self.truth)? + EPSILON)?)?.sum_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gasp::head::unit;
    use crate::gasp::set::Positive;
    use candle_core::Var;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    const TAU: f64 = 0.07;

    fn random(n: usize, e: usize, seed: u64) -> Tensor {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let values: Vec<f32> = (0..n * e).map(|_| rng.random::<f32>() * 2.0 - 1.0).collect();
        unit(&Tensor::from_vec(values, (n, e), &Device::Cpu).unwrap()).unwrap()
    }

    /// Three frames of six tokens; token k of a frame shows what token k of the others shows, the last two nothing.
    fn targets() -> Targets {
        let grid = TokenGrid { columns: 6, rows: 1 };
        let (mut same, mut positives) = (Vec::new(), Vec::new());
        let anchors: Vec<usize> = (0..18).filter(|row| row % 6 < 4).collect();
        for (anchor, &row) in anchors.iter().enumerate() {
            let others: Vec<usize> = (0..3).filter(|f| *f != row / 6).map(|frame| frame * 6 + row % 6).collect();
            for &other in &others {
                let depth = (row % 6 != 1).then_some(2.0 + (other % 6) as f64);
                positives.push(Positive { anchor, frame: other / 6, row: other, depth });
            }
            same.push(others);
        }
        // The last token has no depth at all.
        let depth = (0..18).map(|row| if row % 6 == 5 { 0.0 } else { 2.0 + (row % 6) as f32 }).collect();
        Targets { frames: 3, grid, anchors, same, positives, depth }
    }

    fn value(x: &Tensor) -> f64 {
        f64::from(x.to_scalar::<f32>().unwrap())
    }

    fn of(targets: &Targets, negatives: Negatives, embeddings: &Tensor) -> Terms {
        Prepared::new(targets, negatives, TAU, &Device::Cpu).unwrap().terms(embeddings).unwrap()
    }

    #[test]
    fn both_terms_agree_with_loops_over_matches_and_tokens() {
        let (targets, embeddings) = (targets(), random(18, 5, 1));
        let z = embeddings.to_vec2::<f32>().unwrap();
        let logit = |a: usize, b: usize| z[a].iter().zip(&z[b]).map(|(x, y)| f64::from(x * y)).sum::<f64>() / TAU;
        let (mut all, mut patches, mut target, mut depth, mut hits) = (0.0, 0.0, 0.0, 0.0, 0);
        for p in &targets.positives {
            let anchor = targets.anchors[p.anchor];
            let sum = |rows: &mut dyn Iterator<Item = usize>| rows.map(|row| logit(anchor, row).exp()).sum::<f64>();
            let negative = |row: &usize| row / 6 != anchor / 6 && row % 6 != anchor % 6;
            let negatives = sum(&mut (0..18).filter(negative)) + logit(anchor, p.row).exp();
            all += negatives.ln() - logit(anchor, p.row);
            // Section 5.1: the anchor alone is left out.
            patches += sum(&mut (0..18).filter(|row| *row != anchor)).ln() - logit(anchor, p.row);
            let frame = p.frame * 6..(p.frame + 1) * 6;
            target += sum(&mut frame.clone()).ln() - logit(anchor, p.row);
            if let Some(truth) = p.depth {
                let known = || frame.clone().filter(|row| row % 6 != 5);
                let expected: f64 = known().map(|row| logit(anchor, row).exp() * (2.0 + (row % 6) as f64)).sum::<f64>()
                    / sum(&mut known());
                depth += (expected - truth).abs() / (expected + truth);
            }
            let best = frame.max_by(|&a, &b| logit(anchor, a).total_cmp(&logit(anchor, b))).unwrap();
            hits += usize::from((best % 6).abs_diff(p.row % 6) <= 2);
        }
        let (a, b) =
            (of(&targets, Negatives::AllFrames, &embeddings), of(&targets, Negatives::TargetFrame, &embeddings));
        let c = of(&targets, Negatives::AllPatches, &embeddings);
        for (got, expected) in [
            (value(&a.correspondence), all),
            (value(&c.correspondence), patches),
            (value(&b.correspondence), target),
            (value(&a.depth.unwrap()), depth),
            (value(&b.depth.unwrap()), depth),
            (value(&c.depth.unwrap()), depth),
        ] {
            assert!((got - expected).abs() < 1e-3 * expected.abs(), "{got} {expected}");
        }
        assert_eq!((a.hits, b.hits), (hits, hits));
        assert!(hits < targets.positives.len());
    }

    #[test]
    fn perfect_features_cost_next_to_nothing_and_find_every_match() {
        let targets = targets();
        // A direction for each point, the same in all frames.
        let mut perfect = vec![0f32; 18 * 6];
        (0..18).for_each(|row| perfect[row * 6 + row % 6] = 1.0);
        let perfect = Tensor::from_vec(perfect, (18, 6), &Device::Cpu).unwrap();
        for negatives in [Negatives::AllFrames, Negatives::TargetFrame] {
            let terms = of(&targets, negatives, &perfect);
            assert_eq!(terms.hits, targets.positives.len());
            assert!(value(&terms.correspondence) / (targets.positives.len() as f64) < 1e-4);
            // Patches of one depth, matched with themselves.
            assert!(value(&terms.depth.unwrap()) / (targets.depths() as f64) < 1e-5);
        }
    }

    #[test]
    fn the_depth_term_is_bounded_by_one_a_match() {
        for (seed, truth) in [(1, 1e-4), (2, 1e4), (3, 3.0)] {
            let mut targets = targets();
            targets.positives.iter_mut().for_each(|p| p.depth = Some(truth));
            let mean = value(&of(&targets, Negatives::AllFrames, &random(18, 4, seed)).depth.unwrap())
                / targets.positives.len() as f64;
            assert!((0.0..1.0).contains(&mean), "{truth}: {mean}");
            assert!((truth - 3.0).abs() < 1.0 || mean > 0.99, "{truth}: {mean}");
        }
        let mut none = targets();
        none.positives.iter_mut().for_each(|p| p.depth = None);
        assert!(of(&none, Negatives::AllFrames, &random(18, 4, 1)).depth.is_none());
    }

    #[test]
    fn random_features_find_about_as_much_as_a_guess() {
        let grid = TokenGrid { columns: 16, rows: 12 };
        let n = grid.tokens();
        let positives: Vec<Positive> =
            (0..n).map(|k| Positive { anchor: k, frame: 1, row: n + k, depth: None }).collect();
        let same = (0..n).map(|k| vec![n + k]).collect();
        let targets = Targets { frames: 2, grid, anchors: (0..n).collect(), same, positives, depth: vec![0.0; 2 * n] };
        let mut hits = 0;
        for seed in 0..10 {
            hits += of(&targets, Negatives::AllFrames, &random(2 * n, 16, seed)).hits;
        }
        let (pck, chance) = (hits as f64 / (10 * n) as f64, grid.chances().iter().sum::<f64>() / n as f64);
        assert!((pck - chance).abs() < 0.03, "{pck}, by chance {chance}");
    }

    #[test]
    fn the_gradient_agrees_with_differences() {
        let targets = targets();
        let start = random(18, 3, 5);
        let loss = |x: &Tensor| {
            let terms = of(&targets, Negatives::AllFrames, &unit(x).unwrap());
            (terms.correspondence + terms.depth.unwrap()).unwrap()
        };
        let var = Var::from_tensor(&start).unwrap();
        let grads = loss(var.as_tensor()).backward().unwrap();
        let grad = grads.get(&var).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let values = start.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for k in [0, 7, 20, 53] {
            let at = |step: f32| {
                let mut moved = values.clone();
                moved[k] += step;
                value(&loss(&Tensor::from_vec(moved, (18, 3), &Device::Cpu).unwrap()))
            };
            let slope = (at(3e-3) - at(-3e-3)) / 6e-3;
            let got = f64::from(grad[k]);
            assert!((got - slope).abs() < 0.03 * slope.abs().max(1.0), "{k}: {got} {slope}");
        }
    }
}
