//! Depth Anything 3 against the public implementation (`tests/fixtures/da3/make_da3.py`). Weights and frames are made
//! from their names on both sides.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use candle_core::{DType, Device, IndexOp, Shape, Tensor};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};
use geometry::{Camera, Intrinsics, Transform, World};
use image::RgbImage;
use nalgebra::{Isometry3, Vector3};
use training_data::depth::{Config, DepthAnything, Given, Reference, decode, encode, resized, scale};

/// Largest difference relative to the largest value.
const TOLERANCE: f32 = 1e-4;
const SIZE: (usize, usize) = (56, 84);

type Names = BTreeMap<String, Vec<usize>>;
type Golden = HashMap<String, Tensor>;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/da3").join(name)
}

fn json<T: serde::de::DeserializeOwned>(name: &str) -> T {
    serde_json::from_slice(&std::fs::read(fixture(name)).unwrap()).unwrap()
}

fn golden() -> Golden {
    candle_core::safetensors::load(fixture("golden.safetensors"), &Device::Cpu).unwrap()
}

/// Uniform in [-1, 1) from splitmix64 over the name's FNV-1a hash plus the index.
fn noise(name: &str, count: usize) -> Vec<f32> {
    let hash = |seed: u64, byte: u8| (seed ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let seed = name.bytes().fold(0xcbf2_9ce4_8422_2325, hash);
    let draw = |i: u64| {
        let mut z = seed.wrapping_add(i.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        ((z >> 40) as f64 / f64::from(1 << 23) - 1.0) as f32
    };
    (1..=count as u64).map(draw).collect()
}

/// The weight that both sides know by its name.
fn weight(name: &str, dims: &[usize]) -> Tensor {
    let fan_in = dims[1..].iter().product::<usize>() as f32;
    let (factor, offset) = match dims.len() {
        1 if name.contains("fc_fov") => (0.25, 1.0),
        _ if name.contains("fc_fov") => (0.02, 0.0),
        _ if name.ends_with("bias") => (0.25, 0.0),
        _ if name.ends_with("gamma") => (0.25, 0.5),
        1 => (0.5, 1.0),
        3 => (0.5, 0.0),
        4 => (1.6 / fan_in.sqrt(), 0.0),
        _ => (2.0 / fan_in.sqrt(), 0.0),
    };
    let values = noise(name, dims.iter().product()).into_iter().map(|value| value * factor + offset).collect();
    Tensor::from_vec::<_, f32>(values, dims, &Device::Cpu).unwrap()
}

/// A checkpoint made of names; remembers which were asked for.
struct Named {
    names: Names,
    zero: bool,
    asked: Arc<Mutex<BTreeSet<String>>>,
}

impl SimpleBackend for Named {
    fn get(&self, shape: Shape, name: &str, _: Init, dtype: DType, device: &Device) -> candle_core::Result<Tensor> {
        assert_eq!(self.names.get(name).map(Vec::as_slice), Some(shape.dims()), "{name}");
        self.asked.lock().unwrap().insert(name.to_owned());
        if self.zero { Tensor::zeros(shape, dtype, device) } else { weight(name, shape.dims()).to_device(device) }
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> candle_core::Result<Tensor> {
        panic!("{name}: a shape was not checked")
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }
}

/// The model, and the names that it left aside.
fn build(config: &Config, names: Names, zero: bool, device: &Device) -> (DepthAnything, Vec<String>) {
    let asked = Arc::default();
    let backend = Named { names: names.clone(), zero, asked: Arc::clone(&asked) };
    let vb = VarBuilder::from_backend(Box::new(backend), DType::F32, device.clone());
    let model = DepthAnything::new(config, vb.pp("model")).unwrap();
    let asked = asked.lock().unwrap();
    (model, names.into_keys().filter(|name| !asked.contains(name)).collect())
}

fn tiny() -> DepthAnything {
    tiny_on(&Device::Cpu)
}

fn tiny_on(device: &Device) -> DepthAnything {
    build(&json("config.json"), json("names.json"), false, device).0
}

fn pixels(views: usize, (height, width): (usize, usize)) -> Tensor {
    let mut values = noise(&format!("{height}x{width}"), views * 3 * height * width);
    for (k, frame) in values.chunks_mut(3 * height * width).enumerate() {
        frame.iter_mut().for_each(|value| *value *= 0.5 + 0.25 * k as f32);
    }
    Tensor::from_vec(values, (views, 3, height, width), &Device::Cpu).unwrap()
}

fn image(name: &str, (height, width): (usize, usize)) -> RgbImage {
    let levels = noise(name, 3 * height * width).into_iter().map(|value| ((value + 1.0) * 128.0) as u8).collect();
    RgbImage::from_raw(width as u32, height as u32, levels).unwrap()
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    let numbers = tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap();
    numbers.to_vec1().unwrap()
}

/// The cameras that the fixture was made with: theirs are world-to-camera, with pixels counted from the corner.
fn given(golden: &Golden) -> Vec<Given> {
    let (extrinsics, intrinsics) = (&golden["posed.given_extrinsics"], &golden["posed.given_intrinsics"]);
    let camera = |k: usize| {
        let matrix: [f64; 16] = numbers(&extrinsics.i(k).unwrap()).try_into().unwrap();
        let k = numbers(&intrinsics.i(k).unwrap());
        let (height, width) = (SIZE.0 as u32, SIZE.1 as u32);
        Given {
            world_from_camera: Transform::<Camera, World>::from_matrix_row_major(&matrix).unwrap().inverse(),
            intrinsics: Intrinsics::new(k[0], k[4], k[2] - 0.5, k[5] - 0.5, width, height).unwrap(),
        }
    };
    (0..extrinsics.dim(0).unwrap()).map(camera).collect()
}

/// World-to-camera matrices `[s, 3, 4]` and intrinsics `[s, 3, 3]` as the public API returns them.
fn public(cameras: &[(Transform<World, Camera>, Intrinsics)]) -> (Tensor, Tensor) {
    let pose = |(pose, _): &(Transform<World, Camera>, Intrinsics)| pose.inverse().to_matrix_row_major()[..12].to_vec();
    let matrix = |(_, k): &(Transform<World, Camera>, Intrinsics)| {
        vec![k.fx, 0.0, k.cx + 0.5, 0.0, k.fy, k.cy + 0.5, 0.0, 0.0, 1.0]
    };
    let stack = |values: Vec<f64>, rows: usize, columns: usize| {
        let tensor = Tensor::from_vec(values, (cameras.len(), rows, columns), &Device::Cpu).unwrap();
        tensor.to_dtype(DType::F32).unwrap()
    };
    let extrinsics = stack(cameras.iter().flat_map(pose).collect(), 3, 4);
    (extrinsics, stack(cameras.iter().flat_map(matrix).collect(), 3, 3))
}

#[track_caller]
fn close(name: &str, got: &Tensor, expected: &Tensor) {
    within(TOLERANCE, name, got, expected);
}

#[track_caller]
fn within(tolerance: f32, name: &str, got: &Tensor, expected: &Tensor) {
    let got = got.reshape(expected.shape()).unwrap();
    let max = |t: Tensor| t.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
    let error = max((got - expected).unwrap()) / max(expected.clone());
    assert!(error < tolerance, "{name}: relative difference {error}");
}

fn every(x: &Tensor, step: usize, dims: &[usize]) -> Tensor {
    dims.iter().fold(x.contiguous().unwrap(), |x, &dim| {
        let kept: Vec<u32> = (0..x.dim(dim).unwrap() as u32).step_by(step).collect();
        x.index_select(&Tensor::new(kept, &Device::Cpu).unwrap(), dim).unwrap()
    })
}

/// What the fixture keeps of a tensor.
fn thin(case: &str, name: &str, x: &Tensor) -> Tensor {
    match (case, name) {
        ("five", "depth" | "depth_conf") => every(x, 2, &[1, 2]),
        (_, "depth" | "depth_conf") => every(x, 4, &[1, 2]),
        (_, "ray" | "ray_conf") => every(x, 2, &[1, 2]),
        (_, "fused" | "fused_ray" | "level_0") => every(x, 4, &[2, 3]),
        ("five", _) => x.clone(),
        _ if name.starts_with("block_") => every(x, 6, &[1]),
        _ => x.clone(),
    }
}

/// Runs one case and compares all that the fixture has of it.
fn compare(case: &str, views: usize, size: (usize, usize), reference: Reference) {
    compare_on(&Device::Cpu, TOLERANCE, case, (views, size, reference));
}

/// [`compare`] on a device.
fn compare_on(
    device: &Device,
    tolerance: f32,
    case: &str,
    (views, size, reference): (usize, (usize, usize), Reference),
) {
    let golden = golden();
    let mut model = tiny_on(device);
    model.reference = reference;
    let pixels = pixels(views, size).to_device(device).unwrap();
    let home = |x: &Tensor| x.to_device(&Device::Cpu).unwrap();
    let given = (case == "posed").then(|| given(&golden));
    let mut shown: HashMap<String, Vec<Tensor>> = HashMap::new();
    let mut tap = |name: &str, x: &Tensor| shown.entry(name.to_owned()).or_default().push(home(x));
    let raw = model.forward(&pixels, given.as_deref(), &mut tap).unwrap();
    let rays = (case == "five").then(|| model.rays(&pixels, &mut tap).unwrap());
    // The head goes through the views one by one.
    let mut seen: Golden = shown.into_iter().map(|(name, parts)| (name, Tensor::cat(&parts, 0).unwrap())).collect();
    let (height, width) = (size.0 as u32, size.1 as u32);
    let cameras = raw.encodings.to_vec2::<f32>().unwrap();
    let cameras: Vec<_> = cameras.iter().map(|encoding| decode(encoding, height, width).unwrap()).collect();
    let (extrinsics, intrinsics) = public(&cameras);
    let outputs = [("depth", home(&raw.depth)), ("depth_conf", home(&raw.confidence))];
    seen.extend(outputs.into_iter().chain([("extrinsics", extrinsics), ("intrinsics", intrinsics)]).map(named));
    seen.extend(rays.into_iter().flat_map(|(r, c)| [("ray", home(&r)), ("ray_conf", home(&c))]).map(named));
    let chosen = golden[&format!("{case}.reference")].to_vec1::<i64>().unwrap();
    assert_eq!(chosen, [raw.reference as i64], "{case}: reference view");
    let mut compared = 0;
    for (key, expected) in &golden {
        let Some(name) = key.strip_prefix(&format!("{case}.")) else { continue };
        if matches!(name, "reference" | "scale") || name.starts_with("given_") || name == "normalised_extrinsics" {
            continue;
        }
        within(tolerance, key, &thin(case, name, &seen[name]), expected);
        compared += 1;
    }
    assert!(compared >= 10, "{case}: {compared}");
    let Some(given) = given else { return };
    let expected = f64::from(golden["posed.scale"].to_vec1::<f32>().unwrap()[0]);
    let got = scale(&given, &cameras).unwrap();
    assert!((got / expected - 1.0).abs() < f64::from(tolerance), "scale: {got}, expected {expected}");
    let read: Vec<_> = encode(&given).iter().map(|encoding| decode(encoding, height, width).unwrap()).collect();
    let expected = golden["posed.normalised_extrinsics"].narrow(1, 0, 3).unwrap();
    close("normalised extrinsics", &public(&read).0, &expected);
    close("given intrinsics", &public(&read).1, &golden["posed.given_intrinsics"]);
}

fn named((name, tensor): (&str, Tensor)) -> (String, Tensor) {
    (name.to_owned(), tensor)
}

#[test]
fn five_views_agree_in_every_layer() {
    compare("five", 5, SIZE, Reference::SaddleBalanced);
}

/// The same on the first GPU, whose sums are in another order.
#[cfg(feature = "cuda")]
#[test]
fn a_gpu_agrees_in_every_layer() {
    let gpu = model::device("cuda").unwrap();
    compare_on(&gpu, 1e-3, "five", (5, SIZE, Reference::SaddleBalanced));
    compare_on(&gpu, 1e-3, "posed", (5, SIZE, Reference::SaddleBalanced));
}

#[test]
fn another_reference_agrees() {
    compare("middle", 5, SIZE, Reference::Middle);
}

#[test]
fn given_poses_agree() {
    compare("posed", 5, SIZE, Reference::SaddleBalanced);
}

#[test]
fn two_views_and_a_square_one_agree() {
    compare("pair", 2, SIZE, Reference::SaddleBalanced);
    compare("single", 1, (70, 70), Reference::SaddleBalanced);
}

#[test]
fn frames_are_resized_as_by_the_public_processor() {
    let golden = golden();
    for (k, size) in [(97, 130), (40, 60), (168, 126), (90, 130), (56, 84)].into_iter().enumerate() {
        let name = format!("image_{k}");
        let got = resized(&image(&format!("image {k}"), size), 84);
        assert_eq!([got.height() as usize, got.width() as usize, 3], golden[&name].dims(), "{name}");
        let expected = golden[&name].flatten_all().unwrap().to_vec1::<u8>().unwrap();
        let off: Vec<u8> = got.as_raw().iter().zip(&expected).map(|(a, b)| a.abs_diff(*b)).collect();
        assert!(off.iter().all(|&off| off <= 1), "{name}");
        // OpenCV's cubic counts in 1/2048.
        assert!(off.iter().filter(|&&off| off > 0).count() * 1000 < off.len(), "{name}");
    }
}

#[test]
fn every_tensor_of_the_published_file_is_known() {
    let (_, left) = build(&Config::small(), json("small_names.json"), true, &Device::Cpu);
    // The ray chain's coarser outputs, which nobody reads, here or there; but for the norm that all levels share.
    let unread = |name: &String| (0..3).any(|k| name.contains(&format!("_aux.{k}.")));
    assert!(left.iter().all(unread), "{left:?}");
    assert!(!left.iter().any(|name| name.contains("output_conv2_aux.0.2")), "{left:?}");
}

#[test]
fn depth_comes_in_the_unit_of_given_poses() {
    let golden = golden();
    let mut model = tiny();
    model.longest_side = 84;
    let frames: Vec<RgbImage> = (0..5).map(|k| image(&format!("frame {k}"), (112, 168))).collect();
    let given: Vec<Given> =
        given(&golden).into_iter().map(|g| Given { intrinsics: g.intrinsics.rescale(168, 112), ..g }).collect();
    let metres = model.infer(&frames, Some(&given)).unwrap();
    let kilo = |g: &Given| {
        let pose = g.world_from_camera;
        let translation = pose.translation() * 1000.0;
        let pose = Isometry3::from_parts(translation.into(), pose.rotation());
        Given { world_from_camera: Transform::from_isometry_unchecked(pose), ..*g }
    };
    let millimetres = model.infer(&frames, Some(&given.iter().map(kilo).collect::<Vec<_>>())).unwrap();
    for (a, b) in metres.views.iter().zip(&millimetres.views) {
        assert_eq!((a.intrinsics.height, a.intrinsics.width, a.depth.len()), (56, 84, 56 * 84));
        assert!(a.depth.iter().zip(&b.depth).all(|(a, b)| (1000.0 * a / b - 1.0).abs() < 1e-3));
        assert!(a.confidence.iter().all(|&confidence| confidence > 1.0));
    }
    let free = model.infer(&frames, None).unwrap();
    assert_eq!(free.scale, None);
    assert!(free.anchored()[0].translation().norm() < 1e-9);
}

#[test]
fn a_walk_straight_ahead_has_a_scale_and_a_standing_camera_none() {
    let camera = |place: Vector3<f64>| {
        Transform::<World, Camera>::from_isometry_unchecked(Isometry3::new(place, Vector3::zeros()))
    };
    let intrinsics = Intrinsics::new(70.0, 70.0, 41.5, 27.5, 84, 56).unwrap();
    let walk = |step: f64| (0..5).map(move |k| camera(Vector3::z() * step * f64::from(k)));
    let given = |step: f64| -> Vec<Given> {
        walk(step).map(|world_from_camera| Given { world_from_camera, intrinsics }).collect()
    };
    let predicted: Vec<_> = walk(0.25).map(|pose| (pose, intrinsics)).collect();
    assert!((scale(&given(0.5), &predicted).unwrap() - 0.5).abs() < 1e-12);
    assert!(scale(&given(0.0), &predicted).is_err());
    assert!(scale(&given(-0.5), &predicted).is_err());
}

#[test]
fn frames_that_do_not_belong_together_are_refused() {
    let model = tiny();
    let message = |frames: &[RgbImage]| model.infer(frames, None).unwrap_err().to_string();
    assert!(message(&[]).contains("at least one"));
    assert!(message(&[RgbImage::new(84, 56), RgbImage::new(56, 84)]).contains("frame 1"));
    let missing = DepthAnything::load(&fixture("nowhere"), &Device::Cpu).unwrap_err();
    assert!(format!("{missing:#}").contains("nowhere"));
}
