//! The heads beside the student: those of the poses, which the node asks too, and that of the layout, which only teaches.

use anyhow::Result;
use candle_core::Tensor;
use model::pose_head::{Gaussian, Mlp, PoseHead, TOKENS, places};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::config::Config;
use crate::batch::Sequence;
use crate::student::{Student, named};
use training_data::random::normal;

/// What the names of these heads begin with.
pub const NAMES: [&str; 2] = ["aux.layout.", "aux.situation."];

/// Learned tokens and heads; variables of the student.
pub struct Heads {
    /// Where frames were taken.
    pub pose: PoseHead,
    layout: Option<Mlp>,
    layout_bounds: [f64; 2],
}

impl Heads {
    /// Adds them to the student, with values that depend on the run's seed alone.
    ///
    /// # Errors
    /// A tensor operation's.
    pub fn new(config: &Config, student: &Student) -> Result<Self> {
        let l = &config.layout;
        let (vb, d) = (student.heads(), student.model.config().text_config.hidden_size);
        let pose = PoseHead::new(config.situation.pose_head(), d, &vb.pp("situation"))?;
        let layout = if l.weight > 0.0 { Some(Mlp::new([d, l.hidden, 4], &vb.pp("layout"))?) } else { None };
        initialise(student, config.run.seed)?;
        Ok(Self { pose, layout, layout_bounds: l.log_variance })
    }

    /// x and z of the surfaces that vision tokens show, in the anchor's frame, `layout.unit`s; nothing without a head.
    ///
    /// # Shapes
    /// `hidden` `[n, d]` -> `[n, 2]`
    ///
    /// # Errors
    /// A tensor operation's.
    pub fn layout(&self, hidden: &Tensor) -> Result<Option<Gaussian>> {
        let Some(layout) = &self.layout else { return Ok(None) };
        Ok(Some(Gaussian::of(&layout.forward(hidden)?, self.layout_bounds)?))
    }
}

/// A prompt with places for the tokens behind it, where the response would begin. `pad` stands at these places.
pub fn question(sequence: &Sequence, pad: u32) -> Sequence {
    let (mut ids, mut positions) =
        (sequence.ids[..sequence.response].to_vec(), sequence.positions[..sequence.response].to_vec());
    let next = positions.last().map_or(0, |place| place[0] + 1);
    ids.extend([pad; TOKENS]);
    positions.extend(places(next));
    Sequence { images: Vec::new(), response: ids.len(), ids, positions }
}

/// Matrices and tokens with variance 1 / fan-in, from a seed: candle's own generator takes none on the CPU. Biases are
/// zero.
fn initialise(student: &Student, seed: u64) -> Result<()> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    for (name, var) in named(&student.variables) {
        if var.rank() < 2 || !NAMES.iter().any(|own| name.starts_with(own)) {
            continue;
        }
        let scale = 1.0 / (var.dim(1)? as f64).sqrt();
        let values: Vec<f32> = (0..var.elem_count()).map(|_| (normal(&mut rng) * scale) as f32).collect();
        var.set(&Tensor::from_vec(values, var.shape(), var.device())?)?;
    }
    Ok(())
}
