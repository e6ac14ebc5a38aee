//! A short list without heap memory: what minimal solvers return, thousands of times a second.

use std::ops::{Deref, DerefMut};

/// At most `N` values, in place. It reads as a slice.
#[derive(Clone, Copy, Debug)]
pub struct UpTo<T, const N: usize> {
    values: [T; N],
    count: usize,
}

impl<T: Copy + Default, const N: usize> UpTo<T, N> {
    /// Without values.
    pub fn new() -> Self {
        Self { values: [T::default(); N], count: 0 }
    }

    /// Adds a value; whether there was room for it. A full list stays as it is.
    pub fn push(&mut self, value: T) -> bool {
        let slot = self.values.get_mut(self.count);
        let room = slot.is_some();
        if let Some(slot) = slot {
            *slot = value;
            self.count += 1;
        }
        room
    }

    /// Keeps the first `count` values.
    pub fn truncate(&mut self, count: usize) {
        self.count = self.count.min(count);
    }
}

impl<T: Copy + Default, const N: usize> Default for UpTo<T, N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T, const N: usize> Deref for UpTo<T, N> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.values[..self.count]
    }
}

impl<T, const N: usize> DerefMut for UpTo<T, N> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.values[..self.count]
    }
}

impl<'a, T, const N: usize> IntoIterator for &'a UpTo<T, N> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_list_takes_no_more() {
        let mut list = UpTo::<u8, 2>::new();
        assert!(list.is_empty() && list.push(3) && list.push(1) && !list.push(2));
        list.sort_unstable();
        assert_eq!(*list, [1, 3]);
        list.truncate(1);
        list.truncate(2);
        assert_eq!((&list).into_iter().copied().collect::<Vec<_>>(), [1]);
    }
}
