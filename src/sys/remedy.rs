//! Errors that know a way out.

use std::error::Error;

/// An error that may know what a person can do about it, for whoever tells it.
pub trait Remedy: Error {
    /// The way out, where one is known.
    fn remedy(&self) -> Option<String>;
}
