//! Everything that is not the answer to a request: what is done from time to time, and on a signal.

use std::time::Duration;

use arcbroker_client::wire::path;
use tokio::sync::{Notify, mpsc, watch};

use crate::manager::Manager;
use crate::place::Place;
use crate::pulse::Pulse;
use crate::rules::Reloader;
use crate::service::Service;
use crate::ticker::Ticker;

/// The one timer of the daemon: everything that is done from time to time is done then.
pub const TICK: Duration = Duration::from_secs(30);
/// However short the time in which the watchdog wants to hear something.
const LEAST_TICK: Duration = Duration::from_millis(100);

/// What the outside can tell the daemon.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Signal {
    /// Load the policy again, and open the audit file again.
    Reload,
    /// End, after every request under way has had its answer.
    Stop,
}

/// Often enough for whoever watches over the daemon, too.
pub(crate) fn tick(manager: &Manager) -> Duration {
    let watchdog = manager.watchdog().map(|silence| silence / 3);
    watchdog.map_or(TICK, |most| most.clamp(LEAST_TICK, TICK))
}

/// Everything that is not the answer to a request. Never ends by itself once it has told the
/// servers to stop: they end the daemon.
pub(crate) async fn tend(
    service: &Service,
    reloader: &Reloader,
    pulse: &Pulse,
    mut signals: mpsc::Receiver<Signal>,
    ticker: &Ticker,
    stop: &watch::Sender<bool>,
) {
    let reload_wanted = Notify::new();
    let reload = async {
        loop {
            reload_wanted.notified().await;
            reloader.reload().await;
            pulse.ready();
        }
    };
    let look_wanted = Notify::new();
    let look = async {
        loop {
            look_wanted.notified().await;
            if look(service, reloader).await {
                pulse.settled();
            }
            // Upstream may have answered for the first time.
            pulse.tell();
        }
    };
    let beat_wanted = Notify::new();
    let beat = async {
        loop {
            beat_wanted.notified().await;
            pulse.beat().await;
        }
    };
    let on_tick = || {
        sweep(service);
        look_wanted.notify_one();
        beat_wanted.notify_one();
    };
    let watch = async {
        on_tick();
        loop {
            tokio::select! {
                tick = ticker.tick() => match tick {
                    Ok(()) => on_tick(),
                    Err(error) => {
                        tracing::error!(%error, "the timer broke: the daemon ends");
                        break;
                    }
                },
                signal = signals.recv() => match signal {
                    Some(Signal::Reload) => {
                        pulse.reloading();
                        service.audit.follow_rotation();
                        reload_wanted.notify_one();
                    }
                    Some(Signal::Stop) | None => break,
                },
            }
        }
    };
    // Apart, so that neither a slow reload nor a slow upstream holds up the end.
    tokio::select! {
        () = reload => {}
        () = look => {}
        () = beat => {}
        () = watch => {}
    }
    tracing::info!("stopping: requests under way get their answer");
    pulse.stopping();
    stop.send_replace(true);
    std::future::pending::<()>().await;
}

/// Does what is done from time to time, and takes no time: every [`TICK`], and at the start.
pub fn sweep(service: &Service) {
    service.tokens.sweep();
    service.audit.sweep();
}

/// Finds out what is not known yet before somebody needs it: where tokens come from, whether that
/// answers, and which cloud the machine is in. What is found shows in `status`. Whether it has become
/// known which cloud that is.
pub async fn look(service: &Service, reloader: &Reloader) -> bool {
    let upstream = &service.board.upstream;
    upstream.look_again().await;
    let is_settled = service.rules.borrow().place.is_settled();
    if is_settled && upstream.record().last_success_at.is_some() {
        return false;
    }
    let Ok(instance) = service.documents.get(path::INSTANCE).await else {
        return false;
    };
    let is_news = reloader.settle(&Place::told(&instance));
    if is_news {
        // Short names in it stand for something else by now.
        reloader.reload_shadow().await;
    }
    is_news
}
