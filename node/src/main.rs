//! `node [run]`, `node record`, `node replay`, `node report`, `node doctor`.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use camera::info::Images;
use camera::optics::UseFixed;
use camera::recording::{Entry, FileWriter, bag};
use camera::sequence::{self, Sequence};
use clap::{Parser, Subcommand};
use model::process::{self, Unwritten, print};
use node::config::{Config, OdometrySource, Sheet};
use node::pipeline::{Pipeline, Settings};
use node::ros::transport::ros_args::{self, RosArgs};
use node::ros::transport::{self, Kind};
use node::solve::estimator::{self, EgoEstimator};
use node::solve::solver::Answered;
use node::status::counters::Fate;
use node::supervision::Service;
use node::tools::doctor::{self, Finding};
use node::tools::ending;
use node::tools::film::{self, Film, Lens};
use node::tools::page::Page;
use node::tools::progress::Progress;
use node::tools::recording::{Camera, Recorder, Recording, own_topics};
use node::tools::replay::recording::Played;
use node::tools::replay::{self, replay};
use node::tools::report::{self, Evidence, Report};

/// After a signal, the model has this long to notice.
const PATIENCE: Duration = Duration::from_millis(1500);
/// How often a process that is to end with its parent looks whether that is still there.
const PARENT_POLL: Duration = Duration::from_millis(200);
/// Where what a replay writes goes, where nobody says.
const REPLAY: &str = "target/replay";

