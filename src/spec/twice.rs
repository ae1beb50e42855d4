//! What only one device of a VM can have.

use super::{Disk, Error, Net};
use std::fmt::Display;

/// Checks that no two devices have the same of what tells them apart, and that no disk is there twice that is written to.
pub(super) fn check(disks: &[Disk], nets: &[Net]) -> Result<(), Error> {
    let written_twice = disks.iter().find_map(|disk| {
        let path = disk.source.path()?;
        let has_it = |other: &&Disk| other.source.paths().any(|other| other == path);
        let same = disks.iter().filter(has_it);
        let shared = same.clone().count() > 1 && !same.clone().all(|other| other.read_only);
        shared.then_some(path)
    });
    if let Some(path) = written_twice {
        let path = path.into();
        return Err(Error::DiskTwice { path });
    }
    let serials = disks.iter().filter_map(|disk| disk.id.as_ref());
    none_twice("disks", "id", serials.map(|id| id.as_str()))?;
    none_twice("interfaces", "mac", nets.iter().filter_map(|net| net.mac))?;
    none_twice(
        "interfaces",
        "tap",
        nets.iter().filter_map(|net| net.tap.as_ref()),
    )
}

fn none_twice<T: PartialEq + Display>(
    of: &'static str,
    key: &'static str,
    values: impl Iterator<Item = T>,
) -> Result<(), Error> {
    let mut seen = Vec::new();
    for value in values {
        if seen.contains(&value) {
            let value = value.to_string();
            return Err(Error::Twice { of, key, value });
        }
        seen.push(value);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::VmConfig;

    #[test]
    fn devices_are_told_apart() {
        let error = |json: &str| {
            let json = format!(r#"{{"kernel": "k", {json}}}"#);
            VmConfig::from_json(&json)
                .err()
                .map(|error| error.to_string())
        };
        for (json, expected) in [
            (
                r#""disks": [{"path": "a", "id": "x"}, {"path": "b", "id": "x"}]"#,
                "two disks have the `id` x: give each its own",
            ),
            (
                r#""nets": [{"mac": "02:00:00:00:00:01"}, {}, {"mac": "02:00:00:00:00:01"}]"#,
                "two interfaces have the `mac` 02:00:00:00:00:01: give each its own",
            ),
            (
                r#""nets": [{"tap": "tap0"}, {"tap": "tap0"}]"#,
                "two interfaces have the `tap` tap0: give each its own",
            ),
            (
                r#""disks": [{"path": "a"}, {"path": "a"}]"#,
                "the disk `a` is named twice, and written to: name it once, or read-only each time",
            ),
            (
                r#""root": "a", "disks": [{"path": "a"}]"#,
                "the disk `a` is named twice",
            ),
        ] {
            assert_eq!(
                error(json)
                    .as_deref()
                    .map(|error| error.starts_with(expected)),
                Some(true),
                "{json}: {:?}",
                error(json)
            );
        }
        for json in [
            r#""disks": [{"path": "a", "id": "x"}, {"path": "b", "id": "y"}, {"path": "c"}, {"path": "d"}]"#,
            r#""root": "a", "disks": [{"path": "a", "read_only": true}]"#,
            r#""nets": [{}, {}]"#,
        ] {
            assert_eq!(error(json), None, "{json}");
        }
    }
}
