//! A film as a recording: its pictures, from the `ffmpeg` program, on a camera's topics, with the intrinsics that its owner
//! says. What plays a recording then plays a film.
//!
//! ffmpeg turns pictures as the film's side data say, makes pixels square, scales those over [`MOST_SIDE`] down, and hands each
//! on as a JPEG. Each has the film's own time, whatever the rate: a filter of ffmpeg prints it (`showinfo`), in microseconds.
//! Lens distortion is left out: a film does not tell it.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use camera::decode::inspect;
use camera::message::{CameraInfoMessage, ImageMessage, ImagePayload};
use camera::recording::FileWriter;
use geometry::{Intrinsics, Stamp};

use crate::ros::message::Input;
use crate::ros::transport::topics::Topics;
use crate::tools::recording::entry_of_input;

/// The program, looked for on PATH.
const PROGRAM: &str = "ffmpeg";
/// The optical frame of the pictures.
const FRAME: &str = "camera";
/// The longer side of pictures in a recording, pixels: what the tracks work on is smaller.
const MOST_SIDE: u32 = 1280;
/// Bytes of a JPEG of such a picture that no camera's has.
const MOST_BYTES: usize = 64 << 20;
/// Endings of files that are taken for films.
const ENDINGS: [&str; 12] = ["mp4", "mov", "m4v", "mkv", "webm", "avi", "3gp", "mts", "m2ts", "ts", "mpg", "mpeg"];
/// Endings of files that never are.
const RECORDINGS: [&str; 5] = ["mcap", "db3", "bag", "zstd", "yaml"];
/// Share of the film's length that its pictures must reach, where ffmpeg has met errors, for the film to be whole.
const WHOLE: f64 = 0.9;

/// Why a film is no recording.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody says what the lens is.
    #[error(
        "{}: expected --fov DEGREES (of the longer side) or --intrinsics FX,FY,CX,CY (pixels), got neither: a film does \
         not say what its lens is",
        path.display()
    )]
    NoLens {
        /// The film.
        path: PathBuf,
    },
    /// There is no ffmpeg.
    #[error("ffmpeg: not found on PATH, and films are read by it (on Debian and Ubuntu: apt-get install ffmpeg)")]
    NoProgram,
    /// It does not start, or its pictures cannot be taken.
    #[error("{}: ffmpeg: {source}", path.display())]
    Program {
        /// The film.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Sound alone, for example.
    #[error("{}: expected a film with a stream of pictures, got a file without one", path.display())]
    NoVideo {
        /// The film.
        path: PathBuf,
    },
    /// It is no film, or one that this ffmpeg does not decode.
    #[error("{}: expected a film that ffmpeg reads, got, in its words: {said}", path.display())]
    Unreadable {
        /// The film.
        path: PathBuf,
        /// The words of ffmpeg.
        said: String,
    },
    /// Too short for a window.
    #[error("{}: expected at least {least} images for a window, got {got}", path.display())]
    Few {
        /// The film.
        path: PathBuf,
        /// Images of a window.
        least: usize,
        /// Pictures of the film.
        got: u64,
    },
    /// No camera has these intrinsics.
    #[error("{}: --fov or --intrinsics, for pictures of {} x {} pixels: {source}", path.display(), size.0, size.1)]
    Intrinsics {
        /// The film.
        path: PathBuf,
        /// Of its pictures, as they are shown.
        size: (u32, u32),
        /// What is wrong.
        source: geometry::Error,
    },
    /// The recording cannot be written.
    #[error(transparent)]
    Recording(#[from] camera::recording::Error),
    /// Stopped from outside.
    #[error("stopped before the end of the film")]
    Stopped,
}

/// What the lens is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Lens {
    /// The angle along the longer side of the pictures, degrees; the principal point is in the middle.
    Fov(f64),
    /// fx, fy, cx, cy in pixels of the film as it is shown: turned as it says, with square pixels.
    Pinhole([f64; 4]),
}

