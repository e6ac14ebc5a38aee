//! What passes between the pipeline and its transport, into a file: a copy of each message waits, within bounds, for a
//! thread that writes.
//!
//! ```text
//! transport --input--> [copy] --> pipeline --output--> [copy] --> transport
//!                         `-----bounded-----> file <-----'
//! ```

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use camera::recording::{Entry, Error, Writer, reason};
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use mcap::McapResult;

use super::entry::{entry_of_input, entry_of_output, own_topics, size_of};
use crate::pipeline::now;
use crate::ros::message::{DiagnosticLevel, DiagnosticsMessage, Input, Output};
use crate::ros::transport::Ends;
use crate::ros::transport::topics::Topics;
use crate::supervision::Watch;

/// Bytes of messages that may wait for the disk; more are dropped.
const MAX_WAITING_BYTES: usize = 64 << 20;
/// Messages that may wait for the disk, or for the transport.
const MAX_WAITING: usize = 1024;
/// What an output counts as, in bytes: a Path of five poses has about this many.
const OUTPUT_BYTES: usize = 1024;
/// A chunk is closed after this time, however little is in it.
const FLUSH_PERIOD: Duration = Duration::from_secs(1);
/// How often the writing thread looks whether it is to end.
const POLL: Duration = Duration::from_millis(50);
/// How long the end waits for outputs that are on their way.
const LAST_OUTPUTS: Duration = Duration::from_millis(200);

/// A file that is being recorded.
#[derive(Debug)]
pub struct Recorder {
    sink: Sink,
    writer: JoinHandle<()>,
    /// Hangs up when the file is closed.
    closed: Receiver<()>,
    /// Hangs up when no further output can come.
    outputs_gone: Option<Receiver<()>>,
}

/// What became of the messages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recorded {
    /// In the file.
    pub written: u64,
    /// Dropped: the disk was too slow or full.
    pub lost: u64,
    /// Why nothing more is written.
    failure: Option<String>,
}

/// The way to the writing thread.
#[derive(Debug, Clone)]
struct Sink {
    entries: Sender<(Entry, usize)>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    topics: Topics,
    /// Most bytes that may wait.
    room: usize,
    waiting: AtomicUsize,
    ending: AtomicBool,
    counts: Mutex<Recorded>,
    /// Over the node that is recorded.
    watch: OnceLock<Watch>,
}

impl Recorder {
    /// Creates `path`, where nothing may be yet, and starts the thread that writes. Names of `topics` are absolute.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], and [`Error::Write`] of a disk that is full already, on which no file is left.
    pub fn create(path: &Path, topics: &Topics) -> Result<Self, Error> {
        let file = File::create_new(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
        let started = Self::start(path, BufWriter::new(file), topics, MAX_WAITING_BYTES);
        if started.is_err() {
            let _ = std::fs::remove_file(path); // the error says what is wrong
        }
        started
    }

    fn start<W: Write + Send + 'static>(path: &Path, sink: W, topics: &Topics, room: usize) -> Result<Self, Error> {
        let writer = Writer::new(sink).map_err(|e| Error::Write {
            path: path.to_owned(),
            reason: reason(&e),
            written: 0,
            lost: 0,
        })?;
        let writer = writer.own(own_topics(topics));
        let shared = Arc::new(Shared {
            path: path.to_owned(),
            topics: topics.clone(),
            room,
            waiting: AtomicUsize::new(0),
            ending: AtomicBool::new(false),
            counts: Mutex::default(),
            watch: OnceLock::new(),
        });
        let (entries, queue) = bounded(MAX_WAITING);
        let (open, closed) = bounded(0);
        let writing = WritingThread { writer: Some(writer), queue, shared: Arc::clone(&shared), _open: open };
        let writer = thread::Builder::new()
            .name("recording".to_owned())
            .spawn(move || writing.run())
            .map_err(|source| Error::Io { path: path.to_owned(), source })?;
        Ok(Self { sink: Sink { entries, shared }, writer, closed, outputs_gone: None })
    }

    /// Stands between a pipeline, whose ends these are, and the transport that gets those which come back.
    ///
    /// # Errors
    ///
    /// Those of starting a thread.
    pub fn tap(&mut self, ends: Ends) -> io::Result<Ends> {
        let _ = self.sink.shared.watch.set(ends.watch.clone());
        let (forwarded, output) = bounded(MAX_WAITING);
        let (coming, outputs_gone) = bounded::<()>(0);
        let (sink, outputs) = (self.sink.clone(), ends.output);
        thread::Builder::new().name("forwarding".to_owned()).spawn(move || {
            let _coming = coming;
            forward(&sink, &outputs, &forwarded);
        })?;
        self.outputs_gone = Some(outputs_gone);
        let (sink, input) = (self.sink.clone(), ends.input);
        let input = Box::new(move |message: Input| {
            sink.input(&message);
            input(message);
        });
        Ok(Ends { input, output, ..ends })
    }

    /// Writes what waits and ends the file, but does not wait longer than `patience` for a slow disk.
    ///
    /// # Errors
    ///
    /// [`Error::Write`] where the file is not whole.
    pub fn finish(self, patience: Duration) -> Result<Recorded, Error> {
        let Self { sink: Sink { entries, shared }, writer, closed, outputs_gone } = self;
        if let Some(outputs_gone) = outputs_gone {
            // Hangs up, or the model is busy and nothing comes.
            let _ = outputs_gone.recv_timeout(LAST_OUTPUTS);
        }
        shared.ending.store(true, Ordering::Relaxed);
        drop(entries);
        if closed.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
            shared.fail("the disk is too slow: the end of the recording is missing".to_owned());
        } else if writer.join().is_err() {
            shared.fail("the writing thread panicked".to_owned());
        }
        let counts = shared.counts();
        match counts.failure {
            None => Ok(counts),
            Some(reason) => {
                let path = shared.path.clone();
                Err(Error::Write { path, reason, written: counts.written, lost: counts.lost })
            }
        }
    }
}

