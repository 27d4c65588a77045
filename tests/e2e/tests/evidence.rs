//! What callers can do to look like somebody else: nothing that helps.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::fs;
use std::path::Path;
use std::process::Command;

use arcbroker_e2e::{
    DAEMON_UID, Elsewhere, SOCKET_GID, Setup, User, World, eventually, rules, skip,
    skip_unless_root,
};
use serde_json::Value;

const VAULT: &str = "https%3A%2F%2Fvault.azure.net";
const TOKEN: &str =
    "/metadata/identity/oauth2/token?api-version=2019-11-01&resource=https%3A%2F%2Fvault.azure.net";
const ARM: &str = "/metadata/identity/oauth2/token?api-version=2019-11-01&resource=arm";
const WHOAMI: &str = "http://localhost/v1/whoami";

const ALICE: User = User::in_socket_group(64_101);
const BOB: User = User::in_socket_group(64_102);

/// Runs a command in a user namespace that knows root and the daemon, and nobody else.
const NAMESPACE: &str = "
import ctypes, os, sys, time
CLONE_NEWUSER, ids = 0x10000000, '0 0 1\\n64001 64001 3\\n'
me, outside = os.getpid(), os.readlink('/proc/self/ns/user')
if os.fork() == 0:
    while os.readlink(f'/proc/{me}/ns/user') == outside:
        time.sleep(0.005)
    for name in ('gid_map', 'uid_map'):
        open(f'/proc/{me}/{name}', 'w').write(ids)
    os._exit(0)
if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWUSER) != 0:
    sys.exit(1)
while not open('/proc/self/uid_map').read():
    time.sleep(0.005)
os.execvp(sys.argv[1], sys.argv[1:])
";

