//! Estimates against ground truth: a table for a person, and `trajectory.tum` (windows stitched together), `odometry.tum` (a
//! pose for each image, where there is one), `trajectory.svg` and `report.json`.
//!
//! The evidence is a replay's, or what a counterpart received over the wire ([`Received`]). Both end in the same
//! numbers, which are those of `geometry::metrics`. Windows that did not parse are counted, never left out in silence.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use geometry::metrics::{Alignment, Statistic, ape_rmse};
use geometry::{Camera, Odom, Odometry, Stamp, Stamped, Summary, Transform, WINDOW, WindowErrors, WindowTrajectory};
use nalgebra::{Point3, Vector3};
use serde::{Deserialize, Serialize};

use crate::tools::moments::Moment;
use crate::tools::plot;
use camera::sequence::Sequence;

/// Seed of the bootstrap intervals.
const SEED: u64 = 0;

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// `received.json` does not hold what it must.
    #[error("{}: {message}", path.display())]
    Received {
        /// The file.
        path: PathBuf,
        /// What was expected and what is there.
        message: String,
    },
    /// The trajectory cannot be written.
    #[error(transparent)]
    Geometry(#[from] geometry::Error),
}

/// `received.json`: what a counterpart (`tests/ros/counterpart.py`) sent to a node and got back from it. It holds more
/// than is read here.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Received {
    /// Stamps of the images that were sent; the first is frame 0 of the sequence.
    pub published_stamps_nanos: Vec<i64>,
    /// Each Path that came back, in the order of their coming.
    pub paths: Vec<ReceivedPath>,
    /// Each Odometry that came back.
    #[serde(default)]
    pub odometry: Vec<ReceivedPose>,
    /// The last diagnostics, where any came.
    pub diagnostics_last: Option<ReceivedDiagnostics>,
}

/// A Path that came back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReceivedPath {
    /// Of its header.
    pub stamp_nanos: i64,
    /// From sending the last image of its window.
    pub latency_ms: Option<f64>,
    /// In its order.
    pub poses: Vec<ReceivedPose>,
}

/// A pose of a Path.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ReceivedPose {
    /// Of its header.
    pub stamp_nanos: i64,
    /// x y z.
    pub position: [f64; 3],
    /// x y z w.
    pub orientation_xyzw: [f64; 4],
}

/// The node's own word on how it went.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ReceivedDiagnostics {
    /// By key.
    pub values: BTreeMap<String, String>,
}

/// What happened to one window.
#[derive(Debug, Clone, PartialEq)]
pub struct WindowResult {
    /// Places of its frames in the sequence.
    pub frames: [usize; WINDOW],
    /// Their stamps.
    pub stamps: [Stamp; WINDOW],
    /// The poses that came out.
    pub trajectory: Option<WindowTrajectory>,
    /// Those that the model said, where they are known.
    pub said: Option<WindowTrajectory>,
    /// The model's words; empty where they are not known.
    pub text: String,
    /// Why there are none.
    pub problem: Option<String>,
    /// Time that the answer took: the node's own measuring in a replay, from the last image out to the Path in over the
    /// wire.
    pub latency: Option<Duration>,
}

/// All that a report is made from.
#[derive(Debug, Clone, PartialEq)]
pub struct Evidence {
    /// Windows that the model answered.
    pub windows: u64,
    /// Answers among them that could not be used, where known.
    pub unparsed: Option<u64>,
    /// Of the node's own measuring.
    pub latency_ms_median: Option<f64>,
    /// Of the node's process.
    pub node_rss_mib_max: Option<f64>,
    /// The node's counters.
    pub counters: Vec<(String, u64)>,
    /// The answers.
    pub results: Vec<WindowResult>,
    /// The odometry at the camera's rate; empty where it is stitched from windows.
    pub odometry: Vec<FilmPose>,
    /// Who gave it metres, and the standard deviation of their logarithm, where known.
    pub scale: Option<(String, f64)>,
    /// What was wrong last, where anything was.
    pub problem: Option<String>,
    /// What was kept of each image for a page ([`crate::tools::page`]); empty where none was asked for.
    pub moments: Vec<Moment>,
}

