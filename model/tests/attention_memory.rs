//! What attention costs in a graph, forward and backward: less than one copy of its scores.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::{Device, Var};
use model::nn::{KeyValues, attention};

/// Counts what is held, and the most that was.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: the system's allocator with two counters beside it.
#[expect(unsafe_code, reason = "an allocator is unsafe by its nature")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(held, Ordering::Relaxed);
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn gradients_of_8192_tokens_are_made_in_less_memory_than_their_scores_take() {
    let (tokens, width) = (8192, 8);
    let numbers = |phase: f32| {
        let values: Vec<f32> = (0..tokens * width).map(|i| (0.7 * (i % 9973) as f32 + phase).sin()).collect();
        Var::from_vec(values, (1, 1, tokens, width), &Device::Cpu).unwrap()
    };
    let [q, keys, values] = [0.0, 1.0, 2.0].map(numbers);
    let before = HELD.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let kv = KeyValues { shared: None, own: (keys.as_tensor().clone(), values.as_tensor().clone()) };
    let y = attention(&q, &kv, true).unwrap();
    let store = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
    let peak = PEAK.load(Ordering::Relaxed) - before;
    for var in [&q, &keys, &values] {
        let gradient = store.get(var.as_tensor()).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(gradient.iter().all(|v| v.is_finite()) && gradient.iter().any(|v| *v != 0.0));
    }
    // 256 MiB of scores, of which softmax and its gradient would be further copies; six copies of 256 queries' are 48 MiB.
    assert!(peak < 96 << 20, "{} MiB", peak >> 20);
}
