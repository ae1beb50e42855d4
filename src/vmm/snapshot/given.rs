//! Snapshots in files that somebody else has opened.

use rustix::fs::{OFlags, fcntl_getfl};
use std::fs::File;
use std::io;

/// Has a snapshot written by `fill` to a file that somebody has opened, and that is empty: from a snapshot that is there a VM
/// may go on, which has it mapped. It is whole and on the disk when this returns, and empty again where it is not.
///
/// # Errors
/// What `fill` says, or `unwritten` makes of what is wrong with the file, and of what the kernel does.
pub fn write_into<T, E>(
    file: &File,
    unwritten: impl Fn(io::Error) -> E,
    fill: impl FnOnce(&File) -> Result<T, E>,
) -> Result<T, E> {
    check(file).map_err(&unwritten)?;
    let filled = fill(file).and_then(|filled| {
        file.sync_all().map_err(&unwritten)?;
        Ok(filled)
    });
    if filled.is_err() {
        // What is wrong with it is told already.
        let _ = file.set_len(0);
    }
    filled
}

/// Looks whether a snapshot can be written there.
fn check(file: &File) -> io::Result<()> {
    let found = file.metadata()?;
    let flags = fcntl_getfl(file)?;
    let refuse = |why: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    match () {
        () if !found.is_file() => refuse("it is no regular file"),
        // What was written is read again for its checksums.
        () if flags & OFlags::RWMODE != OFlags::RDWR => {
            refuse("it is not open for reading and writing")
        }
        () if flags.contains(OFlags::APPEND) => refuse("it is open for appending"),
        () if found.len() != 0 => refuse("it is not empty"),
        () => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{MemfdFlags, memfd_create};
    use std::io::Write;

    fn written(file: &File) -> io::Result<()> {
        write_into(
            file,
            |error| error,
            |mut file| file.write_all(b"some").map(drop),
        )
    }

    #[test]
    fn only_what_is_empty_and_open_for_all_is_written_to() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("file");
        let open = |options: &mut std::fs::OpenOptions| options.create(true).open(&path).unwrap();
        let refused = |file: &File| written(file).unwrap_err().to_string();
        let writes = open(File::options().write(true));
        assert_eq!(refused(&writes), "it is not open for reading and writing");
        let reads = File::open(&path).unwrap();
        assert_eq!(refused(&reads), "it is not open for reading and writing");
        let appends = open(File::options().read(true).append(true));
        assert_eq!(refused(&appends), "it is open for appending");
        let null = File::options().read(true).write(true).open("/dev/null");
        assert_eq!(refused(&null.unwrap()), "it is no regular file");
        let directory = File::open(place.path()).unwrap();
        assert_eq!(refused(&directory), "it is no regular file");

        let file = open(File::options().read(true).write(true));
        written(&file).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"some");
        assert_eq!(refused(&file), "it is not empty");
        assert_eq!(std::fs::read(&path).unwrap(), b"some");
        written(
            &memfd_create("snapshot", MemfdFlags::CLOEXEC)
                .unwrap()
                .into(),
        )
        .unwrap();
    }

    #[test]
    fn what_does_not_become_whole_is_empty_again() {
        let mut file: File = memfd_create("snapshot", MemfdFlags::CLOEXEC)
            .unwrap()
            .into();
        let failed = write_into(
            &file,
            |error| error.to_string(),
            |mut file| {
                file.write_all(b"half").unwrap();
                Err::<(), _>("it ended".into())
            },
        );
        assert_eq!(failed.unwrap_err(), "it ended");
        assert_eq!(file.metadata().unwrap().len(), 0);
        // Somebody else's, which is left as it is.
        file.write_all(b"mine").unwrap();
        written(&file).unwrap_err();
        assert_eq!(file.metadata().unwrap().len(), 8);
    }
}
