//! What other users of the host try against whoever runs kvmlet. Each situation really happens, in a [scene](scene) of
//! its own; whatever kvmlet makes of it, nothing but its own directory is touched.

mod capable;
mod environment;
mod files;
mod meanwhile;
mod notes;
mod runtime_directory;
pub mod scene;

use crate::cli::text;
use crate::harness::Test;
use scene::{ATTACKER, Scene, VICTIM, Who};
use std::path::Path;
use std::process::Output;

pub const TESTS: &[Test] = &[
    ("a_runtime_directory_of_others_is_not_used", || {
        play_all(runtime_directory::FORGED)
    }),
    ("xdg_runtime_dir_counts_if_it_is_ones_own", || {
        play_all(runtime_directory::NAMED)
    }),
    ("whoever_races_for_a_name_wins_nothing", meanwhile::races),
    ("a_lock_that_is_held_is_told_of", meanwhile::held_lock),
    (
        "notes_of_vms_are_kept_from_who_cleans_tmp",
        meanwhile::cleaners,
    ),
    (
        "root_of_a_user_namespace_has_its_users_directory",
        meanwhile::user_namespace,
    ),
    (
        "capabilities_of_the_file_give_a_network_and_take_it_back",
        capable::network,
    ),
    (
        "a_umask_closes_nothing_that_is_kvmlets_own",
        meanwhile::umasks,
    ),
    ("files_that_others_have_put_there_are_not_written", || {
        play_all(files::SITUATIONS)
    }),
    ("forged_notes_clear_nothing_of_others", || {
        play_all(notes::SITUATIONS)
    }),
    ("forged_notes_clear_nothing_of_their_user", || {
        play_all(notes::OF_A_USER)
    }),
    ("the_environment_and_the_caller_do_not_steer", || {
        play_all(environment::SITUATIONS)
    }),
    (
        "under_at_secure_words_of_the_caller_are_data",
        environment::words,
    ),
];

/// What is to come of it.
#[derive(Clone, Copy)]
pub enum Outcome {
    /// The guest runs.
    Works,
    /// It runs, and standard error says this.
    WorksAndSays(&'static str),
    /// kvmlet's own exit code, and standard error says all of this.
    Refused(&'static [&'static str]),
}
use Outcome::{Refused, Works, WorksAndSays};

/// One attack. Scripts are for sh; $V and $A are the numbers of victim and attacker.
pub struct Situation {
    pub name: &'static str,
    pub who: Who,
    /// What root has put there: as if an older kvmlet had been deceived.
    pub plant: &'static str,
    /// What the attacker does.
    pub attack: &'static str,
    /// What the attacker does until the scene is over.
    pub meanwhile: &'static str,
    pub environment: &'static [(&'static str, &'static str)],
    /// Behind `boot --kernel KERNEL`.
    pub arguments: &'static [&'static str],
    pub outcome: Outcome,
}

/// An ordinary user boots a guest, and nobody does anything about it.
pub const PLAIN: Situation = Situation {
    name: "",
    who: Who::Victim,
    plant: "",
    attack: "",
    meanwhile: "",
    environment: &[],
    arguments: &[],
    outcome: Works,
};

/// How many of the situations are an ordinary user's.
const fn of_an_ordinary_user(situations: &[Situation]) -> usize {
    let (mut at, mut count) = (0, 0);
    while at < situations.len() {
        count += matches!(situations[at].who, Who::Victim) as usize;
        at += 1;
    }
    count
}
const _: () = assert!(
    of_an_ordinary_user(runtime_directory::FORGED)
        + of_an_ordinary_user(runtime_directory::NAMED)
        + of_an_ordinary_user(files::SITUATIONS)
        + of_an_ordinary_user(notes::OF_A_USER)
        + of_an_ordinary_user(environment::SITUATIONS)
        >= 70
);

/// Where kvmlet may make and change things: its own runtime directories, and what its user names.
const OWN: [&str; 6] = [
    "/run/kvmlet",
    "/tmp/kvmlet-23002",
    "/tmp/kvmlet-23001",
    "/home/victim/run/kvmlet",
    "/run/user/23002/kvmlet",
    "/home/attacker/stats.json",
];

fn play_all(situations: &[Situation]) {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("SKIPPED: other users are played by root");
    }
    for situation in situations {
        // A thread of its own: mounts and network belong to a thread, and go with it.
        let played = std::thread::scope(|scope| scope.spawn(|| play(situation)).join());
        assert!(played.is_ok(), "{}", situation.name);
    }
}

fn play(situation: &Situation) {
    let mut scene = Scene::enter();
    scene.script(0, situation.plant);
    scene.script(ATTACKER, situation.attack);
    if !situation.meanwhile.is_empty() {
        scene.background(ATTACKER, situation.meanwhile);
    }
    let before = scene.picture();
    let mut arguments = vec!["boot", "--kernel", "/mnt/bin/ready"];
    arguments.extend(situation.arguments);
    let output = scene.kvmlet(situation.who, situation.environment, &arguments);
    check_outcome(situation, &output);
    check_picture(situation, &before, &scene.picture());
}

fn check_outcome(situation: &Situation, output: &Output) {
    let (name, message) = (situation.name, text(&output.stderr));
    let (code, parts): (i32, &[&str]) = match &situation.outcome {
        Works => (0, &[]),
        WorksAndSays(part) => (0, std::slice::from_ref(part)),
        Refused(parts) => (125, parts),
    };
    assert_eq!(output.status.code(), Some(code), "{name}: {message}");
    assert_eq!(output.stdout.starts_with(b"ready\n"), code == 0, "{name}");
    for part in parts {
        assert!(message.contains(part), "{name}: no {part:?} in {message}");
    }
}

type Picture = std::collections::BTreeMap<std::path::PathBuf, String>;

fn check_picture(situation: &Situation, before: &Picture, after: &Picture) {
    let name = situation.name;
    let refused = matches!(situation.outcome, Refused(_));
    // What was refused is as it was, too.
    let is_own = |path: &Path| OWN.iter().any(|own| path.starts_with(own));
    for (path, was) in before {
        if !is_own(path) || refused && !path.starts_with("/run/kvmlet") {
            assert_eq!(after.get(path), Some(was), "{name}: {}", path.display());
        }
    }
    for path in after.keys().filter(|path| !before.contains_key(*path)) {
        assert!(is_own(path), "{name}: {} was made", path.display());
    }
}
