//! Volumes as they are shown, in docker's words.

use kvmlet_command::shown::binary;
use kvmlet_manager::{Users, Volume};
use serde_json::{Value, json};

/// A line of a list.
pub(super) fn row(volume: &Volume, users: &Users) -> Value {
    let labels = volume.note.labels.iter();
    let labels: Vec<String> = labels
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    json!({
        "Driver": "local",
        "Name": volume.name,
        "Size": binary(volume.bytes),
        "Stored": binary(volume.stored_bytes),
        "Links": users.of_volume(&volume.name).len().to_string(),
        "Labels": labels.join(","),
        "Mountpoint": volume.disk,
        "Scope": "local",
    })
}

/// The names of columns.
pub(super) fn heading(field: &str) -> String {
    match field {
        "Name" => "VOLUME NAME".into(),
        other => other.to_uppercase(),
    }
}

/// All that is known of one.
pub(super) fn inspected(volume: &Volume, users: &Users) -> Value {
    let users = users.of_volume(&volume.name);
    let called: Vec<&str> = users.iter().map(|user| user.called.as_str()).collect();
    json!({
        "CreatedAt": volume.note.created,
        "Driver": "local",
        "Labels": volume.note.labels,
        "Mountpoint": volume.disk,
        "Name": volume.name,
        "Options": { "size": volume.bytes },
        "Scope": "local",
        "Anonymous": volume.note.anonymous,
        "UsageData": { "Size": volume.stored_bytes, "RefCount": users.len() },
        "Instances": called,
    })
}
