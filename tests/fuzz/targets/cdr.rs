//! libFuzzer's way into [`fuzz::cdr`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    fuzz::cdr(data);
});
