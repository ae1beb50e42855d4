//! What the keys are of flags that take several, told to whoever asks for help.

use clap::{Arg, Command};
use kvmlet_spec::Setting;
use std::fmt::Write;

/// Adds to the help of each flag whose value is a list of keys what those are. It takes its time, which a VM that is
/// started need not wait for.
pub(crate) fn explained(command: Command) -> Command {
    command.mut_args(
        |arg| match Setting::of_flags().find(|it| arg.get_long() == Some(it.flag())) {
            Some(setting) if setting.keys().next().is_some() => explain(arg, setting),
            _ => arg,
        },
    )
}

fn explain(arg: Arg, setting: Setting) -> Arg {
    let keys: Vec<(String, &str)> = setting.keys().map(|key| (form(key), key.help())).collect();
    let width = keys.iter().map(|(form, _)| form.len()).max().unwrap_or(0);
    let mut help = format!(
        "{}.\n\nKeys, with commas between; a comma in a value is written twice:",
        setting.help()
    );
    for (form, text) in keys {
        // Text takes all that is written.
        let _ = write!(help, "\n  {form:width$}  {text}");
    }
    arg.long_help(help)
}

/// How a key is written.
fn form(key: Setting) -> String {
    match key.value() {
        "" => key.name().into(),
        value => format!("{}={value}", key.name()),
    }
}
