//! Whether the VM's process is confined.

use serde::{Deserialize, Serialize};

/// What is to be done about the walls around the VM's process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JailMode {
    /// All that the host can give; what it cannot is told as a warning.
    #[default]
    Auto,
    /// All of them: what the host cannot give is an error.
    Required,
    /// None.
    Off,
}