/// A pose of an odometry at the camera's rate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FilmPose {
    /// Place of its image in the sequence.
    pub frame: usize,
    /// Of its image.
    pub stamp: Stamp,
    /// The pose.
    pub odom_from_camera: Transform<Odom, Camera>,
    /// Breaks before it.
    pub segment: u32,
}

/// `report.json`. What is not known is null.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The sequence's name.
    pub sequence: String,
    /// Windows that the model answered.
    pub windows: u64,
    /// Answers that came out as poses.
    pub paths_received: usize,
    /// Poses in each of them.
    pub poses_per_path: usize,
    /// Share of the answers that could be used.
    pub final_parse: Option<f64>,
    /// Median over windows of the mean rotation error.
    pub rre_deg_median: Option<f64>,
    /// Median over windows of the mean direction error.
    pub tde_deg_median: Option<f64>,
    /// Median over windows of the mean translation error over the true length.
    pub rte_rel_median: Option<f64>,
    /// RMSE of the stitched trajectory after SE(3) alignment, scene units.
    pub ate_rmse: Option<f64>,
    /// Times that the stitched trajectory could not be continued.
    pub odometry_breaks: u32,
    /// Of the odometry, where there is a pose for every image.
    pub odometry: Option<FilmReport>,
    /// Of the model's own windows, where they are known: as `rre_deg_median` and `tde_deg_median`.
    pub model_deg_median: Option<(f64, Option<f64>)>,
    /// From taking a window to its answer.
    pub latency_ms_median: Option<f64>,
    /// Largest resident memory of the node's process.
    pub node_rss_mib_max: Option<f64>,
}

/// An odometry against ground truth.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FilmReport {
    /// Poses that came out.
    pub poses: usize,
    /// Images of the sequence.
    pub frames: usize,
    /// RMSE of the positions after the similarity that fits best, scene units.
    pub ate_rmse_after_one_scale: Option<f64>,
    /// The scale of that similarity: true units for one of the odometry.
    pub scale: Option<f64>,
    /// RMSE of the positions after the rigid motion that fits best, scene units.
    pub ate_rmse: Option<f64>,
    /// Length of its path over that of the truth, from every fifth pose to the next.
    pub path_ratio: Option<f64>,
    /// Who gave the metres, and the standard deviation of their logarithm, where known.
    pub scale_source: Option<(String, f64)>,
}

impl Evidence {
    /// Reads `received.json` and checks that every Path has five poses with the stamps of images that were sent.
    pub fn from_received(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
        let wrong = |message: String| Error::Received { path: path.to_owned(), message };
        let received: Received = serde_json::from_str(&text).map_err(|e| wrong(e.to_string()))?;
        let sent: HashMap<i64, usize> = received.published_stamps_nanos.iter().copied().zip(0..).collect();
        let results = received
            .paths
            .iter()
            .enumerate()
            .map(|(i, path)| window_of_path(path, &sent).map_err(|message| wrong(format!("path {i}: {message}"))));
        let results = results.collect::<Result<Vec<_>, _>>()?;
        let mut odometry = Vec::new();
        for (i, pose) in received.odometry.iter().enumerate() {
            let frame = *sent.get(&pose.stamp_nanos).ok_or_else(|| {
                wrong(format!("odometry {i}: expected the stamp of an image, got {}", pose.stamp_nanos))
            })?;
            let odom_from_camera = Transform::from_xyzw(pose.orientation_xyzw, &Vector3::from(pose.position))
                .map_err(|e| wrong(format!("odometry {i}: {e}")))?;
            odometry.push(FilmPose { frame, stamp: Stamp::from_nanos(pose.stamp_nanos), odom_from_camera, segment: 0 });
        }
        let values = received.diagnostics_last.unwrap_or_default().values;
        let value = |key: &str| values.get(key).and_then(|v| v.parse::<f64>().ok());
        let counter = |key: &str| values.get(key).and_then(|v| v.parse::<u64>().ok());
        let counters = values.keys().filter_map(|k| Some((k.clone(), counter(k)?)));
        Ok(Self {
            // The last diagnostics may be older than the last Path.
            windows: counter("windows_answered").unwrap_or(0).max(results.len() as u64),
            unparsed: counter("answers_unparsed"),
            latency_ms_median: value("latency_ms_median"),
            node_rss_mib_max: value("node_rss_mib_max"),
            scale: values.get("scale_source").cloned().zip(value("scale_log_stddev")),
            problem: values.get("last_problem").cloned(),
            counters: counters.collect(),
            results,
            odometry,
            moments: Vec::new(),
        })
    }

