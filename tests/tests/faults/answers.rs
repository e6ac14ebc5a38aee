//! Models that say nothing, nonsense or too much, and such as cannot keep up.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use camera::message::{CameraInfoMessage, ImagePayload};
use candle_core::{Device, Tensor, safetensors};
use model::answer::budget::Budget;
use model::answer::fill::Fill;
use model::{EgoModel, Mode};
use node::config::{Ask, ModelConfig};
use node::pipeline::Pipeline;
use node::ros::lifecycle::State;
use node::ros::message::DiagnosticLevel::{Error, Warn};
use node::ros::message::Input;
use node::ros::transport::Ends;
use node::solve::estimator::{EgoEstimator, Error as ModelError, Estimate};
use node::status::counters::Fate;
use node::trust::state::Status;

use crate::case::{Case, Expect, from, image, picture, settings};
use crate::common::{repository, tiny_weights};
use crate::images::broken;
use crate::rig::{Behaviour, Outputs, Rig, parsed, sheet, walk};

const SIZE: (u32, u32) = (64, 48);

fn config(weights: &Path) -> ModelConfig {
    ModelConfig {
        weights: weights.to_owned(),
        adapter: None,
        device: "cpu".to_owned(),
        mode: Ask::Answer(Mode::AnswerOnly),
        max_tokens: Budget::Auto,
        constrained: false,
        fill: Fill::None,
        speculate: true,
    }
}

/// The vision-language model itself, in place of the fake.
fn real(weights: &Path) -> Case {
    let config = config(weights);
    let stop = Arc::new(AtomicBool::new(false));
    let load = move |interrupt| EgoEstimator::load(&config, interrupt);
    let (pipeline, ends) = Pipeline::start(settings(), sheet(), load, Arc::clone(&stop)).unwrap();
    let Ends { input, call, output, .. } = ends;
    let rig = Rig { pipeline, input, call, output, stop, encoded: Arc::default() };
    rig.wait("active", |s| s.lifecycle == State::Active);
    let info = CameraInfoMessage {
        width: SIZE.0,
        height: SIZE.1,
        k: [60.0, 0.0, 32.0, 0.0, 60.0, 24.0, 0.0, 0.0, 1.0],
        ..CameraInfoMessage::default()
    };
    Case::of(rig, Input::CameraInfo(info))
}

/// Two windows of a pattern that moves to the left.
fn two_windows(case: &mut Case) {
    for i in 0..9_u32 {
        let (width, height) = SIZE;
        let data = (0..width * height).map(|at| ((at % width + 2 * i) * 7 % 200 + at / width) as u8).collect();
        let encoding = "mono8".to_owned();
        case.image(image(
            i.into(),
            ImagePayload::Raw { width, height, encoding, is_bigendian: false, step: width, data },
        ));
    }
}

/// What two answers that no pose can be read from come to.
fn nothing_said() -> Expect {
    Expect {
        used: 9,
        held: 1,
        answered: 2,
        unparsed: 2,
        status: Status::Degraded,
        reason: "2 bad windows of the last 2",
        level: Error,
        message: "no answer can be used: answer of window 1: ",
        ..Expect::default()
    }
}

/// Weights of which one tensor is not a number.
fn poisoned(tensor: &str) {
    let dir = tempfile::tempdir().unwrap();
    tiny_weights(dir.path());
    let path = dir.path().join("model.safetensors");
    let mut tensors = safetensors::load(&path, &Device::Cpu).unwrap();
    let dims = tensors[tensor].dims().to_vec();
    tensors.insert(tensor.to_owned(), Tensor::full(f32::NAN, dims, &Device::Cpu).unwrap());
    safetensors::save(&tensors, &path).unwrap();
    let mut case = real(dir.path());
    two_windows(&mut case);
    let outputs = case.end(&nothing_said());
    let (_, _, values) = outputs.diagnostics.last().unwrap();
    assert_eq!(values["answer_tokens"], "0", "an answer ends where no token can be chosen");
}

#[test]
fn logits_that_are_not_numbers() {
    poisoned("model.language_model.norm.weight");
}

#[test]
fn embeddings_that_are_not_numbers() {
    poisoned("model.visual.patch_embed.proj.bias");
}

#[test]
fn an_answer_longer_than_its_limit() {
    let dir = tempfile::tempdir().unwrap();
    // Weights that were never trained find no end.
    tiny_weights(dir.path());
    let mut case = real(dir.path());
    two_windows(&mut case);
    let outputs = case.end(&nothing_said());
    let (_, _, values) = outputs.diagnostics.last().unwrap();
    let needed = EgoModel::load(dir.path(), &Device::Cpu).unwrap().needed(Mode::AnswerOnly).unwrap();
    assert_eq!(values["answer_tokens"], needed.to_string());
}

