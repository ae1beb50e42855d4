use alloc::string::String;
use alloc::vec::Vec;

use crate::json::{self, Value};
use crate::{Error, ServiceSpec, User};

impl ServiceSpec {
    /// Reads a service file ([`crate::SERVICE_FILE`]), which looks like this; every key may be
    /// left out:
    ///
    /// ```json
    /// {"command": ["/usr/sbin/nginx", "-g", "daemon off;"], "env": {"TZ": "UTC"},
    ///  "workdir": "/", "user": "33:33"}
    /// ```
    ///
    /// # Errors
    ///
    /// When it is not JSON, has an unknown key, or a value of the wrong kind.
    pub fn from_json(text: &str) -> Result<Self, Error> {
        let Value::Object(members) = json::parse(text)? else {
            return Err(Error::Syntax {
                line: 1,
                column: 1,
                reason: "an object is expected",
            });
        };
        let mut service = Self::default();
        for (key, value) in members {
            match key.as_str() {
                "command" => service.command = strings(&key, value)?,
                "env" => service.env = variables(&key, value)?,
                "workdir" => service.workdir = Some(string(&key, value)?),
                "user" => service.user = Some(User::parse(&key, &string(&key, value)?)?),
                _ => {
                    return Err(Error::UnknownKey {
                        key,
                        known: "command, env, workdir, user",
                    });
                }
            }
        }
        Ok(service)
    }
}

/// A string that can be handed to the kernel.
fn string(key: &str, value: Value) -> Result<String, Error> {
    match value {
        Value::String(text) if text.contains('\0') => {
            Err(Error::value(key, &text, "contains a NUL byte"))
        }
        Value::String(text) => Ok(text),
        other => Err(Error::value(key, other.kind(), "should be a string")),
    }
}

fn strings(key: &str, value: Value) -> Result<Vec<String>, Error> {
    match value {
        Value::Array(items) => items.into_iter().map(|item| string(key, item)).collect(),
        other => Err(Error::value(
            key,
            other.kind(),
            "should be an array of strings",
        )),
    }
}

fn variables(key: &str, value: Value) -> Result<Vec<(String, String)>, Error> {
    let Value::Object(members) = value else {
        return Err(Error::value(
            key,
            value.kind(),
            "should be an object of strings",
        ));
    };
    let mut variables = Vec::with_capacity(members.len());
    for (name, value) in members {
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(Error::value(key, &name, "is no name for a variable"));
        }
        let value = string(&name, value)?;
        variables.push((name, value));
    }
    Ok(variables)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Account;
    use alloc::format;
    use alloc::string::ToString;

    #[test]
    fn a_full_file_is_understood() {
        let service = ServiceSpec::from_json(
            r#"{"command": ["/usr/sbin/nginx", "-g", "daemon off;"],
                "env": {"K": "V", "EMPTY": ""}, "workdir": "/srv", "user": "33"}"#,
        )
        .unwrap();
        assert_eq!(service.command, ["/usr/sbin/nginx", "-g", "daemon off;"]);
        assert_eq!(service.env[0], ("K".into(), "V".into()));
        assert_eq!(service.env[1], ("EMPTY".into(), "".into()));
        assert_eq!(service.workdir.as_deref(), Some("/srv"));
        assert_eq!(
            service.user,
            Some(User {
                user: Account::Number(33),
                group: None
            })
        );
    }

    #[test]
    fn an_empty_object_is_the_default() {
        assert_eq!(
            ServiceSpec::from_json(" { } \n").unwrap(),
            ServiceSpec::default()
        );
    }

    #[test]
    fn errors_name_the_key() {
        let cases = [
            (
                r#"{"comand": []}"#,
                "unknown key \"comand\" (known are command, env, workdir, user)",
            ),
            (
                r#"{"command": "sh"}"#,
                "command: \"a string\": should be an array of strings",
            ),
            (
                r#"{"command": [1]}"#,
                "command: \"a number\": should be a string",
            ),
            (r#"{"env": {"A": null}}"#, "A: \"null\": should be a string"),
            (
                r#"{"env": {"A=B": ""}}"#,
                "env: \"A=B\": is no name for a variable",
            ),
            (
                r#"{"user": "a:b:c"}"#,
                "user: \"a:b:c\": should be USER or USER:GROUP, each a name or a number",
            ),
            (r#"{"user": "0", "user": "1"}"#, "\"user\" is given twice"),
            (r#"["sh"]"#, "line 1, column 1: an object is expected"),
        ];
        for (text, message) in cases {
            let error = ServiceSpec::from_json(text).unwrap_err().to_string();
            assert_eq!(error, message, "{text}");
        }
        let nul = format!(r#"{{"workdir": "/{}u0000"}}"#, '\\');
        assert!(ServiceSpec::from_json(&nul).is_err());
    }
}
