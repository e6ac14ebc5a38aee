//! One frame: a ray a pixel, and four more where two surfaces meet inside one.

use super::motion::Pose;
use super::scene::{Hit, ROOM, Scene, View};
use super::vec3::{V3, v3};
use geometry::Intrinsics;

const TILE: usize = 8;
/// Columns and rows of the coarse grid.
const GRID: (usize, usize) = (12, 9);
/// Nearest depth that a tile bound is computed for; closer things are tested everywhere.
const NEAR: f32 = 0.05;

/// A camera for the pixel loop.
pub(super) struct Eye {
    position: V3,
    right: V3,
    down: V3,
    forward: V3,
    focal: (f32, f32),
    centre: (f32, f32),
    size: (usize, usize),
}

/// Linear colour and z-depth (metres) per pixel, row-major.
pub(super) struct Light {
    pub colour: Vec<V3>,
    pub depth: Vec<f32>,
}

impl Eye {
    pub fn new(pose: &Pose, intrinsics: &Intrinsics) -> Self {
        let column =
            |i: usize| v3(pose.rotation[(0, i)] as f32, pose.rotation[(1, i)] as f32, pose.rotation[(2, i)] as f32);
        Self {
            position: V3::from_f64(pose.position.into()),
            right: column(0),
            down: column(1),
            forward: column(2),
            focal: (intrinsics.fx as f32, intrinsics.fy as f32),
            centre: (intrinsics.cx as f32, intrinsics.cy as f32),
            size: (intrinsics.width as usize, intrinsics.height as usize),
        }
    }

    /// Direction through pixel coordinates, of length 1 along the optical axis, so that ray parameters are z-depths.
    fn direction(&self, u: f32, v: f32) -> V3 {
        self.right * ((u - self.centre.0) / self.focal.0)
            + self.down * ((v - self.centre.1) / self.focal.1)
            + self.forward
    }

    /// Solids that each tile of the image may show.
    fn tiles(&self, scene: &Scene) -> (usize, Vec<Vec<u16>>) {
        let (columns, rows) = (self.size.0.div_ceil(TILE), self.size.1.div_ceil(TILE));
        let mut tiles = vec![Vec::new(); columns * rows];
        for (index, solid) in scene.solids.iter().enumerate() {
            let half = solid.half();
            let (mut low, mut high) = ((f32::MAX, f32::MAX), (f32::MIN, f32::MIN));
            let (mut behind, mut close) = (true, false);
            for corner in 0..8u32 {
                let sign = |bit: u32| if corner >> bit & 1 == 0 { -1.0 } else { 1.0 };
                let offset = v3(sign(0) * half.x, sign(1) * half.y, sign(2) * half.z).turned(solid.cos, solid.sin);
                let p = solid.centre + offset - self.position;
                let z = p.dot(self.forward);
                behind &= z <= 0.0;
                close |= z < NEAR;
                let u = self.centre.0 + self.focal.0 * p.dot(self.right) / z;
                let v = self.centre.1 + self.focal.1 * p.dot(self.down) / z;
                low = (low.0.min(u), low.1.min(v));
                high = (high.0.max(u), high.1.max(v));
            }
            if behind {
                continue;
            }
            let range = |low: f32, high: f32, count: usize| {
                if close {
                    return 0..count;
                }
                let first = ((low - 1.0) / TILE as f32).clamp(0.0, count as f32) as usize;
                let last = ((high + 1.0) / TILE as f32 + 1.0).clamp(0.0, count as f32) as usize;
                first..last
            };
            for row in range(low.1, high.1, rows) {
                for column in range(low.0, high.0, columns) {
                    tiles[row * columns + column].push(index as u16);
                }
            }
        }
        (columns, tiles)
    }

    fn shade(&self, view: &View<'_>, hit: &Hit, direction: V3, scale: f32) -> V3 {
        let length = direction.norm();
        let facing = (direction.dot(hit.normal).abs() / length).max(0.03);
        // A slanted surface stretches the pixel in one direction only: between its two sizes.
        let stretch = 1.0 / facing.sqrt() / facing.sqrt().sqrt();
        let footprint = hit.t * length * scale * stretch;
        view.shade(hit, self.position + direction * hit.t, footprint)
    }

