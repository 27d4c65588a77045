//! Programs in containers and units: where they are is seen as it is without `exec`.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use arcbroker_e2e::{
    Ground, Program, Setup, User, World, binary, eventually, skip, skip_unless_root,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::net::TcpStream;

const ALICE: User = User::in_socket_group(64_101);

/// The words before a command that run it where it sees the socket and the program of this world in `/mnt`, and nothing
/// else of it; `unshare` makes the namespaces.
fn contained(world: &World, unshare: &[&str]) -> Vec<String> {
    let script = "ip link set lo up
        mount -t tmpfs tmpfs /mnt
        touch /mnt/token.sock /mnt/arcbroker
        mount --bind \"$1\" /mnt/token.sock
        mount --bind \"$2\" /mnt/arcbroker
        mount -t tmpfs tmpfs \"$3\"
        export ARCBROKER_SOCKET=/mnt/token.sock
        shift 4
        exec /mnt/arcbroker \"$@\"";
    let words = ["sh", "-euc", script, "sh"].map(str::to_owned);
    let paths = [world.token_socket(), binary("arcbroker"), world.path("")];
    let mut before: Vec<String> = unshare.iter().map(ToString::to_string).collect();
    before.extend(words);
    before.extend(paths.map(|path| path.display().to_string()));
    before
}

fn setup(rule: &str) -> Setup {
    Setup {
        policy: format!(
            "version = 1\n[[rule]]\nname = \"place\"\n{rule}\nresources = [\"keyvault\"]\n"
        ),
        ..Setup::default()
    }
}

async fn t5(world: &World, before: &[String], uid: u32) {
    let mut program = Program::start(world, before, &[]).await;
    let answer = program.fetch().await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let record = world.audit().pop().unwrap();
    assert_eq!(record["container"], true, "{record}");
    assert_eq!(record["uid"], uid, "{record}");
    assert!(
        TcpStream::connect(program.address).await.is_err(),
        "it is not to be reached from here"
    );
    assert!(program.end().await.success());
}

const NAMESPACES: [&str; 6] = [
    "unshare",
    "--mount",
    "--pid",
    "--net",
    "--fork",
    "--mount-proc",
];

#[tokio::test(flavor = "multi_thread")]
async fn t5_a_rootful_container_asks_in_its_own_network() {
    if skip_unless_root("t5_a_rootful_container_asks_in_its_own_network") {
        return;
    }
    let world = World::with(setup("user = 0\ncontainer = true")).await;
    t5(&world, &contained(&world, &NAMESPACES), 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t5_a_rootless_container_asks_as_the_user_who_runs_it() {
    if skip_unless_root("t5_a_rootless_container_asks_as_the_user_who_runs_it") {
        return;
    }
    let world = World::with(setup("user = 64101\ncontainer = true")).await;
    // In there, who serves the socket has no number.
    let words = ["env", "ARCBROKER_SOCKET_OWNER=65534"];
    let words = ALICE.run(&words);
    let mut unshare: Vec<&str> = words.iter().map(String::as_str).collect();
    unshare.extend(NAMESPACES);
    unshare.extend(["--user", "--map-root-user"]);
    t5(&world, &contained(&world, &unshare), ALICE.uid).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t5_a_rule_without_container_is_none_for_a_container() {
    if skip_unless_root("t5_a_rule_without_container_is_none_for_a_container") {
        return;
    }
    let world = World::with(setup("user = 0")).await;
    let mut program = Program::start(&world, &contained(&world, &NAMESPACES), &[]).await;
    assert_eq!(program.fetch().await.status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_of_a_unit_outlives_the_process_that_asked_for_it() {
    const NAME: &str = "an_endpoint_of_a_unit_outlives_the_process_that_asked_for_it";
    let Some(ground) = Ground::unified() else {
        return skip(
            NAME,
            "there is no unified tree of control groups to write to",
        );
    };
    let unit = ground.unit("web.service");
    let world = World::with(Setup {
        config: vec![("callers", ground.config())],
        ..setup(&format!("unit = '{unit}'"))
    })
    .await;
    let before = ground.enter(&format!("/system.slice/{unit}"), false);
    let mut program = Program::start(&world, &before, &["--unit-lifetime"]).await;
    let daemon = program.run("sleep 300 <&- >&- 2>&- & echo $!").await;
    let answer = program.fetch().await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let asking = program.asking();
    assert!(program.end().await.success());
    assert_eq!(
        asking.ask().await.status,
        200,
        "the unit runs on: {}",
        world.daemon.log()
    );
    let pid: i32 = daemon.trim().parse().unwrap();
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    eventually("the endpoint ends with the unit", || async {
        TcpStream::connect(asking.address).await.is_err()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_gives_up_its_user_is_known_by_its_unit() {
    const NAME: &str = "a_program_that_gives_up_its_user_is_known_by_its_unit";
    let Some(ground) = Ground::unified() else {
        return skip(
            NAME,
            "there is no unified tree of control groups to write to",
        );
    };
    let unit = ground.unit("web.service");
    let world = World::with(Setup {
        config: vec![("callers", ground.config())],
        ..setup("user = 0")
    })
    .await;
    let drops = "setpriv --reuid=64102 --regid=64102 --clear-groups";
    let before = ground.enter(&format!("/system.slice/{unit}"), false);
    let mut inside = Program::start(&world, &before, &[]).await;
    let answer = inside.fetch_through(drops).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let mut outside = Program::start(&world, &[], &[]).await;
    let answer = outside.fetch_through(drops).await;
    assert_eq!(answer.status, 403, "{answer:?}");
}
