//! AdamW over the variables of a run: on a CPU one pass over each, where candle-nn's takes a dozen and as many
//! allocations; on a GPU with candle's operations.

use anyhow::Result;
use candle_core::{DType, Tensor, Var};

use super::config::OptimizerConfig;
use crate::student::HEAD_PREFIX;

const EPSILON: f64 = 1e-8;

/// AdamW (Loshchilov and Hutter 2019) with decoupled decay of matrices; vectors (norms, biases) do not decay.
#[derive(Debug)]
pub struct AdamW {
    beta_1: f64,
    beta_2: f64,
    weight_decay: f64,
    heads_rate: f64,
    /// Mean gradient and mean squared gradient of each variable.
    pub(super) moments: Vec<(Tensor, Tensor)>,
    /// Steps so far.
    pub(super) steps: usize,
}

impl AdamW {
    /// For `variables` in the order in which gradients will come.
    ///
    /// # Errors
    /// A tensor operation's.
    pub fn new(variables: &[(String, Var)], config: &OptimizerConfig) -> Result<Self> {
        let zeros = |var: &Var| Ok((var.zeros_like()?, var.zeros_like()?));
        Ok(Self {
            beta_1: config.beta_1,
            beta_2: config.beta_2,
            weight_decay: config.weight_decay,
            heads_rate: config.heads_rate,
            moments: variables.iter().map(|(_, var)| zeros(var)).collect::<Result<_>>()?,
            steps: 0,
        })
    }

    /// One step along gradients, scaled by `scale` first (clipping). A variable without a gradient stays as it is: it does
    /// not decay either.
    ///
    /// # Errors
    /// candle's.
    pub fn step(&mut self, variables: &[(String, Var)], grads: &[Option<Tensor>], scale: f64, rate: f64) -> Result<()> {
        self.steps += 1;
        let steps = i32::try_from(self.steps).unwrap_or(i32::MAX);
        let correct = [1.0 / (1.0 - self.beta_1.powi(steps)), 1.0 / (1.0 - self.beta_2.powi(steps))];
        for (((name, var), grad), moments) in variables.iter().zip(grads).zip(&mut self.moments) {
            let Some(grad) = grad else { continue };
            let rate = if name.starts_with(HEAD_PREFIX) { rate * self.heads_rate } else { rate };
            let decay = if var.rank() > 1 { 1.0 - rate * self.weight_decay } else { 1.0 };
            let update = Update { beta_1: self.beta_1, beta_2: self.beta_2, correct, scale, rate, decay };
            if var.device().is_cpu() {
                update.on_cpu(var, grad, moments)
            } else {
                update.on_device(var, grad, moments)
            }?;
        }
        Ok(())
    }
}

struct Update {
    beta_1: f64,
    beta_2: f64,
    correct: [f64; 2],
    scale: f64,
    rate: f64,
    decay: f64,
}

impl Update {
    fn on_cpu(&self, var: &Var, grad: &Tensor, moments: &mut (Tensor, Tensor)) -> Result<()> {
        let flat = |t: &Tensor| t.flatten_all()?.to_vec1::<f32>();
        let (mut values, grad) = (flat(var)?, flat(grad)?);
        let (mut m, mut v) = (flat(&moments.0)?, flat(&moments.1)?);
        let (b1, b2) = (self.beta_1 as f32, self.beta_2 as f32);
        let [c1, c2] = self.correct.map(|c| c as f32);
        let (scale, rate, decay) = (self.scale as f32, self.rate as f32, self.decay as f32);
        for (((p, g), m), v) in values.iter_mut().zip(&grad).zip(&mut m).zip(&mut v) {
            let g = g * scale;
            *m = b1 * *m + (1.0 - b1) * g;
            *v = b2 * *v + (1.0 - b2) * g * g;
            *p = *p * decay - rate * (*m * c1) / ((*v * c2).sqrt() + EPSILON as f32);
        }
        let back = |values: Vec<f32>| Tensor::from_vec(values, var.shape(), var.device());
        *moments = (back(m)?, back(v)?);
        Ok(var.set(&back(values)?)?)
    }

