//! What is said, and with which exit code, when there is no answer.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    process::Command,
};

use nix::unistd::Uid;

use crate::support::{Broker, Ran, answer, refusal, run};

#[test]
fn a_denial_says_what_the_broker_says_and_what_to_do() {
    let broker = Broker::answering(vec![refusal(403, "", "no rule lets uid 7 use arm")]);
    let expected = Ran {
        code: 3,
        stdout: String::new(),
        stderr: "arcbroker: denied: no rule lets uid 7 use arm\n  \
                 see what you may have: arcbroker whoami\n"
            .into(),
    };
    assert_eq!(broker.run("token arm"), expected);
}

#[test]
fn a_refusal_by_himds_is_no_denial_of_the_policy() {
    let body = r#"{"error":"forbidden","error_description":"HIMDS refused to give the token: no"}"#;
    let broker = Broker::answering(vec![answer(403, "", body)]);
    let expected = Ran {
        code: 1,
        stdout: String::new(),
        stderr:
            "arcbroker: refused, but not by the policy: HIMDS refused to give the token: no\n  \
                 an administrator can look with: sudo arcbroker status, and sudo azcmagent show\n"
                .into(),
    };
    assert_eq!(broker.run("token arm"), expected);
    assert_eq!(broker.run("token arm --wait 30s"), expected);
    assert_eq!(broker.requests().len(), 2);
}

#[test]
fn an_outage_upstream_says_when_to_ask_again() {
    let broker = Broker::answering(vec![refusal(503, "retry-after: 7\r\n", "HIMDS is down")]);
    let expected = Ran {
        code: 5,
        stdout: String::new(),
        stderr: "arcbroker: no token at present: HIMDS is down\n  \
                 ask again in 7 s, or with --wait; see why: sudo arcbroker status\n"
            .into(),
    };
    assert_eq!(broker.run("token arm"), expected);
}

#[test]
fn a_malformed_request_fails() {
    let broker = Broker::answering(vec![refusal(400, "", "no resource is called keyvualt")]);
    let ran = broker.run("token keyvualt");
    assert_eq!(ran.code, 1);
    assert_eq!(
        ran.stderr,
        "arcbroker: the request was refused as malformed: no resource is called keyvualt\n"
    );
}

#[test]
fn a_broker_that_is_not_there_is_told_apart() {
    for (command, code) in [
        ("token arm", 4),
        ("whoami", 4),
        ("status", 4),
        ("status --json", 4),
    ] {
        let ran = run(&format!(
            "--socket /nonexistent/s --admin-socket /nonexistent/s {command}"
        ));
        let expected = Ran {
            code,
            stdout: String::new(),
            stderr: "arcbroker: no broker answers at /nonexistent/s: No such file or directory (os error 2)\n  \
                     is arcbrokerd running? systemctl status arcbroker (--socket and --admin-socket name other sockets)\n"
                .into(),
        };
        assert_eq!(ran, expected, "{command}");
    }
}

#[test]
fn what_is_no_broker_fails_and_is_no_health_of_a_broker() {
    let broker = Broker::answering(vec![answer(200, "", "<html>")]);
    assert_eq!(broker.run("token arm").code, 1);
    assert_eq!(broker.run("status").code, 4);
}

#[test]
fn a_text_of_the_broker_cannot_command_the_terminal() {
    let broker = Broker::answering(vec![refusal(403, "", "a\x1b[2Jb\r\n\u{9b}31mc\u{202e}")]);
    let ran = broker.run("token arm");
    assert!(
        ran.stderr.starts_with("arcbroker: denied: a[2Jb 31mc\n"),
        "{:?}",
        ran.stderr
    );
    assert!(
        !ran.stderr.chars().any(|c| c.is_control() && c != '\n'),
        "{:?}",
        ran.stderr
    );
}

#[test]
fn usage_has_its_code_and_status_another() {
    for (line, code) in [
        ("", 2),
        ("token", 2),
        ("token arm --wait 30", 2),
        ("token arm --client-id a --object-id b", 2),
        ("tokn arm", 2),
        ("status --jsno", 64),
    ] {
        let ran = run(line);
        assert_eq!((ran.code, ran.stdout.as_str()), (code, ""), "{line}");
        assert!(!ran.stderr.is_empty(), "{line}");
    }
    assert!(
        run("token arm --wait 30")
            .stderr
            .contains("write 30s, 30m or 30h")
    );
}

#[test]
fn an_owner_that_nobody_is_called_is_a_usage_error() {
    let ran = run("--socket-owner no-such-user-here whoami");
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("no-such-user-here"), "{}", ran.stderr);
}

#[test]
fn version_and_help_are_asked_for_and_so_no_error() {
    let ran = run("--version");
    let version = concat!("arcbroker ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(
        (ran.code, ran.stdout.as_str(), ran.stderr.as_str()),
        (0, version, "")
    );
    let ran = run("status --help");
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    assert!(ran.stdout.contains("64 usage"), "{}", ran.stdout);
}

/// A socket that one may not open. Root may open all, so root runs it as somebody else.
#[test]
fn a_forbidden_socket_says_which_group_to_join() {
    let broker = Broker::answering(vec![refusal(403, "", "no")]);
    fs::set_permissions(&broker.path, Permissions::from_mode(0o000)).unwrap();
    fs::set_permissions(broker.path.parent().unwrap(), Permissions::from_mode(0o755)).unwrap();
    let path = broker.path.to_str().unwrap();
    let (token, status) = (
        format!("--socket {path} token arm"),
        format!("--admin-socket {path} status"),
    );

    let ran = unprivileged(&token);
    assert_eq!(ran.code, 4);
    assert!(
        ran.stderr
            .contains("\n  add the user to group arcbroker: usermod -aG arcbroker "),
        "{}",
        ran.stderr
    );
    let ran = unprivileged(&status);
    assert_eq!(ran.code, 4);
    assert!(
        ran.stderr
            .contains("\n  the admin socket is for root: sudo arcbroker status\n"),
        "{}",
        ran.stderr
    );
}

fn unprivileged(line: &str) -> Ran {
    if !Uid::effective().is_root() {
        return run(line);
    }
    // Where the build lies, others may not look.
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
    let copy = directory.path().join("arcbroker");
    // In a process of its own: a copy that is open for writing here could not be executed while
    // another test forks.
    let copied = Command::new("cp")
        .arg(env!("CARGO_BIN_EXE_arcbroker"))
        .arg(&copy)
        .status();
    assert!(copied.unwrap().success());
    Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&copy)
        .args(line.split_whitespace())
        .output()
        .unwrap()
        .into()
}
