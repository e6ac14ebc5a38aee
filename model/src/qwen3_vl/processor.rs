//! From a camera frame to the patches that the vision tower reads, and the intrinsics of that pixel grid.

use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use fast_image_resize as fr;
use geometry::Intrinsics;
use image::RgbImage;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::foreign::{Keys, Only, short};
use crate::json::read_json;
use crate::qwen3_vl::config::VisionConfig;
use crate::{Error, Result};

/// Size of one image in patches; both sides are multiples of the merge size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Grid {
    /// Rows of patches.
    pub height: usize,
    /// Columns of patches.
    pub width: usize,
}

impl Grid {
    /// Patches of the image.
    pub fn patches(&self) -> usize {
        self.height * self.width
    }

    /// (row, column) of every patch in merge-block order.
    pub fn positions(&self, merge: usize) -> Vec<(usize, usize)> {
        let mut positions = Vec::with_capacity(self.patches());
        for block_row in 0..self.height / merge {
            for block_column in 0..self.width / merge {
                for row in 0..merge {
                    for column in 0..merge {
                        positions.push((block_row * merge + row, block_column * merge + column));
                    }
                }
            }
        }
        positions
    }
}

/// Largest ratio of an image's sides that the reference accepts.
const MAX_ASPECT: f64 = 200.0;

/// Most pixels that an image may be scaled up to; the published limit is a sixteenth of it.
const MOST_PIXELS: u64 = 1 << 28;

const FILE: &str = "preprocessor_config.json";
/// Where transformers 5 keeps the image processor, beside those of other inputs.
const NESTED: (&str, &str) = ("processor_config.json", "image_processor");

const KEYS: Keys = Keys {
    known: &[
        // Images are RGB before they come here.
        "do_convert_rgb",
        "crop_size",
        "data_format",
        "default_to_square",
        "device",
        "disable_grouping",
        "feature_extractor_type",
        "image_mean",
        "image_processor_type",
        "image_std",
        "input_data_format",
        "max_pixels",
        "merge_size",
        "min_pixels",
        "patch_size",
        "processor_class",
        "return_tensors",
        "size",
        "temporal_patch_size",
        "unify_focal_px",
        "_processor_class",
    ],
    only: &[
        ("auto_map", Only::Off),
        ("do_center_crop", Only::Off),
        ("do_normalize", Only::On),
        ("do_pad", Only::Off),
        ("do_rescale", Only::On),
        ("do_resize", Only::On),
        // Pillow's number of the bicubic filter.
        ("resample", Only::Number(3.0)),
        ("rescale_factor", Only::Number(1.0 / 255.0)),
    ],
};

/// `preprocessor_config.json`: the parts that decide the pixels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Processor {
    /// Pixel limits under the newer name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size: Option<Size>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    min_pixels: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_pixels: Option<u64>,
    /// Side of a patch, pixels.
    pub patch_size: usize,
    /// Frames a patch spans.
    pub temporal_patch_size: usize,
    /// Side of the square of patches that becomes one token.
    pub merge_size: usize,
    /// Per channel, of values in 0..1.
    pub image_mean: [f32; 3],
    /// Per channel, of values in 0..1.
    pub image_std: [f32; 3],
    /// Where set, images are first scaled so that their focal length (fx) is this many pixels, as far as the pixel limits
    /// and the rounding to whole tokens let them: one angle is then one size, whatever the camera. A key of ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unify_focal_px: Option<f64>,
}

/// Limits on the number of pixels after resizing; the names are the file format's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Size {
    shortest_edge: u64,
    longest_edge: u64,
}

/// One frame as the vision tower reads it.
#[derive(Debug, Clone)]
pub struct Patches {
    /// `[grid.patches(), patch_dim]`, merge-block order.
    pub values: Tensor,
    /// Size in patches.
    pub grid: Grid,
    /// Intrinsics of the resized pixel grid.
    pub intrinsics: Intrinsics,
}

