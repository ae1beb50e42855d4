//! `registries.conf` of version 2 as it is written (containers-registries.conf(5)). What nobody here knows is skipped, as
//! that is by podman.

use serde::Deserialize;

/// A file.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Written {
    pub registry: Vec<Registry>,
}

/// A `[[registry]]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Registry {
    /// Which names it is about; the location if there is none.
    pub prefix: String,
    /// What takes the place of that.
    pub location: String,
    pub insecure: bool,
    pub blocked: bool,
    pub mirror: Vec<Mirror>,
    /// Mirrors are only for names with digests.
    pub mirror_by_digest_only: bool,
}

/// A `[[registry.mirror]]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Mirror {
    pub location: String,
    pub insecure: bool,
    /// `all`, `digest-only` or `tag-only`.
    pub pull_from_mirror: String,
}
