//! What was asked of an instance.

use super::{Service, Text};
use crate::{InstanceId, Moment};
use kvmlet_spec::supervision::{HealthCheck, RestartPolicy, Span};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// What was asked of an instance, which does not change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    /// Its id, which is the name of its directory as well, unless somebody has copied that.
    pub id: InstanceId,
    /// When it was asked.
    pub created: Moment,
    /// What it runs, as its user has named it.
    pub image: String,
    /// The image in the store that this was, by its id; none if it was a file or a directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_id: Option<String>,
    /// The service, with its arguments, if not the image's own.
    pub command: Vec<Text>,
    /// How that runs.
    #[serde(default)]
    pub service: Service,
    /// The configuration of its VM: the keys of a configuration file.
    pub config: serde_json::Value,
    /// When it is started again.
    pub restart: RestartPolicy,
    /// How its health is asked for.
    pub health: Option<HealthCheck>,
    /// Whether it is removed when it has ended.
    pub remove: bool,
    /// What its user has noted about it.
    pub labels: BTreeMap<String, String>,
    /// How much of what it writes is kept.
    pub log: LogLimits,
    /// The snapshot that it goes on from until it has run once, by its absolute path; then it boots as any other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<PathBuf>,
    /// For how long nobody uses it until it is suspended by itself, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle: Option<Span>,
}

impl Asked {
    /// The least time that one is not used until it is suspended by itself: it takes about as long to go on.
    const SHORTEST_IDLE: Span = Span::seconds(1);

    /// How long nobody uses one until it is suspended by itself, as text says it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn idle_time(text: &str) -> Result<Span, String> {
        let span: Span = text.parse().map_err(|error| format!("{error}"))?;
        match span >= Self::SHORTEST_IDLE {
            true => Ok(span),
            false => Err(format!("it is {} at least", Self::SHORTEST_IDLE)),
        }
    }

    /// An instance of an image, of which nothing else is asked, from now.
    pub fn new(id: InstanceId, image: impl Into<String>) -> Self {
        Self {
            id,
            created: Moment::now(),
            image: image.into(),
            image_id: None,
            command: Vec::new(),
            service: Service::default(),
            config: serde_json::Value::Null,
            restart: RestartPolicy::No,
            health: None,
            remove: false,
            labels: BTreeMap::new(),
            log: LogLimits::default(),
            snapshot: None,
            idle: None,
        }
    }

    /// What lists call its image: its name, or its file, wherever that lies.
    pub fn image_name(&self) -> &str {
        if self.image_id.is_some() {
            return &self.image;
        }
        let name = Path::new(&self.image).file_name().and_then(OsStr::to_str);
        name.unwrap_or(&self.image)
    }
}

/// How much of what an instance writes is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLimits {
    /// The size at which a file is put aside and a new one begun, in bytes.
    pub file_bytes: u64,
    /// How many files there are, the one that is written among them.
    pub files: u32,
}

impl Default for LogLimits {
    /// 30 MiB in three files.
    fn default() -> Self {
        Self {
            file_bytes: 10 << 20,
            files: 3,
        }
    }
}
