//! The command line.

use crate::{FAILED, print};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, Error, Parser};
use kvmlet_sys::heap;
use std::ffi::OsString;
use std::io::{self, IsTerminal};

/// Reads the command line of this process. Does not return when it is wrong, or asks for help. `explain` may add what
/// is known of an argument or a subcommand that there is not; `complete` adds what only help tells.
pub fn parse<P: Parser>(complete: fn(Command) -> Command, explain: fn(Error) -> Error) -> P {
    let asks = |argument: OsString| {
        ["-h", "--help", "help"]
            .iter()
            .any(|help| argument == *help)
    };
    let mut command = match kvmlet_sys::arguments::all().skip(1).any(asks) {
        true => complete(P::command()),
        false => P::command(),
    };
    let mut matches = command
        .try_get_matches_from_mut(kvmlet_sys::arguments::all())
        .unwrap_or_else(|error| leave(&name_argument(error, &mut command, explain)));
    let parsed = P::from_arg_matches_mut(&mut matches)
        .unwrap_or_else(|error| leave(&error.format(&mut command)));
    // Taking the definition apart again would take a fifth of the time that reading takes.
    heap::drop_later((command, matches));
    parsed
}

/// Prints what clap has to say, help or what is wrong, and ends the process: its own exit code is another one.
fn leave(said: &Error) -> ! {
    let is_error = said.use_stderr();
    let printed = match is_error || io::stdout().is_terminal() {
        true => said.print().or_else(|_| Ok(())),
        false => print(said.render().to_string()),
    };
    if let Err(failed) = &printed {
        failed.print();
    }
    let code = match is_error || printed.is_err() {
        true => FAILED,
        false => 0,
    };
    std::process::exit(code.into())
}

/// Adds what clap does not tell: which argument is not UTF-8.
fn name_argument(error: Error, command: &mut Command, explain: fn(Error) -> Error) -> Error {
    let mut all = kvmlet_sys::arguments::all().skip(1);
    match error.kind() {
        ErrorKind::InvalidUtf8 => match all.find(|argument| argument.to_str().is_none()) {
            Some(argument) => command.error(
                ErrorKind::InvalidUtf8,
                format!("the argument {argument:?} is not UTF-8; only paths of files may be anything else"),
            ),
            None => error,
        },
        ErrorKind::UnknownArgument | ErrorKind::InvalidSubcommand | ErrorKind::TooManyValues => {
            explain(error)
        }
        ErrorKind::MissingRequiredArgument | ErrorKind::ValueValidation => {
            let given: Vec<OsString> = all.collect();
            match taken_for_value(command, &given) {
                Some((flag, word)) => name_value(error, &flag, &word),
                None => error,
            }
        }
        _ => error,
    }
}

/// The word that an option has taken which does not need any, and that option, in a command that cannot do without another word.
fn taken_for_value(command: &Command, given: &[OsString]) -> Option<(String, String)> {
    let words = given.iter().filter_map(|word| word.to_str());
    let verb = words.fold(command, |verb, word| {
        verb.find_subcommand(word).unwrap_or(verb)
    });
    let mut positionals = verb.get_positionals();
    positionals.find(|argument| argument.is_required_set())?;
    let optional = |flag: &str| {
        verb.get_arguments().any(|argument| {
            let range = argument.get_num_args();
            flag.strip_prefix("--") == argument.get_long()
                && !argument.is_require_equals_set()
                && range.is_some_and(|range| (range.min_values(), range.max_values()) == (0, 1))
        })
    };
    let pair = |pair: &[OsString]| match (pair[0].to_str(), pair[1].to_str()) {
        (Some(flag), Some(word)) if optional(flag) && !word.starts_with('-') => {
            Some((flag.into(), word.into()))
        }
        _ => None,
    };
    given.windows(2).find_map(pair)
}

/// Adds to an error that a word is an option's value, if it may be for that.
fn name_value(mut error: Error, flag: &str, word: &str) -> Error {
    let invalid = error.get(ContextKind::InvalidValue);
    let of_another = invalid.is_some_and(|value| *value != ContextValue::String(word.to_owned()));
    if !of_another {
        let tip =
            format!("`{flag}` has taken `{word}` for its value: if it has none, say `{flag}` last");
        let tips = ContextValue::StyledStrs(vec![tip.into()]);
        error.insert(ContextKind::Suggested, tips);
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{Args, CommandFactory};

    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        verb: Verb,
    }

    #[derive(clap::Subcommand)]
    enum Verb {
        Restore(Restore),
        Boot(Flags),
    }

    #[derive(Args)]
    struct Flags {
        #[arg(long, num_args = 0..=1, default_missing_value = "")]
        net: Vec<String>,
        #[arg(long, num_args = 0..=1, default_missing_value = "1")]
        number: Option<u8>,
    }

    #[derive(Args)]
    struct Restore {
        #[command(flatten)]
        flags: Flags,
        file: String,
    }

    fn said(line: &str) -> String {
        let words: Vec<OsString> = line.split(' ').map(Into::into).collect();
        let mut command = Line::command();
        let error = command.try_get_matches_from_mut(&words).unwrap_err();
        match taken_for_value(&command, &words[1..]) {
            Some((flag, word)) => name_value(error, &flag, &word).to_string(),
            None => error.to_string(),
        }
    }

    #[test]
    fn a_word_that_an_option_has_taken_is_named() {
        let tip =
            "`--net` has taken `web.snapshot` for its value: if it has none, say `--net` last";
        let said_of_net = said("kvmlet restore --net web.snapshot");
        assert!(said_of_net.contains(tip), "{said_of_net}");
        let number = said("kvmlet restore --number web.snapshot");
        assert!(number.contains("`--number` has taken"), "{number}");
        for line in [
            "kvmlet restore --net=tap",
            "kvmlet restore --net tap a --number=x",
            "kvmlet boot --number web.snapshot",
            "kvmlet restore",
        ] {
            let said = said(line);
            assert!(!said.contains("has taken"), "{line}: {said}");
        }
        assert!(Line::try_parse_from(["kvmlet", "restore", "a", "--net"]).is_ok());
    }
}
