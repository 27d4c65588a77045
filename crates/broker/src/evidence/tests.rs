use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::ability::Options;
use crate::clock::Now;
use crate::tree::Tree;

const BACKUP: &str = "/system.slice/backup.service";
const CONTAINER: &str = "4f797c539e6c745de61a93ca3ff892358ecbcaccd8414d5db545c38428142970";
const INVOCATION: &str = "6fb5aa5be6ea4a1fa1a9a5e6a5f0f9f1";

/// A process of ours, and files that say of it what a test wants.
pub(crate) struct Stage {
    dir: tempfile::TempDir,
    child: Child,
    seconds: Arc<AtomicU64>,
}

impl Stage {
    pub(crate) fn new() -> Self {
        let mut cat = Command::new("cat");
        let child = cat.stdin(Stdio::piped()).spawn().unwrap();
        let seconds = Arc::default();
        let dir = tempfile::tempdir().unwrap();
        let stage = Self {
            dir,
            child,
            seconds,
        };
        stage.put("proc/1/cgroup", "0::/init.scope\n");
        stage
    }

    pub(crate) fn put(&self, name: &str, text: &str) {
        let path = self.dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.dir.path().join(name)).unwrap();
    }

    /// The process is in this control group, and has these numbers.
    pub(crate) fn is(&self, group: &str, numbers: &str) {
        let pid = self.child.id();
        let text = format!("3:memory:/\n1:name=systemd:{group}\n0::{group}\n");
        self.put(&format!("proc/{pid}/cgroup"), &text);
        let text = format!("Name:\tcat\nUid:\t5\t7\t7\t7\n{numbers}\n");
        self.put(&format!("proc/{pid}/status"), &text);
    }

    pub(crate) fn observer(&self, pinning: Pinning) -> Observer {
        let at = |name: &str| self.dir.path().join(name);
        let ability = Ability {
            options: Options {
                proc: at("proc"),
                cgroup: at("cgroup"),
                units: at("units"),
            },
            pinning,
            sight: Sight::Full,
            tree: Some(Tree::Hybrid),
            overflow: None,
        };
        let seconds = Arc::clone(&self.seconds);
        let clock = Clock::from_fn(move || Now {
            wall: Duration::ZERO,
            boot: Duration::from_secs(seconds.load(Ordering::Relaxed)),
        });
        Observer::new(ability, clock)
    }

    pub(crate) fn wait(&self, seconds: u64) {
        self.seconds.fetch_add(seconds, Ordering::Relaxed);
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    pub(crate) fn end(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The process as if it had connected as user 7, held on to in this way.
    pub(crate) fn met(&self, observer: &Observer, pinning: Pinning) -> Process {
        let pinned = Pinned::process(self.child.id(), pinning);
        observer.process(pinned, self.pid(), 7).unwrap()
    }

    /// What is seen of it at first sight.
    fn seen_with(&self, observer: &Observer, pinning: Pinning) -> Sighting {
        if pinning == Pinning::None {
            return observer.unpinned(self.pid(), 7).unwrap();
        }
        Sighting::clone(&self.met(observer, pinning).latest().sighting)
    }

    fn seen(&self) -> Sighting {
        let pinning = Pinning::BySocket;
        self.seen_with(&self.observer(pinning), pinning)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.child.kill().unwrap_or_default();
        self.child.wait().unwrap();
    }
}

fn with(mut observer: Observer, change: impl FnOnce(&mut Ability)) -> Observer {
    change(Arc::make_mut(&mut observer.ability));
    observer
}

fn unit(sighting: &Sighting) -> Option<&str> {
    sighting.unit.as_ref().map(Unit::as_str)
}

const NOTHING: Sighting = Sighting {
    unit: None,
    invocation: None,
    container: None,
};

#[test]
fn the_unit_its_run_and_the_container_are_read() {
    let stage = Stage::new();
    fs::create_dir(stage.dir.path().join("units")).unwrap();
    let link = stage.dir.path().join("units/invocation:backup.service");
    symlink(INVOCATION, &link).unwrap();
    stage.is(BACKUP, "NSpid:\t4711");
    for pinning in [
        Pinning::ByNumber,
        Pinning::BySocket,
        Pinning::WithControlGroup,
    ] {
        let seen = stage.seen_with(&stage.observer(pinning), pinning);
        assert_eq!(unit(&seen), Some("backup.service"), "{pinning}");
        assert_eq!(seen.invocation.as_deref(), Some(INVOCATION));
        assert_eq!(seen.container, Some(false));
    }
    fs::remove_file(&link).unwrap();
    symlink("../../etc/passwd", &link).unwrap();
    assert_eq!(stage.seen().invocation, None);
}

#[test]
fn t5_a_container_is_told_by_its_numbers_or_by_its_control_group() {
    let stage = Stage::new();
    let docker = format!("/system.slice/docker-{CONTAINER}.scope");
    let quadlet = format!("{BACKUP}/libpod-payload-{CONTAINER}");
    for (group, numbers, container, named) in [
        (BACKUP, "NSpid:\t4711", Some(false), true),
        (BACKUP, "NSpid:\t4711\t1", Some(true), true),
        (BACKUP, "NSpid:\t4711\t30\t1", Some(true), true),
        (&docker, "NSpid:\t4711", Some(true), false),
        (&docker, "NSpid:\t4711\t1", Some(true), false),
        (&quadlet, "NSpid:\t4711", Some(true), true),
        ("/", "NSpid:\t4711", Some(false), false),
        ("/", "", Some(false), false),
        ("/", "NSpid:\t0", None, false),
        ("/", "NSpid:\t-1", None, false),
        ("/", "NSpid:\t", None, false),
        ("/../../other", "NSpid:\t4711", None, false),
        ("/../../other", "NSpid:\t4711\t1", Some(true), false),
    ] {
        stage.is(group, numbers);
        let seen = stage.seen();
        assert_eq!(seen.container, container, "{group} {numbers}");
        assert_eq!(unit(&seen).is_some(), named, "{group} {numbers}");
    }
}

#[test]
fn what_cannot_be_read_is_not_known() {
    let stage = Stage::new();
    let pid = stage.child.id();
    assert_eq!(stage.seen(), NOTHING, "there are no files about it");
    stage.is(BACKUP, "NSpid:\t4711");
    stage.remove(&format!("proc/{pid}/cgroup"));
    assert_eq!(stage.seen(), NOTHING, "it could be in a container");
    let hidden = |ability: &mut Ability| ability.sight = Sight::Hidden;
    let hidden = with(stage.observer(Pinning::BySocket), hidden);
    let seen = stage.seen_with(&hidden, Pinning::BySocket);
    assert_eq!((unit(&seen), seen.container), (None, Some(false)));
    stage.is(BACKUP, "NSpid:\t4711");
    stage.remove(&format!("proc/{pid}/status"));
    assert_eq!(stage.seen().container, None);
    let path = stage.dir.path().join(format!("proc/{pid}/cgroup"));
    fs::write(path, b"0::/\xff\xfe\n").unwrap();
    assert_eq!(stage.seen(), NOTHING);
}

#[test]
fn the_proc_of_others_and_processes_outside_our_namespace_tell_nothing() {
    let stage = Stage::new();
    stage.is(BACKUP, "NSpid:\t4711");
    let foreign = |ability: &mut Ability| ability.sight = Sight::Foreign;
    let foreign = with(stage.observer(Pinning::BySocket), foreign);
    assert_eq!(stage.seen_with(&foreign, Pinning::BySocket), NOTHING);
    let observer = stage.observer(Pinning::BySocket);
    // The kernel can hold on to processes, and could not hold on to this one.
    assert_eq!(observer.unpinned(stage.pid(), 7), Ok(NOTHING));
    let old = stage.observer(Pinning::None);
    assert_ne!(old.unpinned(stage.pid(), 7), Ok(NOTHING));
}

#[test]
fn a_unit_is_not_known_without_a_tree_or_where_the_kernel_says_another_group() {
    let stage = Stage::new();
    stage.is(BACKUP, "NSpid:\t4711");
    let none = with(stage.observer(Pinning::BySocket), |ability| {
        ability.tree = None;
    });
    assert_eq!(unit(&stage.seen_with(&none, Pinning::BySocket)), None);
    fs::create_dir_all(stage.dir.path().join("cgroup").join(&BACKUP[1..])).unwrap();
    let unified = |ability: &mut Ability| ability.tree = Some(Tree::Unified);
    for (pinning, expected) in [
        (Pinning::BySocket, Some("backup.service")),
        (Pinning::WithControlGroup, None),
    ] {
        if pinning > Pinning::probe() {
            continue;
        }
        let observer = with(stage.observer(pinning), unified);
        let seen = stage.seen_with(&observer, pinning);
        assert_eq!(
            (unit(&seen), seen.container),
            (expected, Some(false)),
            "{pinning}"
        );
    }
}

#[test]
fn t18_an_ended_process_tells_nothing_whatever_has_its_number_now() {
    let mut stage = Stage::new();
    stage.is(BACKUP, "NSpid:\t4711");
    let observer = stage.observer(Pinning::BySocket);
    let process = stage.met(&observer, Pinning::BySocket);
    assert!(observer.see(&process).is_some());
    let pinned = Pinned::process(stage.child.id(), Pinning::BySocket);
    stage.end();
    assert_eq!(observer.see(&process), None);
    let late = observer.process(pinned, stage.pid(), 7).unwrap();
    assert_eq!(*late.latest().sighting, NOTHING);
}

#[test]
fn a_process_that_is_found_by_its_number_must_be_of_the_user_who_connected() {
    let stage = Stage::new();
    stage.is(BACKUP, "NSpid:\t4711");
    let old = stage.observer(Pinning::None);
    let newer = stage.observer(Pinning::ByNumber);
    let pinned = || Pinned::process(stage.child.id(), Pinning::ByNumber);
    for (uid, expected) in [(7, Some(false)), (5, None), (0, None)] {
        // 5 is its real user, not the effective one.
        let seen = old.unpinned(stage.pid(), uid).unwrap();
        assert_eq!((unit(&seen), seen.container), (None, expected), "{uid}");
        let process = newer.process(pinned(), stage.pid(), uid).unwrap();
        let seen = Sighting::clone(&process.latest().sighting);
        assert_eq!(seen.container, expected, "{uid}");
        assert_eq!(unit(&seen).is_some(), uid == 7);
    }
}

#[test]
fn a_sighting_holds_for_a_second() {
    let stage = Stage::new();
    stage.is(BACKUP, "NSpid:\t4711");
    let observer = stage.observer(Pinning::BySocket);
    let process = stage.met(&observer, Pinning::BySocket);
    let seen = || observer.see(&process).unwrap();
    let first = seen();
    stage.is("/system.slice/web.service", "NSpid:\t4711");
    assert!(Arc::ptr_eq(&first, &seen()));
    stage.wait(1);
    assert_eq!(unit(&seen()), Some("web.service"));
    let second = seen();
    stage.wait(1);
    assert!(Arc::ptr_eq(&second, &seen()), "nothing has changed");
    stage.remove(&format!("proc/{}/cgroup", stage.pid()));
    stage.wait(1);
    assert_eq!(*seen(), NOTHING, "it lives, and is not known any more");
}

#[tokio::test]
async fn connections_of_a_process_share_it_and_each_listener_has_its_own() {
    let pinning = Pinning::probe();
    if pinning < Pinning::BySocket {
        return;
    }
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let mut options = Stage::new().observer(pinning).ability().options.clone();
    options.proc = "/proc".into();
    let observer = Observer::new(Ability::probe(options), Clock::system());
    let me = Some(std::process::id().cast_signed());
    let (first, again) = (
        observer.meet(&ours, me, 7).unwrap().0.unwrap(),
        observer.meet(&ours, me, 7).unwrap().0.unwrap(),
    );
    assert!(Arc::ptr_eq(&first, &again));
    let other = observer
        .remembering(REMEMBERED)
        .meet(&ours, me, 7)
        .unwrap()
        .0
        .unwrap();
    assert!(!Arc::ptr_eq(&first, &other));
    assert!(observer.meet(&ours, None, 7).unwrap().0.is_none());
    let by_number = |ability: &mut Ability| ability.pinning = Pinning::ByNumber;
    let uncertain = with(observer.remembering(REMEMBERED), by_number);
    let (first, again) = (
        uncertain.meet(&ours, me, 7).unwrap().0.unwrap(),
        uncertain.meet(&ours, me, 7).unwrap().0.unwrap(),
    );
    assert!(
        !Arc::ptr_eq(&first, &again),
        "the next one may be of another user"
    );
}

#[tokio::test]
async fn t18_a_number_that_was_met_is_met_anew_once_its_process_has_ended() {
    let pinning = Pinning::probe();
    if pinning < Pinning::BySocket {
        return;
    }
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let mut stage = Stage::new();
    let observer = stage.observer(pinning);
    // Another process had our number, and connected with it.
    let me = std::process::id().cast_signed();
    let former = Arc::new(stage.met(&observer, pinning));
    observer.processes.insert(me, Arc::clone(&former));
    let met = observer.meet(&ours, Some(me), 7).unwrap().0.unwrap();
    assert!(
        Arc::ptr_eq(&met, &former),
        "as long as it lives, it has the number"
    );
    stage.end();
    let met = observer.meet(&ours, Some(me), 7).unwrap().0.unwrap();
    assert!(!Arc::ptr_eq(&met, &former));
    assert_eq!(met.pid, me);
}

#[test]
fn the_files_of_this_kernel_are_understood() {
    let mut options = Options {
        proc: Path::new("/proc").to_owned(),
        cgroup: Path::new("/sys/fs/cgroup").to_owned(),
        units: Path::new("/run/systemd/units").to_owned(),
    };
    let look = |options: &Options| {
        let ability = Ability::probe(options.clone());
        let pinning = ability.pinning;
        let observer = Observer::new(ability, Clock::system());
        let me = std::process::id();
        let uid = nix::unistd::geteuid().as_raw();
        if pinning == Pinning::None {
            return observer.unpinned(me.cast_signed(), uid).unwrap();
        }
        let pinned = Pinned::process(me, pinning);
        let process = observer.process(pinned, me.cast_signed(), uid).unwrap();
        Sighting::clone(&process.latest().sighting)
    };
    let seen = look(&options);
    assert!(seen.container.is_some(), "{seen:?}");
    options.proc = options.proc.join("no-such");
    assert_eq!(look(&options), NOTHING);
}
