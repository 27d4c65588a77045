//! The command that would allow a request, for the texts of denials.

use std::{borrow::Cow, fmt::Write as _};

use crate::{Caller, Identity, Resource};

/// What an administrator types to allow exactly this. `user` is the name of the caller's user.
///
/// A caller may have chosen the resource, and an administrator pastes the line into a shell: every word
/// is quoted where that makes a difference.
pub fn allow_command(
    caller: &Caller,
    user: Option<&str>,
    identity: &Identity,
    resource: &Resource,
) -> String {
    let mut command = "arcbroker allow".to_owned();
    if let Some(unit) = &caller.unit {
        option(&mut command, "--unit", unit.as_str());
    }
    match user {
        Some(user) => option(&mut command, "--user", user),
        None => option(&mut command, "--user", &caller.uid.to_string()),
    }
    if caller.container == Some(true) {
        command.push_str(" --container");
    }
    if *identity != Identity::System {
        option(&mut command, "--identity", &identity.to_string());
    }
    // Writing to a String cannot fail.
    let _ = write!(command, " {}", shell_word(resource.as_str()));
    command
}

fn option(command: &mut String, name: &str, value: &str) {
    let _ = write!(command, " {name} {}", shell_word(value));
}

/// The text as one word of a POSIX shell.
pub fn shell_word(text: &str) -> Cow<'_, str> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "@%+=:,./_-".contains(c);
    if !text.is_empty() && !text.starts_with('-') && text.chars().all(is_plain) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(format!("'{}'", text.replace('\'', r"'\''")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Unit;

    #[test]
    fn the_command_names_all_that_is_known_of_the_caller() {
        let caller = Caller {
            unit: Unit::parse("web.service").ok(),
            container: Some(true),
            ..Caller::new(33, 33, vec![])
        };
        let resource = Resource::exact("https://vault.azure.net").unwrap();
        assert_eq!(
            allow_command(&caller, Some("www-data"), &Identity::System, &resource),
            "arcbroker allow --unit web.service --user www-data --container https://vault.azure.net"
        );
        let id = "client-id:11111111-2222-3333-4444-555555555555";
        let identity: Identity = id.parse().unwrap();
        assert_eq!(
            allow_command(&Caller::new(7, 7, vec![]), None, &identity, &resource),
            format!("arcbroker allow --user 7 --identity {id} https://vault.azure.net")
        );
    }

    #[test]
    fn a_shell_sees_one_word_and_nothing_to_do() {
        for (text, word) in [
            ("https://a/b?c", "'https://a/b?c'"),
            ("api://$(reboot)", "'api://$(reboot)'"),
            ("api://a';id;'", r"'api://a'\'';id;'\'''"),
            (r"a\x2db.service", r"'a\x2db.service'"),
            ("", "''"),
            ("-rf", "'-rf'"),
            ("a b", "'a b'"),
        ] {
            assert_eq!(shell_word(text), word);
        }
    }
}
