//! The stage `chains`: what is in the shards, and that no kill, no other process and no bad file spoils them.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use geometry::WINDOW;
use model::answer::chain;
use serde_json::Value;
use training_data::chains::shards;

const DATA: &str = "synth:seed=3,windows=24,size=160x96";

fn training(data: &str, out: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_training"));
    command.args(["chains", "--data", data, "--per-shard", "4", "--out"]).arg(out).args(more);
    command
}

fn output(data: &str, out: &Path, more: &[&str]) -> (Option<i32>, String, String) {
    let output = training(data, out, more).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// Every finished shard by name.
fn tars(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    let tars = files.filter(|p| p.extension().is_some_and(|e| e == "tar"));
    tars.map(|p| (p.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(&p).unwrap())).collect()
}

fn samples(dir: &Path) -> Vec<shards::Sample> {
    let mut all = Vec::new();
    for name in tars(dir).keys() {
        shards::read(&dir.join(name), |sample| {
            all.push(sample);
            Ok(())
        })
        .unwrap();
    }
    all
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn chains_parse_and_hold_together() {
    let dir = tempfile::tempdir().unwrap();
    let (code, stdout, stderr) = output(DATA, dir.path(), &[]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("6 of 6 shards (6 made now)"), "{stdout}");
    let all = samples(dir.path());
    let manifest = json(&dir.path().join("manifest.json"));
    assert_eq!(manifest["counts"]["written"], all.len());
    assert!(all.len() >= 12, "{manifest}");
    let mut keys: Vec<&str> = all.iter().map(|s| s.key.as_str()).collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), all.len(), "no sample twice");
    for sample in &all {
        let text = |extension: &str| String::from_utf8(sample.files[extension].clone()).unwrap();
        let about: Value = serde_json::from_str(&text("json")).unwrap();
        let parsed = chain::parse(&text("txt"));
        assert_eq!(parsed.steps(), [true; 5], "{}", sample.key);
        let (points, trajectory) = (parsed.points.unwrap(), parsed.trajectory.unwrap());
        let short = chain::parse_poses(&text("poses.txt")).unwrap();
        for i in 0..WINDOW {
            let (a, b) = (&short.anchor_from_camera()[i], &trajectory.anchor_from_camera()[i]);
            assert!((a.inverse() * *b).translation().norm() < 1e-12, "both answers say the same");
            let frame = image::load_from_memory(&sample.files[&format!("{i}.png")]).unwrap();
            assert_eq!(frame.width(), about["intrinsics"]["width"].as_u64().unwrap() as u32);
        }
        // Step 3 is what a program makes of the printed pixels and depths, step 4 what it makes of the printed points.
        let camera: geometry::Intrinsics = serde_json::from_value(about["intrinsics"].clone()).unwrap();
        let exact = chain::back_projected(&parsed.pixels.unwrap(), &parsed.depths.unwrap(), &camera);
        assert_eq!(exact, points, "{}", sample.key);
        let aligned = chain::aligned(&points).unwrap();
        for (printed, exact) in parsed.camera_from_anchor.unwrap().iter().zip(&aligned) {
            let off = (printed.rotation - exact.rotation_matrix()).abs().max();
            assert!(off <= 0.5e-6 && (printed.translation - exact.translation()).abs().max() <= 0.5e-6, "{off}");
        }
        // Those are the final poses, within the rounding of 0.1 px.
        for i in 1..WINDOW {
            let from: Vec<_> = points.iter().map(|p| p[0]).collect();
            let to: Vec<_> = points.iter().map(|p| p[i]).collect();
            let camera_from_anchor = geometry::kabsch(&from, &to).unwrap();
            let expected = trajectory.anchor_from_camera()[i].inverse();
            let angle = camera_from_anchor.rotation.angle_to(&expected.rotation()).to_degrees();
            assert!(angle < 1.0, "{}: frame {i}: {angle} degrees", sample.key);
        }
    }
}

