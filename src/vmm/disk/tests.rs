//! Tests of disks with files.

use super::*;
use std::os::fd::AsRawFd;

fn image(bytes: u64) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(bytes).unwrap();
    file
}

fn open(path: &Path, read_only: bool) -> Result<DiskFile, String> {
    DiskFile::open(path, read_only, false).map_err(|error| {
        assert!(!error.help().to_string().is_empty());
        error.to_string()
    })
}

#[test]
fn one_writer_or_many_readers() {
    let image = image(4096);
    let path = image.path();
    let (name, pid) = (path.display(), std::process::id());
    let writer = open(path, false).unwrap();
    assert_eq!(
        open(path, false).unwrap_err(),
        format!("disk `{name}` is in use already by another disk of this process ({pid})")
    );
    assert_eq!(
        open(path, true).unwrap_err(),
        format!(
            "disk `{name}` is in use already by another disk of this process ({pid}), to be written to"
        )
    );
    drop(writer);
    let readers = (open(path, true).unwrap(), open(path, true).unwrap());
    assert!(open(path, false).unwrap_err().contains("in use"));
    drop(readers);
    assert!(open(path, false).is_ok());
}

#[test]
fn what_cannot_be_a_disk_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing.img");
    assert!(open(&missing, true).unwrap_err().contains("missing.img`"));
    assert!(open(&missing, false).unwrap_err().ends_with("for writing"));
    let error = open(directory.path(), true).unwrap_err();
    assert!(error.contains("is a directory, neither a file nor a block device"));
    let error = open(Path::new("/dev/null"), true).unwrap_err();
    assert!(error.contains("`/dev/null` is neither"));
    let empty = open(image(511).path(), true).unwrap().bytes().unwrap_err();
    assert!(matches!(empty, Error::Empty { .. }), "{empty}");
}

