//! Templates as Go's text/template has them, as far as lists take: `{{.Field}}`, `{{.State.Status}}`, `{{json .}}`,
//! `{{upper .Names}}`, `{{join .Ports ", "}}`, and pipes between them.

use crate::Failed;
use crate::plain::{self, escaped};
use serde_json::Value;
use std::io::{self, IsTerminal};

const FUNCTIONS: [&str; 6] = ["join", "json", "len", "lower", "println", "upper"];

/// Text with places to be filled.
pub struct Template(Vec<Piece>);

enum Piece {
    Text(String),
    Place(Vec<Call>),
}

/// A function with its arguments, or an argument alone.
struct Call {
    function: Option<&'static str>,
    arguments: Vec<Argument>,
}

enum Argument {
    /// The names of a field, from outside in; none are all there is.
    Field(Vec<String>),
    Text(String),
}

impl Template {
    /// Reads one. `\t` and `\n` are what they are in Go.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: &str) -> Result<Self, Failed> {
        let wrong = |why: String| {
            Failed::new(format!(
                "`{}` is not a template: {why}",
                text.escape_debug()
            ))
            .help(
                "fields are written as {{.Names}}; `json` and `table {{.Names}}` are formats, too",
            )
        };
        let unescaped = text.replace("\\t", "\t").replace("\\n", "\n");
        let mut rest = unescaped.as_str();
        let mut pieces = Vec::new();
        while let Some(start) = rest.find("{{") {
            let (before, behind) = rest.split_at(start);
            if !before.is_empty() {
                pieces.push(Piece::Text(before.into()));
            }
            let end = behind
                .find("}}")
                .ok_or_else(|| wrong("a `{{` is not closed".into()))?;
            let calls: Result<Vec<Call>, String> = split_unquoted(&behind[2..end], '|')
                .map(Call::parse)
                .collect();
            pieces.push(Piece::Place(calls.map_err(wrong)?));
            rest = &behind[end + 2..];
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.into()));
        }
        Ok(Self(pieces))
    }

    /// Fills it once for each value, in lines of their own, for standard output: a program has all as it is, and a terminal
    /// is not steered by it.
    ///
    /// # Errors
    /// When a value does not have what it asks for.
    pub fn lines(&self, values: &[Value]) -> Result<String, Failed> {
        let form: fn(&str) -> String = match io::stdout().is_terminal() {
            true => plain::lines,
            false => str::to_owned,
        };
        let lines = values
            .iter()
            .map(|value| Ok(self.fill(value, form)? + "\n"));
        lines.collect()
    }

    /// Fills it. What is put in has the form that `form` gives it.
    pub(super) fn fill(&self, value: &Value, form: fn(&str) -> String) -> Result<String, Failed> {
        let mut text = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(piece) => text.push_str(piece),
                Piece::Place(calls) => {
                    let mut piped = None;
                    for call in calls {
                        piped = Some(call.evaluate(value, piped).map_err(Failed::new)?);
                    }
                    text.push_str(&form(&shown(&piped.unwrap_or_default())));
                }
            }
        }
        Ok(text)
    }

    /// The text with the names of fields in their places.
    pub fn heading(&self, name: fn(&str) -> String) -> String {
        let piece = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Place(calls) => {
                let fields = calls.iter().flat_map(|call| &call.arguments);
                let names = fields.filter_map(|argument| match argument {
                    Argument::Field(names) => names.last(),
                    Argument::Text(_) => None,
                });
                names.map(|field| name(field)).collect()
            }
        };
        self.0.iter().map(piece).collect()
    }
}

impl Call {
    fn parse(text: &str) -> Result<Self, String> {
        let mut words = split_unquoted(text, ' ')
            .map(str::trim)
            .filter(|word| !word.is_empty())
            .peekable();
        let function = match words.peek() {
            None => return Err("a place is empty".into()),
            Some(word) if word.starts_with(['.', '"']) => None,
            Some(word) => {
                let known = FUNCTIONS.into_iter().find(|function| function == word);
                Some(known.ok_or_else(|| {
                    format!("there is no function `{word}` ({})", FUNCTIONS.join(", "))
                })?)
            }
        };
        if function.is_some() {
            words.next();
        }
        let arguments: Result<Vec<Argument>, String> = words.map(Argument::parse).collect();
        let arguments = arguments?;
        if function.is_none() && arguments.len() > 1 {
            return Err(format!("`{}` is more than one field", text.trim()));
        }
        Ok(Self {
            function,
            arguments,
        })
    }

    fn evaluate(&self, value: &Value, piped: Option<Value>) -> Result<Value, String> {
        let found: Result<Vec<Value>, String> = self
            .arguments
            .iter()
            .map(|argument| argument.find(value))
            .collect();
        let mut arguments = found?;
        arguments.extend(piped);
        let Some(function) = self.function else {
            return Ok(arguments.pop().unwrap_or_default());
        };
        let text = |value: &Value| shown(value);
        Ok(match (function, &arguments[..]) {
            ("json", [one]) => escaped(&one.to_string()).into(),
            ("upper", [one]) => text(one).to_uppercase().into(),
            ("lower", [one]) => text(one).to_lowercase().into(),
            ("println", all) => (all.iter().map(text).collect::<Vec<_>>().join(" ") + "\n").into(),
            ("len", [Value::Array(all)]) => all.len().into(),
            ("len", [Value::Object(all)]) => all.len().into(),
            ("len", [one]) => text(one).len().into(),
            ("join", [Value::Array(all), between]) => all
                .iter()
                .map(text)
                .collect::<Vec<_>>()
                .join(&text(between))
                .into(),
            ("join", [Value::String(one), Value::String(_)]) => one.clone().into(),
            _ => return Err(format!("`{function}` does not take that")),
        })
    }
}

