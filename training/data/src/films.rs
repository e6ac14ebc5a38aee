//! A list of films, for judging an odometry over more than one window: frames are read or rendered one by one.

use super::error::Error;
use super::formats::{Opened, Skipped};
use super::sequence::Sequence;
use super::source::{SYNTH_STEP_NANOS, WindowSample, median_depth, synth_name, synth_source, truth_of};
use super::spec::{SynthSpec, recorded_films, synth_keys};
use super::windows::Spacing;
use crate::synth::{Stratum, SynthConfig, SynthFilm};
use geometry::{Camera, Intrinsics, Stamp, Transform, WINDOW, WindowTrajectory, World};
use image::RgbImage;
use nalgebra::Vector3;
use std::path::PathBuf;

/// A list of films, without their pictures.
#[derive(Debug, Clone)]
pub enum FilmSource {
    /// Films `0..films` of the stream `seed` of the generator.
    Synth {
        /// Which stream.
        seed: u64,
        /// How many films.
        films: u64,
        /// Frames of each.
        frames: usize,
        /// Width and height in pixels.
        size: (u32, u32),
        /// What is drawn from.
        config: SynthConfig,
        /// The kind of difficulty; none for the default generator.
        stratum: Option<Stratum>,
    },
    /// Whole recordings.
    Recorded {
        /// In the order of their folders or files; at least one.
        sequences: Vec<Sequence>,
        /// What was left out of the recordings.
        skipped: Vec<Skipped>,
    },
}

impl FilmSource {
    /// Reads the text of a source:
    /// * `synth:seed=1,films=4,frames=200[,size=320x240][,stratum=NAME]`: films of the generator, whose frames are a
    ///   quarter of a window's motion apart.
    /// * `PATH` or `re10k:POSES,..`: every recording that [`super::parse_source`] takes windows of, with the keys that
    ///   open it (`pose_frame`, `part`, and those of RealEstate10K).
    ///
    /// # Errors
    /// [`Error::Spec`], and those of opening.
    pub fn parse(spec: &str) -> Result<Self, Error> {
        let Some(keys) = synth_keys(spec) else {
            let Opened { sequences, skipped } = recorded_films(spec)?;
            return Ok(Self::Recorded { sequences, skipped });
        };
        let wrong = |expected| Error::Spec { spec: spec.to_owned(), expected, got: spec.to_owned() };
        let expected = "seed=N, films=N, frames=N, size=WxH or stratum=NAME (windows=N is for windows)";
        let SynthSpec { seed, size, stratum, counts: [films, frames] } =
            SynthSpec::parse(spec, keys, ["films", "frames"], expected)?;
        let films = films.ok_or_else(|| wrong("films=N with N above 0"))?;
        let frames = frames.ok_or_else(|| wrong("frames=N with N above 0"))?;
        let frames = usize::try_from(frames).map_err(|_| wrong("frames=N with N of memory's size"))?;
        Ok(Self::Synth { seed, films, frames, size, config: SynthConfig::default(), stratum })
    }

    /// How many films there are.
    pub fn len(&self) -> u64 {
        match self {
            Self::Synth { films, .. } => *films,
            Self::Recorded { sequences, .. } => sequences.len() as u64,
        }
    }

    /// Whether there is no film; a parsed source has at least one.
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

    /// As [`super::WindowSource::truth`].
    pub fn truth(&self) -> Vec<String> {
        match self {
            Self::Synth { .. } => Vec::new(),
            Self::Recorded { sequences, .. } => truth_of(sequences.iter()),
        }
    }

    /// The kind of difficulty that the generator was asked for.
    pub fn stratum(&self) -> Option<Stratum> {
        match self {
            Self::Synth { stratum, .. } => *stratum,
            Self::Recorded { .. } => None,
        }
    }

