//! What happens at a panic under libFuzzer.

/// libFuzzer's own hook ends the process at every panic. One that the product catches, as that of a decoder, is no fault; what nobody
/// catches ends the process all the same.
pub fn let_panics_be_caught() {
    #[cfg(feature = "libfuzzer")]
    {
        static ONCE: std::sync::Once = std::sync::Once::new();
        ONCE.call_once(|| std::panic::set_hook(Box::new(|panic| eprintln!("{panic}"))));
    }
}
