#![no_main]

#[path = "../properties.rs"]
#[allow(dead_code)] // Each target has its own property.
mod properties;

libfuzzer_sys::fuzz_target!(|data: &[u8]| properties::envelope(data));
