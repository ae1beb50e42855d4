//! Volumes, memory and directories that a Linux guest mounts. The service is this test.

use crate::harness::Test;
use crate::script::Script;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::ExitCode;

pub const TESTS: &[Test] = &[(
    "volumes_outlive_instances_and_are_filled_from_the_image",
    run,
)];

/// The first argument by which this executable is the program in the guest.
const PROGRAM: &str = "--with-volumes";

/// As a program: `--with-volumes` tells what it sees of its mounts, writes to them, and goes on for as many seconds as its second
/// argument says. `None` if it was not called so.
pub fn program() -> Option<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    if arguments.next()? != PROGRAM {
        return None;
    }
    let seconds = arguments.next()?.parse().unwrap();
    for directory in ["/srv/data", "/anonymous", "/copy", "/memory", "/dev/shm"] {
        tell(Path::new(directory));
    }
    for path in ["/srv/data/deep/file", "/srv/data/link", "/copy/given"] {
        let status = fs::symlink_metadata(path).unwrap();
        let (mode, uid, gid) = (status.mode() & 0o7777, status.uid(), status.gid());
        println!("{path} {mode:o} {uid}:{gid}");
    }
    let written = fs::read_to_string("/srv/data/written").unwrap_or_default();
    println!("written before: {written:?}");
    fs::write("/srv/data/written", "by a service").unwrap();
    let refused = fs::write("/copy/given", "").unwrap_err();
    println!("copy: {}", refused.kind());
    println!(
        "{}",
        fs::read_to_string("/etc/hosts").unwrap().replace('\n', "|")
    );
    std::thread::sleep(std::time::Duration::from_secs(seconds));
    Some(ExitCode::SUCCESS)
}

/// What is in a directory, its size in MiB, and its own status.
fn tell(directory: &Path) {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let size = rustix::fs::statvfs(directory).unwrap();
    let status = directory.metadata().unwrap();
    let (mode, uid) = (status.permissions().mode() & 0o7777, status.uid());
    let mib = (size.f_blocks * size.f_frsize) >> 20;
    println!("{} {names:?} {mib} MiB {mode:o} {uid}", directory.display());
}

fn run() {
    if !rustix::process::geteuid().is_root() {
        return println!("SKIPPED: only root has a book that can be put elsewhere by a mount");
    }
    let place = tempfile::tempdir().unwrap();
    let root = place.path().join("root");
    fs::create_dir_all(root.join("real/data/deep")).unwrap();
    fs::create_dir_all(root.join("srv")).unwrap();
    fs::write(root.join("real/data/deep/file"), "x".repeat(100_000)).unwrap();
    fs::create_dir(place.path().join("src")).unwrap();
    fs::write(place.path().join("src/given"), "").unwrap();
    fs::copy(std::env::current_exe().unwrap(), root.join("test")).unwrap();
    let script = r#"
        set -eu; mount -t tmpfs tmpfs /var/lib; trap '$K rm -f one >/dev/null 2>&1 || true' EXIT
        ln -s /real/data root/srv/data; ln -s deep/file root/real/data/link
        chmod 2751 root/real/data; chmod 604 root/real/data/deep/file; chown 7 src/given; chmod 640 src/given
        $K volume create --size 64m data
        $K run --rm --name first --hostname web -v data:/srv/data --mount target=/anonymous,volume-size=32m -v ./src:/copy:ro \
            --tmpfs /memory:size=3m,mode=711 --shm-size 2m root /test --with-volumes 0
        echo; $K volume ls --format '{{.Name}} {{.Size}} {{.Links}}'; $K volume create --size 96m data >/dev/null
        $K run -d --name one --hostname web -v data:/srv/data -v /anonymous -v ./src:/copy:ro --tmpfs /memory --shm-size 2m \
            root /test --with-volumes 300 >/dev/null
        until $K logs one | grep -q web; do sleep 0.2; done
        code=0; $K run --name two -v data:/x root /test 2>err || code=$?; echo "$code $(grep -o 'in use by instance.*' err)"
        ! $K volume rm data 2>err; grep -o 'in use by.*' err
        $K stop -t 1 one >/dev/null; $K logs one | grep 'srv/data \[\|before'; $K volume ls -q | wc -l; $K rm -v one; $K volume ls -q
        $K volume rm data >/dev/null; $K volume ls -q
        "#;
    let script = Script::new(script, place.path(), 2);
    let (out, err) = script.run();
    let expected = r#"data
/srv/data ["deep", "link"] 54 MiB 2751 0
/anonymous [] 25 MiB 755 0
/copy ["given"] 0 MiB 755 0
/memory [] 3 MiB 711 0
/dev/shm [] 2 MiB 1777 0
/srv/data/deep/file 604 0:0
/srv/data/link 777 0:0
/copy/given 640 7:0
written before: ""
copy: read-only filesystem or storage medium
127.0.0.1	localhost|::1	localhost ip6-localhost ip6-loopback|127.0.1.1	web|

data 64.0MiB 0
125 in use by instance `one`, which writes to it
in use by one
/srv/data ["deep", "link", "written"] 84 MiB 2751 0
written before: "by a service"
2
one
data
"#;
    assert_eq!(out, expected, "{err}");
}
