//! Sets of frames with poses and depth, from any source of windows: a recording, or the generator.

use anyhow::{Result, ensure};
use geometry::{Camera, Intrinsics, Transform, WINDOW, World};
use image::RgbImage;
use image::imageops::{self, FilterType};
use rand::Rng;
use serde_json::{Value, json};

use super::config::DataConfig;
use crate::depth::DepthEstimator;
use training_data::chains::tracks::{self, FrameSets, View};
use training_data::depth::Given;
use training_data::synth;
use training_data::{WindowSource, parse_source};

/// Frames of a film and what is known of them.
#[derive(Debug, Clone)]
pub struct Views {
    /// Their numbers in the film, ascending.
    pub numbers: Vec<usize>,
    /// The frames.
    pub images: Vec<RgbImage>,
    /// Camera of the images.
    pub intrinsics: Intrinsics,
    /// True poses, scene units.
    pub world_from_camera: Vec<Transform<World, Camera>>,
    /// Z-depth of each frame, row-major, scene units; 0 where there is none.
    pub depth: Vec<Vec<f32>>,
    /// Camera of the depth maps: the same field of view, perhaps on another grid.
    pub depth_intrinsics: Intrinsics,
    /// Whether scene units are metres.
    pub metric: bool,
}

impl Views {
    /// Depth of all frames from the network, told the poses; without any, the set has no matches.
    fn fill(&mut self, estimate: &DepthEstimator) {
        let given = |pose: &Transform<World, Camera>| Given { world_from_camera: *pose, intrinsics: self.intrinsics };
        let given: Vec<Given> = self.world_from_camera.iter().map(given).collect();
        if let Some(maps) = estimate.maps(&self.images, &given) {
            (self.depth, self.depth_intrinsics) = (maps.depth, maps.intrinsics);
        }
    }

    /// Poses and depth, as matches are looked for.
    pub fn views(&self) -> Vec<View<'_>> {
        let maps = tracks::maps(&self.depth, self.depth_intrinsics.width, self.metric);
        let view = |(world_from_camera, depth)| View { world_from_camera, depth };
        self.world_from_camera.iter().zip(maps).map(view).collect()
    }
}

/// A film of a source; of a recording, with the frame around which a set is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Film {
    /// A film of the generator: as long as it is asked for.
    Synthetic(u64),
    /// A sequence and the number of a frame.
    Recorded {
        /// Of the source's sequences.
        sequence: usize,
        /// Of its frames.
        anchor: usize,
    },
}

/// Films to draw sets of frames from.
pub struct FrameSource {
    source: WindowSource,
    /// Of recordings: where a set can be drawn.
    anchors: Vec<Film>,
    sets: FrameSets,
    estimate: Option<DepthEstimator>,
    spec: String,
}

impl FrameSource {
    /// Films of the windows of `config.sets`: a set is drawn around the first frame of a window.
    ///
    /// # Errors
    /// A source that can't be read, that has no depth and no network to estimate it, or no sequence long enough.
    pub fn open(config: &DataConfig) -> Result<Self> {
        let spec = &config.sets;
        let source = parse_source(spec)?;
        let sets = FrameSets { fewest: config.fewest, most: config.most, reach: config.reach };
        let mut anchors = Vec::new();
        if let WindowSource::Recorded { sequences, windows, .. } = &source {
            let known = |(sequence, frames): &(usize, [usize; WINDOW])| {
                let depth = sequences[*sequence].frame(frames[0]).ok().and_then(|frame| frame.depth.as_ref());
                depth.is_some_and(|depth| depth.path.is_file())
            };
            ensure!(
                config.depth.is_some() || windows.iter().any(known),
                "{spec}: expected recordings with depth, or [data.depth] with the weights of a network"
            );
            for (sequence, frames) in windows {
                let (anchor, last) = (frames[0], sequences[*sequence].frames() - 1);
                if anchor.min(sets.reach) + (last - anchor).min(sets.reach) + 1 >= sets.fewest {
                    anchors.push(Film::Recorded { sequence: *sequence, anchor });
                }
            }
            ensure!(
                !anchors.is_empty(),
                "{spec}: expected a recording with {} frames within {} of another, got none",
                sets.fewest,
                sets.reach
            );
        }
        let estimate = config.depth.as_ref().map(DepthEstimator::open).transpose()?;
        Ok(Self { source, anchors, sets, estimate, spec: spec.clone() })
    }

