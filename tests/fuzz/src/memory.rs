//! How much memory something takes.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator with a thread's counters beside it.
struct Counting;

thread_local! {
    /// Bytes held, by this thread's own count: what another frees is not in it.
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    // Without effect while the thread ends.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + bytes);
        PEAK.try_with(|peak| peak.set(peak.get().max(held.get())))
    });
}

// SAFETY: the system's allocator.
#[expect(unsafe_code, reason = "an allocator is unsafe by its nature")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Does `work`, which must not hold more than `limit` bytes at any time beyond what is held already.
///
/// # Panics
/// Where it does.
pub fn within<T>(limit: usize, work: impl FnOnce() -> T) -> T {
    let before = HELD.get();
    PEAK.set(before);
    let result = work();
    let peak = usize::try_from(PEAK.get() - before).unwrap_or(0);
    assert!(peak <= limit, "expected at most {limit} bytes, got {peak}");
    result
}

#[cfg(test)]
mod tests {
    use super::within;

    #[test]
    fn the_most_that_is_held_counts() {
        let sum = within(3000, || (0..10_u8).map(|i| vec![i; 2000].len()).sum::<usize>());
        assert_eq!(sum, 20_000);
    }

    #[test]
    #[should_panic(expected = "at most 1999 bytes, got 2000")]
    fn more_than_the_limit_is_noticed() {
        within(1999, || drop(vec![1_u8; 2000]));
    }
}
