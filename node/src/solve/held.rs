//! Windows that wait until all is known of their images.

use std::collections::VecDeque;

use geometry::WINDOW;

use super::tracker::Tracker;
use crate::window::Window;

/// Those that wait: one that is waited for, and the newest. With one alone a camera that is quicker than the waiting would
/// put each off by the next.
const WAITING: usize = 2;

/// Windows in the order of their coming.
#[derive(Debug)]
pub struct Held<W>(VecDeque<W>);

impl<W> Default for Held<W> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<W> Held<W> {
    /// Adds a window; what it returns has given way to it.
    pub fn push(&mut self, window: W) -> Option<W> {
        let gone = if self.0.len() == WAITING { self.0.pop_back() } else { None };
        self.0.push_back(window);
        gone
    }

    /// The oldest, where it need not wait any longer.
    pub fn pop_if(&mut self, is_settled: impl FnOnce(&W) -> bool) -> Option<W> {
        self.0.front().is_some_and(is_settled).then(|| self.0.pop_front()).flatten()
    }

    /// All that are left, the oldest first.
    pub fn drain(&mut self) -> impl Iterator<Item = W> {
        self.0.drain(..)
    }
}

impl<T> Held<Window<T>> {
    /// The oldest, where the fast clock knows all that it will of its images; without one nothing is waited for.
    pub fn pop_settled(&mut self, tracker: Option<&Tracker>) -> Option<Window<T>> {
        self.pop_if(|window| tracker.is_none_or(|tracker| tracker.is_settled(window.stamps[WINDOW - 1])))
    }
}

#[cfg(test)]
mod tests {
    use super::Held;

    #[test]
    fn the_oldest_is_waited_for_and_the_newest_is_next() {
        let mut held = Held::default();
        assert_eq!(held.pop_if(|_| true), None);
        assert_eq!([held.push(1), held.push(2), held.push(3), held.push(4)], [None, None, Some(2), Some(3)]);
        assert_eq!(held.pop_if(|window| *window > 1), None);
        assert_eq!(held.pop_if(|window| *window <= 1), Some(1));
        assert_eq!(held.push(5), None);
        assert_eq!(held.drain().collect::<Vec<_>>(), [4, 5]);
        assert_eq!(held.pop_if(|_| true), None);
    }
}
