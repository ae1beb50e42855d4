//! What remedies say can be said: each setting, in the words of each verb.

use super::{BootOnly, Cli, RestoreOnly, Verb};
use clap::error::ErrorKind;
use clap::{CommandFactory, Subcommand};
use kvmlet_spec::{Dialect, Setting, advice};

/// A value of a setting, as a remedy would give it.
fn value(setting: Setting) -> &'static str {
    match (setting, setting.value()) {
        (Setting::HugePages, _) => "transparent",
        (Setting::NetMac, _) => "02:00:00:00:00:01",
        (Setting::Cpuid, _) => "7:ebx=0b1",
        (Setting::Msr, _) => "0x10a=0b1",
        (Setting::CpuScope, _) => "vm",
        (Setting::MemoryMode, _) => "shared",
        (Setting::Overcommit, _) => "cpus=2",
        (Setting::Nets | Setting::Balloon, _) => "",
        (Setting::NetQueues | Setting::VsockCid, _) => "3",
        (_, "NETWORK") => "10.1.2.0/30",
        (_, "PORTS") => "8080:80",
        (_, "ADDRESS") => "9.9.9.9",
        (_, "SIZE") => "1G",
        (_, "N" | "SECONDS" | "FACTOR" | "CPUS") => "2",
        (_, "LIST") => "0",
        (_, "BYTES") => "1500",
        (_, "NAME[=VALUE]") => "A=1",
        (_, "NAME,...") => "bmi2",
        (_, "on|off") => "off",
        (_, choice) if choice.contains('|') => choice.split('|').next().unwrap(),
        (_, "raw") => "raw",
        (_, "KEYS") => "v.sock",
        (_, "PATH") => "/a",
        _ => "name",
    }
}

/// What a command line says to `words` behind a verb; nothing if it is understood.
fn refusal<V: Subcommand>(verb: &str, words: &str) -> Option<clap::Error> {
    let line = format!("kvmlet {verb} {words}");
    let words = line.split(' ').filter(|word| !word.is_empty());
    Cli::<V>::command().try_get_matches_from(words).err()
}

/// Does a command line know all of it? A burst without a rate is known, too.
fn assert_known(setting: Setting, said: &str, error: Option<clap::Error>) {
    let Some(error) = error else {
        return;
    };
    // What it goes with is not said here.
    if error.kind() == ErrorKind::MissingRequiredArgument {
        return;
    }
    let is_part = ["burst", "once"]
        .iter()
        .any(|it| setting.name().contains(it));
    assert!(
        is_part && error.kind() == ErrorKind::ValueValidation,
        "{setting:?}: `{said}`: {error}"
    );
}

#[test]
fn what_a_remedy_says_is_understood_by_the_verb_that_it_is_said_to() {
    let mut run = 0;
    for setting in Setting::ALL.iter().copied() {
        let valued = match setting.value() {
            "" => advice!("{}", setting),
            _ => advice!("{}", (setting, value(setting))),
        };
        for dialect in [
            Dialect::Flags,
            Dialect::Resume,
            Dialect::Service,
            Dialect::Copy,
            Dialect::Again,
        ] {
            let said = valued.in_words_of(dialect);
            let parts: Vec<&str> = said.split('`').collect();
            let error = match (dialect, &parts[..]) {
                // The words that stand at the end, or a part of a value.
                _ if !said.contains("--") || said.contains("of --") => continue,
                (Dialect::Flags, _) if said.contains("--command") => continue,
                (Dialect::Flags, _) => refusal::<BootOnly>("boot", &said),
                (Dialect::Resume, _) => refusal::<RestoreOnly>("restore", &format!("{said} f")),
                (Dialect::Service, _) => {
                    run += 1;
                    match setting {
                        // Its values are others: shares, not a weight.
                        Setting::CpuWeight => refusal::<Verb>("run", "--cpu-shares 2 i"),
                        _ => refusal::<Verb>("run", &format!("{said} i")),
                    }
                }
                (_, ["", flag, " of ", "kvmlet run", ""]) if setting != Setting::CpuWeight => {
                    refusal::<Verb>("run", &format!("{flag} i"))
                }
                (Dialect::Copy, [flag]) => refusal::<Verb>("clone", &format!("{flag} i"))
                    .or_else(|| refusal::<RestoreOnly>("restore", &format!("{flag} f"))),
                _ => {
                    assert_eq!(setting, Setting::CpuWeight, "{said}");
                    continue;
                }
            };
            assert_known(setting, &said, error);
        }
    }
    assert!(run > 30, "{run}");
}

/// Without a value it is a name: of a flag, or of a key in a flag's value.
#[test]
fn flags_that_a_remedy_names_are_those_of_the_verb() {
    let known = |verb: &str| -> Vec<String> {
        let mut command = Cli::<Verb>::command();
        command.build();
        let verb = command.find_subcommand(verb).unwrap();
        let arguments = verb.get_arguments().filter(|it| !it.is_hide_set());
        let flags = arguments.filter_map(|it| it.get_long());
        flags.map(|flag| format!("--{flag}")).collect()
    };
    let (boot, run, restore) = (known("boot"), known("run"), known("restore"));
    for setting in Setting::ALL.iter().copied() {
        for (dialect, known) in [
            (Dialect::Flags, &boot),
            (Dialect::Service, &run),
            (Dialect::Again, &run),
            (Dialect::Copy, &run),
            (Dialect::Resume, &restore),
        ] {
            if setting == Setting::Command && dialect == Dialect::Flags {
                continue; // it stands behind all flags
            }
            let said = advice!("{}", setting).in_words_of(dialect);
            let flags = said.split([' ', '`']).filter(|word| word.starts_with("--"));
            for flag in flags {
                assert!(known.contains(&flag.to_owned()), "{setting:?}: {said}");
            }
        }
    }
    // What a share is refused for can be mended by who runs a service.
    for setting in [
        Setting::CpuQuota,
        Setting::OvercommitCpus,
        Setting::OvercommitMemory,
    ] {
        let said = advice!("{}", setting).in_words_of(Dialect::Service);
        assert!(!said.is_empty(), "{setting:?}");
    }
}
