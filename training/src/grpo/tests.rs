//! GRPO on a model that is too small to say anything: what is right must be right of nonsense too.

use super::*;
use candle_core::{D, DType, Device, Var};
use candle_nn::ops::log_softmax;
use geometry::WindowTrajectory;
use model::Mode;
use model::answer::budget::Budget;
use model::answer::chain;
use model::answer::fill::{Fill, Part as Filled};
use model::tokenizer::{IM_START, IMAGE_PAD};

use super::rollout::Choice;
use crate::batch::{Batch, Sequence, decode, embed, predictions, select};
use crate::student::{Adapter, Shape};
use crate::trainer::config::path_of;
use training_evaluation::measured;

fn config() -> Config {
    let mut config = read_config(&path_of("nano-grpo.toml")).unwrap();
    config.run.batch = 4;
    (config.grpo.group_size, config.grpo.max_tokens, config.grpo.kl_weight) = (3, Budget::Tokens(6), 0.0);
    config.data.windows = "synth:seed=11,windows=6,size=64x48".to_owned();
    config.eval = None;
    config
}

fn student() -> Student {
    Student::new(&Shape::tiny(), 5).unwrap()
}

fn variable(student: &Student, end: &str) -> Var {
    named(&student.variables).into_iter().find(|(name, _)| name.ends_with(end)).unwrap().1
}

/// Makes one of two tokens by far the likeliest, whichever way a hidden state points.
fn favour(student: &Student, tokens: [u32; 2]) {
    let embedding = variable(student, "embed_tokens.weight");
    let mut rows = embedding.to_vec2::<f32>().unwrap();
    let [one, other] = tokens.map(|id| id as usize);
    let far: Vec<f32> = rows[one].iter().map(|v| v * 1e4).collect();
    rows[other] = far.iter().map(|v| -v).collect();
    rows[one] = far;
    embedding.set(&Tensor::new(rows, &Device::Cpu).unwrap()).unwrap();
}

/// A group with advantages as given, whose last rollout is shorter than the others.
fn group(grpo: &Grpo<'_>, number: u64, advantages: [f64; 3]) -> Group {
    let mut group = grpo.draw(number).unwrap();
    let last = &mut group.rollouts[2];
    let length = last.sequence.response + last.length().div_ceil(2);
    last.sequence.ids.truncate(length);
    last.sequence.positions.truncate(length);
    last.choices.truncate(length - last.sequence.response);
    group.advantages = Some(advantages.to_vec());
    group
}

/// Logits at each token of one rollout, alone and by composites, and the tokens.
fn logits(student: &Student, group: &Group, rollout: usize) -> (Tensor, Vec<u32>) {
    let whole = Sequence { images: group.prompt.images.clone(), ..group.rollouts[rollout].sequence.clone() };
    let batch = Batch::new([&whole], student.tokenizer.pad);
    let embeddings = embed(&student.model, &batch, [&whole], false).unwrap();
    let hidden = decode(&student.model, &batch, &embeddings, None, &mut |_, _| {}).unwrap();
    let (rows, tokens): (Vec<u32>, Vec<u32>) = predictions(&batch, [&whole]).unzip();
    (student.model.logits(&select(&hidden, &rows).unwrap()).unwrap(), tokens)
}

/// Log-probabilities of one rollout.
fn alone(student: &Student, group: &Group, rollout: usize, banned: &[u32], temperature: f64) -> Tensor {
    let (logits, tokens) = logits(student, group, rollout);
    let mask: Vec<f32> =
        (0..logits.dim(1).unwrap() as u32).map(|id| if banned.contains(&id) { -1e30 } else { 0.0 }).collect();
    let mask = Tensor::new(mask, &Device::Cpu).unwrap();
    let logits = (logits.broadcast_add(&mask).unwrap() / temperature).unwrap();
    let tokens = Tensor::new(tokens, &Device::Cpu).unwrap().unsqueeze(1).unwrap();
    log_softmax(&logits, D::Minus1).unwrap().gather(&tokens, 1).unwrap().squeeze(1).unwrap()
}

type Gradients = BTreeMap<String, Tensor>;

fn gradients(student: &Student, loss: &Tensor, recomputation: &Recomputation) -> Gradients {
    let store = loss.backward().unwrap();
    let of = |(name, var): (String, Var)| Some((name, recomputation.gradient(&store, &var).unwrap()?));
    named(&student.variables).into_iter().filter_map(of).collect()
}

