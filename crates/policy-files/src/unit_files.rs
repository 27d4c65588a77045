//! Unit files of this machine: looked for to warn of a name that is none, and never decided on.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use arcbroker_policy::UnitFile;

/// Where the system's manager looks for units (`systemd.unit(5)`), in its order.
const SYSTEM: [&str; 13] = [
    "etc/systemd/system.control",
    "run/systemd/system.control",
    "run/systemd/transient",
    "run/systemd/generator.early",
    "etc/systemd/system",
    "etc/systemd/system.attached",
    "run/systemd/system",
    "run/systemd/system.attached",
    "run/systemd/generator",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
    "run/systemd/generator.late",
];
/// Where the managers of users look.
const USERS: [&str; 4] = [
    "etc/systemd/user",
    "run/systemd/user",
    "usr/local/lib/systemd/user",
    "usr/lib/systemd/user",
];
/// There while systemd runs (`sd_booted(3)`).
const BOOTED: &str = "run/systemd/system";

/// What is known of each of these below `root`. Nothing where systemd does not run: units may come
/// with it.
pub(crate) fn unit_files(root: &Path, names: &BTreeSet<&str>) -> BTreeMap<String, UnitFile> {
    if !root.join(BOOTED).is_dir() {
        return BTreeMap::new();
    }
    let known = |name: &&str| ((*name).to_owned(), look_up(root, name));
    names.iter().map(known).collect()
}

fn look_up(root: &Path, name: &str) -> UnitFile {
    let template = template(name);
    let names = [Some(name), template.as_deref()].into_iter().flatten();
    for name in names {
        if let Some(path) = find(root, &SYSTEM, name) {
            return alias(&path, name).map_or(UnitFile::Here, UnitFile::AliasOf);
        }
    }
    let of_users = [Some(name), template.as_deref()]
        .into_iter()
        .flatten()
        .any(|name| find(root, &USERS, name).is_some());
    if of_users {
        UnitFile::OfUsers
    } else {
        UnitFile::Missing
    }
}

fn find(root: &Path, dirs: &[&str], name: &str) -> Option<PathBuf> {
    let paths = dirs.iter().map(|dir| root.join(dir).join(name));
    paths
        .into_iter()
        .find(|path| path.symlink_metadata().is_ok())
}

/// The unit that a link with this name leads to. One to its own name elsewhere, to its template or to
/// nothing (`/dev/null`) makes no other name of it.
fn alias(path: &Path, name: &str) -> Option<String> {
    let target = fs::read_link(path).ok()?;
    let target = target.file_name()?.to_str()?;
    let (_, suffix) = target.rsplit_once('.')?;
    let is_unit = matches!(suffix, "service" | "scope");
    let same = target == name || Some(target) == template(name).as_deref();
    (is_unit && !same).then(|| target.to_owned())
}

/// `worker@.service` of `worker@blue.service`.
fn template(name: &str) -> Option<String> {
    let (prefix, rest) = name.split_once('@')?;
    let (_, suffix) = rest.rsplit_once('.')?;
    Some(format!("{prefix}@.{suffix}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn names_are_told_apart_by_where_their_files_are() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        for name in [
            "run/systemd/transient/run-1.service",
            "lib/systemd/system/ssh.service",
            "lib/systemd/system/getty@.service",
            "usr/lib/systemd/user/pipewire.service",
        ] {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        for dir in ["etc/systemd/system", "run/systemd/system"] {
            fs::create_dir_all(root.join(dir)).unwrap();
        }
        for (link, target) in [
            ("sshd.service", "/lib/systemd/system/ssh.service"),
            ("autovt@.service", "/lib/systemd/system/getty@.service"),
            ("getty@tty9.service", "/lib/systemd/system/getty@.service"),
            ("masked.service", "/dev/null"),
            ("moved.service", "/srv/units/moved.service"),
        ] {
            symlink(target, root.join("etc/systemd/system").join(link)).unwrap();
        }
        let alias = |of: &str| UnitFile::AliasOf(of.to_owned());
        let expected = [
            ("ssh.service", UnitFile::Here),
            ("sshd.service", alias("ssh.service")),
            ("getty@.service", UnitFile::Here),
            ("getty@tty1.service", UnitFile::Here),
            ("getty@tty9.service", UnitFile::Here),
            ("autovt@.service", alias("getty@.service")),
            ("masked.service", UnitFile::Here),
            ("moved.service", UnitFile::Here),
            ("run-1.service", UnitFile::Here),
            ("pipewire.service", UnitFile::OfUsers),
            ("backp.service", UnitFile::Missing),
            ("getti@tty1.service", UnitFile::Missing),
        ];
        let names = expected.iter().map(|(name, _)| *name).collect();
        let found = unit_files(root, &names);
        for (name, known) in expected {
            assert_eq!(found[name], known, "{name}");
        }
    }

    #[test]
    fn nothing_is_said_where_systemd_does_not_run() {
        let dir = tempfile::tempdir().unwrap();
        assert!(unit_files(dir.path(), &["ssh.service"].into()).is_empty());
    }
}
