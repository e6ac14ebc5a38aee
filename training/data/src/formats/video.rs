//! Frames of local videos at given times, cut with the `ffmpeg` program into a folder that is kept.

use crate::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How much earlier than its listed time a frame may be: containers round times, Matroska to milliseconds. Far less
/// than from one frame to the next.
const EARLY_MICROS: i64 = 2_000;
/// How long after the last listed time decoding stops.
const LATE_MICROS: i64 = 1_000_000;

/// A folder of videos, called by their ids: `<id>.mp4`, `.mkv` or `.webm`.
#[derive(Debug, Clone)]
pub struct Videos {
    /// The folder.
    pub directory: PathBuf,
    /// Where frames go to and are looked for first: `<clip>/<timestamp in microseconds>.jpg`.
    pub cache: PathBuf,
    /// The program: `ffmpeg`, or a path to it.
    pub ffmpeg: PathBuf,
}

impl Videos {
    /// The frames of a clip: those of the cache where all are there, else cut from the video.
    ///
    /// # Errors
    /// [`Error::Missing`] without a video, [`Error::Program`] where ffmpeg does not start, [`Error::Cut`] where it does
    /// not give one frame a time (a video that is broken, shorter, or of a lower rate than the listed one).
    pub(super) fn frames(&self, video: &str, clip: &str, micros: &[i64]) -> Result<Vec<PathBuf>, Error> {
        let folder = self.cache.join(clip);
        let frames: Vec<PathBuf> = micros.iter().map(|micros| folder.join(format!("{micros}.jpg"))).collect();
        if frames.iter().all(|frame| frame.is_file()) {
            return Ok(frames);
        }
        let names = ["mp4", "mkv", "webm"].map(|extension| self.directory.join(format!("{video}.{extension}")));
        let video = names.into_iter().find(|path| path.is_file()).ok_or_else(|| Error::Missing {
            path: self.directory.clone(),
            expected: format!("{video}.mp4, .mkv or .webm"),
        })?;
        // Another process may cut the same clip at the same time.
        let part = self.cache.join(format!("{clip}.{}.part", std::process::id()));
        let io = |path: &Path| {
            let path = path.to_path_buf();
            move |source| Error::Io { path, source }
        };
        std::fs::create_dir_all(&part).map_err(io(&part))?;
        let cut = self.cut(&video, micros, &part);
        if cut.is_ok() {
            std::fs::create_dir_all(&folder).map_err(io(&folder))?;
            for (frame, number) in frames.iter().zip(1_usize..) {
                std::fs::rename(part.join(numbered(number)), frame).map_err(io(frame))?;
            }
        }
        std::fs::remove_dir_all(&part).map_err(io(&part))?;
        cut.map(|()| frames)
    }

    /// Writes one picture a time into a folder.
    fn cut(&self, video: &Path, micros: &[i64], folder: &Path) -> Result<(), Error> {
        let failed = |source| Error::Program { program: self.ffmpeg.clone(), source };
        // Relative paths would be those of the folder that it runs in; a bare name is looked for on PATH.
        let absolute = |path: &Path| std::path::absolute(path).map_err(failed);
        let bare = self.ffmpeg.components().count() == 1;
        let program = if bare { self.ffmpeg.clone() } else { absolute(&self.ffmpeg)? };
        let output = command(&program, &absolute(video)?, micros).current_dir(folder).output().map_err(failed)?;
        let got = (1..=micros.len()).take_while(|&number| folder.join(numbered(number)).is_file()).count();
        if output.status.success() && got == micros.len() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().lines().next_back().unwrap_or("").to_owned();
        let said = if said.is_empty() { output.status.to_string() } else { said };
        Err(Error::Cut { path: video.to_path_buf(), expected: micros.len(), got, said })
    }
}

fn numbered(number: usize) -> String {
    format!("{number:06}.jpg")
}

/// One run of ffmpeg that writes `000001.jpg` and on where it runs: for each time, the first frame at or after it.
///
/// Seeking before `-i` starts at a key frame and drops what is before the first time; from there on `t` counts from
/// that time. `prev_t` is the time of the frame before, NaN at the first. Written at a steady rate, since the writer of
/// images would else repeat frames to fill the gaps.
fn command(ffmpeg: &Path, video: &Path, micros: &[i64]) -> Command {
    let (first, last) = (micros.first().copied().unwrap_or(0), micros.last().copied().unwrap_or(0));
    let start = (first - EARLY_MICROS).max(0);
    let seconds = |micros: i64| format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    let times = micros.iter().map(|micros| {
        let t = seconds((micros - EARLY_MICROS - start).max(0));
        format!("gte(t,{t})*not(gte(prev_t,{t}))")
    });
    let mut command = Command::new(ffmpeg);
    command.args(["-nostdin", "-hide_banner", "-loglevel", "error"]);
    command.args(["-ss", &seconds(start), "-t", &seconds(last - start + LATE_MICROS)]);
    command.arg("-i").arg(video).args(["-an", "-sn"]);
    command.arg("-vf").arg(format!("select='{}',setpts=N/25/TB", sum(&times.collect::<Vec<_>>())));
    command.args(["-r", "25", "-frames:v", &micros.len().to_string(), "-q:v", "2", "%06d.jpg"]);
    command
}

/// The terms added up as a balanced tree: ffmpeg refuses expressions that are nested 100 deep, and a plain chain of
/// sums is nested as deep as it is long.
fn sum(terms: &[String]) -> String {
    match terms {
        [] => "0".to_owned(),
        [term] => term.clone(),
        _ => {
            let (left, right) = terms.split_at(terms.len() / 2);
            format!("({}+{})", sum(left), sum(right))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_seeks_and_picks_one_frame_a_time() {
        let command = command(Path::new("ffmpeg"), Path::new("/videos/a.mp4"), &[1_000, 158_958_959, 159_225_893]);
        let words: Vec<&str> = command.get_args().map(|word| word.to_str().unwrap()).collect();
        assert_eq!(words[4..8], ["-ss", "0.000000", "-t", "160.225893"]);
        assert_eq!(words[8..10], ["-i", "/videos/a.mp4"]);
        let filter = "select='(gte(t,0.000000)*not(gte(prev_t,0.000000))+\
                      (gte(t,158.956959)*not(gte(prev_t,158.956959))+gte(t,159.223893)*not(gte(prev_t,159.223893))))',\
                      setpts=N/25/TB";
        assert_eq!(words[13], filter);
        assert_eq!(words[14..], ["-r", "25", "-frames:v", "3", "-q:v", "2", "%06d.jpg"]);
        let late = super::command(Path::new("ffmpeg"), Path::new("/videos/a.mp4"), &[158_692_025]);
        let words: Vec<&str> = late.get_args().map(|word| word.to_str().unwrap()).collect();
        assert_eq!(words[5], "158.690025");
        assert_eq!(words[13], "select='gte(t,0.000000)*not(gte(prev_t,0.000000))',setpts=N/25/TB");
    }

    #[test]
    fn long_clips_are_not_deeply_nested() {
        let terms: Vec<String> = (0..1000).map(|n| n.to_string()).collect();
        let mut depth = 0_i32;
        let text = sum(&terms);
        let deepest = text.chars().map(|c| {
            depth += i32::from(c == '(') - i32::from(c == ')');
            depth
        });
        assert!(deepest.max().unwrap() <= 10);
    }
}
