//! Documents about the machine, passed through from upstream and kept for a short time.
//!
//! They need no grant: they say what the machine is, and hold no secret.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arcbroker_client::wire::path;
use bytes::Bytes;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::clock::Clock;
use crate::place::Place;
use crate::token::{Class, FetchError};
use crate::turns::{Turns, Urgency};
use crate::upstream::Upstream;

/// The longest that a request waits.
const PATIENCE: Duration = Duration::from_secs(20);
/// The longest that a request waits before it even asks for a token.
const SOON: Duration = Duration::from_secs(2);
const KEPT: Duration = Duration::from_secs(30);
/// A failure is forgotten sooner, but not at once: callers must not be able to hammer upstream.
const FAILURE_KEPT: Duration = Duration::from_secs(2);

/// Documents by path. Paths are constants of the program, so that there are only a few.
#[derive(Clone, Debug)]
pub struct Documents(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    upstream: Arc<Upstream>,
    turns: Arc<Turns>,
    clock: Clock,
    kept: Mutex<HashMap<&'static str, Kept>>,
}

#[derive(Debug)]
struct Kept {
    /// Since boot.
    until: Duration,
    /// `None` while it is fetched.
    document: watch::Receiver<Fetched>,
}

type Fetched = Option<Result<Bytes, FetchError>>;

impl Documents {
    /// Nothing is fetched until it is asked for.
    pub fn new(upstream: Arc<Upstream>, turns: Arc<Turns>, clock: Clock) -> Self {
        Self(Arc::new(Shared {
            upstream,
            turns,
            clock,
            kept: Mutex::default(),
        }))
    }

    /// One document, as upstream wrote it.
    ///
    /// # Errors
    ///
    /// The failure of the fetch; it is remembered for two seconds.
    pub async fn get(&self, path: &'static str) -> Result<Bytes, FetchError> {
        let mut document = self.current(path);
        let fetched = timeout(PATIENCE, document.wait_for(Option::is_some))
            .await
            .map_err(|_| {
                let kind = self.0.upstream.kind();
                FetchError::new(Class::Deadline, format!("{kind} gave no document in time"))
            })?;
        let fetched = fetched.ok().and_then(|fetched| fetched.clone());
        fetched.unwrap_or_else(|| {
            let detail =
                "the fetch of a document ended unexpectedly; this is a defect of arcbroker";
            Err(FetchError::new(Class::Broken, detail))
        })
    }

    /// The cloud of the machine, if upstream tells it soon.
    pub async fn place(&self) -> Option<Place> {
        let instance = timeout(SOON, self.get(path::INSTANCE)).await.ok()?.ok()?;
        Some(Place::told(&instance))
    }

    /// What is kept, or the fetch that runs, or a new one in a task of its own.
    fn current(&self, path: &'static str) -> watch::Receiver<Fetched> {
        let now = self.0.clock.now().boot;
        let mut kept = self.0.lock();
        if let Some(kept) = kept
            .get(path)
            .filter(|kept| kept.is_running() || now < kept.until)
        {
            return kept.document.clone();
        }
        let (tell, document) = watch::channel(None);
        kept.insert(
            path,
            Kept {
                until: Duration::ZERO,
                document: document.clone(),
            },
        );
        let shared = Arc::clone(&self.0);
        tokio::spawn(async move {
            let fetched = shared.fetch(path).await;
            let keep = if fetched.is_ok() { KEPT } else { FAILURE_KEPT };
            if let Some(kept) = shared.lock().get_mut(path) {
                kept.until = shared.clock.now().boot + keep;
            }
            tell.send_replace(Some(fetched));
        });
        document
    }
}

impl Kept {
    fn is_running(&self) -> bool {
        self.document.has_changed().is_ok() && self.document.borrow().is_none()
    }
}

impl Shared {
    async fn fetch(&self, path: &str) -> Result<Bytes, FetchError> {
        let turn = self.turns.enter(&Urgency::new(true)).await?;
        let document = self.upstream.document(path).await;
        turn.end(&document);
        let document = document?;
        match serde_json::from_slice::<Value>(&document) {
            Ok(Value::Object(_)) => Ok(document),
            _ => Err(FetchError::new(
                Class::Garbage,
                format!(
                    "{}'s answer to {path} is not a JSON object",
                    self.upstream.kind()
                ),
            )),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<&'static str, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