impl Processor {
    /// A processor of patch 16, merge 2, mean and deviation 0.5, as Qwen3-VL's checkpoints have it.
    pub fn with_pixel_limits(min_pixels: u64, max_pixels: u64) -> Self {
        Self {
            size: Some(Size { shortest_edge: min_pixels, longest_edge: max_pixels }),
            min_pixels: None,
            max_pixels: None,
            patch_size: 16,
            temporal_patch_size: 2,
            merge_size: 2,
            image_mean: [0.5; 3],
            image_std: [0.5; 3],
            unify_focal_px: None,
        }
    }

    /// Reads the image processor of a folder, `processor_config.json` or `preprocessor_config.json`, and checks it against the
    /// tower that it feeds.
    ///
    /// # Errors
    /// A file that is missing, lacks a field, asks for other pixels than are made here, or disagrees with the model's config.
    pub fn from_dir(dir: &Path, vision: &VisionConfig) -> Result<Self> {
        Self::of_dir(dir, vision)?.ok_or_else(|| {
            let message = format!("not there, nor is {} with {}", NESTED.0, NESTED.1);
            let source = std::io::Error::new(std::io::ErrorKind::NotFound, message);
            Error::Io { path: dir.join(FILE), source }
        })
    }

    /// [`Self::from_dir`]; nothing where the folder says nothing of it.
    ///
    /// # Errors
    /// As [`Self::from_dir`].
    pub fn of_dir(dir: &Path, vision: &VisionConfig) -> Result<Option<Self>> {
        let Some((path, place, stated)) = stated(dir)? else { return Ok(None) };
        KEYS.check(&path, &place, &stated)?;
        let processor: Self = serde_json::from_value(Value::Object(stated))
            .map_err(|source| Error::Json { path: path.clone(), source })?;
        match processor.check(vision) {
            Err(Error::Config { key, expected, got }) => {
                Err(Error::Key { path, key: key.replace("preprocessor_config.", &place), expected, got })
            }
            checked => checked.map(|()| Some(processor)),
        }
    }

    fn check(&self, vision: &VisionConfig) -> Result<()> {
        for (key, got, expected) in [
            ("preprocessor_config.patch_size", self.patch_size, vision.patch_size),
            ("preprocessor_config.merge_size", self.merge_size, vision.spatial_merge_size),
            ("preprocessor_config.temporal_patch_size", self.temporal_patch_size, vision.temporal_patch_size),
        ] {
            if got != expected {
                return Err(Error::Config { key, expected: expected.to_string(), got: got.to_string() });
            }
        }
        if let Some(focal) = self.unify_focal_px.filter(|f| !(f.is_finite() && *f > 0.0)) {
            return Err(Error::Config {
                key: "preprocessor_config.unify_focal_px",
                expected: "pixels over 0".to_owned(),
                got: focal.to_string(),
            });
        }
        let (mean, std) = (self.image_mean, self.image_std);
        if !mean.iter().all(|v| (0.0..=1.0).contains(v)) || !std.iter().all(|v| *v > 0.0 && *v <= 1.0) {
            return Err(Error::Config {
                key: "preprocessor_config.image_mean and image_std",
                expected: "those of values in 0..1".to_owned(),
                got: format!("{mean:?}, {std:?}"),
            });
        }
        let (min, max) = self.limits()?;
        if min > max || max < (self.factor() as u64).pow(2) {
            return Err(Error::Config {
                key: "preprocessor_config.size",
                expected: format!("shortest_edge <= longest_edge, room for {0}x{0} pixels", self.factor()),
                got: format!("{min}..{max}"),
            });
        }
        if min > MOST_PIXELS || (max > MOST_PIXELS && self.unify_focal_px.is_some()) {
            return Err(Error::Config {
                key: "preprocessor_config.size",
                expected: format!("at most {MOST_PIXELS} pixels, since images are scaled up to them"),
                got: format!("{min}..{max}"),
            });
        }
        Ok(())
    }

    /// Sides of a resized image are multiples of this.
    fn factor(&self) -> usize {
        self.patch_size * self.merge_size
    }

    fn limits(&self) -> Result<(u64, u64)> {
        // As the reference has it, the older names come first.
        let min = self.min_pixels.or(self.size.map(|s| s.shortest_edge));
        let max = self.max_pixels.or(self.size.map(|s| s.longest_edge));
        min.zip(max).ok_or_else(|| Error::Config {
            key: "preprocessor_config.size",
            expected: "shortest_edge and longest_edge".to_owned(),
            got: "nothing".to_owned(),
        })
    }

