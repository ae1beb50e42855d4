//! Tests of other rings that run on the second host as well, each reported by its name.

use crate::host::Host;
use crate::task::Task;
use crate::trial;
use libtest_mimic::Trial;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where there are unit tests that show another side of themselves there: real cgroups of version 2, Landlock and
/// namespaces of a stock kernel, netfilter with all its modules, an older EROFS. Crates, and the beginnings of their tests' names.
pub const UNIT_TESTS: &[(&str, &[&str])] = &[
    ("kvmlet_host", &["net::", "shares::", "walls::"]),
    (
        "kvmlet_image",
        &[
            "erofs::",
            "pack::",
            "merge::tests::model::stacks_are_mounted",
        ],
    ),
    (
        "kvmlet_vmm",
        &["system_calls::", "devices::virtio::net::tests::vhost::"],
    ),
];

/// Reported as ignored: what fails there, or cannot be there.
const OPEN: &[&str] = &[
    // A client is reset now and then. A trace shows why: beside 300 connections the guest answers a SYN after 4.9 s.
    // What was given up until then has filled it, and it refuses the next for longer than one is kept waiting (2 s).
    "few_descriptors_are_shared_out_or_told",
    // Each call of each thread goes through another process: more than the test's patience.
    "each_entry_of_each_list_is_used",
    // They are built, and there is no compiler.
    "a_program_outside_needs_ten_lines",
    "examples_do_what_they_say",
    "an_agent_that_is_killed_misses_nothing",
    // Half a minute and more each, to show what the first host shows. (This ring has a test of kills of its own.)
    "what_nobody_reads_is_not_saved_to_its_end",
    "a_snapshot_that_is_given_up_leaves_nothing",
    "a_pool_that_is_killed_takes_along_what_nobody_has",
    "a_template_of_what_has_changed_is_thrown_away",
    "what_is_no_template_of_this_users_is_not_gone_on_from",
    "who_comes_and_goes_fast_does_not_shut_out_others",
    "memory_beyond_4_gib_is_saved",
    "memory_comes_from_another_program_page_by_page",
    "who_waits_for_a_page_that_never_comes_can_be_ended",
    "a_snapshot_goes_to_another_host",
    // It is saved until it halts at that moment, which it seldom does there.
    "who_is_about_to_halt_is_woken_elsewhere",
    "a_pool_of_an_image_has_machines_of_their_own",
    "what_waits_in_a_pool_of_an_image_is_found_again",
    "a_guest_that_writes_to_its_disk_stays_within_its_limit",
    "pause_stands_still_and_resume_goes_on",
    "a_hundred_suspensions_beside_kills_leave_the_book_true",
    "an_idle_instance_ends_as_any_other",
    "who_comes_for_an_idle_instance_wakes_it",
    "vms_killed_at_random_leave_nothing_behind",
    "a_signal_ends_a_vm_at_any_instant",
    "an_instance_that_is_not_well_is_started_again",
    "an_instance_that_stands_still_is_not_checked",
    "a_vm_that_stands_still_is_saved_and_stands_still",
    "who_is_attached_has_the_streams_and_the_end",
    "a_pool_gives_each_vm_to_one_and_fills_up",
    "a_pool_whose_maker_is_killed_before_it_is_ready_is_none",
    "a_function_goes_on_with_its_place_and_messages",
    "what_was_suspended_is_after_a_restart_of_the_host",
    "balloon_gives_back_parts_of_huge_pages",
    "streams_and_the_end_of_a_service_come_over_the_channel",
    "a_vm_tells_scrapers_what_it_uses",
    "a_service_is_stopped_as_is_asked",
    "commands_are_executed_in_an_instance",
    "ports_that_cannot_be_published_are_told",
    "a_vm_ends_with_whoever_has_taken_it",
    "whatever_is_done_and_killed_the_book_is_true_and_nothing_is_left",
    "a_vm_that_is_saved_goes_on_ten_times_over",
    "whoever_races_for_a_name_wins_nothing",
];

/// All tests of the bare-metal ring, and the unit tests named above.
pub fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for (ring, executable) in executables() {
        for name in tests(&executable) {
            if !is_wanted(&ring, &name) {
                continue;
            }
            let ring = ring.trim_start_matches("kvmlet_");
            let executable = executable.clone();
            let open = OPEN.contains(&name.as_str());
            let one = trial(format!("{ring}::{name}"), move |host: &Host| {
                let program = executable.to_string_lossy();
                let task = Task::new([&program, "--exact", &name, "--nocapture"]);
                let output = host.run(task.patience(300)).ended_with(0);
                for line in output.stderr.lines().chain(output.stdout.lines()) {
                    if line.starts_with("SKIPPED: ") {
                        println!("{name}: {line}");
                    }
                }
            });
            trials.push(one.with_ignored_flag(open));
        }
    }
    trials
}

/// Is the test of this name, of this executable, one for the second host?
fn is_wanted(executable: &str, name: &str) -> bool {
    let mut crates = UNIT_TESTS.iter();
    let of = crates.find(|(of, _)| *of == executable);
    of.is_none_or(|(_, starts)| starts.iter().any(|start| name.starts_with(start)))
}

/// The executables of the bare-metal ring and of unit tests, up to date.
fn executables() -> Vec<(String, PathBuf)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(env!("CARGO"))
        .current_dir(root)
        .args([
            "test",
            "--quiet",
            "--no-run",
            "--message-format",
            "json",
            "--package",
            "kvmlet-cli",
            "--package",
            "kvmlet-host",
            "--package",
            "kvmlet-image",
            "--package",
            "kvmlet-vmm",
            "--lib",
            "--test",
            "bare_metal",
        ])
        .output()
        .expect("cargo runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let text = String::from_utf8_lossy(&output.stdout);
    let messages = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let tests = messages.filter(|message| message["profile"]["test"] == true);
    let found: Vec<(String, PathBuf)> = tests
        .filter_map(|message| {
            let name = message["target"]["name"].as_str()?.to_owned();
            Some((name, message["executable"].as_str()?.into()))
        })
        .collect();
    // The command has no unit tests that are of interest there.
    let found: Vec<_> = found
        .into_iter()
        .filter(|(name, _)| name != "kvmlet_cli")
        .collect();
    assert_eq!(found.len(), UNIT_TESTS.len() + 1, "{text}");
    found
}

/// The names of an executable's tests.
fn tests(executable: &Path) -> Vec<String> {
    let output = Command::new(executable)
        .arg("--list")
        .output()
        .expect("it runs here");
    let text = String::from_utf8_lossy(&output.stdout);
    let names = text.lines().filter_map(|line| line.strip_suffix(": test"));
    names.map(Into::into).collect()
}
