//! Judges a stream of poses on whole films: `eval --film`.
//!
//! Every frame is pushed once, in its order, as a robot would; what the stream said at that moment is what is judged. The
//! windows that the stream gives of its last frames are judged beside it as windows of their own, in the same files as
//! those of a run without `--film`.

mod path;
mod plot;

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fmt::Write as _;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use geometry::metrics::{Interval, Statistic};
use geometry::{Camera, Odom, Stamped, Summary, Transform, WINDOW, World, tum};
use nalgebra::Isometry3;
use odometry::Picture;
use odometry::stream::{Basis, Options, Stream};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::covariance::FilmCoverage;
use super::estimator::Estimate;
use super::figures::{digits, or_dash, shown, shown_or_dash};
use super::files::file_name;
use super::{Args, BOOTSTRAP_SEED, Done, Estimator, Known, Origin, Outcome, Settings, Unreadable, finish};
use crate::measured::grey;
use path::Found;
pub use path::PathFigures;
use training_data::json::write_json;
use training_data::synth::Stratum;
use training_data::{Film, FilmFrame, FilmSource};

/// Frames that a stream remembers: [`Stream::window`].
const REMEMBERED: usize = 32;

/// Milliseconds a frame, from its grey image to its pose. Films run side by side: on a busy machine they are upper bounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Millis {
    /// Half of the frames take no longer.
    pub median: f64,
    /// 95 % of the frames take no longer.
    pub p95: f64,
}

impl Millis {
    fn new(mut millis: Vec<f64>) -> Option<Self> {
        millis.sort_by(f64::total_cmp);
        let at = |share: f64| millis.get(((millis.len().max(1) - 1) as f64 * share).round() as usize).copied();
        Some(Self { median: at(0.5)?, p95: at(0.95)? })
    }
}

/// Frames of a film that have no pose because they could not be read, or were not taken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RefusedFrames {
    /// What was said.
    pub why: String,
    /// Of how many frames.
    pub frames: usize,
}

/// One film.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FilmFigures {
    /// Unique in the source.
    pub name: String,
    /// What the generator was asked for.
    pub stratum: Option<Stratum>,
    /// Whether scene units are metres.
    pub metric: bool,
    /// All of its frames.
    pub frames: usize,
    /// Frames that could not be read.
    pub unreadable: Vec<RefusedFrames>,
    /// Frames that the odometry did not take.
    pub refused: Vec<RefusedFrames>,
    /// How far the path is from the true one.
    pub path: PathFigures,
    /// Time that a pose takes.
    pub millis: Option<Millis>,
}

/// All films together; statistics are over films, so that their intervals draw films.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AllFilms {
    /// How many.
    pub films: usize,
    /// Frames of all of them.
    pub frames: usize,
    /// Share of all frames from the fourth of each film on with a pose that is not just the last motion going on.
    pub with_pose: Option<f64>,
    /// Times that tracks were lost.
    pub losses: u32,
    /// Sum of the true paths, scene units.
    pub path_length: f64,
    /// ATE after SE(3) over the path's length.
    pub ate_se3_over_path: Option<Over>,
    /// ATE after Sim(3) over the path's length.
    pub ate_sim3_over_path: Option<Over>,
    /// What one who never moves gets: see [`PathFigures::ate_still_over_path`].
    pub ate_still_over_path: Option<Over>,
    /// Median rotation error from one frame to the next, degrees.
    pub rpe_rotation_deg: Option<Over>,
    /// Rotation error a scene unit, degrees.
    pub rotation_deg_a_unit: Option<Over>,
    /// Scale of the second half over the first.
    pub scale_second_half: Option<Over>,
    /// How well the covariances fit the errors.
    pub coverage: Option<FilmCoverage>,
    /// Time that a pose takes.
    pub millis: Option<Millis>,
}

/// A figure over films.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Over {
    /// Films that have it.
    pub films: usize,
    /// Their median.
    pub median: Interval,
    /// Their mean.
    pub mean: Interval,
}

impl Over {
    fn new(values: impl Iterator<Item = f64>) -> Option<Self> {
        let values: Vec<f64> = values.collect();
        let Statistic { count, median, mean } = Statistic::new(&values, BOOTSTRAP_SEED);
        Some(Self { films: count, median: median?, mean: mean? })
    }
}

