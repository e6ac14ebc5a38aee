//! The objective on a model that is too small to learn anything.

use candle_core::{Device, Var};
use model::lora::{LoraConfig, Targets as Modules};

use super::*;
use crate::student::{Shape, named};
use crate::trainer::config::path_of;
use training_data::synth::SynthSequence;

pub(crate) fn student() -> Student {
    Student::new(&Shape::tiny(), 0).unwrap()
}

pub(crate) fn data() -> DataConfig {
    let sets = "synth:seed=4,windows=1000,size=128x96".to_owned();
    DataConfig { sets, fewest: 3, most: 3, reach: 48, sizes: Vec::new(), depth: None }
}

pub(crate) fn mix() -> MixConfig {
    let windows = Some("synth:seed=3,windows=1000".to_owned());
    MixConfig { every: 3, instruct: None, images: None, video_frames: 8, image_pixels: 1 << 20, windows }
}

pub(crate) fn gasp() -> GaspConfig {
    GaspConfig {
        layers: "all".to_owned(),
        width: 16,
        tau: 0.07,
        correspondence_weight: 1.0,
        depth_weight: 0.1,
        negatives: Negatives::AllFrames,
        anchors: 500,
        min_known: 0.5,
        max_spread: 0.25,
        number_sigma: 0.0,
        tail_weight: 1.0,
    }
}

/// A recording with depth in our own layout.
pub(crate) fn record(film: &SynthSequence, directory: &Path) {
    for folder in ["frames", "depth"] {
        std::fs::create_dir_all(directory.join(folder)).unwrap();
    }
    let k = film.intrinsics;
    for (i, image) in film.images.iter().enumerate() {
        image.save(directory.join(format!("frames/{i:06}.png"))).unwrap();
        let steps = film.depth[i].iter().map(|d| (d * 1000.0).round() as u16).collect();
        let steps = image::ImageBuffer::<image::Luma<u16>, Vec<u16>>::from_raw(k.width, k.height, steps).unwrap();
        steps.save(directory.join(format!("depth/{i:06}.png"))).unwrap();
    }
    let poses: Vec<_> = film.world_from_camera.iter().map(|pose| pose.to_matrix_row_major().to_vec()).collect();
    let text = json!({
        "name": "film", "width": k.width, "height": k.height, "metric": true, "num_frames": poses.len(),
        "timestamps": null, "intrinsics": {"fx": k.fx, "fy": k.fy, "cx": k.cx, "cy": k.cy},
        "pose_convention": "camera_to_world", "camera_axes": "opencv (x right, y down, z forward)", "poses": poses,
    });
    std::fs::write(directory.join("sequence.json"), text.to_string()).unwrap();
}

fn config() -> Config {
    let shipped = read_config(&path_of("nano-gasp.toml")).unwrap();
    let eval = EvalConfig {
        sets: "synth:seed=8,windows=5,size=128x96".to_owned(),
        examples: 2,
        instruct: None,
        windows: Some("synth:seed=9,windows=5".to_owned()),
    };
    let data = DataConfig { sizes: vec![[128, 96]], most: 4, ..data() };
    Config { gasp: gasp(), data, mix: mix(), eval: Some(eval), ..shipped }
}

/// An adapter beside the tiny model whose B are not zero, so that its A have gradients.
fn adapted(dir: &Path) -> Student {
    student().save(dir).unwrap();
    let targets = Modules::Names(["q_proj", "k_proj", "v_proj", "o_proj", "down_proj"].map(str::to_owned).to_vec());
    let student = Student::adapted(dir, LoraConfig::new(4, 8.0, targets), 1, &Device::Cpu).unwrap();
    for (name, var) in named(&student.variables) {
        if name.ends_with("lora_B") {
            let values: Vec<f32> = (0..var.elem_count()).map(|i| ((i * 37 % 11) as f32 - 5.0) * 0.01).collect();
            var.set(&Tensor::from_vec(values, var.shape(), &Device::Cpu).unwrap()).unwrap();
        }
    }
    student
}

type Gradients = Vec<(String, Option<Vec<f32>>)>;

