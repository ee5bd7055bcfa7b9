//! Users and groups, read from the system's files.

use std::path::Path;

use crate::files;

/// Returns the number of a group of `/etc/group`.
#[must_use]
pub fn group_number(name: &str) -> Option<u32> {
    number_in(&read("/etc/group")?, name)
}

/// Returns the number of a user of `/etc/passwd`.
#[must_use]
pub fn user_number(name: &str) -> Option<u32> {
    number_in(&read("/etc/passwd")?, name)
}

/// Returns the name of a user of `/etc/passwd`.
#[must_use]
pub fn user_name(number: u32) -> Option<String> {
    name_in(&read("/etc/passwd")?, number)
}

/// Returns the name of a group of `/etc/group`.
#[must_use]
pub fn group_name(number: u32) -> Option<String> {
    name_in(&read("/etc/group")?, number)
}

/// Returns whether a group is known to have no members other than root, such as `staff` of Debian,
/// which owns `/usr/local`. False if a directory service may know further members.
#[must_use]
pub fn is_vacant(group: u32) -> bool {
    // Without the file, glibc and musl look into files alone.
    let services = read("/etc/nsswitch.conf").unwrap_or_default();
    let (Some(groups), Some(users)) = (read("/etc/group"), read("/etc/passwd")) else {
        return false;
    };
    are_files_all(&services) && has_no_members(group, &groups, &users)
}

fn read(file: &str) -> Option<String> {
    files::read_text(Path::new(file)).ok()
}

/// Finds the number of a name; both files have the name first, and the number third.
fn number_in(file: &str, name: &str) -> Option<u32> {
    let mut lines = file.lines().map(|line| line.split(':').collect::<Vec<_>>());
    lines.find(|fields| fields[0] == name)?.get(2)?.parse().ok()
}

fn name_in(file: &str, number: u32) -> Option<String> {
    let mut lines = file.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let is_it = |fields: &Vec<&str>| fields.get(2).is_some_and(|it| it.parse() == Ok(number));
    lines.find(is_it).map(|fields| fields[0].to_owned())
}

/// Returns whether users and groups come from files and systemd alone (nsswitch.conf(5)).
fn are_files_all(services: &str) -> bool {
    let uncommented = services.lines().filter_map(|line| line.split('#').next()?.split_once(':'));
    let mut lists = uncommented
        .filter(|(database, _)| ["passwd", "group", "initgroups"].contains(&database.trim()));
    lists.all(|(_, sources)| {
        sources.split_whitespace().all(|it| ["files", "systemd"].contains(&it) || it.contains('='))
    })
}

fn has_no_members(group: u32, groups: &str, users: &str) -> bool {
    let number = group.to_string();
    let fields = |line: &str| line.split(':').map(str::to_owned).collect::<Vec<_>>();
    let mut listed = groups.lines().map(fields).filter(|it| it.get(2) == Some(&number)).peekable();
    let only_root = |members: &str| members.split(',').all(|it| ["", "root"].contains(&it.trim()));
    listed.peek().is_some()
        && listed.all(|it| it.get(3).is_none_or(|members| only_root(members)))
        && users
            .lines()
            .map(fields)
            .all(|it| it.get(3) != Some(&number) || it.get(2).is_some_and(|user| user == "0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUPS: &str = "root:x:0:\nstaff:x:50:\nadm:x:4:root\nwww:x:33:root,alice\ngames:x:60:\n";
    const USERS: &str = "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/:/bin/sh\n\
                         games:x:5:60:games:/usr/games:/usr/sbin/nologin\n";

    #[test]
    fn a_group_without_members_is_known_as_such() {
        for (group, vacant) in [(50, true), (4, true), (33, false), (60, false), (2000, false)] {
            assert_eq!(has_no_members(group, GROUPS, USERS), vacant, "{group}");
        }
        assert!(!has_no_members(50, "staff:x:50:\nalso:x:50:alice\n", USERS), "two of one number");
    }

    #[test]
    fn a_directory_service_may_know_more() {
        assert!(are_files_all(""));
        assert!(are_files_all("passwd: files systemd\ngroup: files [!UNAVAIL=return] systemd\n"));
        assert!(are_files_all("hosts: files dns\n# group: sss\n"));
        assert!(!are_files_all("passwd: files\ngroup:  files sss\n"));
        assert!(!are_files_all("passwd: files ldap # people\n"));
    }

    #[test]
    fn names_have_numbers() {
        assert_eq!(number_in(GROUPS, "staff"), Some(50));
        assert_eq!(number_in(USERS, "alice"), Some(1000));
        assert_eq!(number_in(USERS, "bob"), None);
        assert_eq!((user_number("root"), group_number("root")), (Some(0), Some(0)));
        assert_eq!(name_in(USERS, 1000).as_deref(), Some("alice"));
        assert_eq!(name_in(USERS, 1001), None);
        assert_eq!(user_name(0).as_deref(), Some("root"));
    }
}
