//! What is read once, and what is read ahead, changes no answer.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use candle_core::Tensor;
use geometry::{Intrinsics, WINDOW};
use image::{Rgb, RgbImage};
use model::answer::budget::Budget;
use model::answer::chat::{Message, Part};
use model::answer::decode::{Prefilled, Sampling, decode};
use model::answer::fill::Fill;
use model::answer::prompt::Prompt;
use model::answer::speculate::Drafted;
use model::{AnswerOptions, Device, EgoModel, FrameEmbedding, ImageEmbedding, Mode};

fn nano() -> EgoModel {
    EgoModel::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("weights/nano"), &Device::Cpu).unwrap()
}

/// Stripes that move to the left.
fn image(shift: u32) -> RgbImage {
    RgbImage::from_fn(160, 96, |x, y| {
        let bright = ((x + 3 * shift) / 12 + y / 12).is_multiple_of(2);
        Rgb(if bright { [200, 180, 160] } else { [40, 60, 80] })
    })
}

fn film(model: &EgoModel, frames: u32) -> Vec<FrameEmbedding> {
    let intrinsics = Intrinsics::new(150.0, 150.0, 80.0, 48.0, 160, 96).unwrap();
    let encode = |k| model.encode(&model.preprocess(&image(k), &intrinsics).unwrap()).unwrap();
    (0..frames).map(encode).collect()
}

#[test]
fn reading_ahead_writes_the_same_in_fewer_passes() {
    let model = nano();
    let film = film(&model, WINDOW as u32 + 1);
    for (mode, constrained, fill) in [
        (Mode::AnswerOnly, false, Fill::None),
        (Mode::AnswerOnly, true, Fill::None),
        (Mode::AnswerOnly, false, Fill::Arithmetic),
        (Mode::FullChain, false, Fill::Arithmetic),
    ] {
        // Of a chain only what nano says with some decision: it was not trained on any, and further on two digits come to the same
        // logit but for its last bit.
        let max_tokens = Budget::Tokens(if mode == Mode::FullChain { 200 } else { 400 });
        let options = AnswerOptions { mode, constrained, fill, max_tokens, ..AnswerOptions::default() };
        for (k, window) in film.windows(WINDOW).enumerate() {
            let frames: Vec<&FrameEmbedding> = window.iter().collect();
            let ask = |speculate| model.answer(&frames, &AnswerOptions { speculate, ..options.clone() }).unwrap();
            let ahead = ask(true);
            let plain = ask(false);
            // Now the answer before is the very one that is written.
            let again = ask(true);
            for answer in [&ahead, &again] {
                assert_eq!((&answer.ids, answer.ended, answer.filled), (&plain.ids, plain.ended, plain.filled));
                assert_eq!(answer.passes + answer.drafted.saved, plain.passes, "{:?}", answer.drafted);
                assert!(answer.drafted.saved <= answer.drafted.accepted, "{:?}", answer.drafted);
                assert!(answer.drafted.accepted <= answer.drafted.tokens, "{:?}", answer.drafted);
            }
            assert_eq!(plain.drafted, Drafted::default());
            assert!(k == 0 || ahead.drafted.saved > 0, "{mode:?} {fill:?}: {:?}", ahead.drafted);
            assert!(again.passes < plain.passes, "{mode:?} {fill:?}: {} of {}", again.passes, plain.passes);
            assert!(fill != Fill::None || 4 * again.passes < plain.passes, "{} of {}", again.passes, plain.passes);
        }
    }
}

#[test]
fn drawn_answers_and_several_in_one_batch_are_not_read_ahead() {
    let model = nano();
    let film = film(&model, WINDOW as u32);
    let frames: Vec<&FrameEmbedding> = film.iter().collect();
    let options = AnswerOptions { max_tokens: Budget::Tokens(40), ..AnswerOptions::default() };
    let greedy = model.answer(&frames, &options).unwrap();
    for answer in model.answers(&frames, &options, 2).unwrap() {
        assert_eq!((answer.ids, answer.drafted), (greedy.ids.clone(), Drafted::default()));
    }
    let drawn = AnswerOptions { sampling: Sampling { temperature: 1.0, top_p: 1.0, seed: 3 }, ..options };
    assert_eq!(model.answer(&frames, &drawn).unwrap().drafted, Drafted::default());
}

