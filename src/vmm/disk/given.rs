//! Disks that whoever starts a VM has open.

use super::lock::lock;
use super::{DiskFile, Error, check_kind, refuse_host_use};
use rustix::fs::{OFlags, fcntl_getfl};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

impl DiskFile {
    /// Locks a disk that somebody has opened, and measures it, as if it had been opened by its path; `path` is what it is
    /// called. It is opened anew where this user may do that, so that its lock is of this value alone. Otherwise it is used as
    /// it is, and its lock is of all who have it open so (fcntl(2)).
    ///
    /// # Errors
    /// As [`open`](Self::open), and when it is not open for what is to be done with it.
    pub fn given(
        descriptor: OwnedFd,
        path: &Path,
        read_only: bool,
        direct: bool,
    ) -> Result<Self, Error> {
        let refused = |why| Error::Given {
            path: path.into(),
            why,
        };
        let flags = fcntl_getfl(&descriptor).map_err(|_| refused("is not open"))?;
        match flags & (OFlags::ACCMODE | OFlags::PATH) {
            OFlags::RDWR => {}
            OFlags::RDONLY if read_only => {}
            _ if read_only => return Err(refused("is not open for reading")),
            _ => return Err(refused("is not open for reading and writing")),
        }
        let at = PathBuf::from(format!("/proc/self/fd/{}", descriptor.as_raw_fd()));
        match Self::open_at(&at, path, read_only, direct) {
            Err(Error::Open { source, .. }) if is_forbidden(&source) => {}
            opened => return opened,
        }
        if !read_only && flags.contains(OFlags::APPEND) {
            return Err(refused("is open for appending (O_APPEND)"));
        }
        if direct || flags.contains(OFlags::DIRECT) {
            return Err(refused(
                "cannot be opened past the host's page cache by this user",
            ));
        }
        let file = File::from(descriptor);
        let found = file.metadata().map_err(|source| Error::Measure {
            path: path.into(),
            source,
        })?;
        let is_device = check_kind(&found, path)?;
        lock(&file, path, read_only)?;
        refuse_host_use(&file, path, is_device, read_only)?;
        Ok(Self {
            path: path.into(),
            file,
            is_device,
            direct: None,
        })
    }
}

/// May this user not open what is open, or is there no way to it in this place?
fn is_forbidden(error: &io::Error) -> bool {
    use io::ErrorKind::{NotFound, PermissionDenied};
    matches!(error.kind(), NotFound | PermissionDenied)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn given(file: File, read_only: bool) -> Result<DiskFile, String> {
        let given = DiskFile::given(file.into(), Path::new("data"), read_only, false);
        given.map_err(|error| {
            assert!(!error.help().to_string().is_empty());
            error.to_string()
        })
    }

    fn image() -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(4096).unwrap();
        file
    }

    #[test]
    fn a_disk_that_is_open_is_checked_as_one_with_a_path_is() {
        let image = image();
        let open = |write| File::options().read(true).write(write).open(image.path());
        let disk = given(open(true).unwrap(), false).unwrap();
        assert_eq!(
            (disk.path(), disk.bytes().unwrap()),
            (Path::new("data"), 4096)
        );
        // Not even by what it was given, which has no lock of its own.
        let error = given(open(true).unwrap(), true).unwrap_err();
        assert!(
            error.starts_with("disk `data` is in use already by"),
            "{error}"
        );
        drop(disk);
        let readers = [false, true].map(|write| given(open(write).unwrap(), true).unwrap());
        assert!(given(open(true).unwrap(), false).is_err());
        drop(readers);
        let why = "disk `data`, which was given open, is not open for reading";
        assert_eq!(
            given(open(false).unwrap(), false).unwrap_err(),
            format!("{why} and writing")
        );
        let writer = File::options().write(true).open(image.path()).unwrap();
        assert_eq!(given(writer, true).unwrap_err(), why);
        let error = given(File::open("/dev/null").unwrap(), true).unwrap_err();
        assert!(
            error.contains("neither a file nor a block device"),
            "{error}"
        );
        let error = given(File::open("/").unwrap(), true).unwrap_err();
        assert!(error.contains("a directory"), "{error}");
    }

    /// As a broker's, whose file is another user's.
    #[test]
    fn what_this_user_may_not_open_is_used_as_it_is() {
        let image = image();
        let open = |append| {
            let mut options = File::options();
            options.read(true).write(true).append(append);
            options.open(image.path()).unwrap()
        };
        let (first, second, third) = (open(false), open(false), open(true));
        let as_another = move || {
            // SAFETY: of this thread alone, which ends with the closure; no memory is involved.
            unsafe { libc::setfsuid(65534) };
            let opened = first.metadata().unwrap().ino();
            if File::open(format!("/proc/self/fd/{}", first.as_raw_fd())).is_ok() {
                return eprintln!("skipped: this user may not be another");
            }
            let again = first.try_clone().unwrap();
            let disk = given(first, false).unwrap();
            assert_eq!(disk.file.metadata().unwrap().ino(), opened);
            assert!(given(second, false).unwrap_err().contains("in use already"));
            let error = given(third, false).unwrap_err();
            assert!(error.contains("O_APPEND"), "{error}");
            let error = DiskFile::given(again.into(), Path::new("data"), false, true);
            let error = error.unwrap_err().to_string();
            assert!(error.contains("page cache"), "{error}");
        };
        std::thread::spawn(as_another).join().unwrap();
    }
}
