//! Guest RAM that is copied from a file at the start, where pages of the file are not what is to back it.

use super::{Backing, Error, GuestRam};
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::slice;
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

impl GuestRam {
    /// Maps private anonymous regions, and copies into them what a file has of them, behind each other from `start` on. Its
    /// holes are left alone.
    ///
    /// # Errors
    /// When the host has not the huge pages or the memory, or the file does not have as much.
    pub fn copy_of_file(
        ranges: &[(GuestAddress, usize)],
        backing: Backing,
        file: &File,
        start: u64,
    ) -> Result<Self, Error> {
        let ram = Self::allocate(ranges, backing)?;
        let mut place = start;
        for region in ram.iter() {
            // SAFETY: a mapping that was just made, and that nobody else knows of yet.
            let bytes =
                unsafe { slice::from_raw_parts_mut(region.as_ptr(), region.len() as usize) };
            fill(bytes, file, place).map_err(Error::Copy)?;
            place += region.len();
        }
        Ok(ram)
    }
}

fn fill(bytes: &mut [u8], file: &File, start: u64) -> io::Result<()> {
    let end = start + bytes.len() as u64;
    let mut place = start;
    while place < end {
        // A file system that knows no holes says that all is data.
        let data = match seek(file, SeekFrom::Data(place)) {
            Ok(data) => data.min(end),
            // Its end is a hole, unless that is missing.
            Err(Errno::NXIO) if file.metadata()?.len() >= end => break,
            Err(Errno::NXIO) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) => return Err(error.into()),
        };
        let hole = seek(file, SeekFrom::Hole(data))?.clamp(data, end);
        let range = (data - start) as usize..(hole - start) as usize;
        file.read_exact_at(&mut bytes[range], data)?;
        place = hole;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::Bytes;

    #[test]
    fn what_a_file_has_is_copied_and_its_holes_are_zeros() {
        let file = tempfile::tempfile().unwrap();
        let (low, high) = (1 << 20, 1 << 20);
        let start = 0x3000;
        file.set_len(start + low + high).unwrap();
        file.write_all_at(&[7; 3000], start + 0x2ff0).unwrap();
        file.write_all_at(&[9; 16], start + low + high - 16)
            .unwrap();
        let ranges = [
            (GuestAddress(0), low as usize),
            (GuestAddress(1 << 32), high as usize),
        ];
        let copy = || GuestRam::copy_of_file(&ranges, Backing::default(), &file, start);
        let ram = copy().unwrap();
        let mut bytes = [1; 8192];
        ram.read_slice(&mut bytes, GuestAddress(0x2000)).unwrap();
        assert!(bytes[..0xff0].iter().all(|byte| *byte == 0));
        assert!(bytes[0xff0..0xff0 + 3000].iter().all(|byte| *byte == 7));
        assert!(bytes[0xff0 + 3000..].iter().all(|byte| *byte == 0));
        let last = GuestAddress((1 << 32) + high - 8);
        assert_eq!(ram.read_obj::<[u8; 8]>(last).unwrap(), [9; 8]);
        // Whoever has it changes nothing in the file, and the host can have pages back.
        ram.write_obj(3u8, last).unwrap();
        assert!(ram.gives_back());
        assert_eq!(copy().unwrap().read_obj::<u8>(last).unwrap(), 9);
        // One that has less is no file with zeros.
        file.set_len(start + low + high - 4096).unwrap();
        let cut = match copy() {
            Err(Error::Copy(error)) => error.kind(),
            other => panic!("{other:?}"),
        };
        assert_eq!(cut, io::ErrorKind::UnexpectedEof);
    }
}
