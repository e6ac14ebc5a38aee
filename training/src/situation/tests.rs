use super::*;
use candle_core::{DType, Device, Var};
use model::weights::gguf::{Recipe, export};
use model::{EgoModel, PoseHead};

use crate::depth::DepthConfig;
use crate::student::{Adapter, Shape, named};
use crate::trainer::config::path_of;

const SOURCE: &str = "synth:seed=21,windows=4,size=64x48";

fn config() -> Config {
    let mut config = read_config(&path_of("nano-situation.toml")).unwrap();
    let run = &mut config.run;
    (run.steps, run.batch, run.micro_batch, run.workers, run.log_every, run.save_every) = (1, 2, 1, 1, 1, 1);
    (config.layout.hidden, config.situation.hidden) = (16, 16);
    config.situation.freeze_vision = false;
    config.data = DataConfig { source: SOURCE.to_owned(), sample: 2, depth: None };
    config.eval = None;
    config.shape = Some(Shape::tiny());
    config
}

fn student(config: &Config) -> Student {
    Student::new(config.shape.as_ref().unwrap(), config.run.seed).unwrap()
}

/// Gradients of the variables that are trained, flat; nothing where there is none.
fn gradients(objective: &Situation<'_>, share: &Share<SituationTerms>) -> Vec<(String, Option<Vec<f32>>)> {
    let store = share.loss.as_ref().unwrap().backward().unwrap();
    let flat = |var: &Var| {
        store.get(var.as_tensor()).map(|gradient| gradient.flatten_all().unwrap().to_vec1::<f32>().unwrap())
    };
    let all = named(&objective.student.variables);
    all.into_iter().filter(|(name, _)| objective.trains(0, name)).map(|(name, var)| (name, flat(&var))).collect()
}

#[test]
fn every_variable_gets_a_gradient_and_a_step_does_not_depend_on_its_cut() {
    let config = config();
    let student = student(&config);
    let objective = Situation::new(&config, &student).unwrap();
    let windows = objective.batch(0, &[0, 1]).unwrap();
    let totals = objective.counts(&windows);
    let whole = objective.loss(&windows, &totals, None).unwrap();
    let expected = gradients(&objective, &whole);
    for (name, gradient) in &expected {
        let moves = gradient.as_ref().is_some_and(|gradient| gradient.iter().any(|v| *v != 0.0));
        assert!(moves || (!name.starts_with(HEAD_PREFIX) && gradient.is_some()), "{name}");
    }
    let own = |part: &str| expected.iter().filter(|(name, _)| name.starts_with(part)).count();
    assert_eq!((own("aux.situation."), own("aux.layout.")), (3 + 4 + 4, 4));

    let halves = windows.chunks(1).map(|window| {
        let share = objective.loss(&window.to_vec(), &totals, None).unwrap();
        (gradients(&objective, &share), share.terms)
    });
    let halves: Vec<_> = halves.collect();
    let sums = halves[0].1.plus(halves[1].1);
    for ((term, sum), whole) in sums.named().into_iter().zip(whole.terms.values()) {
        assert!((sum - whole).abs() < 1e-4 * (1.0 + sum.abs()), "{term}: {sum}, at once {whole}");
        assert!(whole.is_finite(), "{term}");
    }
    for (k, (name, gradient)) in expected.iter().enumerate() {
        let gradient = gradient.as_ref().unwrap();
        let [first, second] = [0, 1].map(|half: usize| halves[half].0[k].1.as_ref().unwrap());
        let largest = gradient.iter().fold(0f32, |largest, v| largest.max(v.abs()));
        for ((a, b), whole) in first.iter().zip(second).zip(gradient) {
            assert!((a + b - whole).abs() <= 2e-3 * largest + 1e-6, "{name}: {a} + {b}, at once {whole}");
        }
    }
    // The weights are those of the config, whatever the terms are.
    let (t, s) = (&whole.terms, &config.situation);
    let situation = t.position + 3.5 * t.orientation + s.tilt_weight * t.tilt;
    assert!((t.loss - (t.ce + 0.05 * t.layout + 0.075 * situation)).abs() < 1e-6);
    assert!((scalar(whole.loss.as_ref().unwrap()).unwrap() - t.loss).abs() < 1e-3 * (1.0 + t.loss.abs()));
}

