//! Block device (virtio 1.2 §5.2) on a raw image file, a block device or ranges of files of the host.
//!
//! [`BlockDevice`] is the front. Each queue has a thread of its own, because then queues share no lock and no
//! ring, and a guest with several vCPUs gets as many paths to its disk; a disk has one queue unless its user
//! asks for more. The thread makes its back end: an io_uring, or plain system calls where the host allows none, or both
//! for a disk in the page cache; when it is started before the guest, because it may be confined then, or else when the first request comes.

mod backend;
mod buffers;
mod flight;
mod handle;
mod job;
mod layout;
mod request;
mod worker;

pub use handle::BlockHandle;

use super::rate_limiter::RateLimiter;
use super::{
    Activation, DeviceSpec, DeviceState, DeviceType, Halted, QueueState, VirtioDevice, Worker,
    WorkerThread, foreign_state, places,
};
use crate::config::{Advice, Cache, Disk, DiskIo, DiskSource, Remedy, Setting, advice};
use crate::disk::{self, DiskExtents, DiskFile, GuestMount};
use crate::thread::ThreadKind;
use backend::{FileMedium, Ground, Medium, Shelf};
use handle::{Counters, Shared};
use kvmlet_sys::ring;
use layout::{ConfigSpace, SECTOR_BYTES, WRITEBACK_OFFSET, feature};
use request::ID_BYTES;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use worker::QueueServer;

/// Entries of a queue. Each may be a request in flight, with a list of as many segments at worst: 256 KiB.
const QUEUE_SIZE: u16 = 128;
/// Data segments in a request: what is left of a chain beside header and status.
const SEGMENTS: u16 = QUEUE_SIZE - 2;

/// Why a disk cannot be given to a VM.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file or device.
    #[error(transparent)]
    Disk(#[from] disk::Error),
    /// `io_uring` was asked for by name.
    #[error("disk `{disk}` cannot use io_uring on this host")]
    IoUring {
        /// The disk.
        disk: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The host gives no events for the disk's threads.
    #[error("the host gives no events for a disk's threads")]
    Events(#[source] io::Error),
    /// The device of a [`BlockHandle`] has ended.
    #[error("disk {name} is no longer in use")]
    Gone {
        /// The name by which the guest knew it.
        name: String,
    },
}

impl Remedy for Error {
    fn remedy(&self) -> Option<Advice> {
        Some(match self {
            Error::Disk(error) => error.help(),
            Error::Events(_) => "raise the limit of open files (`ulimit -n`)".into(),
            Error::Gone { .. } => "its VM has ended; start it again".into(),
            Error::IoUring { .. } => advice!(
                "see /proc/sys/kernel/io_uring_disabled and the seccomp profile; with {} plain system \
                 calls serve where there is no io_uring",
                (Setting::DiskIo, "auto")
            ),
        })
    }
}

/// A disk of a VM.
#[derive(Clone, Copy, Debug)]
pub struct DiskSpec<'a> {
    /// What the user asked for.
    pub disk: &'a Disk,
    /// Counts the disks of a VM from 0, for names.
    pub index: usize,
    /// What the guest's init is to mount it as.
    pub mount: Option<GuestMount>,
    /// The longest that its threads look for requests before they sleep for them.
    pub poll: Duration,
}

impl DeviceSpec for DiskSpec<'_> {
    type Device = BlockDevice;
    type Handle = BlockHandle;
    type Error = Error;

    /// Opens and locks the disk's file, which can be in use elsewhere, be empty, have nothing on it that the guest could
    /// mount as it should, or want what the host lacks.
    fn build(self) -> Result<(BlockDevice, BlockHandle), Error> {
        let Self {
            disk,
            index,
            mount,
            poll,
        } = self;
        let medium = match &disk.source {
            DiskSource::Path(path) => {
                let file = opened(disk, path)?;
                if disk.format.is_none() {
                    file.refuse_image_formats()
                        .map_err(|error| error.to_mount(mount))?;
                }
                mount.map_or(Ok(()), |mount| file.refuse_unmountable(mount))?;
                medium(file, disk)?
            }
            // Who names ranges knows what is in them, and nothing is written to them.
            DiskSource::Extents(_) if disk.given.is_some() => {
                return Err(not_given(disk, "is ranges of files, which have paths").into());
            }
            DiskSource::Extents(extents) => {
                let extents = DiskExtents::open(extents, disk.direct)?;
                mount.map_or(Ok(()), |mount| extents.refuse_unmountable(mount))?;
                medium(extents, disk)?
            }
        };
        let limiter = RateLimiter::new(disk.rate_limit);
        BlockDevice::on(medium, limiter, disk, index, poll)
    }
}

