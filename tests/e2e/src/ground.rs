//! Control groups for programs under test: real ones of this machine, or files that imitate them.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

use crate::is_root;
use crate::world::let_others_read;

const CGROUP: &str = "/sys/fs/cgroup";
/// There while systemd runs, which wants the tree for itself.
const SYSTEMD: &str = "/run/systemd/system";

/// Where programs are put into control groups.
#[derive(Debug)]
pub struct Ground {
    kind: Kind,
    tag: String,
    /// Directories that were made, outermost first.
    made: Mutex<Vec<PathBuf>>,
}

#[derive(Debug)]
enum Kind {
    /// Trees that are mounted; where they are not all, the daemon is told which one to look at.
    Real(Vec<PathBuf>, Option<PathBuf>),
    /// Files that say of a process what the kernel would say.
    Imitated(TempDir),
}

impl Ground {
    /// The control groups of this machine, where a test may make some: as root, without systemd.
    pub fn real() -> Option<Self> {
        let root = Path::new(CGROUP);
        let trees = if root.join("cgroup.controllers").exists() {
            vec![root.to_owned()]
        } else {
            vec![root.join("systemd"), root.join("unified")]
        };
        let is_tree = |tree: &PathBuf| tree.join("cgroup.procs").exists();
        let usable = is_root() && !Path::new(SYSTEMD).exists() && trees.iter().all(is_tree);
        usable.then(|| Self::of_trees(trees, None))?
    }

    /// The unified tree of this machine alone, as where there is no other.
    pub fn unified() -> Option<Self> {
        let root = Path::new(CGROUP);
        let places = [root.to_owned(), root.join("unified")];
        let tree = places
            .into_iter()
            .find(|tree| tree.join("cgroup.controllers").exists())?;
        let usable = is_root() && !Path::new(SYSTEMD).exists();
        usable.then(|| Self::of_trees(vec![tree.clone()], Some(tree)))?
    }

    /// A container may see the trees and not be allowed to write to them.
    fn of_trees(trees: Vec<PathBuf>, told: Option<PathBuf>) -> Option<Self> {
        let ground = Self::new(Kind::Real(trees, told));
        ground.make("/system.slice").ok().map(|()| ground)
    }

    /// Files in a directory of its own.
    pub fn imitated() -> Self {
        let_others_read();
        let dir = tempfile::Builder::new().prefix("arcg").tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        for (name, text) in [
            (
                "proc/1/cgroup",
                "1:name=systemd:/init.scope\n0::/init.scope\n",
            ),
            ("cgroup/systemd/cgroup.procs", ""),
            ("cgroup/unified/cgroup.procs", ""),
        ] {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Self::new(Kind::Imitated(dir))
    }

    fn new(kind: Kind) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self {
            kind,
            tag: format!("arcb{}x{number}", process::id()),
            made: Mutex::default(),
        }
    }

    /// The name of a unit of this ground alone.
    pub fn unit(&self, name: &str) -> String {
        format!("{}{name}", self.tag)
    }

    /// Whether the numbers of processes are imitated too: then a program need not be in a pid namespace
    /// to look as if it were.
    pub fn is_imitated(&self) -> bool {
        matches!(self.kind, Kind::Imitated(_))
    }

    /// The lines of `[callers]` for the daemon.
    pub fn config(&self) -> String {
        match &self.kind {
            Kind::Real(_, None) => String::new(),
            Kind::Real(_, Some(tree)) => format!("cgroup-root = \"{}\"\n", tree.display()),
            Kind::Imitated(dir) => {
                let dir = dir.path().display();
                format!(
                    "proc-root = \"{dir}/proc\"\ncgroup-root = \"{dir}/cgroup\"\nunits-dir = \"{dir}/units\"\n"
                )
            }
        }
    }

    /// The words before a command that put it into the control group `path`, and into a pid namespace
    /// of its own where it is `nested`.
    pub fn enter(&self, path: &str, nested: bool) -> Vec<String> {
        let script = match &self.kind {
            Kind::Real(trees, _) => {
                self.make(path).unwrap();
                let enter =
                    |tree: &PathBuf| format!("echo $$ > '{}{path}/cgroup.procs'; ", tree.display());
                trees.iter().map(enter).collect::<Vec<_>>().concat()
            }
            Kind::Imitated(dir) => {
                let numbers = if nested { "4711 1" } else { "4711" };
                let dir = format!("{}/proc/$$", dir.path().display());
                format!(
                    "mkdir -p \"{dir}\"; printf '1:name=systemd:{path}\\n0::{path}\\n' > \"{dir}/cgroup\"; \
                     printf 'NSpid:\\t{numbers}\\n' > \"{dir}/status\"; "
                )
            }
        };
        let words = ["sh", "-euc", &format!("{script}exec \"$@\""), "sh"];
        let mut words: Vec<String> = words.map(str::to_owned).to_vec();
        if nested && !self.is_imitated() {
            words.extend(["unshare", "--pid", "--fork", "--kill-child"].map(str::to_owned));
        }
        words
    }

    /// What is said of a process that exists already: the imitation only.
    pub fn imitate(&self, pid: u32, path: &str) {
        let Kind::Imitated(dir) = &self.kind else {
            panic!("this ground is real")
        };
        let dir = dir.path().join(format!("proc/{pid}"));
        fs::create_dir_all(&dir).unwrap();
        let groups = format!("1:name=systemd:{path}\n0::{path}\n");
        fs::write(dir.join("cgroup"), groups).unwrap();
        fs::write(dir.join("status"), format!("NSpid:\t{pid}\n")).unwrap();
    }

    fn make(&self, path: &str) -> std::io::Result<()> {
        let Kind::Real(trees, _) = &self.kind else {
            return Ok(());
        };
        let mut made = self.made.lock().unwrap();
        for tree in trees {
            let mut dir = tree.clone();
            for name in path.split('/').filter(|name| !name.is_empty()) {
                dir.push(name);
                if !dir.exists() {
                    fs::create_dir_all(&dir)?;
                    made.push(dir.clone());
                }
            }
        }
        Ok(())
    }
}

impl Drop for Ground {
    /// A group that still holds a process stays, and so do those that another test has put something into.
    fn drop(&mut self) {
        for dir in self.made.get_mut().unwrap().iter().rev() {
            fs::remove_dir(dir).unwrap_or_default();
        }
    }
}