impl Sink {
    fn input(&self, input: &Input) {
        self.offer(size_of(input), || entry_of_input(input, &self.shared.topics, now()));
    }

    fn output(&self, output: &Output) {
        if let Some(entry) = entry_of_output(output, &self.shared.topics, now()) {
            self.offer(OUTPUT_BYTES, || entry);
        }
    }

    /// Never blocks; what does not fit is not even copied.
    fn offer(&self, bytes: usize, entry: impl FnOnce() -> Entry) {
        let before = self.shared.waiting.fetch_add(bytes, Ordering::Relaxed);
        let is_taken = before + bytes <= self.shared.room && self.entries.try_send((entry(), bytes)).is_ok();
        if !is_taken {
            self.shared.waiting.fetch_sub(bytes, Ordering::Relaxed);
            self.shared.lose(1);
        }
    }

    /// Adds to a report how the recording fares; `told` is what the report before said.
    fn note(&self, report: &mut DiagnosticsMessage, told: &mut Recorded) {
        let counts = self.shared.counts();
        report.values.push(("messages_recorded".to_owned(), counts.written.to_string()));
        report.values.push(("messages_not_recorded".to_owned(), counts.lost.to_string()));
        let problem = match &counts.failure {
            Some(reason) => Some(format!("the recording has ended: {reason}")),
            None if counts.lost > told.lost => Some(format!("messages_not_recorded +{}", counts.lost - told.lost)),
            None => None,
        };
        if let Some(problem) = problem {
            match report.level {
                DiagnosticLevel::Ok => (report.level, report.message) = (DiagnosticLevel::Warn, problem),
                _ => report.message.push_str(&format!("; {problem}")),
            }
        }
        *told = counts;
    }
}

/// Hands on what the pipeline publishes until it hangs up. Where the transport is slow this waits, so that the pipeline
/// drops and counts as it does without a recording; where the transport is gone, the recording still gets the rest.
fn forward(sink: &Sink, from: &Receiver<Output>, to: &Sender<Output>) {
    let mut told = Recorded::default();
    for mut output in from {
        if let Output::Diagnostics(report) = &mut output {
            sink.note(report, &mut told);
        }
        sink.output(&output);
        let _ = to.send(output);
    }
}

impl Shared {
    fn update(&self, change: impl FnOnce(&mut Recorded)) {
        change(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn counts(&self) -> Recorded {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn lose(&self, messages: u64) {
        let mut count = 0;
        self.update(|c| {
            c.lost += messages;
            count = if c.failure.is_none() { c.lost } else { 0 };
        });
        // The first, second, fourth, eighth, ...: a slow disk is slow for long.
        if count.is_power_of_two() {
            tracing::warn!(count, file = %self.path.display(), "message not recorded: the disk is too slow");
        }
    }

    fn fail(&self, reason: String) {
        tracing::error!(file = %self.path.display(), "the recording ends: {reason}");
        self.update(|c| {
            c.failure.get_or_insert(reason);
        });
    }
}

struct WritingThread<W: Write> {
    /// `None` once it has failed: what comes then is lost.
    writer: Option<Writer<W>>,
    queue: Receiver<(Entry, usize)>,
    shared: Arc<Shared>,
    _open: Sender<()>,
}

impl<W: Write> Drop for WritingThread<W> {
    /// A disk that is full ends the recording and not this thread, which then counts what is lost.
    fn drop(&mut self) {
        let Some(watch) = self.shared.watch.get().filter(|_| !self.shared.ending.load(Ordering::Relaxed)) else {
            return;
        };
        watch.note("the recording", if thread::panicking() { "it panicked" } else { "it returned" });
    }
}

impl<W: Write> WritingThread<W> {
    fn run(mut self) {
        let mut flushed = Instant::now();
        loop {
            match self.queue.recv_timeout(POLL) {
                Ok((entry, bytes)) => {
                    match self.writer {
                        Some(_) => self.attempt(|writer| writer.write(&entry)),
                        None => self.shared.lose(1),
                    }
                    self.shared.waiting.fetch_sub(bytes, Ordering::Relaxed);
                }
                Err(RecvTimeoutError::Timeout) if !self.shared.ending.load(Ordering::Relaxed) => {}
                Err(_) => break,
            }
            if flushed.elapsed() >= FLUSH_PERIOD {
                self.attempt(Writer::flush);
                flushed = Instant::now();
            }
        }
        self.attempt(Writer::flush);
        if let Some(writer) = self.writer.take()
            && let Err(error) = writer.finish()
        {
            self.shared.fail(reason(&error));
        }
    }

    /// Does something to the file, unless it has failed, and counts what came of it.
    fn attempt(&mut self, act: impl FnOnce(&mut Writer<W>) -> McapResult<()>) {
        let Some(writer) = &mut self.writer else { return };
        let result = act(writer);
        let written = writer.written();
        self.shared.update(|c| c.written = written);
        if let Err(error) = result {
            let open = writer.open_messages();
            self.writer = None;
            self.shared.fail(reason(&error));
            self.shared.lose(open);
        }
    }
}

#[cfg(test)]
mod tests;
