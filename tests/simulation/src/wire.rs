//! HTTP as HIMDS speaks it, by hand, over a stream in memory: also all that is not HTTP.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use arcbroker_broker::dial::{Connector, DialError, Opened};
use percent_encoding::percent_decode_str;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::sleep;

use crate::event::Ended;
use crate::fault::{BadBody, Class, Fault, RetryAfter, Stage};
use crate::himds::Himds;
use crate::keys::KEYS;
use crate::observer::{Delivery, Facts};

/// Nobody holds the other end.
const NOBODY: u32 = u32::MAX;
/// Somebody else.
const STRANGER: u32 = 4_242_424;

/// How long HIMDS takes over a challenge, and over a token.
const QUICK: Duration = Duration::from_millis(5);
const USUAL: Duration = Duration::from_millis(250);

/// A conversation from HIMDS's side.
struct Talk {
    himds: Himds,
    number: u64,
    fault: Option<Fault>,
    /// Who holds the other end, as the kernel would say.
    owner: Arc<AtomicU32>,
    stream: DuplexStream,
}

/// What the daemon sent.
struct Asked {
    /// The key of the cache; none for a document.
    key: Option<usize>,
    target: String,
    bypass: bool,
    authorization: Option<String>,
}

/// What an answer leads to.
enum Next {
    /// Another request on this connection.
    More,
    /// Nothing.
    Over,
}

/// The conversation is over also where nobody says so: the daemon gave up, or the run ended.
struct Ending {
    himds: Himds,
    number: u64,
    class: Option<Class>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        let mut seen = self.himds.observer().lock();
        match self.class {
            Some(class) => seen.failed(self.number, class, RetryAfter(None)),
            None => seen.gone(self.number, Ended::Left),
        }
    }
}

/// How the daemon reaches this HIMDS.
pub fn connector(himds: &Himds) -> Connector {
    let himds = himds.clone();
    Connector::from_fn(move |address| connect(himds.clone(), address))
}

async fn connect(himds: Himds, address: SocketAddr) -> Result<Opened, DialError> {
    let (number, fault) = himds.begin_conversation();
    himds.observer().lock().connected(number, fault);
    let ending = Ending {
        himds: himds.clone(),
        number,
        class: fault.filter(|fault| fault.is_mute()).and_then(Fault::class),
    };
    match fault {
        Some(Fault::Refused) => return Err(DialError::Down(address)),
        Some(Fault::ToItself) => return Err(DialError::ToItself(address)),
        Some(Fault::Blackholed) => std::future::pending().await,
        _ => {}
    }
    let holder = match fault {
        Some(Fault::Stranger) => STRANGER,
        Some(Fault::NeverAccepted) => NOBODY,
        _ if himds.temper().accepts_late => NOBODY,
        _ => himds.owner(),
    };
    let owner = Arc::new(AtomicU32::new(holder));
    let (ours, theirs) = duplex(64 * 1024);
    let talk = Talk {
        himds,
        number,
        fault,
        owner: Arc::clone(&owner),
        stream: theirs,
    };
    tokio::spawn(async move {
        talk.run().await;
        drop(ending);
    });
    Ok(Opened {
        stream: Box::new(ours),
        owner: Box::new(move || Ok(holder_of(&owner))),
    })
}

fn holder_of(owner: &AtomicU32) -> Option<u32> {
    Some(owner.load(Ordering::Relaxed)).filter(|&uid| uid != NOBODY)
}

