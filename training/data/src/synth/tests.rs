use super::vec3::v3;
use super::*;
use image::Rgb;
use nalgebra::{Point2, Point3};

const SIZE: (u32, u32) = (96, 72);

/// Pixel of frame `to` (nearest) and depth there of the point that frame `from` shows at `(u, v)`.
fn carried(window: &SynthWindow, from: usize, to: usize, u: u32, v: u32) -> Option<(Point2<f64>, f64)> {
    let depth = f64::from(window.depth[from][(v * SIZE.0 + u) as usize]);
    let point_in_camera = window.intrinsics.back_project(&Point2::new(f64::from(u), f64::from(v)), depth);
    let point_in_world = window.world_from_camera[from].transform_point(&point_in_camera);
    let point_in_other: Point3<f64> = window.world_from_camera[to].inverse().transform_point(&point_in_world);
    let pixel = window.intrinsics.project(&point_in_other)?;
    let inside = (1.0..f64::from(SIZE.0) - 2.0).contains(&pixel.x) && (1.0..f64::from(SIZE.1) - 2.0).contains(&pixel.y);
    inside.then_some((pixel, point_in_other.z))
}

/// Bilinear in inverse depth, which is linear on planes; none where the four neighbours are not one surface.
fn depth_at(depth: &[f32], pixel: &Point2<f64>) -> Option<f64> {
    let (x, y) = (pixel.x.floor(), pixel.y.floor());
    let (fx, fy) = (pixel.x - x, pixel.y - y);
    let at = |dx: usize, dy: usize| 1.0 / f64::from(depth[(y as usize + dy) * SIZE.0 as usize + x as usize + dx]);
    let corners = [at(0, 0), at(1, 0), at(0, 1), at(1, 1)];
    let (low, high) = (corners.iter().copied().fold(f64::MAX, f64::min), corners.iter().copied().fold(0.0, f64::max));
    let top = corners[0] + (corners[1] - corners[0]) * fx;
    let bottom = corners[2] + (corners[3] - corners[2]) * fx;
    (high / low < 1.05).then(|| 1.0 / (top + (bottom - top) * fy))
}

#[test]
fn depth_and_poses_agree() {
    for index in 0..12 {
        let window = window(11, index, SIZE);
        let (mut good, mut seen) = (0, 0);
        for to in 1..WINDOW {
            for (u, v) in (0..SIZE.0).step_by(3).flat_map(|u| (0..SIZE.1).step_by(3).map(move |v| (u, v))) {
                let Some((pixel, expected)) = carried(&window, 0, to, u, v) else {
                    continue;
                };
                let Some(got) = depth_at(&window.depth[to], &pixel) else {
                    continue;
                };
                // In front of what was seen before: hidden by something else now.
                if got < expected * 0.95 {
                    continue;
                }
                seen += 1;
                good += usize::from((got / expected - 1.0).abs() < 0.01);
            }
        }
        assert!(seen > 200, "window {index}: {seen} points");
        assert!(good as f64 > 0.95 * seen as f64, "window {index}: {good} of {seen}");
    }
}

#[test]
fn corresponding_pixels_look_alike() {
    let difference = |a: &Rgb<u8>, b: &Rgb<u8>| -> f64 {
        a.0.iter().zip(b.0).map(|(&a, b)| f64::from(a.abs_diff(b))).sum::<f64>() / 3.0
    };
    let (mut same, mut other, mut count) = (0.0, 0.0, 0.0);
    for index in 0..16 {
        let window = window(12, index, SIZE);
        for (u, v) in (4..SIZE.0 - 4).step_by(4).flat_map(|u| (4..SIZE.1 - 4).step_by(4).map(move |v| (u, v))) {
            let own = window.images[0].get_pixel(u, v);
            let rough = difference(own, window.images[0].get_pixel(u + 1, v))
                + difference(own, window.images[0].get_pixel(u, v + 1));
            let Some((pixel, expected)) = carried(&window, 0, 3, u, v) else {
                continue;
            };
            if rough > 16.0 || depth_at(&window.depth[3], &pixel).is_none_or(|got| (got / expected - 1.0).abs() > 0.02)
            {
                continue;
            }
            same += difference(own, window.images[3].get_pixel(pixel.x.round() as u32, pixel.y.round() as u32));
            other += difference(own, window.images[3].get_pixel(SIZE.0 - 1 - u, SIZE.1 - 1 - v));
            count += 1.0;
        }
    }
    let (same, other) = (same / count, other / count);
    assert!(count > 1000.0 && same < 10.0 && other > 3.5 * same, "same {same:.1}, other {other:.1}, {count} pixels");
}

#[test]
fn the_seed_decides_everything() {
    let (first, again, next) = (window(1, 2, SIZE), window(1, 2, SIZE), window(1, 3, SIZE));
    assert!(first.images.iter().zip(&again.images).all(|(a, b)| a.as_raw() == b.as_raw()));
    assert_eq!(first.depth, again.depth);
    assert_eq!(first.world_from_camera, again.world_from_camera);
    assert_ne!(first.images[0].as_raw(), next.images[0].as_raw());
    assert_ne!(first.images[0].as_raw(), window(2, 2, SIZE).images[0].as_raw());
    let poses = poses(1, 2, WINDOW, SIZE);
    assert_eq!(poses.world_from_camera, first.world_from_camera);
    assert_eq!(poses.intrinsics, first.intrinsics);
}

