//! Activation recomputation: a layer's inside is forgotten on the way forward and computed again on the way back
//! (Chen et al. 2016, "Training deep nets with sublinear memory cost").

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, CudaStorage, CustomOp1, Layout, Shape, Tensor, TensorId, Var};

use super::known::Known;
use crate::Result;

/// Where the gradients of variables inside recomputed layers are found: candle's own store holds those of the graph
/// that it walks, and the inside of such a layer is no part of it.
#[derive(Debug, Clone)]
pub struct Recomputation {
    gradients: Arc<Mutex<HashMap<TensorId, Tensor>>>,
    wanted: Arc<HashSet<TensorId>>,
}

impl Recomputation {
    /// Keeps the gradients of `variables` and of nothing else: candle's stores hold those of constants too, which are as
    /// large as the activations that recomputing is there to forget.
    pub fn new<'a>(variables: impl IntoIterator<Item = &'a Tensor>) -> Self {
        let wanted = variables.into_iter().map(Tensor::id).collect();
        Self { gradients: Arc::default(), wanted: Arc::new(wanted) }
    }

    /// Runs `layer` on `x` and keeps only `x`. The layer must give the same output each time.
    ///
    /// # Errors
    /// The layer's.
    pub fn run(&self, x: &Tensor, layer: impl Fn(&Tensor) -> Result<Tensor> + Send + Sync + 'static) -> Result<Tensor> {
        let y = layer(&x.detach())?.detach();
        // A constant input would make a constant output, and the layer's own variables would get no gradient.
        let x = if x.track_op() { x.clone() } else { Var::from_tensor(x)?.into_inner() };
        Ok(x.apply_op1(Recomputed { y: Known::new(y), layer: Box::new(layer), recomputation: self.clone() })?)
    }

    /// Gradient of a variable after a backward pass whose own store is `store`; nothing where it has none.
    ///
    /// # Errors
    /// A tensor operation's.
    pub fn gradient(&self, store: &GradStore, variable: &Tensor) -> Result<Option<Tensor>> {
        let inside = self.gradients.lock().unwrap_or_else(PoisonError::into_inner).get(&variable.id()).cloned();
        Ok(match (store.get(variable), inside) {
            (Some(outside), Some(inside)) => Some((outside + inside)?),
            (outside, inside) => outside.cloned().or(inside),
        })
    }

    fn keep(&self, store: &GradStore) -> candle_core::Result<()> {
        let mut gradients = self.gradients.lock().unwrap_or_else(PoisonError::into_inner);
        for id in store.get_ids().filter(|id| self.wanted.contains(id)) {
            let Some(gradient) = store.get_id(*id) else { continue };
            let sum = match gradients.remove(id) {
                Some(sum) => (sum + gradient)?,
                None => gradient.clone(),
            };
            gradients.insert(*id, sum);
        }
        Ok(())
    }
}

type Inside = Box<dyn Fn(&Tensor) -> Result<Tensor> + Send + Sync>;

struct Recomputed {
    y: Known,
    layer: Inside,
    recomputation: Recomputation,
}

impl CustomOp1 for Recomputed {
    fn name(&self) -> &'static str {
        "recompute"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        self.y.cpu()
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> candle_core::Result<(CudaStorage, Shape)> {
        self.y.cuda()
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let x = Var::from_tensor(x)?;
        let y = (self.layer)(x.as_tensor()).map_err(candle_core::Error::wrap)?;
        let mut store = (y * grad)?.sum_all()?.backward()?;
        let gradient = store.remove(x.as_tensor());
        self.recomputation.keep(&store)?;
        Ok(gradient)
    }
}
