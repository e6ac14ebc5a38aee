//! What the tracks of a window's pictures say, for an answer that they are written in
//! ([`Fill::Measured`](model::answer::fill::Fill::Measured)): of eval, of the endpoint, and of rollouts.

use std::sync::Arc;

use anyhow::Result;
use geometry::{Intrinsics, Stamp, WINDOW};
use image::RgbImage;
use model::answer::measured::Measured;
use odometry::{Grey, Picture};

/// The points and the exact poses of five images of `camera`; `None` where no motion fits them, or fewer than five points have
/// a depth.
///
/// # Errors
/// Images of another number or size, stamps that do not increase.
pub fn of_images(images: &[RgbImage], camera: &Intrinsics, stamps: &[Stamp; WINDOW]) -> Result<Option<Arc<Measured>>> {
    of_greys(&images.iter().map(grey).collect::<Result<Vec<_>, _>>()?, camera, stamps)
}

/// [`of_images`] of their grey values.
pub(crate) fn of_greys(greys: &[Grey], camera: &Intrinsics, stamps: &[Stamp; WINDOW]) -> Result<Option<Arc<Measured>>> {
    let pictures = pictures(greys, camera, stamps)?;
    let Ok(solved) = odometry::window::solve(&pictures, None)? else { return Ok(None) };
    let points = odometry::tracks::of_window(&pictures)?.in_all(pictures[0].intrinsics());
    Ok(Measured::choose(&points, &solved.trajectory).map(Arc::new))
}

/// What an odometry sees of an image.
pub(crate) fn grey(image: &RgbImage) -> Result<Grey, odometry::Error> {
    Grey::from_rgb(image.width() as usize, image.height() as usize, image.as_raw())
}

/// The pictures of a window.
pub(crate) fn pictures(greys: &[Grey], camera: &Intrinsics, stamps: &[Stamp; WINDOW]) -> Result<[Picture; WINDOW]> {
    let picture = |(grey, stamp): (&Grey, &Stamp)| Picture::new(*stamp, camera, grey);
    let pictures = greys.iter().zip(stamps).map(picture).collect::<Result<Vec<_>, _>>()?;
    <[Picture; WINDOW]>::try_from(pictures).map_err(|_| anyhow::anyhow!("expected {WINDOW} pictures"))
}