/// Terms of a step, and the gradient of every variable, where its examples are cut into micro-batches.
fn step(gasp: &Gasp<'_>, cut: &[&[u64]], checkpointing: bool) -> (GaspTerms, Gradients) {
    let variables: Vec<(String, Var)> = named(&gasp.student.variables);
    let batches: Vec<Vec<Example>> = cut.iter().map(|numbers| gasp.batch(0, numbers).unwrap()).collect();
    let totals = batches.iter().fold(GaspTerms::default(), |sum, batch| sum.plus(gasp.counts(batch)));
    let mut terms = GaspTerms::default();
    let mut gradients: Gradients = variables.iter().map(|(name, _)| (name.clone(), None)).collect();
    for batch in &batches {
        let recomputation = Recomputation::new(variables.iter().map(|(_, var)| var.as_tensor()));
        let share = gasp.loss(batch, &totals, checkpointing.then_some(&recomputation)).unwrap();
        terms = terms.plus(share.terms);
        let store = share.loss.unwrap().backward().unwrap();
        for ((_, var), (_, sum)) in variables.iter().zip(&mut gradients) {
            let Some(gradient) = recomputation.gradient(&store, var).unwrap() else { continue };
            let gradient = gradient.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            match sum {
                Some(sum) => sum.iter_mut().zip(&gradient).for_each(|(a, b)| *a += b),
                None => *sum = Some(gradient),
            }
        }
    }
    (terms, gradients)
}

/// Largest difference of two sets of gradients, as a share of the largest gradient of the variable.
fn apart(a: &Gradients, b: &Gradients) -> f32 {
    type Named = (String, Option<Vec<f32>>);
    let of = |((name, a), (_, b)): (&Named, &Named)| {
        let (Some(a), Some(b)) = (a, b) else { panic!("{name} has no gradient") };
        let largest = a.iter().fold(1e-6f32, |m, v| m.max(v.abs()));
        a.iter().zip(b).map(|(a, b)| (a - b).abs() / largest).fold(0.0, f32::max)
    };
    a.iter().zip(b).map(of).fold(0.0, f32::max)
}

#[test]
fn every_variable_of_model_and_heads_learns() {
    let (config, student) = (Config { eval: None, ..config() }, student());
    let gasp = Gasp::new(&config, &student, None).unwrap();
    let (terms, gradients) = step(&gasp, &[&[1, 2]], false);
    let losses = [terms.lm, terms.correspondence, terms.depth];
    assert!(losses.iter().all(|&term| term > 0.0 && term.is_finite()), "{terms:?}");
    assert!((0.0..1.0).contains(&terms.depth) && (0.0..=1.0).contains(&terms.pck), "{terms:?}");
    for (name, gradient) in &gradients {
        let gradient = gradient.as_ref().unwrap_or_else(|| panic!("{name} has no gradient"));
        assert!(gradient.iter().all(|v| v.is_finite()), "{name}");
        let moves = gradient.iter().any(|v| v.abs() > 0.0);
        assert!(moves || !name.starts_with(HEAD_PREFIX), "{name} is never moved");
        assert!(gasp.trains(0, name));
    }
    let heads = gradients.iter().filter(|(name, _)| name.starts_with("aux.gasp.")).count();
    assert_eq!(heads, 2 * 4, "two matrices and their biases on two layers");
    assert!(!gasp.trains(0, "aux.pose.weight"), "a head of another stage");
}

#[test]
fn the_adapter_learns_from_the_correspondence_alone_also_where_layers_are_checkpointed() {
    let dir = tempfile::tempdir().unwrap();
    let (config, student) = (Config { eval: None, ..config() }, adapted(dir.path()));
    let gasp = Gasp::new(&config, &student, None).unwrap();
    let (plain, kept) = (step(&gasp, &[&[0]], false), step(&gasp, &[&[0]], true));
    for (name, gradient) in &plain.1 {
        let gradient = gradient.as_ref().unwrap_or_else(|| panic!("{name} has no gradient"));
        assert!(gradient.iter().any(|v| v.abs() > 0.0), "{name} is never moved");
    }
    assert!(plain.1.iter().any(|(name, _)| name.contains("layers.1.mlp.down_proj.lora_A")));
    assert!(apart(&plain.1, &kept.1) < 1e-3, "{}", apart(&plain.1, &kept.1));
    let same = plain.0.values().into_iter().zip(kept.0.values()).all(|(a, b)| (a - b).abs() < 1e-5);
    assert!(same, "{:?} {:?}", plain.0, kept.0);
}

