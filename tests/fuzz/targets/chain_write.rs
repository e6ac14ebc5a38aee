//! libFuzzer's way into [`fuzz::chain_write`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    fuzz::chain_write(data);
});
