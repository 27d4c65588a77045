//! Files that were made to be read differently from how they look.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]
#![allow(
    dead_code,
    unreachable_pub,
    reason = "not every test file uses all of the support module"
)]

mod support;

use arcbroker_policy::{Caller, Cloud, Diagnostics, Identity, MAX_FILE, Policy, RuleSet};
use support::{accounts, caller, contained, file, in_unit, messages, policy, resource, rule_for};

const RULE: &str = "version = 1\n[[rule]]\nname = 'a'\nuser = 'alice'\nresources = 'arm'\n";

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

#[test]
fn only_plain_utf8_is_read() {
    let bom = format!("\u{feff}{RULE}");
    for (bytes, expected) in [
        (
            bom.into_bytes(),
            "web.toml:1:1: the file begins with a byte order mark\n  |\n1 | \\u{feff}version = 1\n",
        ),
        (utf16(RULE), "web.toml:1:2: the file contains a NUL byte\n"),
        (
            [b"\xff\xfe", utf16(RULE).as_slice()].concat(),
            "web.toml:1:1: the file is not UTF-8\n",
        ),
        (
            [RULE.as_bytes(), b"# caf\xe9\n"].concat(),
            "web.toml:6:6: the file is not UTF-8\n  |\n6 | # caf\\u{fffd}\n",
        ),
        (
            [RULE.as_bytes(), b"# \xc0\xaf\n"].concat(),
            "web.toml:6:3: the file is not UTF-8\n",
        ),
        (
            [RULE.as_bytes(), b"# \xed\xa0\x80\n"].concat(),
            "web.toml:6:3: the file is not UTF-8\n",
        ),
        (
            [RULE.as_bytes(), b"# a\0b\n"].concat(),
            "web.toml:6:4: the file contains a NUL byte\n",
        ),
    ] {
        let found = messages(&bytes);
        assert!(found.contains(expected), "{found}");
        assert!(found.ends_with("\n1 error"), "{found}");
    }
}

#[test]
fn a_file_that_is_too_long_is_not_looked_into() {
    let mut text = RULE.to_owned();
    text.push_str(&"#".repeat(MAX_FILE - RULE.len()));
    assert_eq!(messages(&text), "");
    text.push('#');
    let expected = "/etc/arcbroker/policy.d/web.toml: the file has 262145 bytes, more than 262144
  = split it into several files, or check that it is the right one
1 error";
    assert_eq!(messages(&text), expected);
}

#[test]
fn a_key_that_only_looks_like_one_is_unknown_and_shown_for_what_it_is() {
    let bare = messages(RULE.replace("user", "us\u{435}r"));
    assert!(bare.contains("4 | us\\u{435}r = 'alice'\n"), "{bare}");
    let quoted = messages(RULE.replace("user", "\"us\u{435}r\""));
    assert!(quoted.contains("unknown key `us\\u{435}r`"), "{quoted}");
    assert!(
        quoted.contains("names no user, no group and no unit"),
        "{quoted}"
    );
}

#[test]
fn a_file_of_nothing_but_mistakes_is_reported_in_short() {
    for line in ["a\n", "= 1\n", "[[[\n", "a = [\n", "a = '\n", "x = 1\n"] {
        let found = messages(line.repeat(MAX_FILE / line.len()));
        assert!(found.lines().count() < 500, "{line}");
    }
    let keys: Vec<String> = (0..15_000).map(|number| format!("k{number} = 1")).collect();
    let found = messages(keys.join("\n"));
    assert!(
        found.ends_with("\n15001 errors (the first 100 are shown)"),
        "{found}"
    );
}

#[test]
fn unknown_and_duplicate_keys_refuse_the_whole_set() {
    let good = file("a.toml", RULE);
    for bad in [
        "version = 1\nversion = 1\n",
        "version = 1\nextra = 1\n",
        "version = 1\n[[rule]]\nname = 'b'\nuser = 1\nresources = 'arm'\nresources = '*'\n",
        "version = 1\n[[rule]]\nname = 'b'\nuser = 1\nuser.x = 2\nresources = 'arm'\n",
        "version = 1\n[[rule]]\nname = 'b'\nUser = 1\nresources = 'arm'\n",
        "version = 1\n[[rule]]\nname = 'b'\nuser = 1\nresources = 'arm'\n[rule.group]\n",
        "version = 1\n[rule]\nname = 'b'\nuser = 1\nresources = 'arm'\n",
        "version = 1\n[[rule]]\nname = 'b'\nuser = 1\n\"resources \" = 'arm'\nresources = 'arm'\n",
    ] {
        let mut diagnostics = Diagnostics::new();
        let files = [good.clone(), file("b.toml", bad)];
        assert!(
            RuleSet::parse(&files, Cloud::Public, &mut diagnostics).is_none(),
            "{bad}"
        );
        assert!(
            diagnostics.iter().all(|one| &*one.file == "b.toml"),
            "{diagnostics}"
        );
    }
}

