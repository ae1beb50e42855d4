use super::*;
use alloc::string::ToString;
use proptest::prelude::*;

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n# none\n\nbroken:x:\nbad:x:-1:4294967295::/bad:\n\
    www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin\nwww-data:x:99:99::/second:\n\
    app:x:1000:1001::relative:/bin/sh";
const GROUP: &str = "root:x:0:\nadm:x:4:root,app,www-data\nwww-data:x:33:\nstaff:x:50:app\nodd:x:4:app\nbroken:x\n\
    video:x:44:xapp,appx";

fn look_up(user: &str, extra: &[&str]) -> Result<Identity, AccountError> {
    let user = User::parse("user", user).unwrap();
    let extra: Vec<Account> = extra.iter().map(|it| Account::parse(it).unwrap()).collect();
    let mut lookup = Lookup::new(&user, &extra);
    PASSWD
        .lines()
        .for_each(|line| lookup.passwd_line(line.as_bytes()));
    GROUP
        .lines()
        .for_each(|line| lookup.group_line(line.as_bytes()));
    lookup.finish()
}

#[track_caller]
fn assert_is(user: &str, uid: u32, gid: u32, groups: &[u32], home: Option<&str>) {
    let identity = Identity {
        uid,
        gid,
        groups: groups.into(),
        home: home.map(Into::into),
    };
    assert_eq!(look_up(user, &[]), Ok(identity), "{user}");
}

#[test]
fn names_and_numbers_mean_what_they_mean_to_docker() {
    assert_is("root", 0, 0, &[4], Some("/root"));
    assert_is("www-data", 33, 33, &[4], Some("/var/www"));
    assert_is("33", 33, 33, &[4], Some("/var/www"));
    // Nobody's number has root's group, and no directory.
    assert_is("7777", 7777, 0, &[], None);
    assert_is("7777:8888", 7777, 8888, &[], None);
    // Who names a group is in no other.
    assert_is("app:staff", 1000, 50, &[], None);
    assert_is("app:33", 1000, 33, &[], None);
    assert_is(":staff", 0, 50, &[], Some("/root"));
    assert_is("app", 1000, 1001, &[4, 50], None);
}

#[test]
fn further_groups_are_added_once() {
    let identity = look_up("app:33", &["video", "50", "staff", "777"]).unwrap();
    assert_eq!(identity.groups, [50, 44, 777]);
    let missing = look_up("app", &["wheel"]).unwrap_err().to_string();
    assert_eq!(missing, "the image's /etc/group has no group \"wheel\"");
}

#[test]
fn names_that_nobody_has_are_told() {
    let error = |user| look_up(user, &[]).unwrap_err().to_string();
    assert_eq!(
        error("nginx"),
        "the image's /etc/passwd has no user \"nginx\""
    );
    assert_eq!(
        error("app:nginx"),
        "the image's /etc/group has no group \"nginx\""
    );
    assert_eq!(error("bad"), "the image's /etc/passwd has no user \"bad\"");
}

#[test]
fn more_groups_than_there_may_be_are_an_error() {
    let user = User::ROOT;
    let extra: Vec<Account> = (1..=257).map(Account::Number).collect();
    assert_eq!(
        Lookup::new(&user, &extra).finish(),
        Err(AccountError::TooManyGroups)
    );
    assert!(Lookup::new(&user, &extra[1..]).finish().is_ok());
}

#[test]
fn what_cannot_be_a_user_is_refused() {
    for text in [
        "",
        "a:",
        ":",
        "a:b:c",
        "4294967295",
        "1:4294967295",
        "99999999999",
        "a/b",
        "a\nb",
    ] {
        assert!(User::parse("user", text).is_err(), "{text:?}");
    }
}

proptest! {
    #[test]
    fn what_is_printed_is_read_again(text in "[a-z0-9:]{0,6}") {
        if let Ok(user) = User::parse("user", &text) {
            assert_eq!(User::parse("user", &user.to_string()), Ok(user));
        }
    }

    #[test]
    fn any_line_is_survived(passwd in "[a-z0:,\\PC]{0,30}", group in "[a-z0:,\\PC]{0,30}") {
        let user = User { user: Account::Name("a".into()), group: None };
        let mut lookup = Lookup::new(&user, &[]);
        lookup.passwd_line(passwd.as_bytes());
        lookup.group_line(group.as_bytes());
        let _ = lookup.finish();
    }
}
