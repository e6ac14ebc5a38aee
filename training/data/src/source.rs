//! A list of windows, one sample per index.

use super::error::Error;
use super::formats::{Opened, Skipped, open_all};
use super::sequence::Sequence;
use super::windows::Spacing;
use crate::synth::{Stratum, SynthConfig, window_of};
use geometry::{Intrinsics, Stamp, WINDOW, WindowTrajectory};
use image::RgbImage;
use nalgebra::Vector3;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Size that synthetic windows are rendered at where the source does not say: a camera's own, so that the whole of the
/// image processor is used.
pub const SYNTH_SIZE: (u32, u32) = (320, 240);
/// Time between the frames of a synthetic window or film.
pub(super) const SYNTH_STEP_NANOS: i64 = 100_000_000;

/// Five frames and what is known of them.
#[derive(Debug, Clone)]
pub struct WindowSample {
    /// Unique in the source, and stable: `synth-SEED-INDEX`, `synth-STRATUM-SEED-INDEX` or `NAME-sSTRIDE-FIRST` (with `tMILLISsSTRIDE`,
    /// `mDEG` or `uUNITS` in place of `sSTRIDE` where time or motion spaces the frames).
    pub id: String,
    /// The video or scene that the frames are of, which a split must not cut: [`Sequence::source`], or `synth-SEED`.
    pub source: String,
    /// The frames, as stored or rendered.
    pub images: [RgbImage; WINDOW],
    /// The files of the frames; none where they are rendered, or messages in a recording.
    pub frames: Option<[PathBuf; WINDOW]>,
    /// Times of the frames; made up where the recording has none.
    pub stamps: [Stamp; WINDOW],
    /// Camera of these images.
    pub intrinsics: Intrinsics,
    /// True poses; metres if `metric`.
    pub ground_truth: WindowTrajectory,
    /// Whether scene units are metres.
    pub metric: bool,
    /// Median z-depth of frame 0 over the pixels that have one, scene units.
    pub median_depth: Option<f64>,
    /// Z-depth per pixel, row-major, 0 where there is no value; only where all five frames have it.
    pub depth: Option<[Vec<f32>; WINDOW]>,
    /// Frame numbers in the source.
    pub frame_indices: [usize; WINDOW],
    /// Against gravity, in the axes of frame 0, length 1; nothing where the source does not know it.
    pub up_in_anchor: Option<Vector3<f64>>,
}

/// A list of windows.
#[derive(Debug, Clone)]
pub enum WindowSource {
    /// Windows `0..windows` of the stream `seed` of the generator.
    Synth {
        /// Which stream.
        seed: u64,
        /// How many windows.
        windows: u64,
        /// Width and height in pixels.
        size: (u32, u32),
        /// What is drawn from.
        config: SynthConfig,
        /// The kind of difficulty; none for the default generator.
        stratum: Option<Stratum>,
    },
    /// Windows of recorded sequences, sequence after sequence.
    Recorded {
        /// The sequences, in the order of their folders or files.
        sequences: Vec<Sequence>,
        /// From one frame of a window to the next.
        spacing: Spacing,
        /// Sequence number and frames of each window.
        windows: Vec<(usize, [usize; WINDOW])>,
        /// What was left out of the recordings.
        skipped: Vec<Skipped>,
    },
}

impl WindowSource {
    /// Windows of the recording at `path`, or of every recording in its folder; they start at every `every`-th frame.
    ///
    /// # Errors
    /// Those of [`open_all`] and of [`Self::of`].
    pub fn recorded(path: &Path, spacing: Spacing, every: usize) -> Result<Self, Error> {
        Self::of(open_all(path)?, spacing, every, path)
    }

