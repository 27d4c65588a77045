//! Challenges: a key in a file, good once and for a short time.

use std::{
    collections::HashMap,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    clock::Clock,
    fault::Draw,
    hostile,
    journal::{Authorization, Kind},
    key_file::{Form, KeyFile, Owner},
    options::Options,
    wire::{Answer, Reply, Sent},
};

/// Where keys are written, and those that are good now.
pub(crate) struct KeyRing {
    pub(crate) dir: PathBuf,
    owner: Option<Owner>,
    mode: u32,
    lifetime: Duration,
    clock: Clock,
    keys: Mutex<Keys>,
}

#[derive(Default)]
struct Keys {
    closed: bool,
    live: HashMap<String, LiveKey>,
    /// Name and key of the last challenge that was told to repeat itself.
    repeated: Option<(String, String)>,
}

struct LiveKey {
    file: KeyFile,
    made_ms: u64,
}

/// A key that is in its file now, or will be.
pub(crate) struct Key {
    pub(crate) path: PathBuf,
}

impl Key {
    pub(crate) fn file_name(&self) -> String {
        self.path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    }
}

/// What a key that was sent turned out to be.
pub(crate) struct Redeemed {
    pub(crate) worth: Authorization,
    pub(crate) key: Option<String>,
}

impl KeyRing {
    pub(crate) fn new(options: &Options, dir: PathBuf) -> io::Result<Self> {
        Ok(Self {
            dir,
            owner: options.key_owner.as_deref().map(Owner::named).transpose()?,
            mode: options.key_mode,
            lifetime: options.key_lifetime,
            clock: options.clock.clone(),
            keys: Mutex::default(),
        })
    }

    /// Makes a new key, and its file as the faults want it.
    pub(crate) fn make(self: &Arc<Self>, draw: &mut Draw) -> io::Result<Key> {
        let mut keys = self.lock();
        if keys.closed {
            return Err(io::Error::other("the simulator is stopping"));
        }
        let (name, good) = if draw.hits(crate::fault_table::Name::SameKey) {
            keys.repeated
                .get_or_insert_with(|| (guid(), secret(64)))
                .clone()
        } else {
            (guid(), secret(64))
        };
        let file = KeyFile {
            path: self.dir.join(name).with_extension("key"),
            bytes: good.clone().into_bytes(),
            length: None,
            form: Form::Regular,
            mode: self.mode,
            owner: self.owner,
        };
        let plan = hostile::key(file, good, draw)?;
        let key = Key {
            path: plan.file.path.clone(),
        };
        if plan.written_after == Some(Duration::ZERO) {
            plan.file.write()?;
        }
        keys.live.insert(
            plan.good.clone(),
            LiveKey {
                file: plan.file,
                made_ms: self.clock.millis(),
            },
        );
        self.change_later(plan.good, plan.written_after, plan.removed_after);
        Ok(key)
    }

    /// Uses up the key in an `Authorization` header.
    pub(crate) fn redeem(&self, authorization: &[u8]) -> Redeemed {
        let now = self.clock.millis();
        let content = authorization
            .strip_prefix(b"Basic ")
            .and_then(|content| std::str::from_utf8(content).ok());
        let Some(key) = content.and_then(|content| self.lock().live.remove(content)) else {
            return Redeemed {
                worth: Authorization::Unknown,
                key: None,
            };
        };
        key.file.remove();
        let worth = if self.is_over(&key, now) {
            Authorization::Expired
        } else {
            Authorization::Matched
        };
        Redeemed {
            worth,
            key: Some(
                Key {
                    path: key.file.path,
                }
                .file_name(),
            ),
        }
    }

    /// Removes the files of keys that nobody used in time.
    pub(crate) fn sweep(&self) {
        let now = self.clock.millis();
        self.lock().live.retain(|_, key| {
            let over = self.is_over(key, now);
            if over {
                key.file.remove();
            }
            !over
        });
    }

    /// Removes all key files and makes no more.
    pub(crate) fn close(&self) {
        let mut keys = self.lock();
        keys.closed = true;
        for (_, key) in keys.live.drain() {
            key.file.remove();
        }
    }

    fn change_later(
        self: &Arc<Self>,
        good: String,
        written: Option<Duration>,
        removed: Option<Duration>,
    ) {
        let written = written.filter(|delay| *delay > Duration::ZERO);
        if written.is_none() && removed.is_none() {
            return;
        }
        let ring = Arc::clone(self);
        tokio::spawn(async move {
            if let Some(delay) = written {
                tokio::time::sleep(delay).await;
                // Under the lock, so that no file appears after `close`.
                let keys = ring.lock();
                let _ = keys.live.get(&good).map(|key| key.file.write());
            }
            if let Some(delay) = removed {
                tokio::time::sleep(delay).await;
                let _ = ring.lock().live.get(&good).map(|key| key.file.remove());
            }
        });
    }

    fn is_over(&self, key: &LiveKey, now_ms: u64) -> bool {
        u128::from(now_ms.saturating_sub(key.made_ms)) >= self.lifetime.as_millis()
    }

    fn lock(&self) -> MutexGuard<'_, Keys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The 401 answer with a new challenge, as the faults want it.
pub(crate) fn challenge(ring: &Arc<KeyRing>, draw: &mut Draw) -> Answer {
    match try_challenge(ring, draw) {
        Ok(answer) => answer,
        Err(error) => Answer::error(500, "server_error", &error.to_string()),
    }
}

fn try_challenge(ring: &Arc<KeyRing>, draw: &mut Draw) -> io::Result<Answer> {
    let key = ring.make(draw)?;
    let name = key.file_name();
    // What the real body holds is not known; see the fault `challenge-body`.
    let body = serde_json::json!({
        "error": "unauthorized_client",
        "error_description": "Missing Basic Authorization header",
    });
    let reply = Reply::json(401, &body);
    let sent = hostile::challenge(reply, key, draw, |draw| ring.make(draw))?;
    let kind = Kind::Challenge;
    Ok(Answer {
        sent,
        status: Some(401),
        kind,
        key: Some(name),
        authorization: None,
    })
}

/// A lower-case version 4 UUID.
fn guid() -> String {
    let digits = secret(32);
    let parts: Vec<&str> = [0..8, 8..12, 13..16, 17..20, 20..32]
        .into_iter()
        .filter_map(|part| digits.get(part))
        .collect();
    match parts.as_slice() {
        [first, second, third, fourth, fifth] => {
            format!("{first}-{second}-4{third}-8{fourth}-{fifth}")
        }
        _ => digits,
    }
}

/// This many random lower-case hexadecimal digits.
pub(crate) fn secret(digits: usize) -> String {
    rand::random_iter::<u8>()
        .take(digits)
        .filter_map(|byte| char::from_digit(u32::from(byte & 15), 16))
        .collect()
}

/// Says which answers may be sent whole; a challenge that is not legal HTTP goes out raw.
pub(crate) fn closing(reply: Reply) -> Sent {
    reply.with_header("Connection", "close").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guid_has_the_shape_of_a_version_4_uuid() {
        let guid = guid();
        let lengths: Vec<usize> = guid.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
        assert!(
            guid.bytes()
                .all(|byte| byte == b'-' || byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
        );
        assert_eq!((guid.as_bytes()[14], guid.as_bytes()[19]), (b'4', b'8'));
    }
}
