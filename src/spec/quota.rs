//! A VM's fixed share of its host: CPU time, CPUs, memory.

use super::flag::Flag;
use super::{CgroupParent, CpuSet, Error, HugePages, Setting};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// How much CPU time a VM may use, in CPUs: 0.5 is half of one.
///
/// As text or as a number in JSON, with at most three decimals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CpuQuota(u32);

impl CpuQuota {
    /// The kernel's bandwidth control has no quotas below 1 ms (`min_cfs_quota_period` in
    /// kernel/sched/core.c), and [periods](Self::PERIOD_US) are 100 ms.
    pub const MIN: CpuQuota = CpuQuota(10);
    /// All vCPUs of the largest VM.
    pub const MAX: CpuQuota = CpuQuota(super::VcpuCount::MAX as u32 * 1000);
    /// The time in which the quota may be used up, in microseconds: what a new cgroup has.
    pub const PERIOD_US: u64 = 100_000;

    /// Thousandths of a CPU.
    pub fn milli(self) -> u32 {
        self.0
    }

    /// This many thousandths of a CPU.
    ///
    /// # Errors
    /// Outside [`MIN`](Self::MIN) and [`MAX`](Self::MAX).
    pub fn from_milli(milli: u32) -> Result<Self, Error> {
        match Self(milli) {
            quota if (Self::MIN..=Self::MAX).contains(&quota) => Ok(quota),
            quota => Err(Error::CpuQuotaRange { quota }),
        }
    }

    /// CPU time in each [period](Self::PERIOD_US), in microseconds.
    pub fn period_share_us(self) -> u64 {
        u64::from(self.0) * Self::PERIOD_US / 1000
    }
}

impl fmt::Display for CpuQuota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&thousandths(self.0.into()))
    }
}

impl FromStr for CpuQuota {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let milli = parse_thousandths(text).ok_or_else(|| Error::CpuQuotaSyntax {
            text: text.trim().into(),
        })?;
        Self::from_milli(milli)
    }
}

/// A VM's weight when CPUs are short, against other VMs and processes: 1 to 10000, where 100 is usual
/// (`cpu.weight` in Linux Documentation/admin-guide/cgroup-v2.rst).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u64")]
pub struct CpuWeight(u16);

impl CpuWeight {
    /// The largest weight.
    pub const MAX: u16 = 10_000;

    /// The weight as a number.
    pub fn get(self) -> u16 {
        self.0
    }

    /// The weight of a VM that has a quota and no weight of its own. It is in proportion to the quota and
    /// well above the usual, so that others who take all they can get do not take what was promised; more
    /// than its quota it cannot bring.
    pub fn for_quota(quota: CpuQuota) -> Self {
        let weight = quota.milli().saturating_mul(10).min(Self::MAX.into());
        Self(u16::try_from(weight).unwrap_or(Self::MAX))
    }
}

impl TryFrom<u64> for CpuWeight {
    type Error = Error;

    fn try_from(weight: u64) -> Result<Self, Error> {
        match u16::try_from(weight) {
            Ok(weight @ 1..=Self::MAX) => Ok(Self(weight)),
            _ => Err(Error::CpuWeightRange { weight }),
        }
    }
}

impl FromStr for CpuWeight {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let weight = text.trim().parse::<u64>();
        let weight = weight.map_err(|_| Error::CpuWeightSyntax { text: text.into() })?;
        weight.try_into()
    }
}

/// Which threads of a VM the quota and the CPU set hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CpuScope {
    /// All: what the VMM does for the guest comes out of the guest's share.
    #[default]
    Vm,
    /// vCPUs only: the threads of disks, interfaces and the console run beside the share, on any CPU.
    Vcpus,
}

/// Who may use the host memory behind guest RAM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemoryMode {
    /// Pages are taken when the guest first touches them; what all VMs were promised may exceed the host's
    /// RAM where [`Overcommit`] says so.
    #[default]
    Shared,
    /// Pages are taken before the guest starts, so that nobody else can have them. Implies `prefault`.
    Reserved,
}

/// What a VM may use of its host. All of it is held by cgroups, so the default, which asks for nothing, needs
/// none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Quota {
    /// CPU time; without it, all that is free.
    pub cpu: Option<CpuQuota>,
    /// CPUs that may be used; without it, all of them.
    pub cpus: Option<CpuSet>,
    /// Weight when CPUs are short.
    pub weight: Option<CpuWeight>,
    /// Which threads `cpu` and `cpus` hold. The weight always holds the VM as a whole.
    pub scope: CpuScope,
    /// Whether the memory is shared or reserved; a mode that was named also limits what the VMM takes.
    pub memory: Option<MemoryMode>,
    /// The cgroup below which the VM's is made, and whose limits hold the VM, too; without it, kvmlet chooses.
    pub parent: Option<CgroupParent>,
}

