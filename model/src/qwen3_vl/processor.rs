//! From a camera frame to the patches that the vision tower reads, and the intrinsics of that pixel grid.

use std::path::Path;

use candle_core::{Device, Tensor};
use fast_image_resize as fr;
use geometry::Intrinsics;
use image::RgbImage;
use serde::{Deserialize, Serialize};

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

    /// Reads `dir/preprocessor_config.json` and checks it against the tower that it feeds.
    ///
    /// # Errors
    /// A file that is missing, lacks a field, or disagrees with the model's config.
    pub fn from_dir(dir: &Path, vision: &VisionConfig) -> Result<Self> {
        let processor: Self = crate::json::read_json(&dir.join("preprocessor_config.json"))?;
        for (key, got, expected) in [
            ("preprocessor_config.patch_size", processor.patch_size, vision.patch_size),
            ("preprocessor_config.merge_size", processor.merge_size, vision.spatial_merge_size),
            ("preprocessor_config.temporal_patch_size", processor.temporal_patch_size, vision.temporal_patch_size),
        ] {
            if got != expected {
                return Err(Error::Config { key, expected: expected.to_string(), got: got.to_string() });
            }
        }
        if let Some(focal) = processor.unify_focal_px.filter(|f| !(f.is_finite() && *f > 0.0)) {
            return Err(Error::Config {
                key: "preprocessor_config.unify_focal_px",
                expected: "pixels over 0".to_owned(),
                got: focal.to_string(),
            });
        }
        let (min, max) = processor.limits()?;
        if min > max || max < (processor.factor() as u64).pow(2) {
            return Err(Error::Config {
                key: "preprocessor_config.size",
                expected: format!("shortest_edge <= longest_edge, room for {0}x{0} pixels", processor.factor()),
                got: format!("{min}..{max}"),
            });
        }
        Ok(processor)
    }

    /// Sides of a resized image are multiples of this.
    fn factor(&self) -> usize {
        self.patch_size * self.merge_size
    }

    fn limits(&self) -> Result<(u64, u64)> {
        let min = self.size.map(|s| s.shortest_edge).or(self.min_pixels);
        let max = self.size.map(|s| s.longest_edge).or(self.max_pixels);
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
}