/// Similarities of anchors and tokens, in each layer: with 24 frames of 24 x 24 tokens they would be the largest of what is kept.
#[test]
fn similarities_are_not_kept_where_layers_are_checkpointed() {
    let (config, student) = (Config { eval: None, ..config() }, student());
    // As many as no matrix of the student has rows.
    let config = Config { gasp: GaspConfig { anchors: 31, ..gasp() }, ..config };
    let gasp = Gasp::new(&config, &student, None).unwrap();
    let batch = gasp.batch(0, &[0]).unwrap();
    let Example::Set(set) = &batch[0] else { panic!("the first is a set") };
    let similarities = [set.1.anchors.len(), set.1.depth.len()];
    let recomputation = Recomputation::new(named(&student.variables).iter().map(|(_, var)| var.as_tensor()));
    let kept = |recomputation: Option<&Recomputation>| {
        let terms = gasp.set(&student.model, set, recomputation, None).unwrap();
        let sum = (terms.correspondence + terms.depth.unwrap()).unwrap();
        (sum.sorted_nodes().iter().filter(|node| node.dims() == similarities).count(), terms.hits)
    };
    let (plain, recomputed) = (kept(None), kept(Some(&recomputation)));
    assert!(plain.0 >= 2 * 3, "{plain:?}");
    assert_eq!(recomputed.0, 0, "{similarities:?} {plain:?}");
    assert!((plain.1 - recomputed.1).abs() < 1e-9, "as many are found: {plain:?} {recomputed:?}");
}

#[test]
fn a_step_is_the_same_however_it_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let (config, student) = (Config { eval: None, ..config() }, adapted(dir.path()));
    let gasp = Gasp::new(&config, &student, None).unwrap();
    // Sets of frames with language among them, and sets of different sizes among each other.
    let whole = step(&gasp, &[&[0, 1, 2, 3]], false);
    let cuts: [&[&[u64]]; 2] = [&[&[0, 1], &[2, 3]], &[&[3], &[1, 2], &[0]]];
    for cut in cuts {
        let parts = step(&gasp, cut, false);
        let same =
            whole.0.values().into_iter().zip(parts.0.values()).all(|(a, b)| (a - b).abs() < 1e-5 * a.abs().max(1.0));
        assert!(same, "{:?} {:?}", whole.0, parts.0);
        assert!(apart(&whole.1, &parts.1) < 1e-3, "{}", apart(&whole.1, &parts.1));
    }
}

#[test]
fn the_switch_of_the_negatives_and_the_layers_reach_the_loss() {
    let student = student();
    let terms = |change: &dyn Fn(&mut GaspConfig)| {
        let mut config = Config { eval: None, ..config() };
        change(&mut config.gasp);
        let gasp = Gasp::new(&config, &student, None).unwrap();
        let batch = gasp.batch(0, &[0]).unwrap();
        gasp.loss(&batch, &gasp.counts(&batch).or_one(), None).unwrap().terms
    };
    let all = terms(&|_| {});
    let target = terms(&|c| c.negatives = Negatives::TargetFrame);
    assert!((target.correspondence - all.correspondence).abs() > 1e-3, "other negatives: {target:?} {all:?}");
    assert!((target.depth - all.depth).abs() < 1e-6, "depth does not depend on them");
    let patches = terms(&|c| c.negatives = Negatives::AllPatches);
    assert!(patches.correspondence > all.correspondence, "more negatives: {patches:?} {all:?}");
    assert!((patches.depth - all.depth).abs() < 1e-6, "{patches:?} {all:?}");
    let (first, second) = (terms(&|c| c.layers = "0".to_owned()), terms(&|c| c.layers = "1".to_owned()));
    let mean = 0.5 * (first.correspondence + second.correspondence);
    assert!((mean - all.correspondence).abs() < 1e-4, "a mean over layers: {first:?} {second:?} {all:?}");
}

#[test]
fn the_hold_out_has_figures_and_its_language_is_no_part_of_the_stream() {
    let (config, student) = (config(), student());
    let gasp = Gasp::new(&config, &student, None).unwrap();
    let kinds: Vec<bool> = gasp.hold_out.iter().map(|e| matches!(e, Example::Language(_))).collect();
    assert_eq!(kinds, [false, true, false, true]);
    let figures = gasp.evaluate(0).unwrap();
    assert_eq!(figures.iter().map(|(name, _)| *name).collect::<Vec<_>>(), FIGURES);
    let of = |wanted: &str| figures.iter().find(|(name, _)| *name == wanted).unwrap().1;
    assert!((of("loss") - of("lm") - of("correspondence") - 0.1 * of("depth")).abs() < 1e-9);
    for share in ["depth", "pck_head", "pck_qk", "chance"] {
        assert!((0.0..=1.0).contains(&of(share)), "{share}: {}", of(share));
    }
    // On 4 x 3 tokens most guesses are near.
    assert!(of("chance") > 0.4, "{}", of("chance"));
    let inputs = gasp.inputs();
    assert_eq!(inputs["hold_out"]["sets"]["source"], "synth:seed=8,windows=5,size=128x96");
    let narrow = Config { data: DataConfig { sizes: vec![[128, 96], [100, 96]], ..data() }, ..config.clone() };
    let error = Gasp::new(&narrow, &student, None).err().unwrap();
    let told = format!("{error:#}");
    assert!(told.contains("data.sizes") && told.contains("100x96"), "{told}");
}