impl Talk {
    async fn run(mut self) {
        match self.fault {
            Some(Fault::ClosedAtOnce) => {
                self.close();
                return;
            }
            Some(Fault::NeverAccepted | Fault::Stranger) => {
                // Whatever comes, nobody should have been told.
                let himds = self.himds.clone();
                let heard = tokio::select! {
                    biased;
                    byte = self.stream.read_u8() => byte.is_ok(),
                    () = himds.recovery() => false,
                };
                if heard {
                    self.himds
                        .observer()
                        .lock()
                        .stranger_heard(self.number, "a request");
                }
                return;
            }
            _ => {}
        }
        if self.himds.temper().accepts_late {
            sleep(Duration::from_millis(2)).await;
            self.owner.store(self.himds.owner(), Ordering::Relaxed);
        }
        while let Ok(asked) = self.read().await {
            match self.answer(asked).await {
                Ok(Next::More) => {}
                Ok(Next::Over) | Err(_) => break,
            }
        }
        self.close();
    }

    /// Nobody holds a connection that is closed.
    fn close(&mut self) {
        self.owner.store(NOBODY, Ordering::Relaxed);
    }

    async fn answer(&mut self, asked: Asked) -> io::Result<Next> {
        let Some(key) = asked.key else {
            if asked.target.starts_with("/metadata/identity/oauth2/token") {
                self.himds
                    .observer()
                    .lock()
                    .called_for_forbidden(&asked.target);
            }
            return self.document(&asked).await;
        };
        match asked.authorization {
            None => self.challenge(key, asked.bypass).await,
            Some(authorization) => self.token(key, asked.bypass, &authorization).await,
        }
    }

    async fn document(&mut self, asked: &Asked) -> io::Result<Next> {
        self.himds
            .observer()
            .lock()
            .called(self.number, None, false);
        if !self.misbehave(Stage::Challenge).await? {
            return Ok(Next::Over);
        }
        self.think(QUICK, None).await?;
        let body = if asked.target.starts_with("/metadata/instance") {
            r#"{"compute":{"azEnvironment":"AzurePublicCloud"},"network":{}}"#
        } else {
            r#"{"tenantId":"72f988bf-86f1-41af-91ab-2d7cd011db47"}"#
        };
        self.himds.observer().lock().documented(self.number);
        self.write(200, "", body).await?;
        Ok(Next::Over)
    }

    async fn challenge(&mut self, key: usize, bypass: bool) -> io::Result<Next> {
        self.himds
            .observer()
            .lock()
            .called(self.number, Some(key), bypass);
        if !self.misbehave(Stage::Challenge).await? {
            return Ok(Next::Over);
        }
        self.think(QUICK, None).await?;
        match self.fault {
            Some(Fault::Unchallenged) => {
                let delivery = self.himds.token(key, bypass, None);
                let body = body(key, &self.facts(delivery), delivery, None);
                self.fail(Class::Challenge, RetryAfter(None));
                self.write(200, "", &body).await?;
                return Ok(Next::Over);
            }
            Some(Fault::NoChallenge) => {
                self.fail(Class::Challenge, RetryAfter(None));
                self.write(401, "", "").await?;
                return Ok(Next::Over);
            }
            _ => {}
        }
        let path = self.himds.challenge(self.fault);
        let mut header = challenge_header(&path);
        match self.fault {
            Some(Fault::TwoChallenges) => header += &challenge_header(&path),
            Some(Fault::ForeignRealm) => header = challenge_header(Path::new("/etc/shadow.key")),
            _ => {}
        }
        let closes = self.himds.temper().closes;
        if closes {
            header += "Connection: close\r\n";
        }
        if self.fault == Some(Fault::StrangerLater) {
            self.owner.store(STRANGER, Ordering::Relaxed);
        }
        match self.fault.and_then(Fault::class) {
            // Nothing more will come of it.
            Some(class @ (Class::Challenge | Class::Hostile)) => {
                self.fail(class, RetryAfter(None));
            }
            _ if closes => {
                self.himds.expect_another(self.fault);
                let mut seen = self.himds.observer().lock();
                seen.gone(self.number, Ended::Continues);
            }
            _ => {}
        }
        self.write(401, &header, "").await?;
        Ok(if closes { Next::Over } else { Next::More })
    }