/// The windows that streams gave; their own report is in `windows/`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FilmWindows {
    /// Frames from one frame to the next.
    pub stride: usize,
    /// How many; neighbours share frames, so that intervals are narrower than they should be.
    pub windows: usize,
    /// Share that the stream had poses of.
    pub answered: Option<Interval>,
    /// Median rotation error, degrees.
    pub rre_deg: Option<Interval>,
    /// Median direction error of windows that move, degrees.
    pub tde_deg: Option<Interval>,
}

/// What `report.json` of a run on films holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FilmReport {
    /// What was judged.
    pub estimator: String,
    /// Text of the source of films.
    pub data: String,
    /// Points that the stream follows at a time.
    pub points: usize,
    /// Keyframes that it adjusts together.
    pub keyframes: usize,
    /// Recordings, or frames of them, that no film was made of: what, and why.
    pub skipped: Vec<[String; 2]>,
    /// Whose word the true poses are, where recordings leave a choice.
    #[serde(default)]
    pub truth: Vec<String>,
    /// Every film, in the order of the source.
    pub films: Vec<FilmFigures>,
    /// All of them.
    pub all: AllFilms,
    /// The windows that the streams gave.
    pub windows: FilmWindows,
    /// Seed of the intervals.
    pub seed: u64,
}

/// The verb `eval --film`, one film a thread.
pub(super) fn main(args: &Args) -> Result<Done> {
    let name = args.estimator.as_deref().unwrap_or_default();
    ensure!(name == "tracks", "--film: expected --estimator tracks, got {name}");
    let threads = std::thread::available_parallelism()?.get();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
    let report = pool.install(|| run(&args.data, args.stride, Options::default(), &args.out))?;
    Ok(Done { text: report.markdown(), complete: report.films.iter().all(|film| film.unreadable.is_empty()) })
}

/// Judges every film of a source and writes to `out`:
/// * `report.json` ([`FilmReport`]) and `tables.md`;
/// * of each film `NAME.tum` and `NAME.gt.tum`, camera to world as evo reads them, and `NAME.png`, the aligned path from
///   above;
/// * `windows/`: the files of a run of `eval` on the windows that the streams gave.
///
/// But for times all is the same on any number of threads.
pub(super) fn run(source: &str, stride: usize, options: Options, out: &Path) -> Result<FilmReport> {
    ensure!(
        stride > 0 && (WINDOW - 1) * stride <= REMEMBERED,
        "--stride: expected 1 to {}, got {stride}",
        REMEMBERED / (WINDOW - 1)
    );
    let films = FilmSource::parse(source)?;
    std::fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    let one = |index: u64| -> Result<Followed> {
        let film = films.film(index)?;
        let followed = follow(&film, films.stratum(), stride, options).with_context(|| film.name().to_owned())?;
        write_film(&film, &followed, out)?;
        Ok(followed)
    };
    // One film a thread, however long they are.
    let all_films: Vec<u64> = (0..films.len()).collect();
    let followed = all_films.into_par_iter().with_max_len(1).map(one).collect::<Result<Vec<_>>>()?;
    let mut names = HashSet::new();
    for Followed { figures, .. } in &followed {
        ensure!(names.insert(figures.name.as_str()), "{source}: two films are called {}", figures.name);
    }
    let all = all(&followed);
    let (mut figures, mut outcomes, mut unreadable) = (Vec::new(), Vec::new(), Vec::new());
    for film in followed {
        figures.push(film.figures);
        for window in film.windows {
            match window {
                Ok(outcome) => outcomes.push(outcome),
                Err(error) => unreadable.push(Unreadable { index: (outcomes.len() + unreadable.len()) as u64, error }),
            }
        }
    }
    if figures.iter().all(|film| film.unreadable.iter().map(|r| r.frames).sum::<usize>() == film.frames) {
        let why = figures.iter().flat_map(|film| &film.unreadable).next().map_or("no frames", |r| r.why.as_str());
        bail!("{source}: not one frame can be read: {why}");
    }
    let report = FilmReport {
        estimator: "tracks (stream)".to_owned(),
        data: source.to_owned(),
        points: options.points,
        keyframes: options.keyframes,
        skipped: films.skipped().iter().map(|part| [part.what.clone(), part.why.clone()]).collect(),
        truth: films.truth(),
        films: figures,
        all,
        windows: FilmWindows::new(stride, &outcomes),
        seed: BOOTSTRAP_SEED,
    };
    if !outcomes.is_empty() {
        let settings = Settings { up_to_scale: true, ..Settings::new(&report.estimator, source) };
        let origin = Origin { skipped: films.skipped(), truth: films.truth() };
        finish(&Estimator::Tracks, &settings, &outcomes, &unreadable, &origin, &out.join("windows"))?;
    }
    write_json(&out.join("report.json"), &serde_json::to_value(&report)?)?;
    let path = out.join("tables.md");
    std::fs::write(&path, report.markdown()).with_context(|| path.display().to_string())?;
    Ok(report)
}

