//! Units of the system: whose processes they are, and that nobody else is taken for one.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::fs;
use std::process::{Child, Command, Stdio};

use arcbroker_e2e::{
    Elsewhere, Ground, Setup, User, World, binary, eventually, rules, skip, skip_unless_root,
};
use nix::sys::signal::Signal;
use serde_json::Value;

const VAULT: &str = "https%3A%2F%2Fvault.azure.net";
const TOKEN: &str =
    "/metadata/identity/oauth2/token?api-version=2019-11-01&resource=https%3A%2F%2Fvault.azure.net";
const ARM: &str = "/metadata/identity/oauth2/token?api-version=2019-11-01&resource=arm";
const WHOAMI: &str = "http://localhost/v1/whoami";

const ALICE: User = User::in_socket_group(64_101);
const BOB: User = User::in_socket_group(64_102);

/// A process with this number, if it can be had: the kernel gives out the next one after the last.
fn spawn_with_pid(pid: u32) -> Option<Child> {
    for _ in 0..2000 {
        fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).ok()?;
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        if child.id() == pid {
            return Some(child);
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    None
}

async fn t18(ground: &Ground, name: &str) {
    let unit = ground.unit("backup.service");
    let group = format!("/system.slice/{unit}");
    let by_unit = format!("unit = '{unit}'");
    let world = World::with_rules(
        &[(&by_unit, "keyvault"), ("user = 64102", "arm")],
        Some(ground),
    )
    .await;
    let mut passed = Elsewhere::connect(
        &world,
        &ground.enter(&group, false),
        &BOB,
        ALICE.uid,
        BOB.uid,
    )
    .await;
    let pid = passed.pid();
    let seen = passed.connection.whoami().await;
    assert_eq!(
        (seen["unit"].as_str(), seen["pid"].as_u64()),
        (Some(unit.as_str()), Some(pid.into())),
        "{seen}"
    );
    assert_eq!(passed.connection.get(TOKEN).await.status, 200);
    passed.end().await;
    let Some(mut heir) = spawn_with_pid(pid) else {
        return skip(name, "the number of a process cannot be had again here");
    };
    // It is in the unit, and not the process that connected.
    if ground.is_imitated() {
        ground.imitate(pid, &group);
    } else {
        let words = ground.enter(&group, false);
        let script = words[2]
            .replace("$$", &pid.to_string())
            .replace("exec \"$@\"", "");
        assert!(
            Command::new("sh")
                .args(["-euc", &script])
                .status()
                .unwrap()
                .success()
        );
        assert!(
            fs::read_to_string(format!("/proc/{pid}/cgroup"))
                .unwrap()
                .contains(&unit)
        );
    }
    let seen = passed.connection.whoami().await;
    assert_eq!(
        (&seen["unit"], &seen["container"]),
        (&Value::Null, &false.into()),
        "{seen}"
    );
    assert_eq!(
        passed.connection.get(TOKEN).await.status,
        403,
        "the unit went with the process"
    );
    assert_eq!(
        passed.connection.get(ARM).await.status,
        200,
        "the user stays"
    );
    heir.kill().unwrap();
    heir.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn t18_pid_reuse() {
    if skip_unless_root("t18_pid_reuse") {
        return;
    }
    t18(&Ground::imitated(), "t18_pid_reuse").await;
    match Ground::real() {
        Some(ground) => t18(&ground, "t18_pid_reuse").await,
        None => skip(
            "t18_pid_reuse (real control groups)",
            "control groups cannot be made here",
        ),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_moves_to_another_unit_is_judged_there() {
    if skip_unless_root("a_process_that_moves_to_another_unit_is_judged_there") {
        return;
    }
    let ground = Ground::imitated();
    let [one, other] = ["one.service", "other.service"].map(|name| ground.unit(name));
    let rules = [format!("unit = '{one}'"), format!("unit = '{other}'")];
    let world = World::with_rules(
        &[(&rules[0], "keyvault"), (&rules[1], "arm")],
        Some(&ground),
    )
    .await;
    let before = ground.enter(&format!("/system.slice/{one}"), false);
    let mut there = Elsewhere::connect(&world, &before, &BOB, BOB.uid, BOB.uid).await;
    assert_eq!(there.connection.get(TOKEN).await.status, 200);
    ground.imitate(there.pid(), &format!("/system.slice/{other}"));
    let there = tokio::sync::Mutex::new(there);
    eventually("the daemon looks again", || async {
        there.lock().await.connection.get(ARM).await.status == 200
    })
    .await;
    assert_eq!(there.lock().await.connection.get(TOKEN).await.status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn t20_rules_on_programs_are_refused_when_they_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let uid = User::current().uid.to_string();
    for (key, subject) in [
        ("exe", "user = 0\nexe = \"/usr/bin/backup\""),
        ("exe", "exe = \"/usr/bin/backup\""),
        ("pid", "pid = 1"),
        ("user-unit", "user-unit = \"backup.service\""),
    ] {
        fs::write(dir.path().join("a.toml"), rules(&[(subject, "keyvault")])).unwrap();
        let output = Command::new(binary("arcbrokerd"))
            .arg("--check")
            .arg("--policy-dir")
            .arg(dir.path())
            .args(["--policy-owner", &uid])
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(78), "{said}");
        assert!(said.contains(&format!("unknown key `{key}`")), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn x2_a_program_mounted_over_another_is_nobody_else() {
    if skip_unless_root("x2_a_program_mounted_over_another_is_nobody_else") {
        return;
    }
    // Bob mounts curl over a program of Alice's: its path says so, and nothing follows from it.
    let world = World::with_rules(&[("user = 64101", "keyvault")], None).await;
    let script =
        "mount --bind \"$(command -v curl)\" /usr/bin/env; shift; exec /usr/bin/env \"$@\"";
    let before = BOB.run(&[
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "sh",
        "-euc",
        script,
        "sh",
    ]);
    let output = world
        .curl_in(
            &before,
            &[
                "--output",
                "/dev/null",
                "--write-out",
                "%{http_code}",
                "--header",
                "Metadata: true",
                &format!("http://localhost{TOKEN}"),
            ],
        )
        .await;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(said, "403", "{output:?}");
    let record = world.audit().pop().unwrap();
    assert_eq!(
        (&record["uid"], &record["outcome"]),
        (&BOB.uid.into(), &"denied".into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn x6_with_hidden_processes_unit_rules_are_refused_and_containers_are_told_still() {
    if skip_unless_root(
        "x6_with_hidden_processes_unit_rules_are_refused_and_containers_are_told_still",
    ) {
        return;
    }
    let script = "mount -t proc -o hidepid=2 proc /proc && exec \"$@\"";
    let wrapper = ["unshare", "--mount", "sh", "-euc", script, "sh"]
        .map(str::to_owned)
        .to_vec();
    let mut world = World::with(Setup {
        policy: rules(&[
            ("user = 64101", "keyvault"),
            ("user = 64101\ncontainer = true", "arm"),
        ]),
        wrapper,
        ..Setup::default()
    })
    .await;
    assert_eq!(world.token_as(&ALICE, VAULT).await.status, 200);
    assert_eq!(world.token_as(&ALICE, "arm").await.status, 403);
    let mut before: Vec<String> = ["unshare", "--pid", "--fork", "--kill-child"]
        .map(str::to_owned)
        .to_vec();
    before.extend(ALICE.run(&[]));
    let output = world.curl_in(&before, &[WHOAMI]).await;
    let seen: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&seen["container"], &seen["unit"]),
        (&true.into(), &Value::Null),
        "{seen}"
    );
    assert_eq!(
        seen["resources"][0]["rule"],
        "arm for user = 64101 container = true"
    );

    world.write_policy(&rules(&[("unit = 'backup.service'", "keyvault")]));
    world.daemon.signal(Signal::SIGHUP);
    eventually("the reload is refused", || async {
        world.status().await.policy.reload_error.is_some()
    })
    .await;
    let told = world.status().await.policy.reload_error.unwrap();
    assert!(
        told.contains(":4:8: units cannot be told: /proc hides the processes of others"),
        "{told}"
    );
    assert_eq!(world.token_as(&ALICE, VAULT).await.status, 200);
    world.daemon.signal(Signal::SIGTERM);
    world.daemon.wait().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn x7_nobody_moves_into_a_unit_without_privilege() {
    const NAME: &str = "x7_nobody_moves_into_a_unit_without_privilege";
    if skip_unless_root(NAME) {
        return;
    }
    let Some(ground) = Ground::real() else {
        return skip(
            NAME,
            "control groups cannot be made here, or belong to systemd",
        );
    };
    let unit = ground.unit("backup.service");
    let by_unit = format!("unit = '{unit}'");
    let world = World::with_rules(&[(&by_unit, "keyvault")], Some(&ground)).await;
    let group = format!("/system.slice/{unit}");
    let inside =
        Elsewhere::connect(&world, &ground.enter(&group, false), &BOB, BOB.uid, BOB.uid).await;
    let script = &ground.enter(&group, false)[2].replace("exec \"$@\"", "");
    let tried = Command::new("setpriv")
        .args(ALICE.setpriv())
        .args(["sh", "-euc", script])
        .output()
        .unwrap();
    assert!(!tried.status.success(), "{tried:?}");
    assert_eq!(world.token_as(&ALICE, VAULT).await.status, 403);
    drop(inside);
}
