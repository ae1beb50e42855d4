//! Supervisors that this process has started: they live on, and are waited for when they have ended.

use std::process::Child;
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
    keepers.retain_mut(|keeper| matches!(keeper.try_wait(), Ok(None)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;
    use std::time::Duration;

    #[test]
    fn who_has_ended_is_waited_for() {
        let child = std::process::Command::new("true").spawn().unwrap();
        let process = PathBuf::from(format!("/proc/{}", child.id()));
        keep(child);
        while process.exists() {
            std::thread::sleep(Duration::from_millis(1));
            look();
        }
    }
}