/// A film that was followed to its end.
struct Followed {
    figures: FilmFigures,
    found: Vec<Found>,
    /// Of every frame that has a pose.
    millis: Vec<f64>,
    /// Windows in the order of their first frames; those with a frame that cannot be read say why.
    windows: Vec<Result<Outcome, String>>,
}

/// Pushes a film frame by frame.
fn follow(film: &Film<'_>, stratum: Option<Stratum>, stride: usize, options: Options) -> Result<Followed> {
    let (truth, intrinsics, stamps) = (film.world_from_camera(), *film.intrinsics(), film.stamps());
    let mut stream = Stream::new(options);
    let mut found: Vec<Found> = Vec::new();
    let mut millis = Vec::new();
    let (mut unreadable, mut refused) = (BTreeMap::<String, usize>::new(), BTreeMap::<String, usize>::new());
    let mut kept: VecDeque<Result<FilmFrame, String>> = VecDeque::new();
    let mut due = film.windows(stride).into_iter().peekable();
    let mut windows = Vec::new();
    for (index, stamp) in stamps.iter().enumerate() {
        let frame = film.frame(index).map_err(|error| error.to_string());
        let mut taken = None;
        match &frame {
            Err(why) => *unreadable.entry(why.clone()).or_default() += 1,
            Ok(frame) => {
                let grey = grey(&frame.image)?;
                let start = Instant::now();
                let pose = Picture::new(*stamp, &intrinsics, &grey).and_then(|picture| stream.push(picture));
                let elapsed = start.elapsed().as_secs_f64();
                match pose {
                    Err(error) => *refused.entry(error.to_string()).or_default() += 1,
                    Ok(pose) => {
                        taken = Some(elapsed);
                        millis.push(elapsed * 1e3);
                        found.push(Found { frame: index, pose, reference: None });
                        // Frames before the map, as who writes a trajectory down has them.
                        for revised in stream.take_revised() {
                            if let Some(own) = found.iter_mut().find(|own| own.pose.stamp == revised.stamp) {
                                own.pose.odom_from_camera = revised.value;
                            }
                        }
                        let reference = reference(&stream, &found, options.keyframes);
                        if let Some(last) = found.last_mut() {
                            last.reference = reference;
                        }
                    }
                }
            }
        }
        kept.push_back(frame);
        if kept.len() > (WINDOW - 1) * stride + 1 {
            kept.pop_front();
        }
        let Some(indices) = due.next_if(|window| window[WINDOW - 1] == index) else { continue };
        // The oldest kept is the first of the window.
        let frames: Result<Vec<&FilmFrame>, String> =
            (0..WINDOW).map(|i| kept[i * stride].as_ref().map_err(Clone::clone)).collect();
        windows.push(frames.map(|frames| {
            let sample = film.window(stride, indices, std::array::from_fn(|i| frames[i]));
            let poses = taken.and_then(|_| stream.window(&sample.stamps));
            let mut estimate = Estimate { seconds: taken, ..Estimate::poses(poses.as_ref()) };
            estimate.refusal = poses.is_none().then_some("not_in_stream");
            Known::new(&sample, stratum).judged(estimate, true)
        }));
    }
    let listed = |counts: BTreeMap<String, usize>| {
        counts.into_iter().map(|(why, frames)| RefusedFrames { why, frames }).collect::<Vec<_>>()
    };
    let figures = FilmFigures {
        name: film.name().to_owned(),
        stratum,
        metric: film.metric(),
        frames: truth.len(),
        unreadable: listed(unreadable),
        refused: listed(refused),
        path: PathFigures::new(&truth, &found),
        millis: Millis::new(millis.clone()),
    };
    Ok(Followed { figures, found, millis, windows })
}

