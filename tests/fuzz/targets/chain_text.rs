//! libFuzzer's way into [`fuzz::chain_text`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    fuzz::chain_text(data);
});
