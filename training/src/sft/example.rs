//! One training example: a window, its prompt, its response and what supervises it beside the text.

use anyhow::Result;
use candle_core::{Device, Tensor};
use geometry::{Intrinsics, WINDOW, WindowTrajectory};
use image::RgbImage;
use model::answer::chain;
use model::answer::prompt::{self, Mode};
use model::qwen3_vl::processor::Grid;
use model::qwen3_vl::processor::Patches;
use model::tokenizer::Tokenizer;
use model::{Config, Processor};
use nalgebra::Point2;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::batch::Sequence;
use crate::student::Student;
use training_data::chains::{self, DepthMap};
use training_data::synth::{self, SynthConfig, SynthWindow};
use training_data::vocabulary::is_tail;

/// Displacements that a vision token is asked for: of its four patch centres since the frame before.
pub const FLOW_TARGETS: usize = 2 * 4;

/// A window ready for the trainer.
#[derive(Debug, Clone)]
pub struct Example {
    /// Which window, for people.
    pub id: String,
    /// Prompt and response.
    pub sequence: Sequence,
    /// Camera of the grid that the model sees.
    pub intrinsics: Intrinsics,
    /// True poses.
    pub ground_truth: WindowTrajectory,
    /// `[5 * tokens, FLOW_TARGETS]` in patch sides; NaN where unknown, empty where nothing is known.
    pub flow: Vec<f32>,
    /// Tokens behind which the numbers of pose 1..4 begin, and those poses: rotation vector (radians), translation.
    pub poses: Vec<(usize, [f32; 6])>,
}

impl Example {
    /// Leaves the prompt alone.
    pub fn drop_response(&mut self) {
        self.sequence.ids.truncate(self.sequence.response);
        self.sequence.positions.truncate(self.sequence.response);
        self.poses.clear();
    }

    /// The frames, as the model takes them.
    ///
    /// # Errors
    /// A tensor operation's.
    pub fn frames(&self) -> Result<Vec<Patches>> {
        let mut frames = Vec::with_capacity(WINDOW);
        for (patches, grid) in &self.sequence.images {
            for i in 0..patches.dim(0)? {
                frames.push(Patches { values: patches.get(i)?, grid: *grid, intrinsics: self.intrinsics });
            }
        }
        Ok(frames)
    }
}

/// A window before it becomes tokens.
pub struct Source<'a> {
    /// Which.
    pub id: String,
    /// The frames.
    pub images: &'a [RgbImage; WINDOW],
    /// Their camera.
    pub intrinsics: Intrinsics,
    /// True poses.
    pub ground_truth: WindowTrajectory,
    /// What to answer.
    pub response: String,
}

/// Builds examples for one model.
#[derive(Debug, Clone, Copy)]
pub struct Builder<'a> {
    /// Tokenizer of the model.
    pub tokenizer: &'a Tokenizer,
    /// Processor of the model.
    pub processor: &'a Processor,
    /// Config of the model.
    pub config: &'a Config,
}

impl<'a> Builder<'a> {
    /// For a model under training.
    pub fn of(student: &'a Student) -> Self {
        Self { tokenizer: &student.tokenizer, processor: &student.processor, config: student.model.config() }
    }

    /// Example `index` of the synthetic stream `seed`, or nothing where no chain can be written for it.
    ///
    /// # Errors
    /// Of the tokenizer or the processor.
    pub fn synthetic(&self, synth: &SynthConfig, seed: u64, index: u64, mode: Mode) -> Result<Option<Example>> {
        // Drawn at the size that the processor makes of a 4:3 camera, so that nothing is resized.
        let size = self.processor.target_size(640, 480)?;
        let window = synth::window_with(synth, seed, index, size);
        let ground_truth = WindowTrajectory::from_world(&window.world_from_camera);
        let response = match mode {
            Mode::AnswerOnly => chain::write_poses(&ground_truth),
            Mode::FullChain => {
                let depth = DepthMap::window(&window.depth, size.0, true);
                let mut rng = ChaCha8Rng::seed_from_u64(seed ^ index.rotate_left(32));
                match chains::chain(&ground_truth, &window.intrinsics, &depth, &mut rng) {
                    Ok(chain) => chain::write(&chain),
                    Err(_) => return Ok(None),
                }
            }
        };
        let (images, intrinsics) = (&window.images, window.intrinsics);
        let id = format!("synth-{seed}-{index}");
        let mut example = self.example(Source { id, images, intrinsics, ground_truth, response }, mode)?;
        let grid = example.sequence.images[0].1;
        example.flow = flow(&window, grid, self.config.vision_config.spatial_merge_size, self.processor.patch_size);
        Ok(Some(example))
    }

