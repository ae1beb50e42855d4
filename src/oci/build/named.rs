//! Which images a Containerfile is about: so that those of the store are there for it. Only that is read here; what a line
//! means is the business of whoever builds.

use std::collections::BTreeMap;

/// The name of an image, as it stands there once variables have their values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named(pub String);

/// Names that a Containerfile has at the most.
const MAX_NAMES: usize = 100;
/// The longest value of a variable, or a line of words.
const MAX_TEXT: usize = 4096;

/// What `FROM` and `--from=` name up to the stage that is the last one, each once, but for stages of the file itself,
/// `scratch`, and images for other platforms. `arguments` are those of the command line.
pub fn images(text: &str, arguments: &[String], target: Option<&str>) -> Vec<Named> {
    let given: BTreeMap<&str, &str> = arguments
        .iter()
        .filter_map(|it| it.split_once('='))
        .collect();
    let mut variables: BTreeMap<String, String> = built_in();
    let mut stages: Vec<String> = Vec::new();
    let mut count = 0_usize;
    let mut found: Vec<Named> = Vec::new();
    for line in lines(text) {
        let mut words = line.split_whitespace();
        let Some(verb) = words.next().map(str::to_ascii_uppercase) else {
            continue;
        };
        match &*verb {
            // Others than those in front of the first stage are of no account to `FROM`.
            "ARG" if count == 0 => {
                for word in words {
                    let (name, default) = word.split_once('=').unwrap_or((word, ""));
                    let value = match given.get(name) {
                        Some(value) => (*value).to_owned(),
                        None => expand(unquoted(default), &variables),
                    };
                    variables.insert(name.into(), value);
                }
            }
            "FROM" => {
                let is_last = |stages: &[String]| {
                    target.is_some_and(|target| {
                        let named = stages.iter().any(|it| it.eq_ignore_ascii_case(target));
                        named
                            || count
                                .checked_sub(1)
                                .is_some_and(|it| it.to_string() == target)
                    })
                };
                if is_last(&stages) {
                    break;
                }
                count += 1;
                let words: Vec<&str> = words.collect();
                let (flags, rest): (Vec<&str>, Vec<&str>) =
                    words.iter().partition(|word| word.starts_with("--"));
                let platform = flags.iter().find_map(|it| it.strip_prefix("--platform="));
                let is_ours = platform.is_none_or(|it| is_ours(&expand(it, &variables)));
                if let Some(name) = rest.first()
                    && is_ours
                {
                    add(&mut found, &stages, expand(unquoted(name), &variables));
                }
                if let [_, word, stage, ..] = rest[..]
                    && word.eq_ignore_ascii_case("as")
                {
                    stages.push(stage.into());
                }
            }
            "COPY" | "ADD" | "RUN" => {
                let flags = words.take_while(|word| word.starts_with("--"));
                for flag in flags {
                    let of_copy = flag.strip_prefix("--from=");
                    let of_mount = flag
                        .strip_prefix("--mount=")
                        .and_then(|mount| mount.split(',').find_map(|it| it.strip_prefix("from=")));
                    if let Some(name) = of_copy.or(of_mount)
                        && name.parse::<usize>().is_err()
                    {
                        add(&mut found, &stages, unquoted(name).into());
                    }
                }
            }
            _ => {}
        }
    }
    found
}

fn add(found: &mut Vec<Named>, stages: &[String], name: String) {
    let is_stage = stages.iter().any(|it| it.eq_ignore_ascii_case(&name));
    let is_none = name.is_empty() || name == "scratch" || name.len() > MAX_TEXT;
    let named = Named(name);
    if !is_stage && !is_none && !found.contains(&named) && found.len() < MAX_NAMES {
        found.push(named);
    }
}

/// Lines with those that go on behind a backslash in one; none of comments.
fn lines(text: &str) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let mut goes_on = false;
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.starts_with('#') || trimmed.is_empty() {
            continue;
        }
        let (part, more) = match trimmed.strip_suffix('\\') {
            Some(part) => (part, true),
            None => (trimmed, false),
        };
        match all.last_mut().filter(|_| goes_on) {
            Some(last) => {
                last.push(' ');
                last.push_str(part);
            }
            None => all.push(part.into()),
        }
        goes_on = more;
    }
    all
}

