//! What is done in the guest of a VM, beside its service.

use super::{Client, Error, PATIENCE};
use kvmlet_control::agent::channel::{Ended, ProcessSpec};
use kvmlet_control::agent::{Agent, Execution, Owners, Process, Streams};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The guest of a VM of `kvmlet run`, in which programs are executed beside its service, and with which files are exchanged. Its
/// image needs nothing for that. Each call has a connection of its own, so there may be many at a time.
///
/// ```no_run
/// use kvmlet::control::{Client, Program, Streams};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = std::path::Path::new("/var/lib/kvmlet/instances/ID");
/// let guest = Client::to(&directory.join("control.sock"))?.guest();
/// let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
/// let program = Program {
///     arguments: vec!["nginx".into(), "-t".into()],
///     variables: vec![("PATH".into(), "/usr/sbin:/usr/bin".into())],
///     ..Program::default()
/// };
/// let mut streams = Streams { input: None, stdout: &mut stdout, stderr: &mut stderr };
/// let ended = guest.execute(&program, &mut streams, None)?;
/// println!("{} {}", ended.exit_code(), String::from_utf8_lossy(&stderr));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Guest {
    socket: PathBuf,
    patience: Duration,
}

impl Guest {
    /// The one that a socket leads to: `vsock` in the directory of an instance. Nobody is asked yet.
    #[must_use]
    pub fn at(socket: &Path) -> Self {
        Self {
            socket: socket.into(),
            patience: PATIENCE,
        }
    }

    /// The same, that has that long to answer and to start a program, and not 30 seconds.
    #[must_use]
    pub fn patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    fn agent(&self) -> Result<Agent, Error> {
        Agent::reach(&self.socket, self.patience).map_err(|source| Error::Unattached {
            path: self.socket.clone(),
            source,
        })
    }

    /// Has a program executed, passes its streams on, and returns how it has ended.
    ///
    /// # Errors
    /// [`Error::Unattached`] when the guest is not reached; [`Error::Guest`] when the program cannot be executed, or takes longer than
    /// `limit`. It is then killed with all of its process group.
    pub fn execute(
        &self,
        program: &ProcessSpec,
        streams: &mut Streams<'_>,
        limit: Option<Duration>,
    ) -> Result<Ended, Error> {
        Ok(self.agent()?.execute(program, streams, limit)?)
    }

    /// Has a program executed whose streams are taken as they come, and which is sent signals, and sizes of its terminal.
    ///
    /// # Errors
    /// As [`execute`](Self::execute).
    pub fn start(&self, program: &ProcessSpec) -> Result<Execution, Error> {
        Ok(Execution::start(self.agent()?, program, self.patience)?)
    }

    /// Copies what is at a path of the guest, a file or a tree, to one of this host: into the directory there or, if there is none, under
    /// that name. Nothing outside of it is touched, whatever the guest sends. A path that ends in `/.` is what is in that directory.
    ///
    /// # Errors
    /// [`Error::Unattached`], and [`Error::Copy`] when guest or host cannot. What was copied by then stays.
    pub fn copy_from(
        &self,
        path: impl AsRef<OsStr>,
        to: &Path,
        owners: Owners,
    ) -> Result<(), Error> {
        let path = path.as_ref().as_bytes();
        Ok(self.agent()?.copy_from(path, to, owners, None)?)
    }

    /// Copies what is at a path of this host to one of the guest, in the same way.
    ///
    /// # Errors
    /// As [`copy_from`](Self::copy_from).
    pub fn copy_to(
        &self,
        from: &Path,
        path: impl AsRef<OsStr>,
        owners: Owners,
    ) -> Result<(), Error> {
        let path = path.as_ref().as_bytes();
        Ok(self.agent()?.copy_to(from, path, owners, None)?)
    }

    /// Its processes, in no order.
    ///
    /// # Errors
    /// As [`execute`](Self::execute).
    pub fn processes(&self) -> Result<Vec<Process>, Error> {
        Ok(self.agent()?.processes(self.patience)?)
    }
}

impl Client {
    /// The guest of an instance of `kvmlet run`, whose socket is beside the one that was named. Nobody is asked yet.
    #[must_use]
    pub fn guest(&self) -> Guest {
        Guest::at(&self.socket.with_file_name("vsock")).patience(self.patience)
    }
}
