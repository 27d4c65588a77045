//! The trees of control groups of this machine: which of them systemd uses, and where a process is
//! in them.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use arcbroker_policy::{ControlGroup, Unit};

/// Which trees systemd keeps its units in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Tree {
    /// One tree for all (cgroup v2).
    Unified,
    /// One of its own, and the same once more as a v2 tree without controllers.
    Hybrid,
    /// One of its own beside those of the controllers (cgroup v1).
    Legacy,
}

/// The control groups of one process, as `/proc/PID/cgroup` lists them.
#[derive(Clone, Copy, Debug)]
pub struct Listing<'t>(&'t str);

/// The tree of systemd's own in v1.
const NAMED: &str = "name=systemd";
/// The v2 tree has no name.
const UNNAMED: &str = "";

impl Tree {
    /// What is mounted at `root`, which is `/sys/fs/cgroup`, by the files that only the kernel puts
    /// there. None where systemd has no tree.
    pub fn at(root: &Path) -> Option<Self> {
        let has = |name: &str| root.join(name).exists();
        if has("cgroup.controllers") {
            Some(Self::Unified)
        } else if has("systemd/cgroup.procs") && has("unified/cgroup.procs") {
            Some(Self::Hybrid)
        } else if has("systemd/cgroup.procs") {
            Some(Self::Legacy)
        } else {
            None
        }
    }

    /// The unit of the system that a process is in: the same in every tree that systemd uses, or none.
    pub fn unit(self, listing: Listing<'_>) -> Option<Unit> {
        let trees: &[&str] = match self {
            Self::Unified => &[UNNAMED],
            Self::Hybrid => &[NAMED, UNNAMED],
            Self::Legacy => &[NAMED],
        };
        let mut units = trees.iter().map(|tree| listing.group(tree)?.system_unit());
        let first = units.next()??;
        units
            .all(|unit| unit.as_ref() == Some(&first))
            .then_some(first)
    }

    /// Whether `id`, which the kernel gives for a process, is that of the group where it is listed. A
    /// listing from another pid namespace's `/proc` is that of another process.
    ///
    /// Only in the unified tree: elsewhere the id is of a tree that need not be systemd's.
    pub fn confirms(self, root: &Path, listing: Listing<'_>, id: u64) -> bool {
        self != Self::Unified
            || listing.path(UNNAMED).is_some_and(|path| {
                let directory = root.join(path.trim_start_matches('/'));
                fs::metadata(directory).is_ok_and(|metadata| metadata.ino() == id)
            })
    }
}

impl<'t> Listing<'t> {
    /// The text of `/proc/PID/cgroup`.
    pub fn new(text: &'t str) -> Self {
        Self(text)
    }

    /// Whether the process is in a control group of a container, in whatever tree. None where a line
    /// cannot be read.
    pub fn is_container(self) -> Option<bool> {
        let mut any = None;
        for (_, path) in self.lines() {
            let is_container = ControlGroup::new(path)?.is_container();
            any = Some(any.unwrap_or(false) || is_container);
        }
        any
    }

    /// Where the process is in the unified tree.
    pub fn unified(self) -> Option<&'t str> {
        self.path(UNNAMED)
    }

    fn group(self, tree: &str) -> Option<ControlGroup<'t>> {
        self.path(tree).and_then(ControlGroup::new)
    }

    fn path(self, tree: &str) -> Option<&'t str> {
        let mut lines = self.lines();
        lines.find(|(name, _)| *name == tree).map(|(_, path)| path)
    }

    /// The tree or its controllers, and the path in it.
    fn lines(self) -> impl Iterator<Item = (&'t str, &'t str)> {
        self.0.lines().filter_map(|line| {
            let (_, rest) = line.split_once(':')?;
            rest.split_once(':')
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(tree: Tree, text: &str) -> Option<String> {
        tree.unit(Listing::new(text))
            .map(|unit| unit.as_str().to_owned())
    }

    const BACKUP: &str = "/system.slice/backup.service";
    const WEB: &str = "/system.slice/web.service";

    #[test]
    fn the_unit_counts_only_if_all_trees_of_systemd_agree() {
        let text = |named: &str, unnamed: &str| {
            format!("12:memory:{WEB}\n1:name=systemd:{named}\n0::{unnamed}\n")
        };
        let agree = text(BACKUP, BACKUP);
        for tree in [Tree::Unified, Tree::Hybrid, Tree::Legacy] {
            assert_eq!(unit(tree, &agree).as_deref(), Some("backup.service"));
        }
        for (named, unnamed) in [(BACKUP, WEB), (BACKUP, "/"), ("/", BACKUP)] {
            assert_eq!(unit(Tree::Hybrid, &text(named, unnamed)), None);
        }
        let legacy = unit(Tree::Legacy, &text(BACKUP, "/"));
        assert_eq!(legacy.as_deref(), Some("backup.service"));
        let unified = unit(Tree::Unified, &text("/", BACKUP));
        assert_eq!(unified.as_deref(), Some("backup.service"));
    }

    #[test]
    fn a_listing_without_the_tree_of_systemd_names_no_unit() {
        for text in [
            "",
            "\n",
            "nonsense",
            "0:",
            "4:memory:/system.slice/backup.service\n",
            "4:name=other:/system.slice/backup.service\n",
            "4:memory,name=systemd:/system.slice/backup.service\n",
        ] {
            for tree in [Tree::Unified, Tree::Hybrid, Tree::Legacy] {
                assert_eq!(unit(tree, text), None, "{text:?}");
            }
        }
        assert_eq!(unit(Tree::Hybrid, &format!("0::{BACKUP}\n")), None);
    }

    #[test]
    fn a_container_is_one_in_whatever_tree() {
        let id = "4f797c539e6c745de61a93ca3ff892358ecbcaccd8414d5db545c38428142970";
        for (text, expected) in [
            (format!("0::/docker/{id}\n"), Some(true)),
            (format!("5:memory:/docker/{id}\n0::/\n"), Some(true)),
            (format!("5:memory:/\n0::{BACKUP}\n"), Some(false)),
            (format!("0::{BACKUP}/../../docker\n"), None),
            (String::new(), None),
        ] {
            assert_eq!(Listing::new(&text).is_container(), expected, "{text}");
        }
    }

    #[test]
    fn the_kind_of_tree_is_told_by_the_files_of_the_kernel() {
        let dir = tempfile::tempdir().unwrap();
        let touch = |name: &str| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        };
        assert_eq!(Tree::at(dir.path()), None);
        touch("systemd/cgroup.procs");
        assert_eq!(Tree::at(dir.path()), Some(Tree::Legacy));
        touch("unified/cgroup.procs");
        assert_eq!(Tree::at(dir.path()), Some(Tree::Hybrid));
        touch("cgroup.controllers");
        assert_eq!(Tree::at(dir.path()), Some(Tree::Unified));
    }

    #[test]
    fn an_id_confirms_a_listing_in_the_unified_tree_only() {
        let dir = tempfile::tempdir().unwrap();
        let group = dir.path().join("system.slice/backup.service");
        fs::create_dir_all(&group).unwrap();
        let id = fs::metadata(&group).unwrap().ino();
        let text = format!("0::{BACKUP}\n");
        let confirms = |tree: Tree, id| tree.confirms(dir.path(), Listing::new(&text), id);
        assert!(confirms(Tree::Unified, id));
        assert!(!confirms(Tree::Unified, id + 1));
        assert!(confirms(Tree::Hybrid, id + 1) && confirms(Tree::Legacy, id + 1));
        assert!(!Tree::Unified.confirms(dir.path(), Listing::new("0::/gone\n"), id));
    }
}