/// The keyframe that the last pose is judged in, and the pose in it: as the stream now knows it where it still remembers
/// that frame, else as both poses were published. Covariances are against the keyframes that a pose's points are known
/// from, which a caller does not see; this is the oldest of the last `keyframes` of its segment, and none is older.
fn reference(stream: &Stream, found: &[Found], keyframes: usize) -> Option<(usize, Isometry3<f64>)> {
    let last = found.len().checked_sub(1)?;
    let own = &found[last].pose;
    let before = found[..last].iter().enumerate().rev();
    let place = before
        .take_while(|(_, other)| other.pose.segment == own.segment)
        .filter(|(_, other)| other.pose.is_keyframe && other.pose.basis != Basis::Motion)
        .take(keyframes)
        .last()?
        .0;
    let between = last - place;
    let known = || {
        // Five different frames, of which the first and the last count.
        let stamps = std::array::from_fn(|i| found[place + between * i / (WINDOW - 1)].pose.stamp);
        Some(*stream.window(&stamps)?.anchor_from_camera()[WINDOW - 1].isometry())
    };
    let published = || found[place].pose.odom_from_camera.isometry().inv_mul(own.odom_from_camera.isometry());
    let pose = if between >= WINDOW - 1 { known() } else { None };
    Some((place, pose.unwrap_or_else(published)))
}

fn write_film(film: &Film<'_>, followed: &Followed, out: &Path) -> Result<()> {
    let (truth, stamps) = (film.world_from_camera(), film.stamps());
    let poses: Vec<Stamped<Transform<Odom, Camera>>> =
        followed.found.iter().map(|one| Stamped { stamp: one.pose.stamp, value: one.pose.odom_from_camera }).collect();
    let reference: Vec<Stamped<Transform<World, Camera>>> =
        stamps.iter().zip(&truth).map(|(&stamp, &value)| Stamped { stamp, value }).collect();
    tum::write(&out.join(file_name(film.name(), "tum")), &poses)?;
    tum::write(&out.join(file_name(film.name(), "gt.tum")), &reference)?;
    let found: Vec<_> = followed.found.iter().map(|one| (one.frame, one.pose.odom_from_camera)).collect();
    let unit = if film.metric() { "m" } else { "scene units" };
    plot::path(&out.join(file_name(film.name(), "png")), film.name(), unit, &truth, &found)
}

/// All films together.
fn all(films: &[Followed]) -> AllFilms {
    let of = |value: fn(&PathFigures) -> Option<f64>| Over::new(films.iter().filter_map(|f| value(&f.figures.path)));
    let judged = |film: &Followed| film.figures.frames.saturating_sub(3) as f64;
    let frames: f64 = films.iter().map(judged).sum();
    let with_pose: f64 = films.iter().filter_map(|f| Some(f.figures.path.with_pose? * judged(f))).sum();
    AllFilms {
        films: films.len(),
        frames: films.iter().map(|f| f.figures.frames).sum(),
        with_pose: (frames > 0.0).then(|| with_pose / frames),
        losses: films.iter().map(|f| f.figures.path.losses).sum(),
        path_length: films.iter().map(|f| f.figures.path.path_length).sum(),
        ate_se3_over_path: of(|path| path.ate_se3_over_path),
        ate_sim3_over_path: of(|path| path.ate_sim3_over_path),
        ate_still_over_path: of(|path| path.ate_still_over_path),
        rpe_rotation_deg: of(|path| path.rpe_rotation_deg),
        rotation_deg_a_unit: of(|path| path.rotation_deg_a_unit),
        scale_second_half: of(|path| path.scale_second_half),
        coverage: FilmCoverage::over(films.iter().filter_map(|f| f.figures.path.coverage.as_ref())),
        millis: Millis::new(films.iter().flat_map(|f| f.millis.iter().copied()).collect()),
    }
}

impl FilmWindows {
    fn new(stride: usize, outcomes: &[Outcome]) -> Self {
        let errors: Vec<_> = outcomes.iter().map(|outcome| outcome.errors.clone()).collect();
        let summary = Summary::new(&errors, BOOTSTRAP_SEED);
        let answered: Vec<f64> = errors.iter().map(|errors| f64::from(u8::from(errors.is_some()))).collect();
        Self {
            stride,
            windows: outcomes.len(),
            answered: Statistic::new(&answered, BOOTSTRAP_SEED).mean,
            rre_deg: summary.rre_deg.median,
            tde_deg: summary.tde_deg.median,
        }
    }
}

