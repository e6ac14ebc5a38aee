//! Answers that other programs, or an earlier run, left in files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use geometry::{Camera, Stamp, Stamped, Transform, WINDOW, WindowTrajectory, World, tum};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use training_data::json::read;

/// Name of a window's file: its id, with `_` for what would part folders.
pub(super) fn file_name(id: &str, extension: &str) -> String {
    format!("{}.{extension}", id.replace(['/', '\\'], "_"))
}

/// The values of a file with one JSON value a line.
pub(super) fn read_lines<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(i, line)| serde_json::from_str(line).with_context(|| format!("{}:{}", path.display(), i + 1)))
        .collect()
}

/// A folder with a TUM file a window, `ID.tum`: five poses in the frame of the first camera (camera to anchor; other
/// common frames are brought there), at the stamps of the window's frames or at 0, 1, 2, 3 and 4 seconds. A window
/// without a file has no answer. `report.json` beside them may say how long each window took, milliseconds:
/// `{"windows_detail": {"ID": {"ms": 12.3}}}`.
#[derive(Debug)]
pub struct TumFolder {
    directory: PathBuf,
    seconds: BTreeMap<String, f64>,
}

/// The part of that `report.json` that is read.
#[derive(Debug, Deserialize)]
struct Times {
    windows_detail: Option<BTreeMap<String, Time>>,
}

/// How long a window took.
#[derive(Debug, Deserialize)]
struct Time {
    ms: Option<f64>,
}

impl TumFolder {
    /// Reads `report.json`, where there is one; the windows' files are read when they are asked for.
    ///
    /// # Errors
    /// A folder without a `.tum` file, a broken `report.json`.
    pub fn open(directory: &Path) -> Result<Self> {
        let entries = std::fs::read_dir(directory).with_context(|| directory.display().to_string())?;
        let is_tum = |path: &Path| path.extension().is_some_and(|extension| extension == "tum");
        let any = entries.flatten().any(|entry| is_tum(&entry.path()));
        ensure!(any, "{}: expected files ID.tum, got none", directory.display());
        let mut seconds = BTreeMap::new();
        let path = directory.join("report.json");
        if path.is_file() {
            let Times { windows_detail } = read(&path)?;
            let told = windows_detail.into_iter().flatten();
            seconds.extend(told.filter_map(|(id, window)| Some((id, window.ms? / 1e3))));
        }
        Ok(Self { directory: directory.to_path_buf(), seconds })
    }

    /// How long a window took, where `report.json` says so.
    pub(super) fn seconds(&self, id: &str) -> Option<f64> {
        self.seconds.get(id).copied()
    }

    /// The poses of a window; `None` where it has no file.
    ///
    /// # Errors
    /// A file that is broken, has another number of poses than five, or stamps of other frames.
    pub(super) fn window(&self, id: &str, stamps: &[Stamp; WINDOW]) -> Result<Option<WindowTrajectory>> {
        let path = self.directory.join(file_name(id, "tum"));
        if !path.is_file() {
            return Ok(None);
        }
        let mut poses = tum::read::<World, Camera>(&path)?;
        ensure!(poses.len() == WINDOW, "{}: expected {WINDOW} poses, got {}", path.display(), poses.len());
        poses.sort_by_key(|pose| pose.stamp);
        let counted = std::array::from_fn(|i| Stamp::from_nanos(i as i64 * 1_000_000_000));
        let matched = nearest(&poses, stamps).or_else(|| nearest(&poses, &counted));
        let poses = matched.with_context(|| {
            format!("{}: expected the stamps of the frames, or 0 to {}", path.display(), WINDOW - 1)
        })?;
        Ok(Some(WindowTrajectory::from_world(&poses)))
    }
}

/// One TUM file of a whole trajectory, camera to world, in the time of the frames' stamps; for one sequence, since
/// several have stamps in common. A window takes the poses nearest to its stamps, each nearer than half the smallest
/// gap between them, so that none is taken twice; without such a pose for every frame it has no answer.
#[derive(Debug)]
pub struct TumTrajectory {
    /// By stamp.
    poses: Vec<Stamped<Transform<World, Camera>>>,
}

impl TumTrajectory {
    /// Reads a file; its lines may have any order.
    ///
    /// # Errors
    /// A file that cannot be read, is broken, or holds no pose.
    pub fn open(path: &Path) -> Result<Self> {
        let mut poses = tum::read::<World, Camera>(path)?;
        ensure!(!poses.is_empty(), "{}: expected poses, got none", path.display());
        poses.sort_by_key(|pose| pose.stamp);
        Ok(Self { poses })
    }

    /// The poses of a window; `None` where one is missing.
    pub(super) fn window(&self, stamps: &[Stamp; WINDOW]) -> Option<WindowTrajectory> {
        nearest(&self.poses, stamps).map(|poses| WindowTrajectory::from_world(&poses))
    }
}

/// Of `poses`, which rise in time, that nearest to each stamp; `None` where one of them is not nearer than half the
/// smallest gap between stamps.
fn nearest<T: Copy>(poses: &[Stamped<T>], stamps: &[Stamp; WINDOW]) -> Option<[T; WINDOW]> {
    let gap = stamps.windows(2).map(|pair| pair[1].nanos_since(pair[0])).min()?;
    let one = |stamp: &Stamp| {
        let distance = |pose: &Stamped<T>| pose.stamp.nanos_since(*stamp).saturating_abs();
        let behind = poses.partition_point(|pose| pose.stamp < *stamp);
        let around = &poses[behind.saturating_sub(1)..poses.len().min(behind + 1)];
        let found = around.iter().min_by_key(|pose| distance(pose))?;
        (distance(found).saturating_mul(2) < gap).then_some(found.value)
    };
    stamps.iter().map(one).collect::<Option<Vec<T>>>()?.try_into().ok()
}