impl Argument {
    fn parse(word: &str) -> Result<Self, String> {
        if let Some(names) = word.strip_prefix('.') {
            let names = names.split('.').filter(|name| !name.is_empty());
            return Ok(Self::Field(names.map(Into::into).collect()));
        }
        let quoted = word
            .strip_prefix('"')
            .and_then(|word| word.strip_suffix('"'));
        quoted
            .map(|text| Self::Text(text.into()))
            .ok_or_else(|| format!("`{word}` is neither a field nor a text in quotes"))
    }

    fn find(&self, value: &Value) -> Result<Value, String> {
        let names = match self {
            Self::Text(text) => return Ok(text.clone().into()),
            Self::Field(names) => names,
        };
        let mut found = value;
        for name in names {
            found = match found {
                Value::Object(fields) => fields.get(name).ok_or_else(|| {
                    let known: Vec<&str> = fields.keys().map(String::as_str).collect();
                    format!("there is no field `{name}` ({})", known.join(", "))
                })?,
                // As a health that nobody asks for.
                Value::Null => return Ok(Value::Null),
                _ => return Err(format!("there is no field `{name}` in `{}`", shown(found))),
            };
        }
        Ok(found.clone())
    }
}

/// As Go prints it.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "<no value>".into(),
        Value::String(text) => text.clone(),
        Value::Array(all) => format!("[{}]", all.iter().map(shown).collect::<Vec<_>>().join(" ")),
        Value::Object(all) => {
            let all: Vec<String> = all
                .iter()
                .map(|(key, value)| format!("{key}:{}", shown(value)))
                .collect();
            format!("map[{}]", all.join(" "))
        }
        other => other.to_string(),
    }
}

/// The parts between separators that do not stand in quotes.
fn split_unquoted(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    text.split(move |c| {
        quoted ^= c == '"';
        c == separator && !quoted
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn render(template: &str) -> Result<String, String> {
        let value = json!({
            "Names": "web", "State": {"Status": "running", "ExitCode": 0}, "Health": null,
            "Ports": ["80", "443"], "Labels": {"a": "b"},
        });
        let template = Template::parse(template).map_err(|failed| failed.to_string())?;
        template
            .fill(&value, str::to_owned)
            .map_err(|failed| failed.to_string())
    }

    #[test]
    fn what_is_put_in_has_its_form_and_the_rest_is_the_user_s() {
        let value = json!({"Labels": {"a\u{1b}[2J": "\u{9b}b\nc"}, "Names": ["\u{7}", "x"]});
        for (template, expected) in [
            (
                "\u{1b}[1m{{.Labels}}",
                "\u{1b}[1mmap[a\u{fffd}[2J:\u{fffd}b\nc]",
            ),
            ("{{join .Names \"\\n\" | upper}}", "\u{fffd}\nX"),
            ("{{println .Names}}", "[\u{fffd} x]\n"),
        ] {
            let filled = Template::parse(template)
                .unwrap()
                .fill(&value, plain::lines);
            assert_eq!(filled.unwrap(), expected, "{template}");
        }
        let raw = Template::parse("{{json .Labels}} {{.Names}}").unwrap();
        assert_eq!(
            raw.fill(&value, str::to_owned).unwrap(),
            "{\"a\\u001b[2J\":\"\\u009bb\\nc\"} [\u{7} x]"
        );
    }

    #[test]
    fn places_are_filled_as_go_fills_them() {
        for (template, expected) in [
            ("plain", "plain"),
            ("{{.Names}}", "web"),
            ("{{ .Names }}: {{.State.Status}}\\n", "web: running\n"),
            ("{{json .State}}", r#"{"ExitCode":0,"Status":"running"}"#),
            ("{{.State.ExitCode}}", "0"),
            ("{{upper .Names}}", "WEB"),
            ("{{.Names | upper | lower}}", "web"),
            ("{{join .Ports \", \"}}", "80, 443"),
            ("{{len .Ports}}", "2"),
            ("{{.Ports}} {{.Labels}}", "[80 443] map[a:b]"),
            ("{{.Health}} {{.Health.Status}}", "<no value> <no value>"),
            ("{{println .Names \"a | b\"}}", "web a | b\n"),
        ] {
            assert_eq!(render(template).as_deref(), Ok(expected), "{template}");
        }
        for (template, expected) in [
            ("{{.Names", "a `{{` is not closed"),
            ("{{}}", "a place is empty"),
            (
                "{{range .Ports}}",
                "there is no function `range` (join, json",
            ),
            ("{{.None}}", "there is no field `None` (Health, Labels"),
            ("{{.Names.More}}", "there is no field `More` in `web`"),
            ("{{.Names .Ports}}", "is more than one field"),
            ("{{upper x}}", "`x` is neither a field nor"),
            ("{{upper .Names .Ports}}", "`upper` does not take that"),
        ] {
            let error = render(template).unwrap_err();
            assert!(error.contains(expected), "{template}: {error}");
        }
    }
}