#[test]
fn the_size_changes_the_grid_alone() {
    let (small, large) = (window(4, 9, (80, 64)), window(4, 9, (160, 120)));
    assert_eq!(small.world_from_camera, large.world_from_camera);
    let rescaled = large.intrinsics.rescale(80, 64);
    for (got, expected) in [
        (small.intrinsics.fx, rescaled.fx),
        (small.intrinsics.fy, rescaled.fy),
        (small.intrinsics.cx, rescaled.cx),
        (small.intrinsics.cy, rescaled.cy),
    ] {
        assert!((got - expected).abs() < 1e-9, "{got} {expected}");
    }
    // 160 x 120 has the sensor's shape: square pixels.
    assert!((large.intrinsics.fx - large.intrinsics.fy).abs() < 1e-9);
}

fn median_of(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Prints its medians with `--nocapture`.
#[test]
fn motions_have_the_scale_of_real_video() {
    let (mut turned, mut table, mut room, mut forward, mut sideways, mut still) = (vec![], vec![], vec![], 0, 0, 0);
    let count = 400;
    for index in 0..count {
        let poses = poses(77, index, WINDOW, SIZE);
        let anchor_from_last = poses.world_from_camera[0].inverse() * poses.world_from_camera[4];
        let moved = anchor_from_last.translation();
        let angle = anchor_from_last.rotation().angle().to_degrees();
        assert!(angle < 32.0 && moved.norm() < 0.75, "window {index}: {angle} deg, {} m", moved.norm());
        if poses.motion == MotionKind::Still {
            still += 1;
            assert!(angle < 2.0 && moved.norm() < 0.02, "still window {index}: {angle} deg, {} m", moved.norm());
            continue;
        }
        turned.push(angle);
        forward += usize::from(moved.z > 0.0);
        sideways += usize::from(moved.x > 0.0);
        match poses.kind {
            SceneKind::TableTop => table.push(moved.norm()),
            SceneKind::Room => room.push(moved.norm()),
        }
        for pose in &poses.world_from_camera {
            // Roll: how far the camera's x axis leaves the horizontal.
            let roll = pose.rotation_matrix()[(2, 0)].asin().to_degrees().abs();
            assert!(roll < 10.5, "window {index}: roll {roll}");
        }
    }
    let moving = turned.len() as f64;
    let within = turned.iter().filter(|a| (1.0..20.0).contains(*a)).count() as f64 / moving;
    let in_bounds = table.iter().filter(|t| (0.015..0.16).contains(*t)).count()
        + room.iter().filter(|t| (0.04..0.62).contains(*t)).count();
    let (rooms, angle, near, far) = (room.len(), median_of(turned), median_of(table), median_of(room));
    eprintln!(
        "median rotation {angle:.2} deg ({within:.2} in 1..20), translation table {near:.3} m, room {far:.3} m, still {still}"
    );
    assert!((4.5..8.0).contains(&angle) && within > 0.85, "{angle} {within}");
    assert!((0.04..0.09).contains(&near) && (0.12..0.3).contains(&far), "{near} {far}");
    assert!(in_bounds as f64 > 0.93 * moving, "{in_bounds} of {moving}");
    assert!((0.35..0.65).contains(&(rooms as f64 / moving)));
    for half in [forward, sideways] {
        assert!((0.4..0.6).contains(&(half as f64 / moving)), "{half} of {moving}");
    }
    assert!((8..36).contains(&still), "{still}");
}

#[test]
fn the_camera_keeps_clear() {
    for index in 0..150 {
        let plan = plan(&SynthConfig::default(), None, 5, index, WINDOW, SIZE);
        for pose in &plan.poses {
            let p = v3(pose.position.x as f32, pose.position.y as f32, pose.position.z as f32);
            let nearest = plan.scene.solids.iter().map(|solid| solid.distance(p)).fold(f32::MAX, f32::min);
            assert!(nearest > 0.1, "window {index}: {nearest}");
            assert!(p.x > 0.1 && p.x < plan.scene.room.x - 0.1 && p.y > 0.1 && p.y < plan.scene.room.y - 0.1);
            assert!((plan.scene.room.z - 0.1).min(p.z) > 0.1);
        }
    }
    for index in 0..10 {
        let window = window(5, index, SIZE);
        let nearest = window.depth.iter().flatten().copied().fold(f32::MAX, f32::min);
        assert!(nearest >= 0.1, "window {index}: {nearest}");
        assert!(window.median_depth > 0.25 && window.median_depth < 6.5, "window {index}: {}", window.median_depth);
    }
}

#[test]
fn a_film_is_smooth_and_stays_in_the_room() {
    let film = sequence(21, 3, 24, (32, 24));
    assert_eq!((film.images.len(), film.depth.len(), film.world_from_camera.len()), (24, 24, 24));
    let steps: Vec<_> = film.world_from_camera.windows(2).map(|pair| pair[0].inverse() * pair[1]).collect();
    for pair in steps.windows(2) {
        assert!((pair[0].translation() - pair[1].translation()).norm() < 0.06);
        assert!(pair[0].rotation().angle_to(&pair[1].rotation()).to_degrees() < 3.0);
    }
}

#[test]
fn settings_are_checked() {
    let parse = |text: &str| serde_json::from_str::<SynthConfig>(text).map_err(|error| error.to_string());
    assert_eq!(parse("{}").unwrap(), SynthConfig::default());
    for (text, part) in [
        (r#"{"room_share": 1.5}"#, "room_share: expected 0 to 1, got 1.5"),
        (r#"{"horizontal_fov_deg": [80, 45]}"#, "horizontal_fov_deg"),
        (r#"{"sensor_aspects": []}"#, "sensor_aspects"),
        (r#"{"room_shar": 0.5}"#, "unknown field"),
    ] {
        let error = parse(text).unwrap_err();
        assert!(error.contains(part), "{error}");
    }
    let rooms = SynthConfig { room_share: 1.0, ..SynthConfig::default() };
    assert!((0..5).all(|index| window_with(&rooms, 6, index, (32, 24)).kind == SceneKind::Room));
}
