//! Files of variables or labels, by docker's rules: a line each; blanks before it, empty lines and those behind `#` do not count,
//! and quotes are part of a value.

use crate::Failed;
use kvmlet_sys::regular;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

/// More than any guest would take.
const MAX_BYTES: u64 = 4 << 20;

/// The variables of a file, each as a flag would have it: a name, and mostly a value.
pub(super) fn read(path: &Path) -> Result<Vec<OsString>, Failed> {
    let variable = |(number, line): (usize, Vec<u8>)| {
        let name = line.split(|byte| *byte == b'=').next().unwrap_or_default();
        match name.is_empty() || name.iter().any(u8::is_ascii_whitespace) {
            true => {
                let name = String::from_utf8_lossy(name).escape_debug().to_string();
                let place = format!("line {number} of `{}`", path.display());
                Err(Failed::new(format!(
                    "{place}: `{name}` is not the name of a variable"
                )))
            }
            false => Ok(OsString::from_vec(line)),
        }
    };
    lines(path)?.into_iter().map(variable).collect()
}

/// What counts of a file, with the numbers of its lines.
pub(super) fn lines(path: &Path) -> Result<Vec<(usize, Vec<u8>)>, Failed> {
    let failed =
        |error: String| Failed::in_vain(format!("cannot read `{}`", path.display()), error);
    let text = regular::read(path, MAX_BYTES + 1);
    let text = text.map_err(|error| failed(error.to_string()))?;
    if text.len() as u64 > MAX_BYTES {
        return Err(failed(format!("it has more than {MAX_BYTES} bytes")));
    }
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&text);
    let lines = text.split(|byte| *byte == b'\n').zip(1..);
    let lines = lines.map(|(line, number)| {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        (number, line.trim_ascii_start().to_vec())
    });
    Ok(lines
        .filter(|(_, line)| !matches!(line[..], [] | [b'#', ..]))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;

    fn file(text: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn lines_are_variables_as_docker_reads_them() {
        let file = file(
            b"\xef\xbb\xbf# no\n\n  A=1\r\nB=\"quoted\" # kept\nC=a=b\nD=\n\xffE=x\nNOT_HERE\n",
        );
        let found = read(file.path()).unwrap();
        let found: Vec<&[u8]> = found.iter().map(|line| line.as_bytes()).collect();
        assert_eq!(
            found,
            [
                &b"A=1"[..],
                b"B=\"quoted\" # kept",
                b"C=a=b",
                b"D=",
                b"\xffE=x",
                b"NOT_HERE",
            ]
        );
    }

    #[test]
    fn what_has_no_name_is_told_with_its_line() {
        for (text, expected) in [
            (&b"A=1\n=x\n"[..], "line 2 of "),
            (b"export A=1\n", "`export A` is not the name"),
        ] {
            let error = read(file(text).path()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let error = read(Path::new("/nowhere/env")).unwrap_err().to_string();
        assert!(error.contains("cannot read `/nowhere/env`"), "{error}");
        let error = read(Path::new("/dev/zero")).unwrap_err().to_string();
        assert!(error.contains("more than 4194304 bytes"), "{error}");
    }
}
