//! The correspondence head of a layer: from the hidden state of a vision token to a unit vector that tokens showing the
//! same point share (Eq. 4), started from the layer's W_q by SVD (section 5.1).

use std::path::Path;

use anyhow::{Context, Result, ensure};
use candle_core::{D, DType, Device, Tensor};
use candle_nn::{Init, VarBuilder};
use model::Qwen3Vl;
use nalgebra::{DMatrix, SymmetricEigen};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::student::{HEAD_PREFIX, HEADS, Student};

/// What the names of the heads go on with behind [`HEAD_PREFIX`].
pub const NAME: &str = "gasp";
/// Directions that are looked for beyond those that are wanted, so that the last ones are right too.
const OVERSAMPLING: usize = 32;
/// Products with W^T W; each squares the gap between the directions that are wanted and the others.
const PASSES: usize = 3;
/// Directions whose share of the largest squared singular value is less are noise.
const NOISE: f64 = 1e-12;

/// Unit vectors along the last dimension, differentiable at zero too.
///
/// # Errors
/// A tensor operation's.
pub fn unit(x: &Tensor) -> candle_core::Result<Tensor> {
    x.broadcast_div(&(x.sqr()?.sum_keepdim(D::Minus1)? + 1e-12)?.sqrt()?)
}

/// `W_2 gelu(W_1 x + b_1) + b_2`, scaled to length 1; x is the hidden state over its root mean square, as W_q sees it,
/// since what GELU does depends on how long a vector is.
#[derive(Debug, Clone)]
pub struct Head {
    first: (Tensor, Tensor),  // [2e, d], [2e]
    second: (Tensor, Tensor), // [e, 2e], [e]
}

impl Head {
    fn new(d: usize, e: usize, vb: &VarBuilder<'_>) -> Result<Self> {
        let linear = |name: &str, input: usize, output: usize| -> Result<(Tensor, Tensor)> {
            let (vb, zero) = (vb.pp(name), Init::Const(0.0));
            Ok((vb.get_with_hints((output, input), "weight", zero)?, vb.get_with_hints(output, "bias", zero)?))
        };
        Ok(Self { first: linear("fc1", d, 2 * e)?, second: linear("fc2", 2 * e, e)? })
    }

    /// Embeddings of tokens.
    ///
    /// # Shapes
    /// `hidden` `[n, d]` of any type -> `[n, e]` in f32, of length 1
    ///
    /// # Errors
    /// Another width than the model's.
    pub fn forward(&self, hidden: &Tensor) -> candle_core::Result<Tensor> {
        let x = hidden.to_dtype(DType::F32)?;
        let x = x.broadcast_div(&(x.sqr()?.mean_keepdim(D::Minus1)? + 1e-6)?.sqrt()?)?;
        let x = x.matmul(&self.first.0.t()?)?.broadcast_add(&self.first.1)?.gelu_erf()?;
        unit(&x.matmul(&self.second.0.t()?)?.broadcast_add(&self.second.1)?)
    }
}

/// The heads of some layers. They are variables of the student named `aux.gasp.LAYER.fc1.weight` and so on: trained and
/// checkpointed with the model, left out of what is deployed.
#[derive(Debug, Clone)]
pub struct Heads {
    heads: Vec<(usize, Head)>,
    width: usize,
}

impl Heads {
    /// Heads of `width` e, or half of what W_q has directions, on `layers` in ascending order; zero for now.
    ///
    /// # Errors
    /// A layer that the model has not.
    pub fn new(student: &Student, layers: &[usize], width: usize) -> Result<Self> {
        let (d, vb) = (student.model.config().text_config.hidden_size, student.heads().pp(NAME));
        let (mut heads, mut narrowest) = (Vec::with_capacity(layers.len()), width);
        for &layer in layers {
            let (output, input) = query(&student.model, layer)?.matrix().dims()?;
            narrowest = narrowest.min(output.min(input) / 2);
            ensure!(narrowest > 0, "layer {layer}: expected two directions of W_q or more, got {output} x {input}");
        }
        for &layer in layers {
            heads.push((layer, Head::new(d, narrowest, &vb.pp(layer))?));
        }
        Ok(Self { heads, width: narrowest })
    }