    /// Windows of what was opened; `path` is its name in the error.
    ///
    /// # Errors
    /// [`Error::Field`] where there is not one window.
    pub fn of(opened: Opened, spacing: Spacing, every: usize, path: &Path) -> Result<Self, Error> {
        let Opened { sequences, skipped } = opened;
        let of_one = |(number, sequence): (usize, &Sequence)| {
            sequence.spaced_windows(spacing, every).into_iter().map(move |frames| (number, frames))
        };
        let windows: Vec<_> = sequences.iter().enumerate().flat_map(of_one).collect();
        if windows.is_empty() {
            let frames = sequences.iter().map(Sequence::frames).max().unwrap_or(0);
            return Err(Error::Field {
                path: path.to_path_buf(),
                field: "num_frames",
                expected: spacing.needs(),
                got: format!("{frames} in the longest sequence"),
            });
        }
        Ok(Self::Recorded { sequences, spacing, windows, skipped })
    }

    /// How many windows there are.
    pub fn len(&self) -> u64 {
        match self {
            Self::Synth { windows, .. } => *windows,
            Self::Recorded { windows, .. } => windows.len() as u64,
        }
    }

    /// Whether there is no window; a parsed source has at least one.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What was left out when the source was opened.
    pub fn skipped(&self) -> &[Skipped] {
        match self {
            Self::Synth { .. } => &[],
            Self::Recorded { skipped, .. } => skipped,
        }
    }

    /// Whose word the poses of its windows are, where recordings leave a choice ([`Sequence::truth`]); sorted.
    pub fn truth(&self) -> Vec<String> {
        match self {
            Self::Synth { .. } => Vec::new(),
            Self::Recorded { sequences, windows, .. } => truth_of(
                windows.iter().map(|&(number, _)| number).collect::<BTreeSet<_>>().iter().map(|&n| &sequences[n]),
            ),
        }
    }

    /// Whether its windows say where up is ([`WindowSample::up_in_anchor`]): those of the generator do.
    pub fn knows_gravity(&self) -> bool {
        matches!(self, Self::Synth { .. })
    }

    /// The kind of difficulty that the generator was asked for.
    pub fn stratum(&self) -> Option<Stratum> {
        match self {
            Self::Synth { stratum, .. } => *stratum,
            Self::Recorded { .. } => None,
        }
    }

    /// The videos or scenes of its windows, sorted: what [`super::split()`] takes.
    pub fn sources(&self) -> Vec<String> {
        match self {
            Self::Synth { seed, .. } => vec![synth_source(*seed)],
            Self::Recorded { sequences, windows, .. } => {
                let sources: BTreeSet<&str> = windows.iter().map(|&(number, _)| sequences[number].source()).collect();
                sources.into_iter().map(str::to_owned).collect()
            }
        }
    }

    /// Its windows of some videos or scenes alone, in their order; perhaps none.
    pub fn only(mut self, sources: &[String]) -> Self {
        let wanted: BTreeSet<&str> = sources.iter().map(String::as_str).collect();
        match &mut self {
            Self::Synth { seed, windows, .. } => {
                if !wanted.contains(synth_source(*seed).as_str()) {
                    *windows = 0;
                }
            }
            Self::Recorded { sequences, windows, .. } => {
                windows.retain(|&(number, _)| wanted.contains(sequences[number].source()));
            }
        }
        self
    }

    /// Its windows of these ids alone, in their order; perhaps none.
    pub fn only_windows(mut self, ids: &BTreeSet<&str>) -> Self {
        match &mut self {
            // Windows of the generator are drawn by their number, and none is left out.
            Self::Synth { .. } => (),
            Self::Recorded { sequences, spacing, windows, .. } => {
                windows.retain(|(number, frames)| ids.contains(id(&sequences[*number], spacing, frames).as_str()));
            }
        }
        self
    }

