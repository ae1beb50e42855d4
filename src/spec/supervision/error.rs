//! What can be wrong with it.

use super::Span;

/// What is wrong with how a service is to be looked after.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A restart policy that there is not.
    #[error(
        "`{text}` is not a restart policy (no, on-failure, on-failure:5, always, unless-stopped)"
    )]
    Policy {
        /// What the user wrote.
        text: String,
    },
    /// A number of attempts for a policy that has none.
    #[error("only `on-failure` has a number of attempts, not `{policy}`")]
    Attempts {
        /// The policy.
        policy: String,
    },
    /// A number of attempts that is not one.
    #[error("`{text}` is not a number of attempts (a whole number from 1; 0 for no limit)")]
    AttemptCount {
        /// What the user wrote.
        text: String,
    },
    /// A span of time that does not parse.
    #[error("`{text}` is not a span of time (numbers with units: 300ms, 1.5s, 1h30m)")]
    Span {
        /// What the user wrote.
        text: String,
    },
    /// A span of time that a health check cannot have.
    #[error("{what} of {span} is too short: {} is the least", Span::SHORTEST)]
    Short {
        /// Which span.
        what: &'static str,
        /// The span asked for.
        span: Span,
    },
    /// A health check that runs nothing.
    #[error("a health check has no command")]
    NoCommand,
    /// A health check that could never tell.
    #[error("a health check takes one attempt at least")]
    NoRetries,
}
