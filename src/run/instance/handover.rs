//! What a program hands to the supervisor that it starts: descriptors by their numbers, the configuration in a file that is
//! in memory only.
//!
//! The process is known by the name that it is called by, which no user types. What it is told is believed, for whoever
//! starts a program decides what that does; unless the program has more rights than its starter.

use super::{Surroundings, Verbosity};
use crate::Error;
use kvmlet_control::{Channel, LONGEST};
use kvmlet_spec::{Given, VmConfig};
use kvmlet_sys::sealed::sealed;
use kvmlet_sys::{environment, process};
use rustix::net::SocketType;
use rustix::net::sockopt::socket_type;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// What such a process is called.
const NAME: &str = "kvmlet-instance";
/// More than any configuration has.
const CONFIG_BYTES: u64 = 8 * LONGEST as u64;

/// All but the channel, on its way.
pub(super) struct Handover {
    config: File,
    outcome: Option<PathBuf>,
    control: Option<PathBuf>,
    outlives: bool,
    verbosity: Verbosity,
    /// What the VM's devices are given, in their order.
    given: Vec<(&'static str, String, OwnedFd)>,
}

/// What stands before a path that is handed over.
const OUTCOME: &str = "outcome";
const CONTROL: &str = "control";
/// What stands before the number of a device and that of a descriptor.
const DISK: &str = "disk";
const INTERFACE: &str = "interface";

impl Handover {
    pub fn new(config: &VmConfig, surroundings: &Surroundings) -> Result<Self, Error> {
        let json = config
            .to_json()
            .map_err(|error| Error::Vm(kvmlet_vmm::vm::Error::Config(error)))?;
        Ok(Self {
            config: sealed("kvmlet-config", json.as_bytes()).map_err(Error::handing)?,
            outcome: surroundings.outcome.clone(),
            control: surroundings.control.clone(),
            outlives: surroundings.outlives,
            verbosity: surroundings.verbosity,
            given: given(config)?,
        })
    }

