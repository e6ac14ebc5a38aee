//! What SFT reads: shards of chains in an order that changes from epoch to epoch, or windows drawn as training goes.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use geometry::{Intrinsics, WINDOW, WindowTrajectory};
use image::RgbImage;
use model::answer::prompt::Mode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::config::DataConfig;
use super::example::{Builder, Example, Source};
use training_data::chains::shards::{Index, Sample};
use training_data::synth::SynthConfig;
use training_data::{Order, synth_source};

/// A stream of examples.
pub enum Data {
    /// Without end.
    Synthetic {
        /// What is drawn from.
        config: Box<SynthConfig>,
        /// Which stream.
        seed: u64,
    },
    /// Chains on disk.
    Shards {
        /// Where each is.
        index: Index,
        /// In which order.
        order: Order,
    },
}

/// `json` of a sample.
#[derive(Deserialize)]
struct About {
    id: String,
    intrinsics: Intrinsics,
    anchor_from_camera: [[f64; 16]; WINDOW],
}

impl Data {
    /// # Errors
    /// A folder without whole shards.
    pub fn open(config: &DataConfig, seed: u64) -> Result<Self> {
        match (&config.shards, &config.synth) {
            (Some(dir), _) => Self::shards(dir, seed),
            (None, synth) => Ok(Self::Synthetic { config: Box::new(synth.clone().unwrap_or_default()), seed }),
        }
    }

    /// # Errors
    /// A folder without whole shards.
    pub fn shards(dir: &Path, seed: u64) -> Result<Self> {
        let index = Index::open(dir)?;
        let order = Order::new(index.len() as u64, seed);
        Ok(Self::Shards { index, order })
    }

    /// Examples of an epoch.
    pub fn epoch(&self) -> Option<u64> {
        match self {
            Self::Synthetic { .. } => None,
            Self::Shards { order, .. } => Some(order.len()),
        }
    }

    /// Something that grows with the length of an example's response.
    pub fn length(&self, k: u64, mode: Mode) -> usize {
        match self {
            Self::Synthetic { .. } => 0,
            Self::Shards { index, order } => index.size(order.at(k) as usize, extension(mode)),
        }
    }

    /// What a manifest says of the input.
    pub fn describe(&self) -> Value {
        match self {
            Self::Synthetic { config, seed } => json!({"synth": config, "seed": seed}),
            Self::Shards { index, .. } => json!({"samples": index.len(), "sha256": index.sha256()}),
        }
    }

    /// The videos or scenes that it is of.
    pub fn sources(&self) -> Vec<String> {
        match self {
            Self::Synthetic { seed, .. } => vec![synth_source(*seed)],
            Self::Shards { index, .. } => index.sources().to_vec(),
        }
    }

    /// Example k, or nothing where no chain can be written for its window.
    ///
    /// # Errors
    /// A sample that can't be read or does not fit the model's grid.
    pub fn example(&self, builder: &Builder<'_>, k: u64, mode: Mode) -> Result<Option<Example>> {
        match self {
            Self::Synthetic { config, seed } => builder.synthetic(config, *seed, k, mode),
            Self::Shards { index, order } => {
                let sample = index.read(order.at(k) as usize)?;
                let key = sample.key.clone();
                read(builder, &sample, mode).map(Some).with_context(|| format!("sample {key}"))
            }
        }
    }
}

fn extension(mode: Mode) -> &'static str {
    match mode {
        Mode::FullChain => "txt",
        Mode::AnswerOnly => "poses.txt",
    }
}

fn read(builder: &Builder<'_>, sample: &Sample, mode: Mode) -> Result<Example> {
    let file = |name: &str| {
        let there = || sample.files.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        sample.files.get(name).with_context(|| format!("{name} is missing; there are {}", there()))
    };
    let about: About = serde_json::from_slice(file("json")?).context("json")?;
    let mut images = Vec::with_capacity(WINDOW);
    for name in ["0.png", "1.png", "2.png", "3.png", "4.png"] {
        images.push(image::load_from_memory(file(name)?).with_context(|| name.to_owned())?.into_rgb8());
    }
    let images: [RgbImage; WINDOW] = images.try_into().unwrap_or_else(|_| unreachable!("as many as names"));
    // The chain's pixels are those of the grid that it was made on.
    let seen = builder.processor.target_size(about.intrinsics.width, about.intrinsics.height)?;
    let made = (about.intrinsics.width, about.intrinsics.height);
    ensure!(
        seen == made,
        "the chain is of {}x{} pixels, and the model would see {}x{}: make the chains with its pixel limits",
        made.0,
        made.1,
        seen.0,
        seen.1
    );
    let poses = about.anchor_from_camera.iter().map(geometry::Transform::from_matrix_row_major);
    let poses = poses.collect::<Result<Vec<_>, _>>().context("anchor_from_camera")?;
    let poses = poses.try_into().unwrap_or_else(|_| unreachable!("as many as there are frames"));
    let source = Source {
        id: about.id,
        images: &images,
        intrinsics: about.intrinsics,
        ground_truth: WindowTrajectory::new(poses).context("anchor_from_camera")?,
        response: String::from_utf8(file(extension(mode))?.clone()).context(extension(mode))?,
    };
    builder.example(source, mode)
}