    /// What a manifest says of it.
    pub fn describe(&self) -> Value {
        json!({"source": self.spec, "windows": self.source.len(), "anchors": self.anchors.len()})
    }

    /// The videos or scenes of its films.
    pub fn sources(&self) -> Vec<String> {
        self.source.sources()
    }

    /// A film, at random.
    pub fn film(&self, rng: &mut impl Rng) -> Film {
        match &self.source {
            WindowSource::Synth { windows, .. } => Film::Synthetic(rng.random_range(0..*windows)),
            WindowSource::Recorded { .. } => self.anchors[rng.random_range(0..self.anchors.len())],
        }
    }

    /// Frames of a film; nothing for one that is as long as it is asked for.
    pub fn frames(&self, film: Film) -> Option<usize> {
        match (&self.source, film) {
            (WindowSource::Recorded { sequences, .. }, Film::Recorded { sequence, .. }) => {
                sequences.get(sequence).map(training_data::Sequence::frames)
            }
            _ => None,
        }
    }

    /// A set of frames, at random, of `size` (width, height) where there is one. Of a synthetic film it is the first ones,
    /// since they are already as far apart as the frames of a window; of a recording, as [`FrameSets`] says.
    ///
    /// # Errors
    /// Frames that can't be read.
    pub fn draw(&self, size: Option<(u32, u32)>, rng: &mut impl Rng) -> Result<Views> {
        let film = self.film(rng);
        let drawn = match film {
            Film::Synthetic(_) => Some((0..rng.random_range(self.sets.fewest..=self.sets.most)).collect()),
            Film::Recorded { anchor, .. } => self.sets.draw(self.frames(film).unwrap_or(0), anchor, rng),
        };
        self.load(film, &drawn.unwrap_or_default(), size)
    }

    /// Some frames of a film, which are numbered in ascending order, brought to `size` (width, height) where there is one.
    ///
    /// # Errors
    /// Frames that can't be read, or none.
    pub fn load(&self, film: Film, numbers: &[usize], size: Option<(u32, u32)>) -> Result<Views> {
        let Some(&last) = numbers.last() else { anyhow::bail!("{}: expected a set of frames, got none", self.spec) };
        let mut views = match (&self.source, film) {
            (WindowSource::Synth { seed, size: own, config, stratum, .. }, Film::Synthetic(index)) => {
                let size = size.unwrap_or(*own);
                let mut film = synth::sequence_with(config, *stratum, *seed, index, last + 1, size);
                return Ok(Views {
                    numbers: numbers.to_vec(),
                    images: numbers.iter().map(|&i| std::mem::take(&mut film.images[i])).collect(),
                    intrinsics: film.intrinsics,
                    world_from_camera: numbers.iter().map(|&i| film.world_from_camera[i]).collect(),
                    depth: numbers.iter().map(|&i| std::mem::take(&mut film.depth[i])).collect(),
                    depth_intrinsics: film.intrinsics,
                    metric: true,
                });
            }
            (WindowSource::Recorded { sequences, .. }, Film::Recorded { sequence, .. }) => {
                read(&sequences[sequence], numbers)?
            }
            _ => anyhow::bail!("{}: a film of another source", self.spec),
        };
        if let Some(estimate) = self.estimate.as_ref().filter(|_| views.depth.iter().any(Vec::is_empty)) {
            views.fill(estimate);
        }
        let pixels = (views.depth_intrinsics.width * views.depth_intrinsics.height) as usize;
        views.depth.iter_mut().filter(|depth| depth.is_empty()).for_each(|depth| depth.resize(pixels, 0.0));
        if let Some((width, height)) = size {
            let resized = |image: &RgbImage| imageops::resize(image, width, height, FilterType::CatmullRom);
            views.images = views.images.iter().map(resized).collect();
            views.intrinsics = views.intrinsics.rescale(width, height);
        }
        Ok(views)
    }
}