fn recomputation(student: &Student) -> Recomputation {
    Recomputation::new(named(&student.variables).iter().map(|(_, var)| var.as_tensor()))
}

fn largest(x: &Tensor) -> f32 {
    x.abs().unwrap().max_all().unwrap().to_scalar().unwrap()
}

fn assert_same(got: &Gradients, expected: &Gradients) {
    assert!(!expected.is_empty() && got.keys().eq(expected.keys()));
    for (name, expected) in expected {
        let (far, size) = (largest(&(&got[name] - expected).unwrap()), largest(expected));
        assert!(far <= 1e-3 * size + 1e-6, "{name}: {far} of {size}");
    }
}

fn totals(grpo: &Grpo<'_>, batches: &[Vec<Arc<Group>>]) -> GrpoTerms {
    batches.iter().fold(GrpoTerms::default(), |sum, batch| sum.plus(grpo.counts(batch))).or_one()
}

/// What a step does with `batches`: gradients and terms.
fn step(grpo: &Grpo<'_>, batches: &[Vec<Arc<Group>>]) -> (Gradients, GrpoTerms) {
    let totals = totals(grpo, batches);
    let (mut sums, mut terms) = (Gradients::new(), GrpoTerms::default());
    for batch in batches {
        let share = grpo.loss(batch, &totals, None).unwrap();
        terms = terms.plus(share.terms);
        let Some(loss) = share.loss else { continue };
        for (name, gradient) in gradients(grpo.student, &loss, &recomputation(grpo.student)) {
            let sum = match sums.remove(&name) {
                Some(sum) => (sum + gradient).unwrap(),
                None => gradient,
            };
            sums.insert(name, sum);
        }
    }
    (sums, terms)
}

#[test]
fn on_policy_the_gradient_is_that_of_the_log_probabilities_weighted_by_advantage() {
    let (config, student) = (config(), student());
    let grpo = Grpo::new(&config, &student).unwrap();
    let advantages = [1.0, -0.5, 0.25];
    let batch = vec![Arc::new(group(&grpo, 0, advantages))];
    let mut expected = Tensor::zeros((), DType::F32, &Device::Cpu).unwrap();
    for (i, advantage) in advantages.into_iter().enumerate() {
        let log_probs = alone(&student, &batch[0], i, grpo.sampler.policy.banned(), config.grpo.temperature);
        assert_eq!(log_probs.elem_count(), batch[0].rollouts[i].length());
        // Mean over the tokens of an answer, then over answers.
        expected = (expected - (log_probs.mean_all().unwrap() * (advantage / 3.0)).unwrap()).unwrap();
    }
    let expected = gradients(&student, &expected, &recomputation(&student));
    for checkpointed in [false, true] {
        let recomputation = recomputation(&student);
        let share = grpo
            .loss(&batch, &totals(&grpo, std::slice::from_ref(&batch)), checkpointed.then_some(&recomputation))
            .unwrap();
        assert_same(&gradients(&student, &share.loss.unwrap(), &recomputation), &expected);
    }
}

#[test]
fn a_step_is_the_same_however_it_is_cut_into_micro_batches() {
    let student = student();
    for normalisation in [Normalisation::Sequence, Normalisation::Token] {
        let mut config = config();
        (config.grpo.normalisation, config.grpo.kl_weight, config.grpo.chunk) = (normalisation, 0.1, 2);
        let grpo = Grpo::new(&config, &student).unwrap();
        let groups: Vec<Arc<Group>> = (0..4)
            .map(|number| {
                let mut group = group(&grpo, number, [1.0, -0.5, 0.25 * number as f64]);
                let tokens: usize = group.rollouts.iter().map(rollout::Rollout::length).sum();
                group.reference = Some((0..tokens).map(|i| -8.0 + 0.1 * i as f32).collect());
                if number == 2 {
                    group.advantages = None;
                }
                Arc::new(group)
            })
            .collect();
        let (whole, terms) = step(&grpo, std::slice::from_ref(&groups));
        let single: Vec<Vec<Arc<Group>>> = groups.iter().map(|group| vec![group.clone()]).collect();
        let (cut, cut_terms) = step(&grpo, &single);
        assert_same(&cut, &whole);
        for ((name, a), b) in terms.named().into_iter().zip(cut_terms.values()) {
            assert!((a - b).abs() < 1e-5 * (1.0 + a.abs()), "{name}: {a} {b}");
        }
        assert!((terms.skipped - 0.25).abs() < 1e-9 && (terms.reward + 1.0).abs() < 1e-9);
        assert!(terms.kl > 0.0 && terms.entropy > 0.0 && terms.clip_fraction.abs() < 1e-9);
    }
}