    /// The heads that a run left in `dir`; nothing where there are none.
    ///
    /// # Errors
    /// A file that is broken, a head of another width than the model's.
    pub fn stored(dir: &Path, d: usize, device: &Device) -> Result<Option<Self>> {
        let path = dir.join(HEADS);
        if !path.is_file() {
            return Ok(None);
        }
        let read = || -> Result<Option<Self>> {
            let tensors = candle_core::safetensors::load(&path, device)?;
            let prefix = format!("{HEAD_PREFIX}{NAME}.");
            let mut layers = Vec::new();
            for (name, tensor) in &tensors {
                let layer = name.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix(".fc2.weight"));
                if let Some(layer) = layer {
                    layers.push((layer.parse::<usize>().with_context(|| name.clone())?, tensor.dim(0)?));
                }
            }
            layers.sort_unstable();
            let Some(&(_, width)) = layers.first() else { return Ok(None) };
            let vb = VarBuilder::from_tensors(tensors, DType::F32, device).pp(prefix.trim_end_matches('.'));
            let head =
                |(layer, e): (usize, usize)| -> Result<(usize, Head)> { Ok((layer, Head::new(d, e, &vb.pp(layer))?)) };
            Ok(Some(Self { heads: layers.into_iter().map(head).collect::<Result<_>>()?, width }))
        };
        read().with_context(|| path.display().to_string())
    }

    /// Starts the heads that no earlier stage left from the singular vectors of their layer's W_q = U S V^T: W_1 the
    /// first 2e rows of V^T, each scaled by sqrt(s / s_0), W_2 = [I 0], biases 0. A head then compares tokens as the
    /// layer's queries do, up to GELU.
    ///
    /// The cost of a layer, by counting operations: 7 products of W with 2e + 32 columns and 4 decompositions of a
    /// symmetric matrix of that size; for d = 4096 and e = 256 about 1.5e11, some tens of seconds on one core.
    ///
    /// # Errors
    /// A tensor operation's.
    pub fn start(&self, student: &Student) -> Result<()> {
        let (mut variables, e) = (student.variables.clone(), self.width);
        for (layer, head) in &self.heads {
            if head.first.0.abs()?.max_all()?.to_scalar::<f32>()? > 0.0 {
                continue;
            }
            let weights = query(&student.model, *layer)?.matrix().dense(DType::F32)?;
            let first = directions(&weights, 2 * e, *layer as u64)?;
            let mut second = vec![0f32; e * 2 * e];
            (0..e).for_each(|i| second[i * 2 * e + i] = 1.0);
            let second = Tensor::from_vec(second, (e, 2 * e), &Device::Cpu)?;
            for (name, value) in [("fc1", first), ("fc2", second)] {
                let name = format!("{HEAD_PREFIX}{NAME}.{layer}.{name}.weight");
                variables.set_one(name, value.to_device(student.device())?)?;
            }
            tracing::debug!(layer, width = e, "correspondence head started from W_q");
        }
        Ok(())
    }

    /// Layers that have a head.
    pub fn layers(&self) -> impl Iterator<Item = usize> + '_ {
        self.heads.iter().map(|(layer, _)| *layer)
    }

    /// e
    pub fn width(&self) -> usize {
        self.width
    }

    /// The head of a layer; nothing where it has none.
    pub fn head(&self, layer: usize) -> Option<&Head> {
        self.heads.iter().find(|(of, _)| *of == layer).map(|(_, head)| head)
    }
}

fn query(model: &Qwen3Vl, layer: usize) -> Result<&model::nn::Linear> {
    let depth = model.decoder().depth();
    model.decoder().query(layer).with_context(|| format!("layer {layer}: expected less than the decoder's {depth}"))
}