/// Largest difference.
fn far(a: &Tensor, b: &Tensor) -> f64 {
    scalar(&(a - b).unwrap().abs().unwrap().max_all().unwrap()).unwrap()
}

#[test]
fn the_heads_read_what_one_prefill_of_the_prompt_and_the_tokens_gives() {
    let config = config();
    let student = student(&config);
    let objective = Situation::new(&config, &student).unwrap();
    let mut windows = objective.batch(0, &[0, 1]).unwrap();
    let reading = objective.read(&student.model, &windows, None).unwrap();
    assert_eq!(reading.pose.position.mean.dims(), [2 * ASKED, 3]);

    // The second window by itself, without its response: as the node will ask.
    let answer = windows[1].example.sequence.clone();
    let prompt = answer.response;
    let asked = question(&answer, student.tokenizer.pad);
    assert_eq!((asked.ids.len(), asked.response), (prompt + TOKENS, prompt + TOKENS));
    assert_eq!(asked.positions[prompt], answer.positions[prompt], "where a response would begin");
    let alone =
        Sequence { ids: answer.ids[..prompt].to_vec(), positions: answer.positions[..prompt].to_vec(), ..answer };
    let embedded = batch::embed(&student.model, &Batch::new([&alone], 0), [&alone], false).unwrap();
    let behind = |rows: &Tensor, more: &Tensor| Tensor::cat(&[rows, &more.unsqueeze(0).unwrap()], 1).unwrap();
    let learned = objective.heads.pose.tokens().unwrap();
    let zeros = learned.zeros_like().unwrap();
    let embeddings = Embeddings {
        tokens: behind(&embedded.tokens, &learned),
        deepstack: embedded.deepstack.iter().map(|features| behind(features, &zeros)).collect(),
    };
    let batch = Batch::new([&asked], 0);
    let hidden = batch::decode(&student.model, &batch, &embeddings, None, &mut |_, _| {}).unwrap();
    let rows: Vec<u32> = (0..TOKENS as u32).map(|token| prompt as u32 + token).collect();
    let pose = objective.heads.pose.read(&select(&hidden, &rows).unwrap()).unwrap();
    let second = |of: &Tensor| of.narrow(0, ASKED, ASKED).unwrap();
    assert!(far(&second(&reading.pose.position.mean), &pose.position.mean) < 1e-4);
    assert!(far(&second(&reading.pose.position.log_variance), &pose.position.log_variance) < 1e-4);
    assert!(far(&second(&reading.pose.yaw), &pose.yaw) < 1e-4);
    assert!(far(&second(&reading.pose.tilt.as_ref().unwrap().mean), &pose.tilt.unwrap().mean) < 1e-4);

    // Nothing of a response reaches the tokens.
    for window in &mut windows {
        let response = window.example.sequence.response;
        window.example.sequence.ids[response..].fill(student.tokenizer.pad);
    }
    let other = objective.read(&student.model, &windows, None).unwrap();
    assert!(far(&other.text.unwrap().0, &reading.text.unwrap().0) > 1e-3);
    assert!(far(&other.pose.position.mean, &reading.pose.position.mean) < 1e-5);
}

#[test]
fn a_window_without_depth_teaches_all_but_the_layout() {
    let mut config = config();
    // Without text there are no answers, and the tower still runs.
    config.text.weight = 0.0;
    let student = student(&config);
    let objective = Situation::new(&config, &student).unwrap();
    let mut windows = objective.batch(0, &[0, 1]).unwrap();
    assert!(windows.iter().all(|w| w.example.sequence.ids.len() == w.example.sequence.response));
    let seen = objective.counts(&windows);
    windows[1].layout.fill(None);
    let totals = objective.counts(&windows);
    assert!(totals.layout > 0.0 && totals.layout < seen.layout);
    assert!((totals.position - seen.position).abs() < 1e-9 && totals.ce.abs() < 1e-9);
    let blind = vec![windows[1].clone()];
    let share = objective.loss(&blind, &totals, None).unwrap();
    assert!(share.terms.layout.abs() < 1e-12 && share.terms.orientation > 0.0 && share.terms.ce.abs() < 1e-12);
    for (name, gradient) in gradients(&objective, &share) {
        assert_eq!(gradient.is_some(), !name.starts_with("aux.layout."), "{name}");
    }
    // The two together: the layout is that of the window with depth.
    let both = objective.loss(&windows, &totals, None).unwrap();
    let alone = objective.loss(&vec![windows[0].clone()], &totals, None).unwrap();
    assert!((both.terms.layout - alone.terms.layout).abs() < 1e-4 * (1.0 + alone.terms.layout.abs()));
}