    async fn token(&mut self, key: usize, bypass: bool, authorization: &str) -> io::Result<Next> {
        self.himds.observer().lock().keyed(self.number, key);
        if self.owner.load(Ordering::Relaxed) == STRANGER {
            self.himds
                .observer()
                .lock()
                .stranger_heard(self.number, "a key");
        }
        if !self.misbehave(Stage::Token).await? {
            return Ok(Next::Over);
        }
        self.think(USUAL, None).await?;
        let key_file = authorization.strip_prefix("Basic ").unwrap_or_default();
        if !self.himds.accepts(key_file) {
            self.fail(Class::StaleKey, RetryAfter(None));
            self.write(401, &challenge_header(Path::new("/tmp/x.key")), "")
                .await?;
            return Ok(Next::Over);
        }
        if !self.himds.reaches_entra() {
            self.fail(Class::Server, RetryAfter(None));
            self.write(
                500,
                "",
                r#"{"error":"server_error","error_description":"x509: certificate has expired"}"#,
            )
            .await?;
            return Ok(Next::Over);
        }
        let delivery = self.himds.token(key, bypass, self.fault);
        let facts = self.facts(delivery);
        let bad = match self.fault {
            Some(Fault::Body(bad)) => Some(bad),
            _ => None,
        };
        let body = body(key, &facts, delivery, bad);
        match bad {
            Some(_) => self.fail(Class::Garbage, RetryAfter(None)),
            None => self
                .himds
                .observer()
                .lock()
                .delivered(self.number, delivery),
        }
        self.write(200, "", &body).await?;
        Ok(Next::Over)
    }

    /// Does what the fault says at this stage; false when the conversation ends with it.
    async fn misbehave(&mut self, stage: Stage) -> io::Result<bool> {
        let quick = if stage == Stage::Challenge {
            QUICK
        } else {
            USUAL
        };
        match self.fault {
            Some(Fault::Slow(at, time)) if at == stage => {
                self.think_for(time, Some(Class::Broken)).await?;
                return Ok(true);
            }
            Some(Fault::Hangs(at)) if at == stage => {
                self.hang().await?;
                self.fail(Class::Broken, RetryAfter(None));
            }
            Some(Fault::Breaks(at)) if at == stage => {
                self.think(quick, None).await?;
                self.fail(Class::Broken, RetryAfter(None));
                self.stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Le")
                    .await?;
            }
            Some(Fault::Babbles(at)) if at == stage => {
                self.think(quick, None).await?;
                self.fail(Class::Broken, RetryAfter(None));
                self.stream
                    .write_all(b"220 mail.example ESMTP\r\n\r\n")
                    .await?;
            }
            Some(Fault::Floods(at)) if at == stage => {
                self.think(quick, None).await?;
                self.fail(Class::Garbage, RetryAfter(None));
                self.write(
                    if at == Stage::Token { 200 } else { 503 },
                    "",
                    &"x".repeat(100_000),
                )
                .await?;
            }
            Some(Fault::Status(at, status, after)) if at == stage => {
                self.think(quick, None).await?;
                let header = after
                    .0
                    .map_or_else(String::new, |text| format!("Retry-After: {text}\r\n"));
                self.fail(Class::of_status(status), after);
                self.write(
                    status,
                    &header,
                    r#"{"error":"server_error","error_description":"drawn"}"#,
                )
                .await?;
            }
            _ => return Ok(true),
        }
        Ok(false)
    }

    fn fail(&self, class: Class, after: RetryAfter) {
        self.himds
            .observer()
            .lock()
            .failed(self.number, class, after);
    }

    fn facts(&self, delivery: Delivery) -> Facts {
        let seen = self.himds.observer().lock();
        seen.facts(delivery.token)
            .cloned()
            .expect("it was just made")
    }

    async fn think(&mut self, most: Duration, class: Option<Class>) -> io::Result<()> {
        let time = self.himds.pause(most);
        self.think_for(time, class).await
    }