/// Reads a camera topic and publishes poses on /ego/trajectory.
#[derive(Debug, Parser)]
#[command(name = "node", version, after_help = "`--ros-args ...` is understood as by every ROS 2 node.")]
struct Cli {
    /// Config file [default: config/node.toml here, or the one that was installed with this binary]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Replace a value of the config, for example `--set window.stride=2`
    #[arg(long = "set", global = true, value_name = "KEY=VALUE", value_parser = key_value)]
    overrides: Vec<(String, String)>,
    /// End, as on SIGTERM, when the process ends that started this one: `ros2 launch` leaves its nodes behind on SIGTERM
    #[arg(long, global = true)]
    end_with_parent: bool,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run as a ROS 2 node until SIGINT, SIGTERM or SIGHUP (default)
    Run,
    /// Run, and write what comes in and goes out to an MCAP file
    Record {
        /// The file; there must be none yet
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Answer every window of a recorded sequence, in process, and compare with its ground truth; or of a recording, or a
    /// film
    Replay {
        /// Folder with sequence.json and frames/; or a recording of ROS 2: an MCAP file, or the folder of a bag of them; or
        /// a film, which the program ffmpeg reads
        #[arg(value_name = "DIR|FILE")]
        input: PathBuf,
        /// Of a sequence: where trajectory.tum, trajectory.svg and report.json go [default: target/replay]. Of a
        /// recording: an MCAP file for what comes out [default: none]. Of a film: where film.mcap, odometry.tum, report.json
        /// and page.html go [default: target/replay]
        #[arg(long, value_name = "DIR|FILE")]
        out: Option<PathBuf>,
        /// Write a page for a browser to this file: pictures with tracks, the path, scale, status and the model's words
        #[arg(long, value_name = "FILE")]
        report: Option<PathBuf>,
        /// Of a film: the angle along the longer side of its pictures, degrees
        #[arg(long, value_name = "DEGREES", value_parser = field_of_view, conflicts_with = "intrinsics")]
        fov: Option<f64>,
        /// Of a film: fx,fy,cx,cy in pixels of the film as it is shown
        #[arg(long, value_name = "FX,FY,CX,CY", value_parser = pinhole)]
        intrinsics: Option<Lens>,
        /// Print each answer's text
        #[arg(long)]
        texts: bool,
    },
    /// Compare Paths that were received over the wire with a sequence's ground truth
    Report {
        /// received.json, as node::tools::report::Received describes it
        #[arg(long, value_name = "FILE")]
        received: PathBuf,
        /// Folder with sequence.json
        #[arg(long, value_name = "DIR")]
        sequence: PathBuf,
        /// Where trajectory.tum, trajectory.svg and report.json go
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Say what would keep the node from running
    Doctor,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

fn field_of_view(text: &str) -> Result<f64, String> {
    let degrees: f64 = text.trim().parse().map_err(|_| "expected degrees")?;
    if (2.0..=150.0).contains(&degrees) { Ok(degrees) } else { Err("expected 2 to 150 degrees".to_owned()) }
}

fn pinhole(text: &str) -> Result<Lens, String> {
    let numbers: Result<Vec<f64>, _> = text.split(',').map(|part| part.trim().parse()).collect();
    let numbers: Option<[f64; 4]> = numbers.ok().and_then(|numbers| numbers.try_into().ok());
    numbers.map(Lens::Pinhole).ok_or_else(|| "expected four numbers of pixels, FX,FY,CX,CY".to_owned())
}

/// What a replay is asked for, beside what it plays.
struct Asked {
    out: Option<PathBuf>,
    /// For a page.
    page: Option<PathBuf>,
    texts: bool,
    /// Of a film's camera.
    lens: Option<Lens>,
}

fn main() -> ExitCode {
    match try_main() {
        Ok(code) => code,
        Err(e) => {
            // A result that nobody reads is no news to anybody.
            if !e.downcast_ref::<Unwritten>().is_some_and(Unwritten::is_unread) {
                // Not a log line: it must be seen whatever RUST_LOG says.
                process::say(&format!("node: {}", one_line(&e)));
            }
            ExitCode::FAILURE
        }
    }
}

/// The error and its causes, less those that the error above them quotes.
fn one_line(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |line, cause| {
        if line.contains(&cause) {
            line
        } else if line.is_empty() {
            cause
        } else {
            format!("{line}: {cause}")
        }
    })
}

fn try_main() -> anyhow::Result<ExitCode> {
    let (args, ros) = RosArgs::split(std::env::args())?;
    let cli = Cli::parse_from(args);
    init_log(ros.log_level.as_deref());
    if cli.end_with_parent {
        end_with_parent().context("cannot start a thread")?;
    }
    if let Some(Verb::Report { received, sequence, out }) = &cli.verb {
        let evidence = Evidence::from_received(received)?;
        finish_report(&evidence, &Sequence::load(sequence)?, out)?;
        if evidence.results.is_empty() && evidence.odometry.is_empty() {
            bail!("{}: expected a Path or an Odometry of the node, got none", received.display());
        }
        return Ok(ExitCode::SUCCESS);
    }
    let path = match cli.config {
        Some(path) => path,
        None => find_config().context("no config/node.toml here or beside this binary; name one with --config")?,
    };
    let loaded = load(&path, cli.overrides, &ros)?;
    match cli.verb {
        Some(Verb::Doctor) => examine(&path, loaded.map(|(_, config)| config)),
        Some(Verb::Replay { input, out, texts, report, fov, intrinsics }) => {
            let asked = Asked { out, page: report, texts, lens: intrinsics.or(fov.map(Lens::Fov)) };
            play_input(&loaded?.1, &input, &asked)
        }
        Some(Verb::Record { out }) => run(&path, loaded?, &ros, Some(&out)),
        _ => run(&path, loaded?, &ros, None),
    }
}

/// The config at `path` with what the command line says laid over it: first `--set`, then ROS's parameters, names and QoS.
fn load(
    path: &Path,
    mut overrides: Vec<(String, String)>,
    ros: &RosArgs,
) -> anyhow::Result<Result<(Sheet, Config), node::config::Error>> {
    // Which parameters are for this node depends on its name.
    let named = match Sheet::load(path, &overrides) {
        Ok((_, config)) => config.topics,
        Err(error) => return Ok(Err(error)),
    };
    let (parameters, qos) = ros_args::sorted(&ros.parameters(&named)?)?;
    overrides.extend(parameters);
    let (sheet, mut config) = match Sheet::load(path, &overrides) {
        Ok(loaded) => loaded,
        Err(error) => return Ok(Err(error)),
    };
    config.topics.qos = qos;
    ros.apply(&mut config.topics)?;
    config.topics.refuse_own_odometry()?;
    Ok(Ok((sheet, config)))
}

/// `RUST_LOG` first, then ROS's `--log-level`, else info.
fn init_log(ros_level: Option<&str>) {
    let level = match ros_level.map(str::to_ascii_lowercase).as_deref() {
        Some("debug") => "debug",
        Some("warn") => "warn",
        Some("error" | "fatal") => "error",
        _ => "info",
    };
    // The DDS implementation speaks of every peer that comes and goes, and at debug of every datagram: the level that is
    // asked for is the node's. RUST_LOG has all.
    let quiet = "rustdds=error,ros2_client=warn,ros2_client::distributions=error";
    let quiet = if level == "error" { "" } else { quiet };
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(format!("{level},{quiet}")));
    // Colours are for people, not for journals and files.
    let is_coloured = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(process::log).with_ansi(is_coloured).init();
}

/// `config/node.toml` in the working directory, in an install prefix around this binary, or in the repository whose
/// `target` holds it.
fn find_config() -> Option<PathBuf> {
    let here = PathBuf::from("config/node.toml");
    let exe = std::env::current_exe().ok();
    let around = exe
        .iter()
        .flat_map(|e| e.ancestors().skip(1))
        .flat_map(|prefix| [prefix.join("share/egoreasoner/config/node.toml"), prefix.join("config/node.toml")]);
    std::iter::once(here).chain(around).find(|path| path.is_file())
}

/// SIGINT, SIGTERM and SIGHUP set the flag.
fn stop_on_signals() -> anyhow::Result<Arc<AtomicBool>> {
    process::stop_on_signals().context("cannot listen to signals")
}

/// The flag of a replay, which ends in time wherever it is. What has come out of it by then is written to its end.
fn stop_replay(writer: &Output) -> anyhow::Result<Arc<AtomicBool>> {
    let (stop, writer) = (stop_on_signals()?, Arc::clone(writer));
    let close = move || {
        if let Some(writer) = writer.lock().unwrap_or_else(PoisonError::into_inner).take()
            && let Err(error) = writer.finish()
        {
            tracing::error!("{error}");
        }
    };
    let words = format!("node: {}", replay::Error::Stopped);
    ending::end_in_time(Arc::clone(&stop), words, close).context("cannot start a thread")?;
    Ok(stop)
}

/// Sends this process the SIGTERM that its parent has not handed on, as soon as another process is its parent. (Linux would do
/// it by PR_SET_PDEATHSIG, but when the thread of the parent ends that started this one, and not the parent.)
fn end_with_parent() -> std::io::Result<()> {
    let parent = std::os::unix::process::parent_id();
    let watch = move || {
        while std::os::unix::process::parent_id() == parent {
            std::thread::sleep(PARENT_POLL);
        }
        // Where the log is a terminal that is gone as well, a line may be lost, the signal not.
        let raised = signal_hook::low_level::raise(signal_hook::consts::SIGTERM);
        tracing::warn!(raised = raised.is_ok(), "the process that started this one has ended");
    };
    std::thread::Builder::new().name("parent".to_owned()).spawn(watch).map(drop)
}

fn run(
    path: &Path,
    (sheet, config): (Sheet, Config),
    ros: &RosArgs,
    record: Option<&Path>,
) -> anyhow::Result<ExitCode> {
    let stop = stop_on_signals()?;
    if let Some(file) = record.filter(|file| file.exists()) {
        bail!("{}: there is a file already, and a recording replaces none", file.display());
    }
    let kind = config.transport;
    if !transport::is_compiled_in(kind) {
        return Err(transport::Error::NotCompiledIn { kind }.into());
    }
    if kind == Kind::Ros2Client && !ros.only_for_rcl.is_empty() {
        tracing::info!(flags = ?ros.only_for_rcl, "flags without a meaning for ros2-client are ignored");
    }
    if config.window.shared_frames() == 0 {
        tracing::warn!(
            "window.hop and window.stride: neighbouring windows share no frame, so the odometry cannot join them"
        );
    }
    tracing::info!(config = %path.display(), transport = %kind, weights = weights_of(&config), "starting");
    let names = config.topics.resolved()?;
    let mut recorder = record.map(|file| Recorder::create(file, &names)).transpose()?;
    let (settings, model) = (Settings::from(&config), config.model);
    let load = move |interrupt| match &model {
        Some(model) => EgoEstimator::load(model, interrupt),
        None => Err(estimator::Error::Other("there is no model".to_owned())),
    };
    let (pipeline, ends) = Pipeline::start(settings, sheet, load, stop).context("cannot start a thread")?;
    let watch = pipeline.watch().clone();
    watch.tell(Service::of_environment());
    let ends = match &mut recorder {
        Some(recorder) => recorder.tap(ends).context("cannot start a thread")?,
        None => ends,
    };
    let carried = transport::run(kind, &config.topics, ends);
    let finished = pipeline.finish(PATIENCE);
    let recorded = recorder.map(|recorder| recorder.finish(PATIENCE)).transpose();
    carried.context("transport")?;
    let s = finished?;
    watch.check()?;
    tracing::info!(
        frames_received = s.frames_received,
        frames_used = s.frames_used(),
        frames_posed = s.fate(Fate::Posed),
        frames_dropped = s.frames_dropped(),
        windows_answered = s.windows_answered,
        answers_unparsed = s.answers_unparsed,
        "stopped"
    );
    if let Some(recorded) = recorded? {
        tracing::info!(messages = recorded.written, lost = recorded.lost, "recorded");
    }
    if let Some(file) = record.filter(|_| s.frames_received == 0) {
        bail!("{}: no image came on {}, so the recording has none (topics.image)", file.display(), names.image);
    }
    Ok(ExitCode::SUCCESS)
}

fn weights_of(config: &Config) -> String {
    config.model.as_ref().map_or_else(|| "none".to_owned(), |model| model.weights.display().to_string())
}

/// The model, where there is one.
fn load_model(config: &Config, stop: &Arc<AtomicBool>) -> anyhow::Result<Option<EgoEstimator>> {
    Ok(config.model.as_ref().map(|model| EgoEstimator::load(model, Arc::clone(stop))).transpose()?)
}

/// Plays what there is at a path.
fn play_input(config: &Config, input: &Path, asked: &Asked) -> anyhow::Result<ExitCode> {
    if input.is_file() && film::is_film(input, asked.lens.is_some()) {
        return play_film(config, input, asked);
    }
    if asked.lens.is_some() && input.exists() {
        bail!("{}: expected a film for --fov and --intrinsics, got what says its intrinsics itself", input.display());
    }
    if input.is_file() || bag::is_recording(input) {
        return play_recording(config, input, asked);
    }
    if !input.exists() {
        bail!("{}: expected a file or folder, got a path at which there is nothing", input.display());
    }
    if !sequence::is_sequence(input) {
        // The error lists the recordings that are there.
        bag::open(input).with_context(|| {
            format!("{}: expected a folder with sequence.json or the folder of a rosbag2", input.display())
        })?;
    }
    play(config, input, asked)
}

/// What a replay from which nothing came ends with.
fn check_nothing(evidence: &Evidence, name: &str) -> anyhow::Result<()> {
    match evidence.nothing() {
        None => Ok(()),
        Some(why) => bail!("{name}: {why}"),
    }
}

fn play(config: &Config, dir: &Path, asked: &Asked) -> anyhow::Result<ExitCode> {
    let stop = stop_replay(&Output::default())?;
    let sequence = Sequence::load(dir)?;
    let least = replay::least_frames(&config.window);
    if sequence.frames.len() < least {
        bail!("{}: expected at least {least} frames for a window, got {}", dir.display(), sequence.frames.len());
    }
    if config.odometry.source == OdometrySource::Topic {
        bail!(
            "{}: expected a recording, since odometry.source is \"topic\"; a sequence has images alone",
            dir.display()
        );
    }
    let estimator = load_model(config, &stop)?;
    let mut told = Told::new(asked.texts, &stop);
    let settings = Settings { keeps_moments: asked.page.is_some(), ..Settings::from(config) };
    let evidence = replay(&sequence, estimator, &settings, &stop, |answered| told.tell(answered));
    told.result?;
    let evidence = evidence?;
    let out = asked.out.as_deref().unwrap_or(Path::new(REPLAY));
    let report = finish_report(&evidence, &sequence, out)?;
    if let Some(file) = &asked.page {
        write_page(&Page::of_sequence(&evidence, &sequence, &report), file)?;
    }
    check_nothing(&evidence, &dir.display().to_string())?;
    Ok(ExitCode::SUCCESS)
}

fn write_page(page: &Page, file: &Path) -> anyhow::Result<()> {
    page.write(file)?;
    Ok(print(&format!("page: {}\n", file.display()))?)
}

/// What a replay writes, where it writes anything that has not been closed.
type Output = Arc<Mutex<Option<FileWriter>>>;

/// Tells of answers as they come. Where nobody reads them any more, the replay stops.
struct Told<'a> {
    texts: bool,
    stop: &'a AtomicBool,
    result: Result<(), Unwritten>,
}

