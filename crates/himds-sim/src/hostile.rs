//! What faults make of challenges, key files and answers on the wire.

use std::{io, path::Path, time::Duration};

use crate::{
    challenge::{Key, closing, secret},
    fault::Draw,
    fault_table::Name,
    journal::Kind,
    key_file::{Form, KeyFile, Owner},
    wire::{Answer, Reply, Script, Sent, Then},
};

/// The faults that strike at one of the two token requests.
#[derive(Debug)]
pub(crate) struct Phase {
    delay: Name,
    hang: Name,
    close: Name,
    reset: Name,
    status: Name,
    throttle: Name,
    redirect: Name,
    http09: Name,
    informational: Name,
    trickle: Name,
    cut: Name,
    chunked_lie: Name,
    length_lie: Name,
}

/// A token request without a key.
pub(crate) const FIRST: Phase = Phase {
    delay: Name::FirstDelay,
    hang: Name::FirstHang,
    close: Name::FirstClose,
    reset: Name::FirstReset,
    status: Name::FirstStatus,
    throttle: Name::Throttle,
    redirect: Name::Redirect,
    http09: Name::FirstHttp09,
    informational: Name::FirstInformational,
    trickle: Name::FirstTrickle,
    cut: Name::FirstCut,
    chunked_lie: Name::FirstChunkedLie,
    length_lie: Name::FirstLengthLie,
};

/// A token request with a good key.
pub(crate) const SECOND: Phase = Phase {
    delay: Name::SecondDelay,
    hang: Name::SecondHang,
    close: Name::SecondClose,
    reset: Name::SecondReset,
    status: Name::SecondStatus,
    throttle: Name::SecondThrottle,
    redirect: Name::SecondRedirect,
    http09: Name::SecondHttp09,
    informational: Name::SecondInformational,
    trickle: Name::SecondTrickle,
    cut: Name::SecondCut,
    chunked_lie: Name::SecondChunkedLie,
    length_lie: Name::SecondLengthLie,
};

impl Phase {
    /// What strikes instead of the answer.
    pub(crate) async fn instead(&self, draw: &mut Draw, imds: bool) -> Option<Answer> {
        if let Some(strike) = draw.take(self.delay) {
            tokio::time::sleep(strike.millis()).await;
        }
        let (name, strike) = draw.first(&[
            self.hang,
            self.close,
            self.reset,
            self.status,
            self.throttle,
            self.redirect,
        ])?;
        Some(if name == self.hang {
            Answer::nothing(Then::Hang)
        } else if name == self.close {
            Answer::nothing(Then::Close)
        } else if name == self.reset {
            Answer::nothing(Then::Reset)
        } else if name == self.status {
            status(strike.status())
        } else if name == self.throttle {
            retry_after(throttled(imds), strike.text())
        } else {
            let target = strike.text_or("/redirected");
            Answer::new(
                Kind::Redirect,
                Reply::new(302, "text/plain", "").with_header("Location", target),
            )
        })
    }

    /// What strikes the answer on its way.
    pub(crate) fn onto(&self, answer: Answer, draw: &mut Draw) -> Answer {
        let names = [
            self.http09,
            self.informational,
            self.trickle,
            self.cut,
            self.chunked_lie,
            self.length_lie,
        ];
        let Some((name, strike)) = draw.first(&names) else {
            return answer;
        };
        answer.map(|reply| {
            let script = if name == self.http09 {
                Script::closing(reply.body)
            } else if name == self.informational {
                let mut bytes =
                    b"HTTP/1.1 100 Continue\r\n\r\n".repeat(strike.size().min(1_000_000));
                bytes.extend(reply.with_header("Connection", "close").bytes());
                Script::closing(bytes)
            } else if name == self.trickle {
                Script {
                    bytes: reply.bytes(),
                    pace: Some(strike.millis()),
                    then: Then::Close,
                }
            } else if name == self.cut {
                let mut bytes = reply.bytes();
                bytes.truncate(bytes.len() / 2);
                Script::closing(bytes)
            } else if name == self.chunked_lie {
                Script::closing(chunked_lie(&reply))
            } else {
                let framing = format!("Content-Length: {}\r\n", reply.body.len() + 100);
                Script::closing([reply.head(&framing), reply.body].concat())
            };
            Sent::Raw(script)
        })
    }
}