    /// Takes its time, and notices when the daemon leaves meanwhile.
    async fn think_for(&mut self, time: Duration, class: Option<Class>) -> io::Result<()> {
        tokio::select! {
            biased;
            () = sleep(time) => Ok(()),
            _ = self.stream.read_u8() => Err(self.left(class)),
        }
    }

    /// Until the fault is over, when HIMDS is started anew, or the daemon leaves.
    async fn hang(&mut self) -> io::Result<()> {
        let himds = self.himds.clone();
        tokio::select! {
            biased;
            _ = self.stream.read_u8() => Err(self.left(Some(Class::Broken))),
            () = himds.recovery() => Ok(()),
        }
    }

    fn left(&self, class: Option<Class>) -> io::Error {
        self.himds.observer().lock().left(self.number, class);
        io::ErrorKind::BrokenPipe.into()
    }

    async fn write(&mut self, status: u16, headers: &str, body: &str) -> io::Result<()> {
        let head = format!(
            "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n{headers}Content-Length: {}\r\n\r\n",
            body.len()
        );
        self.stream.write_all(head.as_bytes()).await?;
        self.stream.write_all(body.as_bytes()).await
    }

    /// One request.
    async fn read(&mut self) -> io::Result<Asked> {
        let mut text = Vec::new();
        while !text.ends_with(b"\r\n\r\n") {
            if self.stream.read_buf(&mut text).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let text = String::from_utf8_lossy(&text);
        let mut lines = text.split("\r\n");
        let target = lines
            .next()
            .unwrap_or_default()
            .split(' ')
            .nth(1)
            .unwrap_or_default();
        let authorization = lines
            .filter_map(|line| line.split_once(": "))
            .find(|(name, _)| name.eq_ignore_ascii_case("authorization"))
            .map(|(_, value)| value.to_owned());
        Ok(Asked {
            key: key_of(target),
            target: target.to_owned(),
            bypass: parameter(target, "bypass_cache").as_deref() == Some("true"),
            authorization,
        })
    }
}

fn parameter(target: &str, name: &str) -> Option<String> {
    let (_, query) = target.split_once('?')?;
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(other, _)| *other == name)?;
    Some(percent_decode_str(value).decode_utf8_lossy().into_owned())
}

/// Which key a target is about: for a document, and for anything that nobody may have, none.
fn key_of(target: &str) -> Option<usize> {
    let resource = parameter(target, "resource")?;
    let client_id = parameter(target, "client_id");
    KEYS.iter()
        .position(|key| key.resource == resource && key.client_id == client_id.as_deref())
}

fn challenge_header(path: &Path) -> String {
    format!("Www-Authenticate: Basic realm={}\r\n", path.display())
}

fn body(key: usize, facts: &Facts, delivery: Delivery, bad: Option<BadBody>) -> String {
    let resource = match bad {
        Some(BadBody::OtherResource) => "https://graph.microsoft.com",
        _ => KEYS[key].resource,
    };
    let mut body = serde_json::json!({
        "access_token": facts.text,
        "refresh_token": "",
        "expires_in": delivery.expires_in.to_string(),
        "expires_on": facts.expires_on.to_string(),
        "not_before": facts.expires_on.saturating_sub(86_700).to_string(),
        "resource": resource,
        "token_type": if bad == Some(BadBody::OtherKind) { "pop" } else { "Bearer" },
    });
    if let Some(id) = KEYS[key].client_id {
        body["client_id"] = id.into();
    }
    match bad {
        Some(BadBody::Empty) => String::new(),
        Some(BadBody::Text) => "try again later".to_owned(),
        Some(BadBody::Torn) => body.to_string().split_at(100).0.to_owned(),
        Some(BadBody::NoExpiry) => {
            body["expires_on"] = serde_json::Value::Null;
            body["expires_in"] = serde_json::Value::Null;
            body.to_string()
        }
        Some(BadBody::Unprintable) => {
            body["access_token"] = format!("{}\n", facts.text).into();
            body.to_string()
        }
        _ => body.to_string(),
    }
}
