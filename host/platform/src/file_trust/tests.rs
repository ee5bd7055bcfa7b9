use super::*;

/// Judges a file of owner, group and mode for the user 1000.
fn judged((owner, group, mode): (u32, u32, u32), also: Also, accepted: &str) -> Vec<Stranger> {
    let listed = acl::Writers { own_group: mode & 0o020 != 0, ..Default::default() };
    let accepted = accepted.parse().expect("it is right");
    let allowed = Allowed::by(also, (1000, 1000), accepted);
    judge(&Facts { owner, group, mode, listed }, &allowed)
}

#[test]
fn only_the_own_group_may_be_let_in() {
    let check = |file, nobody: Option<Stranger>, own_group: Option<Stranger>| {
        assert_eq!(judged(file, Also::Nobody, ""), Vec::from_iter(nobody), "{file:?}");
        assert_eq!(judged(file, Also::OwnGroup, ""), Vec::from_iter(own_group), "{file:?}");
    };
    check((1000, 1000, 0o100_600), None, None);
    check((0, 0, 0o100_755), None, None);
    check((0, 1000, 0o040_775), Some(Stranger::Mode(0o775)), None);
    check((1000, 1000, 0o100_664), Some(Stranger::Mode(0o664)), None);
    let by_another_group = Some(Stranger::Mode(0o664));
    check((1000, 100, 0o100_664), by_another_group, by_another_group);
    let by_all = Some(Stranger::Mode(0o666));
    check((1000, 1000, 0o100_666), by_all, by_all);
    let foreign = Some(Stranger::Owner(33));
    check((33, 1000, 0o100_600), foreign, foreign);
}

#[test]
fn whom_the_operator_accepts_is_no_stranger() {
    let volume = (0, 2000, 0o042_775);
    for also in [Also::Nobody, Also::OwnGroup] {
        assert_eq!(judged(volume, also, "group:2001"), [Stranger::Mode(0o775)]);
        assert_eq!(judged(volume, also, "group:2000"), []);
        assert_eq!(judged((0, 2000, 0o042_777), also, "group:2000").len(), 1);
        let foreign = (33, 33, 0o040_775);
        assert_eq!(judged(foreign, also, "owner:33"), [Stranger::Mode(0o775)]);
        assert_eq!(judged(foreign, also, "group:33"), [Stranger::Owner(33)]);
        assert_eq!(judged(foreign, also, "owner:33,group:33"), []);
        assert_eq!(judged((33, 33, 0o040_777), also, "everyone"), []);
    }
}

#[test]
fn an_access_list_names_strangers() {
    let listed = acl::Writers { own_group: false, users: vec![0, 33], groups: vec![1000, 34] };
    // The bits of the group are the mask, and say nothing of the group.
    let file = Facts { owner: 1000, group: 100, mode: 0o100_664, listed };
    let found = |accepted: &str| {
        let accepted = accepted.parse().expect("it is right");
        judge(&file, &Allowed::by(Also::OwnGroup, (1000, 1000), accepted))
    };
    assert_eq!(found(""), [Stranger::ListedUser(33), Stranger::ListedGroup(34)]);
    assert_eq!(found("owner:33"), [Stranger::ListedGroup(34)]);
    assert_eq!(found("owner:33,group:34"), []);
}

#[test]
fn access_lists_are_read() {
    use rustix::fs::{XattrFlags, setxattr};
    let directory = tempfile::tempdir().expect("a temporary directory");
    let root = directory.path().canonicalize().expect("it is there");
    let path = root.join("modules.yaml");
    std::fs::write(&path, "").expect("it is writable");
    let set = |may: u16| {
        let none = u32::MAX;
        let user = [(1, 6, none), (2, may, 4321), (4, 4, none), (16, 6, none), (32, 4, none)];
        let value = acl::attribute(&user);
        setxattr(&path, "system.posix_acl_access", &value, XattrFlags::empty())
    };
    if set(6) == Err(rustix::io::Errno::OPNOTSUPP) {
        return; // This file system has no access lists, so that none can open it.
    }
    let mode = path.metadata().expect("it is there").mode();
    assert_eq!(mode & 0o777, 0o664, "as the usual mask leaves it");
    let exposed = on_the_way(&path, Also::OwnGroup).expect("a user may write it");
    assert_eq!(exposed.stranger, Stranger::ListedUser(4321));
    assert!(exposed.to_string().contains("another user (4321, by its access list)"));
    assert_eq!(exposed.remedy(), format!("run `setfacl -x u:4321 {}`", path.display()));
    set(4).expect("it has them");
    assert_eq!(on_the_way(&path, Also::OwnGroup), None, "it may only read");
}

