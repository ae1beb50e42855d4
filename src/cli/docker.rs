//! What people type who come from docker, and what does the same here. Only messages: none of it is accepted.

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue};

const VERBS: &[(&[&str], &str)] = &[
    (
        &["create", "up"],
        "`kvmlet run -d --name NAME IMAGE` runs a service, and `kvmlet start` one that has ended",
    ),
    (&["ls", "list"], "`kvmlet ps` lists instances"),
    (
        &["down"],
        "`kvmlet stop` ends an instance, and `kvmlet rm --force` removes it at once",
    ),
    (
        &["version", "info"],
        "`kvmlet --version`, or `kvmlet doctor`",
    ),
    (
        &["history"],
        "`kvmlet image history NAME` shows how an image was made",
    ),
    (
        &["search"],
        "registries are not searched: `kvmlet pull NAME` takes a name that is known",
    ),
    (
        &["container", "system"],
        "verbs stand alone: `kvmlet ps`, `kvmlet inspect`, `kvmlet prune`",
    ),
    (
        &["network"],
        "networks go with their VMs (`kvmlet run -p`, `--net`)",
    ),
    (
        &["export"],
        "`kvmlet cp NAME:/ -` writes all that an instance has as an archive",
    ),
    (
        &["update"],
        "what an instance may use is said when it is run: `kvmlet rm` it, and `kvmlet run` it anew",
    ),
];

/// Those that `kvmlet run` does not have.
const RUN_FLAGS: &[(&[&str], &str)] = &[
    (
        &["--disk", "--root", "--initrd", "--config"],
        "that is said to `kvmlet boot`, which boots a machine; `kvmlet run` runs an image of a root",
    ),
    (
        &[
            "--privileged",
            "--cap-add",
            "--cap-drop",
            "--security-opt",
            "--userns",
            "--pid",
            "--ipc",
            "--uts",
            "--cgroupns",
            "--sysctl",
        ],
        "leave it out: the service has a kernel of its own, where it may do what its user may, and nothing on this host",
    ),
    (&["--init"], "leave it out: the guest has an init, kvmlet's"),
    (
        &["--ulimit"],
        "leave it out: the guest is the service's alone, and its limits are those of its memory (`-m`) and vCPUs (`--cpus`)",
    ),
    (
        &[
            "--pids-limit",
            "--memory-swap",
            "--memory-reservation",
            "--oom-kill-disable",
        ],
        "leave it out: the guest has its memory (`-m`) and what it starts is limited by that",
    ),
    (
        &["--link"],
        "instances do not reach each other by names: publish a port (`-p`), and name this host to the other (`--add-host`)",
    ),
    (
        &["--log-driver"],
        "logs are kept by kvmlet (`kvmlet logs`; `--log-opt max-size=10m` says how much of them); `kvmlet logs -f` can be piped elsewhere",
    ),
    (
        &["--ip", "--network-alias", "--mac-address"],
        "keys of an interface say that: `--net=subnet=10.1.2.0/30`; see `kvmlet boot --help`",
    ),
    (
        &["--device", "--gpus"],
        "devices of the host are not given to guests; `kvmlet boot --disk` has block devices",
    ),
    (
        &["--platform"],
        "leave it out: what is pulled is for this machine, and `kvmlet pull --platform` pulls for others",
    ),
];

/// Those that `kvmlet boot` does not have.
const FLAGS: &[(&[&str], &str)] = &[
    (
        &["-i", "-t", "--interactive", "--tty"],
        "leave it out: the guest's console is this terminal already",
    ),
    (
        &["--rm"],
        "leave it out: nothing is left of a VM but its scratch disk; `kvmlet run --rm` is for instances",
    ),
    (
        &["-d", "--detach"],
        "`kvmlet run -d` returns when a service runs; `kvmlet boot` stays in the foreground",
    ),
    (
        &["--name"],
        "`kvmlet run --name` gives an instance a name; `--hostname` is for what the guest calls itself",
    ),
    (&["--volume", "--mount"], NO_VOLUMES),
    (
        &["--network"],
        "`--net` gives the guest an interface, and `--net egress=none` one that only the host reaches",
    ),
    (
        &["--entrypoint"],
        "the service and its arguments stand at the end; for `kvmlet boot` behind `--`",
    ),
    (
        &["--restart"],
        "`kvmlet run --restart` starts again what has ended",
    ),
];

const NO_VOLUMES: &str = "directories of the host are not shared with guests: put files into the root's image, or on a `--disk`; `kvmlet run -v` has volumes";
const NO_IMAGE_NAMES: &str = "the image of a root is a file, named by `--root FILE`; a command for the guest stands behind `--`";