impl Lens {
    /// The intrinsics of pictures of this size.
    ///
    /// # Errors
    ///
    /// [`geometry::Error::Intrinsics`] where no camera has them.
    pub fn intrinsics(self, (width, height): (u32, u32)) -> Result<Intrinsics, geometry::Error> {
        let [fx, fy, cx, cy] = match self {
            Self::Pinhole(numbers) => numbers,
            Self::Fov(degrees) => {
                let focal = f64::from(width.max(height)) / 2.0 / (degrees.to_radians() / 2.0).tan();
                [focal, focal, f64::from(width) / 2.0 - 0.5, f64::from(height) / 2.0 - 0.5]
            }
        };
        Intrinsics::new(fx, fy, cx, cy, width, height)?.plausible()
    }
}

/// Whether a file is taken for a film, by the ending of its name: where a lens is named, any that is no recording's.
pub fn is_film(path: &Path, has_lens: bool) -> bool {
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_ascii_lowercase();
    ENDINGS.contains(&ending.as_str()) || (has_lens && !RECORDINGS.contains(&ending.as_str()))
}

/// What is to be made a recording.
#[derive(Debug, Clone, Copy)]
pub struct Film<'a> {
    /// The film.
    pub path: &'a Path,
    /// Of its camera.
    pub lens: Lens,
    /// Where its pictures go, by absolute names.
    pub topics: &'a Topics,
    /// Images that a window needs.
    pub least: usize,
    /// Set from outside to end it with [`Error::Stopped`].
    pub stop: &'a AtomicBool,
}

/// What a film held.
#[derive(Debug, Clone, PartialEq)]
pub struct Taken {
    /// Pictures.
    pub images: u64,
    /// What ffmpeg said was wrong with it first, where it did.
    pub said: Option<String>,
    /// Times of the last picture and of the film's end, seconds, where it ends before what it says of itself.
    pub cut: Option<(f64, f64)>,
}

/// How far it has come: pictures, and the share of the film's length, where that is known.
pub type Tell<'a> = &'a mut dyn FnMut(u64, Option<f64>);

/// Writes the pictures of a film to `file`, and tells of each; of a film that cannot be taken nothing is left there.
///
/// # Errors
///
/// [`Error`].
pub fn take(film: &Film<'_>, file: &Path, tell: Tell<'_>) -> Result<Taken, Error> {
    let taken = write(film, file, tell);
    // A signal of the terminal ends ffmpeg too, which is no fault of the film.
    let taken = if film.stop.load(Ordering::Relaxed) { Err(Error::Stopped) } else { taken };
    if taken.is_err() {
        let mut part = file.as_os_str().to_owned();
        part.push(".part");
        // Where it cannot be removed, the error is the film's all the same.
        let _ = std::fs::remove_file(part);
    }
    taken
}

fn write(film: &Film<'_>, file: &Path, tell: Tell<'_>) -> Result<Taken, Error> {
    let mut decoder = Decoder::start(film.path)?;
    let mut writer = FileWriter::create(file)?;
    let (mut images, mut last, mut size) = (0, Stamp::default(), None);
    while let Some(picture) = decoder.next()? {
        if film.stop.load(Ordering::Relaxed) {
            return Err(Error::Stopped);
        }
        if size != Some(picture.size) {
            // Once, as a rule: there are films whose pictures change their size.
            size = Some(picture.size);
            let info = film.info(&picture)?;
            writer.write(&entry_of_input(&Input::CameraInfo(info), film.topics, picture.stamp))?;
        }
        (images, last) = (images + 1, picture.stamp);
        let image = ImageMessage { stamp: last, frame_id: FRAME.to_owned(), payload: picture.payload };
        writer.write(&entry_of_input(&Input::Image(image), film.topics, last))?;
        tell(images, decoder.length.map(|length| last.as_seconds_f64() / length));
    }
    let (length, said) = decoder.finish()?;
    if images < film.least as u64 {
        return Err(Error::Few { path: film.path.to_owned(), least: film.least, got: images });
    }
    writer.finish()?;
    let reached = last.as_seconds_f64();
    let cut = length.filter(|length| said.is_some() && reached < WHOLE * length).map(|length| (reached, length));
    Ok(Taken { images, said, cut })
}

