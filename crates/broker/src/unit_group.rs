//! The control group of a unit: whether anything still runs in it, and whether something was made in it.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::libc;
use serde::{Deserialize, Serialize};

/// Control groups below a unit's that are looked through: services with more of them run containers.
const MOST: usize = 256;

/// One run of a unit: systemd makes a new control group for the next, and the kernel gives no number twice.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct UnitGroup {
    directory: PathBuf,
    number: u64,
}

impl UnitGroup {
    /// The control group of `unit` above the place of a process in the tree that is mounted at `root`. None
    /// where it is not in such a one.
    pub fn of(root: &Path, place: &str, unit: &str) -> Option<Self> {
        let below = place.strip_prefix('/')?.split('/');
        let mut directory = root.to_owned();
        for name in below {
            directory.push(name);
            if name == unit {
                let number = directory_of(&directory)?.ino();
                return Some(Self { directory, number });
            }
        }
        None
    }

    /// Whether a process of this run is left, as far as can be seen: want of descriptors is no end of it.
    pub fn is_populated(&self) -> bool {
        // In this order: a group that is there afterwards was there before.
        let is_populated = match fs::read_to_string(self.directory.join("cgroup.events")) {
            Ok(events) => events.lines().any(|line| line == "populated 1"),
            Err(error) => !is_gone(&error),
        };
        is_populated
            && directory_of(&self.directory).is_some_and(|found| found.ino() == self.number)
    }

    /// Whether the control group with this number is this one or below it.
    pub fn contains(&self, number: u64) -> bool {
        if number == self.number {
            return true;
        }
        let mut waiting = vec![self.directory.clone()];
        let mut seen = 0;
        while let Some(directory) = waiting.pop() {
            for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
                let is_group = entry.file_type().is_ok_and(|kind| kind.is_dir());
                if !is_group {
                    continue;
                }
                seen += 1;
                if entry.metadata().is_ok_and(|found| found.ino() == number) {
                    return true;
                }
                if seen >= MOST {
                    return false;
                }
                waiting.push(entry.path());
            }
        }
        false
    }
}

fn directory_of(path: &Path) -> Option<Metadata> {
    fs::symlink_metadata(path).ok().filter(Metadata::is_dir)
}

/// Whether an error says that the group is not there any more.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: &str = "/system.slice/web.service/workers";

    fn tree() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join(&PLACE[1..])).unwrap();
        root
    }

    fn number(root: &Path, place: &str) -> u64 {
        fs::metadata(root.join(place)).unwrap().ino()
    }

    #[test]
    fn a_group_is_that_of_the_unit_above_the_process() {
        let root = tree();
        let of = |place, unit| UnitGroup::of(root.path(), place, unit);
        let group = of(PLACE, "web.service").unwrap();
        assert_eq!(
            group.directory,
            root.path().join("system.slice/web.service")
        );
        for (place, unit) in [
            (PLACE, "other.service"),
            ("/", "web.service"),
            ("system.slice/web.service", "web.service"),
            ("/system.slice/gone.service", "gone.service"),
        ] {
            assert_eq!(of(place, unit), None, "{place} {unit}");
        }
    }

    #[test]
    fn a_group_is_populated_as_long_as_it_is_the_same_and_says_so() {
        let root = tree();
        let group = UnitGroup::of(root.path(), PLACE, "web.service").unwrap();
        assert!(!group.is_populated(), "nothing says so");
        let events = group.directory.join("cgroup.events");
        for (text, expected) in [
            ("populated 1\nfrozen 0\n", true),
            ("populated 0\nfrozen 0\n", false),
        ] {
            fs::write(&events, text).unwrap();
            assert_eq!(group.is_populated(), expected);
        }
        fs::remove_file(&events).unwrap();
        fs::create_dir(&events).unwrap();
        assert!(group.is_populated(), "that it cannot be read is no end");
        fs::remove_dir(&events).unwrap();
        fs::write(&events, "populated 1\n").unwrap();
        let other = UnitGroup {
            number: group.number + 1,
            ..group
        };
        assert!(!other.is_populated(), "the next run of the unit");
    }

    #[test]
    fn what_is_in_a_group_is_found_by_its_number() {
        let root = tree();
        fs::create_dir(root.path().join("system.slice/other.service")).unwrap();
        let group = UnitGroup::of(root.path(), PLACE, "web.service").unwrap();
        for (place, expected) in [
            ("system.slice/web.service", true),
            ("system.slice/web.service/workers", true),
            ("system.slice/other.service", false),
            ("system.slice", false),
        ] {
            assert_eq!(
                group.contains(number(root.path(), place)),
                expected,
                "{place}"
            );
        }
    }
}
