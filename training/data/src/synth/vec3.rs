//! Three `f32`: points in metres and linear colours, where a matrix library would only slow the pixel loop down.

use std::ops::{Add, Mul, Sub};

#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct V3 {
    pub x: f32,
    pub y: f32,
    pub z: f32,
}

pub(super) const fn v3(x: f32, y: f32, z: f32) -> V3 {
    V3 { x, y, z }
}

/// The smaller: one instruction, where `f32::min` spends five on NaN.
pub(super) fn low(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}

/// The larger: one instruction, where `f32::max` spends five on NaN.
pub(super) fn high(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

impl V3 {
    pub fn from_f64(v: [f64; 3]) -> Self {
        v3(v[0] as f32, v[1] as f32, v[2] as f32)
    }

    pub fn dot(self, other: Self) -> f32 {
        self.x * other.x + self.y * other.y + self.z * other.z
    }

    pub fn norm(self) -> f32 {
        self.dot(self).sqrt()
    }

    /// Component-wise product: light times albedo.
    pub fn times(self, other: Self) -> Self {
        v3(self.x * other.x, self.y * other.y, self.z * other.z)
    }

    pub fn mix(self, other: Self, share: f32) -> Self {
        self + (other - self) * share
    }

    /// The same vector after a turn about +z by the angle of this cosine and sine.
    pub fn turned(self, cos: f32, sin: f32) -> Self {
        v3(cos * self.x - sin * self.y, sin * self.x + cos * self.y, self.z)
    }

    pub fn luminance(self) -> f32 {
        0.25 * self.x + 0.6 * self.y + 0.15 * self.z
    }
}

impl Add for V3 {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        v3(self.x + other.x, self.y + other.y, self.z + other.z)
    }
}

impl Sub for V3 {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        v3(self.x - other.x, self.y - other.y, self.z - other.z)
    }
}

impl Mul<f32> for V3 {
    type Output = Self;
    fn mul(self, factor: f32) -> Self {
        v3(self.x * factor, self.y * factor, self.z * factor)
    }
}