    /// Why nothing came out, in words; none where something did.
    pub fn nothing(&self) -> Option<String> {
        if self.windows > 0 || !self.odometry.is_empty() {
            return None;
        }
        let images = self.counters.iter().find(|(name, _)| name == "frames_received").map_or(0, |(_, n)| *n);
        if images == 0 {
            return Some("no pose came out, since not one image could be read".to_owned());
        }
        let dropped = self.counters.iter().filter(|(name, n)| name.starts_with("frames_dropped_") && *n > 0);
        let mut reasons: Vec<String> = dropped.map(|(name, n)| format!("{name} {n}")).collect();
        reasons.extend(self.problem.as_ref().map(|problem| format!("the last: {problem}")));
        Some(format!("no pose came out of {images} images: {}", reasons.join("; ")))
    }

    /// Share of the answers that could be used.
    fn final_parse(&self) -> Option<f64> {
        let windows = self.windows;
        let unparsed = self.unparsed.filter(|_| windows > 0)?;
        Some(windows.saturating_sub(unparsed) as f64 / windows as f64)
    }
}

/// What a replay without ground truth comes to: no errors, counts only.
pub fn counts(evidence: &Evidence, name: &str) -> String {
    let breaks = evidence.counters.iter().find(|(name, _)| name == "odometry_breaks").map_or(0, |(_, n)| *n);
    let mut text = format!(
        "{name}: no ground truth; {} windows answered, {breaks} breaks; parse {}; {} ms a window; {} MiB\n",
        evidence.windows,
        number(evidence.final_parse(), 3),
        number(evidence.latency_ms_median, 0),
        number(evidence.node_rss_mib_max, 0)
    );
    append_counters(&mut text, evidence);
    text
}

/// The report of a replay without ground truth: what can be counted.
pub fn without_truth(evidence: &Evidence, name: &str, frames: usize) -> Report {
    let stitched = Stitched::new(evidence, None);
    let parsed = evidence.results.iter().filter(|result| result.trajectory.is_some()).count();
    let film = FilmReport {
        poses: evidence.odometry.len(),
        frames,
        ate_rmse_after_one_scale: None,
        scale: None,
        ate_rmse: None,
        path_ratio: None,
        scale_source: evidence.scale.clone(),
    };
    Report {
        sequence: name.to_owned(),
        windows: evidence.windows,
        paths_received: parsed,
        poses_per_path: if parsed > 0 { WINDOW } else { 0 },
        final_parse: evidence.final_parse(),
        rre_deg_median: None,
        tde_deg_median: None,
        rte_rel_median: None,
        ate_rmse: None,
        odometry_breaks: stitched.breaks,
        odometry: (!evidence.odometry.is_empty()).then_some(film),
        model_deg_median: None,
        latency_ms_median: evidence.latency_ms_median,
        node_rss_mib_max: evidence.node_rss_mib_max,
    }
}

/// Writes what [`without_truth`] says to `report.json` in a folder, and the poses beside it: `odometry.tum` where there is one
/// for each image, `trajectory.tum` of the windows stitched together where there are some.
pub fn write_without_truth(evidence: &Evidence, report: &Report, out: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(out).map_err(io(out))?;
    let stitched = Stitched::new(evidence, None);
    if !stitched.poses.is_empty() {
        geometry::tum::write(&out.join("trajectory.tum"), &stitched.poses)?;
    }
    write_odometry(evidence, out)?;
    write_json(report, out)
}

