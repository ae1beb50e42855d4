//! JSON to a configuration, with errors that a person can act on.

use super::strict::{self, Strict};
use super::{Error, VmConfigBuilder, json_words, nearest};
use serde::Deserialize;

impl VmConfigBuilder {
    /// Reads the given keys from JSON text; the others keep their defaults.
    ///
    /// # Errors
    /// Unknown keys are refused with the nearest known one, and so are values of the wrong type.
    pub fn from_json(text: &str) -> Result<Self, Error> {
        let trail = strict::Trail::default();
        let mut json = serde_json::Deserializer::from_str(text);
        let config = Self::deserialize(Strict::new(&mut json, &trail))
            .map_err(|error| explain(&error, &trail))?;
        json.end().map_err(|error| explain(&error, &trail))?;
        Ok(config)
    }
}

/// serde's unknown-field message quotes the key first and then each known key in backticks.
fn explain(error: &serde_json::Error, trail: &strict::Trail) -> Error {
    let message = error.to_string();
    let place = trail.to_string();
    let mut quoted = message.split('`').skip(1).step_by(2);
    let key = quoted.next();
    let Some(key) = key.filter(|_| message.starts_with("unknown field")) else {
        return json_words::explain(error, place);
    };
    Error::UnknownKey {
        key: key.into(),
        place,
        nearest: nearest::key(&trail.place(), key, quoted.clone()),
        known: quoted.map(String::from).collect(),
        line: error.line(),
        column: error.column(),
    }
}

#[cfg(test)]
mod tests {
    use crate::{Error, HugePages, MemorySize, Setting, VmConfig};
    use std::collections::BTreeSet;