#[test]
fn groups_whose_answers_earn_the_same_are_skipped() {
    let (config, student) = (config(), student());
    let grpo = Grpo::new(&config, &student).unwrap();
    // Six tokens are no answer: all of them earn -1.
    let batch = grpo.batch(0, &[0, 1]).unwrap();
    assert!(batch.iter().all(|group| group.advantages.is_none()));
    let counts = grpo.counts(&batch);
    let learned = [counts.loss, counts.kl, counts.clip_fraction, counts.entropy];
    assert!(learned.iter().all(|count| *count < 0.5), "{counts:?}");
    let share = grpo.loss(&batch, &totals(&grpo, std::slice::from_ref(&batch)), None).unwrap();
    assert!(share.loss.is_none());
    assert!((share.terms.skipped - 1.0).abs() < 1e-9, "{:?}", share.terms);
}

#[test]
fn tokens_of_images_are_never_written_and_have_no_probability() {
    let (config, student) = (config(), student());
    let grpo = Grpo::new(&config, &student).unwrap();
    let [image, start] = [IMAGE_PAD, IM_START].map(|token| student.tokenizer.id(token).unwrap());
    favour(&student, [image, start]);
    let (group, banned) = (grpo.draw(0).unwrap(), grpo.sampler.policy.banned());
    assert!(banned.contains(&image) && banned.contains(&start));
    let (mut free, mut tokens) = (0.0, 0);
    for (i, rollout) in group.rollouts.iter().enumerate() {
        let written = &rollout.sequence.ids[rollout.sequence.response..];
        assert!(written.iter().all(|id| !banned.contains(id)), "{written:?}");
        let log_probs = alone(&student, &group, i, &[], config.grpo.temperature).to_vec1::<f32>().unwrap();
        free += log_probs.iter().sum::<f32>();
        tokens += log_probs.len();
    }
    assert!(free / (tokens as f32) < -20.0, "without a ban nothing else would be written: {free}");
    let scored = grpo.scorer.log_probs(&student.model, &group, true, None).unwrap();
    assert!(scored.to_vec1::<f32>().unwrap().iter().all(|p| *p > -20.0), "{scored}");
    // The policy that samples has followed the student.
    let policy = grpo.scorer.log_probs(grpo.sampler.policy.network(), &group, true, None).unwrap();
    assert!(largest(&(scored - policy).unwrap()) < 1e-3);
}

#[test]
fn an_answer_ends_with_the_token_that_ended_it() {
    let (config, student) = (config(), student());
    let grpo = Grpo::new(&config, &student).unwrap();
    let ends = [student.tokenizer.end, student.tokenizer.pad];
    favour(&student, ends);
    let group = grpo.draw(0).unwrap();
    for (i, rollout) in group.rollouts.iter().enumerate() {
        assert!(rollout.ended && rollout.length() == 1 && ends.contains(rollout.sequence.ids.last().unwrap()));
        // The other of the two would have none to speak of.
        let log_prob = alone(&student, &group, i, &[], config.grpo.temperature).to_vec1::<f32>().unwrap()[0];
        assert!(log_prob > -1.0, "{log_prob}");
    }
}

#[test]
fn rollouts_follow_from_the_seed_and_the_number_of_the_prompt() {
    let (config, student) = (config(), student());
    let grpo = Grpo::new(&config, &student).unwrap();
    let written = |grpo: &Grpo<'_>, number| -> Vec<Vec<u32>> {
        let group = grpo.draw(number).unwrap();
        group.rollouts.iter().map(|r| r.sequence.ids[r.sequence.response..].to_vec()).collect()
    };
    let first = written(&grpo, 3);
    assert_eq!(first, written(&Grpo::new(&config, &student).unwrap(), 3));
    assert_ne!(first[0], first[1]);
    assert_ne!(first, written(&grpo, 4));
    assert_ne!(first, written(&grpo, 3 + 6), "another epoch");
    let mut other = config.clone();
    other.run.seed += 1;
    assert_ne!(first, written(&Grpo::new(&other, &student).unwrap(), 3));
}

