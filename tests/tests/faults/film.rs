//! Faults of the camera where tracks pose each image. The pictures of the other cases are too small to be tracked; these are
//! those of a film, whose poses are known.

use std::path::Path;
use std::sync::LazyLock;

use camera::message::{CameraInfoMessage, ImageMessage, ImagePayload};
use camera::sequence::Sequence;
use geometry::metrics::{Alignment, ape_rmse};
use geometry::{Camera, Odom, Stamp, Transform};
use nalgebra::Vector3;
use node::config::OdometrySource;
use node::pipeline::Settings;
use node::ros::lifecycle::State;
use node::ros::message::{Input, OdometryMessage};
use node::status::counters::Fate;

use crate::case::settings;
use crate::rig::{self, parsed};

/// Frames of the film that are sent.
const FRAMES: usize = 24;
/// The frame that something is wrong with, or the first of them: there is a map by then.
const FAULT: usize = 12;
const LOST: [usize; 2] = [FAULT + 1, FAULT + 2];
/// Error of the path after one scale, metres; of a camera that does not move it is 0.067.
const MOST_ATE_METRES: f64 = 0.02;

static FILM: LazyLock<Sequence> =
    LazyLock::new(|| Sequence::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("data/amazon_box")).unwrap());

/// Something wrong, and what it comes to.
struct Fault {
    name: &'static str,
    /// What comes in place of a frame.
    comes: fn(usize) -> Vec<Input>,
    /// Frames that have no pose.
    unposed: &'static [usize],
    dropped: &'static [(Fate, u64)],
    breaks: u64,
}

fn message(stamp: Stamp, payload: ImagePayload) -> Input {
    Input::Image(ImageMessage { stamp, frame_id: "optical".to_owned(), payload })
}

fn jpeg(frame: usize) -> Vec<u8> {
    std::fs::read(&FILM.frames[frame]).unwrap()
}

fn at(frame: usize, stamp: Stamp) -> Input {
    message(stamp, ImagePayload::Compressed { format: "jpeg".to_owned(), data: jpeg(frame) })
}

fn image(frame: usize) -> Input {
    at(frame, FILM.stamps[frame])
}

/// A picture of one value, of the film's size.
fn flat(frame: usize, encoding: &str, bytes: u32) -> Input {
    let (width, height) = (FILM.intrinsics.width, FILM.intrinsics.height);
    let (step, data) = (width * bytes, vec![0; (width * height * bytes) as usize]);
    let encoding = encoding.to_owned();
    message(FILM.stamps[frame], ImagePayload::Raw { width, height, encoding, is_bigendian: false, step, data })
}

/// What the camera says of itself, with focal lengths so many times the film's.
fn camera_info(zoom: f64) -> Input {
    let k = &FILM.intrinsics;
    Input::CameraInfo(CameraInfoMessage {
        frame_id: "optical".to_owned(),
        width: k.width,
        height: k.height,
        distortion_model: "plumb_bob".to_owned(),
        k: [k.fx * zoom, 0.0, k.cx, 0.0, k.fy * zoom, k.cy, 0.0, 0.0, 1.0],
        ..CameraInfoMessage::default()
    })
}

fn later(frame: usize, seconds: i64) -> Stamp {
    Stamp::from_nanos(FILM.stamps[frame].nanos + seconds * 1_000_000_000)
}

fn pose(odometry: &OdometryMessage) -> Transform<Odom, Camera> {
    Transform::from_xyzw(odometry.pose.orientation_xyzw, &Vector3::from(odometry.pose.position)).unwrap()
}