/// What a line of `answers.jsonl` says of how far an answer is off: what [`compare`](super::compare) and the tables of a paper
/// read.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct JudgedLine {
    /// The window.
    pub(super) id: String,
    /// Whether there are poses to judge.
    pub(super) parsed: bool,
    pub(super) rre_deg: Option<f64>,
    pub(super) tde_deg: Option<f64>,
    pub(super) rte_abs: Option<f64>,
    pub(super) rte_rel: Option<f64>,
    pub(super) mag_log: Option<f64>,
    /// RMSE of the centres after SE(3) and after Sim(3) alignment, scene units.
    pub(super) ate: Option<f64>,
    pub(super) ate_sim3: Option<f64>,
    /// Of the four ways from frame 0, those that truly move; an older run does not say.
    pub(super) moving_pairs: Option<usize>,
    /// Which of the five steps parse, where a chain was asked for.
    pub(super) steps: Option<[bool; 5]>,
    /// All that the window is called by.
    #[serde(default)]
    pub(super) strata: Vec<String>,
}

/// What it says of the answer itself: what [`Answers`] reads.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Said {
    /// The text; absent where an estimator writes none.
    pub(super) answer: Option<String>,
    pub(super) seconds: Option<f64>,
    /// Why the pictures tell no poses.
    pub(super) refusal: Option<String>,
    /// Whether that window parsed without and with the grammar.
    pub(super) parses: Option<[bool; 2]>,
    /// Whether the text was written under the grammar.
    #[serde(default)]
    pub(super) constrained: bool,
    /// Width and height of the pixel grid that the text is about, where it is a chain.
    pub(super) grid: Option<[u32; 2]>,
}

/// A line of `answers.jsonl` as an evaluation writes it.
#[derive(Debug, Serialize)]
pub(super) struct WrittenLine {
    #[serde(flatten)]
    pub(super) judged: JudgedLine,
    #[serde(flatten)]
    pub(super) said: Said,
}

/// The same, as far as the answer is judged again.
#[derive(Debug, Deserialize)]
struct AnswerLine {
    id: String,
    #[serde(flatten)]
    said: Said,
}

/// The `answers.jsonl` of an earlier run: its texts are parsed and judged again. Of another program's lines, `id` and
/// `answer` are enough; steps of a chain have errors only where `grid` says of which pixels they speak. A window
/// without a line, or without a text in it, has no answer.
#[derive(Debug)]
pub struct Answers {
    lines: BTreeMap<String, Said>,
}

impl Answers {
    /// Reads a file.
    ///
    /// # Errors
    /// A file that cannot be read, a line that is broken, two lines of one window.
    pub fn open(path: &Path) -> Result<Self> {
        let mut lines = BTreeMap::new();
        for line in read_lines::<AnswerLine>(path)? {
            ensure!(!lines.contains_key(&line.id), "{}: two lines of window {}", path.display(), line.id);
            lines.insert(line.id, line.said);
        }
        Ok(Self { lines })
    }

    /// What the line of a window says.
    pub(super) fn line(&self, id: &str) -> Option<&Said> {
        self.lines.get(id)
    }

    /// Whether the texts were written under the grammar.
    pub(super) fn constrained(&self) -> bool {
        self.lines.values().any(|line| line.constrained)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at<const N: usize>(millis: [i64; N]) -> [Stamp; N] {
        millis.map(|ms| Stamp::from_nanos(ms * 1_000_000))
    }

    #[test]
    fn a_frame_takes_the_pose_that_is_its_own_and_no_other() {
        let poses: Vec<_> = at([0, 48, 104, 199, 301, 390, 520])
            .into_iter()
            .zip(0..)
            .map(|(stamp, value)| Stamped { stamp, value })
            .collect();
        assert_eq!(nearest(&poses, &at([0, 100, 200, 300, 400])), Some([0, 2, 3, 4, 5]));
        // 455 is 65 ms from the nearest: more than half of 100.
        assert_eq!(nearest(&poses, &at([155, 255, 355, 455, 555])), None);
        assert_eq!(nearest(&poses, &at([400, 500, 600, 700, 800])), None, "behind the end");
        assert_eq!(nearest(&poses, &at([-400, -300, -200, -100, 0])), None, "before the beginning");
        assert_eq!(nearest(&poses, &at([7, 7, 7, 7, 7])), None, "frames of one time");
        assert_eq!(nearest::<i32>(&[], &at([0, 100, 200, 300, 400])), None);
        // Half the gap is as far from the one frame as from the next.
        let between: Vec<_> = at([50, 150, 250, 350, 450]).map(|stamp| Stamped { stamp, value: 0 }).to_vec();
        assert_eq!(nearest(&between, &at([0, 100, 200, 300, 400])), None);
    }

    #[test]
    fn a_window_never_leaves_its_folder() {
        assert_eq!(file_name("../a/b\\c", "tum"), ".._a_b_c.tum");
    }
}