impl<'a> Told<'a> {
    fn new(texts: bool, stop: &'a AtomicBool) -> Self {
        Self { texts, stop, result: Ok(()) }
    }

    fn tell(&mut self, answered: &Answered) {
        tracing::info!(window_id = answered.window_id, latency_millis = answered.latency.as_millis(), "answered");
        if self.texts && self.result.is_ok() {
            self.result = print(&format!("--- window {}\n{}\n", answered.window_id, answered.text));
            if self.result.is_err() {
                self.stop.store(true, Ordering::Relaxed);
            }
        }
    }
}

fn play_recording(config: &Config, file: &Path, asked: &Asked) -> anyhow::Result<ExitCode> {
    let output = Output::default();
    let stop = stop_replay(&output)?;
    let topics = config.topics.resolved()?;
    let recording = Recording::open(file)?;
    let camera = recording.camera(&topics, config.camera.use_fixed)?;
    for damage in recording.damage() {
        let (path, images) = (damage.path().display(), camera.images());
        print(&format!("{path}: {damage}; the {images} images that can be are played\n"))?;
    }
    let least = replay::least_frames(&config.window);
    if camera.images() < least as u64 {
        bail!(
            "{}: {}: expected at least {least} images for a window, got {}",
            file.display(),
            camera.topic(),
            camera.images()
        );
    }
    tracing::info!(
        image = camera.topic(),
        camera_info = camera.info_topic(),
        images = camera.images(),
        "playing the recording"
    );
    let out = asked.out.as_deref();
    if out.is_some_and(|out| recording.files().iter().any(|file| is_same_file(out, file))) {
        bail!("{}: what comes out cannot replace the recording", file.display());
    }
    let settings = Settings { keeps_moments: asked.page.is_some(), ..Settings::from(config) };
    let node = replay::recording::Node { settings: &settings, topics: &topics, stop: &stop, echoes: false };
    let estimator = load_model(config, &stop)?;
    let heard = Heard { out, output: &output, texts: asked.texts, each: &mut |_| {} };
    let (played, written) = play_camera(&camera, node, estimator, heard)?;
    print(&report::counts(&played.evidence, &file.display().to_string()))?;
    for note in &played.notes {
        print(&format!("{note}\n"))?;
    }
    if let Some(written) = written {
        print(&format!("written: {}\n", written.display()))?;
    }
    if let Some(page) = &asked.page {
        let images = usize::try_from(camera.images()).unwrap_or(usize::MAX);
        let report = report::without_truth(&played.evidence, &file.display().to_string(), images);
        write_page(&Page::without_truth(&played.evidence, &report), page)?;
    }
    check_nothing(&played.evidence, &format!("{}: {}", file.display(), camera.topic()))?;
    Ok(ExitCode::SUCCESS)
}

