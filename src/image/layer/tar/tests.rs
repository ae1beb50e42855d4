//! Archives of all forms, those that GNU tar makes and those that break rules.

use super::*;
use crate::tarball::{Head, Tarball, record};
use std::fs;
use std::os::unix::fs::FileExt;
use std::process::Command;

/// All members, files with their data.
fn read(bytes: &[u8]) -> Result<Vec<(Member, Vec<u8>)>, Error> {
    let mut archive = Archive::new(bytes);
    let mut all = Vec::new();
    while let Some(member) = archive.next_member()? {
        let mut data = Vec::new();
        archive.read_to_end(&mut data).unwrap();
        all.push((member, data));
    }
    Ok(all)
}

fn paths(bytes: &[u8]) -> Vec<String> {
    let members = read(bytes).unwrap();
    members
        .iter()
        .map(|(member, _)| String::from_utf8_lossy(&member.path).into())
        .collect()
}

fn refused(bytes: &[u8], part: &str) {
    let error = read(bytes).unwrap_err().to_string();
    assert!(error.contains(part), "no {part:?} in {error:?}");
}

/// A file as it is with its holes.
fn whole(member: &Member, data: &[u8]) -> Vec<u8> {
    let Kind::File { size, stretches } = &member.kind else {
        panic!("{member:?}");
    };
    let mut bytes = vec![0; *size as usize];
    let mut data = data;
    for stretch in stretches {
        let (part, rest) = data.split_at(stretch.length as usize);
        bytes[stretch.offset as usize..][..part.len()].copy_from_slice(part);
        data = rest;
    }
    assert!(data.is_empty());
    bytes
}

#[test]
fn gnu_tar_is_read_in_all_its_forms() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    let (long, holes) = ("n".repeat(120), "s".repeat(150));
    fs::create_dir_all(at("in").join(&long)).unwrap();
    fs::write(at("in").join(&long).join(&long), "long").unwrap();
    std::os::unix::fs::symlink(&long, at("in/symlink")).unwrap();
    fs::hard_link(at("in").join(&long).join(&long), at("in/z-hard")).unwrap();
    let sparse = fs::File::create(at("in").join(&holes)).unwrap();
    sparse.set_len(3_000_001).unwrap();
    for number in 0..40 {
        sparse
            .write_all_at(b"data", number * 65_536 + 8192)
            .unwrap();
    }
    let sparse = fs::read(at("in").join(&holes)).unwrap();
    for form in [
        &["--format=gnu"][..],
        &["--format=gnu", "--sparse"],
        &["--format=oldgnu", "--sparse"],
        &["--format=posix"],
        &["--format=posix", "--sparse", "--sparse-version=0.0"],
        &["--format=posix", "--sparse", "--sparse-version=0.1"],
        &["--format=posix", "--sparse", "--sparse-version=1.0"],
    ] {
        let output = Command::new("tar")
            .args(form)
            .args(["--sort=name", "-cC"])
            .args([at("in"), ".".into()])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let members = read(&output.stdout).unwrap();
        let find = |path: &str| {
            members
                .iter()
                .find(|(it, _)| it.path == path.as_bytes())
                .unwrap()
        };
        let (member, data) = find(&format!("./{holes}"));
        assert!(whole(member, data) == sparse, "{form:?}");
        assert_eq!(
            data.len() < 1_000_000,
            form.contains(&"--sparse"),
            "{form:?}"
        );
        let (member, data) = find(&format!("./{long}/{long}"));
        assert_eq!(whole(member, data), b"long", "{form:?}");
        assert_eq!(find(&format!("./{long}/")).0.kind, Kind::Directory);
        assert_eq!(find("./symlink").0.kind, Kind::Symlink(long.clone().into()));
        assert_eq!(
            find("./z-hard").0.kind,
            Kind::Link(format!("./{long}/{long}").into())
        );
        assert_eq!(members.len(), 6, "{form:?}");
    }
}

