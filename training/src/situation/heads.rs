//! The learned tokens `<Pos>` and `<Ori>`, and what reads them and the vision tokens.

use anyhow::Result;
use candle_core::Tensor;
use candle_nn::{Init, VarBuilder};
use geometry::WINDOW;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::config::Config;
use super::loss::Gaussian;
use crate::batch::Sequence;
use crate::nano::normal;
use crate::student::{Student, named};

/// Frames that are asked for, 1 to 4: the anchor's pose is known, and would flatter every figure.
pub const ASKED: usize = WINDOW - 1;
/// Tokens behind a prompt: `<Pos>` and `<Ori>` of frame 1, then of frame 2, and so on.
pub const TOKENS: usize = 2 * ASKED;
/// What the names of these heads begin with.
pub const NAMES: [&str; 2] = ["aux.layout.", "aux.situation."];

/// Learned tokens and heads; variables of the student.
pub struct Heads {
    pos: Tensor,   // [1, d]
    ori: Tensor,   // [1, d]
    frame: Tensor, // [ASKED, d]
    position: Mlp,
    orientation: Mlp,
    layout: Option<Mlp>,
    bins: usize,
    bounds: [f64; 2],
    layout_bounds: [f64; 2],
}

/// What `<Ori>` says.
pub struct Orientation {
    /// `[n, bins]`
    pub yaw: Tensor,
    /// Pitch and roll `[n, 2]` in `tilt_unit_deg`s, where the full pose is asked for.
    pub tilt: Option<Gaussian>,
}

impl Heads {
    /// Adds them to the student, with values that depend on the run's seed alone.
    ///
    /// # Errors
    /// A tensor operation's.
    pub fn new(config: &Config, student: &Student) -> Result<Self> {
        let (s, l) = (&config.situation, &config.layout);
        let (vb, d) = (student.heads(), student.model.config().text_config.hidden_size);
        let own = vb.pp("situation");
        let token = |name: &str, rows: usize| own.get_with_hints((rows, d), name, Init::Const(0.0));
        let (axes, tilts) = if s.full_pose { (3, 2) } else { (2, 0) };
        let layout = if l.weight > 0.0 { Some(Mlp::new([d, l.hidden, 4], &vb.pp("layout"))?) } else { None };
        let heads = Self {
            pos: token("pos", 1)?,
            ori: token("ori", 1)?,
            frame: token("frame", ASKED)?,
            position: Mlp::new([d, s.hidden, 2 * axes], &own.pp("position"))?,
            orientation: Mlp::new([d, s.hidden, s.bins + 2 * tilts], &own.pp("orientation"))?,
            layout,
            bins: s.bins,
            bounds: s.log_variance,
            layout_bounds: l.log_variance,
        };
        initialise(student, config.run.seed)?;
        Ok(heads)
    }

    /// Input embeddings of the tokens, `[TOKENS, d]`.
    ///
    /// # Errors
    /// A tensor operation's.
    pub fn tokens(&self) -> Result<Tensor> {
        let (pos, ori) = (self.frame.broadcast_add(&self.pos)?, self.frame.broadcast_add(&self.ori)?);
        Ok(Tensor::stack(&[&pos, &ori], 1)?.flatten_to(1)?)
    }

    /// Positions x, z and, where the full pose is asked for, y in the anchor's frame, `situation.unit`s.
    ///
    /// # Shapes
    /// `hidden` of `<Pos>` `[n, d]` -> `[n, 2]` or `[n, 3]`
    ///
    /// # Errors
    /// A tensor operation's.
    pub fn position(&self, hidden: &Tensor) -> Result<Gaussian> {
        Gaussian::of(&self.position.forward(hidden)?, self.bounds)
    }

    /// Orientations in the anchor's frame.
    ///
    /// # Shapes
    /// `hidden` of `<Ori>` `[n, d]`
    ///
    /// # Errors
    /// A tensor operation's.
    pub fn orientation(&self, hidden: &Tensor) -> Result<Orientation> {
        let output = self.orientation.forward(hidden)?;
        let rest = output.dim(1)? - self.bins;
        let tilt = if rest > 0 { Some(Gaussian::of(&output.narrow(1, self.bins, rest)?, self.bounds)?) } else { None };
        Ok(Orientation { yaw: output.narrow(1, 0, self.bins)?, tilt })
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
        Gaussian::of(&layout.forward(hidden)?, self.layout_bounds).map(Some)
    }
}

/// A prompt with places for the tokens behind it, where the response would begin. `pad` stands at these places.
pub fn question(sequence: &Sequence, pad: u32) -> Sequence {
    let (mut ids, mut positions) =
        (sequence.ids[..sequence.response].to_vec(), sequence.positions[..sequence.response].to_vec());
    let next = positions.last().map_or(0, |place| place[0] + 1);
    ids.extend([pad; TOKENS]);
    positions.extend((next..).take(TOKENS).map(|place| [place; 3]));
    Sequence { images: Vec::new(), response: ids.len(), ids, positions }
}

/// Two layers with a GELU between them, in f32.
struct Mlp {
    inner: Layer,
    outer: Layer,
}

struct Layer {
    weight: Tensor,
    bias: Tensor,
}

impl Mlp {
    /// `sizes`: input, inner layer, output.
    fn new(sizes: [usize; 3], vb: &VarBuilder<'_>) -> Result<Self> {
        Ok(Self {
            inner: Layer::new(sizes[0], sizes[1], &vb.pp("fc1"))?,
            outer: Layer::new(sizes[1], sizes[2], &vb.pp("fc2"))?,
        })
    }

    fn forward(&self, hidden: &Tensor) -> Result<Tensor> {
        let hidden = hidden.to_dtype(self.inner.weight.dtype())?;
        self.outer.forward(&self.inner.forward(&hidden)?.gelu_erf()?)
    }
}

impl Layer {
    fn new(input: usize, output: usize, vb: &VarBuilder<'_>) -> Result<Self> {
        Ok(Self {
            weight: vb.get_with_hints((output, input), "weight", Init::Const(0.0))?,
            bias: vb.get_with_hints(output, "bias", Init::Const(0.0))?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.matmul(&self.weight.t()?)?.broadcast_add(&self.bias)?)
    }
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
