//! Items of a file system, found by an open directory and one name in it, so that no symbolic link is followed.

use core::ffi::CStr;

use kvmlet_contract::archive::{Modified, Owner};
use linux_raw_sys::general::*;

use super::{Errno, File, syscall};

/// What is known of an item.
pub struct Status {
    /// Type and permissions.
    pub mode: u32,
    pub owner: Owner,
    pub modified: Modified,
    pub size: u64,
    /// Of a device, as mknod(2) takes it.
    pub device: u32,
}

/// A stretch of a file.
pub enum Stretch {
    Data {
        start: u64,
        end: u64,
    },
    /// There is none any more.
    End,
}

impl File {
    /// Opens an item of this directory, and no symbolic link. A FIFO or a device is not waited for.
    pub fn open_in(&self, name: &CStr, flags: u32, mode: u32) -> Result<Self, Errno> {
        let flags = flags | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
        // SAFETY: `name` ends with NUL.
        let fd = unsafe { call!(__NR_openat, self.0, name.as_ptr(), flags, mode) }?;
        Ok(Self(fd as i32))
    }

    /// What is known of an item of this directory; of this file itself if the name is empty.
    pub fn status_of(&self, name: &CStr) -> Result<Status, Errno> {
        // SAFETY: all-zero bytes are a valid struct statx.
        let mut status: statx = unsafe { core::mem::zeroed() };
        let flags = AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH | AT_NO_AUTOMOUNT;
        let out = &raw mut status;
        // SAFETY: `name` ends with NUL, and the kernel writes one struct statx.
        unsafe {
            call!(
                __NR_statx,
                self.0,
                name.as_ptr(),
                flags,
                STATX_BASIC_STATS,
                out
            )
        }?;
        let mode = u32::from(status.stx_mode);
        // The kernel's new_encode_dev.
        let (major, minor) = (status.stx_rdev_major, status.stx_rdev_minor);
        Ok(Status {
            mode,
            owner: Owner {
                uid: status.stx_uid,
                gid: status.stx_gid,
                mode: mode & !S_IFMT,
            },
            modified: Modified {
                seconds: status.stx_mtime.tv_sec,
                nanoseconds: status.stx_mtime.tv_nsec,
            },
            size: status.stx_size,
            device: minor & 0xff | major << 8 | (minor & !0xff) << 12,
        })
    }

