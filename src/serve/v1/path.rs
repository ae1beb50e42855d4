//! What a path leads to.

use super::route::Route;
use crate::http::{Method, decoded};

/// What was found of a path.
#[derive(Debug)]
pub enum Found {
    /// A route, and the step that stands for `{name}` or `{id}`.
    Route(&'static Route, String),
    /// The path is there, and has other methods.
    Methods(Vec<&'static str>),
    /// Nothing.
    Nothing,
}

/// What a request asks for.
pub fn find(tables: &'static [&'static [Route]], method: Method, path: &str) -> Found {
    let mut methods = Vec::new();
    for route in tables.iter().copied().flatten() {
        let Some(name) = matching(route.path, path) else {
            continue;
        };
        if route.method == method {
            return Found::Route(route, name);
        }
        methods.push(route.method.name());
    }
    match methods.is_empty() {
        true => Found::Nothing,
        false => Found::Methods(methods),
    }
}

/// The step that stands for `{name}` or `{id}`, if the path is one of these.
fn matching(pattern: &str, path: &str) -> Option<String> {
    let mut name = String::new();
    let (mut pattern, mut path) = (pattern.split('/'), path.split('/'));
    loop {
        match (pattern.next(), path.next()) {
            (None, None) => return Some(name),
            (Some(known), Some(step)) if known.starts_with('{') && !step.is_empty() => {
                name = decoded(step)?;
            }
            (Some(known), Some(step)) if known == step => {}
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::TABLES;
    use super::*;

    #[test]
    fn paths_lead_to_what_they_name() {
        let Found::Route(route, name) = find(&TABLES, Method::Post, "/v1/vms/web%2D1/start") else {
            panic!("it is there");
        };
        assert_eq!((route.id, &*name), ("startVm", "web-1"));
        let Found::Methods(methods) = find(&TABLES, Method::Patch, "/v1/vms/a") else {
            panic!("the path is there");
        };
        assert_eq!(methods, ["PUT", "GET", "DELETE"]);
        for path in [
            "/",
            "/v1",
            "/v1/vms/",
            "/v1/vms//start",
            "/v1/vms/a/start/",
            "/v1/vms/%ff",
        ] {
            assert!(
                matches!(find(&TABLES, Method::Get, path), Found::Nothing),
                "{path}"
            );
        }
    }
}
