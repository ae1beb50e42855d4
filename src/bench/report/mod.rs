//! A result as one page that a browser shows without a network.

mod chart;
mod density;
mod growth;
mod io;
mod scale;
mod startup;

pub use density::density;
pub use io::io;
pub use startup::startup;

use super::contestant::Presence;
use super::facts::HostFacts;
use std::fmt::Write;

const STYLE: &str = include_str!("style.css");

/// A page that is being written.
struct Page(String);

impl Page {
    /// One with its head, and what is to be known before all else.
    fn new(title: &str, lead: &str, warnings: &[String]) -> Self {
        let (title, lead) = (escape(title), escape(lead));
        let mut page = format!(
            "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
             <title>kvmlet: {title}</title><style>{STYLE}</style></head><body><main>\
             <h1>{title}</h1><p class=\"quiet\">{lead}</p>"
        );
        for warning in warnings {
            let warning = escape(warning);
            let _ = write!(page, "<p class=\"warning\" role=\"note\">{warning}</p>");
        }
        Self(page)
    }

    /// What is empty is left out.
    fn section(&mut self, title: &str, body: &str) {
        if !body.is_empty() {
            let _ = write!(self.0, "<section><h2>{title}</h2>{body}</section>");
        }
    }

    fn end(self) -> String {
        self.0 + "</main></body></html>\n"
    }
}

/// A picture with what is to be known of it; nothing without the picture.
fn picture(text: &str, picture: String) -> String {
    match picture.is_empty() {
        true => picture,
        false => format!("<p class=\"quiet\">{text}</p>{picture}"),
    }
}

/// Why a contestant did not take part, if it did not.
fn presence(name: &str, presence: &Presence) -> Option<String> {
    let name = escape(name);
    match presence {
        Presence::Present { .. } => None,
        Presence::Absent { install } => Some(format!(
            "<b>{name}</b> is not installed; to install it: <code>{}</code>",
            escape(install)
        )),
        Presence::Unusable { message } => {
            Some(format!("<b>{name}</b> cannot be used: {}", escape(message)))
        }
    }
}

/// A list; nothing of no items.
fn items(items: &[String]) -> String {
    match items.is_empty() {
        true => String::new(),
        false => format!("<ul><li>{}</li></ul>", items.join("</li><li>")),
    }
}

/// The host as a list of facts.
fn facts(host: &HostFacts) -> String {
    format!(
        "<dl><dt>kernel</dt><dd>{}</dd><dt>processor</dt><dd>{}, {} CPUs</dd><dt>memory</dt><dd>{:.1} GiB</dd>\
         <dt>KVM</dt><dd>{}</dd><dt>cgroups</dt><dd>version {}</dd><dt>load before</dt><dd>{:.2}</dd></dl>",
        escape(&host.kernel),
        escape(&host.cpu),
        host.cpus,
        host.memory_bytes as f64 / f64::from(1 << 30),
        host.kvm,
        host.cgroup_version,
        host.load
    )
}

/// What was started, exactly; nothing for who did not take part.
fn commands(name: &str, about: &str, presence: &Presence, command: &[String]) -> String {
    let Presence::Present { version } = presence else {
        return String::new();
    };
    format!(
        "<p><b>{}</b> <span class=\"quiet\">{}; {}</span></p><pre>{}</pre>",
        escape(name),
        escape(about),
        escape(version),
        escape(&command.join(" "))
    )
}

/// Text as HTML shows it.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            // What consoles write besides text has no place in a page.
            other if other.is_control() => escaped.push(' '),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests;
