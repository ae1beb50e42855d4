//! JSON to a configuration, with errors that a person can act on.

use super::{Error, VmConfigBuilder};

/// A name is only suggested when it is about this alike (Jaro-Winkler, 0 to 1).
const ALIKE: f64 = 0.75;

pub(super) fn parse(text: &str) -> Result<VmConfigBuilder, Error> {
    serde_json::from_str(text).map_err(explain)
}

/// The known name that is most like `name`, if any is like it at all.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    known
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate.into())
}

/// serde's unknown-field message quotes the key first and then each known key in backticks.
fn explain(error: serde_json::Error) -> Error {
    let message = error.to_string();
    if !message.starts_with("unknown field") {
        return Error::Json(message);
    }
    let mut quoted = message.split('`').skip(1).step_by(2);
    let Some(key) = quoted.next() else {
        return Error::Json(message);
    };
    Error::UnknownKey {
        key: key.into(),
        nearest: nearest(key, quoted),
        line: error.line(),
        column: error.column(),
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Error, HugePages, MemorySize, VmConfig};

    #[test]
    fn every_key_is_read() {
        let config = VmConfig::from_json(
            r#"{"kernel": "vmlinux", "initrd": "root.cpio", "cmdline": "quiet", "memory": "256M",
                "huge_pages": "transparent", "prefault": true, "vcpus": 3, "cpu_mask": ["cx16"],
                "balloon": {"size": "8M", "reporting": false}, "rng": false, "command": ["redis-server"], "env": {"TZ": "UTC"}, "workdir": "/data", "hostname": "a"}"#,
        )
        .unwrap();
        assert_eq!(config.kernel.to_str(), Some("vmlinux"));
        assert_eq!(config.initrd.unwrap().to_str(), Some("root.cpio"));
        assert_eq!((config.cmdline.as_str(), config.vcpus.get()), ("quiet", 3));
        assert_eq!(
            (config.memory, config.huge_pages),
            (256.mib(), HugePages::Transparent)
        );
        assert!(config.prefault);
        assert_eq!(config.cpu_mask.bits().count(), 1);
        assert!(!config.rng);
        assert_eq!(config.balloon.map(|balloon| balloon.size), Some(8.mib()));
        assert_eq!(
            config.guest.to_cmdline(),
            "kvmlet.arg=redis-server kvmlet.env=TZ=UTC kvmlet.workdir=/data kvmlet.hostname=a"
        );
    }

    #[test]
    fn an_unknown_key_names_the_nearest() {
        let error = VmConfig::from_json(r#"{"kernel": "k", "memroy": "1G"}"#).unwrap_err();
        assert_eq!(
            error.to_string(),
            "unknown key `memroy`; did you mean `memory`? (line 1, column 24)"
        );
        let error = VmConfig::from_json(r#"{"zzz": 1}"#).unwrap_err();
        assert!(
            matches!(error, Error::UnknownKey { nearest: None, .. }),
            "{error}"
        );
    }

    #[test]
    fn wrong_values_say_what_is_expected() {
        for (json, expected) in [
            (r#"{"kernel": 1}"#, "expected"),
            (r#"{"memory": true}"#, "a memory size must be text"),
            (r#"{"memory": "12Q"}"#, "is not a memory size"),
            (r#"{"kernel": "k", "memory": "1M"}"#, "outside the limits"),
            (r#"{"huge_pages": "huge"}"#, "transparent"),
            (r#"{"cpu_mask": ["cx61"]}"#, "cx16"),
            (r#"{"vcpus": -1}"#, "invalid value"),
            ("", "EOF"),
        ] {
            let error = VmConfig::from_json(json).unwrap_err().to_string();
            assert!(error.contains(expected), "{json}: {error}");
        }
    }
}
