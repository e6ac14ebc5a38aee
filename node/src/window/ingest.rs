//! What runs on every message of the camera: cheap checks, intrinsics, windows. Nothing is decoded here.

use std::sync::Arc;

use crate::config::WindowRules;
use crate::status::counters::{Fate, Stats, Ticket};
use crate::window::frame::Frame;
use crate::window::{Accepted, Cause, Restart, View, Window, WindowBuffer};
use camera::decode::inspect;
use camera::message::{CameraInfoMessage, ImageMessage};
use camera::optics::CameraRules;
use camera::optics::{CameraState, Optics, Refusal};

/// Why an image is dropped, as it is counted and in words.
type Refused = (Fate, String);

/// What an image brought about.
#[derive(Debug)]
pub struct Taken<F> {
    /// Frames that are now the newest of the stream, in their order.
    pub accepted: Vec<Accepted<Arc<Frame<F>>>>,
    /// The window that it completed.
    pub window: Option<Window<Arc<Frame<F>>>>,
}

/// From messages to windows.
#[derive(Debug)]
pub struct Ingest<F> {
    camera: CameraState,
    buffer: WindowBuffer<Arc<Frame<F>>>,
    stats: Arc<Stats>,
    /// Shared by the frames of a camera, so that a name is kept once.
    frame_id: Arc<str>,
}

impl<F> Ingest<F> {
    /// Before the first message.
    pub fn new(camera: &CameraRules, window: WindowRules, stats: Arc<Stats>) -> Self {
        Self { camera: CameraState::new(camera), buffer: WindowBuffer::new(window), stats, frame_id: Arc::from("") }
    }

    /// Takes the camera's word about itself.
    pub fn camera_info(&mut self, info: &CameraInfoMessage) {
        let is_new = self.camera.update(info);
        self.stats.update(|s| s.camera_infos_received += 1);
        if is_new {
            match self.camera.latest() {
                Ok(Optics { intrinsics: k, rectifier: None }) => {
                    tracing::info!(fx = k.fx, fy = k.fy, cx = k.cx, cy = k.cy, "intrinsics");
                }
                Ok(Optics { intrinsics: k, rectifier: Some(_) }) => tracing::info!(
                    model = info.distortion_model,
                    d = ?info.d,
                    fx = k.fx,
                    fy = k.fy,
                    cx = k.cx,
                    cy = k.cy,
                    "images are rectified to these intrinsics; where they are already, set camera.images"
                ),
                Err(e) => tracing::warn!("images will be dropped: {e}"),
            }
        }
    }

    /// Takes an image.
    pub fn image(&mut self, image: ImageMessage, ticket: Ticket) -> Taken<F> {
        let (view, optics) = match self.view(&image) {
            Ok(found) => found,
            Err((fate, problem)) => {
                self.drop_frame(ticket, fate, problem);
                return Taken { accepted: Vec::new(), window: None };
            }
        };
        let frame = Arc::new(Frame::new(image.payload, optics, ticket));
        let push = self.buffer.push(image.stamp, &view, frame);
        if let Some(restart) = push.restart {
            tracing::info!(?restart, stamp = image.stamp.nanos, "the stream of frames starts afresh");
        }
        for (frame, cause) in push.dropped {
            let fate = fate_of(cause);
            frame.note(fate);
            drop(frame);
            let problem = match cause {
                Cause::Repeated | Cause::Backward => {
                    format!("stamp {} ns does not come after the frame before it", image.stamp.nanos)
                }
                Cause::Stray { stamp, newest } => format!(
                    "stamp {} ns is more than window.max_gap_millis from {} ns before it, and the next image does not go \
                     on from it",
                    stamp.nanos, newest.nanos
                ),
                Cause::SkippedByStride | Cause::Restarted(_) => continue,
            };
            self.tell_dropped(fate, problem);
        }
        self.stats.update(|s| s.windows_complete += u64::from(push.window.is_some()));
        Taken { accepted: push.accepted, window: push.window }
    }

    /// Starts the stream of frames afresh; those that wait for their window end with `fate`. Intrinsics stay.
    pub fn forget(&mut self, fate: Fate) {
        self.buffer.clear().iter().for_each(|frame| frame.note(fate));
    }

    fn view(&mut self, image: &ImageMessage) -> Result<(View, Optics), Refused> {
        let (width, height) = inspect(&image.payload).map_err(|e| (Fate::Decode, e.to_string()))?;
        let optics = self.camera.optics(width, height).map_err(|e| {
            let fate = match e {
                Refusal::NoCameraInfo => Fate::NoCameraInfo,
                Refusal::Invalid { .. } => Fate::CameraInfoInvalid,
                Refusal::OtherGrid { .. } => Fate::CameraInfoMismatch,
            };
            (fate, e.to_string())
        })?;
        if *self.frame_id != *image.frame_id {
            self.frame_id = Arc::from(image.frame_id.as_str());
        }
        let view = View { frame_id: Arc::clone(&self.frame_id), intrinsics: optics.intrinsics };
        Ok((view, optics.clone()))
    }

    fn drop_frame(&self, ticket: Ticket, fate: Fate, problem: String) {
        ticket.note(fate);
        drop(ticket);
        self.tell_dropped(fate, problem);
    }

    /// Logs the first, second, fourth, eighth, ... of a kind, which is counted already: a camera that is set up wrongly sends
    /// thirty a second.
    fn tell_dropped(&self, fate: Fate, problem: String) {
        let mut count = 0;
        self.stats.update(|s| count = s.fate(fate));
        if count.is_power_of_two() {
            tracing::warn!(count, counter = fate.counter(), "image dropped: {problem}");
        }
        self.stats.update(|s| s.last_problem = Some(problem));
    }
}

fn fate_of(cause: Cause) -> Fate {
    match cause {
        Cause::SkippedByStride => Fate::SkippedByStride,
        Cause::Repeated => Fate::Repeated,
        Cause::Backward => Fate::Backward,
        Cause::Stray { stamp, newest } if stamp < newest => Fate::Backward,
        Cause::Stray { .. } => Fate::Ahead,
        Cause::Restarted(Restart::Gap) => Fate::GapReset,
        Cause::Restarted(Restart::ClockWentBack) => Fate::ClockReset,
        Cause::Restarted(Restart::CameraChanged) => Fate::CameraChanged,
    }
}
