//! What people type who come from docker, and what does the same here. Only messages: none of it is accepted.

mod networks;
mod tables;

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};
pub(super) use networks::refuse_networks;
use tables::{FLAGS, NO_IMAGE_NAMES, NO_VOLUMES, RUN_FLAGS, VERBS};

/// Replaces clap's guess by what is known about a verb or an argument of docker's.
pub(super) fn explain(mut error: clap::Error) -> clap::Error {
    let invalid = |kind| match error.get(kind) {
        Some(ContextValue::String(word)) => Some(word.as_str()),
        _ => None,
    };
    if let (ErrorKind::TooManyValues, Some(flag), Some(value)) = (
        error.kind(),
        invalid(ContextKind::InvalidArg),
        invalid(ContextKind::InvalidValue),
    ) {
        let flag = flag.split(' ').next().unwrap_or(flag);
        let said = format!(
            "`{flag}` takes no value, and `{value}` is one\n  help: say it alone, or leave it out where it is not wanted\n"
        );
        return clap::Error::raw(ErrorKind::TooManyValues, said);
    }
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
    if let (Some(argument), Some(tip)) = (invalid(ContextKind::InvalidArg), tip)
        && argument.starts_with('-')
    {
        let verb = if runs { "run" } else { "boot" };
        let said = format!("`kvmlet {verb}` has no `{argument}`\n  help: {tip}\n");
        return clap::Error::raw(ErrorKind::UnknownArgument, said);
    }
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
            ("container ls", "`kvmlet ps`"),
            ("network ls", "go with their VMs"),
            ("down", "`kvmlet stop` ends"),
            (
                "run --rm=false nginx",
                "`--rm` takes no value, and `false` is one",
            ),
            ("run -d=false nginx", "left out where it is not wanted"),
            (
                "run --rm=false nginx",
                "leave it out where it is not wanted",
            ),
            ("boot --read-only=true", "say it alone"),
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
    fn each_flag_of_docker_s_is_known_or_answered() {
        // Those of `docker run --help` (28.5), and the short and older names of some.
        const DOCKER: &str = "--add-host --annotation --attach --blkio-weight --blkio-weight-device --cap-add --cap-drop \
            --cgroup-parent --cgroupns --cidfile --cpu-count --cpu-percent --cpu-period --cpu-quota --cpu-rt-period \
            --cpu-rt-runtime --cpu-shares --cpus --cpuset-cpus --cpuset-mems --detach --detach-keys --device \
            --device-cgroup-rule --device-read-bps --device-read-iops --device-write-bps --device-write-iops \
            --disable-content-trust --dns --dns-option --dns-opt --dns-search --domainname --entrypoint --env --env-file \
            --expose --gpus --group-add --health-cmd --health-interval --health-retries --health-start-interval \
            --health-start-period --health-timeout --help --hostname --init --interactive --io-maxbandwidth --io-maxiops \
            --ip --ip6 --ipc --isolation --kernel-memory --label --label-file --link --link-local-ip --log-driver \
            --log-opt --mac-address --memory --memory-reservation --memory-swap --memory-swappiness --mount --name \
            --net --net-alias --network --network-alias --no-healthcheck --oom-kill-disable --oom-score-adj --pid \
            --pids-limit --platform --privileged --publish --publish-all --pull --quiet --read-only --restart --rm \
            --runtime --security-opt --shm-size --sig-proxy --stop-signal --stop-timeout --storage-opt --sysctl --tmpfs \
            --tty --ulimit --use-api-socket --user --userns --uts --volume --volume-driver --volumes-from --workdir \
            -a -c -d -e -h -i -l -m -p -P -q -t -u -v -w";
        let mut command = Cli::<Verb>::command();
        command.build();
        let run = command.find_subcommand("run").unwrap();
        for flag in DOCKER.split_whitespace() {
            let is_ours = run.get_arguments().any(|one| {
                one.get_long()
                    .is_some_and(|long| format!("--{long}") == flag)
                    || one
                        .get_short()
                        .is_some_and(|short| format!("-{short}") == flag)
            });
            if !is_ours {
                let message = message(&format!("run {flag} x nginx"));
                let expected = format!("error: `kvmlet run` has no `{flag}`\n  help: ");
                assert!(message.starts_with(&expected), "{flag}: {message}");
            }
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
