//! Where the images of a run come from, and what is known of them.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use camera::message::{CameraInfoMessage, ImageMessage, ImagePayload};
use camera::optics::UseFixed;
use camera::sequence::Sequence;
use geometry::{Intrinsics, Stamp};
use image::imageops::FilterType;
use node::ros::message::Input;
use node::ros::transport::Topics;
use node::tools::recording::Recording;

use super::config;
use crate::camera::Camera;
use crate::root;

const FRAME_ID: &str = "camera_optical_frame";

/// What a camera shows, ready to be played.
pub enum Source {
    /// Stamped as it is sent.
    Frames(Box<Frames>),
    /// Stamped as it was, but for the time between recording and playing.
    Recording { recording: Recording, topics: Box<Topics>, use_fixed: UseFixed },
    /// Not ours.
    Live,
}

/// A sequence's frames in memory, so that neither files nor decoding share the processor with the node.
pub struct Frames {
    pub sequence: Sequence,
    intrinsics: Intrinsics,
    payloads: Vec<ImagePayload>,
    period: Duration,
}

/// What was sent.
#[derive(Debug, Default)]
pub struct Played {
    pub images: u64,
    /// Place in the sequence by stamp, nanoseconds.
    pub frames: HashMap<i64, usize>,
}

/// Why a player stops.
enum Stop {
    /// Its time is over.
    Time,
    Failed(anyhow::Error),
}

