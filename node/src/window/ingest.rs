//! What runs on every message of the camera: cheap checks, intrinsics, windows. Nothing is decoded here but PNG
//! files of 16-bit samples, for how much of those is used.

use std::sync::Arc;

use crate::config::WindowRules;
use crate::status::counters::{Fate, Stats, Ticket};
use crate::window::frame::Frame;
use crate::window::{Accepted, Cause, Restart, View, Window, WindowBuffer};
use camera::decode::{SampleRange, SampleStream, inspect};
use camera::message::{CameraInfoMessage, ImageMessage, ImagePayload};
use camera::optics::CameraRules;
use camera::optics::{CameraState, Optics, Refusal};
use camera::transforms::plain;
use geometry::Stamp;

/// Nearer than this no camera takes its images.
const LEAST_PERIOD_NANOS: i64 = 200_000;
/// Images in a row that say so, for it to be no slip of one stamp.
const QUICK_IMAGES: u32 = 5;

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
    /// Of the images, as the words name it.
    topic: String,
    samples: SampleStream,
    /// Bits of its samples that were last told of.
    told_bits: Option<u32>,
    /// The frame that CameraInfo is for.
    info_frame: String,
    /// What the images call their frame, and what outputs do: shared by the frames of a camera, so that a name is kept once.
    frame_id: Option<(String, Arc<str>)>,
    newest: Option<Stamp>,
    /// Images in a row that come closer than any camera takes them.
    quick: u32,
}

impl<F> Ingest<F> {
    /// Before the first message; `topic` is that of the images.
    pub fn new(camera: &CameraRules, window: WindowRules, topic: &str, stats: Arc<Stats>) -> Self {
        let ingest = Self {
            camera: CameraState::new(camera),
            buffer: WindowBuffer::new(window),
            stats,
            topic: topic.to_owned(),
            samples: SampleStream::default(),
            told_bits: None,
            info_frame: String::new(),
            frame_id: None,
            newest: None,
            quick: 0,
        };
        ingest.doubt_camera();
        ingest
    }

    /// The topic of the images.
    pub fn topic(&self) -> &str {
        &self.topic
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
            self.doubt_camera();
        }
        if self.info_frame != info.frame_id {
            self.info_frame.clone_from(&info.frame_id);
            self.frame_id = None;
        }
    }

    fn doubt_camera(&self) {
        let doubts: Vec<String> = self.camera.doubts().iter().map(ToString::to_string).collect();
        let words = (!doubts.is_empty()).then(|| {
            format!("the camera of {} is hard to believe, and so are its poses: {}", self.topic, doubts.join("; "))
        });
        self.stats.doubt("camera", words);
    }

    /// Takes an image.
    pub fn image(&mut self, image: ImageMessage, ticket: Ticket) -> Taken<F> {
        // Of each image that came, whatever becomes of it: what is made of the next must not hang on who was in time.
        let range = self.range(&image.payload);
        let (view, optics) = match self.view(&image) {
            Ok(found) => found,
            Err((fate, problem)) => {
                self.drop_frame(ticket, fate, problem);
                return Taken { accepted: Vec::new(), window: None };
            }
        };
        let frame = Arc::new(Frame::new(image.payload, range, optics, ticket));
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
                    let unset = if image.stamp.nanos == 0 { ": the driver does not set header.stamp" } else { "" };
                    format!("stamp {} ns does not come after the frame before it{unset}", image.stamp.nanos)
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
        push.accepted.iter().for_each(|accepted| self.doubt_period(accepted.stamp));
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
        let optics = optics.clone();
        let view = View { frame_id: self.usable_frame(&image.frame_id), intrinsics: optics.intrinsics };
        Ok((view, optics))
    }

    /// What outputs call the images' frame. tf2 takes no empty name and none with a leading slash, which was usual in ROS 1.
    fn usable_frame(&mut self, sent: &str) -> Arc<str> {
        if let Some((known, usable)) = &self.frame_id
            && known == sent
        {
            return Arc::clone(usable);
        }
        let (topic, of_info) = (&self.topic, plain(&self.info_frame));
        let (usable, words) = match plain(sent) {
            "" if of_info.is_empty() => {
                let words = format!(
                    "images of {topic} have no header.frame_id, and CameraInfo has none: tf2 refuses what comes out; set it in \
                     the camera's driver"
                );
                ("", Some(words))
            }
            "" => {
                let words =
                    format!("images of {topic} have no header.frame_id: outputs take that of CameraInfo, `{of_info}`");
                (of_info, Some(words))
            }
            name if name != sent => {
                let words = format!(
                    "header.frame_id `{sent}` of {topic} has a leading slash, which tf2 refuses: outputs say `{name}`"
                );
                (name, Some(words))
            }
            name if name.contains(|c: char| c.is_whitespace() || c.is_control()) => {
                let words = format!("header.frame_id {name:?} of {topic} has spaces or control characters");
                (name, Some(words))
            }
            name => (name, None),
        };
        let usable: Arc<str> = Arc::from(usable);
        self.stats.doubt("frame_id", words);
        self.frame_id = Some((sent.to_owned(), Arc::clone(&usable)));
        usable
    }

    /// The range to read the samples of the next image in; told where another depth follows from it.
    fn range(&mut self, payload: &ImagePayload) -> SampleRange {
        let range = self.samples.take(payload);
        let bits = self.samples.range().map(SampleRange::bits);
        if bits.is_some() && bits != self.told_bits {
            self.told_bits = bits;
            tracing::info!("{} ({})", self.samples, self.topic);
        }
        let words = bits.is_some().then(|| self.samples.to_string());
        self.stats.update(|s| s.samples = words);
        range
    }

    /// Stamps of another unit make every motion a leap.
    fn doubt_period(&mut self, stamp: Stamp) {
        let period = self.newest.replace(stamp).map(|newest| stamp.nanos_since(newest));
        let is_quick = period.is_some_and(|period| (1..LEAST_PERIOD_NANOS).contains(&period));
        self.quick = if is_quick { self.quick.saturating_add(1) } else { 0 };
        if self.quick > QUICK_IMAGES {
            return;
        }
        let words = period.filter(|_| self.quick == QUICK_IMAGES).map(|period| {
            let topic = &self.topic;
            format!(
                "stamps of {topic} are {period} ns apart, which no camera is: header.stamp is seconds, and nanoseconds below \
                 them"
            )
        });
        self.stats.doubt("stamps", words);
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