/// A way of the camera, in the frame of its first pose, with the truth beside it.
pub(crate) struct Way {
    /// Poses and the segments that they are in: those of the odometry, or else of the windows stitched together.
    pub poses: Vec<(Stamped<Transform<Odom, Camera>>, u32)>,
    /// Places of the truth at the same images, in the frame of the first of them; empty where it is not known.
    pub truth: Vec<Point3<f64>>,
    /// True units for one of the poses, where the odometry's scale is fitted to the truth.
    pub scale: Option<f64>,
}

impl Way {
    /// Of a replay, with the truth of a sequence.
    pub fn new(evidence: &Evidence, sequence: Option<&Sequence>) -> Self {
        if evidence.odometry.is_empty() {
            let stitched = Stitched::new(evidence, sequence);
            let truth = stitched.truth.iter().map(Transform::origin).collect();
            return Self { poses: stitched.poses.into_iter().zip(stitched.segments).collect(), truth, scale: None };
        }
        let poses = evidence
            .odometry
            .iter()
            .map(|pose| (Stamped { stamp: pose.stamp, value: pose.odom_from_camera }, pose.segment));
        let film = sequence.map(|sequence| Film::new(evidence, sequence));
        let truth = film.as_ref().map(Film::truth_in_odom).unwrap_or_default();
        Self {
            poses: poses.collect(),
            truth: truth.iter().map(Transform::origin).collect(),
            scale: film.and_then(|film| film.scale()),
        }
    }
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::Io { path, source }
}

fn write_odometry(evidence: &Evidence, out: &Path) -> Result<(), Error> {
    if evidence.odometry.is_empty() {
        return Ok(());
    }
    let poses: Vec<_> =
        evidence.odometry.iter().map(|pose| Stamped { stamp: pose.stamp, value: pose.odom_from_camera }).collect();
    Ok(geometry::tum::write(&out.join("odometry.tum"), &poses)?)
}

fn write_json(report: &Report, out: &Path) -> Result<(), Error> {
    let path = out.join("report.json");
    let json = serde_json::to_string_pretty(report).map_err(|e| io(&path)(e.into()))?;
    std::fs::write(&path, json + "\n").map_err(io(&path))
}

fn window_of_path(path: &ReceivedPath, sent: &HashMap<i64, usize>) -> Result<WindowResult, String> {
    let poses: [ReceivedPose; WINDOW] = path
        .poses
        .clone()
        .try_into()
        .map_err(|poses: Vec<_>| format!("expected {WINDOW} poses, got {}", poses.len()))?;
    if path.stamp_nanos != poses[0].stamp_nanos {
        let (expected, got) = (poses[0].stamp_nanos, path.stamp_nanos);
        return Err(format!("expected the stamp of its first pose, {expected}, got {got}"));
    }
    let mut frames = [0; WINDOW];
    let mut transforms = [Transform::identity(); WINDOW];
    for (i, pose) in poses.iter().enumerate() {
        frames[i] = *sent
            .get(&pose.stamp_nanos)
            .ok_or_else(|| format!("pose {i}: expected the stamp of an image, got {}", pose.stamp_nanos))?;
        transforms[i] = Transform::from_xyzw(pose.orientation_xyzw, &Vector3::from(pose.position))
            .map_err(|e| format!("pose {i}: {e}"))?;
    }
    let trajectory = WindowTrajectory::new(transforms).map_err(|e| e.to_string())?;
    Ok(WindowResult {
        frames,
        stamps: poses.map(|p| Stamp::from_nanos(p.stamp_nanos)),
        trajectory: Some(trajectory),
        said: None,
        text: String::new(),
        problem: None,
        latency: path.latency_ms.and_then(|ms| Duration::try_from_secs_f64(ms / 1e3).ok()),
    })
}

