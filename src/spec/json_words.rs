//! What serde and its JSON reader say, in the words of people who write JSON and no Rust.

use super::Error;
use serde_json::error::Category;

/// An error at the keys of `place`; empty at the top.
pub(super) fn explain(error: &serde_json::Error, place: String) -> Error {
    let (line, column) = (error.line(), error.column());
    let said = error.to_string();
    let said = said
        .strip_suffix(&format!(" at line {line} column {column}"))
        .unwrap_or(&said);
    let is_json = error.classify() == Category::Data;
    let message = match is_json {
        true => of_value(said),
        false => of_syntax(said, column),
    };
    Error::Json {
        is_json,
        place,
        message,
        line,
        column,
    }
}

/// What is wrong with a value (`serde::de::Error`), or what one of our own types says of it.
fn of_value(said: &str) -> String {
    if let Some((found, expected)) =
        parts(said, "invalid type: ").or(parts(said, "invalid value: "))
    {
        return format!("{} is not {}", thing(found), wanted(expected));
    }
    if let Some((found, expected)) = parts(said, "unknown variant ") {
        let choice = expected.strip_prefix("one of ").unwrap_or(expected);
        return format!("{found} is not one of {}", choice.replace("` or `", "`, `"));
    }
    if let Some(key) = said.strip_prefix("missing field ") {
        return format!("the key {key} is missing");
    }
    said.into()
}

/// What was found, and what was expected.
fn parts<'a>(said: &'a str, kind: &str) -> Option<(&'a str, &'a str)> {
    said.strip_prefix(kind)?.rsplit_once(", expected ")
}

/// What JSON has there (`serde::de::Unexpected`).
fn thing(found: &str) -> String {
    match found {
        "sequence" => "a list".into(),
        "map" => "an object".into(),
        "null" | "unit value" | "Option value" => "`null`".into(),
        _ => match found.split_once(['`', '"']) {
            // `integer `7``, `string "two"`
            Some((kind, value)) => {
                let quote = &found[kind.len()..kind.len() + 1];
                match quote {
                    "`" => format!("`{value}"),
                    _ => format!("`\"{value}`"),
                }
            }
            None => found.into(),
        },
    }
}

/// What would do there: the name of a Rust type, or what one of our own types asks for.
fn wanted(expected: &str) -> String {
    let most = match expected {
        "u8" => u64::from(u8::MAX),
        "u16" => u64::from(u16::MAX),
        "u32" => u64::from(u32::MAX),
        "u64" | "usize" => return "a whole number from 0".into(),
        "f64" | "f32" => return "a number".into(),
        "a string" => return "text in quotes".into(),
        "path string" => return "the path of a file, in quotes".into(),
        "a sequence" => return "a list in brackets, such as `[\"...\"]`".into(),
        "a map" => {
            return "an object with names and values, such as `{\"NAME\": \"VALUE\"}`".into();
        }
        "a boolean" => return "`true` or `false`".into(),
        "unit" => return "`null`".into(),
        other => return other.into(),
    };
    format!("a whole number from 0 to {most}")
}

/// Why it is no JSON (`serde_json::error::ErrorCode`).
fn of_syntax(said: &str, column: usize) -> String {
    let text = match said {
        "EOF while parsing a value" if column == 0 => "there is nothing in it",
        said if said.starts_with("EOF while parsing") => {
            "it ends in the middle: a bracket or a quote is still open"
        }
        "expected value" => {
            "a value should stand here: text in quotes, a number, `true`, `false`, `[...]` or `{...}`"
        }
        "expected ident" => "`true`, `false` and `null` are all that may stand without quotes",
        "expected `:`" => "a colon should stand here, between a key and its value",
        "expected `,` or `}`" => "a comma should stand here before the next key, or else a `}`",
        "expected `,` or `]`" => "a comma should stand here before the next value, or else a `]`",
        "key must be a string" => "a key should stand here, in quotes",
        "trailing comma" => "no comma may stand before a closing bracket",
        "trailing characters" => "nothing may stand behind the closing bracket",
        "number out of range" => "this number is too large",
        "invalid number" => "this is not a number",
        "invalid escape" => {
            "a backslash in text begins one of \\\" \\\\ \\/ \\b \\f \\n \\r \\t \\uXXXX"
        }
        "recursion limit exceeded" => "brackets are nested too deep",
        said if said.starts_with("control character") => {
            "a line break or another control character stands in text: write it as \\n or \\u00XX"
        }
        other => other,
    };
    text.into()
}

