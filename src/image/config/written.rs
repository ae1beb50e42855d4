//! An image's configuration as it is written: the OCI image specification's config.md, and Docker's additions. `null`
//! and nothing are the same everywhere, as for Go's reader; what nobody here knows is skipped.

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny};
use std::collections::BTreeMap;

/// The whole.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Written {
    #[serde(deserialize_with = "or_default")]
    pub architecture: String,
    #[serde(deserialize_with = "or_default")]
    pub os: String,
    #[serde(deserialize_with = "or_default")]
    pub variant: String,
    #[serde(deserialize_with = "or_default")]
    pub config: Process,
    #[serde(deserialize_with = "or_default")]
    pub rootfs: Layers,
}

/// Its layers.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Layers {
    #[serde(deserialize_with = "or_default")]
    pub diff_ids: Vec<String>,
}

/// How it is run.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Process {
    #[serde(deserialize_with = "or_default")]
    pub user: String,
    #[serde(deserialize_with = "or_default")]
    pub exposed_ports: BTreeMap<String, IgnoredAny>,
    #[serde(deserialize_with = "or_default")]
    pub env: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub entrypoint: Words,
    #[serde(deserialize_with = "or_default")]
    pub cmd: Words,
    #[serde(deserialize_with = "or_default")]
    pub volumes: BTreeMap<String, IgnoredAny>,
    #[serde(deserialize_with = "or_default")]
    pub working_dir: String,
    #[serde(deserialize_with = "or_default")]
    pub labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    pub stop_signal: String,
    #[serde(deserialize_with = "or_default")]
    pub healthcheck: Check,
}

/// A command: words, or, in the oldest images, one string that is one word.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Words {
    Many(Vec<String>),
    One(String),
}

impl Default for Words {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl From<Words> for Vec<String> {
    fn from(words: Words) -> Self {
        match words {
            Words::Many(words) => words,
            Words::One(word) => vec![word],
        }
    }
}

/// Docker's check of a service; times in nanoseconds.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Check {
    #[serde(deserialize_with = "or_default")]
    pub test: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub interval: i64,
    #[serde(deserialize_with = "or_default")]
    pub timeout: i64,
    #[serde(deserialize_with = "or_default")]
    pub start_period: i64,
    #[serde(deserialize_with = "or_default")]
    pub start_interval: i64,
    #[serde(deserialize_with = "or_default")]
    pub retries: i64,
}

fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    value: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(value)?.unwrap_or_default())
}
