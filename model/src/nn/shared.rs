//! Numbers that threads fill in together.

use std::marker::PhantomData;

/// A place that threads share, of which each writes other numbers: rows and columns of one output, which no slices of it are.
pub(super) struct Shared<'a, T>(*mut T, PhantomData<&'a mut [T]>);

// SAFETY: as said there; who writes says which numbers are its own.
#[expect(unsafe_code, reason = "threads write different numbers")]
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    /// The numbers are filled in before they are used again.
    pub fn new(numbers: &'a mut [T]) -> Self {
        Self(numbers.as_mut_ptr(), PhantomData)
    }

    /// The number `offset` behind the first.
    ///
    /// SAFETY: it is one of them.
    #[expect(unsafe_code, reason = "of a number of numbers")]
    pub unsafe fn at(&self, offset: usize) -> *mut T {
        // SAFETY: the caller's.
        unsafe { self.0.add(offset) }
    }
}
