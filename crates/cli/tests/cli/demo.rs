//! What `arcbroker demo` does when its services are missing, fail, or lose their parent.
//!
//! The demo with the real services is a test of the whole workspace.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use crate::support::Ran;

/// Says that it is ready, and stays.
const SIMULATOR: &str = "echo $$ >&2; echo http://127.0.0.1:1; exec sleep 600";

/// A directory with the demo's program, services made of shell lines, and room for its files.
struct Install(TempDir);

impl Install {
    /// In the build directory, which allows a hard link: a program that is found beside itself.
    fn new(services: &[(&str, &str)]) -> Self {
        let install = Self(tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap());
        fs::hard_link(env!("CARGO_BIN_EXE_arcbroker"), install.path("arcbroker")).unwrap();
        fs::create_dir(install.path("tmp")).unwrap();
        for (name, script) in services {
            // Written by another process: a file that is open for writing here could not be
            // executed while another test forks.
            let written = Command::new("sh")
                .arg("-c")
                .arg(r#"printf '#!/bin/sh\n%s\n' "$1" > "$2" && chmod 700 "$2""#)
                .args(["sh", script])
                .arg(install.path(name))
                .status();
            assert!(written.unwrap().success());
        }
        install
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn demo(&self) -> Command {
        let mut command = Command::new(self.path("arcbroker"));
        command.arg("demo").env("TMPDIR", self.path("tmp"));
        command
    }

    /// A demo whose broker runs and never answers, once it has come that far.
    fn stuck(&self) -> (Child, i32) {
        let mut demo = self.demo().stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(demo.stdout.take().unwrap()).lines();
        assert_eq!(lines.map_while(Result::ok).take(3).count(), 3);
        let log = fs::read_dir(self.path("tmp"))
            .unwrap()
            .next()
            .unwrap()
            .unwrap();
        let pid = fs::read_to_string(log.path().join("himds-sim.log")).unwrap();
        (demo, pid.trim().parse().unwrap())
    }

    fn is_clean(&self) -> bool {
        fs::read_dir(self.path("tmp")).unwrap().next().is_none()
    }
}

/// Killed processes go at once, but not before the kernel got to it.
fn await_end(pid: i32) {
    let alive =
        || fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
    for _ in 0..3000 {
        if !alive() {
            return;
        }
        pause();
    }
    panic!("process {pid} is still there");
}

#[expect(clippy::disallowed_methods, reason = "there is no runtime to block")]
fn pause() {
    std::thread::sleep(Duration::from_millis(10));
}

#[test]
fn services_that_were_not_built_are_named() {
    let install = Install::new(&[]);
    let ran = Ran::from(install.demo().arg("--once").output().unwrap());
    assert_eq!(ran.code, 1);
    let missing = install.path("himds-sim");
    assert_eq!(
        ran.stderr,
        format!(
            "arcbroker: there is no {} beside this program\n  build all programs with: cargo build --workspace\n",
            missing.display()
        )
    );
    assert!(install.is_clean());
}

#[test]
fn a_broker_that_fails_is_quoted() {
    let broker = r"printf 'broker.toml:1:1: \033[2Junknown key\n' >&2; exit 78";
    let install = Install::new(&[("himds-sim", SIMULATOR), ("arcbrokerd", broker)]);
    let ran = Ran::from(install.demo().arg("--once").output().unwrap());
    assert_eq!(ran.code, 1);
    assert_eq!(
        ran.stderr,
        "arcbroker: arcbrokerd ended by itself: exit status: 78\n  it said:\n  broker.toml:1:1: [2Junknown key\n"
    );
    assert!(install.is_clean());
}

#[test]
fn a_simulator_that_fails_is_quoted() {
    let install = Install::new(&[
        ("himds-sim", "echo no port >&2; exit 1"),
        ("arcbrokerd", "exit 1"),
    ]);
    let ran = Ran::from(install.demo().arg("--once").output().unwrap());
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr.contains("himds-sim ended by itself"),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("\n  no port\n"), "{}", ran.stderr);
    assert!(install.is_clean());
}

#[test]
fn a_signal_stops_the_services_and_removes_the_directory() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let install = Install::new(&[("himds-sim", SIMULATOR), ("arcbrokerd", "exec sleep 600")]);
        let (mut demo, simulator) = install.stuck();
        kill(Pid::from_raw(demo.id().cast_signed()), signal).unwrap();
        assert_eq!(demo.wait().unwrap().code(), Some(0), "{signal}");
        assert!(
            !Path::new(&format!("/proc/{simulator}")).exists(),
            "{signal}"
        );
        assert!(install.is_clean(), "{signal}");
    }
}

#[test]
fn services_do_not_outlive_a_demo_that_is_killed() {
    let install = Install::new(&[("himds-sim", SIMULATOR), ("arcbrokerd", "exec sleep 600")]);
    let (mut demo, simulator) = install.stuck();
    demo.kill().unwrap();
    demo.wait().unwrap();
    await_end(simulator);
}
