//! libFuzzer's way into [`fuzz::compressed_image`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    fuzz::compressed_image(data);
});
