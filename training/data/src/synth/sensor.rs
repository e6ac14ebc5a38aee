//! From linear light to the bytes of a cheap camera: exposure, white balance, vignette, blur, tone curve, noise.

use super::draw::Draw;
use super::vec3::{V3, low, v3};
use image::RgbImage;

const STEPS: usize = 4096;
/// The curve goes on to so many times the light that is white at first, rolling off.
const HEADROOM: usize = 4;

#[derive(Clone)]
pub(super) struct Sensor {
    /// Gain per channel.
    gain: V3,
    /// Share of light lost in the corners.
    vignette: f32,
    /// Weight of each neighbour in the blur; 0 for none.
    blur: f32,
    /// Linear light in steps of 1/4096 to 0..255.
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
        let balance = v3(draw.range32(0.86, 1.14), draw.range32(0.95, 1.05), draw.range32(0.86, 1.14));
        let gamma = 1.0 / draw.range(1.8, 2.5);
        let contrast = draw.range(0.0, 0.6);
        let lift = draw.range(0.0, 12.0);
        let curve = (0..=HEADROOM * STEPS)
            .map(|i| {
                let light = i as f64 / STEPS as f64;
                // Highlights roll off from 3/4 on in place of clipping.
                let soft = if light > 0.75 { 1.0 - 0.0625 / (light - 0.5) } else { light };
                let x = soft.powf(gamma);
                let bent = x * x * (3.0 - 2.0 * x);
                (lift + (255.0 - lift) * (x + contrast * (bent - x))) as f32
            })
            .collect();
        Self {
            gain: balance * exposure,
            vignette: draw.range32(0.0, 0.35),
            blur: if draw.chance(0.4) { draw.range32(0.05, 0.22) } else { 0.0 },
            curve,
            noise: draw.log_normal(1.6, 0.6) as f32,
            flicker: draw.range32(0.0, 0.025),
            seed: draw.word(),
        }
    }

    /// The same camera with noise of this standard deviation, levels of 255.
    pub fn noisy(mut self, noise: f32) -> Self {
        self.noise = noise;
        self
    }

    /// The same camera with a brightness that changes by up to this share from frame to frame, either way.
    pub fn flickering(mut self, share: f32) -> Self {
        self.flicker = share;
        self
    }

    /// Standard deviation of its noise, levels of 255.
    pub fn noise(&self) -> f32 {
        self.noise
    }

    /// The same camera with so short an exposure that an image of `light` has this mean level of 255.
    pub fn darkened(mut self, light: &[V3], level: f32) -> Self {
        // Stray light would be all that is left to see.
        let (lift, least) = (self.curve[0], self.curve[0].min(2.0));
        for mapped in &mut self.curve {
            *mapped = least + (*mapped - lift) * (255.0 - least) / (255.0 - lift);
        }
        let last = (HEADROOM * STEPS) as f32;
        // The vignette takes a third of its share on average.
        let whole = self.gain * ((1.0 - self.vignette / 3.0) * STEPS as f32);
        let mean = |factor: f32| {
            let (mut sum, mut count) = (0.0, 0.0);
            for pixel in light.iter().step_by(7) {
                let lit = pixel.times(whole) * factor;
                sum += [lit.x, lit.y, lit.z].map(|value| self.curve[low(value, last) as usize]).iter().sum::<f32>();
                count += 3.0;
            }
            sum / count
        };
        let (mut short, mut long) = (0.0, 1.0);
        for _ in 0..24 {
            let middle = 0.5 * (short + long);
            if mean(middle) < level { short = middle } else { long = middle }
        }
        self.gain = self.gain * long;
        self
    }

    /// Bytes of frame number `frame` (it decides the noise and the flicker), exposed `factor` times as long as the
    /// camera would. `light` is row-major; it is used up.
    pub fn expose(&self, mut light: Vec<V3>, size: (u32, u32), frame: u32, factor: f32) -> RgbImage {
        let (width, height) = (size.0 as usize, size.1 as usize);
        if self.blur > 0.0 {
            blur(&mut light, width, height, self.blur);
        }
        let start = mixed(self.seed ^ frame.wrapping_mul(0x9E37_79B9));
        let gain = self.gain * (1.0 + self.flicker * (start as f32 / u32::MAX as f32 * 2.0 - 1.0)) * factor;
        let mut state = u64::from(start) << 32 | u64::from(mixed(start));
        let mut bytes = vec![0; width * height * 3];
        // Two bytes sum to a number of nearly this standard deviation.
        let amplitude = self.noise / 104.5;
        let last = (HEADROOM * STEPS) as f32;
        let mut out = bytes.chunks_exact_mut(3);
        for (row, line) in light.chunks_exact(width).enumerate() {
            let y = (row as f32 + 0.5) / height as f32 - 0.5;
            for (column, (pixel, out)) in line.iter().zip(&mut out).enumerate() {
                let x = (column as f32 + 0.5) / width as f32 - 0.5;
                let left = STEPS as f32 * (1.0 - self.vignette * 2.0 * (x * x + y * y));
                let lit = pixel.times(gain) * left;
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                for (channel, value) in [lit.x, lit.y, lit.z].into_iter().enumerate() {
                    let word = (state >> (16 * channel)) as u32;
                    let noise = ((word & 255) + (word >> 8 & 255)) as f32 - 255.0;
                    let mapped = self.curve[low(value, last) as usize];
                    out[channel] = (mapped + noise * amplitude + 0.5) as u8;
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