/// The first `rank` right singular vectors of `weights` `[out, d]` as rows, each scaled by sqrt(s / s_0); zero where
/// the matrix has no more directions. Subspace iteration from random columns (Halko, Martinsson and Tropp 2011, section
/// 4.5): exact where W has no more than `rank + 32` columns.
fn directions(weights: &Tensor, rank: usize, seed: u64) -> Result<Tensor> {
    let (output, d) = weights.dims2()?;
    let values = weights.to_device(&Device::Cpu)?.flatten_all()?.to_vec1::<f32>()?;
    ensure!(values.iter().all(|v| v.is_finite()), "W_q: expected numbers, got some that are none");
    ensure!(values.iter().any(|v| v.abs() > 0.0), "W_q: expected some direction, got zeros alone");
    // Rows of the one are columns of the other.
    let transposed = DMatrix::from_iterator(d, output, values.into_iter().map(f64::from));
    let weights = transposed.transpose();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let columns = (rank + OVERSAMPLING).min(d);
    let mut span = DMatrix::from_fn(d, columns, |_, _| rng.random::<f64>() * 2.0 - 1.0);
    for _ in 0..PASSES {
        let seen = &transposed * (&weights * &span);
        let (_, turned) = squares(&seen);
        span = seen * turned;
    }
    let (singular_squares, turned) = squares(&(&weights * &span));
    // `turned` makes the columns of W V one long; those of V itself are.
    let largest = singular_squares[0];
    let mut rows = vec![0f32; rank * d];
    for (k, square) in singular_squares.iter().enumerate().take(rank) {
        let direction = &span * turned.column(k) * square.sqrt();
        let scale = (square / largest).powf(0.25);
        let row = &mut rows[k * d..(k + 1) * d];
        row.iter_mut().zip(direction.iter()).for_each(|(to, from)| *to = (from * scale) as f32);
    }
    Ok(Tensor::from_vec(rows, (rank, d), &Device::Cpu)?)
}