    /// Film `index`. One of the generator has its scene and path drawn here, and its first frame rendered.
    ///
    /// # Errors
    /// [`Error::Index`].
    pub fn film(&self, index: u64) -> Result<Film<'_>, Error> {
        if index >= self.len() {
            let path = match self {
                Self::Synth { seed, .. } => PathBuf::from(format!("synth:seed={seed}")),
                Self::Recorded { sequences, .. } => {
                    sequences.first().map(|s| s.directory().to_path_buf()).unwrap_or_default()
                }
            };
            return Err(Error::Index { path, expected: self.len(), got: index });
        }
        Ok(match self {
            Self::Synth { seed, frames, size, config, stratum, .. } => Film {
                source: synth_source(*seed),
                name: format!("{}-{index}", synth_name(*seed, *stratum)),
                pictures: Pictures::Rendered(Box::new(SynthFilm::new(config, *stratum, *seed, index, *frames, *size))),
            },
            Self::Recorded { sequences, .. } => {
                let sequence = &sequences[index as usize];
                Film {
                    source: sequence.source().to_owned(),
                    name: sequence.name().to_owned(),
                    pictures: Pictures::Recorded(sequence),
                }
            }
        })
    }
}

/// A frame of a film.
#[derive(Debug, Clone)]
pub struct FilmFrame {
    /// As stored or rendered.
    pub image: RgbImage,
    /// Z-depth per pixel, row-major, 0 where there is no value; where the film has any.
    pub depth: Option<Vec<f32>>,
}

/// A film: times, poses and camera, and its frames one by one.
pub struct Film<'a> {
    /// As [`WindowSample::source`].
    source: String,
    name: String,
    pictures: Pictures<'a>,
}

enum Pictures<'a> {
    Recorded(&'a Sequence),
    Rendered(Box<SynthFilm>),
}

