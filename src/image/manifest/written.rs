//! Manifests and indexes as they are written. `null` and nothing are the same everywhere, as for Go's reader.

use serde::Deserialize;
use serde::de::Deserializer;
use std::collections::BTreeMap;

/// A manifest or an index.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Written {
    #[serde(default, deserialize_with = "or_default")]
    pub schema_version: u64,
    pub config: Option<Part>,
    pub layers: Option<Vec<Part>>,
    pub manifests: Option<Vec<Part>>,
}

/// A descriptor.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Part {
    #[serde(default, deserialize_with = "or_default")]
    pub media_type: String,
    pub digest: String,
    #[serde(default, deserialize_with = "or_default")]
    pub size: i64,
    pub platform: Option<System>,
    #[serde(default, deserialize_with = "or_default")]
    pub annotations: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "or_default")]
    pub urls: Vec<String>,
}

/// A platform.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct System {
    #[serde(deserialize_with = "or_default")]
    pub os: String,
    #[serde(deserialize_with = "or_default")]
    pub architecture: String,
    #[serde(deserialize_with = "or_default")]
    pub variant: String,
}

fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    value: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(value)?.unwrap_or_default())
}