/// Frames as recorded; no values where one has no depth.
fn read(sequence: &training_data::Sequence, numbers: &[usize]) -> Result<Views> {
    let intrinsics = *sequence.intrinsics();
    let (mut images, mut world_from_camera, mut depth) = (Vec::new(), Vec::new(), Vec::new());
    for &number in numbers {
        images.push(sequence.load_image(number)?);
        world_from_camera.push(sequence.world_from_camera(number)?);
        depth.push(sequence.load_depth(number)?.unwrap_or_default());
    }
    let (numbers, metric) = (numbers.to_vec(), sequence.metric());
    Ok(Views { numbers, images, intrinsics, world_from_camera, depth, depth_intrinsics: intrinsics, metric })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gasp::tests::data;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use std::path::Path;

    #[test]
    fn sets_of_the_generator_have_the_size_asked_for_and_follow_from_the_seed() {
        let config = DataConfig { fewest: 3, most: 5, ..data() };
        let source = FrameSource::open(&config).unwrap();
        let draw = |seed| source.draw(Some((96, 64)), &mut ChaCha8Rng::seed_from_u64(seed)).unwrap();
        let sizes: std::collections::BTreeSet<usize> = (0..40).map(|seed| draw(seed).images.len()).collect();
        assert!(sizes.into_iter().eq(3..=5));
        let (a, b) = (draw(1), draw(1));
        assert_eq!((&a.images, &a.numbers), (&b.images, &b.numbers));
        assert_eq!(a.images[0].dimensions(), (96, 64));
        assert!(a.depth.iter().all(|depth| depth.len() == 96 * 64) && a.metric);
        let found = tracks::matches(&a.views(), &a.depth_intrinsics, 3, 2);
        assert!(!found.is_empty());
    }

    #[test]
    fn a_film_is_read_frame_by_frame() {
        let config = DataConfig { sets: "synth:seed=4,windows=9,size=64x48".to_owned(), ..data() };
        let source = FrameSource::open(&config).unwrap();
        let whole = synth::sequence(4, 2, 7, (64, 48));
        let some = source.load(Film::Synthetic(2), &[1, 6], None).unwrap();
        assert_eq!(some.images, [whole.images[1].clone(), whole.images[6].clone()]);
        assert_eq!(some.depth, [whole.depth[1].clone(), whole.depth[6].clone()]);
        assert!(source.load(Film::Synthetic(2), &[], None).is_err());
        let error = source.load(Film::Recorded { sequence: 0, anchor: 0 }, &[0], None).unwrap_err().to_string();
        assert!(error.contains("another source"), "{error}");
    }

    #[test]
    fn recordings_need_depth_and_frames_enough() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/amazon_box");
        let config = DataConfig { sets: path.display().to_string(), ..data() };
        let error = FrameSource::open(&config).err().unwrap().to_string();
        assert!(error.contains("[data.depth]"), "{error}");
    }

    /// A recording with depth in our own layout, written from a synthetic film.
    #[test]
    fn sets_of_a_recording_are_drawn_around_its_windows() {
        let dir = tempfile::tempdir().unwrap();
        let film = synth::sequence(3, 5, 12, (64, 48));
        crate::gasp::tests::record(&film, dir.path());
        let sets = dir.path().display().to_string();
        let config = DataConfig { sets, fewest: 4, most: 6, reach: 5, ..data() };
        let source = FrameSource::open(&config).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        for _ in 0..5 {
            let views = source.draw(Some((96, 64)), &mut rng).unwrap();
            assert!((4..=6).contains(&views.numbers.len()) && views.numbers.is_sorted());
            assert!(views.numbers[views.numbers.len() - 1] - views.numbers[0] <= 10);
            assert_eq!((views.images[0].dimensions(), views.intrinsics.width), ((96, 64), 96));
            assert_eq!((views.depth[0].len(), views.depth_intrinsics.width), (64 * 48, 64), "depth as it was");
            for (depth, &number) in views.depth.iter().zip(&views.numbers) {
                let far = depth.iter().zip(&film.depth[number]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(far < 1e-3, "{far} m");
            }
        }
        let long = DataConfig { fewest: 13, most: 14, ..config };
        let error = FrameSource::open(&long).err().unwrap().to_string();
        assert!(error.contains("13 frames"), "{error}");
    }
}
