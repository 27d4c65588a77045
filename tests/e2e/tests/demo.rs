//! `arcbroker demo`, as somebody without an Arc server sees it first.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use arcbroker_e2e::{User, binary, eventually, skip_unless_root};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

const ANYBODY: User = User {
    uid: 64_120,
    gid: 64_120,
    groups: &[],
};
/// The simulator makes an RSA key first, which takes its time in an unoptimised build.
const PATIENCE: Duration = Duration::from_mins(2);

/// A place for the demo's own directory, which nothing else is in.
fn place(user: &User) -> TempDir {
    let dir = tempfile::Builder::new().prefix("arcbd").tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    if user.uid != User::current().uid {
        chown(dir.path(), Some(user.uid), Some(user.gid)).unwrap();
    }
    dir
}

/// The demo in a directory of its own, as the user who runs the tests or as another.
fn demo(user: Option<&User>, dir: &Path, programs: &Path) -> Command {
    let mut words: Vec<String> = Vec::new();
    if let Some(user) = user {
        words.push("setpriv".to_owned());
        words.extend(user.setpriv());
    }
    words.push(programs.join("arcbroker").display().to_string());
    words.push("demo".to_owned());
    let mut command = Command::new(&words[0]);
    command
        .args(&words[1..])
        .env("TMPDIR", dir)
        .env_remove("JOURNAL_STREAM")
        .env_remove("NOTIFY_SOCKET");
    command
        .current_dir("/")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// Copies of the programs where every user may run them, side by side.
fn programs() -> TempDir {
    let dir = tempfile::Builder::new().prefix("arcbp").tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // Not by this process: a child that another test starts at this moment would hold the file open for
    // writing until its `exec`, and what is open for writing does not run.
    let copied = std::process::Command::new("install")
        .args(["arcbroker", "arcbrokerd", "himds-sim"].map(binary))
        .arg(dir.path())
        .status();
    assert!(copied.unwrap().success(), "install(1)");
    dir
}

/// Programs that were started from this directory, or talk of it.
fn left_behind(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let words = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).replace('\0', " ");
        if words.contains(dir.to_str().unwrap()) {
            found.push(words);
        }
    }
    found
}

/// Three parts with dots between them, the first of which is that of every JWT.
fn has_a_whole_token(text: &str) -> bool {
    text.split(|c: char| c.is_whitespace() || c == '"')
        .any(|word| word.contains("eyJ") && word.matches('.').count() >= 2)
}

fn assert_told(output: &Output) {
    let told = String::from_utf8(output.stdout.clone()).unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(output.stderr, b"", "{output:?}");
    for part in [
        "https://vault.azure.net",
        "no rule allows",
        "healthy",
        "\"outcome\":\"issued\"",
        "\"outcome\":\"denied\"",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert!(!has_a_whole_token(&told), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_runs_once_for_the_current_user_and_leaves_nothing_behind() {
    let (dir, programs) = (place(&User::current()), programs());
    let output = timeout(
        PATIENCE,
        demo(None, dir.path(), programs.path())
            .arg("--once")
            .output(),
    );
    assert_told(&output.await.expect("the demo ends").unwrap());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    assert_eq!(left_behind(programs.path()), [] as [String; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_runs_once_for_a_user_without_an_account() {
    if skip_unless_root("the_demo_runs_once_for_a_user_without_an_account") {
        return;
    }
    let (dir, programs) = (place(&ANYBODY), programs());
    let output = timeout(
        PATIENCE,
        demo(Some(&ANYBODY), dir.path(), programs.path())
            .arg("--once")
            .output(),
    );
    let output = output.await.expect("the demo ends").unwrap();
    assert_told(&output);
    assert!(
        String::from_utf8(output.stdout)
            .unwrap()
            .contains("no rule allows uid 64120")
    );
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    assert_eq!(left_behind(programs.path()), [] as [String; 0]);
}

/// A demo that goes on, and what it has told up to its last line.
async fn go_on(dir: &Path, programs: &Path) -> (Child, Vec<String>) {
    let mut demo = demo(None, dir, programs)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    let mut told = Vec::new();
    let tell = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            told.push(line);
            if told.last().unwrap().contains("--admin-socket") {
                break;
            }
        }
    };
    timeout(PATIENCE, tell)
        .await
        .expect("the demo tells what to try");
    (demo, told)
}

fn send(demo: &Child, signal: Signal) {
    kill(Pid::from_raw(demo.id().unwrap().cast_signed()), signal).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_line_that_the_demo_suggests_works_and_ctrl_c_ends_it() {
    let (dir, programs) = (place(&User::current()), programs());
    let (mut demo, told) = go_on(dir.path(), programs.path()).await;
    assert!(!has_a_whole_token(&told.join("\n")));
    let try_out = async |start: &str, part: &str| {
        let line = told
            .iter()
            .find(|line| line.starts_with(start) && line.contains(part));
        let line = line.unwrap_or_else(|| panic!("no line with {start} and {part}: {told:#?}"));
        let output = Command::new("sh")
            .arg("-c")
            .arg(line)
            .output()
            .await
            .unwrap();
        assert_eq!(output.status.code(), Some(0), "{line}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let arcbroker = programs.path().join("arcbroker").display().to_string();
    let answer: serde_json::Value = serde_json::from_str(&try_out("curl ", "").await).unwrap();
    assert_eq!(answer["resource"], "https://vault.azure.net");
    assert_eq!(
        try_out(&arcbroker, " token keyvault").await.trim_end(),
        answer["access_token"]
    );
    assert!(
        try_out(&arcbroker, " whoami")
            .await
            .contains("https://vault.azure.net")
    );
    assert!(try_out(&arcbroker, " status").await.contains("healthy"));

    send(&demo, Signal::SIGINT);
    let status = timeout(PATIENCE, demo.wait())
        .await
        .expect("the demo ends")
        .unwrap();
    assert_eq!(status.code(), Some(0));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    assert_eq!(left_behind(programs.path()), [] as [String; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demo_that_is_killed_takes_its_programs_with_it() {
    let (dir, programs) = (place(&User::current()), programs());
    let (mut demo, _) = go_on(dir.path(), programs.path()).await;
    assert_eq!(
        left_behind(programs.path()).len(),
        3,
        "the demo, the simulator and the broker"
    );
    send(&demo, Signal::SIGKILL);
    demo.wait().await.unwrap();
    eventually("all of them are gone", || async {
        left_behind(programs.path()).is_empty()
    })
    .await;
}