#[test]
fn escapes_and_other_spellings_do_not_widen_access() {
    let alice = caller(1, 1, &[]);
    for user in ["\"ali\\u0063e\"", "'alice'", "'''alice'''"] {
        assert!(
            rule_for(&policy(&RULE[12..].replace("'alice'", user)), &alice, "arm").is_some(),
            "{user}"
        );
    }
    for user in [
        "'Alice'",
        "' alice'",
        "'alice '",
        "'al\u{456}ce'",
        "'alic\u{435}\u{301}'",
        "'al\u{200b}ice'",
    ] {
        assert!(
            rule_for(&policy(&RULE[12..].replace("'alice'", user)), &alice, "arm").is_none(),
            "{user}"
        );
    }
    for user in ["'+1'", "'1 '", "'\u{661}'", "'0x1'", "'1.0'", "'-1'"] {
        assert!(
            rule_for(&policy(&RULE[12..].replace("'alice'", user)), &alice, "arm").is_none(),
            "{user}"
        );
    }
}

#[test]
fn a_quoted_line_cannot_command_the_terminal() {
    let found = messages("version = 1\nx = 1 # \u{1b}]0;owned\u{7} \u{9b}31m \u{202e}\r\n");
    assert!(
        found.contains("2 | x = 1 # \\u{1b}]0;owned\\u{7} \\u{9b}31m \\u{202e}"),
        "{found}"
    );
}

/// What slips into a file: marks that do not show, letters that look like others, keys that are unknown
/// or there already, encodings that another program would undo.
const STRAYS: [&str; 20] = [
    "\u{feff}",
    "\u{200b}",
    "\u{202e}",
    "\u{a0}",
    "\u{430}",
    "\u{435}",
    "\u{ff0f}",
    "%2F",
    "%",
    "%00",
    "%c0%af",
    "\\",
    "\0",
    "\r",
    "\n",
    "\nuser = 'bob'\n",
    "\nunit = 'w@*.service'\n",
    "\nresources = '*'\n",
    "\nany = true\n",
    "\n[[rules]]\n",
];

#[test]
fn whatever_slips_into_a_file_never_widens_access() {
    let text = "version = 1\n[[rule]]\nname = 'r'\nuser = 'alice'\nunit = ['a.service', 'w@1.service']\n\
                identity = 'system'\nresources = ['https://a', 'urn:b']\n";
    let alice = caller(1, 10, &[11]);
    let bob = caller(2, 10, &[11]);
    let callers = [
        alice.clone(),
        in_unit(alice.clone(), "a.service"),
        in_unit(alice.clone(), "w@1.service"),
        in_unit(alice.clone(), "w@2.service"),
        contained(in_unit(alice.clone(), "a.service"), Some(true)),
        contained(in_unit(alice, "a.service"), None),
        bob.clone(),
        in_unit(bob, "a.service"),
        in_unit(caller(0, 0, &[0]), "a.service"),
    ];
    let has = |policy: &Policy| -> Vec<(usize, &str)> {
        let may = |who: &Caller, uri| {
            policy
                .decide(who, &Identity::System, &resource(uri))
                .is_ok()
        };
        // An encoded slash in a rule stays as it is, and gives no resource that has a slash there.
        let uris = ["https://a", "https://a/", "urn:b", "https://b"];
        let pairs = callers
            .iter()
            .enumerate()
            .flat_map(|(n, who)| uris.map(|uri| (n, who, uri)));
        pairs
            .filter(|(_, who, uri)| may(who, uri))
            .map(|(n, _, uri)| (n, uri))
            .collect()
    };
    let before = has(&policy(&text["version = 1\n".len()..]));
    assert_eq!(
        before,
        [
            (1, "https://a"),
            (1, "urn:b"),
            (2, "https://a"),
            (2, "urn:b")
        ]
    );
    let mut accepted = 0;
    for (place, stray) in (0..=text.len()).flat_map(|place| STRAYS.map(|stray| (place, stray))) {
        let mut changed = text.to_owned();
        changed.insert_str(place, stray);
        let mut diagnostics = Diagnostics::new();
        if let Some(rules) = RuleSet::parse(&[file("f", &changed)], Cloud::Public, &mut diagnostics)
        {
            accepted += 1;
            let after = has(&rules.compile(&accounts(), &mut diagnostics));
            assert!(
                after.iter().all(|one| before.contains(one)),
                "{changed:?}: {after:?}"
            );
        }
    }
    assert!(
        accepted > 100,
        "a newline between two lines does no harm: {accepted}"
    );
}
