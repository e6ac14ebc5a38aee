//! What each program does at its ends: signals that ask it to stop, lines of a log that nobody takes any more, and results that
//! nobody reads.

use std::io::{self, Stderr, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

/// Exit status of a program that a second signal ends at once.
const ENDED_AT_ONCE: i32 = 130;

/// Lines of a log that could not be written.
#[derive(Debug, Default)]
pub struct Lost {
    all: AtomicU64,
    /// Those of which the log does not tell yet.
    untold: AtomicU64,
}

/// Of the log of this process.
static LOST: Lost = Lost { all: AtomicU64::new(0), untold: AtomicU64::new(0) };

impl Lost {
    /// So far.
    pub fn count(&self) -> u64 {
        self.all.load(Ordering::Relaxed)
    }
}

/// A writer of lines that never fails: one that cannot be written is lost and counted, and the next one that can be says how
/// many are.
#[derive(Debug)]
pub struct Lossy<W> {
    sink: W,
    lost: &'static Lost,
}

impl<W: Write> Lossy<W> {
    /// Of a sink that may fail.
    pub fn new(sink: W, lost: &'static Lost) -> Self {
        Self { sink, lost }
    }

    fn line(&mut self, line: &[u8]) {
        if self.sink.write_all(line).and_then(|()| self.sink.flush()).is_err() {
            self.lost.all.fetch_add(1, Ordering::Relaxed);
            self.lost.untold.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let untold = self.lost.untold.swap(0, Ordering::Relaxed);
        if untold > 0 {
            // Where this cannot be written either, the number is in the count of all.
            let _ = writeln!(self.sink, "{untold} lines of the log could not be written");
        }
    }
}

impl<W: Write> Write for Lossy<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line(bytes);
        Ok(bytes.len())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.line(bytes);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where lines of the log go: standard error, also where that is closed or its disk is full.
pub fn log() -> Lossy<Stderr> {
    Lossy::new(io::stderr(), &LOST)
}

/// A program's last words, whatever the level of its log is.
pub fn say(words: &str) {
    log().line(format!("{words}\n").as_bytes());
}

/// Lines that [`log`] could not write.
pub fn lines_lost() -> u64 {
    LOST.count()
}

/// A command's result that could not be handed over.
#[derive(Debug, thiserror::Error)]
#[error("standard output cannot be written: {0}")]
pub struct Unwritten(#[from] io::Error);

impl Unwritten {
    /// Whether nobody reads it, as behind `| head`: there is nobody to tell, either.
    pub fn is_unread(&self) -> bool {
        self.0.kind() == io::ErrorKind::BrokenPipe
    }
}

/// Writes a part of a command's result to standard output, at once.
///
/// # Errors
/// [`Unwritten`] where that is closed, or its disk is full.
pub fn print(text: &str) -> Result<(), Unwritten> {
    let mut output = io::stdout().lock();
    output.write_all(text.as_bytes())?;
    output.flush()?;
    Ok(())
}

/// A flag that SIGINT, SIGTERM and SIGHUP set. A second SIGINT or SIGTERM ends the process at once, with status 130; a second
/// SIGHUP does not, since a terminal that closes may send several. A process that was started to ignore SIGHUP (`nohup`) goes on
/// ignoring it.
///
/// # Errors
/// The system's, where it does not take a handler.
pub fn stop_on_signals() -> io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // Registered first, so that it sees the flag of an earlier signal.
        flag::register_conditional_shutdown(signal, ENDED_AT_ONCE, Arc::clone(&stop))?;
        flag::register(signal, Arc::clone(&stop))?;
    }
    if !is_ignored(SIGHUP, &std::fs::read_to_string("/proc/self/status").unwrap_or_default()) {
        flag::register(SIGHUP, Arc::clone(&stop))?;
    }
    Ok(stop)
}

/// Whether a process ignores a signal, by its `/proc/PID/status`.
fn is_ignored(signal: i32, status: &str) -> bool {
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_some_and(|mask| (mask >> (signal - 1)) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes lines while it is open.
    #[derive(Default)]
    struct Pipe {
        is_closed: bool,
        taken: String,
    }

    impl Write for &mut Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.is_closed {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            self.taken.push_str(std::str::from_utf8(bytes).unwrap());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_cannot_be_written_are_lost_counted_and_told_of() {
        static LOST: Lost = Lost { all: AtomicU64::new(0), untold: AtomicU64::new(0) };
        let mut pipe = Pipe::default();
        for (is_closed, line) in [(false, "one\n"), (true, "two\n"), (true, "three\n"), (false, "four\n")] {
            pipe.is_closed = is_closed;
            Lossy::new(&mut pipe, &LOST).write_all(line.as_bytes()).unwrap();
        }
        assert_eq!(pipe.taken, "one\nfour\n2 lines of the log could not be written\n");
        Lossy::new(&mut pipe, &LOST).write_all(b"five\n").unwrap();
        assert!(pipe.taken.ends_with("written\nfive\n"), "told once: {}", pipe.taken);
        assert_eq!(LOST.count(), 2);
    }

    #[test]
    fn what_nohup_ignores_is_known() {
        let status = "SigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\nSigCgt:\t0000000000000002\n";
        assert!(is_ignored(SIGHUP, status) && !is_ignored(SIGINT, status) && !is_ignored(SIGTERM, status));
        assert!(!is_ignored(SIGHUP, "") && !is_ignored(SIGHUP, "SigIgn:\tnone\n"));
    }
}