#[test]
fn updates_share_their_rollouts_and_a_run_that_goes_on_between_them_samples_its_own() {
    let (mut config, student) = (config(), student());
    config.grpo.updates = 2;
    let grpo = Grpo::new(&config, &student).unwrap();
    assert_eq!(grpo.epoch(), Some(12));
    let numbers = |batch: &[Arc<Group>]| batch.iter().map(|group| group.number).collect::<Vec<_>>();
    let batches: Vec<_> = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
        .iter()
        .enumerate()
        .map(|(s, e)| grpo.batch(s, e).unwrap())
        .collect();
    assert_eq!(numbers(&batches[0]), [0, 1, 2, 3]);
    assert!(batches[0].iter().zip(&batches[1]).all(|(a, b)| Arc::ptr_eq(a, b)));
    assert_eq!(numbers(&batches[2]), [4, 5, 6, 7], "no window is left out");
    assert_eq!(grpo.held().len(), 4, "those of the step before are gone");
    assert_eq!(numbers(&Grpo::new(&config, &student).unwrap().batch(1, &[6, 7]).unwrap()), [2, 3]);
}

#[test]
fn the_reference_is_the_student_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let whole = student();
    whole.save(dir.path()).unwrap();
    let adapter = Adapter { r: 2, alpha: 4.0, dropout: 0.0, targets: vec!["q_proj".into(), "up_proj".into()] };
    let adapted = Student::open(Some(dir.path()), None, Some(&adapter), 1, &Device::Cpu).unwrap();
    let mut config = config();
    config.grpo.kl_weight = 0.01;
    for (student, moved, frozen) in
        [(&whole, "layers.1.mlp.down_proj.weight", false), (&adapted, "layers.1.mlp.up_proj.lora_B", true)]
    {
        let grpo = Grpo::new(&config, student).unwrap();
        assert_eq!(grpo.frozen, frozen);
        let (group, reference) = (grpo.draw(0).unwrap(), grpo.reference.as_ref().unwrap());
        let score = |model: &Qwen3Vl| grpo.scorer.log_probs(model, &group, true, None).unwrap();
        let before = score(&student.model);
        assert!(largest(&(&before - score(reference)).unwrap()) < 1e-3, "{moved}");
        let var = variable(student, moved);
        var.set(&(var.ones_like().unwrap() * 5.0).unwrap()).unwrap();
        assert!(largest(&(&before - score(&student.model)).unwrap()) > 1e-2, "{moved}");
        assert!(largest(&(&before - score(reference)).unwrap()) < 1e-3, "{moved}");
    }
}

#[test]
fn the_hold_out_and_the_rollouts_can_be_read() {
    let (mut config, student) = (config(), student());
    let windows = "synth:seed=9002,windows=2,size=64x48".to_owned();
    config.eval = Some(EvalConfig { windows, temperature: 0.0 });
    let grpo = Grpo::new(&config, &student).unwrap();
    let figures = grpo.evaluate(0).unwrap();
    let names: Vec<&str> = figures.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["loss", "reward", "reward_low", "reward_high", "parse", "length"], "no medians of no answers");
    assert!((figures[0].1 - 1.0).abs() < 1e-9 && figures[4].1.abs() < 1e-9, "{figures:?}");

    let dir = tempfile::tempdir().unwrap();
    grpo.keep(0, &[grpo.batch(0, &[1]).unwrap(), grpo.batch(0, &[0]).unwrap()], dir.path()).unwrap();
    let text = std::fs::read_to_string(dir.path().join("rollouts/step-000001.jsonl")).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.iter().map(|line| line["prompt"].as_u64().unwrap()).collect::<Vec<_>>(), [0, 0, 0, 1, 1, 1]);
    assert!(lines.iter().all(|line| line["reward"]["total"] == -1.0 && line["advantage"].is_null()));
    assert_eq!(lines[0]["tokens"], 6);
}

