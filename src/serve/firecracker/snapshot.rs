//! VMs that are saved to two files, as clients name them.
//!
//! All of the VM is in the second one, which is a snapshot of kvmlet's. The first one is its beginning, without memory, and noted
//! in it, as JSON, what its disks, interfaces and sockets are called on this host, which a snapshot of kvmlet's does not say. So who
//! may write to it says what the VM that goes on gets of this host, and it has to be this user's, or root's. (An older kvmlet has
//! written the note alone.)

use super::description;
use super::fault::Fault;
use super::machine::Machine;
use super::model::{Drive, HugePages, NetworkInterface, RateLimiter, Vsock};
use kvmlet_spec::{Disk, RateLimit};
use kvmlet_sys::regular;
use kvmlet_vmm::snapshot::{self, beginning, noted_in};
use rustix::process::geteuid;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Which kind of snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum SnapshotType {
    #[default]
    Full,
    Diff,
}

/// A wish to save a VM.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateSnapshot {
    #[serde(default)]
    pub snapshot_type: SnapshotType,
    pub snapshot_path: PathBuf,
    pub mem_file_path: PathBuf,
}

/// Who gives guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum BackendType {
    File,
    Uffd,
}

/// Where guest memory is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemBackend {
    pub backend_path: PathBuf,
    pub backend_type: BackendType,
}

/// What an interface is called here.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkOverride {
    pub iface_id: String,
    pub host_dev_name: String,
}

/// Where sockets are here.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VsockOverride {
    pub uds_path: PathBuf,
}

/// What a drive is here: Firecracker has no such word.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DriveOverride {
    pub drive_id: String,
    pub path_on_host: PathBuf,
}

/// What backs guest memory from then on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum RestoredPages {
    #[default]
    Snapshot,
    None,
    Transparent,
    #[serde(rename = "2M")]
    Hugetlbfs2M,
}

/// A wish to have a VM go on.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoadSnapshot {
    pub snapshot_path: PathBuf,
    pub mem_file_path: Option<PathBuf>,
    pub mem_backend: Option<MemBackend>,
    /// What has changed is known in any case.
    #[serde(default)]
    #[allow(dead_code)]
    pub enable_diff_snapshots: bool,
    #[serde(default)]
    #[allow(dead_code)]
    pub track_dirty_pages: bool,
    #[serde(default)]
    pub resume_vm: bool,
    #[serde(default)]
    pub network_overrides: Vec<NetworkOverride>,
    pub vsock_override: Option<VsockOverride>,
    #[serde(default)]
    pub huge_pages: RestoredPages,
    /// The guest's clock goes on by the time that has passed in any case.
    #[serde(default)]
    #[allow(dead_code)] // see docs/firecracker.md
    pub clock_realtime: bool,
    #[serde(default)]
    pub drive_overrides: Vec<DriveOverride>,
}

/// What is noted in the first file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    /// Of this file's form.
    kvmlet_snapshot: u32,
    vm: Machine,
}

const FORM: u32 = 1;
/// More than any description has.
const MOST_BYTES: u64 = 1 << 20;

impl CreateSnapshot {
    /// Is that something that can be done?
    pub fn check(&self) -> Result<(), Fault> {
        refuse_empty("snapshot_path", &self.snapshot_path)?;
        refuse_empty("mem_file_path", &self.mem_file_path)?;
        match self.snapshot_path == self.mem_file_path {
            true => Err(Fault(
                "snapshot_path and mem_file_path are the same file.".into(),
            )),
            false => Ok(()),
        }
    }
}

/// Refuses a path that names nothing, by its field.
fn refuse_empty(field: &str, path: &Path) -> Result<(), Fault> {
    match path.as_os_str().is_empty() {
        false => Ok(()),
        true => Err(Fault(format!("{field} is empty, and has to be a path."))),
    }
}

/// A VM that is to go on.
pub struct Loaded {
    /// The file that it is in.
    pub file: PathBuf,
    /// Who has its memory, if that is not in the file.
    pub pager: Option<PathBuf>,
    /// What it has on this host.
    pub machine: Machine,
}

