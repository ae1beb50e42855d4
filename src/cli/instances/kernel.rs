//! Whether a VM has the kernel that it would have today: what is not in an image is not renewed with it.

use kvmlet_host::state::built;
use kvmlet_manager::{Moment, State, View};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Was the kernel that a VM would be started with now made when it ran already? False also where that cannot be told.
pub(in super::super) fn is_outdated(view: &View) -> bool {
    let runs = matches!(view.state, State::Running | State::Paused);
    let Some(started) = view.record.started.filter(|_| runs) else {
        return false;
    };
    let named = view.asked.config["kernel"].as_str().map(PathBuf::from);
    let kernel = named.unwrap_or_else(built::kernel);
    is_younger(Some(&kernel), Moment::now().since(started))
}

/// Whether a file was made within that time.
fn is_younger(file: Option<&Path>, than: Duration) -> bool {
    let made = file.and_then(|file| file.metadata().ok()?.modified().ok());
    let age = made.map(|made| SystemTime::now().duration_since(made).unwrap_or_default());
    age.is_some_and(|age| age < than)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_was_made_later_is_younger() {
        let place = tempfile::tempdir().unwrap();
        let kernel = place.path().join("vmlinux");
        let hour = Duration::from_secs(3600);
        assert!(!is_younger(None, hour) && !is_younger(Some(&kernel), hour));
        let file = std::fs::File::create(&kernel).unwrap();
        assert!(is_younger(Some(&kernel), hour));
        file.set_modified(SystemTime::now() - 2 * hour).unwrap();
        assert!(!is_younger(Some(&kernel), hour));
        assert!(is_younger(Some(&kernel), 3 * hour));
    }
}