/// An error answer with any status.
pub(crate) fn status((status, header): (u16, Option<String>)) -> Answer {
    let error = match status {
        400 => "bad_request",
        401 => "unauthorized_client",
        403 => "forbidden",
        404 => "not_found",
        405 => "method_not_allowed",
        429 => "too_many_requests",
        503 => "service_unavailable",
        _ => "server_error",
    };
    retry_after(
        Answer::error(status, error, "The simulator was told to answer so"),
        header.as_deref(),
    )
}

/// 429: IMDS's body is a real one, that of HIMDS is built from the swagger's list of errors.
pub(crate) fn throttled(imds: bool) -> Answer {
    let error = if imds {
        "invalid_request"
    } else {
        "too_many_requests"
    };
    Answer::error(429, error, "Temporarily throttled, too many requests")
}

/// Adds a `Retry-After` header if there is a value for it.
pub(crate) fn retry_after(answer: Answer, value: Option<&str>) -> Answer {
    match value {
        Some(value) => answer.with_header("Retry-After", value),
        None => answer,
    }
}

fn chunked_lie(reply: &Reply) -> Vec<u8> {
    let mut bytes = reply.head("Transfer-Encoding: chunked\r\n");
    // The chunk claims one byte less than there is, so that its end is not where it should be.
    bytes.extend_from_slice(format!("{:x}\r\n", reply.body.len().saturating_sub(1)).as_bytes());
    bytes.extend_from_slice(&reply.body);
    bytes.extend_from_slice(b"\r\n0\r\n\r\n");
    bytes
}

/// A key file as the faults want it.
pub(crate) struct KeyPlan {
    pub(crate) file: KeyFile,
    /// What a client must send.
    pub(crate) good: String,
    /// When the file is written, from now; never if there is nothing.
    pub(crate) written_after: Option<Duration>,
    pub(crate) removed_after: Option<Duration>,
}

/// The largest key that a request can carry back.
const LARGEST_GOOD_KEY: u64 = 65_536;

/// Changes a plain key file.
pub(crate) fn key(file: KeyFile, good: String, draw: &mut Draw) -> io::Result<KeyPlan> {
    let mut plan = KeyPlan {
        file,
        good,
        written_after: Some(Duration::ZERO),
        removed_after: None,
    };
    place(&mut plan.file, draw);
    fill(&mut plan, draw);
    if let Some(strike) = draw.take(Name::KeyMode) {
        plan.file.mode = strike.octal();
    }
    if let Some(strike) = draw.take(Name::KeyOwner) {
        plan.file.owner = Some(Owner::named(&strike.text_or("root"))?);
    }
    plan.file.form = form(draw);
    if draw.hits(Name::KeyMissing) {
        plan.written_after = None;
    } else if let Some(strike) = draw.take(Name::KeyLate) {
        plan.written_after = Some(strike.millis());
    }
    plan.removed_after = draw.take(Name::KeyRemoved).map(|strike| strike.millis());
    Ok(plan)
}

fn place(file: &mut KeyFile, draw: &mut Draw) {
    if let Some(strike) = draw.take(Name::RealmOtherDirectory) {
        let above = file
            .path
            .parent()
            .and_then(Path::parent)
            .unwrap_or(Path::new("/"));
        let dir = strike.text().map_or(above, Path::new);
        file.path = dir.join(file.path.file_name().unwrap_or_default());
    }
    if let Some(strike) = draw.take(Name::RealmExtension) {
        file.path.set_extension(strike.text().unwrap_or("txt"));
    }
}

fn fill(plan: &mut KeyPlan, draw: &mut Draw) {
    let names = [
        Name::KeyEmpty,
        Name::KeySize,
        Name::KeyNewline,
        Name::KeyCrlf,
        Name::KeyBinary,
        Name::KeyRotated,
    ];
    let Some((name, strike)) = draw.first(&names) else {
        return;
    };
    match name {
        Name::KeySize if strike.number() <= LARGEST_GOOD_KEY => {
            plan.good = secret(strike.size());
            plan.file.bytes = plan.good.clone().into_bytes();
        }
        Name::KeySize => plan.file.length = Some(strike.number()),
        Name::KeyNewline => plan.file.bytes.push(b'\n'),
        Name::KeyCrlf => plan.file.bytes.extend_from_slice(b"\r\nX-Injected: yes"),
        Name::KeyEmpty => plan.file.bytes.clear(),
        Name::KeyBinary => plan.file.bytes = (0..64).map(|index| 0x80 | index).collect(),
        _ => plan.good = secret(64),
    }
}

