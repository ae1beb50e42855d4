//! Files that users name. A FIFO in the place of one would have whoever opens it wait for a writer.

use crate::standard_error;
use crate::wait::{self, Slot, Until};
use rustix::fs::{OFlags, fcntl_setfl};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

/// How long it is not said that somebody is waited for.
const UNSAID: Duration = Duration::from_millis(500);

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

/// Reads a file that need not be a regular one, up to `most` bytes: what a shell writes into a pipe (`<(...)`) is one, too. A FIFO
/// that nobody has opened for writing is not waited for.
///
/// # Errors
/// What opening and reading says, or that it is such a FIFO.
pub fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut options = File::options();
    options.read(true).custom_flags(libc::O_NONBLOCK);
    let mut file = options.open(path)?;
    let mut bytes = Vec::new();
    if file.metadata()?.file_type().is_fifo() {
        let mut begin = [0; 4096];
        match file.read(&mut begin[..most.min(4096) as usize]) {
            Ok(0) => return Err(io::Error::other("nobody writes to this pipe")),
            Ok(count) => bytes.extend_from_slice(&begin[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    fcntl_setfl(&file, OFlags::empty())?;
    file.take(most - bytes.len() as u64)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Do both paths name one file?
pub fn is_same(one: &Path, other: &Path) -> bool {
    let look = |path: &Path| path.metadata().ok().map(|it| (it.dev(), it.ino()));
    one == other || look(one).is_some_and(|it| look(other) == Some(it))
}

/// Opens what is read from its beginning to its end, which need not be a regular file. What a FIFO gives is waited for, and after a
/// while that is said; signals that end the process do so meanwhile.
///
/// # Errors
/// What opening says, or [`IsADirectory`](io::ErrorKind::IsADirectory).
pub fn stream(path: &Path) -> io::Result<File> {
    stream_and_tell(path, |line| standard_error::say(format_args!("{line}")))
}

fn stream_and_tell(path: &Path, tell: impl FnOnce(&str)) -> io::Result<File> {
    let mut options = File::options();
    options.read(true).custom_flags(libc::O_NONBLOCK);
    let file = options.open(path)?;
    let kind = file.metadata()?.file_type();
    if kind.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    // Who has never had a writer is not broken, either (pipe_poll in Linux fs/pipe.c).
    let comes = Slot::readable(file.as_fd());
    if kind.is_fifo() && !wait::one(comes, Until::after(UNSAID))? {
        let path = path.display();
        tell(&format!(
            "kvmlet: nothing comes by the pipe `{path}` yet: it is waited for"
        ));
        wait::one(comes, Until::Forever)?;
    }
    fcntl_setfl(&file, OFlags::empty())?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    use std::sync::mpsc;

    #[test]
    fn a_pipe_is_read_that_somebody_writes_to() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("fifo");
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let said = read(&path, 10).unwrap_err().to_string();
        assert_eq!(said, "nobody writes to this pipe");
        // As a shell has it: it is open for writing, and filled later.
        let (reader, mut writer) = io::pipe().unwrap();
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&reader));
        let writing = std::thread::spawn(move || {
            for part in [&b"so"[..], b"me", b" text"] {
                std::thread::sleep(std::time::Duration::from_millis(5));
                let _ = io::Write::write_all(&mut writer, part);
            }
        });
        assert_eq!(read(Path::new(&path), 8).unwrap(), b"some tex");
        writing.join().unwrap();
        let file = place.path().join("file");
        std::fs::write(&file, "text").unwrap();
        for (most, expected) in [(0, &b""[..]), (3, b"tex"), (9, b"text")] {
            assert_eq!(read(&file, most).unwrap(), expected);
        }
        assert!(read(place.path(), 9).is_err());
    }

    #[test]
    fn whoever_writes_to_a_pipe_later_is_waited_for_and_that_is_said() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("fifo");
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let (said, saying) = mpsc::channel();
        let writer = path.clone();
        let writing = std::thread::spawn(move || {
            let said: String = saying.recv().unwrap();
            std::fs::write(writer, "text").unwrap();
            said
        });
        let file = stream_and_tell(&path, move |line| said.send(line.into()).unwrap());
        assert_eq!(io::read_to_string(file.unwrap()).unwrap(), "text");
        let said = writing.join().unwrap();
        assert!(said.contains("/fifo` yet: it is waited for"), "{said}");
        // What is there is not spoken of.
        let file = place.path().join("file");
        std::fs::write(&file, "text").unwrap();
        let file = stream_and_tell(&file, |line| panic!("{line}")).unwrap();
        assert_eq!(io::read_to_string(file).unwrap(), "text");
        let failed = |path: &Path| stream(path).unwrap_err().kind();
        assert_eq!(failed(place.path()), io::ErrorKind::IsADirectory);
        assert_eq!(failed(&place.path().join("none")), io::ErrorKind::NotFound);
    }

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
