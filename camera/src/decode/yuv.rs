//! YUV to RGB: ITU-R BT.601 in its limited range (luma 16 to 235, chroma 16 to 240), as OpenCV and cv_bridge take it.
//! Chroma is not interpolated: each sample counts for all the pixels that share it, as there too.

/// One pixel, in OpenCV's fixed point (20 bits), so that not a single value differs from `cv::cvtColor`.
fn pixel(y: u8, u: u8, v: u8) -> [u8; 3] {
    const HALF: i32 = 1 << 19;
    let luma = (i32::from(y) - 16).max(0) * 1_220_542 + HALF; // 255 / 219
    let (u, v) = (i32::from(u) - 128, i32::from(v) - 128);
    let red = luma + 1_673_527 * v; // 1.596
    let green = luma - 852_492 * v - 409_993 * u; // 0.813, 0.391
    let blue = luma + 2_116_026 * u; // 2.018
    [red, green, blue].map(|value| (value >> 20).clamp(0, 255) as u8)
}

/// A row of 4:2:2: two pixels in four bytes, their lumas at `luma` and `luma + 2`, U before V in the other two.
pub(super) fn row_422(row: &[u8], luma: usize, rgb: &mut [u8]) {
    for (pair, four) in rgb.chunks_exact_mut(6).zip(row.chunks_exact(4)) {
        let (u, v) = (four[1 - luma], four[3 - luma]);
        pair[..3].copy_from_slice(&pixel(four[luma], u, v));
        pair[3..].copy_from_slice(&pixel(four[luma + 2], u, v));
    }
}

/// A row of 4:2:0: a luma each pixel, and the pairs of chroma that two rows share, U at place `u` of a pair.
pub(super) fn row_420(lumas: &[u8], chroma: &[u8], u: usize, rgb: &mut [u8]) {
    for (x, (out, luma)) in rgb.chunks_exact_mut(3).zip(lumas).enumerate() {
        let pair = x / 2 * 2;
        out.copy_from_slice(&pixel(*luma, chroma[pair + u], chroma[pair + 1 - u]));
    }
}
