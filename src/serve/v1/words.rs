//! What verbs say to those who type, as clients of this API would say it: by fields, and not by flags.

use super::problem::Problem;

/// Flags whose fields are called otherwise. In all others dashes are underscores.
const OTHERWISE: [(&str, &str); 10] = [
    ("volume", "volumes"),
    ("label", "labels"),
    ("rm", "remove"),
    ("health-cmd", "health.command"),
    ("health-interval", "health.interval"),
    ("health-timeout", "health.timeout"),
    ("health-retries", "health.retries"),
    ("health-start-period", "health.start_period"),
    ("health-on-failure", "health.on_failure"),
    ("detach", "run"),
];

/// Says it by fields; the first that is named in what went wrong is what it is about.
pub fn in_fields(mut problem: Problem) -> Problem {
    let (detail, field) = by_fields(&problem.detail);
    problem.fault_message.clone_from(&detail);
    problem.detail = detail;
    problem.field = problem.field.or(field);
    // What is of use to nobody who does not type.
    let typed = |cause: &String| {
        cause.is_empty()
            || cause.starts_with("Usage: ")
            || cause.starts_with("For more information")
    };
    problem.causes.retain(|cause| !typed(cause));
    for cause in &mut problem.causes {
        *cause = by_fields(cause).0;
    }
    problem.help = problem.help.map(|help| by_fields(&help).0);
    problem
}

/// The same with fields for flags, and the first of them.
fn by_fields(text: &str) -> (String, Option<String>) {
    let (mut out, mut first) = (String::with_capacity(text.len()), None);
    let mut rest = text;
    while let Some(start) = rest.find("--") {
        let (before, after) = rest.split_at(start);
        let flag = &after[2..];
        let end = flag.find(|c: char| !c.is_ascii_lowercase() && c != '-');
        let (flag, behind) = flag.split_at(end.unwrap_or(flag.len()));
        let starts = before
            .chars()
            .next_back()
            .is_none_or(|c| " '`(|".contains(c));
        if !starts || !flag.starts_with(|c: char| c.is_ascii_lowercase()) {
            out.push_str(before);
            out.push_str(&after[..2]);
            rest = &after[2..];
            continue;
        }
        let known = OTHERWISE.iter().find(|(name, _)| *name == flag);
        let field = known.map_or_else(|| flag.replace('-', "_"), |(_, field)| (*field).into());
        // As the reader of command lines quotes them: '--memory <SIZE>'.
        let quoted = before.strip_suffix('\'').zip(behind.split_once('\''));
        match quoted {
            Some((before, (_, behind))) => {
                out.push_str(&format!("{before}`{field}`"));
                rest = behind;
            }
            None if before.ends_with('`') => {
                out.push_str(&format!("{before}{field}"));
                rest = behind;
            }
            None => {
                out.push_str(&format!("{before}`{field}`"));
                rest = behind;
            }
        }
        first = first.or(Some(field));
    }
    out.push_str(rest);
    (out, first)
}

#[cfg(test)]
mod tests {
    use super::super::problem::NOT_DONE;
    use super::*;

    #[test]
    fn flags_are_fields() {
        for (text, by, first) in [
            (
                "invalid value 'soon' for '--health-interval <TIME>': `soon` is not one",
                "invalid value 'soon' for `health.interval`: `soon` is not one",
                Some("health.interval"),
            ),
            (
                "the argument '--rm' cannot be used with '--restart <POLICY>'",
                "the argument `remove` cannot be used with `restart`",
                Some("remove"),
            ),
            (
                "say it with --health-cmd",
                "say it with `health.command`",
                Some("health.command"),
            ),
            (
                "take `--stop-signal`",
                "take `stop_signal`",
                Some("stop_signal"),
            ),
            ("a -- b, x--y, --, ---", "a -- b, x--y, --, ---", None),
            ("nothing", "nothing", None),
        ] {
            assert_eq!(
                by_fields(text),
                (by.into(), first.map(Into::into)),
                "{text}"
            );
        }
        let said = "error: invalid value 'x' for '--tmpfs <PATH>': no\n\nFor more information, try '--help'.\n";
        let problem = in_fields(Problem::in_words(NOT_DONE, said));
        assert_eq!(problem.detail, "invalid value 'x' for `tmpfs`: no");
        assert_eq!(problem.fault_message, problem.detail);
        assert_eq!(problem.field.as_deref(), Some("tmpfs"));
        assert!(problem.causes.is_empty(), "{:?}", problem.causes);
    }
}