impl LoadSnapshot {
    /// The files with the VM, and what that is called on this host.
    pub fn open(&self) -> Result<Loaded, Fault> {
        let (field, memory, backend) = match (&self.mem_file_path, &self.mem_backend) {
            (Some(path), None) => ("mem_file_path", path, BackendType::File),
            (None, Some(backend)) => (
                "mem_backend.backend_path",
                &backend.backend_path,
                backend.backend_type,
            ),
            _ => {
                return Err(Fault(
                    "Either mem_file_path or mem_backend has to be given, and not both.".into(),
                ));
            }
        };
        refuse_empty("snapshot_path", &self.snapshot_path)?;
        refuse_empty(field, memory)?;
        let whole = (backend == BackendType::File).then_some(memory.as_path());
        let (mut machine, is_alone) = read(&self.snapshot_path, whole)?;
        if is_alone && backend == BackendType::Uffd {
            return Err(Fault(format!(
                "Load snapshot error: `{}`: an older kvmlet has written it, and all of the VM to the file of its memory: save it anew, or \
                 load it from there",
                self.snapshot_path.display()
            )));
        }
        let pages = &mut machine.machine_config.huge_pages;
        *pages = match self.huge_pages {
            RestoredPages::Snapshot => *pages,
            RestoredPages::None => HugePages::None,
            RestoredPages::Transparent => HugePages::Transparent,
            RestoredPages::Hugetlbfs2M => HugePages::Hugetlbfs2M,
        };
        for change in &self.network_overrides {
            let id = &change.iface_id;
            let known = machine
                .network_interfaces
                .iter_mut()
                .find(|it| it.iface_id == *id);
            let interface =
                known.ok_or_else(|| Fault(format!("The VM had no interface `{id}`.")))?;
            interface.host_dev_name.clone_from(&change.host_dev_name);
        }
        for change in &self.drive_overrides {
            let id = &change.drive_id;
            let known = machine.drives.iter_mut().find(|it| it.drive_id == *id);
            let drive = known.ok_or_else(|| Fault(format!("The VM had no drive `{id}`.")))?;
            drive.path_on_host = Some(change.path_on_host.clone());
        }
        if let Some(change) = &self.vsock_override {
            let vsock = machine.vsock.as_mut();
            let vsock = vsock.ok_or_else(|| Fault("The VM had no vsock device.".into()))?;
            vsock.uds_path.clone_from(&change.uds_path);
        }
        let (file, pager) = match backend {
            BackendType::File => (memory.clone(), None),
            BackendType::Uffd => (self.snapshot_path.clone(), Some(memory.clone())),
        };
        Ok(Loaded {
            file,
            pager,
            machine,
        })
    }

    /// Was it asked in words that are on their way out?
    pub fn is_deprecated(&self) -> bool {
        self.mem_file_path.is_some()
    }
}

/// What is noted in a file, and whether there is nothing else. The file with its memory is the one that was saved with it.
fn read(path: &Path, memory: Option<&Path>) -> Result<(Machine, bool), Fault> {
    let fault = |why: &dyn std::fmt::Display| {
        Fault(format!("Load snapshot error: `{}`: {why}", path.display()))
    };
    let opened = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path);
    let file = opened.map_err(|error| fault(&error))?;
    let found = file.metadata().map_err(|error| fault(&error))?;
    if found.uid() != 0 && found.uid() != geteuid().as_raw() {
        return Err(fault(
            &"it is another user's, and says which files of this host a VM gets",
        ));
    }
    let (mut text, mut is_alone) = (Vec::new(), false);
    match noted_in(&file) {
        Ok(note) => {
            text = note.unwrap_or_default();
            if let Some(memory) = memory.filter(|memory| is_of_another(memory, &file, &text)) {
                let memory = memory.display();
                return Err(fault(&format!(
                    "`{memory}` was saved at another time, and would go on from there: name the memory of that snapshot, and put a Diff \
                     into the file before"
                )));
            }
        }
        Err(snapshot::Fault::Foreign | snapshot::Fault::Short) => {
            is_alone = true;
            let read = file.take(MOST_BYTES + 1).read_to_end(&mut text);
            read.map_err(|error| fault(&error))?;
        }
        Err(other) => return Err(fault(&other)),
    }
    if text.len() as u64 > MOST_BYTES {
        return Err(fault(&"it is longer than any that was saved here"));
    }
    let manifest: Manifest = serde_json::from_slice(&text)
        .map_err(|error| fault(&format!("it is none that was saved here: {error}")))?;
    match manifest.kvmlet_snapshot {
        FORM => Ok((manifest.vm, is_alone)),
        other => Err(fault(&format!("its form is {other}, and {FORM} is known"))),
    }
}

