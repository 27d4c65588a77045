//! Names of users: looked up where waiting does no harm, and never decided on.

use std::sync::Arc;
use std::time::Duration;

use nix::unistd::{Uid, User};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// A directory service that is slow must not make tokens slow: then the name is left out.
const PATIENCE: Duration = Duration::from_millis(100);
const KEPT: u64 = 1024;
const KEPT_FOR: Duration = Duration::from_mins(5);

/// Names of users by number, for display.
#[derive(Clone, Debug)]
pub struct UserNames(moka::sync::Cache<u32, watch::Receiver<Lookup>>);

/// `None` while it runs.
type Lookup = Option<Option<Arc<str>>>;

impl UserNames {
    /// None is known yet.
    pub fn new() -> Self {
        Self(
            moka::sync::Cache::builder()
                .max_capacity(KEPT)
                .time_to_live(KEPT_FOR)
                .build(),
        )
    }

    /// The name of a user, if it can be had at once or nearly so. One look-up serves all who ask.
    pub async fn name(&self, uid: u32) -> Option<Arc<str>> {
        let mut lookup = self.0.get_with(uid, || look_up(uid));
        let found = timeout(PATIENCE, lookup.wait_for(Option::is_some))
            .await
            .ok()?
            .ok()?;
        found.clone().flatten()
    }
}

fn look_up(uid: u32) -> watch::Receiver<Lookup> {
    let (tell, told) = watch::channel(None);
    spawn_blocking(move || {
        let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
        tell.send_replace(Some(user.map(|user| Arc::from(user.name))));
    });
    told
}

impl Default for UserNames {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_number_has_a_name() {
        let names = UserNames::new();
        let mut found = names.name(0).await;
        // The first look-up of a process loads what it needs, and may take longer than it is waited for.
        for _ in 0..100 {
            if found.is_some() {
                break;
            }
            found = names.name(0).await;
        }
        assert_eq!(found.as_deref(), Some("root"));
        assert_eq!(names.name(3_999_999_999).await, None);
    }
}