/// Writes the three files to `out` and returns the table and the report.
pub fn write(evidence: &Evidence, sequence: &Sequence, out: &Path) -> Result<(String, Report), Error> {
    std::fs::create_dir_all(out).map_err(io(out))?;
    let stitched = Stitched::new(evidence, Some(sequence));
    let errors: Vec<Option<WindowErrors>> = evidence.results.iter().map(|result| errors_of(result, sequence)).collect();
    let summary = Summary::new(&errors, SEED);
    let report = report(evidence, sequence, &summary, &stitched);

    geometry::tum::write(&out.join("trajectory.tum"), &stitched.poses)?;
    write_odometry(evidence, out)?;
    let picture = out.join("trajectory.svg");
    plot::top_view(&picture, &stitched.drawing(evidence, sequence)).map_err(io(&picture))?;
    write_json(&report, out)?;
    Ok((table(evidence, sequence, &errors, &summary, &report), report))
}

fn errors_of(result: &WindowResult, sequence: &Sequence) -> Option<WindowErrors> {
    let truth = sequence.ground_truth(result.frames)?;
    Some(WindowErrors::new(&truth, result.trajectory.as_ref()?, sequence.scale))
}

/// Of the model's own poses.
fn model_of(evidence: &Evidence, sequence: &Sequence) -> Option<(f64, Option<f64>)> {
    let errors: Vec<Option<WindowErrors>> = evidence
        .results
        .iter()
        .filter_map(|result| result.said.as_ref().map(|said| (result, said)))
        .map(|(result, said)| Some(WindowErrors::new(&sequence.ground_truth(result.frames)?, said, sequence.scale)))
        .collect();
    let summary = Summary::new(&errors, SEED);
    Some((summary.rre_deg.median.as_ref()?.value, summary.tde_deg.median.as_ref().map(|tde| tde.value)))
}

/// Frames from one place of a path to the next, where its length is measured: from frame to frame the jitter of a measured truth
/// would be the longer part of it.
const PATH_STEP: usize = 5;

fn length<To>(poses: &[Transform<To, Camera>]) -> f64 {
    let places: Vec<Point3<f64>> = poses.iter().step_by(PATH_STEP).map(Transform::origin).collect();
    places.windows(2).map(|pair| (pair[1] - pair[0]).norm()).sum()
}

/// An odometry beside the truth at the same frames.
struct Film {
    estimate: Vec<Transform<Odom, Camera>>,
    truth: Vec<Transform<geometry::World, Camera>>,
}

impl Film {
    fn new(evidence: &Evidence, sequence: &Sequence) -> Self {
        let (mut estimate, mut truth) = (Vec::new(), Vec::new());
        if let Some(world_from_camera) = &sequence.world_from_camera {
            for pose in &evidence.odometry {
                estimate.push(pose.odom_from_camera);
                truth.push(world_from_camera[pose.frame]);
            }
        }
        Self { estimate, truth }
    }

    /// The truth in the frame of its first pose.
    fn truth_in_odom(&self) -> Vec<Transform<Odom, Camera>> {
        let Some(first) = self.truth.first() else { return Vec::new() };
        let odom_from_world: Transform<Odom, geometry::World> = first.inverse().relabel();
        self.truth.iter().map(|pose| odom_from_world * *pose).collect()
    }

    /// True units for one of the odometry.
    fn scale(&self) -> Option<f64> {
        let points = |poses: &mut dyn Iterator<Item = Point3<f64>>| poses.collect::<Vec<_>>();
        let from = points(&mut self.estimate.iter().map(Transform::origin));
        let to = points(&mut self.truth.iter().map(Transform::origin));
        geometry::umeyama(&from, &to).ok().map(|similarity| similarity.scale)
    }

    fn report(&self, evidence: &Evidence, sequence: &Sequence) -> Option<FilmReport> {
        let ate = |alignment| ape_rmse(&self.truth, &self.estimate, alignment).ok();
        let (of_estimate, of_truth) = (length(&self.estimate), length(&self.truth));
        (!evidence.odometry.is_empty()).then(|| FilmReport {
            poses: evidence.odometry.len(),
            frames: sequence.frames.len(),
            ate_rmse_after_one_scale: ate(Alignment::Sim3),
            scale: self.scale(),
            ate_rmse: ate(Alignment::Se3),
            path_ratio: (of_truth > 0.0).then(|| of_estimate / of_truth),
            scale_source: evidence.scale.clone(),
        })
    }
}

