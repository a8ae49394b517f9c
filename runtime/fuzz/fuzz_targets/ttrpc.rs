#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| containerd_shim_orlop::fuzzing::ttrpc(data));