#[test]
fn processes_that_share_the_work_write_what_one_writes() {
    let (one, shared) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    assert_eq!(output(DATA, one.path(), &["--workers", "1"]).0, Some(0));
    let (_, stdout, _) = output(DATA, shared.path(), &["--shard", "1/2"]);
    assert!(stdout.contains("3 of 6 shards (3 made now)"), "{stdout}");
    assert!(!shared.path().join("manifest.json").exists(), "the other half is not there yet");
    let (_, stdout, _) = output(DATA, shared.path(), &["--shard", "0/2"]);
    assert!(stdout.contains("6 of 6 shards (3 made now)"), "{stdout}");
    assert_eq!(tars(one.path()), tars(shared.path()));
    assert_eq!(json(&one.path().join("manifest.json")), json(&shared.path().join("manifest.json")));
    // Once more: nothing is left to do.
    let (_, stdout, _) = output(DATA, shared.path(), &[]);
    assert!(stdout.contains("(0 made now)"), "{stdout}");
    // Other settings would make another set.
    let (code, _, stderr) = output(DATA, shared.path(), &["--seed", "7"]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("settings.json: seed"), "{stderr}");
    let (code, _, stderr) = output(DATA, shared.path(), &["--shard", "2/2"]);
    assert!(code != Some(0) && stderr.contains("expected I/N"), "{stderr}");
}

#[test]
fn a_kill_at_any_moment_neither_loses_nor_doubles_a_sample() {
    let (whole, killed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    assert_eq!(output(DATA, whole.path(), &[]).0, Some(0));
    let mut kills = 0;
    let begun = Instant::now();
    for wait_ms in [60, 120, 200, 300, 450, 700] {
        let mut child = training(DATA, killed.path(), &["--workers", "1"])
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let until = Instant::now() + Duration::from_millis(wait_ms);
        while Instant::now() < until && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(5));
        }
        kills += usize::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(begun.elapsed() < Duration::from_secs(60));
    }
    assert!(kills > 0, "nothing was killed");
    assert_eq!(output(DATA, killed.path(), &[]).0, Some(0));
    assert_eq!(tars(whole.path()), tars(killed.path()));
    assert_eq!(json(&whole.path().join("manifest.json")), json(&killed.path().join("manifest.json")));
}

#[test]
fn a_shard_that_was_cut_altered_or_removed_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    assert_eq!(output(DATA, dir.path(), &[]).0, Some(0));
    let (whole, manifest) = (tars(dir.path()), json(&at("manifest.json")));
    let bytes = |shard: usize| whole[&format!("chains-00000{shard}.tar")].clone();
    let cut = bytes(0);
    std::fs::write(at("chains-000000.tar"), &cut[..cut.len() / 2]).unwrap();
    // Of the same size: within the first file of the first sample.
    let mut altered = bytes(1);
    altered[512] ^= 1;
    std::fs::write(at("chains-000001.tar"), altered).unwrap();
    std::fs::remove_file(at("chains-000002.tar")).unwrap();
    // With its note, so that only the manifest tells.
    std::fs::write(at("chains-000003.tar"), bytes(4)).unwrap();
    std::fs::copy(at("chains-000004.json"), at("chains-000003.json")).unwrap();
    std::fs::remove_file(at("chains-000005.json")).unwrap();
    let (code, stdout, stderr) = output(DATA, dir.path(), &[]);
    assert_eq!(code, Some(0), "{stderr}");
    let says = "6 of 6 shards (5 made now, 5 of them again, since what was there had changed)";
    assert!(stdout.contains(says), "{stdout}");
    for name in ["000000.tar", "000001.tar", "000002.tar", "000003.json", "000005.json"] {
        assert!(stderr.lines().any(|line| line.contains(name) && line.contains("made again")), "{name}: {stderr}");
    }
    assert_eq!((tars(dir.path()), json(&at("manifest.json"))), (whole.clone(), manifest));
    let (_, stdout, _) = output(DATA, dir.path(), &[]);
    assert!(stdout.contains("6 of 6 shards (0 made now)"), "{stdout}");

    // Without a manifest sizes tell, and a shard of another part that does not fit is none.
    std::fs::remove_file(at("manifest.json")).unwrap();
    std::fs::write(at("chains-000000.tar"), "").unwrap();
    std::fs::write(at("chains-000001.tar"), "").unwrap();
    let (_, stdout, _) = output(DATA, dir.path(), &["--shard", "1/2"]);
    assert!(stdout.contains("5 of 6 shards (1 made now, 1 of them again"), "{stdout}");
    let (_, stdout, _) = output(DATA, dir.path(), &[]);
    assert!(stdout.contains("6 of 6 shards (1 made now, 1 of them again"), "{stdout}");
    assert_eq!(tars(dir.path()), whole);
}

