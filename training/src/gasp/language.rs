//! Language examples among the sets of frames, so that the model does not forget to speak: instructions with images,
//! and windows with the poses that answer them.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor};
use geometry::Intrinsics;
use image::RgbImage;
use model::Processor;
use model::answer::chain;
use model::answer::chat::{Message, Part};
use model::answer::prompt::{self, Mode, Prompt};
use model::qwen3_vl::processor::Grid;
use model::tokenizer::IMAGE_PAD;
use serde_json::{Value, json};

use super::config::MixConfig;
use super::instruct::{Instruct, Round};
use crate::batch::Sequence;
use crate::sft::example::{Builder, Source};
use training_data::{Order, WindowSource, parse_source};

/// One user's turn in the words of the checkpoint's template, or in Qwen's chat format where it has none.
///
/// # Errors
/// Another number of images among the parts than grids; text that holds a token of the chat format.
pub fn turn(builder: &Builder<'_>, parts: Vec<Part>, grids: &[Grid]) -> Result<Prompt> {
    let (image, merge) = (builder.config.image_token_id, builder.config.vision_config.spatial_merge_size);
    Ok(prompt::chat(builder.tokenizer, image, merge, &[Message::user(parts)], grids)?)
}

/// Where language examples come from.
pub struct Language {
    instruct: Option<(Instruct, Order)>,
    windows: Option<(WindowSource, Order)>,
    mix: MixConfig,
}

impl Language {
    /// The instructions and windows of `mix`; nothing where it names neither.
    ///
    /// # Errors
    /// A file or source that can't be read, or that holds nothing.
    pub fn open(mix: &MixConfig, seed: u64) -> Result<Option<Self>> {
        let instruct = match &mix.instruct {
            Some(path) => {
                let instruct = Instruct::open(path, mix.images.as_deref())?;
                let order = Order::new(instruct.len() as u64, seed);
                Some((instruct, order))
            }
            None => None,
        };
        let windows = match &mix.windows {
            Some(spec) => {
                let source = parse_source(spec)?;
                let order = Order::new(source.len(), seed);
                Some((source, order))
            }
            None => None,
        };
        let some = instruct.is_some() || windows.is_some();
        Ok(some.then(|| Self { instruct, windows, mix: mix.clone() }))
    }

    /// What a manifest says of it.
    pub fn describe(&self) -> Value {
        let windows = |source: &WindowSource| json!({"source": self.mix.windows, "windows": source.len()});
        json!({
            "instruct": self.instruct.as_ref().map(|(instruct, _)| instruct.describe()),
            "windows": self.windows.as_ref().map(|(source, _)| windows(source)),
        })
    }

    /// The videos, scenes and pictures that it is of.
    pub fn sources(&self) -> Vec<String> {
        let instruct = self.instruct.as_ref().map(|(instruct, _)| instruct.sources()).unwrap_or_default();
        let windows = self.windows.as_ref().map(|(source, _)| source.sources()).unwrap_or_default();
        [instruct, windows].concat()
    }

    /// Example `number` of the stream; where there are both kinds, they take turns.
    ///
    /// # Errors
    /// An image or a window that can't be read.
    pub fn example(&self, builder: &Builder<'_>, number: u64) -> Result<Sequence> {
        let (instruct, windows) = (self.instruct.as_ref(), self.windows.as_ref());
        let both = instruct.is_some() && windows.is_some();
        let place = if both { number / 2 } else { number };
        if let Some((instruct, order)) = instruct.filter(|_| !both || number.is_multiple_of(2)) {
            let round = instruct.round(order.at(place) as usize);
            return self.instruction(builder, &round).with_context(|| format!("instruction {}", round.id));
        }
        let (source, order) = windows.context("neither instructions nor windows")?;
        let sample = source.sample(order.at(place))?;
        let example = Source {
            id: sample.id,
            images: &sample.images,
            intrinsics: sample.intrinsics,
            ground_truth: sample.ground_truth,
            response: chain::write_poses(&sample.ground_truth),
        };
        Ok(builder.example(example, Mode::AnswerOnly)?.sequence)
    }

    /// A question about images with its answer. Images stand where the question says so, or before it.
    fn instruction(&self, builder: &Builder<'_>, round: &Round<'_>) -> Result<Sequence> {
        let bound = self.mix.image_pixels;
        let processor = super::pixels::limited(builder.processor, |least, most| (least.min(bound), most.min(bound)))?;
        let paths = round.images(self.mix.video_frames)?;
        let (mut images, mut grids) = (Vec::new(), Vec::new());
        for path in &paths {
            let (patches, grid) = patches(&processor, path)?;
            images.push((patches, grid));
            grids.push(grid);
        }
        let prompt = turn(builder, round.parts(paths.len()), &grids)?;
        let (mut ids, mut positions) = (prompt.ids, prompt.positions);
        let response = ids.len();
        ids.extend(builder.tokenizer.encode(round.answer)?);
        ids.push(builder.tokenizer.end);
        ensure!(!ids[response..].contains(&builder.config.image_token_id), "an answer spells {IMAGE_PAD}");
        positions.extend((0..(ids.len() - response) as u32).map(|i| [prompt.next + i; 3]));
        Ok(Sequence { images, ids, positions, response })
    }
}

