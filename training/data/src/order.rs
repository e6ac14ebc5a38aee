//! The order in which a trainer goes through a list: every item once an epoch, in another order each time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// Shuffled passes over `len` items. Item k of the stream depends on the seed alone.
#[derive(Debug)]
pub struct Order {
    len: u64,
    seed: u64,
    /// Of the epochs at hand: a step may lie in two.
    epochs: Mutex<BTreeMap<u64, Arc<Vec<u32>>>>,
}

impl Order {
    /// Of at most 2^32 items.
    pub fn new(len: u64, seed: u64) -> Self {
        Self { len: len.min(u64::from(u32::MAX)), seed, epochs: Mutex::default() }
    }

    /// Items.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Item k of the stream; there must be one.
    pub fn at(&self, k: u64) -> u64 {
        let (epoch, place) = (k / self.len, (k % self.len) as usize);
        let mut epochs = self.epochs.lock().unwrap_or_else(PoisonError::into_inner);
        let order = epochs.entry(epoch).or_insert_with(|| {
            let mut order: Vec<u32> = (0..self.len as u32).collect();
            order.shuffle(&mut ChaCha8Rng::seed_from_u64(self.seed ^ epoch.rotate_left(32)));
            Arc::new(order)
        });
        let item = u64::from(order[place]);
        while epochs.len() > 2 {
            epochs.pop_first();
        }
        item
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_epoch_has_every_item_once_in_another_order() {
        let order = Order::new(50, 7);
        let epoch = |e: u64| (0..50).map(|k| order.at(e * 50 + k)).collect::<Vec<_>>();
        let (first, second) = (epoch(0), epoch(1));
        for items in [&first, &second, &epoch(5)] {
            assert_eq!(items.iter().collect::<BTreeSet<_>>().len(), 50);
        }
        assert_ne!(first, second);
        assert_eq!(first, epoch(0), "also looking back");
        assert_ne!(first, (0..50).map(|k| Order::new(50, 8).at(k)).collect::<Vec<_>>());
    }
}
