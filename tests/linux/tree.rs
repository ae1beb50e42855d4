//! A tree of files, made on the host, and what it looks like: the same code tells it on the host and, as a
//! program in the image ([`PROGRAM`] is this test itself), in the guest.

use std::fs::{self, File, Permissions};
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

/// The first argument by which this executable is the program in the guest.
pub const PROGRAM: &str = "--tell-trees";
/// Between the trees to be told and what is executed then.
const THEN: &str = "--";

/// As a program: `--tell-trees TREE... [-- PROGRAM ARGUMENTS...]` prints a line for each tree, and goes on as
/// another program. `None` if it was not called so.
pub fn program() -> Option<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    if arguments.next()? != PROGRAM {
        return None;
    }
    for tree in arguments.by_ref().take_while(|argument| argument != THEN) {
        println!("{}", tell(Path::new(&tree), &tree));
    }
    let Some(next) = arguments.next() else {
        return Some(ExitCode::SUCCESS);
    };
    let error = Command::new(&next).args(arguments).exec();
    println!("{next}: {error}");
    Some(ExitCode::FAILURE)
}

/// One line about a tree: its name, how much it holds, and a hash of all that a reader can see of it but owners
/// and times, which an image need not keep.
pub fn tell(tree: &Path, name: &str) -> String {
    let mut walk = Walk::default();
    walk.visit(tree);
    let Walk {
        hash,
        entries,
        bytes,
    } = walk;
    format!("tree {name} entries={entries} bytes={bytes} hash={hash:016x}")
}

struct Walk {
    /// 64-bit FNV-1a.
    hash: u64,
    entries: u64,
    bytes: u64,
}

impl Default for Walk {
    fn default() -> Self {
        Self {
            hash: 0xcbf2_9ce4_8422_2325,
            entries: 0,
            bytes: 0,
        }
    }
}

impl Walk {
    fn add(&mut self, bytes: &[u8]) {
        self.hash = bytes.iter().fold(self.hash, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
        });
    }

    fn visit(&mut self, path: &Path) {
        let metadata =
            fs::symlink_metadata(path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        self.entries += 1;
        self.add(&metadata.mode().to_le_bytes());
        let kind = metadata.file_type();
        if kind.is_dir() {
            // How a directory counts its links and bytes is its file system's affair.
            let mut names: Vec<_> = fs::read_dir(path)
                .and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect())
                .unwrap_or_else(|error| panic!("{path:?}: {error}"));
            names.sort();
            for name in names {
                self.add(&name.len().to_le_bytes());
                self.add(name.as_bytes());
                self.visit(&path.join(name));
            }
            return;
        }
        self.add(&metadata.nlink().to_le_bytes());
        self.add(&metadata.size().to_le_bytes());
        if kind.is_symlink() {
            let target = fs::read_link(path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
            self.add(target.as_os_str().as_bytes());
        } else if kind.is_file() {
            self.contents(path);
        } else {
            self.add(&[u8::from(kind.is_fifo()), u8::from(kind.is_char_device())]);
        }
    }

    fn contents(&mut self, path: &Path) {
        let mut file = File::open(path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        let mut buffer = [0; 64 << 10];
        loop {
            let count = file
                .read(&mut buffer)
                .unwrap_or_else(|error| panic!("{path:?}: {error}"));
            if count == 0 {
                return;
            }
            self.bytes += count as u64;
            self.add(&buffer[..count]);
        }
    }
}

/// Fills a directory with what file systems and disks trip over.
pub fn make(at: &Path) {
    fs::create_dir(at).unwrap();
    for (name, fill) in [
        ("many", many as fn(&Path)),
        ("sizes", sizes),
        ("names", names),
        ("links", links),
        ("modes", modes),
        ("deep", deep),
    ] {
        let directory = at.join(name);
        fs::create_dir(&directory).unwrap();
        fill(&directory);
    }
}

/// Bytes that differ from file to file and place to place.
fn bytes(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> = (0..count.div_ceil(8)).flat_map(|_| next()).collect();
    bytes.truncate(count);
    bytes
}

/// A directory of several blocks, of small files.
fn many(at: &Path) {
    for number in 0..500 {
        let contents = bytes(number, (number * 7 % 300) as usize);
        fs::write(at.join(format!("{number:03}")), contents).unwrap();
    }
}

/// Around each boundary there is: sectors, pages, requests; and a hole.
fn sizes(at: &Path) {
    for boundary in [512, 4096, 8192, 65536, 1 << 20] {
        for size in [boundary - 1, boundary, boundary + 1] {
            fs::write(at.join(size.to_string()), bytes(size as u64, size)).unwrap();
        }
    }
    fs::write(at.join("0"), []).unwrap();
    fs::write(at.join("1"), [1]).unwrap();
    let holes = File::create(at.join("holes")).unwrap();
    holes.write_all_at(&bytes(1, 100), 300_000).unwrap();
    holes.set_len(500_001).unwrap();
}

/// Names are bytes: all but `/` and zero, up to 255 of them.
fn names(at: &Path) {
    let all: Vec<u8> = (1..=255).filter(|byte| *byte != b'/').collect();
    for name in [
        b" ".as_slice(),
        b"-rf",
        b"a b",
        b"a\nb",
        b"a\\b",
        b"'\"$(x)`",
        b"...",
        b"\xff\xfe",
        "Stra\u{df}e \u{1f427}".as_bytes(),
        &[b'x'; 255],
        &all,
    ] {
        let name = std::ffi::OsString::from_vec(name.to_vec());
        fs::write(at.join(&name), name.as_bytes()).unwrap();
    }
}

/// Symbolic links of all lengths, to something, nothing and themselves; one file by several names; a FIFO.
fn links(at: &Path) {
    fs::write(at.join("file"), "by three names").unwrap();
    fs::hard_link(at.join("file"), at.join("second")).unwrap();
    fs::hard_link(at.join("file"), at.join("third")).unwrap();
    for (name, target) in [
        ("to-file", "file".to_owned()),
        ("to-directory", "..".to_owned()),
        ("to-itself", "to-itself".to_owned()),
        ("to-nothing", "/no/such/file".to_owned()),
        ("short", "s".to_owned()),
        ("inline", "i".repeat(59)),
        ("long", "l/".repeat(500)),
        ("longest", "m".repeat(4095)),
    ] {
        symlink(target, at.join(name)).unwrap();
    }
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, at.join("fifo"), fifo, 0o600.into(), 0).unwrap();
}

fn modes(at: &Path) {
    for mode in [0o400, 0o644, 0o755, 0o777, 0o4711, 0o2755, 0o1777] {
        for (path, is_directory) in [(format!("f{mode:o}"), false), (format!("d{mode:o}"), true)] {
            let path = at.join(path);
            match is_directory {
                true => fs::create_dir(&path).unwrap(),
                false => fs::write(&path, path.as_os_str().as_bytes()).unwrap(),
            }
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        }
    }
}

fn deep(at: &Path) {
    let mut directory = at.to_owned();
    for level in 0..40 {
        directory.push(format!("level-{level}"));
        fs::create_dir(&directory).unwrap();
    }
    fs::write(directory.join("bottom"), "the bottom").unwrap();
}
