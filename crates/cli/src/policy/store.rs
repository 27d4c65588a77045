//! Changes to a policy directory: one command at a time, each file whole or not at all, and all of
//! it can be taken back.
//!
//! A file that is being written has a hidden name, which the daemon does not read. One that an
//! interrupted command has left behind is removed by the next.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fs::{self, File},
    io::{self, ErrorKind, Write as _},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown},
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    unistd::geteuid,
};

use super::Error;

/// What the name of a file begins with while it is written.
const HIDDEN: &str = ".arcbroker-";
const FILE_MODE: u32 = 0o644;
const DIR_MODE: u32 = 0o755;
/// How long another command is waited for, and how often it is looked.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(50);

/// A policy directory that no other command changes while this exists.
#[derive(Debug)]
pub(crate) struct Store {
    dir: PathBuf,
    owners: Vec<u32>,
    lock: Flock<File>,
    /// Of files that were removed, in case they are to come back.
    removed: RefCell<BTreeMap<PathBuf, Looks>>,
}

/// Who may read and write a file.
#[derive(Clone, Copy, Debug)]
struct Looks {
    owner: u32,
    /// None for that of whoever writes.
    group: Option<u32>,
    mode: u32,
}

/// One file that is made, changed or removed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Change {
    pub(crate) path: PathBuf,
    pub(crate) before: Option<Vec<u8>>,
    pub(crate) after: Option<Vec<u8>>,
}

impl Store {
    /// Waits for other commands, and removes what one that was interrupted has left behind.
    pub(crate) fn lock(dir: &Path, owners: &[u32]) -> Result<Self, Error> {
        let store = Self {
            dir: dir.to_owned(),
            owners: owners.to_vec(),
            lock: lock(dir)?,
            removed: RefCell::default(),
        };
        store.sweep();
        Ok(store)
    }

    /// The same for a directory that is made if it is not there.
    pub(crate) fn lock_or_make(dir: &Path, owners: &[u32]) -> Result<Self, Error> {
        match fs::create_dir(dir) {
            Ok(()) => prepare_dir(dir, owners)?,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Error::write(dir, error)),
        }
        Self::lock(dir, owners)
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Makes the changes, all or none of them: one that fails takes back those before it.
    pub(crate) fn apply(&self, changes: &[Change]) -> Result<(), Error> {
        for (done, change) in changes.iter().enumerate() {
            if let Err(error) = self.make(change) {
                self.take_back(changes.get(..done).unwrap_or_default());
                return Err(error);
            }
        }
        self.lock.sync_all().map_err(|error| {
            self.take_back(changes);
            Error::write(&self.dir, error)
        })
    }

    /// Undoes changes that were made. What cannot be undone stays, and the daemon goes on without it.
    pub(crate) fn take_back(&self, changes: &[Change]) {
        for change in changes.iter().rev() {
            let back = Change {
                path: change.path.clone(),
                before: change.after.clone(),
                after: change.before.clone(),
            };
            // There is nobody left to tell: the failure that led here is what is told.
            let _ = self.make(&back);
        }
        let _ = self.lock.sync_all();
    }

    fn make(&self, change: &Change) -> Result<(), Error> {
        let path = &change.path;
        if content(path)? != change.before {
            return Err(Error::Changed(path.clone()));
        }
        let Some(bytes) = &change.after else {
            let looks = looks(path);
            fs::remove_file(path).map_err(|error| Error::write(path, error))?;
            self.removed
                .borrow_mut()
                .extend(looks.map(|looks| (path.clone(), looks)));
            return Ok(());
        };
        let hidden = self.dir.join(format!("{HIDDEN}{}.tmp", std::process::id()));
        let written = self.write(&hidden, bytes, path).and_then(|()| {
            let done = if change.before.is_some() {
                fs::rename(&hidden, path)
            } else {
                // Unlike a rename, this never takes the place of another file.
                fs::hard_link(&hidden, path).and_then(|()| fs::remove_file(&hidden))
            };
            done.map_err(|error| Error::write(path, error))
        });
        if written.is_err() {
            let _ = fs::remove_file(&hidden);
        }
        written
    }

    /// With the owner, group and mode of the file that it is to replace, or that was there before;
    /// else those of a policy file.
    fn write(&self, hidden: &Path, bytes: &[u8], like: &Path) -> Result<(), Error> {
        let known = looks(like).or_else(|| self.removed.borrow().get(like).copied());
        let looks = match known {
            Some(looks) => looks,
            None => Looks {
                owner: owner(hidden, &self.owners)?,
                group: None,
                mode: FILE_MODE,
            },
        };
        let write = || {
            let mut options = File::options();
            let mut file = options
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(hidden)?;
            file.write_all(bytes)?;
            let made = file.metadata()?;
            let group = looks.group.filter(|&group| group != made.gid());
            if looks.owner != made.uid() || group.is_some() {
                fchown(&file, Some(looks.owner), group)?;
            }
            file.set_permissions(fs::Permissions::from_mode(looks.mode))?;
            file.sync_all()
        };
        write().map_err(|error| Error::write(hidden, error))
    }