impl Fault {
    /// Plays the film with it.
    fn check(&self) {
        let name = self.name;
        let mut settings = Settings { has_model: false, scale_topic: String::new(), ..settings() };
        settings.odometry.source = OdometrySource::Fused;
        let rig = rig::start(settings, None, Box::new(|_| parsed()), Box::new(|| Ok(())));
        rig.wait("active", |s| s.lifecycle == State::Active);
        let mut info = camera_info(1.0);
        (rig.input)(info.clone());
        let mut infos = 1;
        let mut stamps = Vec::new();
        for frame in 0..FRAMES {
            let comes = (self.comes)(frame);
            if !self.unposed.contains(&frame) {
                stamps.extend(comes.iter().find_map(|input| match input {
                    Input::Image(image) => Some(image.stamp.nanos),
                    _ => None,
                }));
            }
            for input in comes {
                if matches!(input, Input::CameraInfo(_)) {
                    info = input.clone();
                    infos += 1;
                }
                (rig.input)(input);
            }
            // One queue: when this is counted, the image has been looked at.
            (rig.input)(info.clone());
            infos += 1;
            rig.wait(name, |s| s.camera_infos_received == infos);
        }
        let (finished, outputs) = rig.finish();
        let s = finished.unwrap();
        let got: Vec<i64> = outputs.odometries.iter().map(|odometry| odometry.pose.stamp.nanos).collect();
        assert_eq!(got, stamps, "{name}: a pose for each image that can be read, in their order");
        assert_eq!((s.odometry_breaks, s.poses_withheld), (self.breaks, 0), "{name}: {:?}", s.counters());
        let dropped = |fate: Fate| self.dropped.iter().find(|(of, _)| *of == fate).map_or(0, |(_, n)| *n);
        for fate in Fate::ALL {
            let expected = if fate == Fate::Posed { stamps.len() as u64 - dropped(Fate::Blank) } else { dropped(fate) };
            assert_eq!(s.fate(fate), expected, "{name}: {}: {:?}", fate.counter(), s.counters());
        }
        let estimate: Vec<_> = outputs.odometries.iter().map(pose).collect();
        if self.breaks > 0 {
            // A segment begins where the camera was seen last.
            let moved = (estimate[FAULT].translation() - estimate[FAULT - 1].translation()).norm();
            assert!(moved < 1e-6, "{name}: a jump of {moved} m");
            return;
        }
        let truth = FILM.world_from_camera.as_ref().unwrap();
        let posed = (0..FRAMES).filter(|frame| !self.unposed.contains(frame));
        let truth: Vec<_> = posed.map(|frame| truth[frame]).collect();
        let ate = ape_rmse(&truth, &estimate, Alignment::Sim3).unwrap();
        assert!(ate < MOST_ATE_METRES, "{name}: ATE {ate} m");
    }
}

#[test]
fn images_that_are_lost_doubled_or_late_move_no_other() {
    let faults = [
        Fault {
            name: "two are lost",
            comes: |frame| if LOST.contains(&frame) { vec![] } else { vec![image(frame)] },
            unposed: &LOST,
            dropped: &[],
            breaks: 0,
        },
        Fault {
            name: "each comes twice",
            comes: |frame| vec![image(frame), image(frame)],
            unposed: &[],
            dropped: &[(Fate::Repeated, FRAMES as u64)],
            breaks: 0,
        },
        Fault {
            name: "one comes late",
            comes: |frame| if frame == FAULT { vec![image(frame), image(frame - 3)] } else { vec![image(frame)] },
            unposed: &[],
            dropped: &[(Fate::Backward, 1)],
            breaks: 0,
        },
        Fault {
            name: "one is of the future",
            comes: |frame| vec![if frame == FAULT { at(frame, later(frame, 1000)) } else { image(frame) }],
            unposed: &[FAULT],
            dropped: &[(Fate::Ahead, 1)],
            breaks: 0,
        },
    ];
    faults.iter().for_each(Fault::check);
}

#[test]
fn pictures_that_cannot_be_read_or_show_nothing_are_passed_over() {
    let faults = [
        Fault {
            name: "an encoding that is no picture",
            comes: |frame| vec![if frame == FAULT { flat(frame, "32FC1", 4) } else { image(frame) }],
            unposed: &[FAULT],
            dropped: &[(Fate::Decode, 1)],
            breaks: 0,
        },
        Fault {
            name: "a JPEG that is cut",
            comes: |frame| {
                let mut data = jpeg(frame);
                data.truncate(if frame == FAULT { data.len() / 2 } else { data.len() });
                vec![message(FILM.stamps[frame], ImagePayload::Compressed { format: "jpeg".to_owned(), data })]
            },
            unposed: &[FAULT],
            dropped: &[(Fate::Decode, 1)],
            breaks: 0,
        },
        // The motion goes on behind a lens that is covered, and the tracks are found again.
        Fault {
            name: "two are black",
            comes: |frame| {
                vec![if (FAULT..FAULT + 2).contains(&frame) { flat(frame, "mono8", 1) } else { image(frame) }]
            },
            unposed: &[],
            dropped: &[(Fate::Blank, 2)],
            breaks: 0,
        },
    ];
    faults.iter().for_each(Fault::check);
}

#[test]
fn another_camera_or_clock_is_a_break_and_no_motion() {
    let faults = [
        Fault {
            name: "CameraInfo changes",
            comes: |frame| {
                let info = (frame == FAULT).then(|| camera_info(1.25));
                info.into_iter().chain([image(frame)]).collect()
            },
            unposed: &[],
            dropped: &[],
            breaks: 1,
        },
        Fault {
            name: "the clock goes back",
            comes: |frame| vec![if frame < FAULT { image(frame) } else { at(frame, later(frame, -1000)) }],
            unposed: &[],
            dropped: &[],
            breaks: 1,
        },
    ];
    faults.iter().for_each(Fault::check);
}