#[test]
fn an_archive_ends_where_nothing_more_comes() {
    let mut made = Tarball::default();
    made.file("a", b"one").file("b", b"two");
    let all = made.finish();
    let end = made.0.len();
    // Whole, one block of zeros, none, half of the padding, no padding.
    for length in [all.len(), end + 512, end, end - 200, end - 509] {
        assert_eq!(paths(&all[..length]), ["a", "b"], "{length}");
    }
    for length in [end - 510, end - 512, end - 600, 100, end + 100] {
        refused(&all[..length], "in the middle of a member");
    }
    assert_eq!(paths(b""), [""; 0]);
    assert_eq!(paths(&[0; 512]), [""; 0]);
    // What is behind the end is none of it.
    assert_eq!(paths(&[&all[..], b"rest"].concat()), ["a", "b"]);
    let broken = [&[0; 512][..], &all].concat();
    refused(&broken, "no valid checksum");
}

#[test]
fn extended_headers_say_more() {
    let mut made = Tarball::default();
    let capability = b"\x01\0\0\x02\0\x20\n\0\0\0\0\0=\n12 path=x\n";
    let records = [
        record("path", "ä/".repeat(200).as_bytes()),
        record("uid", b"3000000000"),
        record("gid", b"7"),
        record("mtime", b"1.25"),
        record("SCHILY.xattr.security.capability", capability),
        record("comment", b"nothing"),
    ];
    made.header(&Head::new(b'g', b"pax_global_header"), 20)
        .data(&record("path", b"global12"));
    made.extended(&records.concat()).file("short", b"data");
    made.extended(&record("size", b"5"))
        .header(&Head::new(b'0', b"sized"), 1)
        .data(b"12345");
    made.file("plain", b"");
    let members = read(&made.finish()).unwrap();
    let (member, data) = &members[0];
    assert_eq!(member.path, "ä/".repeat(200).as_bytes());
    assert_eq!(
        (member.uid, member.gid, &data[..]),
        (3_000_000_000, 7, &b"data"[..])
    );
    assert_eq!(
        (member.mtime.seconds, member.mtime.nanoseconds),
        (1, 250_000_000)
    );
    assert_eq!(
        member.xattrs,
        [(b"security.capability".to_vec(), capability.to_vec())]
    );
    assert_eq!(members[1].1, b"12345");
    let (member, _) = &members[2];
    assert_eq!(
        (&member.path[..], member.uid, member.xattrs.len()),
        (&b"plain"[..], 0, 0)
    );
}

#[test]
fn old_forms_are_read() {
    let mut made = Tarball::default();
    made.member(&Head::new(0, b"directory/"), b"");
    made.member(&Head::new(0, b"file"), b"old");
    made.member(&Head::new(b'7', b"contiguous"), b"data");
    made.header(&Head::new(b'L', b"././@LongLink"), 5)
        .data(b"long\0");
    made.header(&Head::new(b'K', b"././@LongLink"), 7)
        .data(b"target\0");
    made.link(b'2', "short", "t");
    made.member(&Head::new(b'V', b"volume"), b"");
    let mut device = Head::new(b'3', b"null");
    device.device = (1, 3);
    made.member(&device, b"");
    // A header of POSIX's whose path is in two parts, and one of GNU's with times instead; Go before 1.8 wrote a part.
    for (magic, first) in [
        (b"ustar\x0000", &b"some/where"[..]),
        (b"ustar  \0", b"14000000000\x0014000000000"),
        (b"ustar  \0", b"go/1.7"),
    ] {
        let mut block = [0; 512];
        block[..4].copy_from_slice(b"name");
        block[156] = b'5';
        block[257..265].copy_from_slice(magic);
        block[345..345 + first.len()].copy_from_slice(first);
        made.block(block);
    }
    let members = read(&made.finish()).unwrap();
    let found: Vec<_> = members
        .iter()
        .map(|(it, _)| (it.path.escape_ascii().to_string(), &it.kind))
        .collect();
    let file = |size| Kind::File {
        size,
        stretches: vec![Stretch {
            offset: 0,
            length: size,
        }],
    };
    let expected = [
        ("directory/", Kind::Directory),
        ("file", file(3)),
        ("contiguous", file(4)),
        ("long", Kind::Symlink(b"target".to_vec())),
        ("null", Kind::Character(1, 3)),
        ("some/where/name", Kind::Directory),
        ("name", Kind::Directory),
        ("go/1.7/name", Kind::Directory),
    ];
    assert_eq!(
        found,
        expected
            .iter()
            .map(|(path, kind)| ((*path).to_owned(), kind))
            .collect::<Vec<_>>()
    );
}

