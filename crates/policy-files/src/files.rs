//! The files of the policy: found, checked for who may have written them, read, and put together.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use arcbroker_policy::{Cloud, Diagnostics, MAX_FILE, Policy, RuleSet, SourceFile};
use nix::fcntl::OFlag;

use crate::accounts::accounts_of;

/// Where the policy of a daemon is, and who may write it.
#[derive(Clone, Debug)]
pub struct Options {
    /// Every `*.toml` in it is read, in the order of the names.
    pub dir: PathBuf,
    /// User ids that may own the directory and the files.
    pub owners: Vec<u32>,
    /// Whether rules on units can be served on this machine: where not, they are errors.
    pub units: Result<(), NoUnits>,
}

/// Why units cannot be told on a machine. How that is found out is not known in here.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NoUnits {
    /// What is wrong.
    pub reason: String,
    /// What to do about it.
    pub help: &'static str,
}

/// Whose files are read.
#[derive(Clone, Copy, Debug)]
pub enum Owners<'a> {
    /// Those of these user ids alone, which nobody else may write: files that decide.
    These(&'a [u32]),
    /// Everybody's: files that are only tried.
    Anybody,
}

/// Reads the policy. Blocks: reads files and asks for users and groups.
///
/// `None` when there is any error; all of them are in `diagnostics`. A directory that is not there
/// is a policy that allows nothing.
pub fn load(options: &Options, cloud: Cloud, diagnostics: &mut Diagnostics) -> Option<Policy> {
    let files = read(&options.dir, Owners::These(&options.owners), diagnostics);
    let rules = parse(options, &files, cloud, diagnostics)?;
    Some(rules.compile(&accounts_of(&rules), diagnostics))
}

/// Whether there is any file, or something that keeps us from knowing.
pub fn has_files(options: &Options) -> bool {
    match list(&options.dir, Owners::These(&options.owners)) {
        Ok(paths) => !paths.is_empty(),
        Err(Unread::Io(error)) => error.kind() != io::ErrorKind::NotFound,
        Err(_) => true,
    }
}

/// Reads a policy that is in no file; `name` is that of the text in messages. Blocks: asks for
/// users and groups.
///
/// # Errors
///
/// All that is wrong with it.
pub fn load_text(
    name: &str,
    text: &[u8],
    options: &Options,
    cloud: Cloud,
) -> Result<Policy, String> {
    let file = SourceFile {
        name: name.to_owned(),
        bytes: text.to_owned(),
    };
    let mut diagnostics = Diagnostics::new();
    let rules = parse(options, &[file], cloud, &mut diagnostics);
    let rules = rules.ok_or_else(|| diagnostics.to_string())?;
    Ok(rules.compile(&accounts_of(&rules), &mut diagnostics))
}

/// The same files as they are under each of these clouds. Blocks.
///
/// # Errors
///
/// For each cloud, when there is any error.
pub fn load_each(options: &Options, clouds: &[Cloud]) -> Vec<(Cloud, Loaded)> {
    let mut common = Diagnostics::new();
    let files = read(&options.dir, Owners::These(&options.owners), &mut common);
    let parse = |cloud: &Cloud| {
        let mut diagnostics = common.clone();
        let rules = parse(options, &files, *cloud, &mut diagnostics);
        (*cloud, rules, diagnostics)
    };
    let parsed: Vec<_> = clouds.iter().map(parse).collect();
    // Whom the rules name does not depend on the cloud, and is only asked for once.
    let first = parsed.iter().find_map(|(_, rules, _)| rules.as_ref());
    let accounts = first.map(accounts_of).unwrap_or_default();
    let compile = |(cloud, rules, mut diagnostics): (Cloud, Option<RuleSet>, Diagnostics)| {
        let policy = rules.map(|rules| rules.compile(&accounts, &mut diagnostics));
        let loaded = match policy {
            Some(policy) => Ok((policy, diagnostics)),
            None => Err(diagnostics),
        };
        (cloud, loaded)
    };
    parsed.into_iter().map(compile).collect()
}

