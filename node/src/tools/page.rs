//! A replay as one page for a browser, which needs no network: pictures with the points that were followed, the path in
//! space, what carried each pose, the scale, the status, latencies and the model's words, with a cursor through all of them.
//!
//! The page's numbers are the JSON of [`Page`], in it as it stands, of which the report is the one of `report.json`; its
//! program, in `page.html`, only draws. That is a few hundred lines of our own on a canvas: a library for plots or for 3-D
//! would come from a registry that nothing else here is built from, is a multiple of the page in size, and is not needed for
//! lines in space.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use camera::sequence::Sequence;
use geometry::Stamp;
use serde::{Deserialize, Serialize};

use crate::tools::moments::{self, State};
use crate::tools::report::{Error, Evidence, Report, Way};

const TEMPLATE: &str = include_str!("page.html");
/// Where the data stand in it.
const PLACE: &str = "__DATA__";

/// All that a page shows. Times are seconds from the first image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Page {
    /// What was played.
    pub title: String,
    /// Of lengths.
    pub unit: String,
    /// What `report.json` has.
    pub report: Report,
    /// The node's counters.
    pub counters: Vec<(String, u64)>,
    /// What was wrong last, where anything was.
    pub problem: Option<String>,
    /// The stamp of the first image, seconds.
    pub start_seconds: f64,
    /// Of the odometry, or else of the windows stitched together.
    pub poses: Vec<Pose>,
    /// Places of the truth at the same images; empty where it is not known.
    pub truth: Vec<[f64; 3]>,
    /// True units for one of the poses, by which the path is drawn, where that is fitted to the truth.
    pub scale: Option<f64>,
    /// What is known of each image.
    pub moments: Vec<Moment>,
    /// What the model answered.
    pub windows: Vec<Window>,
}

/// Where the camera was.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Pose {
    /// When.
    pub t: f64,
    /// x right, y down, z forward of the first camera.
    pub position: [f64; 3],
    /// Of the camera's axes.
    pub orientation_xyzw: [f64; 4],
    /// Breaks before it.
    pub segment: u32,
}

/// What is known of one image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Moment {
    /// When.
    pub t: f64,
    /// The node behind it.
    #[serde(flatten)]
    pub state: State,
    /// Where one is kept.
    pub picture: Option<Picture>,
}

/// A small picture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Picture {
    /// JPEG in base64.
    pub jpeg: String,
    /// Width and height, pixels.
    pub size: (u32, u32),
    /// As [`moments::Picture::tracks`].
    pub tracks: Vec<[i32; 4]>,
}

/// A window that the model answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Window {
    /// Of its first and last image.
    pub span: [f64; 2],
    /// Its images, counted from 0.
    pub frames: Vec<usize>,
    /// The model's words.
    pub text: String,
    /// Why no pose came of it, where none did.
    pub problem: Option<String>,
    /// Time that the answer took, milliseconds.
    pub latency_ms: Option<f64>,
}

impl Page {
    /// Of a replay of a sequence, and of its report.
    pub fn of_sequence(evidence: &Evidence, sequence: &Sequence, report: &Report) -> Self {
        Self::new(evidence, Some(sequence), sequence.unit(), report)
    }

    /// Of a replay without ground truth.
    pub fn without_truth(evidence: &Evidence, report: &Report) -> Self {
        let is_told = evidence.scale.as_ref().is_some_and(|(source, _)| source != "none");
        Self::new(evidence, None, if is_told { "m" } else { "units of its own" }, report)
    }

    fn new(evidence: &Evidence, sequence: Option<&Sequence>, unit: &str, report: &Report) -> Self {
        let way = Way::new(evidence, sequence);
        let first = evidence.moments.iter().map(|moment| moment.stamp);
        let first = first.chain(way.poses.iter().map(|(pose, _)| pose.stamp)).min().unwrap_or_default();
        let since = |stamp: Stamp| stamp.nanos_since(first) as f64 * 1e-9;
        let poses = way.poses.iter().map(|(pose, segment)| Pose {
            t: since(pose.stamp),
            position: pose.value.translation().into(),
            orientation_xyzw: pose.value.to_xyzw(),
            segment: *segment,
        });
        let moments = evidence.moments.iter().map(|moment| Moment {
            t: since(moment.stamp),
            state: moment.state.clone(),
            picture: moment.picture.as_ref().map(Picture::from),
        });
        let windows = evidence.results.iter().map(|result| Window {
            span: [since(result.stamps[0]), since(result.stamps[result.stamps.len() - 1])],
            frames: result.frames.to_vec(),
            text: result.text.clone(),
            problem: result.problem.clone(),
            latency_ms: result.latency.map(|latency| latency.as_secs_f64() * 1e3),
        });
        Self {
            title: report.sequence.clone(),
            unit: unit.to_owned(),
            report: report.clone(),
            counters: evidence.counters.clone(),
            problem: evidence.problem.clone(),
            start_seconds: first.as_seconds_f64(),
            poses: poses.collect(),
            truth: way.truth.iter().map(|point| point.coords.into()).collect(),
            scale: way.scale,
            moments: moments.collect(),
            windows: windows.collect(),
        }
    }