/// A file or device, by its path unless it is open already.
fn opened(disk: &Disk, path: &Path) -> Result<DiskFile, disk::Error> {
    let Some(given) = &disk.given else {
        return DiskFile::open(path, disk.read_only, disk.direct);
    };
    let descriptor = given.take();
    let descriptor = descriptor.ok_or_else(|| not_given(disk, "was taken by another VM"))?;
    DiskFile::given(descriptor, path, disk.read_only, disk.direct)
}

fn not_given(disk: &Disk, why: &'static str) -> disk::Error {
    let path = disk.source.to_string().into();
    disk::Error::Given { path, why }
}

/// What a disk's back ends come from, where the host has what was asked for.
fn medium(ground: impl Ground, disk: &Disk) -> Result<Arc<dyn Medium>, Error> {
    if disk.io == DiskIo::IoUring {
        ring::new(1, ground.kind()).map_err(|source| Error::IoUring {
            disk: disk.source.to_string(),
            source,
        })?;
    }
    Ok(Arc::new(FileMedium {
        ground: Arc::new(ground),
        io: disk.io,
    }))
}

/// What a driver has made of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockState {
    /// Writes may stay in a cache until a flush.
    pub writeback: bool,
}

/// The front of a disk.
pub struct BlockDevice {
    shared: Arc<Shared>,
    medium: Arc<dyn Medium>,
    cache: Cache,
    queue_sizes: Vec<u16>,
    /// What the driver accepted, while active.
    negotiated: u64,
    /// One for each queue.
    workers: Vec<Worker<QueueServer>>,
    shelves: Vec<Shelf>,
}

impl BlockDevice {
    fn on(
        medium: Arc<dyn Medium>,
        limiter: RateLimiter,
        config: &Disk,
        index: usize,
        poll: Duration,
    ) -> Result<(Self, BlockHandle), Error> {
        let bytes = medium.bytes()?;
        let name = name(index);
        let queues = config.queues.get();
        let shelves: Vec<Shelf> = (0..queues).map(|_| Shelf::default()).collect();
        let workers = (0..)
            .zip(&shelves)
            .map(|(number, shelf): (u16, _)| {
                let worker = Worker::new(format!("{name}.{number}"), ThreadKind::Block)?;
                let (name, medium, shelf) = (name.clone(), medium.clone(), shelf.clone());
                Ok(worker.prepared(move || shelf.put(medium.backend(&name, QUEUE_SIZE))))
            })
            .collect::<io::Result<_>>()
            .map_err(Error::Events)?;
        if !bytes.is_multiple_of(SECTOR_BYTES) {
            let path = &config.source;
            let rest = bytes % SECTOR_BYTES;
            log::warn!(
                "disk `{path}` is {rest} B longer than whole sectors of {SECTOR_BYTES}, which {name} leaves out"
            );
        }
        let mut identity = [0; ID_BYTES];
        let id = match &config.id {
            Some(id) => id.as_str().to_owned(),
            None => format!("kvmlet-{index}"),
        };
        let length = id.len().min(ID_BYTES);
        identity[..length].copy_from_slice(&id.as_bytes()[..length]);
        let shared = Arc::new(Shared {
            name,
            identity,
            read_only: config.read_only,
            discards: !config.read_only && medium.can_punch(),
            medium: Arc::downgrade(&medium),
            capacity_sectors: AtomicU64::new(bytes / SECTOR_BYTES),
            writeback: AtomicBool::new(config.cache == Cache::WriteBack),
            limiter,
            counters: Counters::default(),
            poll,
            interrupt: OnceLock::new(),
        });
        let device = Self {
            shared: shared.clone(),
            medium,
            cache: config.cache,
            queue_sizes: vec![QUEUE_SIZE; queues.into()],
            negotiated: 0,
            workers,
            shelves,
        };
        Ok((device, BlockHandle(shared)))
    }

    fn start(&mut self, activation: Activation) -> io::Result<()> {
        let Activation {
            features,
            queues,
            interrupt,
            ..
        } = activation;
        // §5.2.2: without MQ there is one queue, whatever else was set up.
        let usable = match features & feature::MQ {
            0 => 1,
            _ => queues.len(),
        };
        for (number, queue) in queues.into_iter().take(usable).enumerate() {
            let Some(queue) = queue else { continue };
            let (shared, medium) = (self.shared.clone(), self.medium.clone());
            let shelf = self.shelves[number].clone();
            let server = QueueServer::new(queue, shared, medium, shelf)?;
            self.workers[number].work(server, &interrupt)?;
        }
        Ok(())
    }

