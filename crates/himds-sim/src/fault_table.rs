//! Every fault there is: its name, when it strikes, what value it takes and what it does.

use std::fmt;

/// One fault that the simulator can be told to have.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// Its name, as in `--fault NAME`.
    pub name: &'static str,
    /// Which requests it strikes.
    pub stage: Stage,
    /// The value that it takes.
    pub takes: Takes,
    /// What it does.
    pub about: &'static str,
}

/// Which requests a fault strikes, and counts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stage {
    /// A new connection.
    Connection,
    /// Any request below `/metadata`.
    Metadata,
    /// A token request without a key; under IMDS, any token request.
    First,
    /// A token request with a good key.
    Second,
    /// A token request with a key that is not good.
    BadKey,
    /// The 401 answer.
    Challenge,
    /// The making of a key file.
    Key,
    /// The 200 answer with a token.
    Token,
    /// A request for instance metadata.
    Instance,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connection => "connection",
            Self::Metadata => "metadata",
            Self::First => "first",
            Self::Second => "second",
            Self::BadKey => "bad key",
            Self::Challenge => "challenge",
            Self::Key => "key",
            Self::Token => "token",
            Self::Instance => "instance",
        })
    }
}

/// The value that a fault takes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Takes {
    /// None.
    Nothing,
    /// A whole number.
    Number,
    /// A whole number, or none for this one.
    NumberOr(u64),
    /// An HTTP status from 200 to 599, and perhaps a `Retry-After` value: `503,5`.
    Status,
    /// Permission bits in octal.
    Octal,
    /// Any text.
    Text,
    /// Any text, or none.
    MaybeText,
}

impl fmt::Display for Takes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => Ok(()),
            Self::Number => f.write_str("=N"),
            Self::NumberOr(default) => write!(f, "[=N], {default}"),
            Self::Status => f.write_str("=CODE[,RETRY-AFTER]"),
            Self::Octal => f.write_str("=OCTAL"),
            Self::Text => f.write_str("=TEXT"),
            Self::MaybeText => f.write_str("[=TEXT]"),
        }
    }
}

/// All faults, in the order of the README's table.
pub fn all() -> impl Iterator<Item = &'static Spec> {
    Name::ALL.iter().map(|name| name.spec())
}