/// A question about two images.
fn question(model: &EgoModel, words: &str) -> Prompt {
    let text = |words: &str| Part::Text(words.to_owned());
    let parts = vec![text("One: "), Part::Image, text(" and another: "), Part::Image, text(words)];
    model.prompt(&[Message::user(parts)], &[(160, 96); 2]).unwrap()
}

/// Its hidden states, and what nano says to it.
fn said(model: &EgoModel, prefilled: Prefilled) -> (Tensor, Vec<u32>) {
    let hidden = prefilled.hidden.clone();
    let written = decode(model.network(), prefilled, 1, &model.decoding(16, Sampling::GREEDY)).unwrap();
    (hidden, written[0].ids.clone())
}

#[test]
fn a_prompt_that_begins_as_the_last_did_is_answered_as_if_it_were_the_first() {
    let warm = nano();
    let images: Vec<ImageEmbedding> = (0..3).map(|k| warm.encode_image(&image(4 * k)).unwrap()).collect();
    let pad = warm.network().config().image_token_id;
    let (why, how) = (question(&warm, " Why?"), question(&warm, " How do they differ?"));
    let starts: Vec<usize> = (1..why.ids.len()).filter(|k| why.ids[*k] == pad && why.ids[k - 1] != pad).collect();
    let &[first, second] = starts.as_slice() else { panic!("two images, not {starts:?}") };
    let same = why.ids.iter().zip(&how.ids).take_while(|(a, b)| a == b).count();
    let rows = [
        (&why, [0, 1], 0, "nothing was read yet"),
        (&why, [0, 2], first, "the text before the images"),
        (&how, [0, 1], second, "up to the image that changed twice"),
        (&why, [0, 1], second, "no more was kept"),
        (&how, [0, 1], same, "both images, up to other words"),
        (&why, [1, 1], first, "another first image"),
    ];
    for (prompt, [a, b], reused, what) in rows {
        let images = [&images[a], &images[b]];
        let prefilled = warm.prefill(prompt, &images, 16).unwrap();
        assert_eq!(prefilled.reused, reused, "{what}");
        let cold = nano();
        let ((hidden, ids), (expected, answer)) =
            (said(&warm, prefilled), said(&cold, cold.prefill(prompt, &images, 16).unwrap()));
        assert_eq!(ids, answer, "{what}");
        let expected = expected.narrow(1, reused, prompt.ids.len() - reused).unwrap();
        let apart = (hidden - &expected).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        let largest = expected.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(apart < 1e-4 * largest, "{what}: {apart} of {largest}");
    }
}

/// A trainer's policy reads with weights that have changed since the last prompt.
#[test]
fn a_model_from_parts_reads_every_prompt_from_its_first_token() {
    let loaded = nano();
    let (tokenizer, processor) = (loaded.tokenizer().clone(), loaded.processor().clone());
    let model = EgoModel::new(loaded.network().clone(), tokenizer, processor, &Device::Cpu).unwrap();
    let images = [0, 1].map(|k| model.encode_image(&image(k)).unwrap());
    for _ in 0..2 {
        let prefilled = model.prefill(&question(&model, " Why?"), &[&images[0], &images[1]], 8).unwrap();
        assert_eq!(prefilled.reused, 0);
    }
}

#[test]
fn of_windows_that_slide_the_text_before_the_images_is_read_once() {
    let model = nano();
    let film = film(&model, WINDOW as u32 + 2);
    let options = AnswerOptions { max_tokens: Budget::Tokens(8), ..AnswerOptions::default() };
    let reused: Vec<usize> = film
        .windows(WINDOW)
        .map(|window| model.answer(&window.iter().collect::<Vec<_>>(), &options).unwrap().reused)
        .collect();
    assert!(reused[0] == 0 && reused[1] > 0 && reused[1] == reused[2], "{reused:?}");
    // In another mode it is the same, since what is asked for stands behind the images.
    let chain = AnswerOptions { mode: Mode::FullChain, ..options };
    let other = model.answer(&film[2..].iter().collect::<Vec<_>>(), &chain).unwrap();
    assert_eq!(other.reused, reused[1]);
}
