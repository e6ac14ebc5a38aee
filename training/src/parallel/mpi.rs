//! Ranks over MPI, in the host's memory.
//!
//! Errors of MPI itself never come back: its default is to end the job, which is what is wanted here.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::thread::{self, ThreadId};

use ::mpi::Threading;
use ::mpi::collective::SystemOperation;
use ::mpi::environment::{self, Universe};
use ::mpi::topology::SimpleCommunicator;
use ::mpi::traits::{Communicator, CommunicatorCollectives, Equivalence, Root};
use anyhow::{Context, Error, Result, ensure};

use super::Collective;

/// Values in one call: MPI counts in i32, and [`Mpi::add`] holds a copy of this many.
pub(super) const CHUNK: usize = 1 << 24;

/// One rank of an MPI job.
pub(super) struct Mpi {
    /// Held until [`Collective::finish`], which lets MPI go.
    universe: Mutex<Option<Universe>>,
    rank: usize,
    size: usize,
    /// The one that may call MPI.
    thread: ThreadId,
}

impl Mpi {
    /// Starts MPI in this process.
    ///
    /// # Errors
    /// An MPI that is running already, or that can't be used by programs with threads.
    pub(super) fn start() -> Result<Self> {
        // Funneled: workers have threads of their own, which do not call MPI.
        let (universe, provided) =
            environment::initialize_with_threading(Threading::Funneled).context("MPI was started before")?;
        ensure!(provided >= Threading::Funneled, "MPI: expected one that allows threads (funneled), got {provided:?}");
        let world = universe.world();
        let (rank, size) = (usize::try_from(world.rank())?, usize::try_from(world.size())?);
        Ok(Self { universe: Mutex::new(Some(universe)), rank, size, thread: thread::current().id() })
    }

    /// All ranks, for the thread that may call them.
    ///
    /// # Errors
    /// Another thread.
    pub(super) fn world(&self) -> Result<SimpleCommunicator> {
        let this = thread::current().id();
        ensure!(
            this == self.thread,
            "MPI: expected calls from {:?}, which started it, got one from {this:?}",
            self.thread
        );
        Ok(SimpleCommunicator::world())
    }

    /// The values of rank 0 on each rank.
    ///
    /// # Errors
    /// Another thread than the one that started.
    pub(super) fn share<T: Equivalence>(&self, values: &mut [T]) -> Result<()> {
        let world = self.world()?;
        for chunk in values.chunks_mut(CHUNK) {
            world.process_at_rank(0).broadcast_into(chunk);
        }
        Ok(())
    }

    /// The sum over ranks. The same bits on each: whichever algorithm MPI takes, an element is either summed on one
    /// rank and handed to the others, or in the same tree on all, where only the sides of an addition are swapped.
    fn add<T: Equivalence + Copy>(&self, values: &mut [T]) -> Result<()> {
        let world = self.world()?;
        let mut own = Vec::with_capacity(values.len().min(CHUNK));
        for chunk in values.chunks_mut(CHUNK) {
            own.clear();
            own.extend_from_slice(chunk);
            world.all_reduce_into(&own[..], chunk, SystemOperation::sum());
        }
        Ok(())
    }
}

impl Collective for Mpi {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn sum(&self, values: &mut [f32]) -> Result<()> {
        self.add(values)
    }

    fn sum_f64(&self, values: &mut [f64]) -> Result<()> {
        self.add(values)
    }

    fn broadcast(&self, values: &mut [f32]) -> Result<()> {
        self.share(values)
    }

    fn barrier(&self) -> Result<()> {
        self.world()?.barrier();
        Ok(())
    }

    fn abort(&self, error: Error) -> Error {
        tracing::error!("rank {} of {} ends the job: {error:#}", self.rank, self.size);
        match self.world() {
            Ok(world) => world.abort(1),
            // MPI must not be called from here, but its launcher sees a rank that was killed.
            Err(_) => std::process::abort(),
        }
    }

    fn finish(&self) -> Result<()> {
        self.world()?.barrier();
        drop(self.universe.lock().unwrap_or_else(PoisonError::into_inner).take());
        Ok(())
    }
}

impl Drop for Mpi {
    /// Without [`Collective::finish`] something has failed here. Letting MPI go would then wait for ranks that wait for
    /// this one; a process that ends without is noticed.
    fn drop(&mut self) {
        std::mem::forget(self.universe.get_mut().unwrap_or_else(PoisonError::into_inner).take());
    }
}

impl fmt::Debug for Mpi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mpi").field("rank", &self.rank).field("size", &self.size).finish_non_exhaustive()
    }
}
