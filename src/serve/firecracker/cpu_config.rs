//! CPUs as a client describes them: a custom CPU template.

use super::fault::Fault;
use kvmlet_spec::{BitChange, CpuidChange, MsrChange, Register, VmConfigBuilder};
use kvmlet_sys::regular;
use serde::Deserialize;
use serde::de::{Deserializer, Error};
use std::path::Path;

/// Bits of CPUID and of model-specific registers, and what KVM has to be able to do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CpuConfig {
    kvm_capabilities: Vec<Capability>,
    cpuid_modifiers: Vec<LeafModifier>,
    msr_modifiers: Vec<MsrModifier>,
}

/// A leaf of CPUID, and what its registers are to have in them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct LeafModifier {
    #[serde(deserialize_with = "number")]
    leaf: u32,
    #[serde(deserialize_with = "number")]
    subleaf: u32,
    /// Whether the subleaf counts, which KVM knows.
    flags: Flags,
    modifiers: Vec<RegisterModifier>,
}

/// KVM_CPUID_FLAG_SIGNIFCANT_INDEX, or nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u32")]
struct Flags;

impl TryFrom<u32> for Flags {
    type Error = String;

    fn try_from(flags: u32) -> Result<Self, String> {
        match flags {
            0 | 1 => Ok(Self),
            _ => Err(format!("flags of {flags} are not supported: 0 and 1 are")),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct RegisterModifier {
    register: RegisterName,
    bitmap: Bitmap<32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RegisterName {
    Eax,
    Ebx,
    Ecx,
    Edx,
}

impl From<RegisterName> for Register {
    fn from(name: RegisterName) -> Self {
        match name {
            RegisterName::Eax => Self::Eax,
            RegisterName::Ebx => Self::Ebx,
            RegisterName::Ecx => Self::Ecx,
            RegisterName::Edx => Self::Edx,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct MsrModifier {
    #[serde(deserialize_with = "number")]
    addr: u32,
    bitmap: Bitmap<64>,
}

/// Of a register of that many bits. Firecracker's need no `0b`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
struct Bitmap<const WIDTH: u32>(BitChange);

impl<const WIDTH: u32> TryFrom<String> for Bitmap<WIDTH> {
    type Error = kvmlet_spec::Error;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match text.starts_with("0b") {
            true => BitChange::parse(&text, WIDTH),
            false => BitChange::parse(&format!("0b{text}"), WIDTH),
        }
        .map(Self)
    }
}

/// The number of a capability (Linux, `KVM_CAP_...`) that KVM has to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
struct Capability(u32);

impl TryFrom<String> for Capability {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.starts_with('!') {
            return Err(format!(
                "the KVM capability `{}` is not supported: what a VM needs of KVM is not a client's to leave out",
                text.escape_debug()
            ));
        }
        let digits = text.bytes().all(|it| it.is_ascii_digit());
        let number = text.parse().ok().filter(|_| digits);
        number.map(Self).ok_or_else(|| {
            format!(
                "`{}` is not the number of a KVM capability",
                text.escape_debug()
            )
        })
    }
}

/// A number as text, `0x...` or `0b...`.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let text = String::deserialize(deserializer)?;
    let hex = text.strip_prefix("0x").map(|digits| (digits, 16));
    let parts = hex.or_else(|| text.strip_prefix("0b").map(|digits| (digits, 2)));
    let number = parts.filter(|(digits, _)| !digits.starts_with('+'));
    let number = number.and_then(|(digits, radix)| u32::from_str_radix(digits, radix).ok());
    number.ok_or_else(|| {
        let text = text.escape_debug();
        D::Error::custom(format!(
            "`{text}` is not a number of 32 bits such as 0x1 or 0b1"
        ))
    })
}

/// As long as a template's file can be.
const FILE_BYTES: u64 = 51_200;

impl CpuConfig {
    /// Looks at what nobody knows before the VM is there, and at what this host's KVM can do.
    pub fn check(&self) -> Result<(), Fault> {
        self.changes()?;
        if self.kvm_capabilities.is_empty() {
            return Ok(());
        }
        let kvm = kvmlet_sys::kvm::open().map_err(|error| Fault(error.to_string()))?;
        let lacks = |it: &&Capability| kvm.check_extension_raw(it.0.into()) <= 0;
        match self.kvm_capabilities.iter().find(lacks) {
            Some(Capability(number)) => Err(Fault(format!(
                "This host's KVM does not have the capability {number} of kvm_capabilities."
            ))),
            None => Ok(()),
        }
    }

    /// A template in a file of its own, which a `--config-file` names.
    pub fn of_file(path: &Path) -> Result<Self, Fault> {
        let wrong = |why: &dyn std::fmt::Display| Fault(format!("`{}`: {why}", path.display()));
        let text = regular::read(path, FILE_BYTES).map_err(|error| wrong(&error))?;
        serde_json::from_slice(&text).map_err(|error| wrong(&error))
    }

    /// The VM with such CPUs.
    pub fn apply(&self, config: VmConfigBuilder) -> Result<VmConfigBuilder, Fault> {
        let (cpuid, msrs) = self.changes()?;
        let config = cpuid.into_iter().fold(config, VmConfigBuilder::cpuid);
        Ok(msrs.into_iter().fold(config, VmConfigBuilder::msr))
    }

    fn changes(&self) -> Result<(Vec<CpuidChange>, Vec<MsrChange>), Fault> {
        let of_leaf = |modifier: &LeafModifier| {
            let (leaf, subleaf) = (modifier.leaf, modifier.subleaf);
            let change = move |it: &RegisterModifier| CpuidChange {
                leaf,
                subleaf,
                register: it.register.into(),
                bits: it.bitmap.0,
            };
            modifier.modifiers.iter().map(change).collect::<Vec<_>>()
        };
        let msr = |it: &MsrModifier| MsrChange::new(it.addr, it.bitmap.0);
        let msrs: Result<_, _> = self.msr_modifiers.iter().map(msr).collect();
        let msrs = msrs.map_err(|error| Fault::of(&error))?;
        Ok((
            self.cpuid_modifiers.iter().flat_map(of_leaf).collect(),
            msrs,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(body: Value) -> Result<CpuConfig, String> {
        let read: CpuConfig = serde_json::from_value(body).map_err(|error| error.to_string())?;
        read.check().map(|()| read).map_err(|Fault(why)| why)
    }

    #[test]
    fn a_template_is_the_configuration_of_a_vm() {
        let template = read(json!({
            "cpuid_modifiers": [
                { "leaf": "0x7", "subleaf": "0b0", "flags": 1, "modifiers": [
                    { "register": "ebx", "bitmap": "0bx_0_1" }, { "register": "edx", "bitmap": "1xxx" },
                ] },
                { "leaf": "0x80000001", "subleaf": "0x0", "flags": 0, "modifiers": [] },
            ],
            "msr_modifiers": [{ "addr": "0x10a", "bitmap": "0b1xx" }],
        }));
        let config = kvmlet_spec::VmConfig::builder().kernel("k");
        let config = template.unwrap().apply(config).unwrap().build().unwrap();
        let cpuid: Vec<String> = config.cpuid.iter().map(|it| it.to_string()).collect();
        assert_eq!(cpuid, ["0x7.0x0:ebx=0b01", "0x7.0x0:edx=0b1xxx"]);
        let msrs: Vec<String> = config.msrs.iter().map(|it| it.to_string()).collect();
        assert_eq!(msrs, ["0x10a=0b1xx"]);
        assert_eq!(read(json!({})).unwrap(), CpuConfig::default());
    }

    #[test]
    fn what_cannot_be_is_named() {
        let leaf = |field: &str, value: Value| {
            let mut leaf = json!({ "leaf": "0x1", "subleaf": "0x0", "flags": 0, "modifiers": [] });
            leaf[field] = value;
            json!({ "cpuid_modifiers": [leaf] })
        };
        let register = |value: Value| leaf("modifiers", json!([value]));
        let msr =
            |addr: &str, bits: &str| json!({ "msr_modifiers": [{ "addr": addr, "bitmap": bits }] });
        let cap = |text: &str| json!({ "kvm_capabilities": [text] });
        for (body, part) in [
            (
                json!({ "cpuid_modifiers": [{ "leaf": "0x1" }] }),
                "missing field `subleaf`",
            ),
            (
                json!({ "msr_modifiers": [{ "addr": "0x1" }] }),
                "missing field `bitmap`",
            ),
            (
                json!({ "reg_modifiers": [] }),
                "unknown field `reg_modifiers`",
            ),
            (leaf("leaf", json!("1")), "`1` is not a number of 32 bits"),
            (leaf("leaf", json!(1)), "expected a string"),
            (leaf("leaf", json!("0x+1")), "is not a number"),
            (leaf("flags", json!(2)), "flags of 2 are not supported"),
            (leaf("more", json!(2)), "unknown field `more`"),
            (
                register(json!({ "register": "rax", "bitmap": "0b1" })),
                "unknown variant `rax`",
            ),
            (
                register(json!({ "register": "eax", "bitmap": "0b2" })),
                "`0b2` is not bits",
            ),
            (
                register(json!({ "register": "eax", "bitmap": "x".repeat(33) })),
                "32 at the most",
            ),
            (msr("0x10a", &"1".repeat(65)), "64 at the most"),
            (msr("0x100000000", "0b1"), "is not a number of 32 bits"),
            (msr("0x10", "0b1"), "0x10 is not a feature"),
            (cap("!56"), "`!56` is not supported"),
            (cap("+1"), "`+1` is not the number"),
        ] {
            let why = read(body.clone()).unwrap_err();
            assert!(why.contains(part), "{body}: {why}");
        }
    }
}
