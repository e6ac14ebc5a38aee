//! AdamW over flat vectors: one pass over each variable, where candle-nn's takes a dozen and as many allocations.

use anyhow::Result;
use candle_core::{Tensor, Var};

const BETA_1: f32 = 0.9;
const EPSILON: f32 = 1e-8;

/// AdamW (Loshchilov and Hutter 2019) with decoupled decay of matrices; vectors (norms, biases) do not decay.
#[derive(Debug)]
pub struct AdamW {
    moments: Vec<(Vec<f32>, Vec<f32>)>,
    beta_2: f32,
    weight_decay: f32,
    steps: i32,
}

impl AdamW {
    /// For `variables` in the order in which gradients will come.
    pub fn new(variables: &[(String, Var)], beta_2: f32, weight_decay: f32) -> Self {
        let zeros = |var: &Var| vec![0f32; var.elem_count()];
        let moments = variables.iter().map(|(_, var)| (zeros(var), zeros(var))).collect();
        Self { moments, beta_2, weight_decay, steps: 0 }
    }

    /// One step along flat gradients, scaled by `scale` first (clipping, averaging). A variable whose gradient is empty
    /// stays as it is: it does not decay either.
    ///
    /// # Errors
    /// candle's.
    pub fn step(&mut self, variables: &[(String, Var)], grads: &[Vec<f32>], scale: f32, lr: f32) -> Result<()> {
        self.steps += 1;
        let correct_1 = 1.0 / (1.0 - BETA_1.powi(self.steps));
        let correct_2 = 1.0 / (1.0 - self.beta_2.powi(self.steps));
        for (((_, var), grad), (m, v)) in variables.iter().zip(grads).zip(&mut self.moments) {
            if grad.is_empty() {
                continue;
            }
            let decay = if var.rank() > 1 { 1.0 - lr * self.weight_decay } else { 1.0 };
            let mut values = var.flatten_all()?.to_vec1::<f32>()?;
            for (((p, g), m), v) in values.iter_mut().zip(grad).zip(m).zip(v) {
                let g = g * scale;
                *m = BETA_1 * *m + (1.0 - BETA_1) * g;
                *v = self.beta_2 * *v + (1.0 - self.beta_2) * g * g;
                *p = *p * decay - lr * (*m * correct_1) / ((*v * correct_2).sqrt() + EPSILON);
            }
            var.set(&Tensor::from_vec(values, var.shape(), var.device())?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;
    use candle_nn::{Optimizer, ParamsAdamW};

    #[test]
    fn what_has_no_gradient_does_not_decay() {
        let var = Var::from_tensor(&Tensor::ones((2, 2), candle_core::DType::F32, &Device::Cpu).unwrap()).unwrap();
        let variables = [("w".to_owned(), var.clone())];
        AdamW::new(&variables, 0.98, 0.5).step(&variables, &[Vec::new()], 1.0, 0.5).unwrap();
        assert_eq!(var.to_vec2::<f32>().unwrap(), [[1.0; 2]; 2]);
    }

    #[test]
    fn agrees_with_candle_on_a_matrix() {
        let start = Tensor::randn(0f32, 1.0, (3, 4), &Device::Cpu).unwrap();
        let (ours, theirs) = (Var::from_tensor(&start).unwrap(), Var::from_tensor(&start).unwrap());
        let variables = [("w".to_owned(), ours.clone())];
        let mut optimizer = AdamW::new(&variables, 0.98, 0.1);
        let params = ParamsAdamW { lr: 0.05, beta2: 0.98, weight_decay: 0.1, ..Default::default() };
        let mut reference = candle_nn::AdamW::new(vec![theirs.clone()], params).unwrap();
        for _ in 0..5 {
            let grad = (ours.as_tensor() * 2.0).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            optimizer.step(&variables, &[grad], 1.0, 0.05).unwrap();
            reference.backward_step(&theirs.sqr().unwrap().sum_all().unwrap()).unwrap();
        }
        let far = (ours.as_tensor() - theirs.as_tensor()).unwrap().abs().unwrap().max_all().unwrap();
        assert!(far.to_scalar::<f32>().unwrap() < 1e-5);
    }
}
