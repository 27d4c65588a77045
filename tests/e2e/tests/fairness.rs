//! One caller cannot take what is another's: turns, connections, requests.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::fs;

use arcbroker_e2e::{
    Answer, Connection, Flood, Ground, Setup, User, World, eventually, rules, skip_unless_root,
};
use nix::sys::signal::Signal;
use tokio::process::Command;
use tokio::sync::Mutex;

const TOKEN: &str =
    "/metadata/identity/oauth2/token?api-version=2019-11-01&resource=https%3A%2F%2Fvault.azure.net";
const HEALTH: &str = "/v1/health";
const ALICE: User = User::in_socket_group(64_101);
const BOB: User = User::in_socket_group(64_102);

/// Connections of the flood: all that one user may have by default, but for a few.
const CONNECTIONS: usize = 1000;
/// Requests of the flood that may be answered while one of another caller waits. Three rounds or four of
/// the event loop: what was begun already, and what is begun until the other one is seen, read and
/// recorded. Without turns it is all that wait.
const MOST: usize = 128;

async fn flooded() -> (World, Flood) {
    let policy = rules(&[("user = [0, 64101]", "keyvault")]);
    let world = World::with(Setup {
        policy,
        ..Setup::default()
    })
    .await;
    let flood = Flood::start(&world, &ALICE, TOKEN, CONNECTIONS).await;
    (world, flood)
}

/// Bytes of the audit file.
fn audited(world: &World) -> usize {
    fs::read(world.path("log.d/audit.jsonl")).unwrap().len()
}

