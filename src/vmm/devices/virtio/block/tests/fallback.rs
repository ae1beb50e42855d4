//! A host that forbids io_uring.

use super::*;
use crate::config::Remedy;

/// Makes `io_uring_setup` fail with EPERM for this thread and those that it starts.
fn forbid_io_uring() {
    let instruction = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    let mut filter = [
        // The system call's number is the first field of `struct seccomp_data`.
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        instruction(
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            0,
            1,
            libc::SYS_io_uring_setup as u32,
        ),
        instruction(
            libc::BPF_RET | libc::BPF_K,
            0,
            0,
            libc::SECCOMP_RET_ERRNO | libc::EPERM as u32,
        ),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: both calls change only what this thread may do; the kernel copies the program.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let mode = libc::SECCOMP_MODE_FILTER;
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, mode, &program), 0);
    }
}

#[test]
fn plain_system_calls_serve_where_io_uring_is_forbidden() {
    let test = std::thread::spawn(|| {
        forbid_io_uring();
        assert!(ring::new(1, ring::Medium::File).is_err());
        let mut rig = Rig::on_file(|disk| disk.io = DiskIo::Auto);
        rig.write(8, &[0x77; 4096]);
        assert_eq!(rig.read(8, 8), [0x77; 4096]);
        assert_eq!(rig.status(FLUSH, 0, &[], 0), OK);
        // Asked for by name it is an error, at the start and not at the first request.
        let image = image();
        let mut disk = Disk::read_write(image.path());
        disk.io = DiskIo::IoUring;
        let error = open(&disk, 0).err().unwrap();
        assert!(matches!(error, Error::IoUring { .. }), "{error}");
        let path = image.path().to_str().unwrap();
        assert!(error.to_string().contains(path), "{error}");
        assert!(
            error
                .remedy()
                .unwrap()
                .to_string()
                .contains("io_uring_disabled")
        );
    });
    test.join().unwrap();
}