impl Film<'_> {
    fn info(&self, picture: &Picture) -> Result<CameraInfoMessage, Error> {
        let failed = |source| Error::Intrinsics { path: self.path.to_owned(), size: picture.shown_size, source };
        let Intrinsics { fx, fy, cx, cy, width, height } =
            self.lens.intrinsics(picture.shown_size).map_err(failed)?.rescale(picture.size.0, picture.size.1);
        Ok(CameraInfoMessage {
            stamp: picture.stamp,
            frame_id: FRAME.to_owned(),
            width,
            height,
            distortion_model: "plumb_bob".to_owned(),
            d: vec![0.0; 5],
            k: [fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0],
            r: [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
            p: [fx, 0.0, cx, 0.0, 0.0, fy, cy, 0.0, 0.0, 0.0, 1.0, 0.0],
            ..CameraInfoMessage::default()
        })
    }
}

/// A picture as it came.
struct Picture {
    stamp: Stamp,
    payload: ImagePayload,
    /// Of the JPEG, and of the film as it is shown, before it was scaled; pixels.
    size: (u32, u32),
    shown_size: (u32, u32),
}

/// What ffmpeg writes to its standard error that is of use.
#[derive(Debug, Clone, PartialEq)]
enum Said {
    /// How long the film says that it is, seconds.
    Length(f64),
    /// The next picture: its time, and its size as it is shown.
    Picture(Stamp, (u32, u32)),
    /// Something is wrong.
    Fault(String),
}

/// ffmpeg at work on a film. It ends with this.
struct Decoder {
    path: PathBuf,
    child: Child,
    pictures: BufReader<ChildStdout>,
    said: Receiver<Said>,
    length: Option<f64>,
    /// The first words of what is wrong.
    fault: Option<String>,
}

impl Decoder {
    fn start(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Program { path: path.to_owned(), source };
        let mut command = command(&std::path::absolute(path).map_err(failed)?);
        let mut child = match command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn() {
            Ok(child) => child,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Error::NoProgram),
            Err(error) => return Err(failed(error)),
        };
        let (Some(pictures), Some(words)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(failed(io::ErrorKind::BrokenPipe.into()));
        };
        let (sender, said) = channel();
        let listen = move || listen(BufReader::new(words), &sender);
        let listening = thread::Builder::new().name("ffmpeg".to_owned()).spawn(listen);
        let pictures = BufReader::new(pictures);
        let decoder = Self { path: path.to_owned(), child, pictures, said, length: None, fault: None };
        match listening {
            Ok(_) => Ok(decoder),
            Err(error) => Err(failed(error)),
        }
    }

    /// The next picture; `None` behind the last.
    fn next(&mut self) -> Result<Option<Picture>, Error> {
        let Some(data) = part(&mut self.pictures).map_err(|source| self.failed(source))? else { return Ok(None) };
        // Said before the picture was made a JPEG.
        let (stamp, shown_size) = loop {
            match self.said.recv() {
                Ok(Said::Picture(stamp, size)) => break (stamp, size),
                Ok(other) => self.note(other),
                Err(_) => return Err(self.unreadable("a picture without a time")),
            }
        };
        let payload = ImagePayload::Compressed { format: "jpeg".to_owned(), data };
        let size = inspect(&payload).map_err(|error| self.unreadable(&error.to_string()))?;
        Ok(Some(Picture { stamp, payload, size, shown_size }))
    }

    /// The length that the film says it has and what was wrong with it, once ffmpeg has ended.
    fn finish(mut self) -> Result<(Option<f64>, Option<String>), Error> {
        let status = self.child.wait().map_err(|source| self.failed(source))?;
        while let Ok(said) = self.said.recv() {
            self.note(said);
        }
        if status.success() {
            return Ok((self.length, self.fault.take()));
        }
        let said = self.fault.take().unwrap_or_else(|| status.to_string());
        let path = self.path.clone();
        Err(if said.contains("matches no streams") {
            Error::NoVideo { path }
        } else {
            Error::Unreadable { path, said }
        })
    }

    fn note(&mut self, said: Said) {
        match said {
            Said::Length(seconds) => self.length = Some(seconds),
            Said::Fault(words) => {
                self.fault.get_or_insert(words);
            }
            Said::Picture(..) => {}
        }
    }

    fn failed(&self, source: io::Error) -> Error {
        Error::Program { path: self.path.clone(), source }
    }

    fn unreadable(&self, said: &str) -> Error {
        Error::Unreadable { path: self.path.clone(), said: said.to_owned() }
    }
}