#[tokio::test(flavor = "multi_thread")]
async fn t1_other_uid_refused_even_with_mode_0666() {
    if skip_unless_root("t1_other_uid_refused_even_with_mode_0666") {
        return;
    }
    let world = World::with(Setup {
        policy: rules(&[("user = 64101", "keyvault")]),
        config: vec![("sockets", "token-mode = \"0666\"".to_owned())],
        ..Setup::default()
    })
    .await;
    let outside = |user: User| User {
        groups: &[],
        ..user
    };
    assert_eq!(world.token_as(&outside(ALICE), VAULT).await.status, 200);
    let denied = world.token_as(&outside(BOB), VAULT).await;
    assert_eq!(
        (denied.status, denied.error()),
        (403, "access_denied".to_owned())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn t5_root_in_pidns_denied_without_flag() {
    if skip_unless_root("t5_root_in_pidns_denied_without_flag") {
        return;
    }
    let world = World::with_rules(
        &[
            ("user = 0", "keyvault"),
            ("user = 0\ncontainer = true", "arm"),
        ],
        None,
    )
    .await;
    let root = User {
        uid: 0,
        gid: 0,
        groups: &[],
    };
    let contained: Vec<String> = [
        "unshare",
        "--pid",
        "--mount",
        "--net",
        "--fork",
        "--kill-child",
    ]
    .map(str::to_owned)
    .to_vec();
    for (before, token, arm) in [(vec![], "200", "403"), (contained, "403", "200")] {
        let mut before = before;
        before.extend(root.run(&[]));
        let urls = [TOKEN, ARM].map(|target| format!("http://localhost{target}"));
        let arguments = [
            "--header",
            "Metadata: true",
            "--write-out",
            "%{http_code} ",
            "--output",
            "/dev/null",
            &urls[0],
            "--output",
            "/dev/null",
            &urls[1],
        ];
        let output = world.curl_in(&before, &arguments).await;
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(said.trim(), format!("{token} {arm}"), "{before:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t19_a_passed_connection_is_that_of_the_process_that_connected() {
    if skip_unless_root("t19_a_passed_connection_is_that_of_the_process_that_connected") {
        return;
    }
    let world = World::with_rules(
        &[("user = 64101", "keyvault"), ("user = 64102", "arm")],
        None,
    )
    .await;
    let mut passed = Elsewhere::connect(&world, &[], &ALICE, BOB.uid, ALICE.uid).await;
    for _ in 0..2 {
        let seen = passed.connection.whoami().await;
        assert_eq!(seen["uid"], ALICE.uid, "{seen}");
        assert_eq!(passed.connection.get(TOKEN).await.status, 200);
        assert_eq!(
            passed.connection.get(ARM).await.status,
            403,
            "the holder is nobody"
        );
        // The second time around, the process that connected is gone.
        passed.end().await;
    }
    let record = world.audit().pop().unwrap();
    assert_eq!(
        (&record["uid"], &record["container"]),
        (&ALICE.uid.into(), &false.into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn x1_who_connects_as_root_is_root_whoever_it_becomes() {
    if skip_unless_root("x1_who_connects_as_root_is_root_whoever_it_becomes") {
        return;
    }
    let world = World::with_rules(&[("user = 0", "keyvault"), ("user = 64101", "arm")], None).await;
    let root = User {
        uid: 0,
        gid: 0,
        groups: &[],
    };
    let mut dropped = Elsewhere::connect(&world, &[], &root, BOB.uid, ALICE.uid).await;
    let seen = dropped.connection.whoami().await;
    assert_eq!((&seen["uid"], &seen["gid"]), (&0.into(), &0.into()));
    assert_eq!(dropped.connection.get(TOKEN).await.status, 200);
    assert_eq!(dropped.connection.get(ARM).await.status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn x1_the_effective_user_counts_and_not_the_real_one() {
    if skip_unless_root("x1_the_effective_user_counts_and_not_the_real_one") {
        return;
    }
    let world = World::with_rules(&[("user = 64101", "keyvault")], None).await;
    let words = |real: u32, effective: u32| {
        let (real, effective) = (format!("--ruid={real}"), format!("--euid={effective}"));
        let groups = format!("--groups={SOCKET_GID}");
        ["setpriv".to_owned(), real, effective, groups].to_vec()
    };
    for (before, uid, status) in [
        (words(64_102, 64_101), ALICE.uid, 200),
        (words(64_101, 0), 0, 403),
    ] {
        let output = world.curl_in(&before, &[WHOAMI]).await;
        let seen: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {output:?}"));
        assert_eq!(seen["uid"], uid, "{seen}");
        assert_eq!(
            seen["resources"].as_array().unwrap().is_empty(),
            status == 403,
            "{seen}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn x1_a_broker_in_a_user_namespace_takes_nobody_for_somebody() {
    const NAME: &str = "x1_a_broker_in_a_user_namespace_takes_nobody_for_somebody";
    if skip_unless_root(NAME) {
        return;
    }
    let wrapper = ["python3", "-c", NAMESPACE].map(str::to_owned).to_vec();
    let works = Command::new(&wrapper[0])
        .args(&wrapper[1..])
        .arg("true")
        .status();
    if !works.is_ok_and(|status| status.success()) {
        return skip(NAME, "user namespaces cannot be had here");
    }
    let world = World::with(Setup {
        policy: rules(&[("user = [65534, 64101]", "keyvault"), ("user = 0", "arm")]),
        wrapper,
        ..Setup::default()
    })
    .await;
    let seen = world.get_as(&ALICE, WHOAMI).await.json();
    assert_eq!(
        (&seen["uid"], &seen["container"]),
        (&65_534.into(), &Value::Null),
        "{seen}"
    );
    assert_eq!(seen["resources"], serde_json::json!([]));
    let denied = world.token_as(&ALICE, VAULT).await;
    assert_eq!(denied.status, 403);
    assert!(
        denied.body.contains("nothing is known of the process"),
        "{denied:?}"
    );
    assert_eq!(world.token("arm").await.status, 200, "root is mapped");
    assert!(
        world
            .daemon
            .log()
            .contains("in a user namespace of its own"),
        "{}",
        world.daemon.log()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn x1_a_broker_in_a_pid_namespace_knows_nothing_of_those_outside() {
    if skip_unless_root("x1_a_broker_in_a_pid_namespace_knows_nothing_of_those_outside") {
        return;
    }
    for own_proc in [false, true] {
        let mut wrapper = vec!["unshare", "--pid", "--fork", "--kill-child"];
        if own_proc {
            wrapper.push("--mount-proc");
        }
        let world = World::with(Setup {
            policy: rules(&[
                ("user = 0", "keyvault"),
                ("user = 0\ncontainer = true", "keyvault"),
            ]),
            wrapper: wrapper.into_iter().map(str::to_owned).collect(),
            ..Setup::default()
        })
        .await;
        let seen = world.get("/v1/whoami").await.json();
        assert_eq!(
            (&seen["uid"], &seen["container"]),
            (&0.into(), &Value::Null),
            "{seen}"
        );
        assert_eq!(world.token(VAULT).await.status, 403);
        let foreign = "/proc belongs to another pid namespace";
        assert_eq!(
            world.daemon.log().contains(foreign),
            !own_proc,
            "{}",
            world.daemon.log()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t38_i21_what_is_forbidden_and_what_does_not_exist_cost_and_tell_the_same() {
    if skip_unless_root("t38_i21_what_is_forbidden_and_what_does_not_exist_cost_and_tell_the_same")
    {
        return;
    }
    let world = World::with_rules(&[("user = 64101", "keyvault")], None).await;
    assert_eq!(world.token_as(&ALICE, VAULT).await.status, 200);
    let (asked, kept) = (
        world.simulator().tokens(),
        world.status().await.tokens.len(),
    );
    let mut bodies = Vec::new();
    for resource in ["https://vault.azure.net", "https://made.up.example"] {
        let denied = world
            .token_as(&BOB, &resource.replace("://", "%3A%2F%2F"))
            .await;
        let id = denied.json()["request_id"].as_str().unwrap().to_owned();
        let body = denied.body.replace(&id, "ID").replace(resource, "RESOURCE");
        let mut names: Vec<_> = denied
            .headers
            .iter()
            .map(|(name, _)| name.clone())
            .collect();
        names.sort();
        bodies.push((denied.status, names, body));
    }
    assert_eq!(bodies[0], bodies[1]);
    assert_eq!(
        (
            world.simulator().tokens(),
            world.status().await.tokens.len()
        ),
        (asked, kept)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn t42_passed_descriptors_are_not_kept() {
    const SCRIPT: &str = "
import os, socket, sys
SO_PASSRIGHTS = 83
s = socket.socket(socket.AF_UNIX)
try:
    s.setsockopt(socket.SOL_SOCKET, SO_PASSRIGHTS, 1)
    print('can refuse: ', end='')
except OSError:
    print('cannot refuse: ', end='')
s.connect(sys.argv[1])
null = os.open('/dev/null', os.O_RDONLY)
try:
    for _ in range(50):
        socket.send_fds(s, [b'GET /v1/health HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n'], [null] * 100)
        s.recv(65536)
    print('taken')
except PermissionError:
    print('refused')
";
    let world = World::start().await;
    let descriptors = |pid: i32| {
        fs::read_dir(Path::new("/proc").join(pid.to_string()).join("fd"))
            .ok()
            .map(Iterator::count)
    };
    let Some(before) = descriptors(world.daemon.pid()) else {
        return skip(
            "t42_passed_descriptors_are_not_kept",
            "it needs root, to count the daemon's descriptors",
        );
    };
    let socket = world.token_socket();
    let output = tokio::task::spawn_blocking(move || {
        Command::new("python3")
            .args(["-c", SCRIPT])
            .arg(socket)
            .output()
            .unwrap()
    });
    let output = output.await.unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        matches!(said.trim(), "can refuse: refused" | "cannot refuse: taken"),
        "{said} {:?}",
        output.stderr
    );
    eventually("next to nothing is left of five thousand", || async {
        descriptors(world.daemon.pid()).unwrap() < before + 20
    })
    .await;
    assert_eq!(world.token(VAULT).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_cannot_look_at_a_caller_for_want_of_descriptors_refuses_nobody_for_good() {
    const NAME: &str =
        "a_broker_that_cannot_look_at_a_caller_for_want_of_descriptors_refuses_nobody_for_good";
    if skip_unless_root(NAME) {
        return;
    }
    let world = World::with_rules(&[("user = 64101", "keyvault")], None).await;
    assert_eq!(world.token_as(&ALICE, VAULT).await.status, 200);
    let pid = world.daemon.pid().to_string();
    // Only its own user may set the limits of a process.
    let daemon = User {
        uid: DAEMON_UID,
        gid: DAEMON_UID,
        groups: &[],
    };
    let limit = |descriptors: usize| {
        let limit = format!("--nofile={descriptors}:");
        let words = daemon.run(&["prlimit", "--pid", &pid, &limit]);
        let set = Command::new(&words[0]).args(&words[1..]).status();
        assert!(set.unwrap().success());
    };
    let open = fs::read_dir(Path::new("/proc").join(&pid).join("fd"))
        .unwrap()
        .count();
    let mut statuses = Vec::new();
    for descriptors in open.saturating_sub(3)..open + 6 {
        limit(descriptors);
        // Where not even the connection can be accepted, it waits.
        let arguments = [
            "--max-time",
            "1",
            "--output",
            "/dev/null",
            "--write-out",
            "%{http_code}",
            "--header",
            "Metadata: true",
        ];
        let url = format!("http://localhost{TOKEN}");
        let output = world
            .curl_as(&ALICE, &[&arguments[..], &[&url]].concat())
            .await;
        statuses.push(String::from_utf8(output.stdout).unwrap());
    }
    assert!(
        statuses
            .iter()
            .all(|status| matches!(status.as_str(), "000" | "200" | "503")),
        "{statuses:?}"
    );
    assert!(
        statuses.iter().any(|status| status == "503"),
        "{statuses:?}"
    );
    limit(1024);
    assert_eq!(world.token_as(&ALICE, VAULT).await.status, 200);
}
