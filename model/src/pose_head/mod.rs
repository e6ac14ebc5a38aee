//! Poses from one pass over the prompt, with nothing written: two learned tokens a frame, `<Pos>` and `<Ori>` (Loc3R-VLM,
//! arXiv 2603.18002, by third-party notes), stand behind it, and small heads read where the frame was taken off their
//! hidden states.
//!
//! The prompt is that of [`Mode::AnswerOnly`](crate::Mode), up to the assistant's turn: the tokens begin where an answer
//! would, and their places count on as those of text do. So all of them see all five frames and the camera; which frame
//! a pair is for, it learns from a vector of its own.
//!
//! Here is what training shares with whoever asks the heads: tokens, heads, how a pose is decoded, and the files. The
//! losses are training's alone.

mod bins;
mod files;
mod frame_pose;
mod layers;

use std::fmt;

use candle_core::{DType, Tensor};
use candle_nn::ops::softmax;
use candle_nn::{Init, VarBuilder};
use geometry::{WINDOW, WindowTrajectory};
use nalgebra::Vector3;
use serde::{Deserialize, Serialize};

use crate::answer::prompt::Prompt;
use crate::qwen3_vl::text::Position;
use crate::qwen3_vl::{Embedded, Qwen3Vl};
use crate::{Error, Result};
pub use bins::Bins;
pub use files::{FILES, copy, folder};
pub use frame_pose::FramePose;
pub use layers::{Gaussian, Mlp};

/// Frames that are asked for, 1 to 4: the anchor's pose is known.
pub const ASKED: usize = WINDOW - 1;
/// Tokens behind a prompt: `<Pos>` and `<Ori>` of frame 1, then of frame 2, and so on.
pub const TOKENS: usize = 2 * ASKED;

/// What the heads' outputs mean.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PoseHeadConfig {
    /// Whether `<Pos>` also says y, and `<Ori>` pitch and roll: without, there is no pose of six degrees of freedom.
    pub full_pose: bool,
    /// Width of the heads' inner layers.
    pub hidden: usize,
    /// Scene units that the position head calls 1.
    pub unit: f64,
    /// Degrees that the orientation head calls 1, of pitch and roll.
    pub tilt_unit_deg: f64,
    /// Bounds of the log variances, of positions in `unit`s and of tilts in `tilt_unit_deg`s.
    pub log_variance: [f64; 2],
    /// Parts that the circle is cut into for the yaw.
    pub bins: usize,
}

/// The learned tokens and their heads.
#[derive(Debug, Clone)]
pub struct PoseHead {
    config: PoseHeadConfig,
    bins: Bins,
    pos: Tensor,   // [1, d]
    ori: Tensor,   // [1, d]
    frame: Tensor, // [ASKED, d]
    position: Mlp,
    orientation: Mlp,
}

/// What the heads say of n frames, as tensors.
#[derive(Debug, Clone)]
pub struct PoseReading {
    /// Positions x, z and, of a full pose, y in the anchor's frame, in `unit`s: `[n, 2]` or `[n, 3]`.
    pub position: Gaussian,
    /// Logits of the yaw's bins, `[n, bins]`.
    pub yaw: Tensor,
    /// Pitch and roll in `tilt_unit_deg`s, `[n, 2]`; of a full pose alone.
    pub tilt: Option<Gaussian>,
}

/// What the heads say of one frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FrameEstimate {
    /// Its pose; y, pitch and roll are 0 where the heads do not say them.
    pub pose: FramePose,
    /// Standard deviations of its position along x, y and z of the anchor's frame, scene units; 0 along y where the head
    /// does not say y.
    pub stddev: Vector3<f64>,
}

/// Why the heads state no pose of a frame.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("pose head: {what} of frame {frame}: expected finite numbers, got {got}")]
pub struct NotFinite {
    what: &'static str,
    frame: usize,
    got: f32,
}

