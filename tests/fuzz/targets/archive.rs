//! Records of files that are copied, as a hostile guest would send them.

#![no_main]

use kvmlet_contract::archive::Record;
use kvmlet_contract::channel::{HEADER, MAX_PAYLOAD};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut rest = data;
    let mut wire = [0; HEADER + MAX_PAYLOAD];
    while let Ok(Some((record, length))) = Record::decode(rest) {
        // It has one form.
        assert_eq!(record.encode(&mut wire), Some(length));
        assert_eq!(wire[..length], rest[..length]);
        if let Record::Directory { name } | Record::File { name, .. } = record {
            assert!(!name.contains(&b'/') && !name.is_empty() && name != b"." && name != b"..");
        }
        rest = &rest[length..];
    }
});
