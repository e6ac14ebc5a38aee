//! libFuzzer's way into [`fuzz::raw_image`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    fuzz::raw_image(data);
});
