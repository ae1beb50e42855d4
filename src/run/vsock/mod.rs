//! The host's side of sockets between guest and host, as Firecracker has it: a Unix socket to which programs connect and
//! write `CONNECT PORT`, and sockets beside it, with `_PORT` behind its name, on which programs listen.
//!
//! Whoever attends a VM has them. The VM's process opens nothing: it is handed streams that are connected.

mod channel;
mod error;
mod service;
mod socket_file;

pub use error::Error;

use channel::{HostEnd, VmEnd};
use kvmlet_host::shares::descriptors::Reserved;
use kvmlet_spec::Vsock;
use kvmlet_sys::thread::Serving;
use kvmlet_vmm::devices::virtio::vsock::{HostSide, MOST_CONNECTIONS};
use service::Service;
use socket_file::SocketFile;
pub use socket_file::SocketName;
use std::sync::Arc;

/// Connections that are to be possible at least.
const FEW: usize = 16;

/// The host's sockets of one VM. Dropping it removes the one that it has made; connections go on.
#[derive(Debug)]
pub struct Sockets {
    // Dropped first: the thread uses the others.
    thread: Option<Serving>,
    file: Option<Arc<SocketFile>>,
    host: Option<HostEnd>,
    vm: Option<Arc<VmEnd>>,
    _descriptors: Option<Reserved>,
}

impl Sockets {
    /// Makes the socket, which begins to listen; nobody is heard before it is [served](Self::serve).
    ///
    /// # Errors
    /// When it cannot be made, or one that is there lives.
    pub fn set_up(wanted: &Vsock) -> Result<Self, Error> {
        let (host, vm) = channel::pair()?;
        Ok(Self {
            thread: None,
            file: Some(Arc::new(SocketFile::make(&wanted.path)?)),
            host: Some(host),
            vm: Some(Arc::new(vm)),
            // With fewer there are fewer connections.
            _descriptors: Reserved::take(FEW, MOST_CONNECTIONS).ok(),
        })
    }

    /// What the VM's device takes. It may live in another process, and is gone here once this is served.
    pub fn far_end(&self) -> Option<Arc<dyn HostSide>> {
        self.vm.clone().map(|vm| vm as Arc<dyn HostSide>)
    }

    /// Begins to serve, in a thread of this process.
    ///
    /// # Errors
    /// When the host gives no thread.
    pub fn serve(&mut self) -> Result<(), Error> {
        self.vm = None;
        if let (Some(host), Some(file)) = (self.host.take(), &self.file) {
            let file = file.clone();
            let serve = move |stop| Service::new(&file, host, stop).run();
            self.thread = Some(Serving::start("vsock-host", serve)?);
        }
        Ok(())
    }

    /// Closes what another process has as well, which serves it.
    pub fn abandon(mut self) {
        if let Some(file) = self.file.take().and_then(Arc::into_inner) {
            file.abandon();
        }
    }
}