impl Film<'_> {
    /// Unique in the source, and stable: `synth-SEED-INDEX`, `synth-STRATUM-SEED-INDEX`, or that of the recording.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many frames there are.
    pub fn frames(&self) -> usize {
        match &self.pictures {
            Pictures::Recorded(sequence) => sequence.frames(),
            Pictures::Rendered(film) => film.frames(),
        }
    }

    /// Camera of its images, pixels.
    pub fn intrinsics(&self) -> &Intrinsics {
        match &self.pictures {
            Pictures::Recorded(sequence) => sequence.intrinsics(),
            Pictures::Rendered(film) => film.intrinsics(),
        }
    }

    /// Whether scene units are metres.
    pub fn metric(&self) -> bool {
        match &self.pictures {
            Pictures::Recorded(sequence) => sequence.metric(),
            Pictures::Rendered(_) => true,
        }
    }

    /// Time of every frame; 10 Hz from 0 where it is rendered or the recording has none.
    pub fn stamps(&self) -> Vec<Stamp> {
        match &self.pictures {
            Pictures::Recorded(sequence) => sequence.stamps(),
            Pictures::Rendered(film) => {
                (0..film.frames() as i64).map(|i| Stamp::from_nanos(i * SYNTH_STEP_NANOS)).collect()
            }
        }
    }

    /// True pose of every frame, scene units.
    pub fn world_from_camera(&self) -> Vec<Transform<World, Camera>> {
        match &self.pictures {
            Pictures::Recorded(sequence) => sequence.frames.iter().map(|frame| frame.world_from_camera).collect(),
            Pictures::Rendered(film) => film.world_from_camera(),
        }
    }

    /// Whether frames are missing between the one before and frame `index`.
    pub fn gap_before(&self, index: usize) -> bool {
        match &self.pictures {
            Pictures::Recorded(sequence) => sequence.frames.get(index).is_some_and(|frame| frame.gap_before),
            Pictures::Rendered(_) => false,
        }
    }

    /// Frame numbers of every window whose frames are `stride` apart, by their first; none goes across a gap.
    pub fn windows(&self, stride: usize) -> Vec<[usize; WINDOW]> {
        match &self.pictures {
            Pictures::Recorded(sequence) => sequence.windows(stride).collect(),
            Pictures::Rendered(film) if stride > 0 => {
                let firsts = 0..film.frames().saturating_sub((WINDOW - 1) * stride);
                firsts.map(|first| std::array::from_fn(|i| first + i * stride)).collect()
            }
            Pictures::Rendered(_) => Vec::new(),
        }
    }

    /// One of [`Self::windows`] with its frames: of a recording the sample that [`super::parse_source`] gives, with its
    /// name.
    pub fn window(&self, stride: usize, indices: [usize; WINDOW], frames: [&FilmFrame; WINDOW]) -> WindowSample {
        let (stamps, poses) = (self.stamps(), self.world_from_camera());
        let world_from_camera = indices.map(|index| poses[index]);
        let files = match &self.pictures {
            Pictures::Recorded(sequence) => {
                let file = |index: &usize| Some(sequence.frames[*index].image.file()?.to_path_buf());
                indices.iter().map(file).collect::<Option<Vec<_>>>().and_then(|files| files.try_into().ok())
            }
            Pictures::Rendered(_) => None,
        };
        let depth: Option<Vec<Vec<f32>>> = frames.iter().map(|frame| frame.depth.clone()).collect();
        WindowSample {
            id: format!("{}-{}-{}", self.name, Spacing::Stride(stride).tag(), indices[0]),
            source: self.source.clone(),
            images: frames.map(|frame| frame.image.clone()),
            frames: files,
            stamps: indices.map(|index| stamps[index]),
            intrinsics: *self.intrinsics(),
            ground_truth: WindowTrajectory::from_world(&world_from_camera),
            metric: self.metric(),
            median_depth: frames[0].depth.as_deref().and_then(median_depth),
            depth: depth.and_then(|depth| depth.try_into().ok()),
            frame_indices: indices,
            // The generator's world has z up.
            up_in_anchor: matches!(self.pictures, Pictures::Rendered(_))
                .then(|| world_from_camera[0].inverse().rotation_matrix() * Vector3::z()),
        }
    }

    /// Frame `index`, read or rendered; the same whenever it is asked for.
    ///
    /// # Errors
    /// Those of [`Self::image`] and of [`Sequence::load_depth`].
    pub fn frame(&self, index: usize) -> Result<FilmFrame, Error> {
        match &self.pictures {
            Pictures::Rendered(film) if index < film.frames() => {
                let frame = film.frame(index);
                Ok(FilmFrame { image: frame.image, depth: Some(frame.depth) })
            }
            Pictures::Rendered(_) => Ok(FilmFrame { image: self.image(index)?, depth: None }),
            Pictures::Recorded(sequence) => {
                Ok(FilmFrame { image: sequence.load_image(index)?, depth: sequence.load_depth(index)? })
            }
        }
    }

    /// The image of frame `index`, read or rendered; the same whenever it is asked for.
    ///
    /// # Errors
    /// Those of [`Sequence::load_image`]; of a rendered film [`Error::Index`] alone.
    pub fn image(&self, index: usize) -> Result<RgbImage, Error> {
        match &self.pictures {
            Pictures::Recorded(sequence) => sequence.load_image(index),
            Pictures::Rendered(film) if index < film.frames() => Ok(film.frame(index).image),
            Pictures::Rendered(film) => {
                Err(Error::Index { path: PathBuf::from(&self.name), expected: film.frames() as u64, got: index as u64 })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::sequence::tests::written;
    use super::*;
    use crate::synth::sequence;

    #[test]
    fn a_synthetic_film_is_rendered_frame_by_frame() {
        let source = FilmSource::parse("synth:seed=18,films=3,frames=7,size=64x48").unwrap();
        assert_eq!((source.len(), source.skipped().len()), (3, 0));
        let film = source.film(2).unwrap();
        let whole = sequence(18, 2, 7, (64, 48));
        assert_eq!((film.name(), film.frames(), film.metric()), ("synth-18-2", 7, true));
        assert_eq!((film.intrinsics(), film.world_from_camera()), (&whole.intrinsics, whole.world_from_camera));
        assert_eq!(film.stamps()[6].nanos, 600_000_000);
        for index in [6, 0, 3] {
            assert_eq!(film.image(index).unwrap(), whole.images[index]);
        }
        assert!(matches!(film.image(7), Err(Error::Index { expected: 7, got: 7, .. })));
        assert!(matches!(source.film(3), Err(Error::Index { expected: 3, got: 3, .. })));
        let blurred = FilmSource::parse("synth:seed=18,films=3,frames=7,size=64x48,stratum=blur").unwrap();
        assert_eq!(blurred.film(2).unwrap().name(), "synth-blur-18-2");
    }

    #[test]
    fn a_recording_is_one_film() {
        let directory = tempfile::tempdir().unwrap();
        let whole = written(directory.path(), |_| {});
        let source = FilmSource::parse(directory.path().to_str().unwrap()).unwrap();
        let film = source.film(0).unwrap();
        assert_eq!((source.len(), film.frames()), (1, whole.images.len()));
        assert_eq!(film.image(2).unwrap(), whole.images[2]);
        for (a, b) in film.world_from_camera().iter().zip(&whole.world_from_camera) {
            assert!((a.translation() - b.translation()).norm() < 1e-9);
        }
        assert!(!film.gap_before(1) && matches!(film.image(99), Err(Error::Index { .. })));
    }

    #[test]
    fn a_window_of_a_recorded_film_is_the_sample_of_that_name() {
        let directory = tempfile::tempdir().unwrap();
        written(directory.path(), |_| {});
        let text = directory.path().to_str().unwrap();
        let films = FilmSource::parse(text).unwrap();
        let film = films.film(0).unwrap();
        let samples = super::super::parse_source(text).unwrap();
        let windows = film.windows(1);
        assert_eq!(windows.len() as u64, samples.len());
        for (k, indices) in windows.into_iter().enumerate() {
            let frames = indices.map(|index| film.frame(index).unwrap());
            let (got, expected) = (film.window(1, indices, frames.each_ref()), samples.sample(k as u64).unwrap());
            assert_eq!((&got.id, &got.source, got.stamps), (&expected.id, &expected.source, expected.stamps));
            assert_eq!((got.ground_truth, got.frame_indices), (expected.ground_truth, expected.frame_indices));
            assert_eq!((&got.images, &got.depth, &got.frames), (&expected.images, &expected.depth, &expected.frames));
            assert_eq!(got.median_depth, expected.median_depth);
        }
        let rendered = FilmSource::parse("synth:seed=18,films=1,frames=7,size=64x48").unwrap();
        assert_eq!(rendered.film(0).unwrap().windows(1), [[0, 1, 2, 3, 4], [1, 2, 3, 4, 5], [2, 3, 4, 5, 6]]);
        assert!(rendered.film(0).unwrap().windows(2).is_empty() && rendered.film(0).unwrap().windows(0).is_empty());
    }

    #[test]
    fn texts_of_films_say_what_is_wrong() {
        for (spec, part) in [
            ("synth:seed=1,films=2", "frames=N with N above 0"),
            ("synth:seed=1,frames=2", "films=N with N above 0"),
            ("synth:seed=1,films=0,frames=5", "films=N with N above 0"),
            ("synth:seed=1,films=2,frames=x", "a whole number of them, got \"frames=x\""),
            ("synth:films=2,frames=5", "seed=N"),
            ("synth:seed=1,windows=5", "windows=N is for windows"),
            ("synth:seed=1,films=2,frames=5,stratum=foggy", "still, fast, exposure or texture, got \"foggy\""),
            ("/nowhere,stride=2", "images=rectified, got \"stride=2\""),
            ("/nowhere/at/all", "/nowhere/at/all"),
            ("re10k:/nowhere", "frames=DIR, or videos=DIR"),
        ] {
            let text = FilmSource::parse(spec).map(|_| ()).unwrap_err().to_string();
            assert!(text.contains(part), "{spec}: {text}");
        }
    }
}
