//! A set of frames, ready for the model, and what is to be learned from it.

use anyhow::{Result, ensure};
use candle_core::{Device, Tensor};
use model::answer::chat::Part;
use rand::Rng;
use rand::seq::index;

use super::config::GaspConfig;
use super::frames::Views;
use super::language::turn;
use super::pck::TokenGrid;
use crate::batch::Sequence;
use crate::sft::example::Builder;
use training_data::chains::tracks::{self, Match};

/// What the model is asked about a set; nothing is answered, the tokens of the frames are all that is looked at.
const QUESTION: &str = "\nGive the points that the frames share.";

/// Frames side by side in one prompt.
#[derive(Debug, Clone)]
pub struct FrameSet {
    /// The prompt, with an image for each frame.
    pub sequence: Sequence,
    /// Numbers of the frames in their film.
    pub numbers: Vec<usize>,
    /// Tokens of a frame.
    pub grid: TokenGrid,
    /// Which token of one frame shows what a token of another shows.
    pub matches: Vec<Match>,
    /// Of the tokens, frame after frame.
    pub pooled: Vec<tracks::Pooled>,
}

impl FrameSet {
    /// Frames as images of their own (as a video, two would share a token), a label before each.
    ///
    /// # Errors
    /// Frames that the processor refuses, or makes of different sizes.
    pub fn new(builder: &Builder<'_>, views: &Views) -> Result<Self> {
        let merge = builder.config.vision_config.spatial_merge_size;
        let (mut patches, mut grids, mut parts) = (Vec::new(), Vec::new(), Vec::new());
        for (i, image) in views.images.iter().enumerate() {
            let frame = builder.processor.patches(image, &views.intrinsics, &Device::Cpu)?;
            patches.push(frame.values);
            grids.push(frame.grid);
            parts.extend([Part::Text(format!("Frame {i}: ")), Part::Image]);
        }
        ensure!(grids.windows(2).all(|pair| pair[0] == pair[1]), "frames of one film have grids of different sizes");
        parts.push(Part::Text(QUESTION.to_owned()));
        let prompt = turn(builder, parts, &grids)?;
        let grid = TokenGrid::new(grids[0], merge);
        let seen = views.views();
        let pooled = seen.iter().flat_map(|view| tracks::pooled(&view.depth, grid.columns, grid.rows)).collect();
        let response = prompt.ids.len();
        Ok(Self {
            sequence: Sequence {
                images: vec![(Tensor::stack(&patches, 0)?, grids[0])],
                ids: prompt.ids,
                positions: prompt.positions,
                response,
            },
            numbers: views.numbers.clone(),
            grid,
            matches: tracks::matches(&seen, &views.depth_intrinsics, grid.columns, grid.rows),
            pooled,
        })
    }

    /// Frames.
    pub fn frames(&self) -> usize {
        self.numbers.len()
    }
}

/// A match that is learned from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Positive {
    /// Of the anchors, which.
    pub anchor: usize,
    /// Frame that the match is in.
    pub frame: usize,
    /// Row of the match among the tokens of all frames.
    pub row: usize,
    /// Depth of the point there, scene units; nothing where the anchor is no patch for the depth term.
    pub depth: Option<f64>,
}

/// What the heads learn from a set.
#[derive(Debug, Clone, PartialEq)]
pub struct Targets {
    /// Frames.
    pub frames: usize,
    /// Tokens of each.
    pub grid: TokenGrid,
    /// Rows of the anchors among the tokens of all frames.
    pub anchors: Vec<usize>,
    /// For each anchor, rows of other frames that show the same point: no negatives.
    pub same: Vec<Vec<usize>>,
    /// The matches of the anchors.
    pub positives: Vec<Positive>,
    /// Depth of each token, scene units; 0 where none is known.
    pub depth: Vec<f32>,
}