    /// A window with its response behind the prompt of `mode`.
    ///
    /// # Errors
    /// Of the tokenizer or the processor.
    pub fn example(&self, source: Source<'_>, mode: Mode) -> Result<Example> {
        let patches = (source.images.iter())
            .map(|image| self.processor.patches(image, &source.intrinsics, &Device::Cpu))
            .collect::<model::Result<Vec<_>>>()?;
        let (grid, intrinsics) = (patches[0].grid, patches[0].intrinsics);
        let merge = self.config.vision_config.spatial_merge_size;
        let image = self.config.image_token_id;
        let prompt = prompt::window(self.tokenizer, image, merge, mode, &intrinsics, &[grid; WINDOW])?;
        let (mut ids, mut positions) = (prompt.ids, prompt.positions);
        let start = ids.len();
        let poses = self.pose_places(&source.response, &source.ground_truth, start)?;
        ids.extend(self.tokenizer.encode(&source.response)?.into_iter().map(|id| self.middle(id)));
        ids.push(self.tokenizer.end);
        positions.extend((0..(ids.len() - start) as u32).map(|i| [prompt.next + i; 3]));
        let images = Tensor::stack(&patches.iter().map(|p| &p.values).collect::<Vec<_>>(), 0)?;
        Ok(Example {
            id: source.id,
            sequence: Sequence { images: vec![(images, grid)], ids, positions, response: start },
            intrinsics,
            ground_truth: source.ground_truth,
            flow: Vec::new(),
            poses,
        })
    }

    /// A tail that is not zero becomes the middle of what its number's first token stands for: the digits behind the
    /// third decimal are noise to a model of this size, and a thousand tails of equal likelihood lose to any other token.
    fn middle(&self, id: u32) -> u32 {
        let known = |token: &String| is_tail(token) && token != "000";
        match (self.tokenizer.token(id).filter(known), self.tokenizer.id("500")) {
            (Some(_), Some(middle)) => middle,
            _ => id,
        }
    }

    /// Where the lines of the final block say which pose they are.
    fn pose_places(
        &self,
        response: &str,
        trajectory: &WindowTrajectory,
        start: usize,
    ) -> Result<Vec<(usize, [f32; 6])>> {
        let mut places = Vec::with_capacity(WINDOW - 1);
        let block = response.rfind("<poses>").unwrap_or(0);
        for (i, pose) in trajectory.anchor_from_camera().iter().enumerate().skip(1) {
            let Some(at) = response[block..].find(&format!("\n{i} R")) else { continue };
            // Lines begin at a token, so a prefix has the tokens that it has in the whole.
            let tokens = self.tokenizer.encode(&response[..block + at + format!("\n{i} R").len()])?.len();
            let (r, t) = (pose.rotation().scaled_axis(), pose.translation());
            places.push((start + tokens - 1, [r.x, r.y, r.z, t.x, t.y, t.z].map(|v| v as f32)));
        }
        Ok(places)
    }
}

/// Where the surface at each patch centre was in the frame before: displacement in patch sides.
/// Occluded places are not told apart; they are few.
fn flow(window: &SynthWindow, grid: Grid, merge: usize, patch: usize) -> Vec<f32> {
    let k = &window.intrinsics;
    let mut targets = Vec::new();
    for frame in 0..WINDOW {
        for (row, column) in grid.positions(merge) {
            let centre = |cell: usize| (cell * patch) as f64 + (patch as f64 - 1.0) / 2.0;
            let pixel = Point2::new(centre(column), centre(row));
            let moved = if frame == 0 { None } else { displacement(window, k, frame, frame - 1, &pixel) };
            let moved = moved.map(|d| d / patch as f64);
            targets.extend(moved.map_or([f32::NAN; 2], |d| [d.x as f32, d.y as f32]));
        }
    }
    targets
}

fn displacement(
    window: &SynthWindow,
    k: &Intrinsics,
    frame: usize,
    other: usize,
    pixel: &Point2<f64>,
) -> Option<nalgebra::Vector2<f64>> {
    let index = pixel.y.round() as usize * k.width as usize + pixel.x.round() as usize;
    let depth = f64::from(*window.depth[frame].get(index)?);
    if !depth.is_finite() || depth <= 0.0 {
        return None;
    }
    let point = window.world_from_camera[frame].transform_point(&k.back_project(pixel, depth));
    let seen = k.project(&window.world_from_camera[other].inverse().transform_point(&point))?;
    let moved = pixel - seen;
    (moved.norm() < f64::from(k.width)).then_some(moved)
}
