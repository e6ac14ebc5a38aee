//! The end of a program that was told to stop and does not come to look: it is at a chunk of a recording, at a step of the
//! model, or at a pipe that nobody reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

/// How often the flag is looked at.
const POLL: Duration = Duration::from_millis(50);
/// How long the program has to end by itself, as a pipeline has for the model.
const PATIENCE: Duration = Duration::from_millis(1500);
/// How long the last act may take.
const LAST_ACT: Duration = Duration::from_millis(300);
/// Exit status of a program that ended before it was done.
const FAILURE: i32 = 1;

/// Ends the process within two seconds after `stop` is set, unless it has ended by then: does `last`, says `words` and ends with
/// status 1.
///
/// # Errors
///
/// Those of starting a thread.
pub fn end_in_time(stop: Arc<AtomicBool>, words: String, last: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    let wait = move || {
        while !stop.load(Ordering::Relaxed) {
            thread::sleep(POLL);
        }
        thread::sleep(PATIENCE);
        // A disk that hangs is not waited for.
        let (done, is_done) = channel();
        let acting = thread::Builder::new().name("last act".to_owned()).spawn(move || {
            last();
            let _ = done.send(());
        });
        if acting.is_ok() {
            let _ = is_done.recv_timeout(LAST_ACT);
        }
        model::process::say(&words);
        // Without what the threads that are left behind hold: they may be anywhere.
        signal_hook::low_level::exit(FAILURE);
    };
    thread::Builder::new().name("ending".to_owned()).spawn(wait).map(drop)
}
