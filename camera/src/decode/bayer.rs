//! Bayer mosaics to RGB, by bilinear interpolation: measured samples stay as they are, a missing one is the mean of its
//! nearest neighbours of that colour, two or four of them. Beyond the border the mosaic goes on mirrored about its
//! outermost samples, which keeps the pattern. Inside, the result is OpenCV's `cv::demosaicing`; on the border OpenCV
//! repeats the pixels next to it instead.
//!
//! Written here because the crates for it move the measured samples too (`demosaic` 0.3), are no longer kept (`bayer`), or
//! take a sample of another colour for a missing one on the border (`kornia-imgproc` 0.2, which repeats the outermost
//! samples and so breaks the pattern; inside it gives these values).

/// Fills `rgb`, three bytes for each sample of `mosaic`, whose rows have `width` samples. `red` is the column and row of
/// red in the 2x2 tile; green is beside and below it, blue across.
pub(super) fn demosaic(mosaic: &[u8], width: usize, red: [usize; 2], rgb: &mut [u8]) {
    let height = mosaic.len() / width;
    for (y, line) in rgb.chunks_exact_mut(width * 3).enumerate() {
        let (above, below) = neighbours(y, height);
        let [upper, row, lower] = [above, y, below].map(|y| &mosaic[y * width..(y + 1) * width]);
        let is_red_row = y % 2 == red[1];
        for (x, out) in line.chunks_exact_mut(3).enumerate() {
            let (left, right) = neighbours(x, width);
            let own = row[x];
            let across = || mean(&[row[left], row[right]]);
            let along = || mean(&[upper[x], lower[x]]);
            let cross = || mean(&[row[left], row[right], upper[x], lower[x]]);
            let diagonal = || mean(&[upper[left], upper[right], lower[left], lower[right]]);
            out.copy_from_slice(&match (is_red_row, x % 2 == red[0]) {
                (true, true) => [own, cross(), diagonal()],
                (true, false) => [across(), own, along()],
                (false, true) => [along(), own, across()],
                (false, false) => [diagonal(), cross(), own],
            });
        }
    }
}

/// The places before and after `at` of `count`, mirrored about the first and the last.
fn neighbours(at: usize, count: usize) -> (usize, usize) {
    let last = count - 1;
    let before = if at == 0 { last.min(1) } else { at - 1 };
    let after = if at == last { last.saturating_sub(1) } else { at + 1 };
    (before, after)
}

/// Rounded, halves upwards.
fn mean(samples: &[u8]) -> u8 {
    let sum: usize = samples.iter().map(|s| usize::from(*s)).sum();
    ((sum + samples.len() / 2) / samples.len()) as u8
}