    /// What a symbolic link of this directory says.
    pub fn link_target<'b>(&self, name: &CStr, out: &'b mut [u8]) -> Result<&'b [u8], Errno> {
        let (fd, name) = (self.0, name.as_ptr());
        // SAFETY: `name` ends with NUL; the kernel writes no further than `out`.
        let count = unsafe { call!(__NR_readlinkat, fd, name, out.as_mut_ptr(), out.len()) }?;
        Ok(&out[..count])
    }

    /// The next stretch of data from an offset on. A file system that does not know has nothing but data.
    pub fn next_data(&self, from: u64, size: u64) -> Result<Stretch, Errno> {
        match self.seek(from, SEEK_DATA) {
            Ok(start) => {
                let end = self.seek(start, SEEK_HOLE)?;
                Ok(Stretch::Data { start, end })
            }
            Err(Errno::ENXIO) => Ok(Stretch::End),
            Err(Errno::EINVAL) if from < size => Ok(Stretch::Data {
                start: from,
                end: size,
            }),
            Err(Errno::EINVAL) => Ok(Stretch::End),
            Err(error) => Err(error),
        }
    }

    fn seek(&self, offset: u64, whence: u32) -> Result<u64, Errno> {
        // SAFETY: no pointers.
        unsafe { call!(__NR_lseek, self.0, offset, whence) }.map(|at| at as u64)
    }

    /// Reads from an offset.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize, Errno> {
        // SAFETY: the kernel writes no further than `buffer`.
        unsafe {
            call!(
                __NR_pread64,
                self.0,
                buffer.as_mut_ptr(),
                buffer.len(),
                offset
            )
        }
    }

    /// The names of its extended attributes, each with a NUL at its end.
    pub fn attributes<'b>(&self, out: &'b mut [u8]) -> Result<&'b [u8], Errno> {
        // SAFETY: the kernel writes no further than `out`.
        match unsafe { call!(__NR_flistxattr, self.0, out.as_mut_ptr(), out.len()) } {
            Ok(count) => Ok(&out[..count]),
            // The file system knows none.
            Err(Errno::EOPNOTSUPP) => Ok(&[]),
            Err(error) => Err(error),
        }
    }

    /// The value of an extended attribute.
    pub fn attribute<'b>(&self, name: &CStr, out: &'b mut [u8]) -> Result<&'b [u8], Errno> {
        let (fd, name) = (self.0, name.as_ptr());
        // SAFETY: `name` ends with NUL; the kernel writes no further than `out`.
        let count = unsafe { call!(__NR_fgetxattr, fd, name, out.as_mut_ptr(), out.len()) }?;
        Ok(&out[..count])
    }

    /// Sets an extended attribute.
    pub fn set_attribute(&self, name: &CStr, value: &[u8]) -> Result<(), Errno> {
        let (fd, name) = (self.0, name.as_ptr());
        // SAFETY: `name` ends with NUL; the kernel reads no further than `value`.
        unsafe { call!(__NR_fsetxattr, fd, name, value.as_ptr(), value.len(), 0) }.map(drop)
    }

    /// Removes an extended attribute.
    pub fn remove_attribute(&self, name: &CStr) -> Result<(), Errno> {
        // SAFETY: `name` ends with NUL.
        unsafe { call!(__NR_fremovexattr, self.0, name.as_ptr()) }.map(drop)
    }

    /// Has all that is in this file's file system survive a loss of power.
    pub fn sync_file_system(&self) -> Result<(), Errno> {
        // SAFETY: no pointers.
        unsafe { call!(__NR_syncfs, self.0) }.map(drop)
    }

    fn file_system(&self) -> Result<statfs64, Errno> {
        // SAFETY: all-zero bytes are a valid struct statfs.
        let mut status: statfs64 = unsafe { core::mem::zeroed() };
        // SAFETY: the kernel writes one struct statfs, which is the same on x86-64.
        unsafe { call!(__NR_fstatfs, self.0, &raw mut status) }?;
        Ok(status)
    }

    /// The unit of this file's file system, in bytes.
    pub fn block_bytes(&self) -> Result<u64, Errno> {
        self.file_system().map(|it| it.f_bsize as u64)
    }

    /// Whether this file is in an overlay.
    pub fn is_in_overlay(&self) -> bool {
        const OVERLAYFS_SUPER_MAGIC: i64 = 0x794c_7630;
        let status = self.file_system();
        status.is_ok_and(|it| it.f_type == OVERLAYFS_SUPER_MAGIC)
    }

    /// Makes the mounted ext4 file system that this file is in as big as that many blocks. One that is as big stays so.
    pub fn grow_ext4(&self, blocks: u64) -> Result<(), Errno> {
        /// _IOW('f', 16, __u64), of the kernel's fs/ext4/ext4.h.
        const EXT4_IOC_RESIZE_FS: u32 = 0x4008_6610;
        // SAFETY: the kernel reads one number.
        unsafe { call!(__NR_ioctl, self.0, EXT4_IOC_RESIZE_FS, &raw const blocks) }.map(drop)
    }

    /// Sets when an item of this directory was last modified; when this file itself was if there is no name.
    pub fn set_modified(&self, name: Option<&CStr>, modified: Modified) -> Result<(), Errno> {
        let omit = __kernel_timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT.into(),
        };
        let times = [
            omit,
            __kernel_timespec {
                tv_sec: modified.seconds,
                tv_nsec: modified.nanoseconds.into(),
            },
        ];
        let path = name.map_or(core::ptr::null(), CStr::as_ptr);
        let flags = if name.is_some() {
            AT_SYMLINK_NOFOLLOW
        } else {
            0
        };
        // SAFETY: the name ends with NUL, or there is none; the kernel reads two structs.
        unsafe { call!(__NR_utimensat, self.0, path, times.as_ptr(), flags) }.map(drop)
    }
}

plain_calls! {
    /// Which permissions nothing that is made has.
    set_umask(mask: u32) = __NR_umask(mask);
    /// Makes a directory in another one.
    mkdir_in(directory: i32, name: &CStr, mode: u32) = __NR_mkdirat(directory, name.as_ptr(), mode);
    /// Makes a symbolic link in a directory.
    symlink_in(target: &CStr, directory: i32, name: &CStr) =
        __NR_symlinkat(target.as_ptr(), directory, name.as_ptr());
    /// Makes a FIFO or a device in a directory.
    mknod_in(directory: i32, name: &CStr, mode: u32, device: u32) =
        __NR_mknodat(directory, name.as_ptr(), mode, device);
    /// Removes what is no directory from a directory.
    unlink_in(directory: i32, name: &CStr) = __NR_unlinkat(directory, name.as_ptr(), 0);
    /// Removes an empty directory from a directory.
    remove_directory_in(directory: i32, name: &CStr) =
        __NR_unlinkat(directory, name.as_ptr(), AT_REMOVEDIR);
    /// Gives an item of a directory, and what no link in it leads to, an owner.
    chown_in(directory: i32, name: &CStr, uid: u32, gid: u32) =
        __NR_fchownat(directory, name.as_ptr(), uid, gid, AT_SYMLINK_NOFOLLOW);
    /// Gives an open file an owner.
    set_owner(fd: i32, uid: u32, gid: u32) = __NR_fchown(fd, uid, gid);
    /// Sets the permissions of an open file.
    set_mode(fd: i32, mode: u32) = __NR_fchmod(fd, mode);
    /// Makes an open file as long as that.
    set_size(fd: i32, size: u64) = __NR_ftruncate(fd, size);
}
