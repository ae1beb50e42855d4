//! Errors with what has led to them.

use std::error::Error;

/// An error and its causes in one line, as logs and notes have it.
pub fn in_a_line(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot open `x`")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn causes_stand_behind_what_they_have_caused() {
        let outer = Outer(std::io::Error::other("it is locked"));
        assert_eq!(in_a_line(&outer), "cannot open `x`: it is locked");
    }
}