/// Squared singular values of a matrix that is not zero, falling, without those that are noise; and what turns its
/// columns into as many orthonormal ones.
fn squares(columns: &DMatrix<f64>) -> (Vec<f64>, DMatrix<f64>) {
    let SymmetricEigen { eigenvectors, eigenvalues } = SymmetricEigen::new(columns.transpose() * columns);
    let mut order: Vec<usize> = (0..eigenvalues.len()).collect();
    order.sort_by(|&a, &b| eigenvalues[b].total_cmp(&eigenvalues[a]));
    let bound = eigenvalues[order[0]] * NOISE;
    order.retain(|&k| eigenvalues[k] > bound);
    let turned: Vec<_> = order.iter().map(|&k| eigenvectors.column(k) / eigenvalues[k].sqrt()).collect();
    (order.iter().map(|&k| eigenvalues[k]).collect(), DMatrix::from_columns(&turned))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gasp::tests::student;

    fn random(rows: usize, columns: usize, seed: u64) -> DMatrix<f64> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        // Twelve uniform draws make a normal one, near enough.
        DMatrix::from_fn(rows, columns, |_, _| (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0)
    }

    fn tensor(matrix: &DMatrix<f64>) -> Tensor {
        let values: Vec<f32> = matrix.transpose().iter().map(|&v| v as f32).collect();
        Tensor::from_vec(values, matrix.shape(), &Device::Cpu).unwrap()
    }

    /// A matrix whose singular values fall as those of trained projections do.
    fn falling(size: usize, seed: u64) -> DMatrix<f64> {
        let (left, right) = (random(size, size, seed).qr().q(), random(size, size, seed + 1).qr().q());
        let values = DMatrix::from_fn(size, size, |r, c| if r == c { 0.93f64.powi(r as i32) } else { 0.0 });
        left * values * right.transpose()
    }

    #[test]
    fn directions_are_right_singular_vectors_whether_all_are_looked_for_or_a_few() {
        for (size, rank) in [(24, 16), (120, 12)] {
            let weights = falling(size, 3);
            let rows = directions(&tensor(&weights), rank, 0).unwrap().to_vec2::<f32>().unwrap();
            let svd = weights.svd(false, true);
            let v_t = svd.v_t.unwrap();
            for (k, row) in rows.iter().enumerate() {
                let scale = (svd.singular_values[k] / svd.singular_values[0]).sqrt();
                let along: f64 = row.iter().zip(v_t.row(k).iter()).map(|(a, b)| f64::from(*a) * b).sum();
                let length: f64 = row.iter().map(|a| f64::from(*a).powi(2)).sum::<f64>().sqrt();
                assert!((along.abs() - scale).abs() < 1e-3, "{size}, {k}: {along} {scale}");
                assert!((length - scale).abs() < 1e-3, "{size}, {k}: {length} {scale}");
            }
        }
        // Grouped queries may be copies of each other: what is not there stays zero.
        let half = random(8, 16, 5);
        let twice = DMatrix::from_fn(16, 16, |r, c| half[(r % 8, c)]);
        let rows = directions(&tensor(&twice), 12, 0).unwrap().to_vec2::<f32>().unwrap();
        let length = |row: &[f32]| row.iter().map(|a| a * a).sum::<f32>();
        assert!(rows[..8].iter().all(|row| length(row) > 0.01) && rows[8..].iter().all(|row| length(row) < 1e-12));
    }

    /// Share of the ten nearest neighbours by one set of vectors that are among the ten nearest by another.
    fn agreement(a: &Tensor, b: &Tensor) -> f64 {
        let nearest = |x: &Tensor| {
            let x = unit(x).unwrap();
            let near = x.matmul(&x.t().unwrap()).unwrap().to_vec2::<f32>().unwrap();
            let of = |(i, row): (usize, &Vec<f32>)| {
                let mut order: Vec<usize> = (0..row.len()).filter(|&j| j != i).collect();
                order.sort_by(|&j, &k| row[k].total_cmp(&row[j]));
                order.truncate(10);
                order
            };
            near.iter().enumerate().map(of).collect::<Vec<_>>()
        };
        let (a, b) = (nearest(a), nearest(b));
        let shared: usize = a.iter().zip(&b).map(|(a, b)| a.iter().filter(|&j| b.contains(j)).count()).sum();
        shared as f64 / (10 * a.len()) as f64
    }

    #[test]
    fn the_start_compares_tokens_as_the_queries_do_and_a_random_head_does_not() {
        let (d, e) = (64, 16);
        let weights = tensor(&falling(d, 7));
        let tokens = tensor(&random(200, d, 9));
        let queries = tokens.matmul(&weights.t().unwrap()).unwrap();
        let head = |first: Tensor| {
            let mut second = vec![0f32; e * 2 * e];
            (0..e).for_each(|i| second[i * 2 * e + i] = 1.0);
            let zeros = |n: usize| Tensor::zeros(n, DType::F32, &Device::Cpu).unwrap();
            let second = Tensor::from_vec(second, (e, 2 * e), &Device::Cpu).unwrap();
            Head { first: (first, zeros(2 * e)), second: (second, zeros(e)) }
        };
        let started = head(directions(&weights, 2 * e, 0).unwrap()).forward(&tokens).unwrap();
        let drawn = head(tensor(&(random(2 * e, d, 11) / 8.0))).forward(&tokens).unwrap();
        let (started, drawn) = (agreement(&started, &queries), agreement(&drawn, &queries));
        // By chance, 10 of 199.
        assert!(started > 0.3 && started > 3.0 * drawn, "{started} of the neighbours, {drawn} with a random head");
    }

    #[test]
    fn heads_are_as_wide_as_the_queries_allow_start_once_and_come_back_from_their_file() {
        let student = student();
        let heads = Heads::new(&student, &[0, 1], 256).unwrap();
        // 48 queries of width 48.
        assert_eq!((heads.width(), heads.layers().collect::<Vec<_>>()), (24, vec![0, 1]));
        let tokens = tensor(&random(7, 48, 1));
        heads.start(&student).unwrap();
        let before = heads.head(1).unwrap().forward(&tokens).unwrap();
        let lengths = before.sqr().unwrap().sum(1).unwrap().to_vec1::<f32>().unwrap();
        assert!(lengths.iter().all(|length| (length - 1.0).abs() < 1e-4), "{lengths:?}");
        assert!(heads.head(2).is_none());
        let far =
            |a: &Tensor, b: &Tensor| (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        let scaled = heads.head(1).unwrap().forward(&(&tokens * 50.0).unwrap()).unwrap();
        assert!(far(&before, &scaled) < 1e-4, "the length of a hidden state says nothing");
        // What is trained already does not start again.
        let name = "aux.gasp.1.fc1.weight";
        let (_, var) = crate::student::named(&student.variables).into_iter().find(|(n, _)| n == name).unwrap();
        var.set(&(var.as_tensor() * 0.5).unwrap()).unwrap();
        heads.start(&student).unwrap();
        let after = heads.head(1).unwrap().forward(&tokens).unwrap();
        assert!(far(&before, &after) > 1e-4);
        let dir = tempfile::tempdir().unwrap();
        assert!(Heads::stored(dir.path(), 48, &Device::Cpu).unwrap().is_none());
        student.save(dir.path()).unwrap();
        let stored = Heads::stored(dir.path(), 48, &Device::Cpu).unwrap().unwrap();
        assert_eq!(stored.layers().collect::<Vec<_>>(), [0, 1]);
        assert!(far(&after, &stored.head(1).unwrap().forward(&tokens).unwrap()) < 1e-6);
        let error = Heads::new(&student, &[2], 8).unwrap_err().to_string();
        assert!(error.contains("layer 2"), "{error}");
    }
}