    fn on_device(&self, var: &Var, grad: &Tensor, moments: &mut (Tensor, Tensor)) -> Result<()> {
        let grad = (grad.to_dtype(DType::F32)? * self.scale)?;
        let m = ((&moments.0 * self.beta_1)? + (&grad * (1.0 - self.beta_1))?)?;
        let v = ((&moments.1 * self.beta_2)? + (grad.sqr()? * (1.0 - self.beta_2))?)?;
        let denominator = ((&v * self.correct[1])?.sqrt()? + EPSILON)?;
        let change = ((&m * (self.rate * self.correct[0]))? / denominator)?;
        var.set(&((var.as_tensor() * self.decay)? - change)?.detach())?;
        *moments = (m.detach(), v.detach());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;
    use candle_nn::{Optimizer, ParamsAdamW};

    fn config(beta_2: f64, weight_decay: f64) -> OptimizerConfig {
        OptimizerConfig {
            learning_rate: 1.0,
            warmup_share: 0.0,
            final_share: 0.0,
            heads_rate: 4.0,
            beta_1: 0.9,
            beta_2,
            weight_decay,
            max_grad_norm: 1.0,
        }
    }

    fn one(name: &str, start: &Tensor) -> [(String, Var); 1] {
        [(name.to_owned(), Var::from_tensor(start).unwrap())]
    }

    #[test]
    fn what_has_no_gradient_does_not_decay() {
        let variables = one("w", &Tensor::ones((2, 2), DType::F32, &Device::Cpu).unwrap());
        AdamW::new(&variables, &config(0.98, 0.5)).unwrap().step(&variables, &[None], 1.0, 0.5).unwrap();
        assert_eq!(variables[0].1.to_vec2::<f32>().unwrap(), [[1.0; 2]; 2]);
    }

    #[test]
    fn agrees_with_candle_on_a_matrix_and_so_does_the_way_of_gpus() {
        let start = Tensor::randn(0f32, 1.0, (3, 4), &Device::Cpu).unwrap();
        let (ours, theirs, other) =
            (one("w", &start), Var::from_tensor(&start).unwrap(), Var::from_tensor(&start).unwrap());
        let mut optimizer = AdamW::new(&ours, &config(0.98, 0.1)).unwrap();
        let params = ParamsAdamW { lr: 0.05, beta2: 0.98, weight_decay: 0.1, ..Default::default() };
        let mut reference = candle_nn::AdamW::new(vec![theirs.clone()], params).unwrap();
        let mut moments = (start.zeros_like().unwrap(), start.zeros_like().unwrap());
        for step in 1..=5 {
            let grad = (ours[0].1.as_tensor() * 2.0).unwrap();
            optimizer.step(&ours, &[Some(grad)], 1.0, 0.05).unwrap();
            let correct = [0.9f64, 0.98].map(|beta| 1.0 / (1.0 - beta.powi(step)));
            let update = Update { beta_1: 0.9, beta_2: 0.98, correct, scale: 1.0, rate: 0.05, decay: 1.0 - 0.005 };
            update.on_device(&other, &(other.as_tensor() * 2.0).unwrap(), &mut moments).unwrap();
            reference.backward_step(&theirs.sqr().unwrap().sum_all().unwrap()).unwrap();
        }
        for got in [&ours[0].1, &other] {
            let far = (got.as_tensor() - theirs.as_tensor()).unwrap().abs().unwrap().max_all().unwrap();
            assert!(far.to_scalar::<f32>().unwrap() < 1e-5);
        }
    }

    #[test]
    fn heads_move_at_their_own_rate() {
        let start = Tensor::ones(3, DType::F32, &Device::Cpu).unwrap();
        let [model, head] = ["w", "aux.w"].map(|name| {
            let variables = one(name, &start);
            let mut optimizer = AdamW::new(&variables, &config(0.99, 0.0)).unwrap();
            optimizer.step(&variables, &[Some(start.clone())], 1.0, 0.01).unwrap();
            1.0 - variables[0].1.to_vec1::<f32>().unwrap()[0]
        });
        assert!((head / model - 4.0).abs() < 1e-3, "{head} {model}");
    }
}