    /// Window `index`, rendered or read from disk. An error is of this window alone: a caller may count it and go on.
    ///
    /// # Errors
    /// [`Error::Index`], and those of [`Sequence::load_image`] and [`Sequence::load_depth`].
    pub fn sample(&self, index: u64) -> Result<WindowSample, Error> {
        if index >= self.len() {
            let path = match self {
                Self::Synth { seed, .. } => PathBuf::from(format!("synth:seed={seed}")),
                Self::Recorded { sequences, .. } => {
                    sequences.first().map(|s| s.directory().to_path_buf()).unwrap_or_default()
                }
            };
            return Err(Error::Index { path, expected: self.len(), got: index });
        }
        match self {
            Self::Synth { seed, size, config, stratum, .. } => {
                let window = window_of(config, *stratum, *seed, index, *size);
                Ok(WindowSample {
                    id: format!("{}-{index}", synth_name(*seed, *stratum)),
                    source: synth_source(*seed),
                    images: window.images,
                    frames: None,
                    stamps: std::array::from_fn(|i| Stamp::from_nanos(i as i64 * SYNTH_STEP_NANOS)),
                    intrinsics: window.intrinsics,
                    ground_truth: WindowTrajectory::from_world(&window.world_from_camera),
                    metric: true,
                    median_depth: Some(window.median_depth),
                    depth: Some(window.depth),
                    frame_indices: std::array::from_fn(|i| i),
                    // The generator's world has z up.
                    up_in_anchor: Some(window.world_from_camera[0].inverse().rotation_matrix() * Vector3::z()),
                })
            }
            Self::Recorded { sequences, spacing, windows, .. } => {
                let (number, frames) = windows[index as usize];
                read(&sequences[number], spacing, frames)
            }
        }
    }
}

/// Whose word the poses of some sequences are; each once.
pub(super) fn truth_of<'a>(sequences: impl Iterator<Item = &'a Sequence>) -> Vec<String> {
    let named: BTreeSet<&str> = sequences.filter_map(Sequence::truth).collect();
    named.into_iter().map(str::to_owned).collect()
}

/// What windows and films of a stream are called, before their number.
pub(super) fn synth_name(seed: u64, stratum: Option<Stratum>) -> String {
    match stratum {
        Some(stratum) => format!("synth-{stratum}-{seed}"),
        None => synth_source(seed),
    }
}

/// The same for all strata of a stream: they show the same scenes.
pub fn synth_source(seed: u64) -> String {
    format!("synth-{seed}")
}

/// The median of the depths that there are.
pub(super) fn median_depth(depth: &[f32]) -> Option<f64> {
    let mut known: Vec<f32> = depth.iter().copied().filter(|&d| d > 0.0).collect();
    let middle = known.len() / 2;
    (!known.is_empty()).then(|| f64::from(*known.select_nth_unstable_by(middle, f32::total_cmp).1))
}

/// What a window of a recording is called.
pub(super) fn id(sequence: &Sequence, spacing: &Spacing, window: &[usize; WINDOW]) -> String {
    format!("{}-{}-{}", sequence.name(), spacing.tag(), window[0])
}

fn read(sequence: &Sequence, spacing: &Spacing, window: [usize; WINDOW]) -> Result<WindowSample, Error> {
    let mut images = std::array::from_fn(|_| RgbImage::default());
    let mut frames: [PathBuf; WINDOW] = Default::default();
    let mut stamps = [Stamp::default(); WINDOW];
    let mut depth: [Vec<f32>; WINDOW] = Default::default();
    let mut world_from_camera = [geometry::Transform::identity(); WINDOW];
    let (mut complete, mut files) = (true, true);
    for (place, &index) in window.iter().enumerate() {
        let frame = sequence.frame(index)?;
        images[place] = sequence.load_image(index)?;
        match frame.image.file() {
            Some(file) => frames[place] = file.to_path_buf(),
            None => files = false,
        }
        stamps[place] = frame.stamp;
        world_from_camera[place] = frame.world_from_camera;
        match sequence.load_depth(index)? {
            Some(values) => depth[place] = values,
            None => complete = false,
        }
    }
    let median_depth = median_depth(&depth[0]);
    Ok(WindowSample {
        id: id(sequence, spacing, &window),
        source: sequence.source().to_owned(),
        images,
        frames: files.then_some(frames),
        stamps,
        intrinsics: *sequence.intrinsics(),
        ground_truth: WindowTrajectory::from_world(&world_from_camera),
        metric: sequence.metric(),
        median_depth,
        depth: complete.then_some(depth),
        frame_indices: window,
        up_in_anchor: None,
    })
}