#[test]
fn a_network_for_depth_that_is_not_there_is_named_at_the_start() {
    let mut config = config();
    let weights = "nowhere/DA3-SMALL".into();
    config.data.depth = Some(DepthConfig { weights, side: 252, confidence: 1.0, device: "cpu".to_owned() });
    let error = Situation::new(&config, &student(&config)).err().map(|error| format!("{error:#}")).unwrap();
    assert!(error.contains("nowhere/DA3-SMALL"), "{error}");
}

#[test]
fn a_few_steps_on_two_windows_lower_the_loss() {
    let config = config();
    let student = student(&config);
    let objective = Situation::new(&config, &student).unwrap();
    let windows = objective.batch(0, &[0, 1]).unwrap();
    let totals = objective.counts(&windows);
    let mut losses = Vec::new();
    for _ in 0..16 {
        let share = objective.loss(&windows, &totals, None).unwrap();
        losses.push(share.terms.loss);
        let store = share.loss.unwrap().backward().unwrap();
        let variables = named(&student.variables);
        let squares = variables.iter().filter_map(|(_, var)| store.get(var.as_tensor()));
        let norm = squares.map(|g| scalar(&g.sqr().unwrap().sum_all().unwrap()).unwrap()).sum::<f64>().sqrt();
        // Plain gradient descent, each step of one length.
        for (_, var) in &variables {
            if let Some(gradient) = store.get(var.as_tensor()) {
                let step = (gradient * (0.02 / norm)).unwrap();
                var.set(&(var.as_tensor() - step).unwrap().detach()).unwrap();
            }
        }
    }
    assert!(losses[15] < losses[0] - 0.05, "{losses:?}");
}

#[test]
fn the_hold_out_is_judged_beside_the_mean_pose() {
    let mut config = config();
    let student = student(&config);
    config.eval = Some(EvalConfig { source: "synth:seed=22,windows=3,size=64x48".to_owned(), windows: 2 });
    let objective = Situation::new(&config, &student).unwrap();
    let figures = objective.evaluate(0).unwrap();
    assert_eq!(figures[0].0, "loss", "the best checkpoint is chosen by it");
    assert!(figures.iter().all(|(_, value)| value.is_finite()), "{figures:?}");
    let names: std::collections::BTreeSet<_> = figures.iter().map(|(name, _)| *name).collect();
    assert!(names.len() == figures.len() && names.contains("mean_pose_yaw_median_deg"), "{figures:?}");
    for name in ["layout_median", "mean_layout_within_0.5", "ray_layout_median"] {
        assert!(names.contains(name), "{name}: {figures:?}");
    }
    assert_eq!(objective.inputs()["data"]["ground_plane"], "level, z where camera 0 looks");
    // What is judged is what is trained: kernels and cuts differ, the loss does not.
    let totals = objective.counts(&objective.hold_out);
    let trained = objective.loss(&objective.hold_out, &totals, None).unwrap().terms.loss;
    assert!((trained - figures[0].1).abs() < 1e-3 * (1.0 + trained.abs()), "{trained} {}", figures[0].1);
}

#[test]
fn the_same_seed_gives_the_same_heads_and_a_checkpoint_keeps_them() {
    let dir = tempfile::tempdir().unwrap();
    let heads = |name: &str, seed: u64| {
        let mut config = config();
        config.run.seed = seed;
        let out = dir.path().join(name);
        assert_eq!(run(&config, None, &out, &Job::default()).unwrap(), Finished::Done);
        candle_core::safetensors::load(out.join("aux_heads.safetensors"), &Device::Cpu).unwrap()
    };
    let (a, b, other) = (heads("a", 1), heads("b", 1), heads("c", 2));
    assert_eq!(a.len(), 15);
    let bits = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    for (name, tensor) in &a {
        assert!(bits(tensor) == bits(&b[name]), "{name}");
        // Biases begin at zero, and Adam's first step is as long for all seeds.
        assert!(tensor.rank() < 2 || bits(tensor) != bits(&other[name]), "{name}");
    }
}

