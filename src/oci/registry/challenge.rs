//! How a registry says what it wants to be shown: HTTP's `WWW-Authenticate` (RFC 9110).

/// A way to show who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// A name and a password.
    Basic,
    /// A token, from somebody else.
    Bearer {
        /// Who gives it: a URL.
        realm: String,
        /// For whom.
        service: Option<String>,
        /// For what.
        scope: Option<String>,
    },
}

/// All that are known of one header's; a token comes first.
pub fn parse(header: &str) -> Vec<Challenge> {
    let mut found = Vec::new();
    let mut rest = header.trim_start();
    while !rest.is_empty() {
        let (scheme, behind) = word(rest);
        if scheme.is_empty() {
            // Nothing that this syntax has: go on behind it.
            rest = rest.get(next(rest)..).unwrap_or_default();
            continue;
        }
        let (parameters, behind) = parameters(behind);
        rest = behind;
        let value = |name: &str| {
            let mut all = parameters.iter();
            all.find_map(|(key, value)| key.eq_ignore_ascii_case(name).then(|| value.clone()))
        };
        if scheme.eq_ignore_ascii_case("basic") {
            found.push(Challenge::Basic);
        } else if let (true, Some(realm)) = (scheme.eq_ignore_ascii_case("bearer"), value("realm"))
        {
            let (service, scope) = (value("service"), value("scope"));
            found.insert(
                0,
                Challenge::Bearer {
                    realm,
                    service,
                    scope,
                },
            );
        }
    }
    found
}

/// A token of HTTP's, and what follows.
fn word(text: &str) -> (&str, &str) {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    text.split_at(text.find(|c| !is_part(c)).unwrap_or(text.len()))
}

fn next(text: &str) -> usize {
    text.chars().next().map_or(0, char::len_utf8)
}

/// `key=value` and `key="value"` between commas, up to another scheme.
fn parameters(mut text: &str) -> (Vec<(String, String)>, &str) {
    let mut all = Vec::new();
    loop {
        let before = text.trim_start_matches([' ', '\t', ',']);
        let (key, behind) = word(before);
        let Some(behind) = behind
            .trim_start()
            .strip_prefix('=')
            .filter(|_| !key.is_empty())
        else {
            return (all, before);
        };
        let (value, behind) = value(behind.trim_start());
        all.push((key.into(), value));
        text = behind;
    }
}

fn value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let (value, behind) = text.split_at(text.find([',', ' ', '\t']).unwrap_or(text.len()));
        return (value.into(), behind);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        Challenge::Bearer {
            realm: realm.into(),
            service: service.map(Into::into),
            scope: scope.map(Into::into),
        }
    }

    #[test]
    fn challenges_are_found() {
        for (header, expected) in [
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#,
                vec![bearer(
                    "https://auth.docker.io/token",
                    Some("registry.docker.io"),
                    Some("repository:a/b:pull,push"),
                )],
            ),
            (r#"Basic realm="Registry Realm""#, vec![Challenge::Basic]),
            ("basic", vec![Challenge::Basic]),
            (
                r#"Negotiate, Basic realm="a, \"b\"", bearer realm=http://x"#,
                vec![bearer("http://x", None, None), Challenge::Basic],
            ),
            ("Bearer service=x", vec![]),
            (r#"Bearer realm="open"#, vec![bearer("open", None, None)]),
            ("", vec![]),
            ("=\"\u{e4},,==, \"", vec![]),
        ] {
            assert_eq!(parse(header), expected, "{header}");
        }
    }
}