#[test]
fn what_makes_no_sense_is_refused() {
    let file = || {
        let mut made = Tarball::default();
        made.file("a", b"one");
        made.0
    };
    let mut flipped = file();
    flipped[3] = 1;
    refused(
        &flipped,
        "the header at byte 0 of an archive has no valid checksum",
    );
    refused(&[0xff; 512], "no valid checksum");
    let mut kind = Tarball::default();
    kind.file("a", b"").member(&Head::new(b'?', b"x"), b"");
    refused(&kind.0, "a member of type `?` at byte 512");
    let with = |records: &[u8]| {
        let mut made = Tarball::default();
        made.extended(records).file("a", b"data");
        made.0
    };
    refused(&with(b"12 path=\n"), "no valid length");
    refused(&with(&record("uid", b"4294967296")), "no valid uid");
    refused(&with(&record("size", b"-1")), "no valid size");
    let mut huge = Tarball::default();
    huge.header(&Head::new(b'x', b"x"), MAX_HEADER + 1);
    refused(&huge.0, "headers of 1048577 bytes");
    let mut cut = Tarball::default();
    cut.header(&Head::new(b'x', b"x"), MAX_HEADER);
    refused(&cut.0, "in the middle of a member");
    // Maps whose stretches overlap, go past the end, are not what the data has, or are endless.
    for map in [
        "0,4,2,4",
        "4,2,0,2",
        "0,3",
        "0,5",
        "99,4",
        "0",
        "x",
        "18446744073709551615,4",
    ] {
        let records = [
            record("GNU.sparse.size", b"100"),
            record("GNU.sparse.map", map.as_bytes()),
        ];
        let error = read(&with(&records.concat())).unwrap_err().to_string();
        assert!(
            error.contains("map of holes") || error.contains("GNU.sparse"),
            "{map}: {error}"
        );
    }
    let records = [
        record("GNU.sparse.realsize", b"100"),
        record("GNU.sparse.major", b"1"),
    ]
    .concat();
    for map in ["99999999999999999999\n", "200000\n", "1\n0\nx\n", "1\n0"] {
        let mut made = Tarball::default();
        made.extended(&records).file("a", map.as_bytes());
        refused(&made.0, "map of holes");
    }
    let mut made = Tarball::default();
    let mut block = [0; 512];
    block[156] = b'S';
    block[257..265].copy_from_slice(b"ustar  \0");
    block[482] = 1;
    block[483..494].copy_from_slice(b"00000001000");
    made.block(block);
    let mut endless = made.0.clone();
    let mut more = [0; 512];
    more[504] = 1;
    for _ in 0..5000 {
        endless.extend_from_slice(&more);
    }
    refused(&endless, "map of holes");
}

#[test]
fn headers_of_a_member_are_bounded_together() {
    let records = record("SCHILY.xattr.user.x", b"").repeat(20_000);
    assert!(records.len() < MAX_HEADER as usize / 2);
    let mut made = Tarball::default();
    made.extended(&records).extended(&records).file("a", b"");
    // Each member anew.
    made.extended(&records).extended(&records).file("b", b"");
    let members = read(&made.finish()).unwrap();
    let xattrs = members.iter().map(|(member, _)| member.xattrs.len());
    assert_eq!(xattrs.collect::<Vec<_>>(), [40_000; 2]);
    made.extended(&records).extended(&records);
    let mut mixed = made.clone();
    made.extended(&records).file("c", b"");
    refused(&made.finish(), "before one member");
    for kind in [b'L', b'K'] {
        let name = [b'n'; 200_000];
        mixed.header(&Head::new(kind, b"long"), name.len() as u64);
        mixed.data(&name);
    }
    mixed.file("c", b"");
    refused(&mixed.finish(), "before one member");
}