    /// A pixel on an edge: four rays, one shade per surface that they meet.
    fn blend(&self, view: &View<'_>, tile: &[u16], u: f32, v: f32, scale: f32) -> V3 {
        // A turned square: four different rows and columns.
        let rays = [(-0.125, -0.375), (0.375, -0.125), (0.125, 0.375), (-0.375, 0.125)].map(|(du, dv)| {
            let direction = self.direction(u + du, v + dv);
            (direction, view.trace(direction, tile))
        });
        let mut sum = v3(0.0, 0.0, 0.0);
        for (i, (direction, hit)) in rays.iter().enumerate() {
            let same = |other: &(V3, Hit)| other.1.surface_id() == hit.surface_id();
            if !rays[..i].iter().any(same) {
                let share = rays[i..].iter().filter(|&other| same(other)).count() as f32 * 0.25;
                sum = sum + self.shade(view, hit, *direction, scale) * share;
            }
        }
        sum
    }

    /// One ray a pixel decides where `smooth` is false: for pictures that are averaged with others.
    pub fn render(&self, scene: &Scene, smooth: bool) -> Light {
        let view = View::new(scene, self.position);
        let (columns, tiles) = self.tiles(scene);
        let (width, height) = self.size;
        let mut hits = Vec::with_capacity(width * height);
        for row in 0..height {
            for column in 0..width {
                let tile = &tiles[row / TILE * columns + column / TILE];
                hits.push(view.trace(self.direction(column as f32, row as f32), tile));
            }
        }
        let scale = 1.0 / self.focal.0.min(self.focal.1);
        let mut colour = Vec::with_capacity(width * height);
        for row in 0..height {
            for column in 0..width {
                let at = row * width + column;
                let hit = &hits[at];
                let id = hit.surface_id();
                let edge = smooth
                    && ((column > 0 && hits[at - 1].surface_id() != id)
                        || (column + 1 < width && hits[at + 1].surface_id() != id)
                        || (row > 0 && hits[at - width].surface_id() != id)
                        || (row + 1 < height && hits[at + width].surface_id() != id));
                if !edge {
                    colour.push(self.shade(&view, hit, self.direction(column as f32, row as f32), scale));
                    continue;
                }
                let tile = &tiles[row / TILE * columns + column / TILE];
                colour.push(self.blend(&view, tile, column as f32, row as f32, scale));
            }
        }
        Light { colour, depth: hits.iter().map(|hit| hit.t).collect() }
    }

    /// Pixel coordinates and depths (metres) on a coarse grid.
    pub fn grid(&self, scene: &Scene) -> Vec<(f32, f32, f32)> {
        self.grid_hits(scene).into_iter().map(|(u, v, hit)| (u, v, hit.t)).collect()
    }

    fn grid_hits(&self, scene: &Scene) -> Vec<(f32, f32, Hit)> {
        let view = View::new(scene, self.position);
        let all: Vec<u16> = (0..scene.solids.len() as u16).collect();
        let (columns, rows) = GRID;
        let mut hits = Vec::with_capacity(columns * rows);
        for row in 0..rows {
            for column in 0..columns {
                let u = (column as f32 + 0.5) / columns as f32 * self.size.0 as f32 - 0.5;
                let v = (row as f32 + 0.5) / rows as f32 * self.size.1 as f32 - 0.5;
                hits.push((u, v, view.trace(self.direction(u, v), &all)));
            }
        }
        hits
    }

    /// What is in the corners of the image.
    pub fn corners(&self, scene: &Scene) -> [Hit; 4] {
        let view = View::new(scene, self.position);
        let all: Vec<u16> = (0..scene.solids.len() as u16).collect();
        let (right, bottom) = (self.size.0 as f32 - 0.5, self.size.1 as f32 - 0.5);
        [(-0.5, -0.5), (right, -0.5), (-0.5, bottom), (right, bottom)]
            .map(|(u, v)| view.trace(self.direction(u, v), &all))
    }

    /// Depths (metres, sorted) on a coarse grid, and the largest share of it that one surface of the room takes.
    pub fn survey(&self, scene: &Scene) -> (Vec<f32>, f32) {
        let mut bare = [0u32; 6];
        let mut depths = Vec::with_capacity(GRID.0 * GRID.1);
        for (_, _, hit) in self.grid_hits(scene) {
            depths.push(hit.t);
            if hit.solid == ROOM && hit.decor == 0 {
                bare[usize::from(hit.face)] += 1;
            }
        }
        depths.sort_by(f32::total_cmp);
        let share = bare.into_iter().max().unwrap_or(0) as f32 / (GRID.0 * GRID.1) as f32;
        (depths, share)
    }
}
