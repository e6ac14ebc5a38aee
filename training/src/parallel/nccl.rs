//! Ranks on GPUs: MPI starts them, NCCL adds. Each rank has a GPU of its own ([`super::local_rank`]).
//!
//! cudarc is the copy that candle has, so that both mean the same streams.

use anyhow::{Context, Error, Result, anyhow};
use candle_core::{CpuStorage, CudaDevice, CudaStorage, CustomOp1, DType, Layout, Shape, Tensor};
use cudarc::nccl::result::NcclError;
use cudarc::nccl::{Comm, Id, ReduceOp};

use super::mpi::{CHUNK, Mpi};
use super::{Collective, over_host};

/// One rank of an MPI job, with its GPU.
#[derive(Debug)]
pub(super) struct Nccl {
    comm: Comm,
    mpi: Mpi,
}

// SAFETY: NCCL allows calls from any thread, one at a time. All of ours go through `Mpi::world` first, which lets one
// thread pass.
#[expect(unsafe_code, reason = "cudarc's handle is a bare pointer")]
unsafe impl Send for Nccl {}
// SAFETY: as above; what needs no such call (rank, size) reads plain numbers.
#[expect(unsafe_code, reason = "cudarc's handle is a bare pointer")]
unsafe impl Sync for Nccl {}

impl Nccl {
    /// Connects the GPUs of all ranks. Where one can't be, the job ends on all ranks, since the others wait for it.
    pub(super) fn start(mpi: Mpi, device: &CudaDevice) -> Result<Self> {
        let comm = connect(&mpi, device).map_err(|error| mpi.abort(error))?;
        Ok(Self { comm, mpi })
    }
}

fn connect(mpi: &Mpi, device: &CudaDevice) -> Result<Comm> {
    // What all ranks find each other by; made by one of them.
    let mut id = [0; 128];
    if mpi.rank() == 0 {
        id = *Id::new().map_err(|e| failed("a unique id", &e))?.internal();
    }
    mpi.share(&mut id)?;
    let stream = device.cuda_stream();
    // NCCL takes the thread's current GPU, which cudarc does not set for it.
    stream.context().bind_to_thread()?;
    Comm::from_rank(stream, mpi.rank(), mpi.size(), Id::uninit(id))
        .map_err(|e| failed("connecting", &e))
        .with_context(|| format!("GPU {} of rank {}", device.cuda_stream().context().ordinal(), mpi.rank()))
}

/// NCCL's errors are bare codes.
fn failed(what: &str, error: &NcclError) -> Error {
    anyhow!("NCCL: {what}: {:?} (NCCL_DEBUG=WARN says more)", error.0)
}

impl Collective for Nccl {
    fn rank(&self) -> usize {
        self.mpi.rank()
    }

    fn size(&self) -> usize {
        self.mpi.size()
    }

    fn sum(&self, values: &mut [f32]) -> Result<()> {
        self.mpi.world()?;
        let stream = self.comm.stream();
        for chunk in values.chunks_mut(CHUNK) {
            let mut sums = stream.clone_htod(&*chunk)?;
            self.comm.all_reduce_in_place(&mut sums, &ReduceOp::Sum).map_err(|e| failed("a sum", &e))?;
            stream.memcpy_dtoh(&sums, chunk)?;
            stream.synchronize()?;
        }
        Ok(())
    }

    fn sum_f64(&self, values: &mut [f64]) -> Result<()> {
        self.mpi.sum_f64(values)
    }

    fn sum_tensor(&self, tensor: &Tensor) -> Result<Tensor> {
        self.mpi.world()?;
        if !tensor.device().is_cuda() {
            return over_host(self, tensor);
        }
        // Whoever made the tensor, on whatever stream, is done before, and we after.
        self.comm.context().synchronize()?;
        let sum = tensor.to_dtype(DType::F32)?.contiguous()?.apply_op1_no_bwd(&AllReduce(&self.comm))?;
        let sum = sum.to_dtype(tensor.dtype())?;
        self.comm.stream().synchronize()?;
        Ok(sum)
    }

    fn broadcast(&self, values: &mut [f32]) -> Result<()> {
        self.mpi.broadcast(values)
    }

    fn barrier(&self) -> Result<()> {
        self.mpi.barrier()
    }

    fn abort(&self, error: Error) -> Error {
        self.mpi.abort(error)
    }

    fn finish(&self) -> Result<()> {
        self.mpi.world()?;
        self.comm.context().synchronize()?;
        self.mpi.finish()
    }
}

/// The sum over ranks of a contiguous f32 tensor on the GPU.
struct AllReduce<'a>(&'a Comm);

impl CustomOp1 for AllReduce<'_> {
    fn name(&self) -> &'static str {
        "all-reduce"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        candle_core::bail!("all-reduce: expected a tensor on the GPU of this rank, got one on the CPU")
    }

    fn cuda_fwd(&self, storage: &CudaStorage, layout: &Layout) -> candle_core::Result<(CudaStorage, Shape)> {
        let Some((start, end)) = layout.contiguous_offsets() else {
            candle_core::bail!("all-reduce: expected a contiguous tensor, got strides {:?}", layout.stride())
        };
        let own = storage.as_cuda_slice::<f32>()?.slice(start..end);
        let mut sums = storage.device.alloc_zeros::<f32>(end - start)?;
        self.0.all_reduce(&own, &mut sums, &ReduceOp::Sum).map_err(|e| candle_core::Error::msg(failed("a sum", &e)))?;
        Ok((CudaStorage::wrap_cuda_slice(sums, storage.device.clone()), layout.shape().clone()))
    }
}
