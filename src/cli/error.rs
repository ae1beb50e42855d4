//! The library's errors, as the command tells them.

use kvmlet_command::Failed;

impl From<crate::Error> for Failed {
    fn from(error: crate::Error) -> Self {
        let help = error.help();
        Self::with(error, help)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn the_way_out_comes_along() {
        let error = crate::Error::Open {
            what: "guest kernel",
            path: "nowhere".into(),
            source: io::Error::from_raw_os_error(2),
        };
        assert_eq!(
            Failed::from(error).to_string(),
            "error: cannot open guest kernel `nowhere`\n  \
               caused by: no such file or directory\n  \
               help: build one with `kernels/build`, or pass --kernel\n"
        );
    }
}