    /// Writes the page to a file.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let failed = |source| Error::Io { path: path.to_owned(), source };
        let html = self.html().map_err(|error| failed(error.into()))?;
        std::fs::write(path, html).map_err(failed)
    }

    /// The page. What stands in it as text, such as the model's words, ends no element: JSON has no `<` outside of texts, and
    /// in a text it may be written otherwise.
    fn html(&self) -> serde_json::Result<String> {
        let json = serde_json::to_string(self)?.replace('<', "\\u003c");
        let (before, behind) = TEMPLATE.split_once(PLACE).expect("the page has a place for its data");
        Ok([before, &json, behind].concat())
    }
}

impl From<&moments::Picture> for Picture {
    fn from(picture: &moments::Picture) -> Self {
        Self { jpeg: STANDARD.encode(&picture.jpeg), size: picture.size, tracks: picture.tracks.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::{Page, TEMPLATE};
    use crate::tools::moments::{Moment, Picture, State};
    use crate::tools::report::{Evidence, FilmPose, WindowResult, without_truth};
    use geometry::{Stamp, Transform, WINDOW};

    /// Of a film of so many images, each with a picture as large as any.
    fn evidence(images: usize, text: &str) -> Evidence {
        let stamp = |k: usize| Stamp::from_nanos(1_700_000_000_000_000_000 + 33_333_333 * k as i64);
        let picture =
            Picture { jpeg: vec![7; 9 << 10], size: (320, 240), tracks: vec![[-3199, 2399, 3199, -2399]; 100] };
        let moment = |k| Moment { stamp: stamp(k), state: State::default(), picture: Some(picture.clone()) };
        let pose = |k| FilmPose { frame: k, stamp: stamp(k), odom_from_camera: Transform::identity(), segment: 0 };
        let window = |k: usize| WindowResult {
            frames: [k; WINDOW],
            stamps: [stamp(k); WINDOW],
            trajectory: None,
            said: None,
            text: text.to_owned(),
            problem: None,
            latency: None,
        };
        Evidence {
            windows: images as u64 / 4,
            unparsed: Some(0),
            latency_ms_median: Some(12.5),
            node_rss_mib_max: Some(99.0),
            counters: vec![("frames_received".to_owned(), images as u64)],
            results: (0..images).step_by(4).map(window).collect(),
            odometry: (0..images).map(pose).collect(),
            scale: Some(("model".to_owned(), 0.5)),
            problem: None,
            moments: (0..images).map(moment).collect(),
        }
    }

    #[test]
    fn the_data_in_a_page_are_the_report_s_whatever_the_model_says() {
        let words = "</script><script>alert(1)</script> <!-- \u{2028} \"quoted\" \\ & <step1>";
        let evidence = evidence(5, words);
        let report = without_truth(&evidence, "a <b>film</b>", 5);
        let page = Page::without_truth(&evidence, &report);
        let html = page.html().unwrap();
        let (_, rest) = html.split_once("<script id=\"data\" type=\"application/json\">").unwrap();
        let (json, _) = rest.split_once("</script>").unwrap();
        let read: Page = serde_json::from_str(json).unwrap();
        assert_eq!(read, page);
        assert_eq!((&read.report, &read.windows[0].text), (&report, &words.to_owned()));
        assert_eq!(read.moments[1].t.to_bits(), (33_333_333.0 * 1e-9_f64).to_bits());
        assert_eq!(html.matches("alert(1)").count(), 2, "once for each of two windows");
        assert!(!html.contains("<script>alert"));
    }

    #[test]
    fn a_page_of_300_images_is_below_5_megabytes() {
        let evidence = evidence(300, &"word ".repeat(600));
        let report = without_truth(&evidence, "film", 300);
        let bytes = Page::without_truth(&evidence, &report).html().unwrap().len();
        assert!(bytes < 5_000_000, "{bytes}");
    }

    #[test]
    fn nothing_in_a_page_asks_for_the_network() {
        for address in ["http:", "https:", "src=\"//", "@import", "fetch(", "XMLHttpRequest", "url("] {
            assert!(!TEMPLATE.contains(address), "{address}");
        }
        assert!(TEMPLATE.contains("default-src 'none'"));
    }

    #[test]
    fn a_replay_from_which_nothing_came_has_a_page() {
        let mut evidence = evidence(0, "");
        evidence.scale = None;
        let page = Page::without_truth(&evidence, &without_truth(&evidence, "film", 0));
        assert_eq!((page.poses.len(), page.unit.as_str()), (0, "units of its own"));
        assert!(page.html().unwrap().contains("\"poses\":[]"));
    }
}
