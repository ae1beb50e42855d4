//! Users by name, for messages, as far as /etc/passwd knows them (passwd(5)).

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// The fields of a user's line.
fn line_of(text: &str, user: u32) -> Option<Vec<&str>> {
    let mut lines = text.lines().map(|line| line.split(':').collect());
    lines.find(|fields: &Vec<&str>| fields.get(2).and_then(|id| id.parse().ok()) == Some(user))
}

/// `alice (uid 1000)`, or `uid 1000` where nobody knows a name.
pub fn describe(user: u32) -> String {
    let text = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    match line_of(&text, user).as_deref() {
        Some([name, ..]) => format!("{name} (uid {user})"),
        _ => format!("uid {user}"),
    }
}

/// A group's name.
pub fn group_name(group: u32) -> Option<String> {
    let text = std::fs::read_to_string("/etc/group").ok()?;
    Some((*line_of(&text, group)?.first()?).into())
}

/// Does /etc/group list a user as a member of a group (group(5))?
pub fn is_listed(user: u32, group: u32) -> bool {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    is_member(&read("/etc/passwd"), &read("/etc/group"), user, group)
}

fn is_member(users: &str, groups: &str, user: u32, group: u32) -> bool {
    let name = line_of(users, user).and_then(|fields| fields.first().copied());
    let members = line_of(groups, group).and_then(|fields| fields.get(3).copied());
    let (Some(name), Some(members)) = (name, members) else {
        return false;
    };
    members.split(',').any(|member| member == name)
}

/// Is it this process's user, or root? In a user namespace the host's root goes by another name; whoever it is owns
/// `/`.
pub fn is_this_or_root(user: u32) -> bool {
    let this = rustix::process::geteuid().as_raw();
    user == 0 || user == this || std::fs::metadata("/").is_ok_and(|root| root.uid() == user)
}

/// A user's home directory.
pub fn home(user: u32) -> Option<PathBuf> {
    let text = std::fs::read_to_string("/etc/passwd").ok()?;
    let home = PathBuf::from(*line_of(&text, user)?.get(5)?);
    home.is_absolute().then_some(home)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_by_number() {
        let text =
            "root:x:0:0:root:/root:/bin/sh\nbroken\nalice:x:1000:1000:,,,:/home/alice:/bin/sh\n";
        assert_eq!(line_of(text, 1000).unwrap()[0], "alice");
        assert_eq!(line_of(text, 0).unwrap()[5], "/root");
        assert_eq!(line_of(text, 1), None);
        assert_eq!(describe(4_000_000_000), "uid 4000000000");
    }

    #[test]
    fn members_are_found_by_name() {
        let users = "root:x:0:0::/root:\nalice:x:1000:1000::/:\nal:x:1001:1001::/:\n";
        let groups = "root:x:0:\nkvm:x:105:bob,alice\n";
        let member = |user, group| is_member(users, groups, user, group);
        assert!(member(1000, 105));
        assert!(!member(1001, 105) && !member(1000, 0) && !member(1000, 9) && !member(7, 105));
    }
}
