//! A snapshot that is noted, and what has become of its file.

use super::opened::open;
use crate::Failed;
use kvmlet_command::shown::{binary, span};
use kvmlet_manager::{InstanceId, Kept, Moment, Snapshots};
use kvmlet_vmm::snapshot::{DiskRecord, Fault, MachineState, NetRecord, Saved, noted};
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What is where its file was put.
pub(super) enum Status {
    /// The file, as a whole.
    Ready(Box<Saved>),
    /// Nothing.
    Missing,
    /// Something else.
    Replaced,
    /// The file, or something that was it, of which nothing can be made.
    Unusable(String),
}

impl Status {
    pub fn of(kept: &Kept) -> Self {
        match open(&kept.path, kept.base.as_deref()) {
            Ok(saved) if is_noted(saved.note.as_deref(), &kept.id) => Self::Ready(Box::new(saved)),
            Ok(_) => Self::Replaced,
            // Without its base it is of no use.
            Err(error) if error.path != kept.path => {
                Self::Unusable(kvmlet_sys::causes::in_a_line(&error))
            }
            Err(error) => match &error.fault {
                Fault::Read(error) if error.kind() == io::ErrorKind::NotFound => Self::Missing,
                Fault::Foreign | Fault::Kind => Self::Replaced,
                fault => Self::Unusable(fault.to_string()),
            },
        }
    }

    pub fn name(&self) -> &'static str {
        match self {
            Self::Ready(_) => "ready",
            Self::Missing => "missing",
            Self::Replaced => "replaced",
            Self::Unusable(_) => "unusable",
        }
    }
}

/// Is what is noted in a file that id?
fn is_noted(note: Option<&[u8]>, id: &InstanceId) -> bool {
    note == Some(id.as_str().as_bytes())
}

/// Is that file the one of this snapshot? What has the place of a file that is gone is nobody's business here.
pub(crate) fn has_place(kept: &Kept) -> bool {
    noted(&kept.path).is_ok_and(|note| is_noted(note.as_deref(), &kept.id))
}

/// Which snapshot of an instance a file is, by what is noted in it.
pub(crate) fn id_in(note: Option<Vec<u8>>) -> Option<InstanceId> {
    String::from_utf8(note?).ok()?.try_into().ok()
}

/// The snapshot that a user names: by the beginning of its id, or by its file.
pub(super) fn find(snapshots: &Snapshots, reference: &str) -> Result<Kept, Failed> {
    let path = Path::new(reference);
    if !reference.contains('/') && !path.is_file() {
        return Ok(snapshots.resolve(reference)?);
    }
    let id = id_in(noted(path).map_err(Failed::new)?);
    let kept = id.map(|id| snapshots.find(&id)).transpose()?;
    let mut kept = kept.flatten().ok_or_else(|| {
        let path = path.display();
        Failed::new(format!(
            "`{path}` is no snapshot of an instance that this user has taken here"
        ))
    })?;
    // Wherever that was when it was noted.
    kept.path = std::path::absolute(path).map_err(Failed::new)?;
    Ok(kept)
}

/// What the file takes of its disk.
pub(super) fn stored_bytes(kept: &Kept) -> u64 {
    kept.path.metadata().map_or(0, |found| found.blocks() * 512)
}

/// A line of a list.
pub(super) fn row(kept: &Kept, now: Moment, whole: bool) -> Value {
    let status = Status::of(kept);
    let id = match whole {
        true => kept.id.as_str(),
        false => kept.id.short(),
    };
    let size = match status {
        Status::Ready(_) | Status::Unusable(_) => binary(stored_bytes(kept)),
        Status::Missing | Status::Replaced => String::new(),
    };
    // That of a template says nothing.
    let name = kept.path.file_name().filter(|_| kept.template.is_none());
    let name = name.and_then(OsStr::to_str).unwrap_or_default();
    json!({
        "ID": id,
        "Instance": called(kept),
        "Image": if whole { &kept.asked.image } else { kept.asked.image_name() },
        "CreatedAt": kept.made,
        "CreatedSince": format!("{} ago", span(now.since(kept.made))),
        "Size": size,
        "Status": status.name(),
        "Kind": kind(kept),
        "File": if whole { kept.path.to_str().unwrap_or_default() } else { name },
    })
}

/// What `run --warm` has made is thrown away by kvmlet itself, too.
fn kind(kept: &Kept) -> &'static str {
    match kept.template {
        Some(_) => "template",
        None => "snapshot",
    }
}

fn called(kept: &Kept) -> &str {
    let name = kept.name.as_ref();
    name.map_or(kept.asked.id.short(), |name| name.as_str())
}

/// The names of columns.
pub(super) fn heading(field: &str) -> String {
    match field {
        "ID" => "SNAPSHOT ID".into(),
        "CreatedSince" => "CREATED".into(),
        "CreatedAt" => "CREATED AT".into(),
        other => other.to_uppercase(),
    }
}

/// All that is known of one.
pub(super) fn inspected(kept: &Kept) -> Value {
    let status = Status::of(kept);
    let error = match &status {
        Status::Unusable(why) => why.as_str(),
        _ => "",
    };
    let machine = match &status {
        Status::Ready(saved) => Some(machine(&saved.state.machine)),
        _ => None,
    };
    json!({
        "Id": kept.id,
        "Created": kept.made,
        "File": kept.path,
        "Kind": kind(kept),
        "Base": kept.base,
        "Status": status.name(),
        "Error": error,
        "Size": stored_bytes(kept),
        "Instance": { "Id": kept.asked.id, "Name": kept.name },
        "Image": kept.asked.image,
        "ImageID": kept.asked.image_id,
        "Command": kept.asked.command,
        "Labels": kept.asked.labels,
        "Machine": machine,
        "Template": kept.template,
        "Config": kept.asked.config,
    })
}

/// What the file says of the machine.
fn machine(machine: &MachineState) -> Value {
    let disk = |disk: &DiskRecord| {
        let id = String::from_utf8_lossy(&disk.id);
        json!({
            "Id": id.trim_end_matches('\0'),
            "Size": disk.bytes,
            "ReadOnly": disk.read_only,
            "Queues": disk.queues,
        })
    };
    let net = |net: &NetRecord| {
        let mac = net.mac.map(|byte| format!("{byte:02x}")).join(":");
        json!({ "MacAddress": mac, "Mtu": net.mtu, "Queues": net.pairs })
    };
    json!({
        "Vcpus": machine.vcpus,
        "Memory": machine.memory_bytes,
        "Disks": machine.disks.iter().map(disk).collect::<Vec<_>>(),
        "Nets": machine.nets.iter().map(net).collect::<Vec<_>>(),
    })
}