impl Quota {
    /// Is there anything that takes a cgroup?
    pub fn is_asked(&self) -> bool {
        self.cpu.is_some()
            || self.cpus.is_some()
            || self.weight.is_some()
            || self.memory.is_some()
            || self.parent.is_some()
    }

    /// The memory mode that applies. Huge pages of the host's pool are reserved in any case.
    pub fn memory_mode(&self, pages: HugePages) -> MemoryMode {
        match pages {
            HugePages::Reserved => MemoryMode::Reserved,
            HugePages::Off | HugePages::Transparent => self.memory.unwrap_or_default(),
        }
    }

    /// Checks what no single value can get wrong.
    pub(super) fn check(&self, vcpus: super::VcpuCount) -> Result<(), Error> {
        if let Some(quota) = self.cpu {
            let of = |count, of| Error::CpuQuotaUnusable { quota, count, of };
            let vcpus = usize::from(vcpus.get());
            if quota.milli() as usize > vcpus * 1000 {
                return Err(of(vcpus, "the vCPUs"));
            }
            if let Some(cpus) = &self.cpus
                && quota.milli() as usize > cpus.len() * 1000
            {
                return Err(of(cpus.len(), "the CPUs of the set"));
            }
        }
        if self.scope == CpuScope::Vcpus && self.cpu.is_none() && self.cpus.is_none() {
            return Err(Error::CpuScopeAlone);
        }
        Ok(())
    }
}

/// How much more may be promised to all VMs together than the host has: 1 is all of it, 2 is twice as much,
/// 0.8 leaves a fifth for others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Overcommit {
    /// Of CPU time.
    pub cpus: Factor,
    /// Of memory. Memory in the mode [`Reserved`](MemoryMode::Reserved) is never overcommitted.
    pub memory: Factor,
}

impl FromStr for Overcommit {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let flag = Flag::parse(Setting::Overcommit, "an overcommitment", "cpus", text)?;
        let factor = |key| flag.parsed(key, Factor::EXPECTED, |text| text.parse().ok());
        Ok(Self {
            cpus: factor("cpus")?.unwrap_or_default(),
            memory: factor("memory")?.unwrap_or_default(),
        })
    }
}

/// A factor from 0.001 to 1000, in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Factor(u32);

impl Factor {
    const EXPECTED: &str = "a factor from 0.001 to 1000, such as 1.5";

    /// Thousandths.
    pub fn milli(self) -> u32 {
        self.0
    }

    /// The product, rounded down.
    pub fn of(self, amount: u64) -> u64 {
        let product = u128::from(amount) * u128::from(self.0) / 1000;
        u64::try_from(product).unwrap_or(u64::MAX)
    }
}

impl Default for Factor {
    fn default() -> Self {
        Self(1000)
    }
}

impl fmt::Display for Factor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&thousandths(self.0.into()))
    }
}

impl FromStr for Factor {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match parse_thousandths(text) {
            Some(milli @ 1..=1_000_000) => Ok(Self(milli)),
            _ => Err(Error::Factor { text: text.into() }),
        }
    }
}

/// `1500` thousandths as `1.5`.
pub fn thousandths(milli: u64) -> String {
    let text = format!("{}.{:03}", milli / 1000, milli % 1000);
    text.trim_end_matches('0').trim_end_matches('.').into()
}

fn parse_thousandths(text: &str) -> Option<u32> {
    let (whole, decimals) = match text.trim().split_once('.') {
        Some((whole, decimals)) if (1..=3).contains(&decimals.len()) => (whole, decimals),
        Some(_) => return None,
        None => (text.trim(), ""),
    };
    if !(whole.to_owned() + decimals)
        .bytes()
        .all(|c| c.is_ascii_digit())
        || whole.is_empty()
    {
        return None;
    }
    let whole: u32 = whole.parse().ok()?;
    let decimals: u32 = format!("{decimals:0<3}").parse().ok()?;
    whole.checked_mul(1000)?.checked_add(decimals)
}

/// Decimal numbers that JSON may hold as numbers or as text; a float prints as it was written.
macro_rules! decimal_in_json {
    ($type:ty, $expected:literal) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self.0 % 1000 {
                    0 => serializer.serialize_u32(self.0 / 1000),
                    _ => serializer.serialize_f64(f64::from(self.0) / 1000.0),
                }
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                #[derive(Deserialize)]
                #[serde(untagged, expecting = $expected)]
                enum Written {
                    Number(f64),
                    Text(String),
                }
                let text = match Written::deserialize(deserializer)? {
                    Written::Number(number) => number.to_string(),
                    Written::Text(text) => text,
                };
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

decimal_in_json!(CpuQuota, "a share in CPUs must be a number such as 0.5");
decimal_in_json!(Factor, "a factor must be a number such as 1.5");

#[cfg(test)]
#[path = "quota_tests.rs"]
mod tests;
