//! YUV to RGB: ITU-R BT.601 in its limited range (luma 16 to 235, chroma 16 to 240), as OpenCV and cv_bridge take it.
//! Chroma is not interpolated: each sample counts for all the pixels that share it, as there too.
//!
//! By the `yuv` crate, in its most exact mode: no value differs by more than one from `cv::cvtColor`. Its function for
//! packed 4:2:2 is a coarser one, so that is taken apart first.

use yuv::{YuvBiPlanarImage, YuvConversionMode, YuvRange, YuvStandardMatrix};

const RANGE: YuvRange = YuvRange::Limited;
const MATRIX: YuvStandardMatrix = YuvStandardMatrix::Bt601;
const MODE: YuvConversionMode = YuvConversionMode::Professional;

/// Width, height and bytes a row.
pub(super) type Layout = (usize, usize, usize);

/// 4:2:2: two pixels in four bytes, their lumas at `luma` and `luma + 2`, U before V in the other two.
pub(super) fn rgb_422(data: &[u8], (width, height, step): Layout, luma: usize, rgb: &mut [u8]) {
    let (mut lumas, mut chromas) = (vec![0; width * height], vec![0; width * height]);
    let lines = lumas.chunks_exact_mut(width).zip(chromas.chunks_exact_mut(width));
    for (row, (lumas, chromas)) in data.chunks_exact(step).zip(lines) {
        for (pair, (y, uv)) in row.chunks_exact(2).zip(lumas.iter_mut().zip(chromas)) {
            (*y, *uv) = (pair[luma], pair[1 - luma]);
        }
    }
    let image = planes((&lumas, width), (&chromas, width), width, height);
    let done = yuv::yuv_nv16_to_rgb(&image, rgb, 3 * image.width, RANGE, MATRIX, MODE);
    done.expect("planes of the image's size");
}

/// 4:2:0: a luma each pixel, then pairs of chroma that two rows share, U at place `u` of a pair.
pub(super) fn rgb_420(data: &[u8], (width, height, step): Layout, u: usize, rgb: &mut [u8]) {
    let (lumas, chromas) = data.split_at(step * height);
    let image = planes((lumas, step), (chromas, step), width, height);
    let convert = if u == 0 { yuv::yuv_nv12_to_rgb } else { yuv::yuv_nv21_to_rgb };
    convert(&image, rgb, 3 * image.width, RANGE, MATRIX, MODE).expect("planes of the image's size");
}

/// Lumas and chromas, each with the bytes of a row.
fn planes<'a>(
    (y_plane, y_step): (&'a [u8], usize),
    (uv_plane, uv_step): (&'a [u8], usize),
    width: usize,
    height: usize,
) -> YuvBiPlanarImage<'a, u8> {
    let (y_stride, uv_stride) = (y_step as u32, uv_step as u32);
    YuvBiPlanarImage { y_plane, y_stride, uv_plane, uv_stride, width: width as u32, height: height as u32 }
}
