//! `arcbroker token`

use std::process::Stdio;

use crate::support::{Broker, Ran, command, refusal, run, token};

#[test]
fn raw_is_the_token_and_a_newline_and_nothing_else() {
    let broker = Broker::answering(vec![token()]);
    let expected = Ran {
        code: 0,
        stdout: "MARKER\n".into(),
        stderr: String::new(),
    };
    assert_eq!(broker.run("token keyvault"), expected);
    assert_eq!(broker.run("token keyvault --format raw"), expected);
    let head = &broker.requests()[0];
    assert!(
        head.starts_with("GET /metadata/identity/oauth2/token?api-version=2020-06-01&resource=keyvault HTTP/1.1\r\n"),
        "{head}"
    );
}

#[test]
fn json_has_its_numbers_as_numbers() {
    let ran = Broker::answering(vec![token()]).run("token keyvault --format json");
    assert_eq!(
        ran.stdout,
        "{\"schema\":1,\"access_token\":\"MARKER\",\"expires_on\":1700003599,\"expires_in\":3599,\
         \"resource\":\"https://vault.azure.net\",\"token_type\":\"Bearer\"}\n"
    );
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
}

#[test]
fn an_identity_is_passed_on() {
    let broker = Broker::answering(vec![token()]);
    for (option, parameter) in [
        ("--client-id x/1", "client_id=x%2F1"),
        ("--object-id x", "object_id=x"),
        (
            "--resource-id /subscriptions/s",
            "msi_res_id=%2Fsubscriptions%2Fs",
        ),
    ] {
        assert_eq!(broker.run(&format!("token arm {option}")).code, 0);
        let requests = broker.requests();
        let head = requests.last().unwrap();
        assert!(
            head.contains(&format!("&resource=arm&{parameter} HTTP")),
            "{head}"
        );
    }
}

#[test]
fn the_environment_names_the_socket_and_an_option_wins() {
    let broker = Broker::answering(vec![token()]);
    let ran = command("token arm")
        .env("ARCBROKER_SOCKET", &broker.path)
        .output()
        .unwrap();
    assert_eq!(Ran::from(ran).stdout, "MARKER\n");

    let path = broker.path.to_str().unwrap();
    let ran = command(&format!("token arm --socket {path}"))
        .env("ARCBROKER_SOCKET", "/nonexistent/s")
        .output()
        .unwrap();
    assert_eq!(Ran::from(ran).stdout, "MARKER\n");
}

#[test]
fn an_empty_variable_counts_as_none() {
    let broker = Broker::answering(vec![token()]);
    let path = broker.path.to_str().unwrap();
    let ran = command(&format!("token arm --socket {path}"))
        .env("ARCBROKER_SOCKET", "")
        .env("ARCBROKER_ADMIN_SOCKET", "")
        .env("ARCBROKER_SOCKET_OWNER", "")
        .output()
        .unwrap();
    assert_eq!(Ran::from(ran).stdout, "MARKER\n");

    // Then it is the usual socket, whether a broker is there or not.
    for (line, variable, usage) in [
        ("whoami", "ARCBROKER_SOCKET", 2),
        ("status", "ARCBROKER_ADMIN_SOCKET", 64),
    ] {
        let ran = Ran::from(command(line).env(variable, "").output().unwrap());
        assert_ne!(ran.code, usage, "{}", ran.stderr);
    }

    // An option without a value is a mistake, though.
    let ran = command("token arm").args(["--socket", ""]).output();
    assert_eq!(Ran::from(ran.unwrap()).code, 2);
}

#[test]
fn a_token_that_ends_too_soon_is_not_printed() {
    let broker = Broker::answering(vec![token()]);
    assert_eq!(
        broker.run("token arm --min-validity 59m").stdout,
        "MARKER\n"
    );
    let ran = broker.run("token arm --min-validity 1h");
    assert_eq!((ran.code, ran.stdout.as_str()), (5, ""));
    assert!(
        ran.stderr
            .starts_with("arcbroker: the token is good for 59 min, and 1 h 0 min are wanted\n"),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_closed_pipe_is_success() {
    let broker = Broker::answering(vec![token()]);
    let path = broker.path.to_str().unwrap();
    for line in ["token arm", "token arm --format json"] {
        let mut child = command(&format!("--socket {path} {line}"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let ran = Ran::from(child.wait_with_output().unwrap());
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{line}");
    }
}

#[test]
fn a_full_disk_is_a_failure() {
    let broker = Broker::answering(vec![token()]);
    let full = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let path = broker.path.to_str().unwrap();
    let output = command(&format!("--socket {path} token arm"))
        .stdout(full)
        .output()
        .unwrap();
    let ran = Ran::from(output);
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr
            .starts_with("arcbroker: cannot write to standard output: "),
        "{}",
        ran.stderr
    );
}

#[test]
fn wait_asks_again_while_there_is_no_token_and_stops_at_a_final_word() {
    let later = refusal(503, "retry-after: 1\r\n", "HIMDS is down");
    let broker = Broker::answering(vec![later.clone(), later.clone(), token()]);
    assert_eq!(broker.run("token arm --wait 30s").stdout, "MARKER\n");
    assert_eq!(broker.requests().len(), 3);

    // Each call is hung up on twice before it is over.
    let gone = String::new();
    let broker = Broker::answering(vec![
        gone.clone(),
        gone.clone(),
        gone.clone(),
        gone,
        token(),
    ]);
    assert_eq!(broker.run("token arm --wait 30s").stdout, "MARKER\n");
    assert_eq!(broker.requests().len(), 5);

    let broker = Broker::answering(vec![later, refusal(403, "", "no rule")]);
    assert_eq!(broker.run("token arm --wait 30s").code, 3);
    assert_eq!(broker.requests().len(), 2);
}

#[test]
fn wait_waits_for_the_socket_to_appear() {
    let directory = tempfile::tempdir().unwrap();
    let link = directory.path().join("token.sock");
    let waiting = command("token arm --wait 60s")
        .env("ARCBROKER_SOCKET", &link)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // The socket comes only after another whole run of the program, which found none.
    assert_eq!(run("--socket /nonexistent/token.sock token arm").code, 4);
    let broker = Broker::answering(vec![token()]);
    std::os::unix::fs::symlink(&broker.path, &link).unwrap();
    let output = waiting.wait_with_output().unwrap();
    assert_eq!(Ran::from(output).stdout, "MARKER\n");
}

#[test]
fn wait_gives_up_in_the_end() {
    let ran = run("--socket /nonexistent/token.sock token arm --wait 1s");
    assert_eq!(ran.code, 4);
}

#[test]
fn a_broker_that_hangs_up_twice_is_unreachable() {
    let broker = Broker::answering(vec![String::new()]);
    let ran = broker.run("token arm");
    assert_eq!(ran.code, 4);
    assert!(
        ran.stderr
            .contains("it closed the connection without an answer"),
        "{}",
        ran.stderr
    );
    assert_eq!(broker.requests().len(), 2);
}