    /// Size `(width, height)` that an image is resized to: the nearest multiples of the factor, scaled into the pixel
    /// limits (`smart_resize` of the reference).
    ///
    /// # Errors
    /// An empty image, or sides that differ by more than a factor of 200.
    pub fn target_size(&self, width: u32, height: u32) -> Result<(u32, u32)> {
        self.nearest_size(f64::from(width), f64::from(height))
    }

    /// Size that an image of this camera is resized to: [`Self::target_size`], behind a scaling to the unified focal
    /// length where there is one.
    ///
    /// # Errors
    /// As [`Self::target_size`].
    pub fn camera_size(&self, intrinsics: &Intrinsics) -> Result<(u32, u32)> {
        let scale = self.unify_focal_px.map_or(1.0, |focal| focal / intrinsics.fx);
        self.nearest_size(f64::from(intrinsics.width) * scale, f64::from(intrinsics.height) * scale)
    }

    fn nearest_size(&self, w: f64, h: f64) -> Result<(u32, u32)> {
        let sides = w.is_finite() && h.is_finite() && w.min(h) > 0.0;
        if !sides || w.max(h) / w.min(h) > MAX_ASPECT {
            return Err(Error::Input {
                what: "image size",
                expected: format!("two sides over 0, ratio at most {MAX_ASPECT}"),
                got: format!("{w}x{h}"),
            });
        }
        let (min, max) = self.limits()?;
        let factor = self.factor() as f64;
        let nearest = |side: f64| (side / factor).round_ties_even() * factor;
        let (mut to_w, mut to_h) = (nearest(w), nearest(h));
        if to_w * to_h > max as f64 {
            let beta = (w * h / max as f64).sqrt();
            let shrink = |side: f64| ((side / beta / factor).floor() * factor).max(factor);
            (to_w, to_h) = (shrink(w), shrink(h));
        } else if to_w * to_h < min as f64 {
            let beta = (min as f64 / (w * h)).sqrt();
            let grow = |side: f64| (side * beta / factor).ceil() * factor;
            (to_w, to_h) = (grow(w), grow(h));
        }
        Ok((to_w as u32, to_h as u32))
    }

    /// Grid of an image whose camera nobody knows: [`Self::target_size`], in patches.
    ///
    /// # Errors
    /// As [`Self::target_size`].
    pub fn grid(&self, width: u32, height: u32) -> Result<Grid> {
        let (width, height) = self.target_size(width, height)?;
        Ok(self.in_patches(width, height))
    }

    fn in_patches(&self, width: u32, height: u32) -> Grid {
        Grid { height: height as usize / self.patch_size, width: width as usize / self.patch_size }
    }

    /// [`Self::patches`] of an image whose camera nobody knows; a unified focal length says nothing about it.
    ///
    /// # Shapes
    /// `[grid.patches(), patch_dim]`
    ///
    /// # Errors
    /// As [`Self::target_size`].
    pub fn image_patches(&self, image: &RgbImage, device: &Device) -> Result<(Tensor, Grid)> {
        let (width, height) = self.target_size(image.width(), image.height())?;
        self.cut(&resize(image, width, height)?, device)
    }

    /// Resizes (bicubic, antialiased), normalises and cuts one image.
    ///
    /// # Errors
    /// A size that can't be resized, or intrinsics of another size than the image's.
    pub fn patches(&self, image: &RgbImage, intrinsics: &Intrinsics, device: &Device) -> Result<Patches> {
        let (resized, intrinsics) = self.resized(image, intrinsics)?;
        let (values, grid) = self.cut(&resized, device)?;
        Ok(Patches { values, grid, intrinsics })
    }

    fn cut(&self, resized: &RgbImage, device: &Device) -> Result<(Tensor, Grid)> {
        let grid = self.in_patches(resized.width(), resized.height());
        let values = self.flatten(resized, grid);
        let shape = (grid.patches(), values.len() / grid.patches());
        Ok((Tensor::from_vec(values, shape, device)?, grid))
    }