/// A policy and its warnings, or its errors.
pub type Loaded = Result<(Policy, Diagnostics), Diagnostics>;

/// None when there is any error, in whatever file.
fn parse(
    options: &Options,
    files: &[SourceFile],
    cloud: Cloud,
    diagnostics: &mut Diagnostics,
) -> Option<RuleSet> {
    let rules = RuleSet::parse(files, cloud, diagnostics);
    if let (Some(rules), Err(no)) = (&rules, &options.units) {
        rules.refuse_units(&no.reason, no.help, diagnostics);
    }
    rules.filter(|_| !diagnostics.has_errors())
}

/// Reads every `*.toml` in a directory that is not hidden, in the order of the names.
///
/// What cannot be used is an error in `diagnostics`; a directory that is not there is a warning.
pub fn read(dir: &Path, owners: Owners<'_>, diagnostics: &mut Diagnostics) -> Vec<SourceFile> {
    let paths = list(dir, owners);
    let dir = dir.display().to_string();
    let paths = match paths {
        Ok(paths) => paths,
        Err(Unread::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
            diagnostics.warning_in(
                &dir,
                "there is no such directory, so nobody may have a token",
                "make it and put rules into it",
            );
            return Vec::new();
        }
        Err(unread) => {
            diagnostics.error_in(&dir, unread.to_string(), unread.help());
            return Vec::new();
        }
    };
    let read = |path: &PathBuf| {
        let name = path.display().to_string();
        match read_one(path, owners) {
            Ok(bytes) => Some(SourceFile { name, bytes }),
            Err(unread) => {
                diagnostics.error_in(&name, unread.to_string(), unread.help());
                None
            }
        }
    };
    paths.iter().filter_map(read).collect()
}

/// Why a file or directory is not used.
#[derive(Debug, thiserror::Error)]
enum Unread {
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("is not a regular file")]
    Kind,
    #[error("is larger than {MAX_FILE} bytes")]
    Size,
    #[error("is owned by uid {0}, who may not write the policy")]
    Owner(u32),
    #[error("may be written by its group or by everybody (mode {0:04o})")]
    Mode(u32),
}

impl Unread {
    fn help(&self) -> &'static str {
        match self {
            Self::Io(_) => "see that arcbrokerd may read it",
            Self::Kind => "links and devices are not followed: put the file itself here",
            Self::Size => "split it",
            Self::Owner(_) => "chown it to root, or name its owner under [policy] owners",
            Self::Mode(_) => "chmod go-w it",
        }
    }
}

fn list(dir: &Path, owners: Owners<'_>) -> Result<Vec<PathBuf>, Unread> {
    check(&fs::metadata(dir)?, owners)?;
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let hidden = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden
            && path
                .extension()
                .is_some_and(|extension| extension == "toml")
        {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn read_one(path: &Path, owners: Owners<'_>) -> Result<Vec<u8>, Unread> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let open = File::options()
        .read(true)
        .custom_flags(flags.bits())
        .open(path);
    let file = open.map_err(|error| {
        if error.raw_os_error() == Some(nix::libc::ELOOP) {
            Unread::Kind
        } else {
            error.into()
        }
    })?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(Unread::Kind);
    }
    check(&metadata, owners)?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > MAX_FILE {
        Err(Unread::Size)
    } else {
        Ok(bytes)
    }
}

fn check(metadata: &fs::Metadata, owners: Owners<'_>) -> Result<(), Unread> {
    let Owners::These(owners) = owners else {
        return Ok(());
    };
    let mode = metadata.mode() & 0o7777;
    match metadata.uid() {
        uid if !owners.contains(&uid) => Err(Unread::Owner(uid)),
        _ if mode & 0o022 != 0 => Err(Unread::Mode(mode)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