impl Drop for Decoder {
    /// Nothing is left behind where the film is given up half way.
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// One run of ffmpeg, which writes the pictures of a film to its standard output, each behind a head with its length, and what it
/// has to say, with its times, to standard error.
///
/// The film is a file, and leads to no other (`-protocol_whitelist`). Pictures are written a second apart: at a steady rate, no
/// version of ffmpeg repeats or drops one, and its options for any rate have had other names.
fn command(path: &Path) -> Command {
    let mut input = OsString::from("file:");
    input.push(path);
    let mut command = Command::new(PROGRAM);
    command.args(["-nostdin", "-hide_banner", "-nostats", "-loglevel", "level+info", "-protocol_whitelist", "file"]);
    // The first stream of pictures that is no cover of a record.
    command.arg("-i").arg(input).args(["-map", "0:V:0", "-an", "-sn", "-dn"]);
    let side = MOST_SIDE;
    command.arg("-vf").arg(format!(
        "scale=iw*sar:ih,settb=AVTB,showinfo=checksum=0,\
         scale=w=min({side}\\,iw):h=min({side}\\,ih):force_original_aspect_ratio=decrease,setsar=1,setpts=N/TB"
    ));
    command.args(["-r", "1", "-c:v", "mjpeg", "-pix_fmt", "yuvj420p", "-q:v", "2", "-f", "mpjpeg", "pipe:1"]);
    command
}

/// Sends on what is of use, line by line, until ffmpeg has no more to say or nobody listens.
fn listen(words: impl BufRead, sender: &Sender<Said>) {
    for line in words.split(b'\n').map_while(Result::ok) {
        if let Some(said) = said(&String::from_utf8_lossy(&line))
            && sender.send(said).is_err()
        {
            return;
        }
    }
}

/// What a line of ffmpeg's standard error says, where that is of use.
fn said(line: &str) -> Option<Said> {
    if line.starts_with("[Parsed_showinfo_") {
        let nanos = field(line, " pts:")?.parse::<i64>().ok()?.checked_mul(1000)?;
        let (width, height) = field(line, " s:")?.split_once('x')?;
        return Some(Said::Picture(Stamp::from_nanos(nanos), (width.parse().ok()?, height.parse().ok()?)));
    }
    let fault = ["[error] ", "[fatal] "].iter().find_map(|level| Some(line.split_once(level)?.1.trim()));
    if let Some(words) = fault {
        return Some(Said::Fault(words.to_owned()));
    }
    let clock = field(line, " Duration: ")?.trim_end_matches(',');
    let parts: Vec<f64> = clock.split(':').map_while(|part| part.parse().ok()).collect();
    let [hours, minutes, seconds] = parts[..] else { return None };
    Some(Said::Length((hours * 60.0 + minutes) * 60.0 + seconds))
}

/// The word behind a name.
fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    line.split_once(name)?.1.split_whitespace().next()
}

