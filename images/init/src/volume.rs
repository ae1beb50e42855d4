//! Disks that a service mounts: found by their serial numbers, grown into, and filled with what the image has in their place.

use alloc::ffi::CString;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ffi::CStr;

use kvmlet_contract::channel::{Mount, PACK, UNPACK};
use linux_raw_sys::general::MS_RDONLY;

use crate::launch::{Launch, Stdio};
use crate::sys::{self, Errno, File};
use crate::tools::OWN_PROGRAM;
use crate::{appear, console, place, read_text};

/// Where Linux shows disks.
const DISKS: &CStr = c"/sys/block";
/// What mke2fs leaves in a new file system, and programs that want an empty directory do not.
const LOST_AND_FOUND: &CStr = c"lost+found";
/// An attribute that a volume's root has while it is being filled: what is in it then is not all.
const FILLING: &CStr = c"trusted.kvmlet.filling";
/// How much of what a tool says is passed on.
const COMPLAINT: usize = 512;

/// Mounts a disk at a target, and fills it if that is asked for.
pub fn mount(mount: &Mount<'_>, serial: &[u8], target: &File) -> Result<(), String> {
    let called = String::from_utf8_lossy(serial);
    let at = mount.target.to_string_lossy();
    let name = appear::wait_for(&format!("disk {called}"), || with_serial(serial));
    let name = name.map_err(|error| match error {
        Errno::ENODEV => format!("mount on {at}: no disk has the serial number {called}"),
        error => format!("mount on {at}: looking for disk {called}: {error}"),
    })?;
    let device = CString::new(format!("/dev/{name}")).unwrap_or_default();
    let path = target.proc_path();
    let mounted = appear::wait_for(&name, || {
        sys::mount(&device, &path, mount.fstype, mount.flags, mount.options)
    });
    let reads = mount.flags & MS_RDONLY != 0;
    mounted.map_err(|error| {
        let fstype = mount.fstype.to_string_lossy();
        let why = match error {
            Errno::EROFS if reads => "its last writer was killed; one that writes repairs it",
            Errno::EROFS => "the disk is read-only",
            Errno::EINVAL => "it does not hold one",
            other => return format!("mount disk {called} on {at} as {fstype}: {other}"),
        };
        format!("mount disk {called} on {at} as {fstype}: {why}")
    })?;
    if reads {
        return Ok(());
    }
    let failed = |error| format!("look into the volume on {at}: {error}");
    let root = place::open_made(mount.target).map_err(failed)?;
    let root = File::open(&root.proc_path(), sys::O_RDONLY | sys::O_DIRECTORY).map_err(failed)?;
    if mount.fstype == c"ext4" {
        grow(&root, &name);
    }
    let is_new = is_new(&root).map_err(failed)?;
    if is_new && mount.filled {
        fill(target, &root).map_err(|why| format!("fill the volume on {at}: {why}"))?;
    }
    Ok(())
}

/// The name of the disk that has that serial number; ENODEV while there is none.
fn with_serial(serial: &[u8]) -> Result<String, Errno> {
    let directory = File::open(DISKS, sys::O_RDONLY | sys::O_DIRECTORY)?;
    let mut found = Err(Errno::ENODEV);
    directory.each_entry(&mut |name| {
        let name = name.to_string_lossy();
        let path = CString::new(format!("/sys/block/{name}/serial")).unwrap_or_default();
        let has_it = read_text(&path).is_ok_and(|text| text.trim_end().as_bytes() == serial);
        if found.is_err() && has_it {
            found = Ok(name.into_owned());
        }
    })?;
    found
}

/// Takes what the disk has become longer since its file system was made. One that does not grow is still one.
fn grow(root: &File, name: &str) {
    /// In this unit the kernel says how big a disk is.
    const SECTOR: u64 = 512;
    let path = CString::new(format!("/sys/block/{name}/size")).unwrap_or_default();
    let sectors = read_text(&path).ok();
    let sectors: Option<u64> = sectors.and_then(|text| text.trim_end().parse().ok());
    let Some(sectors) = sectors else { return };
    let grown = root
        .block_bytes()
        .and_then(|block| root.grow_ext4(sectors * SECTOR / block.max(1)));
    if let Err(error) = grown {
        console::say(format_args!(
            "cannot grow the file system on {name} to its disk's size: {error}"
        ));
    }
}

/// Whether nothing is in a volume yet, or not all of what it was to be filled with.
fn is_new(root: &File) -> Result<bool, Errno> {
    if root.attribute(FILLING, &mut [0; 1]).is_ok() {
        return Ok(true);
    }
    let mut others = 0;
    root.each_entry(&mut |name| {
        others += usize::from(![c".", c"..", LOST_AND_FOUND].contains(&name));
    })?;
    if others == 0 {
        match sys::tree::remove_directory_in(root.number(), LOST_AND_FOUND) {
            // It is not there, or somebody has put something into it.
            Ok(()) | Err(Errno::ENOENT | Errno::ENOTEMPTY) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(others == 0)
}

/// Copies what is in the image's directory into the volume over it, with its owner and mode.
fn fill(image: &File, root: &File) -> Result<(), String> {
    let said = |error: Errno| format!("{error}");
    root.set_attribute(FILLING, b"1").map_err(said)?;
    copy(image, root)?;
    let owner = image.status_of(c"").map_err(said)?.owner;
    sys::tree::set_owner(root.number(), owner.uid, owner.gid)
        .and_then(|()| sys::tree::set_mode(root.number(), owner.mode))
        // The mark goes when all is there to stay.
        .and_then(|()| root.sync_file_system())
        .and_then(|()| root.remove_attribute(FILLING))
        .map_err(said)
}

/// Copies by the agent's tools: their memory is theirs, and PID 1 waits for them, as the service does.
fn copy(from: &File, to: &File) -> Result<(), String> {
    let failed = |error: Errno| format!("start the copy: {error}");
    let null = File::open(c"/dev/null", sys::O_RDWR | sys::O_NOCTTY).map_err(failed)?;
    let (complaints, complain) = File::pipe().map_err(failed)?;
    let (reader, writer) = File::pipe().map_err(failed)?;
    let ends = [
        (PACK, from, [&null, &writer, &complain]),
        (UNPACK, to, [&reader, &null, &complain]),
    ];
    let mut pids = Vec::with_capacity(ends.len());
    for (tool, directory, streams) in ends {
        // Theirs are not this process's descriptors.
        let path = format!("/proc/1/fd/{}/.", directory.number());
        let arguments = [tool, &path].map(|text| CString::new(text).unwrap_or_default());
        let launch = Launch {
            program: Some(OWN_PROGRAM),
            arguments: arguments.iter().map(|it| &**it).collect(),
            variables: Vec::new(),
            workdir: c"/",
            make_workdir: false,
            user: None,
            groups: Vec::new(),
            stdio: Stdio::Streams(streams.map(File::number)),
        };
        pids.push(launch.start().map_err(|failure| failure.message)?);
    }
    drop((reader, writer, complain));
    let mut text = [0; COMPLAINT];
    // Until both have ended, as nobody else has it.
    let count = complaints.read(&mut text).unwrap_or(0);
    let mut all_well = true;
    for pid in pids {
        all_well &= sys::wait_for(pid) == Ok(0);
    }
    if all_well {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&text[..count]);
    let line = text.lines().next().unwrap_or("the copy has failed");
    let line = line.strip_prefix("kvmlet-init: cannot ").unwrap_or(line);
    Err(format!("cannot {line}"))
}
