//! Files that have what has changed since another one.

use super::*;
use crate::memory::{PAGE_BYTES, Part};
use crate::snapshot::layout::{END_BYTES, difference_bytes, end_mark};
use std::io;

/// A base, and RAM that has changed since: in both regions, over the border between them, and to zeros.
struct Changed {
    place: tempfile::TempDir,
    ram: GuestRam,
    ranges: Vec<(GuestAddress, usize)>,
}

const BORDER: u64 = 5 * MIB as u64 / 2;

impl Changed {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        let (ram, ranges) = ram();
        // What has not changed is not all zero.
        ram.write_obj(7_u64, GuestAddress(2 * PAGE_BYTES)).unwrap();
        written(&place.path().join("base"), &ram);
        let all: [(u64, u64); 4] = [(8, 0), (BORDER - 8, 20), (1 << 32, 30), (MIB as u64, 40)];
        for (place, value) in all {
            ram.write_obj(value, GuestAddress(place)).unwrap();
        }
        Self { place, ram, ranges }
    }

    /// Where it has changed.
    fn parts() -> [Part; 3] {
        let page = |place: u64, count| place..place + count * PAGE_BYTES;
        [
            page(0, 1),
            page(MIB as u64, 1),
            page(BORDER - PAGE_BYTES, 2),
        ]
    }

    fn told(&self, id: impl Into<Option<SnapshotId>>) -> Vec<u8> {
        let mut told = Vec::new();
        for mut part in Self::parts() {
            while !part.is_empty() {
                put(&self.ram, &mut part, &mut told).unwrap();
            }
        }
        let mut state = state(self.ram.bytes());
        (state.base, state.id) = (id.into(), [9; 16]);
        put_rest(&encode(&state), self.ram.bytes(), &mut told);
        told
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.place.path().join(name)
    }

    fn fill(&self, name: &str, told: &[u8]) -> io::Result<u64> {
        let base = Saved::open(&self.path("base")).unwrap();
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(true);
        let file = options.open(self.path(name)).unwrap();
        let most = most_bytes(crate::config::Memory::from_bytes(self.ram.bytes()));
        Sink::over(&file, most, &base).fill(told)
    }

    fn fault(&self, name: &str, base: &str) -> Option<(std::path::PathBuf, Fault)> {
        let opened = Saved::open_over(&self.path(name), &self.path(base));
        opened.err().map(|error| (error.path, error.fault))
    }
}

#[test]
fn a_difference_has_what_has_changed_and_goes_on_with_its_base() {
    let it = Changed::new();
    let length = it.fill("new", &it.told([3; 16])).unwrap();
    assert_eq!(length, difference_bytes(it.ram.bytes()));
    let found = it.path("new").metadata().unwrap();
    assert_eq!(found.len(), length);
    // Four pages, what is before memory and what is behind it.
    assert!(found.blocks() * 512 <= 4 * PAGE_BYTES + (64 << 10));
    let alone = Saved::open(&it.path("new")).unwrap_err();
    assert!(matches!(alone.fault, Fault::Difference), "{alone}");
    let saved = Saved::open_over(&it.path("new"), &it.path("base")).unwrap();
    assert_eq!(
        (saved.path.as_path(), saved.mapped()),
        (&*it.path("new"), &*it.path("base"))
    );
    saved.verify().unwrap();
    let difference = saved.difference.as_ref().unwrap();
    assert_eq!(
        difference.pages.parts().collect::<Vec<_>>(),
        Changed::parts()
    );
    let again = GuestRam::of_file(&it.ranges, &saved.memory, MEMORY_START).unwrap();
    let value = |place| again.read_obj::<u64>(GuestAddress(place)).unwrap();
    assert_eq!(value(8), 1);
    again
        .lay_over(&difference.pages, &difference.file, MEMORY_START)
        .unwrap();
    let all = [8, BORDER - 8, 1 << 32, (1 << 32) + 8, MIB as u64].map(value);
    assert_eq!(all, [0, 20, 30, 3, 40]);
    let mut both = [
        vec![0; it.ram.bytes() as usize],
        vec![0; it.ram.bytes() as usize],
    ];
    for (ram, bytes) in [&it.ram, &again].into_iter().zip(&mut both) {
        let (low, high) = bytes.split_at_mut(BORDER as usize);
        ram.read_slice(low, GuestAddress(0)).unwrap();
        ram.read_slice(high, GuestAddress(1 << 32)).unwrap();
    }
    assert!(both[0] == both[1]);
    let border = it.ram.bytes();
    let wrong = again.lay_over(&difference.pages, &difference.file, MEMORY_START + border);
    assert!(wrong.is_err());
}