/// The next of parts that are separated by lines, with a `Content-length` in front of each; `None` behind the last.
fn part(input: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut length: Option<usize> = None;
    let mut line = String::new();
    loop {
        line.clear();
        if input.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok();
        }
        if let Some(length) = length.filter(|_| line.trim().is_empty()) {
            if length > MOST_BYTES {
                return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a picture of {length} bytes")));
            }
            let mut data = vec![0; length];
            input.read_exact(&mut data)?;
            return Ok(Some(data));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Lens, Said, command, is_film, part, said};
    use geometry::Stamp;

    #[test]
    fn what_two_versions_of_ffmpeg_say_is_understood() {
        let picture = |micros: i64, size| Some(Said::Picture(Stamp::from_nanos(micros * 1000), size));
        let fault = |words: &str| Some(Said::Fault(words.to_owned()));
        for (line, expected) in [
            (
                "[Parsed_showinfo_2 @ 0xcfbfe00] [info] n:   0 pts:      0 pts_time:0       pos:     1469 fmt:yuvj420p sar:1/1 \
                 s:640x480 i:P iskey:1 type:I ",
                picture(0, (640, 480)),
            ),
            (
                "[Parsed_showinfo_2 @ 0x7febe0010100] [info] n:  31 pts:1033333 pts_time:1.03333 duration:  33333 \
                 duration_time:0.033333 fmt:yuvj420p cl:unspecified sar:1/1 s:480x640 i:P iskey:1 type:I ",
                picture(1_033_333, (480, 640)),
            ),
            ("[Parsed_showinfo_2 @ 0x7f] [info] config in time_base: 1/1000000, frame_rate: 30/1", None),
            ("[Parsed_showinfo_2 @ 0x7f] [info] n: 3 pts:NOPTS pts_time:NOPTS s:480x640", None),
            ("[info]   Duration: 01:02:03.50, start: 0.000000, bitrate: 803 kb/s", Some(Said::Length(3723.5))),
            ("[info]   Duration: N/A, start: 0.000000, bitrate: N/A", None),
            ("[in#0 @ 0x5] [error] moov atom not found", fault("moov atom not found")),
            ("[fatal] Stream map '0:V:0' matches no streams.", fault("Stream map '0:V:0' matches no streams.")),
            ("[swscaler @ 0x5] [warning] deprecated pixel format used", None),
            ("", None),
        ] {
            assert_eq!(said(line), expected, "{line}");
        }
    }

    #[test]
    fn pictures_are_taken_one_by_one_and_a_cut_one_is_an_error() {
        let stream = b"--ffmpeg\r\nContent-type: image/jpeg\r\nContent-length: 4\r\n\r\n\r\n\r\n\r\n--ffmpeg\r\n\
                       Content-type: image/jpeg\r\nContent-length: 3\r\n\r\nabc\r\n--ffmpeg\r\n";
        let mut input = &stream[..];
        let parts: Vec<Vec<u8>> = std::iter::from_fn(|| part(&mut input).unwrap()).collect();
        assert_eq!(parts, [b"\r\n\r\n".to_vec(), b"abc".to_vec()], "line ends in a picture are part of it");
        let cut = part(&mut &b"--ffmpeg\r\nContent-length: 9\r\n\r\nabc"[..]).unwrap_err();
        assert_eq!(cut.kind(), std::io::ErrorKind::UnexpectedEof);
        let forged = part(&mut &b"--ffmpeg\r\nContent-length: 99999999999\r\n\r\n"[..]).unwrap_err().to_string();
        assert!(forged.contains("a picture of 99999999999 bytes"), "{forged}");
    }

    #[test]
    fn an_angle_is_that_of_the_longer_side_whichever_way_the_film_was_held() {
        for size in [(1920, 1080), (1080, 1920)] {
            let camera = Lens::Fov(90.0).intrinsics(size).unwrap();
            assert!((camera.fx - 960.0).abs() < 1e-9 && camera.fx.to_bits() == camera.fy.to_bits(), "{camera:?}");
            let middle = (f64::from(size.0) / 2.0 - 0.5, f64::from(size.1) / 2.0 - 0.5);
            assert_eq!((camera.cx.to_bits(), camera.cy.to_bits()), (middle.0.to_bits(), middle.1.to_bits()));
        }
        let own = Lens::Pinhole([500.0, 510.0, 320.0, 240.0]).intrinsics((640, 480)).unwrap();
        assert_eq!((own.fy.to_bits(), own.width), (510.0_f64.to_bits(), 640));
        let other = Lens::Pinhole([500.0, 510.0, 320.0, 240.0]).intrinsics((1920, 1080)).unwrap_err().to_string();
        assert!(other.contains("cx"), "of another size: {other}");
    }

    #[test]
    fn a_name_is_no_address_and_leads_to_no_other_file() {
        let command = command(Path::new("/films/http:evil.mp4"));
        let words: Vec<&str> = command.get_args().map(|word| word.to_str().unwrap()).collect();
        let at = words.iter().position(|word| *word == "-i").unwrap();
        assert_eq!(words[at + 1], "file:/films/http:evil.mp4");
        assert_eq!(words[at - 2..at], ["-protocol_whitelist", "file"]);
        for (name, expected, with_lens) in [
            ("a.MP4", true, true),
            ("a.mov", true, true),
            ("a.wmv", false, true),
            ("mp4", false, true),
            ("a.mcap", false, false),
            ("a.db3", false, false),
        ] {
            assert_eq!(
                (is_film(Path::new(name), false), is_film(Path::new(name), true)),
                (expected, with_lens),
                "{name}"
            );
        }
    }
}
