//! Which files hold the records: the one that is written, and those that logrotate(8) has set aside.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::Error;

/// Files with records, in the order in which they were written.
#[derive(Debug, Default, Eq, PartialEq)]
pub(crate) struct Files {
    pub(crate) plain: Vec<PathBuf>,
    /// Compressed ones, which are not read.
    pub(crate) skipped: Vec<PathBuf>,
}

impl Files {
    /// The file and its siblings: `PATH.2`, `PATH.1`, `PATH`.
    pub(crate) fn of(path: &Path) -> Result<Self, Error> {
        let dir = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let entries = fs::read_dir(dir).map_err(|error| Error::read(dir, error))?;
        let mut plain: Vec<(u64, PathBuf)> = Vec::new();
        let mut skipped: Vec<(u64, PathBuf)> = Vec::new();
        for entry in entries.flatten() {
            let file = entry.file_name();
            let file = file.to_string_lossy();
            let Some(rest) = file.strip_prefix(&*name) else {
                continue;
            };
            let rest = rest.strip_prefix('.').unwrap_or_default();
            let number = rest
                .split('.')
                .next()
                .and_then(|number| number.parse().ok());
            match (number, rest.split_once('.')) {
                (Some(number), None) => plain.push((number, entry.path())),
                (Some(number), Some(_)) => skipped.push((number, entry.path())),
                (None, _) => {}
            }
        }
        if path.exists() || plain.is_empty() {
            plain.push((0, path.to_owned()));
        }
        Ok(Self {
            plain: oldest_first(plain),
            skipped: oldest_first(skipped),
        })
    }
}

fn oldest_first(mut files: Vec<(u64, PathBuf)>) -> Vec<PathBuf> {
    files.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
    files.into_iter().map(|(_, path)| path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn siblings_come_in_the_order_in_which_they_were_written() {
        let dir = tempfile::tempdir().unwrap();
        for name in [
            "a.jsonl",
            "a.jsonl.1",
            "a.jsonl.10",
            "a.jsonl.2",
            "a.jsonl.11.gz",
            "a.jsonl.old",
            "b.jsonl.1",
        ] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let files = Files::of(&dir.path().join("a.jsonl")).unwrap();
        let names = |paths: &[PathBuf]| -> Vec<String> {
            let names = paths.iter().map(|path| path.file_name().unwrap());
            names
                .map(|name| name.to_str().unwrap().to_owned())
                .collect()
        };
        assert_eq!(
            names(&files.plain),
            ["a.jsonl.10", "a.jsonl.2", "a.jsonl.1", "a.jsonl"]
        );
        assert_eq!(names(&files.skipped), ["a.jsonl.11.gz"]);
    }
}
