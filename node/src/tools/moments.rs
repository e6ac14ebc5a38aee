//! What a replay keeps of its images for a page: how the node stood after each, and small pictures with the points that were
//! followed, of at most [`MOST_PICTURES`], however long the film is.

use std::collections::BTreeMap;

use geometry::{Intrinsics, Stamp};
use image::codecs::jpeg::JpegEncoder;
use image::imageops::thumbnail;
use image::{ExtendedColorType, RgbImage};
use nalgebra::Point2;
use serde::{Deserialize, Serialize};

use crate::status::counters::Snapshot;

/// Pictures that are kept: with more images, every second, fourth, ... has one.
pub const MOST_PICTURES: usize = 300;
/// Bytes of a picture, so that a page of all of them stays below 5 MB.
const MOST_BYTES: usize = 9 << 10;
/// The longer side, pixels, and the quality of JPEG, tried in this order until a picture is small enough.
const SIZES: [(u32, u8); 6] = [(320, 75), (320, 55), (320, 35), (240, 35), (160, 35), (96, 20)];
/// Points that are drawn over a picture.
const MOST_TRACKS: usize = 100;
/// Parts of a pixel that places of points are given in.
const TENTHS: f64 = 10.0;

/// What is known of one image.
#[derive(Debug, Clone, PartialEq)]
pub struct Moment {
    /// Of the image.
    pub stamp: Stamp,
    /// The node behind it.
    pub state: State,
    /// Where one is kept.
    pub picture: Option<Picture>,
}

/// How the node stands. What is not known is null.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// `OK`, `DEGRADED` or `LOST`.
    pub status: String,
    /// Why; empty where it is OK.
    pub reason: String,
    /// What the pose stands on, as in the diagnostics.
    pub carried: Option<String>,
    /// Points of known depth that the image shows.
    pub points: Option<usize>,
    /// Metres for a unit of the tracks.
    pub metres: Option<f64>,
    /// Standard deviation of its logarithm.
    pub sigma: Option<f64>,
    /// Who tells it.
    pub source: Option<String>,
}

/// A small picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Picture {
    /// The file.
    pub jpeg: Vec<u8>,
    /// Pixels of it.
    pub size: (u32, u32),
    /// Points that are followed: where each is and where it was in the image before, tenths of a pixel of it: x, y, x, y.
    pub tracks: Vec<[i32; 4]>,
}

/// An image in full, and the points that are followed in it: their numbers and places, normalised.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a> {
    /// Of a pinhole.
    pub image: &'a RgbImage,
    /// Of that image.
    pub intrinsics: &'a Intrinsics,
    /// By number.
    pub seen: &'a [(u64, Point2<f64>)],
}

/// Gathers the moments of a film.
#[derive(Debug)]
pub struct Album {
    moments: Vec<Moment>,
    /// Images from one that has a picture to the next.
    stride: usize,
    pictures: usize,
    /// Where the points were in the last image.
    before: BTreeMap<u64, Point2<f64>>,
}

impl State {
    /// Of the counters at a moment.
    pub fn of(counts: &Snapshot) -> Self {
        let tracking = counts.by_tracks.as_ref();
        let scale = tracking.and_then(|tracking| tracking.scale);
        Self {
            status: counts.status.to_string(),
            reason: counts.status_reason.clone(),
            carried: tracking.map(|tracking| tracking.carried.name().to_owned()),
            points: tracking.map(|tracking| tracking.points),
            metres: scale.map(|scale| scale.metres()),
            sigma: scale.map(|scale| scale.sigma),
            source: scale.and_then(|scale| scale.source).map(|source| source.name().to_owned()),
        }
    }
}

impl Default for Album {
    fn default() -> Self {
        Self { moments: Vec::new(), stride: 1, pictures: 0, before: BTreeMap::new() }
    }
}

impl Album {
    /// Takes the next image; `shown` where it could be read and is tracked.
    pub fn add(&mut self, stamp: Stamp, state: State, shown: Option<Shown<'_>>) {
        let is_kept = self.moments.len().is_multiple_of(self.stride);
        let picture = shown.filter(|_| is_kept).and_then(|shown| self.picture(&shown));
        self.before = shown.map(|shown| shown.seen.iter().copied().collect()).unwrap_or_default();
        self.pictures += usize::from(picture.is_some());
        self.moments.push(Moment { stamp, state, picture });
        if self.pictures > MOST_PICTURES {
            self.thin();
        }
    }

    /// All that was gathered, in the order of the images.
    pub fn finish(self) -> Vec<Moment> {
        self.moments
    }

    /// Leaves out every second picture.
    fn thin(&mut self) {
        self.stride *= 2;
        for (index, moment) in self.moments.iter_mut().enumerate() {
            if !index.is_multiple_of(self.stride) {
                moment.picture = None;
            }
        }
        self.pictures = self.moments.iter().filter(|moment| moment.picture.is_some()).count();
    }

