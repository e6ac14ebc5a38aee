//! Whether windows are answered, and which of them are still wanted.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What stands between windows and their answers. Closed until the node is activated; each closing, and each reset of the
/// odometry, ends a generation, and what belongs to an earlier one is neither answered nor published.
#[derive(Debug, Default)]
pub(super) struct Gate {
    door: Mutex<Door>,
    /// The model's: makes it give up its answer.
    interrupt: Arc<AtomicBool>,
}

/// The gate at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Door {
    pub is_open: bool,
    pub generation: u64,
}

impl Gate {
    pub fn look(&self) -> Door {
        *self.lock()
    }

    pub fn open(&self) {
        self.lock().is_open = true;
    }

    /// Nothing to end where it is closed already.
    pub fn close(&self) {
        let mut door = self.lock();
        if door.is_open {
            *door = Door { is_open: false, generation: door.generation + 1 };
            self.interrupt();
        }
    }

    /// Begins another generation.
    pub fn renew(&self) {
        let mut door = self.lock();
        door.generation += 1;
        // Before a window of the new generation can be admitted.
        self.interrupt();
    }

    /// Makes the model give up the answer that it is at. What it is at next it does not give up.
    pub fn interrupt(&self) {
        self.interrupt.store(true, Ordering::Relaxed);
    }

    /// The flag that a model is loaded with.
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.interrupt)
    }

    /// Whether the model may go to work on a window of this generation. An interruption from now on is for that window.
    pub fn admit(&self, generation: u64) -> bool {
        self.interrupt.store(false, Ordering::Relaxed);
        self.is_wanted(generation)
    }

    /// Whether an answer to a window of this generation may still be given.
    pub fn is_wanted(&self, generation: u64) -> bool {
        self.look() == Door { is_open: true, generation }
    }

    /// Calls `publish` if the generation is wanted, and lets nobody end it meanwhile.
    pub fn pass(&self, generation: u64, publish: impl FnOnce()) {
        let door = self.lock();
        if *door == (Door { is_open: true, generation }) {
            publish();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Door> {
        // Two plain values: a thread that died while it held them leaves nothing half done.
        self.door.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::Gate;

    #[test]
    fn what_is_of_an_earlier_generation_does_not_pass() {
        let gate = Gate::default();
        let first = gate.look().generation;
        assert!(!gate.is_wanted(first), "closed at first");
        gate.open();
        assert!(gate.admit(first) && !gate.flag().load(Ordering::Relaxed));
        gate.renew();
        assert!(gate.flag().load(Ordering::Relaxed), "the model is told");
        assert!(gate.look().is_open && !gate.is_wanted(first));
        let mut passed = 0;
        gate.pass(first, || passed += 1);
        gate.pass(gate.look().generation, || passed += 1);
        assert_eq!(passed, 1);
        let second = gate.look().generation;
        gate.close();
        gate.open();
        assert!(!gate.is_wanted(second), "what was under way when it closed stays outside");
        gate.close();
        let third = gate.look().generation;
        gate.close();
        assert_eq!(gate.look().generation, third, "there was nothing to end");
    }
}
