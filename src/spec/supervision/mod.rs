//! How a service is looked after once it runs: when it is started again, and how its health is asked for. The words are
//! docker's.

mod error;
mod health;
mod restart;
mod span;

pub use error::Error;
pub use health::HealthCheck;
pub use restart::RestartPolicy;
pub use span::Span;
