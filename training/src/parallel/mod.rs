//! Data-parallel training: one process a rank, each with its own share of every batch, gradients summed between them.
//!
//! The engines are those that clusters have: MPI (feature `mpi`), and NCCL for tensors on GPUs (feature `nccl`, which
//! MPI starts). A launcher begins the ranks:
//!
//! ```text
//! mpirun -n 8 --bind-to none training sft ...
//! srun --ntasks 8 --mpi=pmix training sft ...
//! ```
//!
//! Open MPI's mpirun binds small jobs to one core a rank, on which all threads of a rank would then sit: hence
//! `--bind-to none`. The building machine needs Open MPI and libclang, for `nccl` also CUDA; the ranks' machines need
//! libnccl.
//!
//! Ranks wait for each other, so one that fails must end all of them. A rank does it like this:
//!
//! ```text
//! let ranks = parallel::start(&device)?;
//! train(ranks.as_ref()).map_err(|error| ranks.abort(error))?;
//! ranks.finish()?;
//! ```
//!
//! A rank that ends in any other way, by a panic or a signal or without `finish`, is one that the launcher misses, and
//! mpirun then ends the others (srun with `--kill-on-bad-exit`).

#[cfg(feature = "mpi")]
mod mpi;
#[cfg(feature = "nccl")]
mod nccl;

use std::fmt::Debug;
use std::sync::Arc;

use anyhow::{Context, Error, Result, bail, ensure};
use candle_core::{DType, Device, Tensor};

/// What the ranks of one job do together. All of them make the same calls in the same order, with values of the same
/// length, from the thread that called [`start`].
pub trait Collective: Send + Sync + Debug {
    /// This rank, from 0.
    fn rank(&self) -> usize;

    /// How many ranks there are.
    fn size(&self) -> usize;

    /// The sum over ranks, in place; the same bits on each.
    ///
    /// # Errors
    /// Another thread than the one that started, or a device that fails.
    fn sum(&self, values: &mut [f32]) -> Result<()>;

    /// The sum over ranks of a few counts and losses, in place; the same bits on each.
    ///
    /// # Errors
    /// As for [`Collective::sum`].
    fn sum_f64(&self, values: &mut [f64]) -> Result<()>;

    /// The sum over ranks of a tensor, as a new one without history, of the same shape, type and device. Sums in f32.
    ///
    /// # Errors
    /// As for [`Collective::sum`].
    fn sum_tensor(&self, tensor: &Tensor) -> Result<Tensor> {
        over_host(self, tensor)
    }

    /// The values of rank 0 on each rank.
    ///
    /// # Errors
    /// As for [`Collective::sum`].
    fn broadcast(&self, values: &mut [f32]) -> Result<()>;

    /// Returns once all ranks are here.
    ///
    /// # Errors
    /// As for [`Collective::sum`].
    fn barrier(&self) -> Result<()>;

    /// Ends the job on every rank, with the error in the log. Where there are no other ranks, hands the error back.
    #[must_use]
    fn abort(&self, error: Error) -> Error;

    /// Says that this rank's work is done. Returns once all ranks are done; no other call may follow.
    ///
    /// # Errors
    /// As for [`Collective::sum`].
    fn finish(&self) -> Result<()>;
}

/// The only rank of its job.
#[derive(Debug, Clone, Copy)]
pub struct Alone;

impl Collective for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn sum(&self, _: &mut [f32]) -> Result<()> {
        Ok(())
    }

    fn sum_f64(&self, _: &mut [f64]) -> Result<()> {
        Ok(())
    }

    fn sum_tensor(&self, tensor: &Tensor) -> Result<Tensor> {
        Ok(tensor.detach())
    }

    fn broadcast(&self, _: &mut [f32]) -> Result<()> {
        Ok(())
    }

    fn barrier(&self) -> Result<()> {
        Ok(())
    }

    fn abort(&self, error: Error) -> Error {
        error
    }

    fn finish(&self) -> Result<()> {
        Ok(())
    }
}

/// [`Collective::sum_tensor`] by way of the host's memory.
fn over_host(ranks: &(impl Collective + ?Sized), tensor: &Tensor) -> Result<Tensor> {
    let mut values = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    ranks.sum(&mut values)?;
    Ok(Tensor::from_vec(values, tensor.shape(), tensor.device())?.to_dtype(tensor.dtype())?)
}

