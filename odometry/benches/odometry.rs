//! Times of a picture, of a window's stages and of a frame of the stream, on rendered films.
#![expect(clippy::unwrap_used, reason = "a bench that cannot be set up has nothing to measure")]

use std::array::from_fn;
use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use geometry::{Intrinsics, WINDOW};
use odometry::stream::{Options, Stream};
use odometry::window::{solve, solve_tracks};
use odometry::{Grey, Picture, tracks};

#[path = "../tests/suite/render.rs"]
#[allow(dead_code, reason = "the tests use the rest of it")]
mod render;

use render::{Scene, camera, film, orbit_and_walk, picture};

/// Frames of a film; it is played there and back.
const FRAMES: usize = 60;
/// Frames that a stream is shown before it is timed: it has its map then.
const WARM: usize = 30;

fn shown(camera: &Intrinsics) -> Vec<Grey> {
    film(&Scene::room(), camera, &(0..FRAMES).map(|k| orbit_and_walk(2 * k)).collect::<Vec<_>>())
}

/// Plays a film without end to a stream that has its map; only the stream is timed.
fn frames(camera: &Intrinsics, greys: &[Grey], count: u64) -> Duration {
    let mut stream = Stream::new(Options::default());
    let mut total = Duration::ZERO;
    for k in 0..WARM + count as usize {
        let place = k % (2 * FRAMES - 2);
        let own = picture(k, camera, &greys[if place < FRAMES { place } else { 2 * FRAMES - 2 - place }]);
        let begin = Instant::now();
        black_box(stream.push(own).unwrap());
        if k >= WARM {
            total += begin.elapsed();
        }
    }
    total
}

fn benches(criterion: &mut Criterion) {
    for (name, own) in [("640x480", camera(640, 480)), ("1280x720", camera(1280, 720))] {
        let greys = shown(&own);
        criterion.bench_function(&format!("picture/{name}"), |b| b.iter(|| picture(0, &own, black_box(&greys[0]))));
        let pictures: [Picture; WINDOW] = from_fn(|k| picture(k, &own, &greys[2 * k]));
        criterion
            .bench_function(&format!("window/{name}/tracks"), |b| b.iter(|| tracks::of_window(black_box(&pictures))));
        let found = tracks::of_window(&pictures).unwrap();
        let working = *pictures[0].intrinsics();
        criterion.bench_function(&format!("window/{name}/solve_tracks"), |b| {
            b.iter(|| solve_tracks(black_box(&found), &working, None).unwrap());
        });
        criterion.bench_function(&format!("window/{name}/solve"), |b| b.iter(|| solve(black_box(&pictures), None)));
        criterion
            .bench_function(&format!("stream/{name}/frame"), |b| b.iter_custom(|count| frames(&own, &greys, count)));
    }
    // Where neighbours share too few points, features are described and matched.
    let own = camera(640, 480);
    let greys = shown(&own);
    let pictures: [Picture; WINDOW] = from_fn(|k| picture(k, &own, &greys[if k == 2 { FRAMES - 1 } else { k }]));
    criterion.bench_function("window/640x480/one picture elsewhere", |b| b.iter(|| solve(black_box(&pictures), None)));
}

criterion_group! {
    name = all;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3));
    targets = benches
}
criterion_main!(all);