    /// The pixel grid that the model sees, and the intrinsics of it. A grid goes through unchanged.
    ///
    /// # Errors
    /// As [`Self::patches`].
    pub fn resized(&self, image: &RgbImage, intrinsics: &Intrinsics) -> Result<(RgbImage, Intrinsics)> {
        if (intrinsics.width, intrinsics.height) != image.dimensions() {
            return Err(Error::Input {
                what: "intrinsics",
                expected: format!("those of a {}x{} image", image.width(), image.height()),
                got: format!("{}x{}", intrinsics.width, intrinsics.height),
            });
        }
        let (width, height) = self.camera_size(intrinsics)?;
        Ok((resize(image, width, height)?, intrinsics.rescale(width, height)))
    }

    /// Normalised pixels in the order merge block, patch in block, channel, time, row, column.
    fn flatten(&self, image: &RgbImage, grid: Grid) -> Vec<f32> {
        let p = self.patch_size;
        let mut values = Vec::with_capacity(grid.patches() * 3 * self.temporal_patch_size * p * p);
        let stride = image.width() as usize * 3;
        let raw = image.as_raw();
        for (row, column) in grid.positions(self.merge_size) {
            for channel in 0..3 {
                let (mean, std) = (self.image_mean[channel], self.image_std[channel]);
                let start = values.len();
                for y in row * p..(row + 1) * p {
                    let line = &raw[y * stride + column * p * 3..][..p * 3];
                    values.extend(line.chunks_exact(3).map(|px| (f32::from(px[channel]) / 255.0 - mean) / std));
                }
                let end = values.len();
                // A still image fills the temporal pair with itself.
                for _ in 1..self.temporal_patch_size {
                    values.extend_from_within(start..end);
                }
            }
        }
        values
    }
}

/// A file, the prefix of its keys, and what it says.
type Stated = (PathBuf, String, Map<String, Value>);

/// What a folder says of its image processor, the file, and what stands before its keys. transformers 5 asks in this order.
fn stated(dir: &Path) -> Result<Option<Stated>> {
    let (path, part) = (dir.join(NESTED.0), NESTED.1);
    if path.is_file() {
        let mut file: Map<String, Value> = read_json(&path)?;
        match file.remove(part) {
            Some(Value::Object(stated)) => return Ok(Some((path, format!("{part}."), stated))),
            None | Some(Value::Null) => {}
            Some(other) => {
                let (expected, got) = ("an object".to_owned(), short(&other));
                return Err(Error::Key { path, key: part.to_owned(), expected, got });
            }
        }
    }
    let path = dir.join(FILE);
    Ok(if path.is_file() { Some((path.clone(), String::new(), read_json(&path)?)) } else { None })
}

/// Pillow's antialiased bicubic: rows first, rounded to bytes, then columns. Where the two passes meet decides pixels
/// at sharp edges, so they are two calls here.
fn resize(image: &RgbImage, width: u32, height: u32) -> Result<RgbImage> {
    let rows = resize_once(image, width, image.height())?;
    resize_once(&rows, width, height)
}