/// Replaces clap's guess by what is known about a verb or an argument of docker's.
pub(super) fn explain(mut error: clap::Error) -> clap::Error {
    let invalid = |kind| match error.get(kind) {
        Some(ContextValue::String(word)) => Some(word.as_str()),
        _ => None,
    };
    let usage = error.get(ContextKind::Usage).map(ToString::to_string);
    let of = |verb: &str| usage.as_ref().is_some_and(|usage| usage.contains(verb));
    let (boots, runs) = (of("kvmlet boot"), of("kvmlet run"));
    let tip = match (
        invalid(ContextKind::InvalidSubcommand),
        invalid(ContextKind::InvalidArg),
    ) {
        (Some(verb), _) => look_up(VERBS, verb),
        (None, Some(argument)) if boots => {
            look_up(FLAGS, argument).or_else(|| positional(argument))
        }
        (None, Some(argument)) if runs => {
            look_up(RUN_FLAGS, argument).or_else(|| look_up(FLAGS, argument))
        }
        _ => None,
    };
    // That the argument may be meant for the service: it would stand behind the image, as it is.
    error.remove(ContextKind::Suggested);
    if let Some(tip) = tip {
        error.remove(ContextKind::SuggestedSubcommand);
        error.remove(ContextKind::SuggestedArg);
        let tips = vec![StyledStr::from(tip)];
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(tips));
    }
    error
}

fn look_up(table: &[(&[&str], &'static str)], word: &str) -> Option<&'static str> {
    let row = table.iter().find(|(words, _)| words.contains(&word));
    row.map(|(_, tip)| *tip)
}

/// `-v HOST:GUEST` reads as "say more", and an argument that nothing takes.
fn positional(argument: &str) -> Option<&'static str> {
    match argument.chars().next() {
        Some('-') | None => None,
        Some('/' | '.' | '~') if argument.contains(':') => Some(NO_VOLUMES),
        Some(_) => Some(NO_IMAGE_NAMES),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cli, Verb};
    use clap::CommandFactory;

    fn message(arguments: &str) -> String {
        let words = std::iter::once("kvmlet").chain(arguments.split(' '));
        let error = Cli::<Verb>::command().try_get_matches_from(words);
        explain(error.unwrap_err()).to_string()
    }

    #[test]
    fn what_docker_takes_is_answered_by_what_kvmlet_has() {
        for (arguments, expected) in [
            ("up", "`kvmlet run -d --name NAME IMAGE`"),
            ("run --volume /a:/a nginx", "`kvmlet cp` copies both ways"),
            ("run --disk x nginx", "is said to `kvmlet boot`"),
            ("run --privileged nginx", "a kernel of its own"),
            ("run --cap-add=ALL nginx", "a kernel of its own"),
            ("run --sysctl a=1 nginx", "a kernel of its own"),
            ("run --ulimit nofile=9 nginx", "the service's alone"),
            ("run --link db nginx", "publish a port"),
            ("run --log-driver syslog nginx", "`kvmlet logs`"),
            ("history nginx", "`kvmlet image history"),
            ("search", "registries are not searched"),
            ("container ls", "`kvmlet ps`"),
            ("network ls", "go with their VMs"),
            ("down", "`kvmlet stop` ends"),
            ("boot -it", "this terminal already"),
            ("boot --rm --root x", "`kvmlet run --rm`"),
            ("boot -d", "`kvmlet run -d`"),
            ("boot --name web", "`kvmlet run --name`"),
            ("boot -v /srv:/srv", "on a `--disk`"),
            ("boot --volume /srv:/srv", "on a `--disk`"),
            ("boot --network none", "`--net egress=none`"),
            ("boot nginx", "`--root FILE`"),
            ("boot --root x sh", "stands behind `--`"),
        ] {
            let message = message(arguments);
            assert!(message.contains(expected), "{arguments}: {message}");
            assert!(!message.contains("to pass '"), "{arguments}: {message}");
        }
    }

    #[test]
    fn a_typo_keeps_its_own_tip() {
        assert!(message("boot --memroy 1G").contains("'--memory'"));
        assert!(message("boots").contains("'boot'"));
        assert!(!message("boot --zzz").contains("leave it out"));
        for unknown in ["run --zzz nginx", "boot --zzz", "run --memroy 1g nginx"] {
            assert!(!message(unknown).contains("to pass '"), "{unknown}");
        }
        assert!(!message("doctor now").contains("--root"));
    }

    #[test]
    fn what_kvmlet_has_itself_is_not_in_the_tables() {
        let mut command = Cli::<Verb>::command();
        command.build();
        for verb in VERBS.iter().flat_map(|(words, _)| *words) {
            assert!(command.find_subcommand(verb).is_none(), "{verb}");
        }
        let known = |verb: &str| -> Vec<String> {
            let verb = command.find_subcommand(verb).unwrap();
            let names = |one: &clap::Arg| {
                let long = one.get_long().map(|name| format!("--{name}"));
                let short = one.get_short().map(|name| format!("-{name}"));
                long.into_iter().chain(short)
            };
            verb.get_arguments().flat_map(names).collect()
        };
        for (verb, table) in [("boot", FLAGS), ("run", RUN_FLAGS)] {
            let known = known(verb);
            assert!(known.contains(&"--net".into()) && known.contains(&"-m".into()));
            for flag in table.iter().flat_map(|(words, _)| *words) {
                assert!(!known.contains(&flag.to_string()), "{flag}");
            }
        }
    }
}
