//! One text per source of windows, one sample per index.

use super::error::Error;
use super::sequence::Sequence;
use crate::synth::{SynthConfig, window_with};
use geometry::{Intrinsics, WINDOW, WindowTrajectory};
use image::RgbImage;
use std::path::{Path, PathBuf};

/// Size that synthetic windows are rendered at where the source does not say: a camera's own, so that the whole of the
/// image processor is used.
pub const SYNTH_SIZE: (u32, u32) = (320, 240);

/// Five frames and what is known of them.
#[derive(Debug, Clone)]
pub struct WindowSample {
    /// Unique in the source, and stable: `synth-SEED-INDEX` or `NAME-sSTRIDE-FIRST`.
    pub id: String,
    /// The frames, as stored or rendered.
    pub images: [RgbImage; WINDOW],
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
    },
    /// Windows of recorded sequences, sequence after sequence.
    Recorded {
        /// The sequences, by folder name.
        sequences: Vec<Sequence>,
        /// Frames from one frame of a window to the next.
        stride: usize,
        /// Sequence number and frames of each window.
        windows: Vec<(usize, [usize; WINDOW])>,
    },
}

/// Reads the text of a source:
/// * `synth:seed=9001,windows=500[,size=320x240]`
/// * `PATH[,stride=1][,every=1]`: a folder with a `sequence.json`, or a folder of such folders; windows start at every
///   `every`-th frame.
///
/// # Errors
/// [`Error::Spec`], and those of [`Sequence::open`].
pub fn parse_source(spec: &str) -> Result<WindowSource, Error> {
    let wrong = |expected, got: &str| Error::Spec { spec: spec.to_owned(), expected, got: got.to_owned() };
    let mut parts = spec.split(',').map(str::trim);
    let first = parts.next().unwrap_or_default();
    if let Some(synth) = first.strip_prefix("synth:") {
        let (mut seed, mut windows, mut size) = (None, None, SYNTH_SIZE);
        for part in std::iter::once(synth).chain(parts) {
            match part.split_once('=') {
                Some(("seed", value)) => {
                    let number = value.parse();
                    seed = Some(number.map_err(|_| wrong("a whole number for seed", value))?);
                }
                Some(("windows", value)) => {
                    let number = value.parse();
                    windows = Some(number.map_err(|_| wrong("a whole number for windows", value))?);
                }
                Some(("size", value)) => {
                    let sides = value.split_once('x').and_then(|(w, h)| Some((w.parse().ok()?, h.parse().ok()?)));
                    let good = |&(w, h): &(u32, u32)| (8..=4096).contains(&w) && (8..=4096).contains(&h);
                    size = sides.filter(good).ok_or_else(|| wrong("WIDTHxHEIGHT, each 8 to 4096", value))?;
                }
                _ => return Err(wrong("seed=N, windows=N or size=WxH", part)),
            }
        }
        let seed = seed.ok_or_else(|| wrong("seed=N", synth))?;
        let windows = windows.filter(|&n| n > 0).ok_or_else(|| wrong("windows=N with N above 0", synth))?;
        return Ok(WindowSource::Synth { seed, windows, size, config: SynthConfig::default() });
    }
    let (mut stride, mut every) = (1, 1);
    for part in parts {
        let (key, value) = part.split_once('=').ok_or_else(|| wrong("stride=N or every=N", part))?;
        let target = match key {
            "stride" => &mut stride,
            "every" => &mut every,
            _ => return Err(wrong("stride=N or every=N", part)),
        };
        *target = value.parse().ok().filter(|&n| n > 0).ok_or_else(|| wrong("a whole number above 0", part))?;
    }
    WindowSource::recorded(Path::new(first), stride, every)
}

impl WindowSource {
    /// Windows of the sequence in `directory`, or of every sequence in its folders.
    ///
    /// # Errors
    /// Those of [`Sequence::open`]; [`Error::Field`] where there is not one window.
    pub fn recorded(directory: &Path, stride: usize, every: usize) -> Result<Self, Error> {
        let mut sequences = Vec::new();
        if directory.join("sequence.json").is_file() {
            sequences.push(Sequence::open(directory)?);
        } else {
            for folder in folders(directory)? {
                if folder.join("sequence.json").is_file() {
                    sequences.push(Sequence::open(folder)?);
                }
            }
            if sequences.is_empty() {
                // Says that sequence.json is missing.
                sequences.push(Sequence::open(directory)?);
            }
        }
        let mut windows = Vec::new();
        for (number, sequence) in sequences.iter().enumerate() {
            windows.extend(sequence.windows(stride).step_by(every.max(1)).map(|frames| (number, frames)));
        }
        if windows.is_empty() {
            let frames = sequences.iter().map(Sequence::frames).max().unwrap_or(0);
            return Err(Error::Field {
                path: directory.to_path_buf(),
                field: "num_frames",
                expected: format!("{} or more for windows of stride {stride}", (WINDOW - 1) * stride + 1),
                got: frames.to_string(),
            });
        }
        Ok(Self::Recorded { sequences, stride, windows })
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

    /// Window `index`, rendered or read from disk.
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
            Self::Synth { seed, size, config, .. } => {
                let window = window_with(config, *seed, index, *size);
                Ok(WindowSample {
                    id: format!("synth-{seed}-{index}"),
                    images: window.images,
                    intrinsics: window.intrinsics,
                    ground_truth: WindowTrajectory::from_world(&window.world_from_camera),
                    metric: true,
                    median_depth: Some(window.median_depth),
                    depth: Some(window.depth),
                    frame_indices: std::array::from_fn(|i| i),
                })
            }
            Self::Recorded { sequences, stride, windows } => {
                let (number, frames) = windows[index as usize];
                read(&sequences[number], *stride, frames)
            }
        }
    }
}

fn folders(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = |source| Error::Io { path: directory.to_path_buf(), source };
    let mut folders = std::fs::read_dir(directory)
        .map_err(failed)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(failed)?;
    folders.sort();
    Ok(folders)
}

fn read(sequence: &Sequence, stride: usize, frames: [usize; WINDOW]) -> Result<WindowSample, Error> {
    let mut images = std::array::from_fn(|_| RgbImage::default());
    let mut depth: [Vec<f32>; WINDOW] = Default::default();
    let mut world_from_camera = [geometry::Transform::identity(); WINDOW];
    let mut complete = true;
    for (place, &frame) in frames.iter().enumerate() {
        images[place] = sequence.load_image(frame)?;
        world_from_camera[place] = sequence.world_from_camera(frame)?;
        match sequence.load_depth(frame)? {
            Some(values) => depth[place] = values,
            None => complete = false,
        }
    }
    let mut known: Vec<f32> = depth[0].iter().copied().filter(|&d| d > 0.0).collect();
    let middle = known.len() / 2;
    let median_depth = (!known.is_empty()).then(|| f64::from(*known.select_nth_unstable_by(middle, f32::total_cmp).1));
    Ok(WindowSample {
        id: format!("{}-s{stride}-{}", sequence.name(), frames[0]),
        images,
        intrinsics: *sequence.intrinsics(),
        ground_truth: WindowTrajectory::from_world(&world_from_camera),
        metric: sequence.metric(),
        median_depth,
        depth: complete.then_some(depth),
        frame_indices: frames,
    })
}
