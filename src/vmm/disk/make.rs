//! A disk with a file system of its own, made where there is none yet.

use super::Error;
use kvmlet_sys::directory::Directory;
use kvmlet_sys::interrupt;
use kvmlet_sys::temporary::Temporary;
use std::fs::Metadata;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// e2fsprogs, by where distributions have it: whose program this is must not be up to an environment.
const PROGRAMS: [&str; 4] = [
    "/usr/sbin/mke2fs",
    "/sbin/mke2fs",
    "/usr/bin/mke2fs",
    "/bin/mke2fs",
];

/// Makes a file of that size, in bytes, with an empty ext4 file system, unless there is something of that name. The file is
/// sparse, this user's alone, and has its name once it is whole. Returns the size of a file that is there already.
///
/// # Errors
/// Names the file and what is missing; nothing is left behind then.
pub fn make_ext4(path: &Path, bytes: u64) -> Result<Option<u64>, Error> {
    make_with(&PROGRAMS, path, bytes)
}

fn make_with(programs: &[&str], path: &Path, bytes: u64) -> Result<Option<u64>, Error> {
    if path.symlink_metadata().is_ok() {
        let file = path.metadata().ok().filter(Metadata::is_file);
        return Ok(file.map(|file| file.len()));
    }
    let failed = |source| Error::Make {
        path: path.into(),
        source,
    };
    let Some(program) = programs.iter().find(|program| Path::new(program).exists()) else {
        return Err(Error::MakerMissing { path: path.into() });
    };
    let name = path
        .file_name()
        .ok_or_else(|| failed(io::ErrorKind::InvalidFilename.into()))?;
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let parent = parent.canonicalize().map_err(failed)?;
    let directory = Directory::open(&parent).map_err(failed)?;
    let mut temporary = Temporary::private(&directory).map_err(failed)?;
    let file = temporary.file();
    file.set_len(bytes).map_err(failed)?;
    // The file may have no name yet; this leads to it.
    let place = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
    let mut command = Command::new(program);
    command.args(["-q", "-F", "-t", "ext4", &place]).env_clear();
    let output = run(command).map_err(failed)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).replace(&place, "the disk");
        let said = said.lines().map(str::trim).filter(|line| !line.is_empty());
        return Err(Error::Maker {
            path: path.into(),
            said: said.collect::<Vec<_>>().join("; "),
        });
    }
    file.sync_all().map_err(failed)?;
    match temporary.publish_new(Path::new(name)) {
        // Somebody else was quicker, and theirs is as good.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
        other => other.map(|()| None).map_err(failed),
    }
}

/// How often it is looked whether a program has ended.
const LOOK: Duration = Duration::from_millis(5);

/// Runs a program that says little, and ends it when a signal ends this process.
fn run(mut command: Command) -> io::Result<Output> {
    command.stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    while child.try_wait()?.is_none() {
        if let Err(interrupted) = interrupt::check() {
            child.kill()?;
            child.wait()?;
            return Err(interrupted.into());
        }
        std::thread::sleep(LOOK);
    }
    child.wait_with_output()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{DiskFile, GuestMount};
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_disk_is_made_once_and_sparse() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("a scratch");
        assert_eq!(make_ext4(&path, 1 << 30).unwrap(), None);
        let made = path.metadata().unwrap();
        assert_eq!((made.len(), made.mode() & 0o7777), (1 << 30, 0o600));
        assert!(made.blocks() * 512 < 64 << 20, "{}", made.blocks());
        let disk = DiskFile::open(&path, false, false).unwrap();
        disk.refuse_unmountable(GuestMount::Scratch).unwrap();
        assert_eq!(make_ext4(&path, 2 << 30).unwrap(), Some(1 << 30));
        assert_eq!(
            (path.metadata().unwrap().ino(), disk.bytes().unwrap()),
            (made.ino(), 1 << 30)
        );
        assert_eq!(place.path().read_dir().unwrap().count(), 1);
    }

    #[test]
    fn what_cannot_be_made_leaves_nothing() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("scratch");
        let error = make_with(&["/nowhere/mke2fs"], &path, 1 << 30).unwrap_err();
        assert!(error.help().to_string().contains("e2fsprogs"), "{error}");
        let error = make_ext4(&path, 1024).unwrap_err();
        assert!(
            matches!(&error, Error::Maker { said, .. } if !said.is_empty()),
            "{error}"
        );
        let error = make_ext4(&place.path().join("none/scratch"), 1 << 30).unwrap_err();
        assert!(error.to_string().contains("none/scratch"), "{error}");
        assert_eq!(place.path().read_dir().unwrap().count(), 0);
        // What is there is never replaced, a link that leads nowhere neither.
        std::os::unix::fs::symlink("nothing", &path).unwrap();
        make_ext4(&path, 1 << 30).unwrap();
        assert_eq!(path.read_link().unwrap(), Path::new("nothing"));
    }
}
