use nix::unistd::{getegid, geteuid};

use super::*;
use crate::evidence::tests::Stage;
use crate::pinned::Pinning;

#[tokio::test]
async fn the_kernel_says_who_connected() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let peer = Peer::of(&ours).unwrap();
    assert_eq!(peer.caller.uid, geteuid().as_raw());
    assert_eq!(peer.caller.gid, getegid().as_raw());
    assert!(peer.caller.groups.contains(&getegid().as_raw()));
    assert_eq!(peer.pid, Some(std::process::id().cast_signed()));
    assert_eq!((peer.caller.unit, peer.caller.container), (None, None));
}

fn watched(stage: &Stage) -> Watched {
    let observer = stage.observer(Pinning::BySocket);
    let process = Arc::new(stage.met(&observer, Pinning::BySocket));
    let sighting = observer.see(&process).unwrap();
    let peer = Peer {
        caller: Caller::new(7, 7, vec![7]),
        user: None,
        pid: Some(stage.pid()),
        invocation: None,
        endpoint: None,
    };
    Watched {
        observer,
        process: Some(process),
        uid: 7,
        latest: Mutex::new(Latest {
            peer: Arc::new(peer.seen(&sighting)),
            sighting,
        }),
    }
}

fn unit(peer: &Peer) -> Option<&str> {
    peer.caller
        .unit
        .as_ref()
        .map(arcbroker_policy::Unit::as_str)
}

#[test]
fn the_unit_is_looked_at_again_and_the_name_stays() {
    let stage = Stage::new();
    stage.is("/system.slice/backup.service", "NSpid:\t1");
    let mut watched = watched(&stage);
    watched.name(Some("backup".into()));
    stage.is("/system.slice/web.service", "NSpid:\t1");
    assert_eq!(unit(&watched.now()), Some("backup.service"));
    stage.wait(1);
    assert_eq!(unit(&watched.now()), Some("web.service"));
    stage.is("/user.slice/web.service", "NSpid:\t1");
    stage.wait(1);
    let peer = watched.now();
    assert_eq!((unit(&peer), peer.user.as_deref()), (None, Some("backup")));
    assert_eq!(peer.caller.container, Some(false));
}

#[test]
fn t18_once_the_process_has_ended_its_unit_is_gone_and_its_numbers_stay() {
    let mut stage = Stage::new();
    stage.is("/system.slice/backup.service", "NSpid:\t1");
    let watched = watched(&stage);
    assert_eq!(unit(&watched.now()), Some("backup.service"));
    stage.end();
    for _ in 0..2 {
        let peer = watched.now();
        assert_eq!((unit(&peer), peer.caller.uid), (None, 7));
        assert_eq!(
            peer.caller.container,
            Some(false),
            "that was seen while it lived"
        );
        stage.wait(10);
    }
}

#[tokio::test]
async fn somebody_without_a_number_here_is_not_known() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let mut ability = crate::ability::Ability::probe(crate::ability::Options {
        proc: "/proc".into(),
        cgroup: "/sys/fs/cgroup".into(),
        units: "/run/systemd/units".into(),
    });
    let me = Peer::of(&ours).unwrap();
    for (overflow, known) in [
        (None, true),
        (Some(me.caller.uid), false),
        (Some(me.caller.gid), false),
        (Some(4_000_000_000), true),
    ] {
        ability.overflow = overflow;
        let observer = Observer::new(ability.clone(), crate::clock::Clock::system());
        let peer = Watched::new(&ours, me.clone(), &observer).unwrap().now();
        assert_eq!(peer.caller.container.is_some(), known, "{overflow:?}");
        assert!(
            !peer
                .caller
                .groups
                .iter()
                .any(|group| Some(*group) == overflow)
        );
    }
}