    fn picture(&self, shown: &Shown<'_>) -> Option<Picture> {
        let (jpeg, size) = small(shown.image)?;
        let camera = shown.intrinsics.rescale(size.0, size.1);
        let place = |at: &Point2<f64>| {
            [at.x * camera.fx + camera.cx, at.y * camera.fy + camera.cy].map(|pixel| (pixel * TENTHS).round() as i32)
        };
        let step = shown.seen.len().div_ceil(MOST_TRACKS).max(1);
        let track = |(id, at): &(u64, Point2<f64>)| {
            let ([x, y], [x_before, y_before]) = (place(at), place(self.before.get(id).unwrap_or(at)));
            [x, y, x_before, y_before]
        };
        Some(Picture { jpeg, size, tracks: shown.seen.iter().step_by(step).map(track).collect() })
    }
}

/// The first that is small enough, or else the smallest; `None` of an image without pixels.
fn small(image: &RgbImage) -> Option<(Vec<u8>, (u32, u32))> {
    let (width, height) = image.dimensions();
    let longer = width.max(height);
    if width == 0 || height == 0 {
        return None;
    }
    let mut best = None;
    for (side, quality) in SIZES {
        let scaled = |pixels: u32| {
            let pixels =
                if longer > side { u64::from(pixels) * u64::from(side) / u64::from(longer) } else { pixels.into() };
            u32::try_from(pixels).unwrap_or(side).max(1)
        };
        let size = (scaled(width), scaled(height));
        let pixels = thumbnail(image, size.0, size.1);
        let mut jpeg = Vec::new();
        JpegEncoder::new_with_quality(&mut jpeg, quality)
            .encode(pixels.as_raw(), size.0, size.1, ExtendedColorType::Rgb8)
            .ok()?;
        let is_small = jpeg.len() <= MOST_BYTES;
        best = Some((jpeg, size));
        if is_small {
            break;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::{Album, MOST_BYTES, MOST_PICTURES, Shown, State};
    use geometry::{Intrinsics, Stamp};
    use image::RgbImage;
    use nalgebra::Point2;

    fn noise(width: u32, height: u32) -> RgbImage {
        let mut state = 1_u32;
        RgbImage::from_fn(width, height, |_, _| {
            image::Rgb(std::array::from_fn(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            }))
        })
    }

    #[test]
    fn a_long_film_keeps_every_state_and_few_pictures_evenly() {
        let (image, camera) = (RgbImage::new(8, 6), Intrinsics::new(8.0, 8.0, 3.5, 2.5, 8, 6).unwrap());
        let mut album = Album::default();
        for k in 0..1000 {
            let shown = Shown { image: &image, intrinsics: &camera, seen: &[] };
            album.add(Stamp::from_nanos(k), State::default(), Some(shown));
        }
        let moments = album.finish();
        assert_eq!(moments.len(), 1000);
        let kept: Vec<usize> = (0..1000).filter(|k| moments[*k].picture.is_some()).collect();
        assert!((MOST_PICTURES / 2..=MOST_PICTURES).contains(&kept.len()), "{}", kept.len());
        assert!(kept.windows(2).all(|pair| pair[1] - pair[0] == 4), "{kept:?}");
    }

    #[test]
    fn a_picture_is_small_whatever_it_shows_and_points_lie_on_its_pixels() {
        let camera = Intrinsics::new(800.0, 800.0, 639.5, 359.5, 1280, 720).unwrap();
        // The middle of the picture; a quarter of its width to the right of that, and before at the middle.
        let [first, second] = [Point2::new(0.0, 0.0), Point2::new(0.4, 0.0)];
        let mut album = Album::default();
        let image = noise(1280, 720);
        for seen in [[(7, first), (9, second)], [(7, second), (8, first)]] {
            let shown = Shown { image: &image, intrinsics: &camera, seen: &seen };
            album.add(Stamp::default(), State::default(), Some(shown));
        }
        let moments = album.finish();
        let picture = moments[1].picture.as_ref().unwrap();
        assert!(picture.jpeg.len() <= MOST_BYTES, "{}", picture.jpeg.len());
        let decoded = image::load_from_memory(&picture.jpeg).unwrap();
        assert_eq!((decoded.width(), decoded.height()), picture.size);
        let (middle, quarter) = (f64::from(picture.size.0) * 5.0, f64::from(picture.size.0) * 7.5);
        for (got, expected) in [(picture.tracks[0], [quarter, middle]), (picture.tracks[1], [middle, middle])] {
            assert!((f64::from(got[0]) - expected[0]).abs() < 7.0, "{got:?} {expected:?}");
            assert!((f64::from(got[2]) - expected[1]).abs() < 7.0, "{got:?} {expected:?}");
        }
    }

    #[test]
    fn an_image_without_pixels_has_no_picture() {
        let camera = Intrinsics::new(8.0, 8.0, 3.5, 2.5, 8, 6).unwrap();
        let mut album = Album::default();
        let image = RgbImage::new(0, 0);
        album.add(Stamp::default(), State::default(), Some(Shown { image: &image, intrinsics: &camera, seen: &[] }));
        album.add(Stamp::default(), State::default(), None);
        assert!(album.finish().iter().all(|moment| moment.picture.is_none()));
    }
}
