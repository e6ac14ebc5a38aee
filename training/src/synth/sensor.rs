//! From linear light to the bytes of a cheap camera: exposure, white balance, vignette, blur, tone curve, noise.

use super::draw::Draw;
use super::vec3::{V3, v3};
use image::RgbImage;

const STEPS: usize = 4096;

pub(super) struct Sensor {
    /// Gain per channel.
    gain: V3,
    /// Share of light lost in the corners.
    vignette: f32,
    /// Weight of each neighbour in the blur; 0 for none.
    blur: f32,
    /// Linear light in steps of 1/4096 to 0..=255.
    curve: Vec<f32>,
    /// Standard deviation of the noise, in steps of 255.
    noise: f32,
    flicker: f32,
    seed: u32,
}

impl Sensor {
    /// A camera that exposes for an image of this mean linear luminance.
    pub fn random(draw: &mut Draw, mean_luminance: f32) -> Self {
        let exposure = draw.log_normal(0.26, 0.3) as f32 / mean_luminance.max(1e-4);
        let balance = v3(
            draw.range32(0.86, 1.14),
            draw.range32(0.95, 1.05),
            draw.range32(0.86, 1.14),
        );
        let gamma = 1.0 / draw.range(1.8, 2.5);
        let contrast = draw.range(0.0, 0.6);
        let lift = draw.range(0.0, 12.0);
        let curve = (0..=STEPS)
            .map(|i| {
                let x = (i as f64 / STEPS as f64).powf(gamma);
                let bent = x * x * (3.0 - 2.0 * x);
                (lift + (255.0 - lift) * (x + contrast * (bent - x))) as f32
            })
            .collect();
        Self {
            gain: balance * exposure,
            vignette: draw.range32(0.0, 0.35),
            blur: if draw.chance(0.4) {
                draw.range32(0.05, 0.22)
            } else {
                0.0
            },
            curve,
            noise: draw.log_normal(1.6, 0.6) as f32,
            flicker: draw.range32(0.0, 0.025),
            seed: draw.word(),
        }
    }

    /// Bytes of frame number `frame` (it decides the noise and the flicker). `light` is row-major; it is used up.
    pub fn expose(&self, mut light: Vec<V3>, size: (u32, u32), frame: u32) -> RgbImage {
        let (width, height) = (size.0 as usize, size.1 as usize);
        if self.blur > 0.0 {
            blur(&mut light, width, height, self.blur);
        }
        let mut state = mixed(self.seed ^ frame.wrapping_mul(0x9E37_79B9));
        let gain = self.gain * (1.0 + self.flicker * (state as f32 / u32::MAX as f32 * 2.0 - 1.0));
        let mut bytes = Vec::with_capacity(width * height * 3);
        // Four bytes of a word sum to a nearly normal number with this standard deviation.
        let amplitude = self.noise / 147.8;
        let top = STEPS as f32;
        for (row, line) in light.chunks_exact(width).enumerate() {
            let y = (row as f32 + 0.5) / height as f32 - 0.5;
            for (column, pixel) in line.iter().enumerate() {
                let x = (column as f32 + 0.5) / width as f32 - 0.5;
                let lit = pixel.times(gain) * (top * (1.0 - self.vignette * 2.0 * (x * x + y * y)));
                for value in [lit.x, lit.y, lit.z] {
                    // Highlights roll off from 3/4 on in place of clipping.
                    let soft = if value > 0.75 * top {
                        top - 0.0625 * top * top / (value - 0.5 * top)
                    } else {
                        value
                    };
                    let mapped = self.curve[(soft.max(0.0) as usize).min(STEPS)];
                    state ^= state << 13;
                    state ^= state >> 17;
                    state ^= state << 5;
                    let sum =
                        (state & 255) + (state >> 8 & 255) + (state >> 16 & 255) + (state >> 24);
                    bytes.push((mapped + (sum as f32 - 510.0) * amplitude + 0.5) as u8);
                }
            }
        }
        RgbImage::from_raw(size.0, size.1, bytes).unwrap_or_else(|| RgbImage::new(size.0, size.1))
    }
}

fn mixed(mut h: u32) -> u32 {
    h = (h ^ (h >> 16)).wrapping_mul(0x7FEB_352D);
    h = (h ^ (h >> 15)).wrapping_mul(0x846C_A68B);
    // Not 0: the generator would stay there.
    (h ^ (h >> 16)) | 1
}

/// Three taps along rows, then along columns; the outermost pixels stay as they are.
fn blur(light: &mut [V3], width: usize, height: usize, side: f32) {
    let centre = 1.0 - 2.0 * side;
    for line in light.chunks_exact_mut(width) {
        let mut before = line[0];
        for i in 1..width.max(1) - 1 {
            let own = line[i];
            line[i] = own * centre + (before + line[i + 1]) * side;
            before = own;
        }
    }
    let mut above = light[..width].to_vec();
    for row in 1..height.max(1) - 1 {
        for (column, above) in above.iter_mut().enumerate() {
            let at = row * width + column;
            let own = light[at];
            light[at] = own * centre + (*above + light[at + width]) * side;
            *above = own;
        }
    }
}