#[test]
fn a_full_disk_is_named_and_leaves_nothing_that_looks_finished() {
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/dev/full", dir.path().join("chains-000002.tar.part")).unwrap();
    let (code, _, stderr) = output(DATA, dir.path(), &["--workers", "1"]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("chains-000002.tar") && stderr.contains("No space left"), "{stderr}");
    assert!(!dir.path().join("chains-000002.json").exists() && !dir.path().join("manifest.json").exists());
    std::fs::remove_file(dir.path().join("chains-000002.tar.part")).unwrap();
    assert_eq!(output(DATA, dir.path(), &[]).0, Some(0));
    assert!(dir.path().join("manifest.json").exists());
}

/// A recorded film with depth, as `sequence.json`.
fn film(dir: &Path) {
    let film = training_data::synth::sequence(3, 5, 9, (160, 96));
    for sub in ["frames", "depth"] {
        std::fs::create_dir_all(dir.join(sub)).unwrap();
    }
    for (i, image) in film.images.iter().enumerate() {
        image.save(dir.join(format!("frames/{i:06}.png"))).unwrap();
        let steps = film.depth[i].iter().map(|d| (d * 1000.0).round() as u16).collect();
        let steps: image::ImageBuffer<image::Luma<u16>, Vec<u16>> =
            image::ImageBuffer::from_raw(160, 96, steps).unwrap();
        steps.save(dir.join(format!("depth/{i:06}.png"))).unwrap();
    }
    let k = film.intrinsics;
    let poses: Vec<_> = film.world_from_camera.iter().map(|pose| pose.to_matrix_row_major().to_vec()).collect();
    let text = serde_json::json!({
        "name": "film", "width": 160, "height": 96, "metric": true, "num_frames": 9, "timestamps": null,
        "intrinsics": {"fx": k.fx, "fy": k.fy, "cx": k.cx, "cy": k.cy},
        "pose_convention": "camera_to_world", "camera_axes": "opencv", "poses": poses,
    });
    std::fs::write(dir.join("sequence.json"), text.to_string()).unwrap();
}

#[test]
fn a_frame_that_cannot_be_read_is_named_and_counted_and_the_rest_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (data, out) = (dir.path().join("film"), dir.path().join("out"));
    film(&data);
    let png = data.join("frames/000007.png");
    let bytes = std::fs::read(&png).unwrap();
    std::fs::write(&png, &bytes[..bytes.len() / 2]).unwrap();
    let (code, stdout, stderr) = output(data.to_str().unwrap(), &out, &[]);
    assert_eq!(code, Some(1), "the exit status tells");
    assert!(stderr.contains("000007.png"), "{stderr}");
    assert!(stdout.contains("2 unreadable"), "windows 3 and 4 of 5 have frame 7: {stdout}");
    let manifest = json(&out.join("manifest.json"));
    assert!(manifest["counts"]["written"].as_u64().unwrap() >= 1, "{manifest}");
    assert!(manifest["counts"]["unreadable"][0].as_str().unwrap().contains("000007.png"));
}

/// Sequences that may not leave the machine they are on.
fn real(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/real").join(name)
}