impl From<node::tools::recording::Error> for Stop {
    fn from(error: node::tools::recording::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl Source {
    /// Reads what is to be played.
    ///
    /// # Errors
    ///
    /// A file that is not there or is not what it must be.
    pub fn open(source: &config::Source, topics: &Topics, use_fixed: UseFixed) -> Result<Self> {
        match source {
            config::Source::Sequence { path, rate_hz, width, height } => {
                let sequence = Sequence::load(&root().join(path))?;
                let size = (*width > 0).then_some((*width, *height));
                let intrinsics = size.map_or(sequence.intrinsics, |(w, h)| sequence.intrinsics.rescale(w, h));
                let read = |path: &Path| match topics.image_compressed {
                    true => compressed(path, &intrinsics),
                    false => raw(path, &intrinsics),
                };
                let payloads = sequence.frames.iter().map(|path| read(path)).collect::<Result<Vec<_>>>()?;
                ensure!(payloads.len() > 1, "{}: expected two frames or more", path.display());
                let period = Duration::from_secs_f64(1.0 / rate_hz);
                Ok(Self::Frames(Box::new(Frames { sequence, intrinsics, payloads, period })))
            }
            config::Source::Recording { path } => {
                let recording = Recording::open(&root().join(path))?;
                recording.camera(topics, use_fixed)?; // said now, and not when the node waits
                Ok(Self::Recording { recording, topics: Box::new(topics.clone()), use_fixed })
            }
            config::Source::Live {} => Ok(Self::Live),
        }
    }

    /// Plays for `duration`; `go_on` is asked before each image, and its error ends it. Only what is live needs no camera.
    ///
    /// # Errors
    ///
    /// That, what the camera cannot publish, and what cannot be read.
    pub fn play(
        &self,
        camera: Option<&Camera>,
        duration: Duration,
        mut go_on: impl FnMut() -> Result<()>,
    ) -> Result<Played> {
        let begun = Instant::now();
        let mut played = Played::default();
        let Some(camera) = camera else {
            while begun.elapsed() < duration {
                go_on()?;
                std::thread::sleep(Duration::from_millis(100));
            }
            return Ok(played);
        };
        match self {
            Self::Frames(frames) => {
                for i in 0_u32.. {
                    let due = frames.period * i;
                    if due >= duration {
                        break;
                    }
                    wait_until(begun + due);
                    go_on()?;
                    frames.publish(camera, i as usize, &mut played)?;
                }
            }
            Self::Recording { recording, topics, use_fixed } => {
                let recorded = recording.camera(topics, *use_fixed)?;
                loop {
                    let mut clock = None;
                    let end = recorded.play(|heard, input| {
                        let Ok(input) = input else { return Ok(()) }; // what is broken in the file stays there
                        // Stamps keep their distances to each other, and to the times at which they were heard.
                        let (first, started, late) =
                            *clock.get_or_insert_with(|| (heard, Instant::now(), now().nanos_since(heard)));
                        let since = Duration::from_nanos(u64::try_from(heard.nanos_since(first)).unwrap_or(0));
                        wait_until(started + since);
                        if begun.elapsed() >= duration {
                            return Err(Stop::Time);
                        }
                        go_on().map_err(Stop::Failed)?;
                        publish_recorded(camera, input, late, &mut played).map_err(Stop::Failed)
                    });
                    match end {
                        Ok(()) => {}
                        Err(Stop::Time) => break,
                        Err(Stop::Failed(error)) => return Err(error),
                    }
                    ensure!(clock.is_some(), "the recording has no message that can be read");
                }
            }
            Self::Live => bail!("a live camera and one of the bench cannot share a topic"),
        }
        Ok(played)
    }
}

impl Frames {
    fn publish(&self, camera: &Camera, i: usize, played: &mut Played) -> Result<()> {
        let frame = there_and_back(i, self.payloads.len());
        let payload = self.payloads[frame].clone();
        let stamp = now();
        camera.publish_info(camera_info(&self.intrinsics, stamp))?;
        camera.publish_image(ImageMessage { stamp, frame_id: FRAME_ID.to_owned(), payload })?;
        played.images += 1;
        played.frames.insert(stamp.nanos, frame);
        Ok(())
    }
}

fn publish_recorded(camera: &Camera, input: Input, late: i64, played: &mut Played) -> Result<()> {
    let shifted = |stamp: Stamp| Stamp::from_nanos(stamp.nanos.saturating_add(late));
    match input {
        Input::Image(image) => {
            camera.publish_image(ImageMessage { stamp: shifted(image.stamp), ..image })?;
            played.images += 1;
            Ok(())
        }
        Input::CameraInfo(info) => {
            let stamp = shifted(info.stamp);
            camera.publish_info(CameraInfoMessage { stamp, ..info })
        }
        // The bench is a camera alone.
        Input::Odometry(_) | Input::Followed(_) => Ok(()),
    }
}

/// The place of the `i`-th image in a sequence of `n` frames that is played forwards and backwards, so that the camera
/// never jumps and every window has its ground truth.
fn there_and_back(i: usize, n: usize) -> usize {
    let i = i % (2 * (n - 1));
    i.min(2 * (n - 1) - i)
}

/// The clock that images are stamped by.
pub fn now() -> Stamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Stamp::from_nanos(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

fn wait_until(due: Instant) {
    std::thread::sleep(due.saturating_duration_since(Instant::now()));
}

fn raw(path: &Path, intrinsics: &Intrinsics) -> Result<ImagePayload> {
    let rgb = image::open(path).with_context(|| path.display().to_string())?.to_rgb8();
    let (width, height) = (intrinsics.width, intrinsics.height);
    let rgb = match rgb.dimensions() == (width, height) {
        true => rgb,
        false => image::imageops::resize(&rgb, width, height, FilterType::Triangle),
    };
    let (encoding, step) = ("rgb8".to_owned(), 3 * width);
    Ok(ImagePayload::Raw { width, height, encoding, is_bigendian: false, step, data: rgb.into_raw() })
}

/// The file as it is, which must be of the right size.
fn compressed(path: &Path, intrinsics: &Intrinsics) -> Result<ImagePayload> {
    let got = image::image_dimensions(path).with_context(|| path.display().to_string())?;
    let expected = (intrinsics.width, intrinsics.height);
    ensure!(
        got == expected,
        "{}: compressed images are played as they are: expected {expected:?} pixels, got {got:?}",
        path.display()
    );
    let data = std::fs::read(path).with_context(|| path.display().to_string())?;
    Ok(ImagePayload::Compressed { format: "jpeg".to_owned(), data })
}

fn camera_info(intrinsics: &Intrinsics, stamp: Stamp) -> CameraInfoMessage {
    let Intrinsics { fx, fy, cx, cy, width, height } = *intrinsics;
    CameraInfoMessage {
        stamp,
        frame_id: FRAME_ID.to_owned(),
        width,
        height,
        distortion_model: "plumb_bob".to_owned(),
        d: vec![0.0; 5],
        k: [fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0],
        r: [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
        p: [fx, 0.0, cx, 0.0, 0.0, fy, cy, 0.0, 0.0, 0.0, 1.0, 0.0],
        ..CameraInfoMessage::default()
    }
}

#[cfg(test)]
mod tests {
    use super::{raw, there_and_back};
    use crate::root;
    use camera::message::ImagePayload;
    use geometry::Intrinsics;

    #[test]
    fn the_camera_never_jumps() {
        let places: Vec<usize> = (0..9).map(|i| there_and_back(i, 4)).collect();
        assert_eq!(places, [0, 1, 2, 3, 2, 1, 0, 1, 2]);
        assert_eq!([0, 1, 2, 3].map(|i| there_and_back(i, 2)), [0, 1, 0, 1]);
    }

    #[test]
    fn frames_have_the_size_that_is_asked_for() {
        let frame = root().join("tests/data/amazon_box/frames/000000.jpg");
        let intrinsics = Intrinsics::new(100.0, 100.0, 40.0, 30.0, 80, 60).unwrap();
        let payload = raw(&frame, &intrinsics).unwrap();
        let ImagePayload::Raw { width, height, step, data, .. } = payload else { panic!("not raw") };
        assert_eq!((width, height, step, data.len()), (80, 60, 240, 80 * 60 * 3));
    }
}