macro_rules! faults {
    ($($variant:ident $name:literal $stage:ident $takes:expr, $about:literal;)*) => {
        /// A fault that exists.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub(crate) enum Name { $($variant),* }

        impl Name {
            pub(crate) const ALL: &'static [Self] = &[$(Self::$variant),*];

            pub(crate) const fn spec(self) -> &'static Spec {
                match self {
                    $(Self::$variant => const {
                        &Spec { name: $name, stage: Stage::$stage, takes: $takes, about: $about }
                    }),*
                }
            }

            pub(crate) fn named(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

use Takes::{MaybeText, Nothing, Number, NumberOr, Octal, Status, Text};

faults! {
    ResetOnAccept "reset-on-accept" Connection Nothing, "the connection is reset as soon as it is accepted";
    NeverRead "never-read" Connection Nothing, "the connection is accepted and never read";

    Starting "starting" Metadata MaybeText, "503 `service_unavailable`; TEXT is the `Retry-After`";
    IdentityInfo "himds-identity-info" Metadata Nothing, "HIMDS answers `/metadata/identity/info` as IMDS does, instead of 404";

    FirstDelay "first-delay" First Number, "the answer comes N ms late";
    FirstHang "first-hang" First Nothing, "no answer ever comes";
    FirstClose "first-close" First Nothing, "the connection is closed instead of an answer";
    FirstReset "first-reset" First Nothing, "the connection is reset instead of an answer";
    FirstStatus "first-status" First Status, "an error answer with this status";
    Throttle "throttle" First MaybeText, "429; TEXT is the `Retry-After`";
    Redirect "redirect" First MaybeText, "302 to TEXT, or to a path of this server";
    DirectToken "direct-token" First Nothing, "200 with a token, without a challenge";
    FirstHttp09 "first-http09" First Nothing, "the body alone, without a status line, as in HTTP/0.9";
    FirstInformational "first-informational" First Number, "N answers `100 Continue` before the real one";
    FirstTrickle "first-trickle" First Number, "the answer comes one byte every N ms";
    FirstCut "first-cut" First Nothing, "the connection is closed after half of the answer";
    FirstChunkedLie "first-chunked-lie" First Nothing, "a chunked answer whose chunk sizes are wrong";
    FirstLengthLie "first-length-lie" First Nothing, "`Content-Length` promises 100 bytes more than come";

    SecondDelay "second-delay" Second Number, "the answer comes N ms late";
    SecondHang "second-hang" Second Nothing, "no answer ever comes";
    SecondClose "second-close" Second Nothing, "the connection is closed instead of an answer";
    SecondReset "second-reset" Second Nothing, "the connection is reset instead of an answer";
    SecondStatus "second-status" Second Status, "an error answer with this status; the key is used up";
    SecondThrottle "second-throttle" Second MaybeText, "429; TEXT is the `Retry-After`";
    SecondRedirect "second-redirect" Second MaybeText, "302 to TEXT, or to a path of this server";
    SecondChallenge "second-challenge" Second Nothing, "401 with another challenge, as if the key were bad";
    Disconnected "disconnected" Second NumberOr(500), "Azure cannot be reached: status N; instance metadata is still served";
    SecondHttp09 "second-http09" Second Nothing, "the body alone, without a status line, as in HTTP/0.9";
    SecondInformational "second-informational" Second Number, "N answers `100 Continue` before the real one";
    SecondTrickle "second-trickle" Second Number, "the answer comes one byte every N ms";
    SecondCut "second-cut" Second Nothing, "the connection is closed after half of the answer";
    SecondChunkedLie "second-chunked-lie" Second Nothing, "a chunked answer whose chunk sizes are wrong";
    SecondLengthLie "second-length-lie" Second Nothing, "`Content-Length` promises 100 bytes more than come";

    BadKeyStatus "bad-key-status" BadKey Status, "an error answer with this status, instead of another challenge";

    CloseAfterChallenge "close-after-challenge" Challenge Nothing, "the 401 says `Connection: close`, and the connection is closed";
    DropAfterChallenge "drop-after-challenge" Challenge Nothing, "the connection is closed after the 401 without a word";
    NoChallengeHeader "no-challenge-header" Challenge Nothing, "401 without `Www-Authenticate`";
    TwoChallengeHeaders "two-challenge-headers" Challenge Nothing, "`Www-Authenticate` twice, each with its own good key file";
    OtherScheme "other-scheme" Challenge MaybeText, "the scheme is TEXT, or `Bearer`";
    LowerCaseScheme "lower-case-scheme" Challenge Nothing, "the scheme is written `basic`";
    LowerCaseHeader "lower-case-name" Challenge Nothing, "the header's name is written `www-authenticate`";
    UpperCaseHeader "upper-case-name" Challenge Nothing, "the header's name is written `WWW-AUTHENTICATE`";
    QuotedRealm "quoted-realm" Challenge Nothing, "the realm is in double quotes";
    SecondParameter "second-parameter" Challenge Nothing, "`, charset=\"UTF-8\"` after the realm";
    TwoSpaces "two-spaces" Challenge Nothing, "two spaces after the scheme";
    TrailingSpace "trailing-space" Challenge Nothing, "a space after the realm";
    HugeHeader "huge-header" Challenge NumberOr(65536), "one more header of N bytes";
    ChallengeBody "challenge-body" Challenge MaybeText, "the 401's body is TEXT, or empty";
    ChallengeRetryAfter "challenge-retry-after" Challenge Text, "the 401 has a `Retry-After`";
    Realm "realm" Challenge Text, "the realm is TEXT";
    RealmDotdot "realm-dotdot" Challenge Nothing, "the realm goes up and down again with `..`, to the good file";
    RealmRelative "realm-relative" Challenge Nothing, "the realm lacks its leading slash";
    RealmNul "realm-nul" Challenge Nothing, "a NUL byte stands before the realm's `.key`";
    RealmOtherDirectory "realm-other-directory" Challenge MaybeText, "the good file is in directory TEXT, or in the one above";
    RealmExtension "realm-extension" Challenge MaybeText, "the good file's extension is TEXT, or `txt`";

    KeySymlink "key-symlink" Key MaybeText, "the key is a symbolic link to TEXT, or to the good file";
    KeyHardlink "key-hardlink" Key MaybeText, "the key is a hard link to TEXT, or a second name of the good file";
    KeyFifo "key-fifo" Key Nothing, "the key is a FIFO that nobody writes to";
    KeySocket "key-socket" Key Nothing, "the key is a socket";
    KeyDirectory "key-directory" Key Nothing, "the key is a directory";
    KeyDevice "key-device" Key Nothing, "the key is a character device like /dev/zero (needs root)";
    KeyMissing "key-missing" Key Nothing, "the key is never written";
    KeyLate "key-late" Key Number, "the key is written N ms after the 401";
    KeyRemoved "key-removed" Key NumberOr(0), "the key is removed N ms after the 401";
    KeyMode "key-mode" Key Octal, "the key has these permission bits";
    KeyOwner "key-owner" Key Text, "the key is owned by TEXT, a user's name or number (needs root)";
    KeyEmpty "key-empty" Key Nothing, "the key is empty";
    KeySize "key-size" Key Number, "the key has N bytes; above 65536 they are a hole";
    KeyNewline "key-newline" Key Nothing, "a newline ends the file; the key is good without it";
    KeyCrlf "key-crlf" Key Nothing, "the key has CR LF and a header line inside";
    KeyBinary "key-binary" Key Nothing, "the key is 64 bytes that are not ASCII";
    KeyRotated "key-rotated" Key Nothing, "the file's content is no longer good when it is sent";
    SameKey "same-key" Key Nothing, "file name and key are those of the previous challenge with this fault";

    BodyGarbage "body-garbage" Token Nothing, "200 with bytes that are not text";
    BodyTruncated "body-truncated" Token Nothing, "200 with half of the JSON";
    BodyHuge "body-huge" Token NumberOr(2_097_152), "200 with good JSON, filled up with spaces to N bytes";
    BodyHtml "body-html" Token Nothing, "200 with a page of HTML";
    BodyEmpty "body-empty" Token Nothing, "200 without a body";
    BodyArray "body-array" Token Nothing, "200 with JSON that is not an object";
    BodyTrailing "body-trailing" Token Nothing, "200 with garbage after the JSON";
    BodyDuplicateKeys "body-duplicate-keys" Token Nothing, "every field comes twice, first with another value";
    BodyNan "body-nan" Token Nothing, "`expires_on` is `NaN`, without quotes";
    BodyGzip "body-gzip" Token Nothing, "`Content-Encoding: gzip` on a body that is not";
    NoExpiry "no-expiry" Token Nothing, "neither `expires_in` nor `expires_on`";
    OnlyExpiresIn "only-expires-in" Token Nothing, "no `expires_on`";
    OnlyExpiresOn "only-expires-on" Token Nothing, "no `expires_in`";
    ExpiresOn "expires-on" Token Text, "`expires_on` is the string TEXT, and `expires_in` is missing";
    ExpiresOnNumber "expires-on-number" Token Nothing, "`expires_on` and `expires_in` are JSON numbers";
    ExpiresOnFloat "expires-on-float" Token Nothing, "`expires_on` and `expires_in` are JSON numbers with a fraction";
    Expired "expired" Token Nothing, "a token that expired an hour ago, and says so";
    ShortLifetime "short-lifetime" Token Number, "a new token that lives N s";
    WrongResource "wrong-resource" Token MaybeText, "a token for the resource TEXT, or for another one";
    WrongAudience "wrong-audience" Token MaybeText, "the token's `aud` is TEXT, or another resource; `resource` is right";
    NotBearer "not-bearer" Token MaybeText, "`token_type` is TEXT, or `PoP`";
    EmptyAccessToken "empty-access-token" Token Nothing, "`access_token` is empty";
    NoAccessToken "no-access-token" Token Nothing, "`access_token` is missing";
    NonAsciiAccessToken "non-ascii-access-token" Token Nothing, "`access_token` has letters beyond ASCII";
    CrlfAccessToken "crlf-access-token" Token Nothing, "`access_token` has CR LF and a header line inside";
    HugeAccessToken "huge-access-token" Token NumberOr(1_048_576), "`access_token` has N bytes";
    OtherTenant "other-tenant" Token Nothing, "a token of another tenant";
    OtherIdentity "other-identity" Token Nothing, "a token of another identity (`oid`, `appid`, `xms_mirid`)";
    SameToken "same-token" Token Nothing, "the cached token, whatever the request says and however old it is";
    FreshToken "fresh-token" Token Nothing, "a new token, whatever is cached";
    NoEcho "no-echo" Token Nothing, "the user-assigned identity is not echoed";
    OtherEcho "other-echo" Token MaybeText, "the echo names TEXT, or another identity";

    InstanceDelay "instance-delay" Instance Number, "the answer comes N ms late";
    InstanceStatus "instance-status" Instance Status, "an error answer with this status";
    InstanceHang "instance-hang" Instance Nothing, "no answer ever comes";
    InstanceOtherMachine "instance-other-machine" Instance Nothing, "metadata of a machine of another name and subscription";
}
