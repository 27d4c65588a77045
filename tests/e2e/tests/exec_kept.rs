//! Endpoints that outlive the daemon, in the hands of whoever starts it again.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use arcbroker_e2e::{Program, World, eventually};
use nix::sys::signal::{Signal, kill};

/// Names under which parts of endpoints are held.
fn held(world: &World) -> Vec<String> {
    world.names_held("e.")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_serves_again_after_the_daemon_was_killed() {
    let world = World::held().await;
    let mut program = Program::start(&world, &[], &[]).await;
    assert_eq!(program.fetch().await.status, 200);
    eventually("a listener, a process and a note are held", || async {
        held(&world).len() == 3
    })
    .await;
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        world.replace_daemon(signal).await;
        let (address, secret) = (program.address, program.secret.clone());
        let again = program
            .run("echo $IDENTITY_ENDPOINT $IDENTITY_HEADER")
            .await;
        assert_eq!(again.trim(), format!("http://{address}/msi/token {secret}"));
        let answer = program.fetch().await;
        assert_eq!(answer.status, 200, "{signal}: {answer:?}");
        assert_eq!(program.get("/msi/token", &[]).await.status, 401);
        let record = world
            .audit()
            .into_iter()
            .rev()
            .find(|record| record["outcome"] == "issued");
        assert_eq!(record.unwrap()["pid"], program.pid());
        assert_eq!(world.status().await.connections.endpoints, 1);
    }
    program.end().await;
    eventually("nothing is held for a program that has ended", || async {
        held(&world).is_empty()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_waits_while_there_is_no_daemon_is_served_by_the_next() {
    let world = World::held().await;
    let mut program = Program::start(&world, &[], &[]).await;
    let daemon = world.daemon_pid().await;
    kill(daemon, Signal::SIGSTOP).unwrap();
    let (asked, ()) = tokio::join!(program.fetch(), async {
        // Whatever was accepted by the first daemon is lost with it; this was not.
        kill(daemon, Signal::SIGKILL).unwrap();
    });
    assert_eq!(asked.status, 200, "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_for_a_program_that_ended_meanwhile_is_let_go() {
    let world = World::held().await;
    let staying = Program::start(&world, &[], &[]).await;
    let leaving = Program::start(&world, &[], &[]).await;
    let daemon = world.daemon_pid().await;
    kill(daemon, Signal::SIGSTOP).unwrap();
    eventually("both are held", || async { held(&world).len() == 6 }).await;
    leaving.end().await;
    kill(daemon, Signal::SIGKILL).unwrap();
    eventually("only one is held", || async { held(&world).len() == 3 }).await;
    assert_eq!(staying.ask().await.status, 200);
    assert!(
        world.daemon.log().contains("its program has ended"),
        "{}",
        world.daemon.log()
    );
}