    #[test]
    fn every_key_is_read() {
        let config = VmConfig::from_json(
            r#"{"kernel": "vmlinux", "initrd": "root.cpio", "cmdline": "quiet", "memory": "256M",
                "huge_pages": "transparent", "prefault": true, "vcpus": 3, "cpu_mask": ["cx16"], "cpuid": ["1:ecx=0b0", "7:ebx=0b1"], "msrs": ["0x10a=0b1"], "nested": true, "pmu": true, "pci": true,
                "balloon": {"size": "8M", "reporting": false}, "vsock": {"path": "v.sock", "cid": 5}, "rng": false, "poll": false, "command": ["redis-server"], "env": {"TZ": "UTC"}, "workdir": "/data", "hostname": "a", "stop_timeout": 30}"#,
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
        assert_eq!((config.cpuid.len(), config.msrs.len()), (2, 1));
        assert!(config.nested && config.pmu && config.pci);
        assert!(!config.rng && !config.poll);
        assert_eq!(config.vsock.map(|vsock| vsock.cid.get()), Some(5));
        assert_eq!(config.balloon.map(|balloon| balloon.size), Some(8.mib()));
        assert_eq!(
            config.guest.to_cmdline(),
            "kvmlet.arg=redis-server kvmlet.env=TZ=UTC kvmlet.workdir=/data kvmlet.hostname=a kvmlet.stop_timeout=30"
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
        assert!(error.to_string().contains("; known are kernel, initrd, "));
        for (json, expected) in [
            (
                r#"{"cpus": 1}"#,
                "unknown key `cpus`; did you mean `vcpus`?",
            ),
            (
                r#"{"disk": []}"#,
                "unknown key `disk`; did you mean `disks`?",
            ),
            (
                r#"{"disks": [{"path": "a", "ro": true}]}"#,
                "unknown key `ro` in `disks[0]`; did you mean `read_only`?",
            ),
            (
                r#"{"disks": [{"path": "a"}, {"path": "b", "rate_limit": {"bandwith": "1M"}}]}"#,
                "unknown key `bandwith` in `disks[1].rate_limit`; did you mean `bandwidth`?",
            ),
            (
                r#"{"nets": [{"rx": {"packets": 5}}]}"#,
                "unknown key `packets` in `nets[0].rx`; did you mean `operations`?",
            ),
            (
                r#"{"balloon": {"deflate-on-oom": false}}"#,
                "`deflate-on-oom` in `balloon`; did you mean `deflate_on_oom`?",
            ),
            (
                r#"{"overcommit": {"cpu": 2}}"#,
                "unknown key `cpu` in `overcommit`; did you mean `cpus`?",
            ),
        ] {
            let error = VmConfig::from_json(json).unwrap_err().to_string();
            assert!(error.contains(expected), "{json}: {error}");
        }
    }

    #[test]
    fn objects_are_objects_at_every_level_and_no_key_stands_twice() {
        for (json, expected) in [
            ("[]", "a list is not an object with keys"),
            (r#"["vmlinux"]"#, "not an object with keys"),
            (
                r#"{"disks": [["a"]]}"#,
                "`disks[0]`: a list is not an object",
            ),
            (
                r#"{"disks": [{"path": "a", "rate_limit": ["1M"]}]}"#,
                "`disks[0].rate_limit`: a list is not",
            ),
            (r#"{"nets": [[]]}"#, "`nets[0]`: a list is not"),
            (r#"{"nets": [{"tx": []}]}"#, "`nets[0].tx`: a list is not"),
            (r#"{"balloon": []}"#, "`balloon`: a list is not"),
            (r#"{"overcommit": [1, 2]}"#, "`overcommit`: a list is not"),
            (r#"{"env": []}"#, "`env`: a list is not"),
            (
                r#"{"memory": "1G", "memory": "2G"}"#,
                "`memory` stands twice",
            ),
            (
                r#"{"env": {"A": "1", "B": "2", "A": "3"}}"#,
                "`env`: the key `A` stands twice",
            ),
            (
                r#"{"disks": [{"path": "a", "path": "b"}]}"#,
                "`disks[0]`: the key `path` stands twice",
            ),
            (
                r#"{"kernel": "k"} {}"#,
                "nothing may stand behind the closing bracket",
            ),
        ] {
            let error = VmConfig::from_json(json).unwrap_err().to_string();
            assert!(error.contains(expected), "{json}: {error}");
        }
    }

    #[test]
    fn wrong_values_say_what_is_expected() {
        for (json, expected) in [
            (
                r#"{"kernel": 1}"#,
                "`kernel`: `1` is not the path of a file",
            ),
            (r#"{"memory": true}"#, "a memory size must be text"),
            (r#"{"memory": "12Q"}"#, "is not a memory size"),
            (r#"{"kernel": "k", "memory": "1M"}"#, "outside the limits"),
            (r#"{"huge_pages": "huge"}"#, "transparent"),
            (r#"{"cpu_mask": ["cx61"]}"#, "cx16"),
            (r#"{"cpuid": ["1:ecx=0b2"]}"#, "`cpuid[0]`: `0b2` is not"),
            (
                r#"{"msrs": ["0x1b=0b1"]}"#,
                "`msrs[0]`: the model-specific register 0x1b",
            ),
            (r#"{"vcpus": -1}"#, "`-1` is not a whole number from 0"),
            ("", "nothing in it"),
        ] {
            let error = VmConfig::from_json(json).unwrap_err().to_string();
            assert!(error.contains(expected), "{json}: {error}");
        }
    }

    #[test]
    fn the_keys_are_those_of_the_settings() {
        for (place, json) in [
            ("", r#"{"?": 1}"#),
            ("disks[].", r#"{"disks": [{"?": 1}]}"#),
            (
                "disks[].rate_limit.",
                r#"{"disks": [{"path": "d", "rate_limit": {"?": 1}}]}"#,
            ),
            ("nets[].", r#"{"nets": [{"?": 1}]}"#),
            ("nets[].rx.", r#"{"nets": [{"rx": {"?": 1}}]}"#),
            ("nets[].tx.", r#"{"nets": [{"tx": {"?": 1}}]}"#),
            ("balloon.", r#"{"balloon": {"?": 1}}"#),
            ("vsock.", r#"{"vsock": {"?": 1}}"#),
            ("overcommit.", r#"{"overcommit": {"?": 1}}"#),
        ] {
            let Err(Error::UnknownKey { known, .. }) = VmConfig::from_json(json) else {
                panic!("{json} is taken");
            };
            let known: BTreeSet<String> = known.into_iter().collect();
            let keys = Setting::ALL.iter().map(|it| it.definition().key);
            let below = keys.filter_map(|key| key.strip_prefix(place));
            let step = |key: &str| key.split(['.', '[']).next().map(String::from);
            assert_eq!(
                below.filter_map(step).collect::<BTreeSet<_>>(),
                known,
                "{place}"
            );
        }
    }

    #[test]
    fn the_words_of_flags_lead_to_keys() {
        for (json, expected) in [
            (r#"{"cpus": 1}"#, "did you mean `vcpus`?"),
            (r#"{"huge-pages": 1}"#, "did you mean `huge_pages`?"),
            (r#"{"disk": []}"#, "did you mean `disks`?"),
            (r#"{"no_rng": true}"#, "did you mean `rng`?"),
            (r#"{"disks": [{"ro": true}]}"#, "did you mean `read_only`?"),
            (
                r#"{"disks": [{"readonly": true}]}"#,
                "did you mean `read_only`?",
            ),
            (
                r#"{"disks": [{"iops": 5}]}"#,
                "did you mean `rate_limit.operations`?",
            ),
            (
                r#"{"disks": [{"once": 5}]}"#,
                "did you mean `rate_limit.once`?",
            ),
            (
                r#"{"disks": [{"rate_limit": {"iops_burst": 5}}]}"#,
                "did you mean `operations_burst`?",
            ),
            (
                r#"{"nets": [{"rx-packets": 5}]}"#,
                "did you mean `rx.operations`?",
            ),
            (r#"{"publish": ["80"]}"#, "did you mean `nets[].publish`?"),
        ] {
            let error = VmConfig::from_json(json).unwrap_err().to_string();
            assert!(error.contains(expected), "{json}: {error}");
        }
    }
}