/// Was this memory saved with another VM, or at another time, than that beginning with its note? What cannot be read is told of by
/// who goes on from it.
fn is_of_another(memory: &Path, state: &File, note: &[u8]) -> bool {
    let memory = regular::open(memory).and_then(|memory| beginning(&memory, note));
    memory.is_ok_and(|expected| {
        let mut found = vec![0; expected.len()];
        let read = state.read_exact_at(&mut found, 0);
        read.is_err() || found != expected
    })
}

/// The words of `kvmlet restore` that say what a VM's disks, interfaces and sockets are here.
pub fn words(machine: &Machine, pager: Option<&Path>) -> Result<Vec<String>, Fault> {
    let mut words = Vec::new();
    let pages = match machine.machine_config.huge_pages {
        HugePages::None => "off",
        HugePages::Transparent => "transparent",
        HugePages::Hugetlbfs2M => "reserved",
    };
    words.extend(["--huge-pages".to_owned(), pages.to_owned()]);
    if let Some(path) = pager {
        let path = path.to_str();
        let path = path.ok_or_else(|| Fault("The path of the socket is not UTF-8.".into()))?;
        words.push(format!("--memory-from={path}"));
    }
    let mut drives: Vec<&Drive> = machine.drives.iter().collect();
    drives.sort_by_key(|drive| !drive.is_root_device);
    for drive in drives {
        words.extend(["--disk".to_owned(), disk_words(&description::disk(drive)?)]);
    }
    for interface in &machine.network_interfaces {
        words.extend(["--net".to_owned(), net_words(interface)?]);
    }
    if let Some(Vsock { uds_path, .. }) = &machine.vsock {
        let path = doubled(&uds_path.to_string_lossy());
        words.extend(["--vsock".to_owned(), format!("path={path}")]);
    }
    Ok(words)
}

/// A comma in a value is written twice.
fn doubled(text: &str) -> String {
    text.replace(',', ",,")
}

fn disk_words(disk: &Disk) -> String {
    let path = disk
        .source
        .path()
        .map(|path| path.to_string_lossy().into_owned());
    let mut words = format!("path={}", doubled(&path.unwrap_or_default()));
    if disk.read_only {
        words.push_str(",ro");
    }
    words.push_str(match disk.io {
        kvmlet_spec::DiskIo::Sync => ",io=sync",
        kvmlet_spec::DiskIo::IoUring => ",io=io_uring",
        kvmlet_spec::DiskIo::Auto => "",
    });
    words
        + &limit_words(
            disk.rate_limit,
            ["bandwidth", "burst", "once"],
            ["iops", "iops-burst", "iops-once"],
        )
}

fn net_words(interface: &NetworkInterface) -> Result<String, Fault> {
    let limit = |limiter: Option<RateLimiter>, way: &str| {
        let names = |names: [&str; 3]| names.map(|name| format!("{way}-{name}"));
        let (bytes, packets) = (
            names(["bandwidth", "burst", "once"]),
            names(["packets", "packets-burst", "packets-once"]),
        );
        let bytes: [&str; 3] = std::array::from_fn(|place| &*bytes[place]);
        let packets: [&str; 3] = std::array::from_fn(|place| &*packets[place]);
        Ok(limit_words(description::limit(limiter)?, bytes, packets))
    };
    let receive = limit(interface.rx_rate_limiter, "rx")?;
    let transmit = limit(interface.tx_rate_limiter, "tx")?;
    let tap = doubled(&interface.host_dev_name);
    Ok(format!("tap={tap}{receive}{transmit}"))
}

fn limit_words(limit: RateLimit, bytes: [&str; 3], operations: [&str; 3]) -> String {
    let mut words = String::new();
    for (rate, [steady, burst, once]) in [(limit.bandwidth, bytes), (limit.operations, operations)]
    {
        let Some((per_second, most, first)) = rate.map(kvmlet_spec::Rate::parts) else {
            continue;
        };
        words.push_str(&format!(",{steady}={per_second},{burst}={most}"));
        if first > 0 {
            words.push_str(&format!(",{once}={first}"));
        }
    }
    words
}

/// What is noted in the first file of a VM.
pub(super) fn told(machine: &Machine) -> io::Result<Vec<u8>> {
    let vm = machine.clone();
    Ok(serde_json::to_vec(&Manifest {
        kvmlet_snapshot: FORM,
        vm,
    })?)
}