/// What the heads say of a window.
#[derive(Debug, Clone, PartialEq)]
pub struct WindowPoses {
    /// Of frames 1 to 4.
    pub frames: [FrameEstimate; ASKED],
}

impl PoseHead {
    /// Takes its tensors from `vb`; with a trainable builder, missing ones begin at zero. `width` is that of the decoder.
    ///
    /// # Errors
    /// A tensor that is missing or has another shape.
    pub fn new(config: PoseHeadConfig, width: usize, vb: &VarBuilder<'_>) -> Result<Self> {
        let token = |name: &str, rows: usize| vb.get_with_hints((rows, width), name, Init::Const(0.0));
        let (axes, tilts) = if config.full_pose { (3, 2) } else { (2, 0) };
        Ok(Self {
            config,
            bins: Bins::new(config.bins),
            pos: token("pos", 1)?,
            ori: token("ori", 1)?,
            frame: token("frame", ASKED)?,
            position: Mlp::new([width, config.hidden, 2 * axes], &vb.pp("position"))?,
            orientation: Mlp::new([width, config.hidden, config.bins + 2 * tilts], &vb.pp("orientation"))?,
        })
    }

    /// Input embeddings of the tokens, `[TOKENS, d]`.
    ///
    /// # Errors
    /// A tensor operation's.
    pub fn tokens(&self) -> Result<Tensor> {
        let (pos, ori) = (self.frame.broadcast_add(&self.pos)?, self.frame.broadcast_add(&self.ori)?);
        Ok(Tensor::stack(&[&pos, &ori], 1)?.flatten_to(1)?)
    }

    /// Reads the hidden states of the tokens of one window or of several, window after window.
    ///
    /// # Shapes
    /// `hidden` `[windows * TOKENS, d]`, for n = windows * ASKED frames
    ///
    /// # Errors
    /// Another width than the heads'.
    pub fn read(&self, hidden: &Tensor) -> Result<PoseReading> {
        let (rows, d) = hidden.dims2()?;
        let pairs = hidden.reshape((rows / 2, 2, d))?;
        let of = |token: usize| pairs.narrow(1, token, 1)?.squeeze(1)?.contiguous(); // [n, d]
        let bounds = self.config.log_variance;
        let position = Gaussian::of(&self.position.forward(&of(0)?)?, bounds)?;
        let orientation = self.orientation.forward(&of(1)?)?;
        let bins = self.config.bins;
        let rest = orientation.dim(1)? - bins;
        let tilt = if rest > 0 { Some(Gaussian::of(&orientation.narrow(1, bins, rest)?, bounds)?) } else { None };
        Ok(PoseReading { position, yaw: orientation.narrow(1, 0, bins)?, tilt })
    }

    /// A reading in scene units and radians, frame by frame. Numbers that are none make no pose: that is a value here.
    ///
    /// # Errors
    /// A tensor operation's.
    pub fn decode(&self, reading: &PoseReading) -> Result<Vec<Result<FrameEstimate, NotFinite>>> {
        let means = reading.position.mean.to_vec2::<f32>()?;
        let log_variances = reading.position.log_variance.to_vec2::<f32>()?;
        let shares = softmax(&reading.yaw, 1)?.to_vec2::<f32>()?;
        let tilts = match &reading.tilt {
            Some(tilt) => tilt.mean.to_vec2::<f32>()?,
            None => vec![vec![0.0; 2]; means.len()],
        };
        let frame = |row: usize| {
            let (mean, log_variance) = (&means[row], &log_variances[row]);
            let (shares, tilt) = (&shares[row], &tilts[row]);
            let said = [("position", mean), ("variance", log_variance), ("yaw", shares), ("pitch and roll", tilt)];
            for (what, values) in said {
                if let Some(&got) = values.iter().find(|value| !value.is_finite()) {
                    return Err(NotFinite { what, frame: 1 + row % ASKED, got });
                }
            }
            let PoseHeadConfig { unit, tilt_unit_deg, .. } = self.config;
            let along = |values: &[f32], of: fn(f64) -> f64| {
                let axis = |i: usize| values.get(i).map_or(0.0, |v| of(f64::from(*v)) * unit);
                Vector3::new(axis(0), axis(2), axis(1))
            };
            let shares: Vec<f64> = shares.iter().map(|share| f64::from(*share)).collect();
            let tilt = |i: usize| f64::from(tilt[i]) * tilt_unit_deg.to_radians();
            let position = along(mean, |x| x);
            let pose = FramePose { position, yaw: self.bins.angle(&shares), pitch: tilt(0), roll: tilt(1) };
            Ok(FrameEstimate { pose, stddev: along(log_variance, |log| (0.5 * log).exp()) })
        };
        Ok((0..means.len()).map(frame).collect())
    }

