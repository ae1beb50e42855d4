//! Hears what the devices log: an access beyond guest RAM that the kernel has refused is a bug.

use std::sync::Once;

struct Ear;

impl log::Log for Ear {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let said = record.args().to_string();
        // EFAULT, "Bad address".
        assert!(!said.contains("os error 14"), "beyond guest RAM: {said}");
    }

    fn flush(&self) {}
}

pub fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&Ear).expect("no other logger");
        log::set_max_level(log::LevelFilter::Debug);
    });
}