/// Joins the job that this process is a rank of; [`Alone`] where no launcher started it, or started only one.
///
/// To be called before any thread that works on the job, and once.
///
/// # Errors
/// Several ranks without the feature `mpi`, which would overwrite each other's files; a launcher that the MPI of this
/// program does not know; GPUs that NCCL can't connect.
pub fn start(device: &Device) -> Result<Arc<dyn Collective>> {
    match launch(|name| std::env::var(name).ok())? {
        Some(launch) if launch.size > 1 => join(&launch, device),
        _ => Ok(Arc::new(Alone)),
    }
}

/// The place of this rank among those on its machine, from 0: the GPU that it takes where it sees all of them.
///
/// # Errors
/// A launcher's variable that is not a number.
pub fn local_rank() -> Result<usize> {
    Ok(launch(|name| std::env::var(name).ok())?.map_or(0, |launch| launch.local_rank))
}

/// What a launcher says of the job.
#[derive(Debug, PartialEq, Eq)]
struct Launch {
    /// The variable that said so.
    said_by: &'static str,
    size: usize,
    local_rank: usize,
}

/// Reads the launcher's variables through `lookup`; `None` where there is none.
///
/// Open MPI comes first: in a Slurm job its mpirun starts its own daemons by srun, and ranks inherit their variables.
/// Of Slurm it is those of a step, since `SLURM_NTASKS` is also set in batch scripts, which run once.
fn launch(lookup: impl Fn(&str) -> Option<String>) -> Result<Option<Launch>> {
    /// Open MPI; MPICH, Intel MPI and what else has PMI; Slurm.
    const SIZES: [&str; 3] = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"];
    const LOCAL_RANKS: [&str; 3] = ["OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "SLURM_LOCALID"];
    let first = |names: [&'static str; 3]| -> Result<Option<(&'static str, usize)>> {
        let Some((name, value)) = names.into_iter().find_map(|name| Some((name, lookup(name)?))) else {
            return Ok(None);
        };
        let number = value.parse::<usize>().with_context(|| format!("{name}: expected a number, got {value:?}"))?;
        Ok(Some((name, number)))
    };
    let Some((said_by, size)) = first(SIZES)? else { return Ok(None) };
    ensure!(size > 0, "{said_by}: expected a number of ranks, got 0");
    let local_rank = first(LOCAL_RANKS)?.map_or(0, |(_, rank)| rank);
    Ok(Some(Launch { said_by, size, local_rank }))
}

#[cfg(not(feature = "mpi"))]
fn join(launch: &Launch, _: &Device) -> Result<Arc<dyn Collective>> {
    bail!(
        "{}={}: this is one of several ranks, but the program was built without the feature `mpi`, so that each would \
         train by itself and overwrite what the others write; build with `--features mpi`, or start it once",
        launch.said_by,
        launch.size
    )
}

#[cfg(feature = "mpi")]
fn join(launch: &Launch, device: &Device) -> Result<Arc<dyn Collective>> {
    let ranks = self::mpi::Mpi::start()?;
    if ranks.size() != launch.size {
        bail!(
            "{}={}, but MPI sees {} ranks: the launcher is not that of the MPI library that this program is linked to; \
             use its own mpirun, or `srun --mpi=pmix`",
            launch.said_by,
            launch.size,
            ranks.size()
        );
    }
    tracing::info!(rank = ranks.rank(), size = ranks.size(), "ranks");
    #[cfg(feature = "nccl")]
    if let Device::Cuda(device) = device {
        return Ok(Arc::new(self::nccl::Nccl::start(ranks, device)?));
    }
    let _ = device; // of use to NCCL alone
    Ok(Arc::new(ranks))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launched(variables: &[(&str, &str)]) -> Result<Option<Launch>> {
        launch(|name| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn launchers_are_known_by_their_variables() {
        const OPEN_MPI: &str = "OMPI_COMM_WORLD_SIZE";
        const SLURM: &str = "SLURM_STEP_NUM_TASKS";
        for (variables, expected) in [
            (&[][..], None),
            (&[("SLURM_NTASKS", "8"), ("SLURM_PROCID", "0")], None), // a batch script
            (&[(OPEN_MPI, "4"), ("OMPI_COMM_WORLD_LOCAL_RANK", "3")], Some((OPEN_MPI, 4, 3))),
            (&[("PMI_SIZE", "2"), ("MPI_LOCALRANKID", "1")], Some(("PMI_SIZE", 2, 1))),
            (&[("PMI_SIZE", "16"), ("SLURM_LOCALID", "5")], Some(("PMI_SIZE", 16, 5))),
            (&[(SLURM, "8"), ("SLURM_LOCALID", "2"), ("SLURM_NTASKS", "64")], Some((SLURM, 8, 2))),
            // mpirun in a Slurm job, one daemon on each of two machines.
            (
                &[(SLURM, "2"), ("SLURM_LOCALID", "0"), (OPEN_MPI, "8"), ("OMPI_COMM_WORLD_LOCAL_RANK", "3")],
                Some((OPEN_MPI, 8, 3)),
            ),
            (&[(OPEN_MPI, "1")], Some((OPEN_MPI, 1, 0))),
        ] {
            let expected = expected.map(|(said_by, size, local_rank)| Launch { said_by, size, local_rank });
            assert_eq!(launched(variables).unwrap(), expected, "{variables:?}");
        }
    }

    #[test]
    fn bad_variables_are_named() {
        for (variables, name) in [
            (&[("PMI_SIZE", "two")][..], "PMI_SIZE"),
            (&[("PMI_SIZE", "0")], "PMI_SIZE"),
            (&[("PMI_SIZE", "2"), ("MPI_LOCALRANKID", "-1")], "MPI_LOCALRANKID"),
        ] {
            let error = format!("{:#}", launched(variables).unwrap_err());
            assert!(error.contains(name), "{error}");
        }
    }

    #[cfg(not(feature = "mpi"))]
    #[test]
    fn several_ranks_need_the_feature() {
        let launch = Launch { said_by: "PMI_SIZE", size: 2, local_rank: 0 };
        let error = join(&launch, &Device::Cpu).unwrap_err().to_string();
        assert!(error.contains("PMI_SIZE=2") && error.contains("--features mpi"), "{error}");
    }

    #[test]
    fn one_rank_keeps_what_it_has() {
        let (mut values, mut counts) = ([1.5f32, -2.0], [3.0f64]);
        Alone.sum(&mut values).unwrap();
        Alone.broadcast(&mut values).unwrap();
        Alone.sum_f64(&mut counts).unwrap();
        Alone.barrier().unwrap();
        assert_eq!((values, counts, Alone.rank(), Alone.size()), ([1.5, -2.0], [3.0], 0, 1));
        let tensor = Tensor::new(&[[1f32, 2.0]], &Device::Cpu).unwrap();
        assert_eq!(Alone.sum_tensor(&tensor).unwrap().to_vec2::<f32>().unwrap(), [[1.0, 2.0]]);
        assert_eq!(Alone.abort(Error::msg("the disk is full")).to_string(), "the disk is full");
        Alone.finish().unwrap();
    }

    /// As if there were another rank with the same values.
    #[derive(Debug)]
    struct Twice;

    impl Collective for Twice {
        fn rank(&self) -> usize {
            0
        }

        fn size(&self) -> usize {
            2
        }

        fn sum(&self, values: &mut [f32]) -> Result<()> {
            values.iter_mut().for_each(|v| *v *= 2.0);
            Ok(())
        }

        fn sum_f64(&self, values: &mut [f64]) -> Result<()> {
            values.iter_mut().for_each(|v| *v *= 2.0);
            Ok(())
        }

        fn broadcast(&self, _: &mut [f32]) -> Result<()> {
            Ok(())
        }

        fn barrier(&self) -> Result<()> {
            Ok(())
        }

        fn abort(&self, error: Error) -> Error {
            error
        }

        fn finish(&self) -> Result<()> {
            Ok(())
        }
    }

    #[test]
    fn tensors_keep_their_shape_and_type_by_way_of_the_host() {
        let tensor = Tensor::new(&[[1f32, -0.5, 3.0], [0.0, 8.0, 0.25]], &Device::Cpu).unwrap();
        // Transposed: what is summed must be in the order of the shape, not of the memory.
        for tensor in [tensor.t().unwrap(), tensor.to_dtype(DType::BF16).unwrap()] {
            let sum = Twice.sum_tensor(&tensor).unwrap();
            assert_eq!((sum.shape(), sum.dtype()), (tensor.shape(), tensor.dtype()));
            let values = |t: &Tensor| t.to_dtype(DType::F32).unwrap().to_vec2::<f32>().unwrap();
            assert_eq!(values(&sum), values(&(&tensor * 2.0).unwrap()));
        }
    }
}