    /// Reads a prompt with its images and the tokens behind it, once; nothing is kept of it.
    ///
    /// # Errors
    /// A prompt longer than the model's context, a model of another width.
    pub(crate) fn ask(
        &self,
        model: &Qwen3Vl,
        prompt: &Prompt,
        embedded: &Embedded,
    ) -> Result<Result<WindowPoses, NotFinite>> {
        let positions: Vec<Position> = prompt.positions.iter().copied().chain(places(prompt.next)).collect();
        let limit = model.config().text_config.max_position_embeddings;
        if positions.len() > limit {
            return Err(Error::Input {
                what: "sequence",
                expected: format!("at most {limit} tokens"),
                got: positions.len().to_string(),
            });
        }
        let tokens = self.tokens()?.unsqueeze(0)?.to_dtype(embedded.embeddings.dtype())?;
        let nothing = tokens.zeros_like()?;
        let deepstack = embedded.deepstack.iter().map(|features| Tensor::cat(&[features, &nothing], 1));
        let asked = Embedded {
            embeddings: Tensor::cat(&[&embedded.embeddings, &tokens], 1)?,
            deepstack: deepstack.collect::<candle_core::Result<_>>()?,
        };
        let hidden = model.decode(&asked, &positions, None)?; // [1, t, d]
        let hidden = hidden.narrow(1, prompt.ids.len(), TOKENS)?.squeeze(0)?.to_dtype(DType::F32)?;
        let frames: Result<Vec<FrameEstimate>, NotFinite> = self.decode(&self.read(&hidden)?)?.into_iter().collect();
        Ok(frames.map(|frames| WindowPoses { frames: std::array::from_fn(|i| frames[i]) }))
    }
}

/// Places of the tokens behind a prompt whose answer would begin at `next`.
pub fn places(next: u32) -> impl Iterator<Item = Position> {
    (next..).take(TOKENS).map(|place| [place; 3])
}

impl WindowPoses {
    /// The poses with the anchor's, which is the identity.
    pub fn trajectory(&self) -> WindowTrajectory {
        let mut window = WindowTrajectory::identity();
        for (anchor_from_camera, frame) in window.later_mut().iter_mut().zip(&self.frames) {
            *anchor_from_camera = frame.pose.anchor_from_camera();
        }
        window
    }
}

impl fmt::Display for WindowPoses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Poses of the pose head in the frame of camera 0; no reasoning was written.")?;
        for (i, FrameEstimate { pose, stddev }) in self.frames.iter().enumerate() {
            let [x, y, z]: [f64; 3] = pose.position.into();
            let [sx, sy, sz]: [f64; 3] = (*stddev).into();
            let [yaw, pitch, roll] = [pose.yaw, pose.pitch, pose.roll].map(f64::to_degrees);
            write!(f, "\nFrame {}: x {x:.3} y {y:.3} z {z:.3}, sigma {sx:.3} {sy:.3} {sz:.3}; ", i + 1)?;
            write!(f, "yaw {yaw:.2} pitch {pitch:.2} roll {roll:.2} deg")?;
        }
        Ok(())
    }
}
