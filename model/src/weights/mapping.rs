//! Maps of files.

use std::ops::Range;

use memmap2::{Mmap, UncheckedAdvice};

/// Lets go of pages of a map whose bytes have been copied. Where the kernel will not (they are locked), they are held twice.
pub(super) fn forget(map: &Mmap, range: Range<usize>) {
    // SAFETY: a map of a file, never written: what is dropped is read again from the file.
    #[expect(unsafe_code, reason = "advice that drops pages is unsafe for private writable maps")]
    let dropped = unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, range.start, range.len()) };
    if let Err(error) = dropped {
        tracing::debug!(%error, "pages of a checkpoint that was read stay in memory");
    }
}
