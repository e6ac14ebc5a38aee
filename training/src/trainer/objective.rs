//! What a stage of training brings along; the loop around it is the same for all.

use anyhow::Result;
use candle_core::Tensor;
use model::autograd::recompute::Recomputation;
use serde_json::Value;

use super::terms::Terms;

/// A loss over a stream of examples, which are numbered from 0: example k is the same on each machine and in each run.
pub trait Objective: Sync {
    /// Examples, ready for the model.
    type Batch: Send + Sync;

    /// What is counted, averaged and logged.
    type Terms: Terms;

    /// What was read, with hashes where it is files, for the manifest and the check of `--resume`.
    fn inputs(&self) -> Value;

    /// What is trained on, and what is held out.
    fn sources(&self) -> Sources;

    /// Examples of one pass over the data; nothing where the stream has no end.
    fn epoch(&self) -> Option<u64> {
        None
    }

    /// Something that grows with the length of an example: a step's examples are sorted by it before they are dealt out to
    /// micro-batches, so that little is padded.
    fn length(&self, _example: u64) -> usize {
        0
    }

    /// Reads, draws or samples examples. Called before the losses of a step, with the variables as they are then.
    ///
    /// # Errors
    /// Data that can't be read.
    fn batch(&self, step: usize, examples: &[u64]) -> Result<Self::Batch>;

    /// What each term is a mean over: tokens, pixels, pairs. Added up over the whole step, all ranks included, before any
    /// loss is formed, so that a step is the same however it is cut into micro-batches.
    fn counts(&self, batch: &Self::Batch) -> Self::Terms;

    /// A batch's share of the step's loss: each term is a sum over the batch divided by the whole step's count.
    ///
    /// # Errors
    /// A tensor operation's.
    fn loss(
        &self,
        batch: &Self::Batch,
        totals: &Self::Terms,
        recomputation: Option<&Recomputation>,
    ) -> Result<Share<Self::Terms>>;

    /// Tokens that went through the model.
    fn tokens(&self, batch: &Self::Batch) -> usize;

    /// All that is needed to look into a batch whose loss is not a number.
    fn describe(&self, batch: &Self::Batch) -> Value;

    /// Whether a variable is trained in this step.
    fn trains(&self, _step: usize, _variable: &str) -> bool {
        true
    }

    /// Figures on the hold-out, the first of them the loss that the best checkpoint is chosen by; none where there is
    /// no hold-out. Rank 0 alone is asked.
    ///
    /// # Errors
    /// Data that can't be read.
    fn evaluate(&self, _step: usize) -> Result<Vec<(&'static str, f64)>> {
        Ok(Vec::new())
    }

    /// Writes what is deployed beside the model, where there is any, into the folder of the model.
    ///
    /// # Errors
    /// A file that can't be written.
    fn save(&self, _dir: &std::path::Path) -> Result<()> {
        Ok(())
    }

    /// Called once a step is done, on rank 0 alone: what shall be kept of its batches to be read by people.
    ///
    /// # Errors
    /// A file that can't be written.
    fn keep(&self, _step: usize, _batches: &[Self::Batch], _run: &std::path::Path) -> Result<()> {
        Ok(())
    }
}

/// Videos and scenes by name, as [`training_data::WindowSource::sources`] has them: what must not be in both.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources {
    /// Trained on.
    pub trained: Vec<String>,
    /// Held out.
    pub held_out: Vec<String>,
}

/// A batch's share of a step.
#[derive(Debug)]
pub struct Share<T> {
    /// To be minimised; nothing where no example of the batch teaches anything.
    pub loss: Option<Tensor>,
    /// Shares of the terms' means, weights of the terms left out.
    pub terms: T,
}
