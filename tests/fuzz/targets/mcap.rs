//! libFuzzer's way into [`fuzz::mcap`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    fuzz::mcap(data);
});
