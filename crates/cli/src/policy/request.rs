//! What a command line asks to be allowed or taken away, as a rule.

use std::{collections::BTreeSet, fmt::Write as _};

use arcbroker_policy::{MAX_RULE_NAME, SourceFile, shell_word};
use arcbroker_policy_files::{group_id, user_id};
use toml_edit::Value;

use super::Error;
use crate::output::clean;

/// Who, and what for.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Request {
    pub(crate) users: Vec<String>,
    pub(crate) groups: Vec<String>,
    pub(crate) units: Vec<String>,
    pub(crate) container: bool,
    pub(crate) identities: Vec<String>,
    pub(crate) bypass: bool,
    pub(crate) resources: Vec<String>,
}

impl Request {
    /// A rule on nobody would be written without a word about it, so names must be known.
    pub(crate) fn check_accounts(&self) -> Result<(), Error> {
        let unknown = |kind, names: &[String], find: fn(&str) -> Option<u32>| {
            let name = names.iter().find(|name| find(name).is_none())?;
            Some(Error::NoAccount {
                kind,
                name: name.clone(),
            })
        };
        let user = unknown("user", &self.users, user_id);
        match user.or_else(|| unknown("group", &self.groups, group_id)) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// A policy file with the one rule, for this name.
    pub(crate) fn file(&self, comment: &str, rule: &str) -> String {
        let mut file = format!("{comment}version = 1\n\n[[rule]]\n");
        let mut line = |key: &str, value: Value| {
            // Writing to a String cannot fail.
            let _ = writeln!(file, "{key} = {value}");
        };
        line("name", rule.into());
        for (key, names) in [("user", &self.users), ("group", &self.groups)] {
            if !names.is_empty() {
                line(key, list(names, account));
            }
        }
        if !self.units.is_empty() {
            line("unit", list(&self.units, text));
        }
        if self.container {
            line("container", true.into());
        }
        line("resources", list(&self.resources, text));
        if !self.identities.is_empty() {
            line("identity", list(&self.identities, text));
        }
        if self.bypass {
            line("bypass-cache", true.into());
        }
        file
    }

    /// The same, for messages about the command line.
    pub(crate) fn source(&self) -> SourceFile {
        SourceFile {
            name: "the rule of this command".to_owned(),
            bytes: self.file("", "this command").into_bytes(),
        }
    }

    /// The command that asks for it, as a comment of one line.
    pub(crate) fn comment(&self, command: &str) -> String {
        let mut line = format!("# Made by: arcbroker {command}");
        let options = [
            ("--user", &self.users),
            ("--group", &self.groups),
            ("--unit", &self.units),
            ("--identity", &self.identities),
        ];
        for (option, values) in options {
            for value in values {
                let _ = write!(line, " {option} {}", shell_word(value));
            }
        }
        if self.container {
            line.push_str(" --container");
        }
        if self.bypass {
            line.push_str(" --bypass-cache");
        }
        for resource in &self.resources {
            let _ = write!(line, " {}", shell_word(resource));
        }
        clean(&line) + "\n"
    }

    /// A name for the rule that says what it is about and is none of these.
    pub(crate) fn name(&self, taken: &BTreeSet<&str>) -> String {
        let mut words: Vec<String> = Vec::new();
        let subjects = self.units.iter().chain(&self.users).chain(&self.groups);
        words.extend(subjects.map(|word| plain(word)));
        words.extend(self.container.then(|| "container".to_owned()));
        words.extend(self.resources.iter().map(|word| plain(word)));
        let name = shortened(&words.join("-"));
        free(&name, |name| taken.contains(name))
    }
}

/// The name of a rule as part of the name of its file.
pub(crate) fn stem(name: &str) -> String {
    shortened(&plain(name))
}

/// Not too long, with room for a number, and not empty.
fn shortened(name: &str) -> String {
    let mut name: String = name.chars().take(MAX_RULE_NAME - 4).collect();
    while !name.is_empty() && !name.ends_with(|last: char| last.is_ascii_alphanumeric()) {
        name.pop();
    }
    if name.is_empty() {
        name.push_str("rule");
    }
    name
}

/// `name`, or it with the lowest number from 2 that makes it one that is not taken.
pub(crate) fn free(name: &str, taken: impl Fn(&str) -> bool) -> String {
    let mut free = name.to_owned();
    let mut number = 2_usize;
    while taken(&free) {
        free = format!("{name}-{number}");
        number += 1;
    }
    free
}

/// Fit for the name of a file and of a rule.
fn plain(word: &str) -> String {
    let word = match word {
        "*" => "all",
        word => word.strip_prefix("https://").unwrap_or(word),
    };
    let mut text = String::new();
    for c in word.replace('*', "any").chars() {
        if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '@') {
            text.push(c);
        } else if !text.ends_with('-') && !text.is_empty() {
            text.push('-');
        }
    }
    text.trim_end_matches(['-', '.']).to_owned()
}

fn list(values: &[String], value: impl Fn(&str) -> Value) -> Value {
    match values {
        [one] => value(one),
        many => Value::Array(many.iter().map(|one| value(one)).collect()),
    }
}

fn text(text: &str) -> Value {
    text.into()
}

/// Digits are a number, as on the command line of chown(1).
fn account(name: &str) -> Value {
    match name.parse::<u32>() {
        Ok(id) => i64::from(id).into(),
        Err(_) => name.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(resources: &[&str]) -> Request {
        Request {
            units: vec!["backup.service".into()],
            resources: resources.iter().map(|&one| one.into()).collect(),
            ..Request::default()
        }
    }

    #[test]
    fn the_file_says_what_was_asked_for_and_by_which_command() {
        let request = Request {
            users: vec!["backup".into(), "1001".into()],
            container: true,
            identities: vec!["system".into()],
            bypass: true,
            ..request(&["keyvault", "https://x.example/"])
        };
        assert_eq!(
            request.file(&request.comment("allow"), "n"),
            "\
# Made by: arcbroker allow --user backup --user 1001 --unit backup.service --identity system --container \
--bypass-cache keyvault https://x.example/
version = 1

[[rule]]
name = \"n\"
user = [\"backup\", 1001]
unit = \"backup.service\"
container = true
resources = [\"keyvault\", \"https://x.example/\"]
identity = \"system\"
bypass-cache = true
"
        );
    }

    #[test]
    fn nothing_on_the_command_line_ends_the_comment() {
        let comment = request(&["a\n[[rule]]\nname = 'x'"]).comment("allow");
        assert_eq!(comment.matches('\n').count(), 1, "{comment}");
        assert!(
            comment.contains(r"'a [[rule]] name = '\''x'\'''"),
            "{comment}"
        );
    }

    #[test]
    fn a_name_says_what_the_rule_is_about_and_is_free() {
        for (resources, name) in [
            (&["keyvault"][..], "backup.service-keyvault"),
            (
                &["https://vault.azure.net/"],
                "backup.service-vault.azure.net",
            ),
            (&["*"], "backup.service-all"),
            (&["api://\u{fc}/../x"], "backup.service-api-..-x"),
        ] {
            assert_eq!(request(resources).name(&BTreeSet::new()), name);
        }
        let taken = BTreeSet::from(["backup.service-arm", "backup.service-arm-2"]);
        assert_eq!(request(&["arm"]).name(&taken), "backup.service-arm-3");
        let long = request(&["x".repeat(300).as_str()]).name(&BTreeSet::new());
        assert!(long.len() <= MAX_RULE_NAME, "{long}");
        assert_eq!(stem("nightly backup"), "nightly-backup");
        assert_eq!(stem("../\u{fc}"), "rule");
    }
}
