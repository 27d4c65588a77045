//! One challenge key file: what is in it, what kind of file it is, and whose.

use std::{
    fs::{self, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, chown, lchown},
    path::{Path, PathBuf},
};

use nix::{
    sys::stat::{Mode, SFlag, makedev, mknod},
    unistd::{User, mkfifo},
};

/// Who a file is given to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner {
    uid: u32,
    gid: Option<u32>,
}

impl Owner {
    /// The user of this name or number, with the primary group if there is such a user.
    pub(crate) fn named(name: &str) -> io::Result<Self> {
        if let Some(user) = User::from_name(name)? {
            return Ok(Self {
                uid: user.uid.as_raw(),
                gid: Some(user.gid.as_raw()),
            });
        }
        let uid: u32 = name.parse().map_err(|_| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "there is no user `{name}`; give a name or number of one to own the key files"
                ),
            )
        })?;
        let gid = User::from_uid(uid.into())?.map(|user| user.gid.as_raw());
        Ok(Self { uid, gid })
    }

    pub(crate) fn take_over(self, path: &Path) -> io::Result<()> {
        chown(path, Some(self.uid), self.gid).map_err(|error| explain(&error, "give away", path))
    }
}

/// A key file to be written.
#[derive(Clone)]
pub(crate) struct KeyFile {
    pub(crate) path: PathBuf,
    pub(crate) bytes: Vec<u8>,
    /// Makes the file this long, with a hole after `bytes`.
    pub(crate) length: Option<u64>,
    pub(crate) form: Form,
    pub(crate) mode: u32,
    pub(crate) owner: Option<Owner>,
}

/// What kind of file it is.
#[derive(Clone, Debug)]
pub(crate) enum Form {
    Regular,
    /// A link to a path, or to the good file beside it.
    Symlink(Option<PathBuf>),
    Hardlink(Option<PathBuf>),
    Fifo,
    Socket,
    Directory,
    Device,
}

impl KeyFile {
    /// Writes it; an older file of the same name makes room.
    pub(crate) fn write(&self) -> io::Result<()> {
        self.remove();
        self.create()
            .map_err(|error| explain(&error, "make", &self.path))?;
        match self.form {
            Form::Symlink(_) => self.give(|path, uid, gid| lchown(path, uid, gid)),
            Form::Hardlink(_) => Ok(()),
            _ => {
                fs::set_permissions(&self.path, Permissions::from_mode(self.mode))?;
                self.give(|path, uid, gid| chown(path, uid, gid))
            }
        }
    }

    /// Removes it and what was made beside it, as far as it is there.
    pub(crate) fn remove(&self) {
        remove(&self.path);
        if matches!(self.form, Form::Symlink(None) | Form::Hardlink(None)) {
            remove(&self.beside());
        }
    }

    fn create(&self) -> io::Result<()> {
        let path = self.path.as_path();
        let mode = Mode::S_IRUSR;
        match &self.form {
            Form::Regular => self.create_regular(path),
            Form::Symlink(target) => {
                let target = target.clone().map_or_else(|| self.good_file(), Ok)?;
                std::os::unix::fs::symlink(target, path)
            }
            Form::Hardlink(target) => {
                let target = target.clone().map_or_else(|| self.good_file(), Ok)?;
                fs::hard_link(target, path)
            }
            Form::Fifo => Ok(mkfifo(path, mode)?),
            Form::Socket => Ok(mknod(path, SFlag::S_IFSOCK, mode, 0)?),
            Form::Device => Ok(mknod(path, SFlag::S_IFCHR, mode, makedev(1, 5))?),
            Form::Directory => fs::create_dir(path),
        }
    }

    fn create_regular(&self, path: &Path) -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(&self.bytes)?;
        self.length.map_or(Ok(()), |length| file.set_len(length))
    }

    fn good_file(&self) -> io::Result<PathBuf> {
        let good = Self {
            path: self.beside(),
            form: Form::Regular,
            ..self.clone()
        };
        good.write()?;
        Ok(good.path)
    }

    fn beside(&self) -> PathBuf {
        self.path.with_extension("good")
    }

    fn give(
        &self,
        give: impl FnOnce(&Path, Option<u32>, Option<u32>) -> io::Result<()>,
    ) -> io::Result<()> {
        let Some(owner) = self.owner else {
            return Ok(());
        };
        give(&self.path, Some(owner.uid), owner.gid)
            .map_err(|error| explain(&error, "give away", &self.path))
    }
}

fn remove(path: &Path) {
    // A file that is gone already is what is wanted; one that cannot be removed shows in the test.
    let _ = fs::remove_file(path).or_else(|_| fs::remove_dir(path));
}

fn explain(error: &io::Error, action: &str, path: &Path) -> io::Error {
    io::Error::new(
        error.kind(),
        format!("cannot {action} the key file {}: {error}", path.display()),
    )
}