/// Printed pixels lie on the epipolar lines of the true poses up to their rounding.
fn assert_reprojection(sample: &shards::Sample) {
    let about: Value = serde_json::from_slice(&sample.files["json"]).unwrap();
    let k: geometry::Intrinsics = serde_json::from_value(about["intrinsics"].clone()).unwrap();
    let poses: Vec<[f64; 16]> = serde_json::from_value(about["anchor_from_camera"].clone()).unwrap();
    let poses: Vec<geometry::Transform<geometry::Anchor, geometry::Camera>> =
        poses.iter().map(|m| geometry::Transform::from_matrix_row_major(m).unwrap()).collect();
    let parsed = chain::parse(std::str::from_utf8(&sample.files["txt"]).unwrap());
    let tracks = parsed.pixels.unwrap();
    let mut errors = Vec::new();
    for i in 1..WINDOW {
        let Ok(f) = geometry::epipolar::fundamental(&poses[0], &poses[i], &k, &k) else { continue };
        errors.extend(tracks.iter().filter_map(|t| geometry::epipolar::symmetric_distance(&f, &t[0], &t[i])));
    }
    let mean = errors.iter().sum::<f64>() / errors.len().max(1) as f64;
    assert!(mean < 0.2, "{}: {mean} px", sample.key);
}

#[test]
#[ignore = "needs ../shared/data"]
fn shared_chains_of_real_depth_reproject() {
    for name in ["redkitchen_depth", "amazon_box"] {
        let data = real(name);
        let dir = tempfile::tempdir().unwrap();
        let (code, stdout, stderr) =
            output(&format!("{},every=6", data.display()), dir.path(), &["--max-pixels", "307200"]);
        assert_eq!(code, Some(0), "{stderr}");
        let all = samples(dir.path());
        assert!(all.len() >= 5, "{name}: {stdout}");
        all.iter().for_each(assert_reprojection);
    }
}

/// Depth Anything 3 SMALL in the way of the data, with random weights: what it sees is smooth nonsense, but the chains are
/// true to the poses.
#[test]
#[ignore = "needs ../shared/data"]
fn shared_chains_of_estimated_depth_reproject() {
    let clip = real("re10k_0bf152ef84195293");
    let dir = tempfile::tempdir().unwrap();
    let weights = dir.path().join("model.safetensors");
    random_depth_anything(&weights);
    let data = format!("{},every=4", clip.display());
    let with = |bound: &str, out: &str| {
        let weights = weights.to_str().unwrap();
        let more = ["--depth-side", "140", "--depth-weights", weights, "--max-residual", bound];
        output(&data, &dir.path().join(out), &more)
    };
    let (code, stdout, stderr) = with("1e9", "any");
    assert_eq!(code, Some(0), "{stderr}");
    let all = samples(&dir.path().join("any"));
    assert!(!all.is_empty(), "{stdout}");
    for sample in &all {
        let about: Value = serde_json::from_slice(&sample.files["json"]).unwrap();
        assert!(about["depth_residual"].as_f64().unwrap() > 0.0, "{}", sample.key);
        assert_reprojection(sample);
    }
    let (code, _, stderr) = with("0", "none");
    assert_eq!(code, Some(1), "no estimate is exact");
    assert!(stderr.contains("no window gives a chain") && stderr.contains("of inconsistent depth"), "{stderr}");
}

/// The published network with small random weights, from names alone.
fn random_depth_anything(path: &Path) {
    use candle_core::{Device, Tensor};
    let names = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/da3/small_names.json");
    let names: BTreeMap<String, Vec<usize>> = serde_json::from_value(json(&names)).unwrap();
    let tensor = |(name, dims): (String, Vec<usize>)| {
        let fan_in = dims.iter().skip(1).product::<usize>().max(1) as f32;
        let wave = (0..dims.iter().product::<usize>()).map(|i| ((i as f32 * 1.618 + name.len() as f32) * 7.0).sin());
        let values: Vec<f32> = match dims.len() {
            1 if name.ends_with("bias") => wave.map(|w| 0.1 * w).collect(),
            1 => wave.map(|w| 1.0 + 0.1 * w).collect(),
            _ => wave.map(|w| w / fan_in.sqrt()).collect(),
        };
        (name, Tensor::from_vec(values, dims, &Device::Cpu).unwrap())
    };
    candle_core::safetensors::save(&names.into_iter().map(tensor).collect(), path).unwrap();
}