/// Which tokens of the program there are, and which the policy might have drawn, is known from their places alone.
#[test]
fn what_the_program_wrote_is_no_part_of_the_loss_and_the_rest_is_drawn_under_the_grammar() {
    let (mut config, student) = (config(), student());
    let identity = chain::write_poses(&WindowTrajectory::identity());
    let form = identity.find("\n1 R").unwrap();
    let form = student.tokenizer.encode(&identity[..form]).unwrap().len();
    (config.grpo.fill, config.grpo.max_tokens) = (Fill::Arithmetic, Budget::Tokens(form + 20));
    let grpo = Grpo::new(&config, &student).unwrap();
    let mut group = grpo.draw(0).unwrap();
    let advantages = [1.0, -0.5, 0.25];
    group.advantages = Some(advantages.to_vec());
    let mut expected = Tensor::zeros((), DType::F32, &Device::Cpu).unwrap();
    let mut drawn = 0;
    for (i, advantage) in advantages.into_iter().enumerate() {
        let rollout = &group.rollouts[i];
        assert_eq!((rollout.length(), rollout.choices.len()), (form + 20, form + 20));
        assert!(rollout.choices[..form].iter().all(|choice| matches!(choice, Choice::Forced)), "the identity");
        let (logits, tokens) = logits(&student, &group, i);
        let mut own = Vec::new();
        for ((at, token), choice) in tokens.iter().enumerate().zip(&rollout.choices) {
            let ids = match choice {
                Choice::Of(ids) => ids,
                Choice::Forced => continue,
                Choice::Free => panic!("token {at} was drawn without a grammar"),
            };
            let place = ids.iter().position(|id| id == token).expect("one that was allowed");
            let ids = Tensor::new(ids.as_slice(), &Device::Cpu).unwrap();
            let allowed = logits.get(at).unwrap().index_select(&ids, 0).unwrap();
            let log_probs = log_softmax(&(allowed / config.grpo.temperature).unwrap(), D::Minus1).unwrap();
            own.push(log_probs.get(place).unwrap());
        }
        assert!((1..=20).contains(&own.len()), "{}", own.len());
        drawn += own.len();
        let mean = Tensor::stack(&own, 0).unwrap().mean_all().unwrap();
        expected = (expected - (mean * (advantage / 3.0)).unwrap()).unwrap();
    }
    let expected = gradients(&student, &expected, &recomputation(&student));
    let batch = vec![Arc::new(group)];
    let counts = grpo.counts(&batch);
    assert!((counts.loss - 3.0).abs() < 1e-9 && (counts.kl - drawn as f64).abs() < 1e-9, "{counts:?} of {drawn}");
    let scored = grpo.scorer.log_probs(&student.model, &batch[0], true, None).unwrap();
    assert_eq!(scored.elem_count(), drawn, "what is old and what is the reference's stand beside the same tokens");
    for checkpointed in [false, true] {
        let recomputation = recomputation(&student);
        let share = grpo
            .loss(&batch, &totals(&grpo, std::slice::from_ref(&batch)), checkpointed.then_some(&recomputation))
            .unwrap();
        assert_same(&gradients(&student, &share.loss.unwrap(), &recomputation), &expected);
    }
    let lines = batch[0].lines();
    assert!(lines.iter().all(|line| line["filled"].as_u64().unwrap() >= form as u64), "{lines:?}");
}

#[test]
fn answers_that_are_filled_in_end_by_themselves_and_parse_whatever_the_policy_says() {
    let (mut config, student) = (config(), student());
    (config.grpo.fill, config.grpo.max_tokens, config.grpo.group_size) = (Fill::Arithmetic, Budget::Auto, 2);
    let grpo = Grpo::new(&config, &student).unwrap();
    for rollout in grpo.draw(0).unwrap().rollouts {
        assert!(rollout.ended && rollout.parses, "{}", rollout.text);
        assert!(matches!(rollout.choices.last(), Some(Choice::Forced)), "nobody chose to end");
        assert_eq!(rollout.sequence.ids.last(), Some(&student.tokenizer.end));
    }
}

#[test]
fn rollouts_of_a_window_that_was_measured_hold_its_points() {
    let (mut config, student) = (config(), student());
    (config.grpo.mode, config.grpo.fill, config.grpo.max_tokens) =
        (Mode::FullChain, Fill::Measured, Budget::Tokens(400));
    let grpo = Grpo::new(&config, &student).unwrap();
    let windows = parse_source("synth:seed=4,windows=3,size=320x240,stratum=texture").unwrap();
    let is_measured = |sample: &training_data::WindowSample| {
        measured::of_images(&sample.images, &sample.intrinsics, &sample.stamps).unwrap().is_some()
    };
    let sample = (0..3).map(|k| windows.sample(k).unwrap()).find(is_measured).expect("points with depths");
    let sampling = Sampling { temperature: 1.0, top_p: 1.0, seed: 3 };
    let (_, answers) = grpo.sampler.ask(&sample, sampling, 2).unwrap();
    assert!(answers.iter().all(|answer| answer.by_program.contains(&Filled::Points)), "{}", answers[0].text);
}
