//! Supervisors that this process has started: they live on, and are waited for when they have ended.

use kvmlet_sys::process::Child;
use std::sync::Mutex;

static KEEPERS: Mutex<Vec<Child>> = Mutex::new(Vec::new());

/// One more.
pub fn keep(keeper: Child) {
    let mut keepers = KEEPERS.lock().unwrap_or_else(|broken| broken.into_inner());
    keepers.push(keeper);
    reap(&mut keepers);
}

/// Forgets those that have ended.
pub fn look() {
    let mut keepers = KEEPERS.lock().unwrap_or_else(|broken| broken.into_inner());
    reap(&mut keepers);
}

fn reap(keepers: &mut Vec<Child>) {
    keepers.retain(|keeper| matches!(keeper.reap(), Ok(false)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;
    use std::time::Duration;

    #[test]
    fn who_has_ended_is_waited_for() {
        let child = kvmlet_sys::process::spawn(&mut std::process::Command::new("true")).unwrap();
        let process = PathBuf::from(format!("/proc/{}", child.pid()));
        keep(child);
        while process.exists() {
            std::thread::sleep(Duration::from_millis(1));
            look();
        }
    }
}
