#![no_main]

libfuzzer_sys::fuzz_target!(init: vitx_fuzz::watched(), |data: &[u8]| vitx_fuzz::config(data));