#[test]
fn a_disk_that_is_put_in_place_of_another_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk.img");
    let swap = directory.path().join("swap.img");
    for file in [&path, &swap] {
        std::fs::write(file, [0; 4096]).unwrap();
    }
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Whoever can write to its directory changes what the path leads to, again and again.
        scope.spawn(|| {
            let exchange = rustix::fs::RenameFlags::EXCHANGE;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let cwd = rustix::fs::CWD;
                rustix::fs::renameat_with(cwd, &path, cwd, &swap, exchange).unwrap();
            }
        });
        let since = std::time::Instant::now();
        let mut refused = 0;
        while refused < 3 && since.elapsed() < std::time::Duration::from_secs(20) {
            match DiskFile::open(&path, false, true) {
                Ok(disk) => {
                    let (direct, _) = disk.direct.as_ref().unwrap();
                    let [whole, direct] = [&disk.file, direct].map(|file| file.metadata().unwrap());
                    assert_eq!(
                        whole.ino(),
                        direct.ino(),
                        "one is locked, the other is written to"
                    );
                }
                Err(Error::Replaced { .. }) => refused += 1,
                // tmpfs has no O_DIRECT before Linux 6.6.
                Err(Error::Direct { .. }) => break,
                Err(error) => panic!("{error}"),
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn the_size_is_that_of_now() {
    let image = image(10_000);
    let disk = open(image.path(), true).unwrap();
    assert_eq!(disk.bytes().unwrap(), 10_000);
    image.as_file().set_len(20_480).unwrap();
    assert_eq!(disk.bytes().unwrap(), 20_480);
    assert_eq!(disk.geometry().logical_bytes, 512);
    assert_eq!(disk.geometry().physical_bytes, 4096);
}

#[test]
fn direct_transfers_need_alignment() {
    let image = tempfile::NamedTempFile::new().unwrap();
    image.as_file().set_len(1 << 20).unwrap();
    let disk = match DiskFile::open(image.path(), false, true) {
        Ok(disk) => disk,
        // tmpfs has no O_DIRECT before Linux 6.6.
        Err(error) => return assert!(matches!(error, Error::Direct { .. }), "{error}"),
    };
    let (direct, alignment) = disk.direct.as_ref().unwrap();
    let is_direct = |offset, bytes, aligned| {
        disk.descriptor(offset, bytes, |_| aligned).as_raw_fd() == direct.as_raw_fd()
    };
    let block = u64::from(alignment.offset);
    assert!(is_direct(block, 4 * block, true));
    assert!(!is_direct(block, 4 * block, false));
    assert!(!is_direct(block / 2, block, true));
    assert!(!is_direct(block, block / 2, true));
}

#[test]
fn a_compressed_disk_of_less_than_a_sector_is_no_empty_one() {
    let image = image(54);
    std::os::unix::fs::FileExt::write_all_at(image.as_file(), b"\x28\xb5\x2f\xfd", 0).unwrap();
    let disk = open(image.path(), true).unwrap();
    let error = disk.refuse_image_formats().unwrap_err();
    assert!(error.help().to_string().contains("zstd -d"), "{error}");
}

/// A VM that was killed is gone when the kernel has cleared away what it had.
#[test]
fn one_that_was_killed_is_waited_for() {
    let image = image(4096);
    let held = image.reopen().unwrap();
    assert!(kvmlet_sys::byte_lock::try_lock_all(&held, false).unwrap());
    let mut child = std::process::Command::new("sleep")
        .arg("600")
        .stdin(held)
        .spawn()
        .unwrap();
    let refused = open(image.path(), false).unwrap_err();
    assert!(
        refused.contains(&format!("process {} (", child.id())),
        "{refused}"
    );
    let pid = child.id() as libc::pid_t;
    // It stops on its way out, with all that it has (ptrace(2)).
    // SAFETY: numbers, of a child that has not been waited for.
    let traced = unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, 0, libc::PTRACE_O_TRACEEXIT) };
    assert_eq!(traced, 0, "{}", io::Error::last_os_error());
    child.kill().unwrap();
    let mut status = 0;
    // SAFETY: stores a number.
    assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
    assert!(libc::WIFSTOPPED(status), "{status:#x}");
    std::thread::scope(|scope| {
        let opened = scope.spawn(|| open(image.path(), false).map(drop));
        std::thread::sleep(std::time::Duration::from_millis(200));
        assert!(!opened.is_finished());
        // SAFETY: as above, by the thread that traces it.
        let left = unsafe { libc::ptrace(libc::PTRACE_DETACH, pid, 0, 0) };
        assert_eq!(left, 0, "{}", io::Error::last_os_error());
        assert_eq!(opened.join().unwrap(), Ok(()));
    });
    child.wait().unwrap();
}

/// As a VM's process is: the first one of its namespace, with the host's /proc.
#[test]
fn a_process_is_known_as_itself_in_a_namespace_of_its_own() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    crate::alone::alone(
        "disk::tests::a_process_is_known_as_itself_in_a_namespace_of_its_own",
        || {
            // Nobody else has it open.
            let path = image(4096).into_temp_path();
            match kvmlet_sys::process::fork(libc::CLONE_NEWPID, None).unwrap() {
                kvmlet_sys::process::Fork::Parent(child) => {
                    let ended = child.wait().unwrap();
                    assert_eq!(ended, kvmlet_sys::process::Ended::Exited(0));
                }
                kvmlet_sys::process::Fork::Child(_lifeline) => crate::alone::end(|| {
                    assert_eq!(std::process::id(), 1);
                    let first = open(&path, false).unwrap();
                    let refused = open(&path, false).unwrap_err();
                    assert!(
                        refused.contains("another disk of this process"),
                        "{refused}"
                    );
                    // The one that does not get it is not who has it.
                    let metadata = std::fs::metadata(&path).unwrap();
                    let own = first.file.as_raw_fd();
                    assert_eq!(Holder::of(&metadata, Some(own)), None);
                    drop(first);
                }),
            }
        },
    );
}

/// A guest that remembers its disk is let go on where nothing has been written since.
#[test]
fn who_looks_what_a_disk_can_do_does_not_write_to_it() {
    let file = image(1 << 20);
    let before = Stamp::of(&file).unwrap().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(20));
    let disk = DiskFile::open(file.path(), false, false).unwrap();
    assert!(disk.can_punch());
    assert_eq!(Stamp::of(&disk).unwrap().unwrap(), before);
}