#[cfg(test)]
mod tests {
    use crate::VmConfig;

    #[test]
    fn no_word_of_serde_is_left() {
        for (json, expected) in [
            (
                r#"{"kernel": 7}"#,
                "`kernel`: `7` is not the path of a file, in quotes (line 1, column 12)",
            ),
            (
                r#"{"vcpus": "two"}"#,
                "`vcpus`: `\"two\"` is not a whole number from 0 (line 1",
            ),
            (
                r#"{"vcpus": 1.5}"#,
                "`vcpus`: `1.5` is not a whole number from 0",
            ),
            (r#"{"vcpus": null}"#, "no guest kernel"),
            (
                r#"{"vcpus": true}"#,
                "`vcpus`: `true` is not a whole number from 0",
            ),
            (
                r#"{"vcpus": {}}"#,
                "`vcpus`: an object is not a whole number from 0",
            ),
            (
                r#"{"stop_timeout": -1}"#,
                "`stop_timeout`: `-1` is not a whole number from 0 to 4294967295",
            ),
            (
                r#"{"disks": "d"}"#,
                "`disks`: `\"d\"` is not a list in brackets, such as `[\"...\"]`",
            ),
            (
                r#"{"disks": ["d"]}"#,
                "`disks[0]`: `\"d\"` is not an object with keys (`{\"KEY\": VALUE}`)",
            ),
            (
                r#"{"disks": [{}]}"#,
                "`disks[0]`: the key `path` is missing",
            ),
            (
                r#"{"disks": [{"path": "d", "io": "x"}]}"#,
                "`disks[0].io`: `x` is not one of `auto`, `io_uring`, `sync`",
            ),
            (
                r#"{"disks": [{"path": "d", "cache": "x"}]}"#,
                "`x` is not one of `writeback`, `writethrough`",
            ),
            (
                r#"{"nets": {}}"#,
                "`nets`: an object is not a list in brackets",
            ),
            (
                r#"{"env": ["A=1"]}"#,
                "`env`: a list is not an object with names and values",
            ),
            (r#"{"env": {"A": 1}}"#, "`env.A`: `1` is not text in quotes"),
            (
                r#"{"prefault": "yes"}"#,
                "`prefault`: `\"yes\"` is not `true` or `false`",
            ),
            (
                r#"{"dns": ["foo"]}"#,
                "`dns[0]`: `foo` is not an IP address (write one such as 9.9.9.9",
            ),
            ("", "there is nothing in it"),
            ("{", "it ends in the middle"),
            (r#"{"kernel": "k"#, "it ends in the middle"),
            (r#"{"memory": }"#, "`memory`: a value should stand here"),
            ("kernel: k", "a value should stand here"),
            (r#"{"kernel" "k"}"#, "a colon should stand here"),
            (r#"{"kernel": "k" "vcpus": 1}"#, "a comma should stand here"),
            (r#"{"command": ["a" "b"]}"#, "a comma should stand here"),
            (r#"{kernel: "k"}"#, "a key should stand here, in quotes"),
            (r#"{"kernel": "k",}"#, "no comma may stand"),
            (r#"{"kernel": "k"} x"#, "nothing may stand behind"),
            ("{\"kernel\": \"a\nb\"}", "control character stands in text"),
            (r#"{"kernel": "\x"}"#, "a backslash"),
            (r#"{"prefault": yes}"#, "a value should stand here"),
            (r#"{"prefault": tru}"#, "may stand without quotes"),
        ] {
            let error = VmConfig::from_json(json).unwrap_err().to_string();
            assert!(error.contains(expected), "{json}: {error}");
            for word in [
                "sequence", "invalid", "expected", " map", "EOF", "u32", "field", "variant",
                "string",
            ] {
                assert!(!error.contains(word), "{json}: {error}");
            }
        }
    }
}
