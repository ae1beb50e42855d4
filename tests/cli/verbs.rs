//! What verbs about instances and `kvmlet run` say, and end with, when they cannot do what they are asked for.

use std::process::{Command, Output, Stdio};

/// kvmlet with a book of its own, in which nothing is.
fn kvmlet(arguments: &[&str]) -> Output {
    const KVMLET: &str = env!("CARGO_BIN_EXE_kvmlet");
    let home = tempfile::tempdir().unwrap();
    let mut command = match rustix::process::geteuid().is_root() {
        // Root's is always in one place.
        true => {
            let mut command = Command::new("unshare");
            let alone = "mount -t tmpfs tmpfs /var/lib && exec \"$0\" \"$@\"";
            command.args(["--mount", "--propagation", "private", "sh", "-c", alone]);
            command.arg(KVMLET);
            command
        }
        false => Command::new(KVMLET),
    };
    command.args(arguments).current_dir(home.path());
    command
        .env("XDG_STATE_HOME", home.path())
        .env("XDG_DATA_HOME", home.path())
        .stdin(Stdio::null());
    command.output().unwrap()
}

fn refused(arguments: &[&str], code: i32, parts: &[&str]) {
    let output = kvmlet(arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    assert!(said.starts_with("error: "), "{arguments:?}: {said}");
    for part in parts {
        assert!(said.contains(part), "{arguments:?}: no {part:?} in: {said}");
    }
}

/// A verb that is not done is told from a service that could not be run, and from a line that cannot be read, as docker's are.
#[test]
fn verbs_end_as_dockers_do() {
    for verb in [
        "attach nobody",
        "cp nobody:/file .",
        "exec nobody true",
        "inspect nobody",
        "kill nobody",
        "logs nobody",
        "pause nobody",
        "port nobody",
        "rename nobody somebody",
        "restart nobody",
        "rm nobody",
        "start nobody",
        "stats --no-stream nobody",
        "stop nobody",
        "top nobody",
        "unpause nobody",
        "wait nobody",
    ] {
        let words: Vec<&str> = verb.split(' ').collect();
        refused(&words, 1, &["there is no instance `nobody`", "help: "]);
        let wrong = [&words[..1], &["--no-such-flag"], &words[1..]].concat();
        refused(&wrong, 125, &["--no-such-flag"]);
    }
    for more in [
        "ps --filter no=thing",
        "ps --format {{.Nothing",
        "events --until x",
    ] {
        let words: Vec<&str> = more.split(' ').collect();
        let output = kvmlet(&words);
        assert!(
            matches!(output.status.code(), Some(1 | 125)),
            "{more}: {output:?}"
        );
    }
    refused(&["run", "nowhere.erofs"], 125, &["`nowhere.erofs`"]);
    // What is to go whatever it does is as good as gone, and yet told of.
    refused(
        &["rm", "--force", "nobody", "nothing"],
        0,
        &["`nobody`", "`nothing`"],
    );
}

/// As docker has it, `-h` is the host name, and what asks for help is the word.
#[test]
fn run_has_dockers_words_for_host_names_and_help() {
    let named = ["run", "-h", "a b", "nowhere.erofs"];
    refused(&named, 125, &["`nowhere.erofs`"]);
    refused(&["run", "-h"], 125, &["--hostname", "--help"]);
    let help = kvmlet(&["run", "--help"]);
    let said = String::from_utf8_lossy(&help.stdout);
    assert!(
        help.status.success() && said.contains("-h, --hostname <NAME>"),
        "{said}"
    );
    assert!(said.contains("--help"), "{said}");
}

#[test]
fn a_directory_without_a_command_is_refused_before_a_machine_is_made() {
    refused(
        &["run", "."],
        125,
        &["does not say what it runs", "PROGRAM`", "service.json"],
    );
}

#[test]
fn what_is_neither_a_file_nor_an_image_is_refused_with_what_there_is_instead() {
    for image in ["nginx", "nginx:latest", "docker.io/library/nginx:1.27"] {
        let parts = ["nginx", "is not here", "kvmlet pull nginx"];
        refused(&["run", "--pull", "never", image], 125, &parts);
    }
    refused(
        &["run", "Nginx"],
        125,
        &["`Nginx` is not the name of an image", "help: "],
    );
    refused(
        &["run", "-v", "/srv:/srv", "nginx"],
        125,
        &["those are not shared with a guest", "`kvmlet cp`"],
    );
    refused(
        &["run", "nginx.erofs"],
        125,
        &[
            "caused by: no such file",
            "name an image of a root file system",
        ],
    );
}

/// What is wrong with a volume is told before anything is made.
#[test]
fn volumes_are_refused_that_cannot_be() {
    for (arguments, code, parts) in [
        (
            "volume rm nothing",
            1,
            ["no volume `nothing`", "`kvmlet volume ls`"],
        ),
        (
            "volume inspect nothing",
            1,
            ["no volume `nothing`", "help: "],
        ),
        ("volume create -s 1m data", 125, ["--size", "16m at least"]),
        (
            "volume create ../data",
            125,
            ["'../data'", "first character"],
        ),
        (
            "volume prune",
            1,
            ["nobody is there to be asked", "--force"],
        ),
        ("volume ls -f size=1", 1, ["`size=1`", "dangling"]),
        (
            "run -v data:/x --tmpfs /x . /app",
            125,
            ["more than one thing", "`/x`"],
        ),
        (
            "run -v /nowhere:/x:ro . /app",
            125,
            ["`/nowhere`", "no such file"],
        ),
        (
            "run --mount type=nfs,target=/x . /app",
            125,
            ["--mount", "`nfs`"],
        ),
    ] {
        let words: Vec<&str> = arguments.split(' ').collect();
        refused(&words, code, &parts);
    }
    let output = kvmlet(&["volume", "create", "data"]);
    assert_eq!(output.stdout, b"data\n", "{output:?}");
}

#[test]
fn values_that_cannot_be_are_refused_with_their_flags() {
    for (arguments, parts) in [
        (["run", "-m", "5k", "x"], ["--memory", "5 KiB", "16 MiB"]),
        (["run", "-e", "=x", "x"], ["--env", "'=x'", "NAME=VALUE"]),
        (["exec", "-e", "=x", "x"], ["--env", "'=x'", "NAME=VALUE"]),
        (["run", "-l", "=x", "x"], ["--label", "'=x'", "KEY=VALUE"]),
        (
            ["port", "web", "abc", ""],
            ["[PORT]", "'abc'", "1 to 65535"],
        ),
        (
            ["port", "web", "0/tcp", ""],
            ["[PORT]", "'0/tcp'", "1 to 65535"],
        ),
    ] {
        let words: Vec<&str> = arguments.into_iter().filter(|it| !it.is_empty()).collect();
        refused(&words, 125, &parts);
    }
}
