//! `arcbroker completions` and `arcbroker manual`

use std::{collections::BTreeSet, fs, process::Command};

use crate::support::run;

/// What is offered for a word that begins like this, after these words.
fn completed_by_bash(words: &[&str]) -> BTreeSet<String> {
    let script = run("completions bash").stdout;
    let line = words.join(" ");
    let (last, at) = (words[words.len() - 1], words.len() - 1);
    let complete = format!(
        "{script}\nCOMP_WORDS=({line}); COMP_CWORD={at}; _arcbroker arcbroker '{last}' '{}'\n\
         printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        words[at - 1]
    );
    let output = Command::new("bash").args(["-c", &complete]).output();
    let text = String::from_utf8(output.unwrap().stdout).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_options_and_values() {
    for (words, offered) in [
        (vec!["arcbroker", "pol"], vec!["policy"]),
        (vec!["arcbroker", "policy", "re"], vec!["replay"]),
        (vec!["arcbroker", "token", "--form"], vec!["--format"]),
        (
            vec!["arcbroker", "token", "--format", ""],
            vec!["json", "raw"],
        ),
        (
            vec!["arcbroker", "completions", ""],
            vec!["bash", "fish", "zsh"],
        ),
    ] {
        let offered: BTreeSet<String> = offered.into_iter().map(str::to_owned).collect();
        assert!(
            completed_by_bash(&words).is_superset(&offered),
            "{words:?}: {:?}",
            completed_by_bash(&words)
        );
    }
}

#[test]
fn no_shell_offers_what_is_hidden() {
    for shell in ["bash", "fish", "zsh"] {
        let ran = run(&format!("completions {shell}"));
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{shell}");
        assert!(ran.stdout.contains("min-validity"), "{shell}");
        for hidden in ["beneath", "manual"] {
            assert!(!ran.stdout.contains(hidden), "{shell}: {hidden}");
        }
    }
    assert_eq!(run("completions tcsh").code, 2);
}

#[test]
fn every_command_of_the_help_has_a_page() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    assert_eq!(run(&format!("manual {path}")).code, 0);

    let help = run("--help").stdout;
    let commands = help.split("Commands:\n").nth(1).unwrap();
    let commands = commands.split("\n\n").next().unwrap().lines();
    let named = commands.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    let wanted: BTreeSet<String> = named
        .filter(|name| !name.is_empty() && *name != "help")
        .map(|name| format!("arcbroker-{name}.1"))
        .chain(["audit-tail", "policy-test"].map(|name| format!("arcbroker-{name}.1")))
        .collect();
    let pages: BTreeSet<String> = fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(pages.is_superset(&wanted), "{pages:?}, not {wanted:?}");
    assert!(!pages.contains("arcbroker-beneath.1"), "{pages:?}");

    let page = fs::read_to_string(directory.path().join("arcbroker-token.1")).unwrap();
    assert!(page.contains("ARCBROKER_SOCKET"), "{page}");
    assert!(!page.contains("--version"), "{page}");

    let ran = run(&format!("manual {path}/none"));
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("cannot write manual pages"), "{ran:?}");
}