impl FilmReport {
    /// The tables in Markdown.
    pub fn markdown(&self) -> String {
        let percent =
            |share: Option<f64>| share.map_or_else(|| "-".to_owned(), |share| format!("{} %", digits(100.0 * share)));
        let millis = |millis: &Option<Millis>| {
            millis.map_or_else(|| "-".to_owned(), |Millis { median, p95 }| format!("{median:.1}, {p95:.1}"))
        };
        // Writing to a String cannot fail.
        let mut text = String::new();
        let _ = writeln!(
            text,
            "# {} on {}\n\n{} films, {} frames. Frames before the stream had a map are judged as it posed them again once it had one. ATE: RMSE of the camera centres after alignment, in brackets over the path's \
             length; never moves: that of one point. Scale: estimated over true step lengths of the second half over those of the first. Units are metres \
             where a film is metric. Times are from grey image to pose, median and 95 %.\n",
            self.estimator, self.data, self.all.films, self.all.frames
        );
        if !self.truth.is_empty() {
            let _ = writeln!(text, "The true poses are those of {}.\n", self.truth.join(", "));
        }
        text.push_str(
            "| film | frames | with a pose | path | ATE, SE(3) | ATE, Sim(3) | never moves | RPE rotation, deg a frame | rotation, deg a unit \
             | scale | losses | ms |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
        );
        for film in &self.films {
            let path = &film.path;
            let ate = |ate: Option<f64>, share: Option<f64>| format!("{} ({})", or_dash(ate), percent(share));
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
                film.name,
                film.frames,
                percent(path.with_pose),
                or_dash(Some(path.path_length)),
                ate(path.ate_se3, path.ate_se3_over_path),
                ate(path.ate_sim3, path.ate_sim3_over_path),
                percent(path.ate_still_over_path),
                or_dash(path.rpe_rotation_deg),
                or_dash(path.rotation_deg_a_unit),
                or_dash(path.scale_second_half),
                path.losses,
                millis(&film.millis),
            );
        }
        let all = &self.all;
        let over = |over: &Option<Over>| shown_or_dash(over.as_ref().map(|over| &over.median));
        let share = |over: &Option<Over>| {
            over.map_or_else(
                || "-".to_owned(),
                |Over { median: Interval { value, low, high }, .. }| {
                    let of = |share: f64| percent(Some(share));
                    format!("{} [{}, {}]", of(value), of(low), of(high))
                },
            )
        };
        let _ = writeln!(
            text,
            "| all, median [95 % over films] | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            all.frames,
            percent(all.with_pose),
            or_dash(Some(all.path_length)),
            share(&all.ate_se3_over_path),
            share(&all.ate_sim3_over_path),
            share(&all.ate_still_over_path),
            over(&all.rpe_rotation_deg),
            over(&all.rotation_deg_a_unit),
            over(&all.scale_second_half),
            all.losses,
            millis(&all.millis),
        );
        for film in &self.films {
            for (what, list) in [("could not be read", &film.unreadable), ("were not taken", &film.refused)] {
                for RefusedFrames { why, frames } in list {
                    let _ = writeln!(text, "\n**{}: {frames} frames {what}**: {why}", film.name);
                }
            }
            if let Some(why) = &film.path.no_ate {
                let _ = writeln!(text, "\n{}: an ATE is missing: {why}.", film.name);
            }
        }
        let windows = &self.windows;
        let _ = writeln!(
            text,
            "\n## Windows read off the stream\nFive frames, {} apart, after each frame; more in `windows/`. Neighbours share \
             frames, so that the intervals are narrower than they should be.\n\n| windows | answered | RRE, deg | TDE, deg \
             |\n| --- | --- | --- | --- |\n| {} | {} | {} | {} |",
            windows.stride,
            windows.windows,
            shown_or_dash(windows.answered.as_ref()),
            shown_or_dash(windows.rre_deg.as_ref()),
            shown_or_dash(windows.tde_deg.as_ref()),
        );
        if self.films.iter().any(|film| film.path.coverage.is_some()) {
            text.push_str(
                "\n## Covariance\nOf poses in the oldest of the last keyframes, in the unit of the stream there. NEES of six \
                 degrees of freedom is 6 where a covariance is right, more where it is too sure; turns alone have three, brought \
                 to six.\n\n| film | poses | turns | NEES, median | NEES, mean | within 68 % | within 95 % |\n| --- | --- | --- | --- | --- | --- | --- |\n",
            );
            let films = self.films.iter().map(|film| (film.name.as_str(), &film.path.coverage));
            for (name, coverage) in films.chain([("all", &all.coverage)]) {
                if let Some(FilmCoverage { poses, turned, nees, nees_median, within_68, within_95 }) = coverage {
                    let cells = [nees, within_68, within_95].map(shown).join(" | ");
                    let median = or_dash(Some(*nees_median));
                    let _ = writeln!(text, "| {name} | {poses} | {turned} | {median} | {cells} |");
                }
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is the same on any number of threads: all but times.
    fn timeless(mut report: FilmReport) -> FilmReport {
        report.all.millis = None;
        for film in &mut report.films {
            film.millis = None;
        }
        report
    }

    #[test]
    fn films_are_judged_the_same_on_any_number_of_threads_and_all_files_are_there() {
        let dir = tempfile::tempdir().unwrap();
        let source = "synth:seed=3,films=2,frames=12,size=96x72,stratum=texture";
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let out = dir.path().join(threads.to_string());
            pool.install(|| run(source, 2, Options::default(), &out)).unwrap()
        };
        let (one, three) = (on(1), on(3));
        assert!(one.all.millis.is_some_and(|millis| millis.median > 0.0 && millis.p95 >= millis.median), "{one:?}");
        let text = std::fs::read_to_string(dir.path().join("1/report.json")).unwrap();
        let read: FilmReport = serde_json::from_str(&text).unwrap();
        assert_eq!(read, one);
        assert_eq!(timeless(one.clone()), timeless(three));
        assert_eq!((one.all.films, one.all.frames, one.windows.windows), (2, 24, 8));
        assert_eq!(one.films[1].name, "synth-texture-3-1");
        for name in ["tum", "gt.tum", "png"] {
            let path = dir.path().join(format!("1/synth-texture-3-1.{name}"));
            assert!(path.is_file(), "{}", path.display());
        }
        let truth = tum::read::<World, Camera>(&dir.path().join("1/synth-texture-3-1.gt.tum")).unwrap();
        let films = FilmSource::parse(source).unwrap();
        let film = films.film(1).unwrap();
        assert_eq!(truth.len(), 12);
        assert!((truth[7].value.translation() - film.world_from_camera()[7].translation()).norm() < 1e-9);
        for name in ["report.json", "answers.jsonl", "tables.md", "errors.png", "tum/synth-texture-3-0-s2-3.gt.tum"] {
            assert!(dir.path().join("1/windows").join(name).is_file(), "{name}");
        }
        let tables = std::fs::read_to_string(dir.path().join("1/tables.md")).unwrap();
        assert!(tables.contains("synth-texture-3-0") && tables.contains("Windows read off the stream"), "{tables}");
        let again =
            crate::eval::CompareArgs { a: dir.path().join("1/windows"), b: dir.path().join("3/windows"), out: None };
        assert_eq!(crate::eval::compare(&again).unwrap().windows, 8);
    }

    #[test]
    fn a_stream_that_forgets_is_not_asked_for_more() {
        let dir = tempfile::tempdir().unwrap();
        for stride in [0, 9] {
            let error = run("synth:seed=3,films=1,frames=5,size=64x48", stride, Options::default(), dir.path());
            assert!(error.unwrap_err().to_string().contains("1 to 8"), "{stride}");
        }
        let error = run("/nowhere/at/all", 1, Options::default(), dir.path()).unwrap_err();
        assert!(format!("{error:#}").contains("/nowhere/at/all"), "{error:#}");
    }

    #[test]
    fn times_are_quantiles() {
        let millis = Millis::new((0..=100).rev().map(f64::from).collect()).unwrap();
        assert!((millis.median - 50.0).abs() < 1e-12 && (millis.p95 - 95.0).abs() < 1e-12, "{millis:?}");
        assert_eq!(Millis::new(Vec::new()), None);
    }
}