/// Who hears what comes out of a camera that is played.
struct Heard<'a> {
    /// Where it is written, where that is anywhere.
    out: Option<&'a Path>,
    output: &'a Output,
    texts: bool,
    /// Each message that is written.
    each: &'a mut dyn FnMut(&Entry),
}

/// Plays what a camera said.
fn play_camera(
    camera: &Camera<'_>,
    node: replay::recording::Node<'_>,
    estimator: Option<EgoEstimator>,
    heard: Heard<'_>,
) -> anyhow::Result<(Played, Option<PathBuf>)> {
    let Heard { out, output, texts, each } = heard;
    let create = |out: &Path| Ok::<_, anyhow::Error>(FileWriter::create(out)?.own(own_topics(node.topics)));
    let open = || output.lock().unwrap_or_else(PoisonError::into_inner);
    *open() = out.map(create).transpose()?;
    let mut told = Told::new(texts, node.stop);
    let played = replay::recording::replay(
        camera,
        estimator,
        node,
        |entry| {
            each(entry);
            match &mut *open() {
                Some(writer) => Ok(writer.write(entry)?),
                None => Ok(()),
            }
        },
        |answered| told.tell(answered),
    );
    let written = open().take().map(FileWriter::finish).transpose();
    told.result?;
    Ok((played?, written?))
}

