//! What requests are known by, in answers and in what is told of them.

use crate::http::Answer;
use std::sync::atomic::{AtomicU64, Ordering};

/// The field of an answer's head.
const FIELD: &str = "Request-Id";

/// The id of the next request.
pub fn next() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(1);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{:x}-{count}", std::process::id())
}

/// The answer to a request.
pub fn named(answer: Answer, id: &str) -> Answer {
    answer.with(FIELD, id)
}
