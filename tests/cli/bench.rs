//! Ways to the programs beside `kvmlet`: which ones these are, and with which rights they run.

use rustix::fs::{XattrFlags, setxattr};
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A user without rights.
const NOBODY: u32 = 65534;

/// A directory with kvmlet, and nothing of other packages beside it yet.
struct Installed(tempfile::TempDir);

impl Installed {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(&directory, Permissions::from_mode(0o755)).unwrap();
        for (name, program) in [
            ("kvmlet", env!("CARGO_BIN_EXE_kvmlet")),
            ("kvmlet-verbs", env!("CARGO_BIN_EXE_kvmlet-verbs")),
        ] {
            install(program.as_ref(), &directory.path().join(name));
        }
        Self(directory)
    }

    /// A script in the benchmark's place, and in that of what pulls images.
    fn beside(self, script: &str) -> Self {
        let written = self.path("script");
        fs::write(&written, format!("#!/bin/sh\n{script}\n")).unwrap();
        install(&written, &self.path("kvmlet-bench"));
        install(&written, &self.path("kvmlet-oci"));
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn kvmlet(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(self.path("kvmlet"));
        command.args(arguments).output().unwrap()
    }
}

/// By another process: what this one has open to write may be inherited by a child of another test at that moment, and
/// no program is run while somebody can write to it (ETXTBSY).
fn install(from: &Path, to: &Path) {
    let mut install = Command::new("install");
    let status = install.args(["-m", "755"]).arg(from).arg(to).status();
    assert!(status.unwrap().success());
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_program_gets_every_word_and_its_exit_code_counts() {
    let installed = Installed::new().beside("printf '<%s>' \"$@\"; exit 42");
    for (arguments, expected) in [
        (
            "bench startup --only a,b --report -",
            "<startup><--only><a,b><--report><->",
        ),
        ("bench io --help", "<io><--help>"),
        ("bench -h", "<-h>"),
        ("bench --version", "<--version>"),
        ("bench --nothing -- x", "<--nothing><--><x>"),
        ("-vv bench io", "<-v><-v><io>"),
        ("--verbose -v bench io", "<-v><-v><io>"),
        ("bench -v io -v", "<-v><io><-v>"),
        ("help bench", "<help>"),
        ("help bench io", "<help><io>"),
        ("bench", "<>"),
        ("pull -q nginx", "<pull><-q><nginx>"),
        (
            "-v image inspect -f {{.Id}} x",
            "<-v><image><inspect><-f><{{.Id}}><x>",
        ),
        ("images --help", "<images><--help>"),
        ("help login", "<help><login>"),
        ("save -o file one two", "<save><-o><file><one><two>"),
    ] {
        let words: Vec<&str> = arguments.split(' ').collect();
        let output = installed.kvmlet(&words);
        assert_eq!(text(&output.stdout), expected, "{arguments}");
        assert_eq!(output.status.code(), Some(42), "{arguments}");
    }
}

#[test]
fn only_what_lies_beside_it_is_run() {
    let (installed, elsewhere) = (Installed::new(), Installed::new().beside("echo wrong"));
    let mut command = Command::new(installed.path("kvmlet"));
    let output = command
        .args(["bench", "io"])
        .current_dir(&elsewhere.0)
        .env("PATH", elsewhere.0.path())
        .output()
        .unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{said}");
    let path = installed.path("kvmlet-bench").display().to_string();
    assert!(
        said.starts_with(&format!(
            "error: cannot run `{path}`: it is not installed\n  help: "
        )),
        "{said}"
    );
    assert!(said.contains("--package kvmlet-bench"), "{said}");
    assert!(output.stdout.is_empty());
}

/// `kvmlet` has little in it. Each verb is done by the program that has it, whichever of the two is executed.
#[test]
fn the_two_programs_of_the_package_need_each_other() {
    let installed = Installed::new();
    let help = |program: &str, verb: &str| {
        let mut command = Command::new(installed.path(program));
        text(
            &command
                .args(["-v", verb, "--help"])
                .output()
                .unwrap()
                .stdout,
        )
    };
    for verb in [
        "boot",
        "run",
        "doctor",
        "ps",
        "volume",
        "completions",
        "nothing",
    ] {
        assert_eq!(help("kvmlet", verb), help("kvmlet-verbs", verb), "{verb}");
    }
    let mut doctor = Command::new(installed.path("kvmlet-verbs"));
    doctor.args(["doctor", "--format", "json"]);
    let told = text(&doctor.output().unwrap().stdout);
    assert!(told.contains("\"findings\""), "{told}");
    for (program, missing, verb) in [
        ("kvmlet", "kvmlet-verbs", "ps"),
        ("kvmlet-verbs", "kvmlet", "doctor"),
    ] {
        let installed = Installed::new();
        fs::remove_file(installed.path(missing)).unwrap();
        let mut command = Command::new(installed.path(program));
        let output = command.arg(verb).output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(125), "{said}");
        let path = installed.path(missing).display().to_string();
        let expected = format!("error: cannot run `{path}`: it is not installed\n  help: ");
        assert!(said.starts_with(&expected), "{said}");
        assert!(said.contains("--package kvmlet-cli"), "{said}");
    }
}

#[test]
fn what_another_user_put_there_is_not_run() {
    if !rustix::process::geteuid().is_root() {
        return println!("SKIPPED: another user is played by root");
    }
    let installed = Installed::new().beside("echo wrong");
    chown(installed.path("kvmlet-bench"), Some(NOBODY), None).unwrap();
    let output = installed.kvmlet(&["bench", "io"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{said}");
    assert!(said.contains("was put there by"), "{said}");
    assert!(output.stdout.is_empty());
}

/// What administrators give to the file (`setcap cap_net_admin+ep`) is for VMs.
#[test]
fn the_rights_of_the_file_end_with_it() {
    if !rustix::process::geteuid().is_root() {
        return println!("SKIPPED: only root gives a file rights");
    }
    let script = "grep ^Cap /proc/self/status; echo $XDG_STATE_HOME; echo $HOME $MINE";
    let installed = Installed::new().beside(script);
    let kvmlet = installed.path("kvmlet");
    // `vfs_cap_data` of linux/capability.h, version 2: effective, permitted CAP_NET_ADMIN (12).
    let mut rights = [0; 20];
    (rights[0], rights[3], rights[5]) = (1, 2, 1 << 4);
    setxattr(&kvmlet, "security.capability", &rights, XattrFlags::empty()).unwrap();
    let user = NOBODY.to_string();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &user, "--regid", &user, "--clear-groups"]);
    let output = command
        .arg(&kvmlet)
        .args(["bench", "io"])
        .env("HOME", "/a/home")
        .env("MINE", "stays")
        .env("XDG_STATE_HOME", "/a/home/state")
        .output()
        .unwrap();
    let (out, said) = (text(&output.stdout), text(&output.stderr));
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        let none = format!("{set}:\t0000000000000000\n");
        assert!(out.contains(&none), "no {none} in {out}{said}");
    }
    // Without them it is the caller's own program, for which the caller's environment counts; but `kvmlet run` has kept things
    // where that does not.
    let kept = format!("{}/.local/state", home(NOBODY));
    assert!(
        out.ends_with(&format!("{kept}\n/a/home stays\n")),
        "{out}{said}"
    );
}

/// As /etc/passwd has it.
fn home(user: u32) -> String {
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let mut lines = users
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>());
    let user = user.to_string();
    lines.find(|line| line[2] == user).unwrap()[5].to_owned()
}
