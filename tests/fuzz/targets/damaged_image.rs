//! libFuzzer's way into [`fuzz::damaged_image`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    fuzz::damaged_image(data);
});