/// `[1, patches, patch_dim]` of an image of no known camera.
fn patches(processor: &Processor, path: &Path) -> Result<(Tensor, Grid)> {
    let image: RgbImage = image::open(path).with_context(|| path.display().to_string())?.into_rgb8();
    let (width, height) = image.dimensions();
    let focal = f64::from(width.max(1));
    let centre = |side: u32| (f64::from(side) - 1.0) / 2.0;
    let camera = Intrinsics::new(focal, focal, centre(width), centre(height), width, height)?;
    let patches = processor.patches(&image, &camera, &Device::Cpu).with_context(|| path.display().to_string())?;
    Ok((patches.values.unsqueeze(0)?, patches.grid))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gasp::tests::{mix, student};
    use image::Rgb;
    use model::answer::prompt;

    #[test]
    fn kinds_take_turns_and_both_end_in_an_answer() {
        let student = student();
        let builder = Builder::of(&student);
        let dir = tempfile::tempdir().unwrap();
        RgbImage::from_pixel(40, 30, Rgb([200, 10, 10])).save(dir.path().join("red.png")).unwrap();
        let file = dir.path().join("instruct.json");
        let turns = json!([
            {"from": "human", "value": "<image>\nWhich colour?"}, {"from": "gpt", "value": "Red."},
            {"from": "human", "value": "And now?"}, {"from": "gpt", "value": "Red still."},
        ]);
        std::fs::write(&file, json!([{"id": 7, "image": "red.png", "conversations": turns}]).to_string()).unwrap();
        let config = MixConfig { instruct: Some(file), windows: Some("synth:seed=3,windows=4".to_owned()), ..mix() };
        let language = Language::open(&config, 1).unwrap().unwrap();
        let text = |s: &Sequence| student.tokenizer.decode(&s.ids[s.response..]).unwrap();
        let mut answers = Vec::new();
        for number in 0..4 {
            let example = language.example(&builder, number).unwrap();
            assert_eq!(example.ids.len(), example.positions.len());
            let images = example.ids.iter().filter(|&&id| id == student.model.config().image_token_id).count();
            let tokens: usize = example.images.iter().map(|(p, grid)| p.dims()[0] * grid.patches() / 4).sum();
            assert!(images == tokens && images > 0, "{images} {tokens}");
            answers.push(text(&example));
        }
        assert!(answers[1].starts_with("<poses>") && answers[3].starts_with("<poses>"));
        assert_ne!(answers[1], answers[3]);
        let mut spoken = [answers[0].clone(), answers[2].clone()];
        spoken.sort();
        assert_eq!(spoken, ["Red still.<|im_end|>", "Red.<|im_end|>"], "each round is an example of its own");
        assert!(Language::open(&MixConfig { windows: None, ..mix() }, 1).unwrap().is_none());
        let again = language.example(&builder, 2).unwrap();
        assert_eq!(text(&again), answers[2]);
    }

    #[test]
    fn a_turn_is_spelled_as_the_prompt_of_a_window_is() {
        let student = student();
        let builder = Builder::of(&student);
        let grids = [Grid { height: 2, width: 4 }; 5];
        let camera = Intrinsics::new(60.0, 60.0, 31.5, 15.5, 64, 32).unwrap();
        let image = builder.config.image_token_id;
        let window = prompt::window(builder.tokenizer, image, 2, Mode::AnswerOnly, &camera, &grids).unwrap();
        let wording = prompt::Wording::new(Mode::AnswerOnly, &camera);
        let mut parts = vec![Part::Text(wording.camera)];
        wording.labels.into_iter().for_each(|label| parts.extend([Part::Text(label), Part::Image]));
        parts.push(Part::Text(wording.task));
        assert_eq!(turn(&builder, parts.clone(), &grids).unwrap(), window);
        let error = turn(&builder, parts, &grids[..4]).unwrap_err().to_string();
        assert!(error.contains("images: expected 4, got 5"), "{error}");
        let spoiled = vec![Part::Text(format!("look: {IMAGE_PAD}"))];
        assert!(turn(&builder, spoiled, &[]).is_err());
    }
}
