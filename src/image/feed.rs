//! What a process that takes archives apart is fed with.

use std::io::{self, Read, Write};

const PIECE: usize = 256 << 10;

/// Passes all of an archive on, or as much as the process wants: why it wants no more, it says itself.
///
/// # Errors
/// When the archive cannot be read, or the process cannot be written to.
pub fn feed(archive: &mut impl Read, input: &mut impl Write) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        let count = match archive.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        match input.write_all(&piece[..count]) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            other => other?,
        }
    }
}