fn report(evidence: &Evidence, sequence: &Sequence, summary: &Summary, stitched: &Stitched) -> Report {
    let median = |s: &Statistic| s.median.map(|m| m.value);
    let parsed = evidence.results.iter().filter(|r| r.trajectory.is_some()).count();
    let windows = evidence.windows;
    Report {
        sequence: sequence.name.clone(),
        windows,
        paths_received: parsed,
        poses_per_path: if parsed > 0 { WINDOW } else { 0 },
        final_parse: evidence.final_parse(),
        rre_deg_median: median(&summary.rre_deg),
        tde_deg_median: median(&summary.tde_deg),
        rte_rel_median: median(&summary.rte_rel),
        ate_rmse: stitched.ate(),
        odometry_breaks: stitched.breaks,
        odometry: Film::new(evidence, sequence).report(evidence, sequence),
        model_deg_median: model_of(evidence, sequence),
        latency_ms_median: evidence.latency_ms_median,
        node_rss_mib_max: evidence.node_rss_mib_max,
    }
}

/// The windows of a run as one trajectory, with the truth at the same frames.
struct Stitched {
    poses: Vec<Stamped<Transform<Odom, Camera>>>,
    /// One a pose: the segment that it belongs to.
    segments: Vec<u32>,
    /// One a pose, in the frame of the first; absent where the sequence has no poses.
    truth: Vec<Transform<Odom, Camera>>,
    breaks: u32,
}

impl Stitched {
    fn new(evidence: &Evidence, sequence: Option<&Sequence>) -> Self {
        let mut odometry = Odometry::new();
        let mut stitched = Self { poses: Vec::new(), segments: Vec::new(), truth: Vec::new(), breaks: 0 };
        let mut frames = Vec::new();
        for result in &evidence.results {
            let Some(trajectory) = &result.trajectory else { continue };
            let push = odometry.push(&result.stamps, trajectory);
            stitched.segments.extend(push.poses.iter().map(|_| push.reset_counter));
            // New poses are the window's last ones.
            frames.extend_from_slice(&result.frames[WINDOW - push.poses.len()..]);
            stitched.poses.extend(push.poses);
        }
        stitched.breaks = odometry.reset_counter();
        let world_from_camera = sequence.and_then(|sequence| sequence.world_from_camera.as_ref());
        if let (Some(world_from_camera), Some(&first)) = (world_from_camera, frames.first()) {
            // The odometry's origin is the first camera.
            let odom_from_world: Transform<Odom, geometry::World> = world_from_camera[first].inverse().relabel();
            stitched.truth = frames.iter().map(|&i| odom_from_world * world_from_camera[i]).collect();
        }
        stitched
    }

    fn ate(&self) -> Option<f64> {
        let estimate: Vec<_> = self.poses.iter().map(|p| p.value).collect();
        ape_rmse(&self.truth, &estimate, Alignment::Se3).ok()
    }

    fn drawing(&self, evidence: &Evidence, sequence: &Sequence) -> plot::Drawing {
        let point = |pose: &Transform<Odom, Camera>| (pose.translation().x, pose.translation().z);
        let mut estimate: Vec<Vec<(f64, f64)>> = Vec::new();
        let mut segment = None;
        for (pose, of) in self.poses.iter().zip(&self.segments) {
            if segment != Some(*of) {
                segment = Some(*of);
                estimate.push(Vec::new());
            }
            if let Some(line) = estimate.last_mut() {
                line.push(point(&pose.value));
            }
        }
        let mut drawing = plot::Drawing {
            title: format!("{}: seen from above, from the first camera", sequence.name),
            unit: sequence.unit(),
            truth: self.truth.iter().map(point).collect(),
            estimate,
        };
        let film = Film::new(evidence, sequence);
        if let Some(scale) = film.scale() {
            // One scale is what no camera sees: the path is drawn with the true one, and the title says so.
            drawing.truth = film.truth_in_odom().iter().map(point).collect();
            let scaled = |pose: &Transform<Odom, Camera>| (scale * pose.translation().x, scale * pose.translation().z);
            drawing.estimate = vec![film.estimate.iter().map(scaled).collect()];
            drawing.title = format!("{}: seen from above; the odometry times {scale:.3}", sequence.name);
        }
        drawing
    }
}

