//! libFuzzer's way into [`fuzz::camera_info`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    fuzz::camera_info(data);
});