#[test]
fn says_what_it_saw() {
    let (owner, mode) = (Stranger::Owner(33), Stranger::Mode(0o646));
    assert_eq!(owner.to_string(), "belongs to another user (33)");
    assert_eq!(mode.to_string(), "can be written by others (mode 646)");
}

/// A permission that may stay, such as that of the group of `/usr/local`, is not taken away.
#[test]
fn the_remedy_takes_the_right_from_those_who_must_not_have_it() {
    use std::{
        fs::{self, Permissions},
        os::unix::fs::PermissionsExt as _,
    };
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path();
    let check = |mode: u32, group_may: bool, expected: Option<&str>| {
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("it is ours");
        let metadata = path.metadata().expect("it is there");
        let groups = if group_may { vec![metadata.gid()] } else { Vec::new() };
        let allowed = Allowed { users: vec![metadata.uid()], groups, everyone: false };
        let found = judge(&Facts::new(path, &metadata), &allowed);
        let exposed = Exposed::new(path, &metadata, &allowed, &found);
        let expected = expected.map(|who| format!("run `chmod {who}-w {}`", path.display()));
        assert_eq!(exposed.map(|it| it.remedy()), expected, "{mode:o} {group_may}");
    };
    check(0o755, false, None);
    check(0o775, true, None);
    check(0o775, false, Some("g"));
    check(0o777, true, Some("o"));
    check(0o777, false, Some("go"));
    check(0o757, false, Some("o"));
}

#[test]
fn every_place_on_the_way_counts() {
    use std::{
        fs::{self, Permissions},
        os::unix::fs::{PermissionsExt as _, symlink},
    };
    let directory = tempfile::tempdir().expect("a temporary directory");
    let root = directory.path().canonicalize().expect("it is there");
    let (above_it, file, link) = (root.join("a"), root.join("a/file"), root.join("link"));
    fs::create_dir(&above_it).expect("it is new");
    fs::write(&file, "").expect("it is writable");
    // The mode of a link is 777, and means nothing.
    symlink("a/file", &link).expect("it is new");
    let found = |path: &Path| {
        let exposed = on_the_way(path, Also::OwnGroup);
        exposed.map(|it| (it.remedy(), it.to_string()))
    };
    let set = |path: &Path, mode: u32| {
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("it is ours");
    };
    assert_eq!(found(&link), None);
    for (mode, is_open) in [(0o775, false), (0o777, true), (0o1777, false), (0o755, false)] {
        set(&above_it, mode);
        for path in [&file, &link] {
            assert_eq!(found(path).is_some(), is_open, "{mode:o}");
        }
    }
    set(&above_it, 0o777);
    let (remedy, said) = found(&link).expect("it is open");
    assert_eq!(remedy, format!("run `chmod o-w {}`", above_it.display()));
    assert_eq!(said, format!("{} can be written by others (mode 777)", above_it.display()));
    assert_eq!(above(&above_it, Also::OwnGroup), None, "itself is not meant");
    // A sticky directory protects what lies in it, and is open itself.
    set(&above_it, 0o1777);
    assert!(found(&above_it).is_some());
    set(&above_it, 0o755);
    set(&file, 0o646);
    assert!(found(&link).is_some_and(|(remedy, _)| remedy.ends_with("/a/file`")));
    assert_eq!(found(&root.join("missing/file")), None);
}
