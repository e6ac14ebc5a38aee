//! The stream of examples: sets of frames, and every n-th example language.

use anyhow::{Context, Result};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use super::config::{DataConfig, GaspConfig, MixConfig};
use super::frames::FrameSource;
use super::language::Language;
use super::set::{FrameSet, Targets};
use crate::batch::Sequence;
use crate::sft::example::Builder;

/// One example of the stream.
#[derive(Debug)]
pub enum Example {
    /// A set of frames, and what is learned from it.
    Set(Box<(FrameSet, Targets)>),
    /// A prompt with its response.
    Language(Sequence),
}

/// Examples by number: the same on each machine and in each run.
pub struct Stream {
    sets: FrameSource,
    /// Sizes that the frames of a set are brought to, one after another.
    grids: Vec<Option<(u32, u32)>>,
    language: Option<Language>,
    every: u64,
    seed: u64,
}

impl Stream {
    /// The films of `data` and the language of `mix`, if it has any.
    ///
    /// # Errors
    /// A source that can't be read.
    pub fn open(data: &DataConfig, mix: &MixConfig, seed: u64) -> Result<Self> {
        let sets = FrameSource::open(data)?;
        Ok(Self { sets, grids: data.grids(), language: Language::open(mix, seed)?, every: mix.every, seed })
    }

    /// What a manifest says of it.
    pub fn describe(&self) -> Value {
        json!({"sets": self.sets.describe(), "language": self.language.as_ref().map(Language::describe)})
    }

    /// The videos, scenes and pictures that it is of.
    pub fn sources(&self) -> Vec<String> {
        let spoken = self.language.as_ref().map(Language::sources).unwrap_or_default();
        [self.sets.sources(), spoken].concat()
    }

    /// Example `number`; `sets` builds those of frames, one for each of `data.grids()`, `words` the others.
    ///
    /// # Errors
    /// Frames, images or a window that can't be read.
    pub fn example(
        &self,
        sets: &[Builder<'_>],
        words: &Builder<'_>,
        config: &GaspConfig,
        number: u64,
    ) -> Result<Example> {
        let spoken = number / self.every;
        let example = match &self.language {
            Some(language) if number % self.every == self.every - 1 => {
                language.example(words, spoken).map(Example::Language)
            }
            Some(_) => self.set(sets, config, number - spoken),
            None => self.set(sets, config, number),
        };
        example.with_context(|| format!("example {number}"))
    }

    /// Every set comes on each grid: the same frames, other anchors.
    fn set(&self, builders: &[Builder<'_>], config: &GaspConfig, number: u64) -> Result<Example> {
        let (turn, grids) = ((number % self.grids.len() as u64) as usize, self.grids.len() as u64);
        let builder =
            builders.get(turn).with_context(|| format!("expected {grids} processors, got {}", builders.len()))?;
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(number / grids);
        let set = FrameSet::new(builder, &self.sets.draw(self.grids[turn], &mut rng)?)?;
        let targets = Targets::new(&set, config, &mut rng);
        Ok(Example::Set(Box::new((set, targets))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gasp::pixels::sized;
    use crate::gasp::tests::{data, gasp, mix, record, student};
    use training_data::synth;

    #[test]
    fn the_number_decides_of_the_kind_and_of_all_that_is_drawn() {
        let student = student();
        let builder = Builder::of(&student);
        let stream = |seed| Stream::open(&data(), &mix(), seed).unwrap();
        let at = |stream: &Stream, number| stream.example(&[builder], &builder, &gasp(), number).unwrap();
        let one = stream(1);
        let kinds: Vec<bool> = (0..6).map(|number| matches!(at(&one, number), Example::Language(_))).collect();
        assert_eq!(kinds, [false, false, true, false, false, true], "every third");
        let ids = |example: &Example| match example {
            Example::Set(set) => (set.0.sequence.ids.clone(), set.1.anchors.clone()),
            Example::Language(sequence) => (sequence.ids.clone(), Vec::new()),
        };
        let pixels = |example: &Example| match example {
            Example::Set(set) => set.0.sequence.images[0].0.flatten_all().unwrap().to_vec1::<f32>().unwrap(),
            Example::Language(sequence) => sequence.images[0].0.flatten_all().unwrap().to_vec1::<f32>().unwrap(),
        };
        for number in [1, 2] {
            let (a, b) = (at(&one, number), at(&stream(1), number));
            assert_eq!((ids(&a), pixels(&a)), (ids(&b), pixels(&b)));
            assert_ne!(pixels(&a), pixels(&at(&stream(2), number)));
            assert_ne!(pixels(&a), pixels(&at(&one, number + 3)));
        }
    }

    #[test]
    fn every_set_comes_on_each_grid_in_turn() {
        let (student, dir) = (student(), tempfile::tempdir().unwrap());
        record(&synth::sequence(3, 5, 12, (64, 48)), dir.path());
        let sets = dir.path().display().to_string();
        let data = DataConfig { sets, most: 6, reach: 5, sizes: vec![[64, 64], [128, 96]], ..data() };
        let words = Builder::of(&student);
        let sized = |size| sized(&student.processor, size).unwrap();
        let processors: Vec<_> = data.grids().into_iter().map(sized).collect();
        let builders: Vec<_> = processors.iter().map(|processor| Builder { processor, ..words }).collect();
        let stream = Stream::open(&data, &MixConfig { windows: None, ..mix() }, 5).unwrap();
        let set = |number| match stream.example(&builders, &words, &gasp(), number).unwrap() {
            Example::Set(set) => set.0,
            Example::Language(_) => panic!("no language is asked for"),
        };
        let sets: Vec<FrameSet> = (0..8).map(set).collect();
        for pair in sets.chunks(2) {
            let grid = |of: usize| (pair[of].grid.columns, pair[of].grid.rows);
            assert_eq!((grid(0), grid(1)), ((2, 2), (4, 3)));
            assert_eq!(pair[0].numbers, pair[1].numbers, "the same frames");
        }
        assert!(sets.iter().any(|set| set.numbers != sets[0].numbers));
        let error = stream.example(&builders[..1], &words, &gasp(), 1).unwrap_err();
        assert!(format!("{error:#}").contains("2 processors"), "{error:#}");
    }
}