    fn sweep(&self) {
        let Ok(entries) = fs::read_dir(&self.dir) else {
            return;
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with(HIDDEN) && name.ends_with(".tmp") {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// None where there is no file.
fn looks(path: &Path) -> Option<Looks> {
    let meta = fs::symlink_metadata(path).ok()?;
    Some(Looks {
        owner: meta.uid(),
        group: Some(meta.gid()),
        mode: meta.mode() & 0o7777,
    })
}

/// Gives a new directory the mode and the owner of a policy directory.
pub(crate) fn prepare_dir(dir: &Path, owners: &[u32]) -> Result<(), Error> {
    let owner = owner(dir, owners)?;
    let prepare = || {
        fs::set_permissions(dir, fs::Permissions::from_mode(DIR_MODE))?;
        if owner != geteuid().as_raw() {
            std::os::unix::fs::chown(dir, Some(owner), None)?;
        }
        Ok(())
    };
    prepare().map_err(|error| Error::write(dir, error))
}

/// Who is to own a new file: oneself, or for root one who may.
fn owner(path: &Path, owners: &[u32]) -> Result<u32, Error> {
    let own = geteuid().as_raw();
    match owners.first() {
        _ if owners.contains(&own) => Ok(own),
        Some(first) if own == 0 => Ok(*first),
        _ => Err(Error::Owner {
            path: path.to_owned(),
            owner: own,
        }),
    }
}

fn content(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::read(path, error)),
    }
}

/// The lock on the directory that is there by then: while it was waited for, another may have come
/// to its place.
fn lock(dir: &Path) -> Result<Flock<File>, Error> {
    let read = |error| Error::read(dir, error);
    let mut waited = Duration::ZERO;
    let mut file = File::open(dir).map_err(read)?;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) if same(&lock, dir).map_err(read)? => return Ok(lock),
            Ok(_) => {}
            Err((_, Errno::EWOULDBLOCK)) if waited < PATIENCE => {
                pause();
                waited += PAUSE;
            }
            Err((_, Errno::EWOULDBLOCK)) => {
                return Err(Error::Busy {
                    dir: dir.to_owned(),
                    seconds: PATIENCE.as_secs(),
                });
            }
            Err((_, errno)) => return Err(read(errno.into())),
        }
        file = File::open(dir).map_err(read)?;
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a command does one thing at a time: nothing else waits for this thread"
)]
fn pause() {
    std::thread::sleep(PAUSE);
}

fn same(file: &File, path: &Path) -> io::Result<bool> {
    let (ours, there) = (file.metadata()?, fs::metadata(path)?);
    Ok((ours.dev(), ours.ino()) == (there.dev(), there.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(dir: &Path) -> Store {
        Store::lock(dir, &[geteuid().as_raw()]).unwrap()
    }

    fn change(path: PathBuf, before: Option<&str>, after: Option<&str>) -> Change {
        Change {
            path,
            before: before.map(Into::into),
            after: after.map(Into::into),
        }
    }

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap().map(Result::unwrap);
        let mut names: Vec<_> = entries
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_new_file_has_the_mode_of_a_policy_file_and_never_replaces_one() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        let path = dir.path().join("a.toml");
        let new = change(path.clone(), None, Some("a"));
        store.apply(std::slice::from_ref(&new)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o644);
        assert!(matches!(store.apply(&[new]), Err(Error::Changed(_))));
        assert_eq!(names(dir.path()), ["a.toml"]);
    }

    #[test]
    fn a_change_that_fails_takes_back_those_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        let (a, b) = (dir.path().join("a.toml"), dir.path().join("b.toml"));
        fs::write(&b, "b").unwrap();
        let changes = [
            change(a, None, Some("a")),
            change(b.clone(), Some("b"), None),
            change(b.clone(), Some("something else"), None),
        ];
        assert!(store.apply(&changes).is_err());
        assert_eq!(names(dir.path()), ["b.toml"]);
        assert_eq!(fs::read_to_string(b).unwrap(), "b");
    }

    #[test]
    fn a_changed_file_keeps_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.toml");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let change = change(path.clone(), Some("old"), Some("new"));
        store(dir.path()).apply(&[change]).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_to_string(path).unwrap(), "new");
    }

    #[test]
    fn a_changed_file_keeps_its_group_and_one_that_comes_back_is_as_it_was() {
        // One that this process may give a file to.
        let groups = nix::unistd::getgroups().unwrap_or_default();
        let other = groups.iter().map(|group| group.as_raw());
        let own = nix::unistd::getegid().as_raw();
        let group = if geteuid().is_root() {
            64_111
        } else {
            other.max().unwrap_or(own)
        };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.toml");
        fs::write(&path, "old").unwrap();
        std::os::unix::fs::chown(&path, None, Some(group)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let store = store(dir.path());
        let looks = || {
            let meta = fs::metadata(&path).unwrap();
            (meta.gid(), meta.mode() & 0o7777)
        };
        let changed = change(path.clone(), Some("old"), Some("new"));
        store.apply(std::slice::from_ref(&changed)).unwrap();
        assert_eq!(looks(), (group, 0o640));
        let removed = [change(path.clone(), Some("new"), None)];
        store.apply(&removed).unwrap();
        assert!(!path.exists());
        store.take_back(&removed);
        assert_eq!(looks(), (group, 0o640));
    }

    #[test]
    fn what_an_interrupted_command_has_left_behind_is_removed_by_the_next() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(".arcbroker-17.tmp"), "half").unwrap();
        fs::write(dir.path().join(".other"), "").unwrap();
        drop(store(dir.path()));
        assert_eq!(names(dir.path()), [".other"]);
    }

    #[test]
    fn a_lock_on_a_directory_that_was_replaced_is_not_taken_for_one_on_its_successor() {
        let parent = tempfile::tempdir().unwrap();
        let (dir, aside) = (parent.path().join("d"), parent.path().join("e"));
        fs::create_dir(&dir).unwrap();
        let first = store(&dir);
        let path = dir.clone();
        let waiting = std::thread::spawn(move || store(&path));
        fs::rename(&dir, aside).unwrap();
        fs::create_dir(&dir).unwrap();
        drop(first);
        let second = waiting.join().unwrap();
        assert!(same(&second.lock, &dir).unwrap());
    }
}
