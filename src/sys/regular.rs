//! Files that have to be regular ones: a FIFO in their place would have whoever opens it wait for a writer.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Opens a regular file for reading, by whatever links lead to it.
///
/// # Errors
/// What opening says, [`IsADirectory`](io::ErrorKind::IsADirectory), or that it is something else that is no regular file.
pub fn open(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.read(true).custom_flags(libc::O_NONBLOCK);
    let file = options.open(path)?;
    let kind = file.metadata()?;
    if kind.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    match kind.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("not a regular file")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    #[test]
    fn nothing_else_is_opened_or_waited_for() {
        let place = tempfile::tempdir().unwrap();
        let at = |name| place.path().join(name);
        std::fs::write(at("file"), "text").unwrap();
        std::os::unix::fs::symlink("file", at("link")).unwrap();
        mknodat(CWD, at("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        assert_eq!(
            io::read_to_string(open(&at("link")).unwrap()).unwrap(),
            "text"
        );
        let failed = |path: &Path| open(path).unwrap_err();
        assert_eq!(failed(&at("fifo")).to_string(), "not a regular file");
        assert_eq!(
            failed(Path::new("/dev/null")).to_string(),
            "not a regular file"
        );
        assert_eq!(failed(place.path()).kind(), io::ErrorKind::IsADirectory);
        assert_eq!(failed(&at("none")).kind(), io::ErrorKind::NotFound);
    }
}