/// Records of others from byte `from` of the audit file on to the first of ours.
fn before_ours(world: &World, from: usize) -> usize {
    let audit = fs::read(world.path("log.d/audit.jsonl")).unwrap();
    let text = String::from_utf8(audit[from..].to_vec()).unwrap();
    let ours = |line: &str| line.contains(r#""uid":0,"#);
    text.lines().position(ours).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn t23_a_flood_on_every_connection_of_a_user_delays_another_by_a_few_requests() {
    if skip_unless_root(
        "t23_a_flood_on_every_connection_of_a_user_delays_another_by_a_few_requests",
    ) {
        return;
    }
    let (world, flood) = flooded().await;
    let mut kept = world.connect().await;
    assert_eq!(kept.get(TOKEN).await.status, 200);
    for round in 0..20 {
        flood.pile_up(&world).await;
        let before = audited(&world);
        // In turn one that is kept and a new one.
        let mut new = None;
        let connection = match round % 2 {
            0 => &mut kept,
            _ => new.insert(Connection::open(&world.token_socket()).await),
        };
        connection.ask(TOKEN).await;
        world.daemon.signal(Signal::SIGCONT);
        let answer = connection.answer().await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let others = before_ours(&world, before);
        assert!(others <= MOST, "{others} of {CONNECTIONS}");
    }
    assert_eq!(world.status().await.connections.refused, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn t23_a_flood_gets_all_that_nobody_else_wants() {
    if skip_unless_root("t23_a_flood_gets_all_that_nobody_else_wants") {
        return;
    }
    let (world, _flood) = flooded().await;
    let issued = async || world.status().await.requests.issued;
    let begin = issued().await;
    eventually("every connection is served again and again", async || {
        issued().await > begin + 10 * CONNECTIONS as u64
    })
    .await;
    assert_eq!(world.status().await.requests.throttled, 0);
}

fn assert_is_over(answer: &Answer, key: &str) {
    assert_eq!(
        (answer.status, answer.error().as_str()),
        (429, "too_many_requests"),
        "{answer:?}"
    );
    assert_eq!(answer.header("retry-after"), Some("1"), "{answer:?}");
    let body = answer.json();
    assert_eq!(body["error_description"], body["message"]);
    assert!(body["message"].as_str().unwrap().contains(key), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_over_its_rate_is_told_when_to_come_back_and_keeps_its_connection() {
    let world = World::with(Setup {
        config: vec![("limits", "requests-per-second-per-user = 1".to_owned())],
        ..Setup::default()
    })
    .await;
    let mut connection = world.connect().await;
    // Ten at once, and one more for each second that has passed.
    let mut served = 0;
    let over = loop {
        let answer = connection.get(TOKEN).await;
        if answer.status != 200 {
            break answer;
        }
        served += 1;
    };
    assert!(served >= 10, "{served}");
    assert_is_over(&over, "requests-per-second-per-user");
    // Every path counts, and who does not wait is told again.
    let mut again = connection.get(HEALTH).await;
    while again.status == 200 {
        again = connection.get(HEALTH).await;
    }
    assert_is_over(&again, "requests-per-second-per-user");
    let connection = Mutex::new(connection);
    eventually("there is room again on the same connection", || async {
        connection.lock().await.get(TOKEN).await.status == 200
    })
    .await;

    let requests = world.status().await.requests;
    assert!(requests.throttled >= 2, "{requests:?}");
    let records = world.audit();
    assert_eq!(records.len() as u64, requests.issued, "it has no record");
    let log = world.daemon.log();
    let told = log.matches("a caller is over a limit").count();
    assert_eq!(told, 1, "{log}");
    if !skip_unless_root("the part with another user") {
        let other = world
            .get_as(&BOB, &format!("http://localhost{HEALTH}"))
            .await;
        assert_eq!(other.status, 200);
    }
}

/// curl in a unit, with several requests on one connection; prints their statuses.
fn curl_in(world: &World, before: &[String], user: &User, requests: usize) -> Command {
    let mut words = before.iter().cloned().chain(user.run(&["curl"]));
    let mut command = Command::new(words.next().unwrap());
    command.args(words);
    command.args(["--silent", "--max-time", "20", "--unix-socket"]);
    command.arg(world.token_socket());
    for _ in 0..requests {
        command.args(["--output", "/dev/null", "--write-out", "%{http_code} "]);
        command.arg(format!("http://localhost{HEALTH}"));
    }
    command.kill_on_drop(true);
    command
}

async fn statuses(mut curl: Command) -> String {
    let output = curl.output().await.unwrap();
    String::from_utf8(output.stdout)
        .unwrap()
        .trim_end()
        .to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_users_of_one_unit_share_its_limits_and_another_unit_has_its_own() {
    let name = "the_users_of_one_unit_share_its_limits_and_another_unit_has_its_own";
    if skip_unless_root(name) {
        return;
    }
    let ground = Ground::imitated();
    let (web, batch) = (ground.unit("web.service"), ground.unit("batch.service"));
    let [in_web, in_batch] =
        [&web, &batch].map(|unit| ground.enter(&format!("/system.slice/{unit}"), false));
    let world = World::with(Setup {
        config: vec![
            ("callers", ground.config()),
            (
                "limits",
                "connections-per-unit = 2\nrequests-per-second-per-unit = 1".to_owned(),
            ),
        ],
        ..Setup::default()
    })
    .await;
    let held = Flood::hold(&world, &in_web, &ALICE, 2).await;
    let over = statuses(curl_in(&world, &in_web, &BOB, 1)).await;
    assert_eq!(over, "429");
    drop(held);
    eventually("there is room again", || async {
        statuses(curl_in(&world, &in_web, &BOB, 1)).await == "200"
    })
    .await;
    let many = statuses(curl_in(&world, &in_web, &BOB, 30)).await;
    assert!(many.contains("429"), "{many}");
    let other = statuses(curl_in(&world, &in_batch, &BOB, 1)).await;
    assert_eq!(other, "200");
    let status = world.status().await;
    assert!(status.connections.refused >= 1 && status.requests.throttled >= 1);
    let log = world.daemon.log();
    for key in ["connections-per-unit", "requests-per-second-per-unit"] {
        let line = log.lines().find(|line| line.contains(key)).unwrap();
        assert!(line.contains(&web), "{line}");
    }
}