#[test]
fn the_node_reads_off_a_run_what_the_stage_evaluates() {
    let (config, dir) = (config(), tempfile::tempdir().unwrap());
    assert_eq!(run(&config, None, dir.path(), &Job::default()).unwrap(), Finished::Done);

    // As the stage goes on with its own run.
    let student = Student::load(dir.path(), &Device::Cpu).unwrap();
    let objective = Situation::new(&config, &student).unwrap();
    student.load_heads(dir.path()).unwrap();
    let windows = objective.batch(0, &[0, 1]).unwrap();
    let reading = objective.read(&student.model.for_inference(), &windows, None).unwrap();
    let evaluated = objective.estimates(&reading).unwrap();

    let model = EgoModel::load(dir.path(), &Device::Cpu).unwrap();
    let head = PoseHead::load(dir.path(), None, model.network()).unwrap();
    for (k, evaluated) in (0..).zip(evaluated.chunks(ASKED)) {
        let sample = objective.data.sample(k).unwrap();
        let encode = |image| model.encode(&model.preprocess(image, &sample.intrinsics).unwrap()).unwrap();
        let frames = sample.images.each_ref().map(encode);
        let poses = model.poses(&head, &frames.each_ref()).unwrap().unwrap();
        for (frame, evaluated) in poses.frames.iter().zip(evaluated) {
            let (a, b) = (frame.pose, evaluated.pose);
            assert!((a.position - b.position).norm() < 1e-4, "{a:?}, evaluated {b:?}");
            for (a, b) in [(a.yaw, b.yaw), (a.pitch, b.pitch), (a.roll, b.roll)] {
                assert!((a - b).abs() < 1e-4, "{a}, evaluated {b}");
            }
            assert!((frame.stddev.xz().norm() - evaluated.sigma).abs() < 1e-4, "{frame:?}");
            assert!(a.position.norm() > 1e-3, "heads that say nothing would agree too: {a:?}");
        }
    }
}

#[test]
fn heads_beside_an_adapter_know_it_and_its_base_and_what_is_exported_of_them() {
    let (mut config, dir) = (config(), tempfile::tempdir().unwrap());
    let [base, other, out, quantized, merged] =
        ["base", "other", "run", "quantized", "merged"].map(|name| dir.path().join(name));
    student(&config).save(&base).unwrap();
    config.run.seed += 1;
    student(&config).save(&other).unwrap();
    config.lora = Some(Adapter { r: 4, alpha: 8.0, dropout: 0.0, targets: vec!["q_proj".into(), "down_proj".into()] });
    assert_eq!(run(&config, Some(&base), &out, &Job::default()).unwrap(), Finished::Done);

    let load = |weights: &Path, adapter: Option<&Path>| {
        let model = EgoModel::load_adapted(weights, adapter, &Device::Cpu).unwrap();
        PoseHead::load(weights, adapter, model.network()).map(|_| ()).map_err(|error| error.to_string())
    };
    load(&base, Some(&out)).unwrap();
    load(&base, Some(&out.join("checkpoints/step-000001"))).unwrap();
    let error = load(&other, Some(&out)).unwrap_err();
    let named = [other.display().to_string(), out.join("pose_head.json").display().to_string()];
    assert!(named.iter().all(|path| error.contains(path)), "{error}");

    // Beside the base in smaller types, and merged into it.
    export(&base, None, Recipe::Q8_0, &quantized).unwrap();
    load(&quantized, Some(&out)).unwrap();
    model::weights::merge(&base, Some(&out), DType::F16, &merged).unwrap();
    model::pose_head::copy(&out, &merged).unwrap();
    load(&merged, None).unwrap();
    // The base alone is not what they were trained beside.
    model::pose_head::copy(&out, &base).unwrap();
    assert!(load(&base, None).unwrap_err().contains("trained beside"));
}