fn unquoted(text: &str) -> &str {
    let inside = |quote: char| text.strip_prefix(quote)?.strip_suffix(quote);
    inside('"').or_else(|| inside('\'')).unwrap_or(text)
}

/// What whoever builds knows of this host.
fn built_in() -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for which in ["BUILD", "TARGET"] {
        for (what, value) in [
            ("PLATFORM", "linux/amd64"),
            ("OS", "linux"),
            ("ARCH", "amd64"),
            ("VARIANT", ""),
        ] {
            all.insert(format!("{which}{what}"), value.into());
        }
    }
    all
}

/// Is it what guests are?
pub fn is_ours(platform: &str) -> bool {
    let ours = kvmlet_image::config::Platform::of_guests();
    crate::pull::platform(platform)
        .is_some_and(|it| (it.os, it.architecture) == (ours.os, ours.architecture))
}

/// A text with values in the place of variables: `$NAME`, `${NAME}`, `${NAME:-OTHERWISE}`, `${NAME:+INSTEAD}`.
fn expand(text: &str, variables: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let value = |name: &str| variables.get(name).map_or("", String::as_str);
        let braced = rest.strip_prefix('{').and_then(|it| it.split_once('}'));
        if let Some((inside, after)) = braced {
            let whole = match (inside.split_once(":-"), inside.split_once(":+")) {
                (Some((name, otherwise)), _) if value(name).is_empty() => otherwise,
                (Some((name, _)), _) => value(name),
                (_, Some((name, instead))) if !value(name).is_empty() => instead,
                (_, Some(_)) => "",
                _ => value(inside),
            };
            out.push_str(whole);
            rest = after;
        } else {
            let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
            let end = rest.bytes().take_while(|byte| is_part(*byte)).count();
            out.push_str(value(&rest[..end]));
            rest = &rest[end..];
        }
        if out.len() > MAX_TEXT {
            return String::new();
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str, arguments: &[&str], target: Option<&str>) -> Vec<String> {
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        let found = images(text, &arguments, target);
        found.into_iter().map(|Named(name)| name).collect()
    }

    // What no `ARG` declares is no variable, whatever the command line says.
    #[test]
    fn images_are_found_where_a_containerfile_names_them() {
        let text = "# syntax=docker/dockerfile:1\nARG TAG=1 BASE=\"quay.io/a/b\"\n\
            FROM --platform=$BUILDPLATFORM golang:${TAG} AS Build\n\
            ARG TAG=9\nRUN --mount=type=bind,from=tools:x,target=/t \\\n  # a remark\n  true\n\
            from build as second\nFROM scratch\nFROM ${BASE:-none}\n\
            COPY --chown=1 --from=build /a /b\nCOPY --from=0 /a /b\ncopy --from=extra /a /b\n\
            FROM ${NONE:-fallback}:$TAG\nFROM --platform=linux/arm64 foreign\n";
        let all = ["golang:1", "tools:x", "quay.io/a/b", "extra", "fallback:1"];
        assert_eq!(found(text, &[], None), all);
        assert_eq!(
            found(text, &["TAG=2", "NONE=some"], None)[3..],
            ["extra", "fallback:2"]
        );
        assert_eq!(found(text, &[], Some("build")), all[..2]);
        assert_eq!(found(text, &[], Some("0")), all[..2]);
        assert_eq!(found(text, &[], Some("SECOND")), all[..2]);
    }

    #[test]
    fn what_is_no_containerfile_names_nothing() {
        for text in [
            "",
            "FROM",
            "FROM --platform=x",
            "ARG",
            "COPY --from=",
            "FROM $",
            "FROM ${",
        ] {
            let names = found(text, &[], None);
            assert!(names.is_empty() || names == ["{"], "{text}: {names:?}");
        }
        let long = format!(
            "ARG A=aaaaaaaaaaaaaaaa\n{}FROM $A\n",
            "ARG A=$A$A\n".repeat(60)
        );
        assert!(found(&long, &[], None).is_empty());
        let many: String = (0..1000)
            .map(|number| format!("FROM i{number}\n"))
            .collect();
        assert_eq!(found(&many, &[], None).len(), MAX_NAMES);
    }
}
