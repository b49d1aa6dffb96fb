#![no_main]
libfuzzer_sys::fuzz_target!(|input: &[u8]| pgsluice::fuzz::run("keyring", input));
