//! How the health of a service is asked for.

use super::{Error, Span};
use serde::{Deserialize, Serialize};

/// A command that is run inside the guest again and again; its exit code 0 says that the service is well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct HealthCheck {
    /// What the guest's shell runs.
    pub command: String,
    /// A program with its arguments, which is run instead, without a shell; none if there is a command.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arguments: Vec<String>,
    /// From the end of one check to the start of the next.
    pub interval: Span,
    /// How long a check may take; one that takes longer has failed.
    pub timeout: Span,
    /// This many failures in a row make a service unhealthy.
    pub retries: u32,
    /// For this long after the start failures do not count, until a check has succeeded.
    pub start_period: Span,
    /// In that time: from the end of one check to the start of the next.
    pub start_interval: Span,
    /// Whether a service that is unhealthy is ended, for its restart policy to start it again.
    pub restart: bool,
}

impl HealthCheck {
    /// A check with docker's defaults: every 30 s, for at most 30 s, three times in a row.
    pub fn new(command: impl Into<String>) -> Self {
        Self {
            command: command.into(),
            arguments: Vec::new(),
            interval: Span::seconds(30),
            timeout: Span::seconds(30),
            retries: 3,
            start_period: Span::default(),
            start_interval: Span::seconds(5),
            restart: false,
        }
    }

    /// The same of a program with its arguments, for which no shell is needed.
    pub fn of_program(arguments: Vec<String>) -> Self {
        Self {
            arguments,
            ..Self::new("")
        }
    }

    /// Can it tell anything?
    ///
    /// # Errors
    /// The first thing that cannot be.
    pub fn check(&self) -> Result<(), Error> {
        if self.command.trim().is_empty() && self.arguments.is_empty() {
            return Err(Error::NoCommand);
        }
        if self.retries == 0 {
            return Err(Error::NoRetries);
        }
        let spans = [
            ("an interval", self.interval),
            ("a time limit", self.timeout),
            ("an interval during the start", self.start_interval),
        ];
        let short = spans.into_iter().find(|(_, span)| *span < Span::SHORTEST);
        match short {
            Some((what, span)) => Err(Error::Short { what, span }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_that_tell_nothing_are_refused() {
        let check = HealthCheck::new("wget -qO- 127.0.0.1");
        assert_eq!(check.check(), Ok(()));
        assert_eq!(HealthCheck::new(" ").check(), Err(Error::NoCommand));
        let none = HealthCheck::of_program(vec![]);
        assert_eq!(none.check(), Err(Error::NoCommand));
        let program = HealthCheck::of_program(vec!["/app".into(), "check".into()]);
        assert_eq!(program.check(), Ok(()));
        let mut wrong = check.clone();
        wrong.retries = 0;
        assert_eq!(wrong.check(), Err(Error::NoRetries));
        let mut wrong = check.clone();
        wrong.timeout = "999us".parse().unwrap();
        let error = wrong.check().unwrap_err().to_string();
        assert_eq!(
            error,
            "a time limit of 999\u{b5}s is too short: 1ms is the least"
        );
        let text = serde_json::to_string(&check).unwrap();
        assert!(text.contains(r#""interval":"30s""#), "{text}");
        assert_eq!(serde_json::from_str::<HealthCheck>(&text).unwrap(), check);
    }
}
