//! Parts of messages: what was meant, and where.

pub(super) fn did_you_mean(nearest: &Option<String>) -> String {
    did_you_mean_or(nearest, "")
}

/// The nearest, or else what there is to say without.
pub(super) fn did_you_mean_or(nearest: &Option<String>, otherwise: &str) -> String {
    match nearest {
        Some(name) => format!("; did you mean `{name}`?"),
        None => otherwise.into(),
    }
}

/// The nearest, or else all of them.
pub(super) fn did_you_mean_one_of(nearest: &Option<String>, known: &[String]) -> String {
    match nearest {
        None if !known.is_empty() => format!("; known are {}", known.join(", ")),
        nearest => did_you_mean(nearest),
    }
}

pub(super) fn within(place: &str) -> String {
    match place {
        "" => String::new(),
        place => format!(" in `{place}`"),
    }
}

pub(super) fn at(place: &str) -> String {
    match place {
        "" => String::new(),
        place => format!("`{place}`: "),
    }
}

pub(super) fn needs_or_is(value: &str) -> String {
    match value {
        "" => "needs a value: ".into(),
        value => format!("is `{value}`, not "),
    }
}
