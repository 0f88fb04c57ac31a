#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    underpass_fuzz_replay::payload::replay(data);
});
