//! Files of a bounded length, read as a whole.

use std::io::{self, Read};

/// Reads all that there is.
///
/// # Errors
/// [`FileTooLarge`](io::ErrorKind::FileTooLarge) when that is more than `most` bytes, and what reading says.
pub fn read(from: impl Read, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(most + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > most {
        true => Err(io::ErrorKind::FileTooLarge.into()),
        false => Ok(bytes),
    }
}