/// Plays a film: its pictures become a recording, and that is played. The recording that is left has both.
fn play_film(config: &Config, film: &Path, asked: &Asked) -> anyhow::Result<ExitCode> {
    let Some(lens) = asked.lens else {
        return Err(film::Error::NoLens { path: film.to_owned() }.into());
    };
    if config.odometry.source == OdometrySource::Topic {
        bail!("{}: expected a recording, since odometry.source is \"topic\"; a film has images alone", film.display());
    }
    let output = Output::default();
    let stop = stop_replay(&output)?;
    let topics = config.topics.resolved()?;
    let name = film.file_name().unwrap_or(film.as_os_str()).to_string_lossy().into_owned();
    let out = asked.out.as_deref().unwrap_or(Path::new(REPLAY));
    std::fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    let least = replay::least_frames(&config.window);
    let taken_film = Film { path: film, lens, topics: &topics, least, stop: &stop };
    let images = Scratch(out.join("film.images.mcap"));
    let mut progress = Progress::begin(format!("{name}: decoding"));
    let taken = film::take(&taken_film, &images.0, &mut |images, share| progress.tell(images, share))?;
    let recording = Recording::open(&images.0)?;
    let camera = recording.camera(&topics, UseFixed::Never)?;
    let mut settings = Settings { keeps_moments: true, ..Settings::from(config) };
    // The film's own camera, whatever the config's is.
    (settings.camera.use_fixed, settings.camera.images) = (UseFixed::Never, Images::Raw);
    let node = replay::recording::Node { settings: &settings, topics: &topics, stop: &stop, echoes: true };
    let mut progress = Progress::begin(format!("{name}: posing"));
    let mut posed: u64 = 0;
    let mut each = |entry: &Entry| {
        if entry.topic == topics.image {
            posed += 1;
            progress.tell(posed, Some(posed as f64 / taken.images as f64));
        }
    };
    let (file, estimator) = (out.join("film.mcap"), load_model(config, &stop)?);
    let heard = Heard { out: Some(&file), output: &output, texts: asked.texts, each: &mut each };
    let (played, _) = play_camera(&camera, node, estimator, heard)?;
    let Played { evidence, notes } = &played;
    let report = report::without_truth(evidence, &name, usize::try_from(taken.images).unwrap_or(usize::MAX));
    report::write_without_truth(evidence, &report, out)?;
    print(&report::counts(evidence, &film.display().to_string()))?;
    if let Some(said) = &taken.said {
        let (path, images) = (film.display(), taken.images);
        print(&format!("{path}: ffmpeg says \"{said}\"; the {images} images that can be are played\n"))?;
    }
    for note in notes {
        print(&format!("{note}\n"))?;
    }
    print(&format!("written: {}\n", out.join("{film.mcap,odometry.tum,report.json}").display()))?;
    let page = asked.page.clone().unwrap_or_else(|| out.join("page.html"));
    write_page(&Page::without_truth(evidence, &report), &page)?;
    check_nothing(evidence, &film.display().to_string())?;
    if let Some((reached, length)) = taken.cut {
        bail!(
            "{}: expected pictures for {length:.1} s, got the last at {reached:.1} s: the film is cut or damaged, and what \
             can be read of it is played",
            film.display()
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// A file that is not left behind.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn is_same_file(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

fn finish_report(evidence: &Evidence, sequence: &Sequence, out: &Path) -> anyhow::Result<Report> {
    let (table, report) = report::write(evidence, sequence, out)?;
    let files = out.join("{trajectory.tum,trajectory.svg,report.json}");
    print(&format!("{table}written: {}\n", files.display()))?;
    Ok(report)
}

fn examine(path: &Path, config: Result<Config, node::config::Error>) -> anyhow::Result<ExitCode> {
    let findings = doctor::examine(path, config);
    for finding in &findings {
        print(&format!("{finding}\n"))?;
    }
    Ok(if findings.iter().any(Finding::is_fault) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
