//! The daemon's entry point: what can fail early fails here, in one place, with one code.

#![forbid(unsafe_code)]

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::{env, panic};

use arcbroker_broker::args::Args;
use arcbroker_broker::config::Settings;
use arcbroker_broker::daemon::{self, DaemonError, World};
use arcbroker_broker::listen::Passed;
use arcbroker_broker::upkeep::Signal;
use arcbroker_broker::{check, logging, process};
use clap::Parser as _;
use nix::libc;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use zeroizing_alloc::ZeroAlloc;

/// Wipes what is freed: hyper's buffers hold tokens, and nothing else reaches them.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<std::alloc::System> = ZeroAlloc(std::alloc::System);

/// Exit codes of sysexits.h.
const UNAVAILABLE: u8 = 69;
const OS_ERROR: u8 = 71;
const CONFIG: u8 = 78;

/// Look-ups of names that may hang at one time.
const BLOCKING_THREADS: usize = 16;

fn main() -> ExitCode {
    if let Err(error) = process::harden() {
        return fail(
            OS_ERROR,
            &format!("the process cannot be protected from others: {error}"),
        );
    }
    panic::set_hook(Box::new(|panic| {
        // Where, and not what: the message may quote what the code stumbled over.
        let place = panic
            .location()
            .map(ToString::to_string)
            .unwrap_or_default();
        writeln!(io::stderr(), "arcbrokerd: a defect at {place}").unwrap_or_default();
    }));
    let args = Args::parse();
    let (settings, report) = check::load(&args);
    let Some(settings) = settings else {
        return fail(CONFIG, &report);
    };
    if args.check {
        return finish_check(&report);
    }
    let stream = env::var("JOURNAL_STREAM").ok();
    if let Err(error) = logging::start(settings.log, stream.as_deref()) {
        return fail(OS_ERROR, &error.to_string());
    }
    if !report.is_empty() {
        tracing::warn!("the configuration has warnings:\n{report}");
    }
    let passed = match Passed::from_env() {
        Ok(passed) => passed,
        Err(error) => {
            return fail(
                OS_ERROR,
                &format!("what systemd passed cannot be served: {error}"),
            );
        }
    };
    if let Err(error) = confine(&settings, &passed) {
        return fail(
            OS_ERROR,
            &format!(
                "the daemon cannot be confined ([sandbox] landlock = false leaves it out): {error}"
            ),
        );
    }
    match serve(settings, passed) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error @ DaemonError::Policy(_))) => fail(CONFIG, &error.to_string()),
        Ok(Err(error)) => fail(UNAVAILABLE, &error.to_string()),
        Err(error) => fail(OS_ERROR, &format!("the daemon cannot be started: {error}")),
    }
}

/// Before there are other threads: each is held to what the one that started it was held to.
fn confine(settings: &Settings, passed: &Passed) -> io::Result<()> {
    if !settings.sandbox.landlock {
        tracing::warn!(
            "[sandbox] landlock is off: the daemon is confined by systemd alone, if at all"
        );
        return Ok(());
    }
    let held = settings.bounds(passed.has_sockets()).enforce()?;
    tracing::info!("confined by Landlock: {held}");
    Ok(())
}

fn serve(settings: Settings, passed: Passed) -> io::Result<Result<(), DaemonError>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()?;
    let result = runtime.block_on(async {
        let signals = signals()?;
        Ok(daemon::run(settings, passed, World::system(), signals).await)
    });
    // A look-up of a name that hangs does not hold up the end.
    runtime.shutdown_background();
    result
}

fn signals() -> io::Result<mpsc::Receiver<Signal>> {
    let (tell, told) = mpsc::channel(4);
    let meanings = [
        (SignalKind::hangup(), Signal::Reload),
        (SignalKind::terminate(), Signal::Stop),
        (SignalKind::interrupt(), Signal::Stop),
    ];
    for (kind, meaning) in meanings {
        let (mut arrived, tell) = (signal(kind)?, tell.clone());
        tokio::spawn(async move {
            while arrived.recv().await.is_some() && tell.send(meaning).await.is_ok() {}
        });
    }
    // At a limit on the size of files a write fails; unheard, this signal would end the daemon too.
    drop(signal(SignalKind::from_raw(libc::SIGXFSZ))?);
    Ok(told)
}

fn finish_check(report: &str) -> ExitCode {
    let told = write!(io::stderr(), "{report}")
        .and_then(|()| writeln!(io::stdout(), "the configuration can be used"));
    if told.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Standard error may be gone; the code still says what happened.
fn fail(code: u8, what: &str) -> ExitCode {
    writeln!(io::stderr(), "arcbrokerd: {}", what.trim_end()).unwrap_or_default();
    ExitCode::from(code)
}
