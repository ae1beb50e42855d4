//! What is not undone is asked for first.

use crate::Failed;
use kvmlet_sys::standard_error;
use std::fmt::Display;
use std::io::{self, BufRead, IsTerminal};

/// Does whoever sits at the terminal want that to happen, which a whole sentence tells? `things` are what it would remove.
///
/// # Errors
/// When nobody is there to be asked, or standard input cannot be read.
pub fn agreed(things: &str, sentence: impl Display) -> Result<bool, Failed> {
    if !io::stdin().is_terminal() {
        let said = format!("nobody is there to be asked whether {things} are to be removed");
        return Err(Failed::new(said).help("say --force"));
    }
    standard_error::say(format_args!("kvmlet: {sentence} Go on? [y/N]"));
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    read.map_err(Failed::new)?;
    Ok(["y", "yes"].contains(&answer.trim().to_lowercase().as_str()))
}