    /// §5.2.5.2 and §5.2.6.2: with a switch the driver has its choice, without one it has a cache if and only
    /// if it can flush it.
    fn initial_writeback(&self, negotiated: u64) -> bool {
        self.cache == Cache::WriteBack && negotiated & feature::FLUSH != 0
    }
}

/// The name that Linux gives to its virtio disk of that number: `vda`, ..., `vdz`, `vdaa`.
fn name(index: usize) -> String {
    let mut letters = Vec::new();
    let mut rest = index + 1;
    while rest > 0 {
        letters.push(b'a' + ((rest - 1) % 26) as u8);
        rest = (rest - 1) / 26;
    }
    let letters: String = letters
        .iter()
        .rev()
        .map(|letter| char::from(*letter))
        .collect();
    format!("vd{letters}")
}

impl VirtioDevice for BlockDevice {
    fn device_type(&self) -> DeviceType {
        DeviceType::Block
    }

    fn name(&self) -> &str {
        &self.shared.name
    }

    fn features(&self) -> u64 {
        let mut features = feature::SEG_MAX | feature::BLK_SIZE | feature::TOPOLOGY;
        if self.queue_sizes.len() > 1 {
            features |= feature::MQ;
        }
        if self.shared.read_only {
            return features | feature::RO;
        }
        if self.cache == Cache::WriteBack {
            // Without these a driver knows that every write is durable.
            features |= feature::FLUSH | feature::CONFIG_WCE;
        }
        if self.shared.discards {
            features |= feature::DISCARD | feature::WRITE_ZEROES;
        }
        features
    }

    fn queue_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let space = ConfigSpace {
            capacity_sectors: self.shared.capacity_sectors.load(Ordering::Acquire),
            segments: SEGMENTS.into(),
            geometry: self.medium.geometry(),
            writeback: self.shared.writeback.load(Ordering::Acquire),
            queues: self.queue_sizes.len() as u16,
            discards: self.shared.discards,
        };
        let bytes = space.bytes();
        let rest = usize::try_from(offset)
            .ok()
            .and_then(|offset| bytes.get(offset..));
        for (to, from) in data.iter_mut().zip(rest.unwrap_or_default()) {
            *to = *from;
        }
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        if let (WRITEBACK_OFFSET, [value], true) =
            (offset, data, self.negotiated & feature::CONFIG_WCE != 0)
        {
            self.shared.writeback.store(*value != 0, Ordering::Release);
        }
    }

    fn activate(&mut self, activation: Activation) -> io::Result<()> {
        let writeback = match &activation.state {
            None => self.initial_writeback(activation.features),
            Some(DeviceState::Block(state)) => state.writeback,
            Some(_) => return Err(foreign_state()),
        };
        self.negotiated = activation.features;
        let shared = &self.shared;
        shared.writeback.store(writeback, Ordering::Release);
        let _ = shared.interrupt.set(activation.interrupt.clone());
        self.start(activation)
    }

    fn halt(&mut self) -> Halted {
        let servers = self.workers.iter_mut().filter_map(Worker::take);
        let queues = servers.map(QueueServer::into_queue);
        let writeback = self.shared.writeback.load(Ordering::Acquire);
        let state = DeviceState::Block(BlockState { writeback });
        Halted::new(queues, self.queue_sizes.len(), state)
    }

    fn look(&self) -> (Vec<Option<QueueState>>, DeviceState) {
        let looks = self.workers.iter();
        let states = looks.filter_map(|worker| worker.look(QueueServer::state));
        let writeback = self.shared.writeback.load(Ordering::Acquire);
        let state = DeviceState::Block(BlockState { writeback });
        (places(states, self.queue_sizes.len()), state)
    }

    fn limiters(&self) -> Vec<&RateLimiter> {
        vec![&self.shared.limiter]
    }

    fn reset(&mut self) {
        self.negotiated = 0;
        let writeback = self.cache == Cache::WriteBack;
        self.shared.writeback.store(writeback, Ordering::Release);
    }

    fn workers(&mut self) -> Vec<&mut dyn WorkerThread> {
        let each = |worker| worker as &mut dyn WorkerThread;
        self.workers.iter_mut().map(each).collect()
    }
}

#[cfg(test)]
mod tests;
