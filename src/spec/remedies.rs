//! What a person can do about a configuration that is wrong.

use super::{Advice, CpuTemplateError, Error, Remedy, Setting, advice};

impl Remedy for Error {
    fn remedy(&self) -> Option<Advice> {
        Some(match self {
            Error::KernelMissing => advice!(
                "name one with {}, or run `kernels/build` once to get a default one",
                Setting::Kernel
            ),
            Error::BalloonReserved => advice!(
                "take {}|leave out {}",
                (Setting::HugePages, "transparent"),
                Setting::Balloon
            ),
            Error::BalloonPrefault => advice!(
                "add {}|leave out {}, {} or {}",
                (Setting::BalloonReporting, "off"),
                Setting::Balloon,
                Setting::Prefault,
                (Setting::MemoryMode, "reserved")
            ),
            Error::NameServersAlone => advice!("add {}", Setting::Nets),
            Error::ScratchAlone => advice!("name the image with {}", Setting::Root),
            Error::ScratchSizeAlone => advice!("name the file with {}", Setting::Scratch),
            Error::CpuScopeAlone => {
                advice!("add {} or {}", Setting::CpuQuota, Setting::Cpuset)
            }
            Error::CpuQuotaUnusable { .. } => advice!(
                "ask for less with {}|for more with {}",
                Setting::CpuQuota,
                Setting::Vcpus
            ),
            Error::CpuTemplate(CpuTemplateError::Nested) => advice!("add {}", Setting::Nested),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::{Dialect, Remedy, VmConfig};

    #[test]
    fn a_way_out_is_told_in_the_words_of_its_reader() {
        for (json, flags, file) in [
            (
                r#""prefault": true, "balloon": {}"#,
                "add --balloon reporting=off, or leave out --balloon, --prefault or --memory-mode reserved",
                "add `\"balloon\": {\"reporting\": false}`, or leave out `balloon`, `prefault` or `\"memory_mode\": \"reserved\"`",
            ),
            (r#""dns": ["9.9.9.9"]"#, "add --net", "add `nets`"),
            (
                r#""scratch": "s""#,
                "name the image with --root",
                "name the image with `root`",
            ),
        ] {
            let json = format!(r#"{{"kernel": "k", {json}}}"#);
            let remedy = VmConfig::from_json(&json).unwrap_err().remedy().unwrap();
            assert_eq!(remedy.in_words_of(Dialect::Flags), flags);
            assert_eq!(remedy.to_string(), file);
        }
    }
}
