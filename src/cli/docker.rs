//! What people type who come from docker, and what does the same here. Only messages: none of it is accepted.

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue};

const VERBS: &[(&[&str], &str)] = &[
    (
        &["run", "start", "create", "up"],
        "`kvmlet boot` runs a service: `kvmlet boot --root IMAGE -p 8080:80`",
    ),
    (
        &["ps", "ls", "list", "inspect", "top", "stats"],
        "each VM is a process of its own, which `pgrep -a kvmlet` finds; `kvmlet boot --stats FILE` writes statistics",
    ),
    (
        &["stop", "kill", "rm", "down", "restart"],
        "a VM ends when its `kvmlet boot` gets SIGTERM, or by Ctrl-] at its terminal, and nothing is left to remove",
    ),
    (
        &["exec", "attach", "logs"],
        "the console of a VM is the standard input and output of its `kvmlet boot`",
    ),
    (
        &["pull", "push", "images", "build", "load", "import"],
        "images are files: `images/build` makes some, and `kvmlet boot --root FILE` boots one",
    ),
    (
        &["version", "info"],
        "`kvmlet --version`, or `kvmlet doctor`",
    ),
];

const FLAGS: &[(&[&str], &str)] = &[
    (
        &["-i", "-t", "--interactive", "--tty"],
        "leave it out: the guest's console is this terminal already",
    ),
    (
        &["--rm"],
        "leave it out: changes to the root are gone with the VM, unless `--scratch` keeps them",
    ),
    (
        &["-d", "--detach"],
        "leave it out: `kvmlet boot` stays in the foreground; put `&` behind it, or have a service manager start it",
    ),
    (
        &["--name"],
        "leave it out: a VM goes by its process ID; `--hostname` is for what the guest calls itself",
    ),
    (&["--volume", "--mount"], NO_VOLUMES),
    (
        &["--network"],
        "`--net` gives the guest an interface, and `--net egress=none` one that only the host reaches",
    ),
    (
        &["--entrypoint"],
        "the service and its arguments stand behind `--`, at the end",
    ),
    (
        &["--restart"],
        "a service manager restarts what ends, such as systemd with `Restart=`",
    ),
];

const NO_VOLUMES: &str = "directories of the host are not shared with guests: put files into the root's image, or on a `--disk`";
const NO_IMAGE_NAMES: &str = "the image of a root is a file, named by `--root FILE`; a command for the guest stands behind `--`";

/// Replaces clap's guess by what is known about a verb or an argument of docker's.
pub(super) fn explain(mut error: clap::Error) -> clap::Error {
    let invalid = |kind| match error.get(kind) {
        Some(ContextValue::String(word)) => Some(word.as_str()),
        _ => None,
    };
    let usage = error.get(ContextKind::Usage).map(ToString::to_string);
    let boots = usage.is_some_and(|usage| usage.contains("kvmlet boot"));
    let tip = match (
        invalid(ContextKind::InvalidSubcommand),
        invalid(ContextKind::InvalidArg),
    ) {
        (Some(verb), _) => look_up(VERBS, verb),
        (None, Some(argument)) if boots => {
            look_up(FLAGS, argument).or_else(|| positional(argument))
        }
        _ => None,
    };
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
            ("run -it nginx", "`kvmlet boot` runs a service"),
            ("ps", "`pgrep -a kvmlet`"),
            ("logs", "standard input and output"),
            ("images", "`images/build` makes"),
            ("boot -it", "this terminal already"),
            ("boot --rm --root x", "unless `--scratch` keeps them"),
            ("boot -d", "put `&` behind it"),
            ("boot --name web", "`--hostname`"),
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
        assert!(!message("doctor now").contains("--root"));
    }

    #[test]
    fn what_kvmlet_has_itself_is_not_in_the_tables() {
        let mut command = Cli::<Verb>::command();
        command.build();
        for verb in VERBS.iter().flat_map(|(words, _)| *words) {
            assert!(command.find_subcommand(verb).is_none(), "{verb}");
        }
        let boot = command.find_subcommand("boot").unwrap();
        let known: Vec<String> = boot
            .get_arguments()
            .flat_map(|one| {
                let long = one.get_long().map(|name| format!("--{name}"));
                long.into_iter()
                    .chain(one.get_short().map(|name| format!("-{name}")))
            })
            .collect();
        assert!(known.contains(&"--net".into()) && known.contains(&"-m".into()));
        for flag in FLAGS.iter().flat_map(|(words, _)| *words) {
            assert!(!known.contains(&flag.to_string()), "{flag}");
        }
    }
}