/// The image itself where the size is right already.
fn resize_once(image: &RgbImage, width: u32, height: u32) -> Result<RgbImage> {
    if image.dimensions() == (width, height) {
        return Ok(image.clone());
    }
    let failed = |message: String| Error::Input {
        what: "image",
        expected: "pixels that can be resized".to_owned(),
        got: message,
    };
    let source = fr::images::ImageRef::new(image.width(), image.height(), image.as_raw(), fr::PixelType::U8x3)
        .map_err(|e| failed(e.to_string()))?;
    let mut target = fr::images::Image::new(width, height, fr::PixelType::U8x3);
    let options = fr::ResizeOptions::new().resize_alg(fr::ResizeAlg::Convolution(fr::FilterType::CatmullRom));
    fr::Resizer::new().resize(&source, &mut target, &options).map_err(|e| failed(e.to_string()))?;
    RgbImage::from_raw(width, height, target.into_vec()).ok_or_else(|| failed("another length".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_follow_the_reference_rule() {
        let processor = Processor::with_pixel_limits(4096, 24_576);
        for ((w, h), expected) in [
            ((640, 480), (160, 128)),
            ((320, 240), (160, 128)),
            ((384, 256), (192, 128)),
            ((360, 640), (96, 192)),
            ((40, 30), (96, 64)),
            ((80, 112), (64, 128)), // 2.5 and 3.5 go to the even neighbour
        ] {
            assert_eq!(processor.target_size(w, h).unwrap(), expected, "{w}x{h}");
        }
        assert!(processor.target_size(0, 5).is_err());
        assert!(processor.target_size(4000, 10).is_err());
    }

    #[test]
    fn a_unified_focal_length_makes_one_angle_one_size() {
        let processor = Processor { unify_focal_px: Some(160.0), ..Processor::with_pixel_limits(1024, 1 << 20) };
        // The same camera at two resolutions, and one with twice the angle.
        for (width, height, focal, expected) in
            [(640, 480, 500.0, (192, 160)), (1280, 960, 1000.0, (192, 160)), (640, 480, 250.0, (416, 320))]
        {
            let k = Intrinsics::new(focal, focal, 319.5, 239.5, width, height).unwrap();
            assert_eq!(processor.camera_size(&k).unwrap(), expected);
            let patches = processor.patches(&RgbImage::new(width, height), &k, &Device::Cpu).unwrap();
            // Whole tokens: within half of one over the image's width.
            assert!((patches.intrinsics.fx - 160.0).abs() < 160.0 * 16.0 / f64::from(expected.0), "{width} {focal}");
        }
        // The pixel limits come first.
        let small = Processor { unify_focal_px: Some(1e4), ..Processor::with_pixel_limits(1024, 1 << 16) };
        let k = Intrinsics::new(500.0, 500.0, 319.5, 239.5, 640, 480).unwrap();
        let (width, height) = small.camera_size(&k).unwrap();
        assert!(width * height <= 1 << 16);
    }

    #[test]
    fn an_image_without_a_camera_is_cut_as_one_with_any() {
        let plain = Processor::with_pixel_limits(4096, 24_576);
        let unified = Processor { unify_focal_px: Some(40.0), ..plain };
        let image = RgbImage::from_fn(300, 200, |x, y| image::Rgb([x as u8, y as u8, (x * y) as u8]));
        let k = Intrinsics::new(250.0, 250.0, 149.5, 99.5, 300, 200).unwrap();
        let expected = plain.patches(&image, &k, &Device::Cpu).unwrap();
        let flat = |values: &Tensor| values.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for processor in [plain, unified] {
            let (values, grid) = processor.image_patches(&image, &Device::Cpu).unwrap();
            assert_eq!((grid, flat(&values)), (expected.grid, flat(&expected.values)));
            assert_eq!(processor.grid(300, 200).unwrap(), grid);
        }
    }

    #[test]
    fn intrinsics_of_another_size_are_refused() {
        let k = Intrinsics::new(100.0, 100.0, 50.0, 40.0, 100, 80).unwrap();
        let error = Processor::with_pixel_limits(4096, 24_576)
            .patches(&RgbImage::new(90, 80), &k, &Device::Cpu)
            .unwrap_err()
            .to_string();
        assert!(error.contains("90x80") && error.contains("100x80"), "{error}");
    }

    /// The small model's folder, its image processor apart.
    fn nano() -> (tempfile::TempDir, Value) {
        let (from, dir) = (Path::new(env!("CARGO_MANIFEST_DIR")).join("weights/nano"), tempfile::tempdir().unwrap());
        for name in ["config.json", "model.safetensors", "tokenizer.json"] {
            std::fs::copy(from.join(name), dir.path().join(name)).unwrap();
        }
        (dir, read_json(&from.join(FILE)).unwrap())
    }

    fn write(dir: &Path, name: &str, value: &Value) {
        std::fs::write(dir.join(name), value.to_string()).unwrap();
    }

    #[test]
    fn a_folder_of_transformers_5_is_read() {
        let (dir, stated) = nano();
        let vision = crate::Config::from_dir(dir.path()).unwrap().vision_config;
        let load = || Processor::from_dir(dir.path(), &vision);
        let error = load().unwrap_err().to_string();
        assert!(error.contains("preprocessor_config.json") && error.contains("processor_config.json with"), "{error}");

        let mut whole = stated.clone();
        for (key, value) in [
            ("do_convert_rgb", serde_json::json!(true)),
            ("do_normalize", serde_json::json!(true)),
            ("do_rescale", serde_json::json!(true)),
            ("do_resize", serde_json::json!(true)),
            ("image_processor_type", serde_json::json!("Qwen2VLImageProcessor")),
            ("resample", serde_json::json!(3)),
            ("rescale_factor", serde_json::json!(0.00392156862745098)),
        ] {
            whole[key] = value;
        }
        let file = serde_json::json!({
            "image_processor": whole, "processor_class": "Qwen3VLProcessor", "video_processor": {"do_resize": false},
        });
        write(dir.path(), "processor_config.json", &file);
        let expected: Processor = serde_json::from_value(stated.clone()).unwrap();
        assert_eq!(load().unwrap(), expected);
        // The older file beside it comes second, as in transformers.
        let mut other = stated.clone();
        other["size"] = serde_json::json!({"shortest_edge": 1024, "longest_edge": 4096});
        write(dir.path(), FILE, &other);
        assert_eq!(load().unwrap(), expected);
        std::fs::remove_file(dir.path().join(FILE)).unwrap();

        std::fs::write(dir.path().join("chat_template.jinja"), "{{ messages[0].role }}").unwrap();
        let model = crate::EgoModel::load(dir.path(), &Device::Cpu).unwrap();
        assert!(model.tokenizer().template().is_some());

        // One of transformers 4 holds no image processor.
        write(dir.path(), "processor_config.json", &serde_json::json!({"processor_class": "Qwen3VLProcessor"}));
        assert!(load().is_err());
        write(dir.path(), FILE, &stated);
        assert_eq!(load().unwrap(), expected);
    }

    #[test]
    fn an_image_processor_that_asks_for_other_pixels_is_refused_by_name() {
        let (dir, stated) = nano();
        let vision = crate::Config::from_dir(dir.path()).unwrap().vision_config;
        for (key, value, words) in [
            ("do_resize", serde_json::json!(false), "do_resize: expected true, got false"),
            ("do_rescale", serde_json::json!(false), "do_rescale: expected true, got false"),
            ("do_normalize", serde_json::json!(false), "do_normalize: expected true, got false"),
            ("rescale_factor", serde_json::json!(0.0078125), "rescale_factor: expected 0.0039"),
            ("resample", serde_json::json!(2), "resample: expected 3, got 2"),
            ("do_center_crop", serde_json::json!(true), "do_center_crop: expected false, got true"),
            ("image_mean", serde_json::json!([123.7, 116.3, 103.5]), "image_mean and image_std: expected those of"),
            ("image_std", serde_json::json!([0.0, 0.5, 0.5]), "image_mean and image_std: expected those of"),
            ("patch_size", serde_json::json!(14), "patch_size: expected 16, got 14"),
            (
                "size",
                serde_json::json!({"shortest_edge": 1u64 << 40, "longest_edge": 1u64 << 50}),
                "size: expected at most 268435456 pixels",
            ),
        ] {
            let mut changed = stated.clone();
            changed[key] = value;
            for (name, file) in
                [("processor_config.json", serde_json::json!({"image_processor": changed})), (FILE, changed.clone())]
            {
                write(dir.path(), name, &file);
                let error = Processor::from_dir(dir.path(), &vision).unwrap_err().to_string();
                assert!(error.contains(name) && error.contains(words), "{error}");
                std::fs::remove_file(dir.path().join(name)).unwrap();
            }
        }
    }

    #[test]
    fn the_older_names_of_the_pixel_limits_come_first() {
        let mut stated = nano().1;
        stated["size"] = serde_json::json!({"shortest_edge": 1024, "longest_edge": 1 << 20});
        stated["max_pixels"] = serde_json::json!(16384);
        let processor: Processor = serde_json::from_value(stated).unwrap();
        assert_eq!(processor.limits().unwrap(), (1024, 16384));
    }
}