impl Targets {
    /// At most `gasp.anchors` of a set's tokens, at random, with all their matches.
    pub fn new(set: &FrameSet, config: &GaspConfig, rng: &mut impl Rng) -> Self {
        let (tokens, rows) = (set.grid.tokens(), set.pooled.len());
        let row = |(frame, token): (usize, usize)| frame * tokens + token;
        // A token that looks for the anchor shows its point, and a token that the anchor looks for does.
        let mut same = vec![Vec::new(); rows];
        let mut looks = vec![Vec::new(); rows];
        for m in &set.matches {
            looks[row(m.from)].push(m);
            same[row(m.from)].push(row(m.to));
            same[row(m.to)].push(row(m.from));
        }
        let able: Vec<usize> = (0..rows).filter(|&row| !looks[row].is_empty()).collect();
        let chosen = index::sample(rng, able.len(), config.anchors.min(able.len()));
        let mut anchors: Vec<usize> = chosen.iter().map(|i| able[i]).collect();
        anchors.sort_unstable();
        let mut positives = Vec::new();
        for (anchor, &from) in anchors.iter().enumerate() {
            let flat = set.pooled[from].known >= config.min_known && set.pooled[from].spread <= config.max_spread;
            positives.extend(looks[from].iter().map(|m| Positive {
                anchor,
                frame: m.to.0,
                row: row(m.to),
                depth: (flat && set.pooled[row(m.to)].known > 0.0).then_some(m.depth),
            }));
        }
        let same = anchors.iter().map(|&anchor| std::mem::take(&mut same[anchor])).collect();
        let depth = set.pooled.iter().map(|patch| patch.depth as f32).collect();
        Self { frames: set.frames(), grid: set.grid, anchors, same, positives, depth }
    }

    /// Matches of the depth term.
    pub fn depths(&self) -> usize {
        self.positives.iter().filter(|positive| positive.depth.is_some()).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gasp::config::DataConfig;
    use crate::gasp::frames::FrameSource;
    use crate::gasp::pixels::sized;
    use crate::gasp::tests::{data, gasp, student};
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn a_set_is_a_prompt_with_an_image_for_each_frame_and_matches_on_its_tokens() {
        let student = student();
        let config = DataConfig { fewest: 11, most: 11, ..data() };
        let source = FrameSource::open(&config).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let processor = sized(&student.processor, Some((128, 96))).unwrap();
        let builder = Builder { processor: &processor, ..Builder::of(&student) };
        let set = FrameSet::new(&builder, &source.draw(Some((128, 96)), &mut rng).unwrap()).unwrap();
        assert_eq!((set.grid.columns, set.grid.rows, set.frames()), (4, 3, 11));
        let image = student.model.config().image_token_id;
        let s = &set.sequence;
        assert_eq!(s.ids.iter().filter(|&&id| id == image).count(), 11 * 12);
        assert_eq!((s.ids.len(), s.response), (s.positions.len(), s.ids.len()), "no response");
        assert_eq!(s.images[0].0.dims(), [11, 48, student.model.config().vision_config.patch_dim()]);
        assert!(student.tokenizer.decode(&s.ids).unwrap().contains("Frame 10: "));
        assert!(!set.matches.is_empty() && set.pooled.len() == 11 * 12);

        let targets = Targets::new(&set, &gasp(), &mut rng);
        assert_eq!(targets.positives.len(), set.matches.len(), "every token is an anchor");
        assert!(targets.depths() > 0);
        for positive in &targets.positives {
            let anchor = targets.anchors[positive.anchor];
            assert!(anchor / 12 != positive.frame && positive.row / 12 == positive.frame);
            assert!(targets.same[positive.anchor].contains(&positive.row));
            // What the anchor shows is shown by its match: seen from there, the anchor is no negative.
            let back = targets.anchors.iter().position(|&row| row == positive.row);
            assert!(back.is_none_or(|back| targets.same[back].contains(&anchor)));
        }
        let few = Targets::new(&set, &GaspConfig { anchors: 5, ..gasp() }, &mut rng);
        assert_eq!((few.anchors.len(), few.same.len()), (5, 5));
        assert!(few.positives.iter().all(|p| p.anchor < 5) && few.positives.len() < targets.positives.len());
        let strict = Targets::new(&set, &GaspConfig { max_spread: 0.0, ..gasp() }, &mut rng);
        assert_eq!(strict.depths(), 0);
    }
}
