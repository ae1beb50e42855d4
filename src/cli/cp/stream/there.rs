//! Whether there is a directory that an archive could go into.

use kvmlet_control::agent::{Agent, CopyError};
use std::io::{self, Write};

/// Looks whether a path of the guest is that of a directory: an archive goes into one that is there. The connection is of no
/// use afterwards.
pub fn is_directory(agent: &mut Agent, path: &[u8]) -> Result<(), CopyError> {
    let mut begun = Begun(false);
    let path = [path, b"/."].concat();
    match agent.pack(&path, &mut begun, None) {
        Err(error) if !begun.0 => Err(error),
        _ => Ok(()),
    }
}

/// Wants to know whether anything comes, and not what.
struct Begun(bool);

impl Write for Begun {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        self.0 = true;
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