fn table(
    evidence: &Evidence,
    sequence: &Sequence,
    errors: &[Option<WindowErrors>],
    summary: &Summary,
    report: &Report,
) -> String {
    let mut text = format!("{}: estimate against ground truth, a window a line\n", sequence.name);
    let heads = ["frames", "rre deg", "tde deg", "rte rel", "rte abs", "ms"];
    let mut line = |cells: [String; 6]| {
        let [frames, rest @ ..] = cells;
        // Writing to a String cannot fail.
        let _ = write!(text, "{frames:<20}");
        rest.iter().for_each(|cell| text.push_str(&format!("{cell:>10}")));
        text.push('\n');
    };
    line(heads.map(str::to_owned));
    for (result, errors) in evidence.results.iter().zip(errors) {
        let frames = result.frames.map(|f| f.to_string()).join(" ");
        let ms = result.latency.map(|l| l.as_secs_f64() * 1e3);
        let e = errors.as_ref();
        line([
            frames,
            number(e.map(|e| e.rre_deg), 2),
            number(e.and_then(|e| e.tde_deg), 1),
            number(e.and_then(|e| e.rte_rel), 2),
            number(e.map(|e| e.rte_abs), 4),
            number(ms, 0),
        ]);
    }
    let median = |s: &Statistic, digits: usize| {
        s.median.map_or_else(
            || "-".to_owned(),
            |m| format!("{:.digits$} [{:.digits$}, {:.digits$}]", m.value, m.low, m.high),
        )
    };
    let _ = writeln!(
        text,
        "median [95 %]: rre {} deg, tde {} deg, rte {} of the length; {} of {} windows still",
        median(&summary.rre_deg, 2),
        median(&summary.tde_deg, 1),
        median(&summary.rte_rel, 2),
        summary.still_windows,
        summary.windows
    );
    let _ = writeln!(
        text,
        "windows stitched: {} breaks, ATE {} {}; parse {}; {} ms a window; {} MiB",
        report.odometry_breaks,
        number(report.ate_rmse, 4),
        sequence.unit(),
        number(report.final_parse, 3),
        number(report.latency_ms_median, 0),
        number(report.node_rss_mib_max, 0)
    );
    if let Some((rre, tde)) = report.model_deg_median {
        let _ = writeln!(text, "the model by itself, median: rre {rre:.2} deg, tde {} deg", number(tde, 1));
    }
    if let Some(film) = &report.odometry {
        let source = film.scale_source.as_ref().map_or_else(
            || "unknown".to_owned(),
            |(source, sigma)| format!("{source}, to {:.0} % (one sigma)", 100.0 * sigma),
        );
        let _ = writeln!(
            text,
            "odometry: {} poses of {} images; ATE {} {unit} after one scale of {}, {} {unit} as it is; path {} of the true \
             length; metres by {source}",
            film.poses,
            film.frames,
            number(film.ate_rmse_after_one_scale, 4),
            number(film.scale, 3),
            number(film.ate_rmse, 4),
            number(film.path_ratio, 3),
            unit = sequence.unit(),
        );
    }
    append_counters(&mut text, evidence);
    text
}

fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |v| format!("{v:.digits$}"))
}

/// The counters that say something, and the answers that say nothing.
fn append_counters(text: &mut String, evidence: &Evidence) {
    let notable = evidence.counters.iter().filter(|(name, n)| {
        *n > 0 && (name.starts_with("frames_") || name.starts_with("windows_") || name == "answers_unparsed")
    });
    let counters: Vec<String> = notable.map(|(name, n)| format!("{name} {n}")).collect();
    if !counters.is_empty() {
        let _ = writeln!(text, "{}", counters.join(", "));
    }
    for result in &evidence.results {
        if let Some(problem) = &result.problem {
            let _ = writeln!(text, "frames {:?}: {problem}", result.frames);
        }
    }
}