    /// Starts this program's executable anew.
    pub fn start(self, channel: Channel, surroundings: Surroundings) -> Result<Child, Error> {
        let (channel, config) = (OwnedFd::from(channel), OwnedFd::from(self.config));
        let kept = [channel.as_raw_fd(), config.as_raw_fd()];
        let given = self.given.iter().flat_map(|(what, of, descriptor)| {
            let descriptor = descriptor.as_raw_fd();
            [(*what).to_owned(), format!("{of},{descriptor}")]
        });
        let paths = [(OUTCOME, self.outcome), (CONTROL, self.control)];
        let paths = paths.into_iter().filter_map(|(what, path)| {
            let path = path?.into_os_string();
            Some([OsString::from(what), path])
        });
        let mut command = Command::new("/proc/self/exe");
        command
            .arg0(NAME)
            .args(kept.map(|fd| fd.to_string()))
            .arg(u8::from(self.outlives).to_string())
            .arg((self.verbosity as u8).to_string())
            .args(paths.flatten())
            .args(given)
            .stdin(surroundings.input.map_or(Stdio::null(), Stdio::from))
            .stdout(surroundings.output.map_or(Stdio::null(), Stdio::from))
            .stderr(surroundings.log.map_or(Stdio::inherit(), Stdio::from))
            // What a terminal sends to this program's group is not for its VMs.
            .process_group(0);
        let given = self.given.iter().map(|(.., descriptor)| descriptor);
        let kept: Vec<RawFd> = kept
            .into_iter()
            .chain(given.map(AsRawFd::as_raw_fd))
            .collect();
        let keep = move || kept.iter().copied().try_for_each(process::keep);
        // SAFETY: between fork and exec it makes two system calls, and touches no memory but its own.
        unsafe { command.pre_exec(keep) };
        command.spawn().map_err(|source| Error::Host {
            what: "a process for the supervisor",
            source,
        })
    }
}

/// What the devices of a VM are given, which is this program's no more.
fn given(config: &VmConfig) -> Result<Vec<(&'static str, String, OwnedFd)>, Error> {
    let disks = config.disks.iter().enumerate();
    let disks = disks.flat_map(|(of, disk)| disk.given.iter().map(move |it| (DISK, of, it)));
    let nets = config.nets.iter().enumerate();
    let nets = nets.flat_map(|(of, net)| net.given.iter().map(move |it| (INTERFACE, of, it)));
    let taken = disks.chain(nets).map(|(what, of, given)| {
        let descriptor = given.take().ok_or(Error::Given { what, of })?;
        Ok((what, of.to_string(), descriptor))
    });
    taken.collect()
}

/// What has arrived.
pub(super) struct Received {
    pub config: Result<VmConfig, Error>,
    pub channel: Channel,
    pub outlives: bool,
    pub verbosity: Verbosity,
    pub outcome: Option<PathBuf>,
    pub control: Option<PathBuf>,
}

/// What was handed to this process, if it is one that was started for an instance.
pub(super) fn received() -> Option<Result<Received, Error>> {
    let mut words = kvmlet_sys::arguments::all();
    (words.next()? == NAME).then(|| take(words))
}

fn take(mut words: impl Iterator<Item = OsString>) -> Result<Received, Error> {
    let no = || Error::handing(io::ErrorKind::InvalidInput);
    // It would do with its own rights what whoever has started it says.
    if environment::is_privileged_by_file() {
        return Err(Error::handing(io::ErrorKind::PermissionDenied));
    }
    let mut number = || -> Option<RawFd> { words.next()?.to_str()?.parse().ok() };
    let mut next = || number().ok_or_else(no);
    let (channel, config, outlives, verbosity) = (next()?, next()?, next()?, next()?);
    let (mut outcome, mut control, mut given) = (None, None, Vec::new());
    while let (Some(what), Some(path)) = (words.next(), words.next()) {
        match what.to_str() {
            Some(OUTCOME) => outcome = Some(PathBuf::from(path)),
            Some(CONTROL) => control = Some(PathBuf::from(path)),
            Some(what @ (DISK | INTERFACE)) => {
                let numbers = path.to_str().and_then(|path| path.split_once(','));
                let (of, descriptor) = numbers.ok_or_else(no)?;
                let descriptor = own(descriptor.parse().map_err(|_| no())?)?;
                let of: usize = of.parse().map_err(|_| no())?;
                given.push((what == DISK, of, Given::from(descriptor)));
            }
            _ => return Err(no()),
        }
    }
    let (channel, config) = (own(channel)?, own(config)?);
    if socket_type(&channel).map_err(Error::handing)? != SocketType::SEQPACKET {
        return Err(no());
    }
    let mut json = String::new();
    let mut config = File::from(config).take(CONFIG_BYTES);
    config.read_to_string(&mut json).map_err(Error::handing)?;
    let mut config = VmConfig::from_json(&json);
    if let Ok(config) = &mut config {
        for (is_disk, of, given) in given {
            let disk = config.disks.get_mut(of).filter(|_| is_disk);
            let net = config.nets.get_mut(of).filter(|_| !is_disk);
            match (disk, net) {
                (Some(disk), _) => disk.given = Some(given),
                (None, Some(net)) => net.given.push(given),
                (None, None) => return Err(no()),
            }
        }
    }
    Ok(Received {
        config: config.map_err(|error| Error::Vm(kvmlet_vmm::vm::Error::Config(error))),
        channel: channel.into(),
        outlives: outlives != 0,
        verbosity: match verbosity {
            0 => Verbosity::Warnings,
            1 => Verbosity::Steps,
            _ => Verbosity::Details,
        },
        outcome,
        control,
    })
}

/// A descriptor that this process was started with.
fn own(fd: RawFd) -> Result<OwnedFd, Error> {
    if fd <= libc::STDERR_FILENO {
        return Err(Error::handing(io::ErrorKind::InvalidInput));
    }
    process::inherited(fd).map_err(Error::handing)
}