fn form(draw: &mut Draw) -> Form {
    let names = [
        Name::KeySymlink,
        Name::KeyHardlink,
        Name::KeyFifo,
        Name::KeySocket,
        Name::KeyDirectory,
        Name::KeyDevice,
    ];
    match draw.first(&names) {
        Some((Name::KeySymlink, strike)) => Form::Symlink(strike.text().map(Into::into)),
        Some((Name::KeyHardlink, strike)) => Form::Hardlink(strike.text().map(Into::into)),
        Some((Name::KeyFifo, _)) => Form::Fifo,
        Some((Name::KeySocket, _)) => Form::Socket,
        Some((Name::KeyDirectory, _)) => Form::Directory,
        Some((Name::KeyDevice, _)) => Form::Device,
        _ => Form::Regular,
    }
}

/// The 401 answer for a key, as the faults want it.
pub(crate) fn challenge(
    mut reply: Reply,
    key: Key,
    draw: &mut Draw,
    another: impl FnOnce(&mut Draw) -> io::Result<Key>,
) -> io::Result<Sent> {
    if let Some(strike) = draw.take(Name::ChallengeBody) {
        reply.body = strike.text_or("").into_bytes();
    }
    if let Some(strike) = draw.take(Name::ChallengeRetryAfter) {
        reply = reply.with_header("Retry-After", strike.text_or("0"));
    }
    if let Some(strike) = draw.take(Name::HugeHeader) {
        reply = reply.with_header("X-Huge", "x".repeat(strike.size().min(16 << 20)));
    }
    let odd_name = draw.first(&[
        Name::NoChallengeHeader,
        Name::LowerCaseHeader,
        Name::UpperCaseHeader,
    ]);
    let header = match odd_name.as_ref().map(|(name, _)| *name) {
        Some(Name::NoChallengeHeader) => return Ok(end(reply, draw)),
        Some(Name::LowerCaseHeader) => "www-authenticate",
        Some(Name::UpperCaseHeader) => "WWW-AUTHENTICATE",
        _ => "Www-Authenticate",
    };
    let second = if draw.hits(Name::TwoChallengeHeaders) {
        Some(another(draw)?)
    } else {
        None
    };
    for key in [Some(key), second].into_iter().flatten() {
        reply = reply.with_header(header, challenge_value(&key.path, draw));
    }
    if odd_name.is_some() {
        // hyper writes names in its own way.
        return Ok(Sent::Raw(Script::closing(
            reply.with_header("Connection", "close").bytes(),
        )));
    }
    Ok(end(reply, draw))
}

fn end(reply: Reply, draw: &mut Draw) -> Sent {
    match draw.first(&[Name::CloseAfterChallenge, Name::DropAfterChallenge]) {
        Some((Name::CloseAfterChallenge, _)) => closing(reply),
        Some(_) => Sent::Raw(Script::closing(reply.bytes())),
        None => reply.into(),
    }
}

fn challenge_value(path: &Path, draw: &mut Draw) -> String {
    let scheme = match draw.first(&[Name::OtherScheme, Name::LowerCaseScheme]) {
        Some((Name::OtherScheme, strike)) => strike.text_or("Bearer"),
        Some(_) => "basic".to_owned(),
        None => "Basic".to_owned(),
    };
    let spaces = if draw.hits(Name::TwoSpaces) {
        "  "
    } else {
        " "
    };
    let quote = if draw.hits(Name::QuotedRealm) {
        "\""
    } else {
        ""
    };
    let parameter = if draw.hits(Name::SecondParameter) {
        ", charset=\"UTF-8\""
    } else {
        ""
    };
    let space = if draw.hits(Name::TrailingSpace) {
        " "
    } else {
        ""
    };
    format!(
        "{scheme}{spaces}realm={quote}{}{quote}{parameter}{space}",
        realm(path, draw)
    )
}

fn realm(path: &Path, draw: &mut Draw) -> String {
    let plain = path.to_string_lossy().into_owned();
    let names = [
        Name::Realm,
        Name::RealmDotdot,
        Name::RealmRelative,
        Name::RealmNul,
    ];
    let Some((name, strike)) = draw.first(&names) else {
        return plain;
    };
    match name {
        Name::Realm => strike.text_or(""),
        Name::RealmRelative => plain.trim_start_matches('/').to_owned(),
        Name::RealmNul => plain.replace(".key", "\0.key"),
        _ => {
            let dir = path.parent().unwrap_or(Path::new("/"));
            let base = dir.file_name().unwrap_or_default();
            dir.join("..")
                .join(base)
                .join(path.file_name().unwrap_or_default())
                .to_string_lossy()
                .into_owned()
        }
    }
}