#[test]
fn a_difference_goes_on_with_its_own_base_alone() {
    let it = Changed::new();
    it.fill("new", &it.told([3; 16])).unwrap();
    it.fill("foreign", &it.told([4; 16])).unwrap();
    let expect = |name: &str, base: &str, guilty: &str, wanted: fn(&Fault) -> bool| {
        let (path, fault) = it.fault(name, base).expect("a fault");
        assert!(
            path == it.path(guilty) && wanted(&fault),
            "{name} {base}: {path:?} {fault}"
        );
    };
    expect("base", "base", "base", |it| matches!(it, Fault::Whole));
    expect("new", "new", "new", |it| matches!(it, Fault::NoBase));
    expect("foreign", "base", "base", |it| {
        matches!(it, Fault::OtherBase)
    });
    expect("new", "none", "none", |it| matches!(it, Fault::Read(_)));
    let base = File::options().write(true).open(it.path("base")).unwrap();
    // What has changed of memory in either, who reads all of it finds.
    let guilty = |place: u64, name: &str| {
        let file = File::options()
            .read(true)
            .write(true)
            .open(it.path(name))
            .unwrap();
        let mut was = [0];
        file.read_exact_at(&mut was, place).unwrap();
        file.write_all_at(&[was[0] ^ 1], place).unwrap();
        let saved = Saved::open_over(&it.path("new"), &it.path("base")).unwrap();
        let error = saved.verify().unwrap_err();
        file.write_all_at(&was, place).unwrap();
        assert!(
            error.path == it.path(name) && matches!(error.fault, Fault::Memory(_)),
            "{error}"
        );
        saved.verify().unwrap();
    };
    guilty(MEMORY_START + 2 * PAGE_BYTES, "base");
    guilty(MEMORY_START + MIB as u64 + 77, "new");
    // Another base of the same name: as large, and with the same id.
    let (other, _) = ram();
    other.write_obj(5u64, GuestAddress(0)).unwrap();
    std::fs::remove_file(it.path("base")).unwrap();
    drop(base);
    let base = written(&it.path("base"), &other);
    expect("new", "base", "base", |it| matches!(it, Fault::ChangedBase));
    base.set_len(MEMORY_START).unwrap();
    expect("new", "base", "base", |it| matches!(it, Fault::Short));
    // One that is cut short itself, or longer.
    let new = File::options().write(true).open(it.path("new")).unwrap();
    let length = difference_bytes(it.ram.bytes());
    for (changed, is_short) in [(length - 1, true), (length + 1, false)] {
        new.set_len(changed).unwrap();
        let fault = it.fault("new", "base").unwrap().1;
        assert_eq!(matches!(fault, Fault::Short), is_short, "{fault}");
    }
}

/// A map with checksums that are right, of pages that there are not, and a file that says it is whole.
#[test]
fn a_difference_that_lies_is_refused() {
    let it = Changed::new();
    it.fill("new", &it.told([3; 16])).unwrap();
    let (memory, length) = (it.ram.bytes(), difference_bytes(it.ram.bytes()));
    let file = File::options()
        .read(true)
        .write(true)
        .open(it.path("new"))
        .unwrap();
    let mut tail = vec![0; (length - memory - MEMORY_START) as usize - END_BYTES];
    file.read_exact_at(&mut tail, MEMORY_START + memory)
        .unwrap();
    let last = tail.len() - END_BYTES - 1;
    let spoil = |tail: &[u8]| {
        let bytes = [tail, &end_mark(length, crc32fast::hash(tail))].concat();
        file.write_all_at(&bytes, MEMORY_START + memory).unwrap();
    };
    tail[last] |= 0x80;
    // 4 MiB are 1024 pages, in whole words: there is no room behind them.
    spoil(&tail);
    let saved = Saved::open_over(&it.path("new"), &it.path("base")).unwrap();
    assert_eq!(
        saved.difference.as_ref().unwrap().pages.parts().last(),
        Some(memory - PAGE_BYTES..memory)
    );
    assert!(saved.verify().is_ok(), "that page is zero in both");
    tail[last + 1] ^= 1;
    spoil(&tail);
    assert!(matches!(
        it.fault("new", "base").unwrap().1,
        Fault::ChangedBase
    ));
    // It is as long as a difference, and says that it is whole.
    it.fill("liar", &it.told(None)).unwrap();
    let fault = Saved::open(&it.path("liar")).unwrap_err().fault;
    assert!(matches!(fault, Fault::Length), "{fault}");
}

