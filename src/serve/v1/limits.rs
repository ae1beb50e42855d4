//! What clients send to change a VM that runs.

use schemars::JsonSchema;
use serde::Deserialize;

/// What a VM may do from now on, instead of what held.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LimitVm {
    /// What it is a limit of.
    pub device: Limited,
    /// Its place among those of its kind, from 0.
    pub index: u8,
    /// Bytes; none for no limit.
    pub bandwidth: Option<RateSpec>,
    /// Requests of a disk, packets of an interface; none for no limit.
    pub operations: Option<RateSpec>,
}

/// What has limits.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Limited {
    /// A disk.
    Disk,
    /// What an interface's guest receives.
    Receive,
    /// What it sends.
    Transmit,
}

/// How much of something.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RateSpec {
    /// In each second.
    #[schemars(range(min = 1))]
    pub per_second: u64,
    /// At once after a pause [default: a tenth of a second's].
    #[schemars(range(min = 1))]
    pub burst: Option<u64>,
    /// More at full speed, one time only.
    #[serde(default)]
    pub once: u64,
}

/// How much memory a VM is to give back.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BalloonVm {
    /// All in all, in mebibytes.
    pub mib: u32,
}