#[test]
fn a_limit_that_no_answer_keeps() {
    let nano = repository().join("model/weights/nano");
    let needed = EgoModel::load(&nano, &Device::Cpu).unwrap().needed(Mode::AnswerOnly).unwrap();
    for (tokens, is_enough) in [(needed - 1, false), (needed, true)] {
        let config = ModelConfig { max_tokens: Budget::Tokens(tokens), ..config(&nano) };
        match EgoEstimator::load(&config, Arc::default()) {
            Ok(_) => assert!(is_enough),
            Err(e) => {
                let told = e.to_string();
                assert!(
                    !is_enough && told.contains(&needed.to_string()) && told.contains(&tokens.to_string()),
                    "{told}"
                );
            }
        }
    }
}

#[test]
fn a_model_slower_than_the_camera() {
    let (open, case) = Case::busy();
    case.burst(5..21);
    case.rig.wait("superseded", |s| s.windows_superseded == 3);
    (0..2).for_each(|_| open.send(()).unwrap());
    case.rig.wait("answers", |s| s.windows_answered == 2);
    case.end(&Expect {
        used: 10,
        dropped: &[(Fate::Superseded, 11)],
        held: 1,
        answered: 2,
        superseded: 3,
        breaks: 1,
        paths: vec![from(0), from(16)],
        ..Expect::default()
    });
}

/// The second of three windows is answered like this.
fn second_answer(answer: fn() -> Result<Estimate, ModelError>, message: &'static str) {
    let behaviour: Behaviour = Box::new(move |n| if n == 1 { answer() } else { parsed() });
    let mut case = Case::with(settings(), behaviour);
    case.frames(0..13);
    case.end(&Expect {
        used: 13,
        held: 1,
        answered: 3,
        unparsed: 1,
        breaks: 1,
        level: Warn,
        message,
        paths: vec![from(0), from(8)],
        ..Expect::default()
    });
}

#[test]
fn an_answer_without_poses() {
    let answer = || parsed().map(|all| Estimate { trajectory: Err("no block".to_owned()), ..all });
    second_answer(answer, "answers_unparsed +1; last: answer of window 1: no block");
}

#[test]
fn poses_that_are_not_numbers() {
    let answer = || parsed().map(|all| Estimate { trajectory: Ok(walk().scaled(f64::NAN)), ..all });
    second_answer(answer, "expected a step of at most 1 m, got NaN");
}

#[test]
fn poses_that_leap() {
    let answer = || parsed().map(|all| Estimate { trajectory: Ok(walk().scaled(1e3)), ..all });
    second_answer(answer, "expected a step of at most 1 m, got 100.000");
}

#[test]
fn answers_that_never_come_to_poses() {
    let behaviour: Behaviour = Box::new(|n| {
        let mut estimate = parsed()?;
        if n > 0 {
            estimate.trajectory = Err("no block".to_owned());
        }
        Ok(estimate)
    });
    let mut case = Case::with(settings(), behaviour);
    case.frames(0..21);
    case.end(&Expect {
        used: 21,
        held: 1,
        answered: 5,
        unparsed: 4,
        status: Status::Lost,
        reason: "4 bad windows in a row, the last: no block",
        level: Error,
        message: "LOST, nothing comes out",
        paths: vec![from(0)],
        ..Expect::default()
    });
}

/// White in the first pixel is what the fake cannot read.
#[test]
fn an_image_that_the_model_cannot_read() {
    let mut data = vec![0; 48];
    data[0] = 255;
    let encoding = "mono8".to_owned();
    let white = ImagePayload::Raw { width: 8, height: 6, encoding, is_bigendian: false, step: 8, data };
    broken(white, "last: too white");
}

#[test]
fn a_model_that_dies_at_its_second_window() {
    for (behaviour, words) in [
        (
            Box::new(|n: usize| if n == 0 { parsed() } else { Err(ModelError::Other("out of memory".to_owned())) })
                as Behaviour,
            "out of memory",
        ),
        (
            Box::new(|n: usize| if n == 0 { parsed() } else { panic!("index out of bounds") }) as Behaviour,
            "index out of bounds",
        ),
    ] {
        let mut case = Case::with(settings(), behaviour);
        case.frames(0..5);
        (5..9).for_each(|i| (case.rig.input)(picture(i, i as u8)));
        let outputs = Outputs::collect(&case.rig.output);
        let (level, message, _) = outputs.diagnostics.last().unwrap();
        assert_eq!(*level, Error);
        assert!(message.contains("the node stops") && message.contains(words), "{message}");
        assert_eq!(outputs.trajectories.len(), 1);
        let (finished, rest) = case.rig.finish();
        assert!(finished.unwrap_err().to_string().contains(words));
        assert!(rest.trajectories.is_empty() && rest.odometries.is_empty());
    }
}