/// Whoever tells may have been taken over by its guest.
#[test]
fn a_teller_tells_whole_pages_of_memory() {
    let it = Changed::new();
    let piece = |place: u64, count: usize| {
        let head = [&place.to_le_bytes()[..], &(count as u32).to_le_bytes()].concat();
        [head, vec![7; count]].concat()
    };
    let end = it.ram.bytes() + MEMORY_START;
    for (place, count) in [
        (MEMORY_START + 1, 4096),
        (MEMORY_START, 4095),
        (MEMORY_START - 4096, 8192),
        (end - 4096, 8192),
        (end, 4096),
    ] {
        let told = it.fill("new", &piece(place, count));
        assert_eq!(
            told.unwrap_err().kind(),
            io::ErrorKind::InvalidData,
            "{place:#x}"
        );
    }
    // It is as large as its base.
    let smaller = piece(crate::snapshot::layout::file_bytes(MIB as u64), 0);
    let told = it.fill("new", &smaller);
    assert_eq!(told.unwrap_err().kind(), io::ErrorKind::InvalidData);
}

/// What a file has as memory.
fn memory(file: &File, bytes: u64) -> Vec<u8> {
    let mut memory = vec![0; bytes as usize];
    file.read_exact_at(&mut memory, MEMORY_START).unwrap();
    memory
}

#[test]
fn a_difference_and_its_base_are_put_together() {
    let it = Changed::new();
    it.fill("new", &it.told([3; 16])).unwrap();
    let saved = Saved::open_over(&it.path("new"), &it.path("base")).unwrap();
    let whole = tempfile::NamedTempFile::new().unwrap();
    saved.write_whole_to(whole.as_file()).unwrap();
    let one = Saved::open(whole.path()).unwrap();
    one.verify().unwrap();
    assert_eq!((one.state.base, one.state.id), (None, [9; 16]));
    assert_eq!(one.state.devices, saved.state.devices);
    // Holes stay holes.
    assert!(whole.as_file().metadata().unwrap().blocks() * 512 <= 16 * PAGE_BYTES + (64 << 10));
    let bytes = it.ram.bytes();
    let expected = memory(whole.as_file(), bytes);
    let mut there = vec![0; BORDER as usize];
    it.ram.read_slice(&mut there, GuestAddress(0)).unwrap();
    assert!(expected[..BORDER as usize] == there);
    // As others do it: whatever the difference has is written over the base.
    let merged = it.path("merged");
    std::fs::copy(it.path("base"), &merged).unwrap();
    let to = File::options()
        .read(true)
        .write(true)
        .open(&merged)
        .unwrap();
    let from = File::open(it.path("new")).unwrap();
    let (start, length) = (MEMORY_START + bytes, from.metadata().unwrap().len());
    let parts = Changed::parts();
    let parts = parts
        .iter()
        .map(|part| MEMORY_START + part.start..MEMORY_START + part.end);
    for part in parts.chain([0..64 << 10, start..length]) {
        let mut copied = vec![0; (part.end - part.start) as usize];
        from.read_exact_at(&mut copied, part.start).unwrap();
        to.write_all_at(&copied, part.start).unwrap();
    }
    let found = Saved::open(&merged).unwrap();
    found.verify().unwrap();
    assert!(found.difference.is_none() && memory(&found.memory, bytes) == expected);
    // It is one only with all of them.
    to.write_all_at(&[1], MEMORY_START + 2 * PAGE_BYTES)
        .unwrap();
    assert!(found.verify().is_err());
    let changed = Saved::open(&merged).unwrap_err();
    assert!(matches!(changed.fault, Fault::Difference), "{changed}");
}
