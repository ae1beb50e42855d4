//! Copying files between a host and a guest, whose agent packs and unpacks them, whatever its image has.

mod destination;
mod failure;
mod pack;
mod unpack;

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use kvmlet_contract::channel::{
    CHANGED_NAMES, CHANGES, Ended, MAX_MESSAGE, PACK, ProcessSpec, Role, UNPACK,
};

use super::processes::Bounded;
use super::{Agent, AgentError, Streams, readable};
pub use failure::{CopyError, Owners};
use pack::Packer;
use unpack::Unpacker;

impl Agent {
    /// Copies what is at a path of the guest to one of this host: into the directory there, under the last part of its path, or,
    /// if there is none, under that name. Nothing outside of it is touched, whatever the guest sends, and no symbolic link in it is followed.
    ///
    /// A path that ends in `/.` takes nothing but a directory, what is in which goes into that of the path. It is made if there
    /// is none; else it keeps its owner, mode and time. One that ends in `/`, where there is none, takes a directory alone, too.
    ///
    /// # Errors
    ///
    /// When guest or host cannot, or it takes longer than `limit`. What was copied by then stays.
    pub fn copy_from(
        &mut self,
        path: &[u8],
        to: &Path,
        owners: Owners,
        limit: Option<Duration>,
    ) -> Result<(), CopyError> {
        let mut unpacker = Unpacker::to(to, path, owners)?;
        let copied = self.pack(path, &mut unpacker, limit);
        // Its writer's failure is not the connection's.
        unpacker.failure()?;
        copied?;
        unpacker.finish()
    }

    /// Copies what is at a path of this host, and what a symbolic link there says, to one of the guest: into the directory
    /// there or, if there is none, under that name. A path of the guest that ends in `/.` is as that of
    /// [`copy_from`](Self::copy_from); one that ends in `/` has to be there.
    ///
    /// # Errors
    ///
    /// When guest or host cannot, or it takes longer than `limit`. What was copied by then stays.
    pub fn copy_to(
        &mut self,
        from: &Path,
        path: &[u8],
        owners: Owners,
        limit: Option<Duration>,
    ) -> Result<(), CopyError> {
        let packer = Packer::of(from, owners)?;
        let (input, output) = UnixStream::pair().map_err(AgentError::Io)?;
        std::thread::scope(|scope| {
            let packing = scope.spawn(move || packer.pack(output));
            let copied = self.unpack(path, &input, limit);
            // Whoever still writes is told that nobody reads.
            drop(input);
            match packing.join() {
                Ok(Err(failure)) => Err(failure),
                Ok(Ok(())) => copied,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Has what is at a path of the guest handed over as it comes: the records of an [archive](super::archive), which whoever takes them reads
    /// with the mind that they are a guest's.
    ///
    /// # Errors
    ///
    /// When guest or host cannot, or it takes longer than `limit`.
    pub fn pack(
        &mut self,
        path: &[u8],
        output: &mut dyn io::Write,
        limit: Option<Duration>,
    ) -> Result<(), CopyError> {
        self.tool(&[PACK.as_bytes(), path], None, output, limit)
    }

    /// Has the guest make files of the records of an [archive](super::archive), at a path as [`copy_to`](Self::copy_to) takes it.
    ///
    /// # Errors
    ///
    /// When guest or host cannot, or it takes longer than `limit`. What was copied by then stays.
    pub fn unpack(
        &mut self,
        path: &[u8],
        input: &UnixStream,
        limit: Option<Duration>,
    ) -> Result<(), CopyError> {
        let arguments = [UNPACK.as_bytes(), path];
        self.tool(&arguments, Some(input), &mut io::sink(), limit)
    }

    /// Has what the guest has changed of its root handed over as it comes, as [`channel::CHANGES`](super::channel::CHANGES) says,
    /// with the content of files or without. Whoever takes it reads it with the mind that it is a guest's.
    ///
    /// # Errors
    ///
    /// When its root is none that changes, guest or host cannot, or it takes longer than `limit`.
    pub fn changes(
        &mut self,
        content: bool,
        output: &mut dyn io::Write,
        limit: Option<Duration>,
    ) -> Result<(), CopyError> {
        let name = if content { CHANGES } else { CHANGED_NAMES };
        self.tool(&[name.as_bytes()], None, output, limit)
    }

    /// Has one of the agent's tools run to its end.
    fn tool(
        &mut self,
        arguments: &[&[u8]],
        input: Option<&UnixStream>,
        stdout: &mut dyn io::Write,
        limit: Option<Duration>,
    ) -> Result<(), CopyError> {
        let spec = ProcessSpec {
            arguments: arguments.iter().map(|it| (*it).into()).collect(),
            input: input.is_some(),
            ..ProcessSpec::default()
        };
        let mut complaint = Bounded::new(8 * MAX_MESSAGE);
        let mut streams = Streams {
            input: input.map(AsFd::as_fd),
            stdout,
            stderr: &mut complaint,
        };
        match self.run(&spec, Role::Tool, &mut streams, limit)? {
            Ended::Code(0) => Ok(()),
            ended => {
                let said = readable(complaint.bytes().trim_ascii_end());
                let said = said.strip_prefix("kvmlet-init: ").unwrap_or(&said);
                Err(CopyError::Guest(match said {
                    "" => format!("ended copying with exit code {}", ended.exit_code()),
                    said => said.to_string(),
                }))
            }
        }
    }
}

#[cfg(test)]
mod tests;
