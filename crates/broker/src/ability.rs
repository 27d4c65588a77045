//! What this kernel, this `/proc` and this tree of control groups let the broker know about callers.
//!
//! It is found out once, and is a value: so a test can be an old kernel, and a rule that could not be
//! served safely is refused when it is read, and not when it is needed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::pinned::Pinning;
use crate::tree::Tree;

/// Where the kernel and systemd say something about processes.
#[derive(Clone, Debug)]
pub struct Options {
    /// `/proc`
    pub proc: PathBuf,
    /// `/sys/fs/cgroup`
    pub cgroup: PathBuf,
    /// Where systemd links the invocation id of each unit: `/run/systemd/units`.
    pub units: PathBuf,
}

/// What can be known about callers.
#[derive(Clone, Debug)]
pub struct Ability {
    /// Where it is read.
    pub options: Options,
    /// How a peer's process is held on to.
    pub pinning: Pinning,
    /// What the processes of others show in `/proc`.
    pub sight: Sight,
    /// The trees that systemd uses.
    pub tree: Option<Tree>,
    /// The number that stands for every user and group that has none here: where the broker is in a user
    /// namespace of its own.
    pub overflow: Option<u32>,
}

/// What `/proc` shows of other processes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sight {
    /// In which control groups they are.
    Full,
    /// Nothing, or not enough.
    Hidden,
    /// Other processes than those whose numbers we get: it belongs to another pid namespace.
    Foreign,
}

/// Why units cannot be told on this machine.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NoUnits {
    /// A process could be another by the time that it is looked at.
    #[error("units cannot be told safely: this kernel cannot hold on to a process")]
    Pinning,
    /// `/proc` hides other processes.
    #[error("units cannot be told: /proc hides the processes of others from arcbrokerd")]
    Hidden,
    /// `/proc` is another namespace's.
    #[error("units cannot be told: /proc shows the processes of another pid namespace")]
    Foreign,
    /// There is no systemd.
    #[error("units cannot be told: systemd keeps no control groups on this machine")]
    Tree,
}

impl Options {
    fn file(&self, name: &str) -> io::Result<String> {
        fs::read_to_string(self.proc.join(name))
    }
}

impl Ability {
    /// Finds out what this machine can do. Blocks: reads a few files of the kernel.
    pub fn probe(options: Options) -> Self {
        Self {
            pinning: Pinning::probe(),
            sight: sight(&options),
            tree: Tree::at(&options.cgroup),
            overflow: overflow(&options),
            options,
        }
    }

    /// Writes into the log what callers will miss here.
    pub fn tell(&self) {
        tracing::info!(pinning = %self.pinning, sight = ?self.sight, tree = ?self.tree, "what can be known of callers");
        if self.pinning == Pinning::None {
            tracing::warn!(
                "this kernel cannot hold on to a process: whether a caller is in a container is told by its number alone"
            );
        }
        match self.sight {
            Sight::Full => {}
            Sight::Hidden => tracing::warn!(
                "/proc hides the processes of others: a container that shares the pid namespace of the host cannot be told \
                 from the host; mount /proc without hidepid, and run arcbrokerd without ProtectProc="
            ),
            Sight::Foreign => tracing::error!(
                "/proc belongs to another pid namespace: nothing is known of callers, and no rule holds for anybody"
            ),
        }
        if let Some(id) = self.overflow {
            tracing::warn!(
                id,
                "arcbrokerd is in a user namespace of its own: users who are not mapped into it get nothing"
            );
        }
    }

    /// Whether a rule on a unit can be served safely.
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn units(&self) -> Result<(), NoUnits> {
        match self.sight {
            _ if self.pinning == Pinning::None => Err(NoUnits::Pinning),
            Sight::Hidden => Err(NoUnits::Hidden),
            Sight::Foreign => Err(NoUnits::Foreign),
            Sight::Full if self.tree.is_none() => Err(NoUnits::Tree),
            Sight::Full => Ok(()),
        }
    }
}

impl NoUnits {
    /// What to do about it.
    pub fn help(self) -> &'static str {
        match self {
            Self::Pinning => "Linux 5.3 or newer is needed: name a user or a group instead",
            Self::Hidden => {
                "mount /proc without hidepid and run arcbrokerd without ProtectProc=, or name a user or a group instead"
            }
            Self::Foreign => {
                "run arcbrokerd with the /proc of its own pid namespace, or name a user or a group"
            }
            Self::Tree => {
                "name a user or a group instead; [callers] cgroup-root says where the control groups are"
            }
        }
    }
}

/// For whoever judges the policy.
impl From<NoUnits> for arcbroker_policy_files::NoUnits {
    fn from(no: NoUnits) -> Self {
        Self {
            reason: no.to_string(),
            help: no.help(),
        }
    }
}

