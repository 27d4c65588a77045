//! A file that does not answer: the writing end of a pipe that is full stands in for it.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixDatagram;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::pipe;
use tokio::time::{Instant, sleep, timeout};

use super::journal::assert_whole;
use super::*;

const LONG: Duration = Duration::from_secs(30);

/// A pipe without room, and how much is in it.
fn full_pipe() -> (fs::File, OwnedFd, usize) {
    let (reader, writer) = pipe().unwrap();
    let set = |flags| fcntl(writer.as_fd(), FcntlArg::F_SETFL(flags)).unwrap();
    set(OFlag::O_NONBLOCK);
    let mut file = fs::File::from(writer.try_clone().unwrap());
    let mut length = 0;
    let error = loop {
        match file.write(&[b'x'; 4096]) {
            Ok(written) => length += written,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    set(OFlag::empty());
    (file, reader, length)
}

/// What comes out of the pipe after the filling, up to so many lines.
fn drain(reader: OwnedFd, filling: usize, count: usize) -> Vec<String> {
    let mut reader = fs::File::from(reader);
    reader.read_exact(&mut vec![0; filling]).unwrap();
    let (mut text, mut byte) = (String::new(), [0]);
    while text.matches('\n').count() < count {
        reader.read_exact(&mut byte).unwrap();
        text.push(byte[0].into());
    }
    text.lines().map(str::to_owned).collect()
}

async fn ask(log: &AuditLog, resource: &str) -> Result<(), AuditError> {
    let caller = caller();
    let record = record(log, &caller, resource);
    timeout(LONG, log.record(&record))
        .await
        .expect("nobody waits for ever")
}

async fn until_it_answers(log: &AuditLog) {
    let answers = async {
        while log.sinks().0.unwrap().is_stuck || log.sinks().0.unwrap().waiting > 0 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, answers)
        .await
        .expect("the file is there again");
}

fn open(dir: &Path, journal: bool) -> AuditLog {
    let options = Options {
        journal: journal.then(|| dir.join("journal")),
        ..options(dir)
    };
    let log = AuditLog::open(&options, Clock::system()).unwrap();
    log.start().unwrap();
    log
}

#[tokio::test]
async fn t28_a_file_that_does_not_answer_holds_up_nobody_and_misses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let journal = UnixDatagram::bind(dir.path().join("journal")).unwrap();
    journal.set_nonblocking(true).unwrap();
    let log = open(dir.path(), true);
    let (file, reader, filling) = full_pipe();
    replace_file(&log, file);
    for _ in 0..3 {
        ask(&log, "https://x").await.unwrap();
    }
    let state = log.sinks().0.unwrap();
    assert!(state.is_stuck);
    assert_eq!((state.waiting, log.state().0), (2, 3), "{state:?}");
    assert!(log.state().1.is_none());

    // The first record is in the pipe, the others in the file that is opened anew.
    let mut written = drain(reader, filling, 1);
    until_it_answers(&log).await;
    ask(&log, "https://y").await.unwrap();
    drop(log);
    written.extend(lines(&dir.path().join("audit")));
    assert_eq!(written.len(), 4);
    assert_whole(&written);
    let heard = std::iter::from_fn(|| journal.recv(&mut [0; 4096]).ok()).count();
    assert_eq!(heard, 4);
}

#[tokio::test]
async fn t28_without_a_journal_a_file_that_does_not_answer_takes_decisions_back_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), false);
    let (file, reader, filling) = full_pipe();
    replace_file(&log, file);
    let error = ask(&log, "https://x").await.unwrap_err();
    assert!(error.to_string().ends_with("does not answer"), "{error}");
    let began = Instant::now();
    for _ in 0..20 {
        ask(&log, "https://x").await.unwrap_err();
    }
    assert!(
        began.elapsed() < Duration::from_secs(20),
        "it is known by now: each would have waited for 2 s"
    );
    assert_eq!(log.state().0, 0);
    assert!(log.state().1.is_some());

    // What the file was asked to take has its place, and what it was not asked has none.
    let mut written = drain(reader, filling, 1);
    until_it_answers(&log).await;
    ask(&log, "https://y").await.unwrap();
    assert!(log.state().1.is_none());
    written.extend(lines(&dir.path().join("audit")));
    assert_eq!(written.len(), 2);
    assert_whole(&written);
}

#[tokio::test]
async fn whoever_goes_away_takes_nobodys_verdict_along() {
    let dir = tempfile::tempdir().unwrap();
    let log = Arc::new(open(dir.path(), false));
    let tasks: Vec<_> = (0..200)
        .map(|number| {
            let log = Arc::clone(&log);
            tokio::spawn(async move {
                if number % 3 == 0 {
                    let caller = caller();
                    let record = record(&log, &caller, "https://gone");
                    timeout(Duration::ZERO, log.record(&record))
                        .await
                        .unwrap_or(Ok(()))
                } else {
                    ask(&log, "https://x").await
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    timeout(LONG, async {
        while log.state().0 < 200 {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("all of them are recorded");
    drop(log);
    let written = lines(&dir.path().join("audit"));
    assert_eq!(written.len(), 200);
    assert_whole(&written);
}

#[tokio::test]
async fn a_sweep_wakes_nobody_while_all_is_well_and_the_next_record_goes_to_the_new_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit");
    let log = open(dir.path(), false);
    ask(&log, "https://1").await.unwrap();
    let scribe = log.scribe.as_ref().unwrap();
    timeout(LONG, async {
        while !scribe.is_idle() {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("it has nothing to do");
    fs::rename(&path, dir.path().join("audit.1")).unwrap();
    log.sweep();
    assert!(scribe.is_idle());
    ask(&log, "https://2").await.unwrap();
    let values = lines(&path)
        .iter()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["seq"].clone())
        .collect::<Vec<_>>();
    assert_eq!(values, [2]);
}

#[tokio::test]
async fn a_sweep_tries_again_what_failed() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), true);
    let journal = UnixDatagram::bind(dir.path().join("journal")).unwrap();
    log.follow_rotation();
    ask(&log, "https://1").await.unwrap();
    break_file(&log, &dir.path().join("audit"));
    ask(&log, "https://2").await.unwrap();
    assert_eq!(log.sinks().0.unwrap().waiting, 1);
    let file = fs::File::options()
        .append(true)
        .open(dir.path().join("audit"))
        .unwrap();
    replace_file(&log, file);
    log.sweep();
    until_it_answers(&log).await;
    assert_eq!(lines(&dir.path().join("audit")).len(), 2);
    drop(journal);
}