/// The first process is another user's, and there is always one.
fn sight(options: &Options) -> Sight {
    let own = fs::read_link(options.proc.join("self"));
    let is_own = |link: &Path| link == Path::new(&std::process::id().to_string());
    match own {
        Ok(link) if !is_own(&link) => Sight::Foreign,
        _ if options.file("1/cgroup").is_ok() => Sight::Full,
        _ => Sight::Hidden,
    }
}

/// Inside a user namespace, users that are not mapped into it all look the same.
fn overflow(options: &Options) -> Option<u32> {
    const ALL: [&str; 3] = ["0", "0", "4294967295"];
    const USUAL: u32 = 65_534;
    let map = options.file("self/uid_map").ok()?;
    if map.split_whitespace().eq(ALL) {
        return None;
    }
    let set = options.file("sys/kernel/overflowuid").ok();
    Some(
        set.and_then(|text| text.trim().parse().ok())
            .unwrap_or(USUAL),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn imitated(files: &[(&str, &str)]) -> (tempfile::TempDir, Options) {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let options = Options {
            proc: dir.path().join("proc"),
            cgroup: dir.path().join("cgroup"),
            units: dir.path().join("units"),
        };
        (dir, options)
    }

    const GOOD: [(&str, &str); 2] = [
        ("proc/1/cgroup", "0::/init.scope\n"),
        ("cgroup/cgroup.controllers", ""),
    ];

    #[test]
    fn units_are_known_where_everything_is_there_and_refused_with_a_reason_otherwise() {
        let (_dir, options) = imitated(&GOOD);
        let good = Ability {
            pinning: Pinning::WithControlGroup,
            ..Ability::probe(options.clone())
        };
        assert_eq!(
            (good.units(), good.sight, good.tree),
            (Ok(()), Sight::Full, Some(Tree::Unified))
        );
        for pinning in [Pinning::ByNumber, Pinning::BySocket] {
            assert_eq!(
                Ability {
                    pinning,
                    ..good.clone()
                }
                .units(),
                Ok(())
            );
        }
        let old = Ability {
            pinning: Pinning::None,
            ..good.clone()
        };
        assert_eq!(old.units(), Err(NoUnits::Pinning));
        assert_eq!(
            Ability {
                tree: None,
                ..good.clone()
            }
            .units(),
            Err(NoUnits::Tree)
        );
        fs::remove_file(options.proc.join("1/cgroup")).unwrap();
        assert_eq!(
            Ability {
                sight: sight(&options),
                ..good
            }
            .units(),
            Err(NoUnits::Hidden)
        );
    }

    #[test]
    fn the_proc_of_another_pid_namespace_is_noticed() {
        let (_dir, options) = imitated(&GOOD);
        std::os::unix::fs::symlink("4711", options.proc.join("self")).unwrap();
        assert_eq!(
            Ability::probe(options).units().err(),
            Some(NoUnits::Foreign)
        );
    }

    #[test]
    fn who_judges_the_policy_is_told_what_to_do_about_it() {
        for (no, expected) in [
            (NoUnits::Pinning, "Linux 5.3 or newer is needed"),
            (NoUnits::Hidden, "mount /proc without hidepid"),
            (NoUnits::Foreign, "its own pid namespace"),
            (NoUnits::Tree, "[callers] cgroup-root"),
        ] {
            let told = arcbroker_policy_files::NoUnits::from(no);
            assert!(told.reason.starts_with("units cannot be told"), "{told:?}");
            assert!(told.help.contains(expected), "{told:?}");
        }
    }

    #[test]
    fn users_without_a_number_here_are_known_inside_a_user_namespace_only() {
        for (map, set, expected) in [
            ("         0          0 4294967295\n", "65534\n", None),
            ("0 1000 1\n", "65534\n", Some(65_534)),
            ("0 1000 1\n", "nonsense", Some(65_534)),
            ("0 0 1\n1 100000 65536\n", "60000\n", Some(60_000)),
        ] {
            let (_dir, options) = imitated(&[
                ("proc/self/uid_map", map),
                ("proc/sys/kernel/overflowuid", set),
            ]);
            assert_eq!(overflow(&options), expected, "{map}");
        }
    }

    #[test]
    fn this_machine_is_probed_without_harm() {
        let ability = Ability::probe(Options {
            proc: PathBuf::from("/proc"),
            cgroup: PathBuf::from("/sys/fs/cgroup"),
            units: PathBuf::from("/run/systemd/units"),
        });
        assert_ne!(ability.sight, Sight::Foreign);
        if let Err(reason) = ability.units() {
            assert!(!reason.to_string().is_empty() && !reason.help().is_empty());
        }
    }
}
