//! Challenges that no HIMDS would send: refused, without the file being opened, and without a word
//! of them being told.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};

use arcbroker_e2e::{Setup, Trace, World, eventually, is_root, skip_unless_root};
use himds_sim::Fault;

/// Both in names and in contents, so that it shows wherever either comes out.
const CANARY: &str = "CANARY";

struct Range {
    world: World,
    trace: Trace,
    /// Resources that were asked for, in the form of a query.
    resources: Vec<String>,
    /// What callers were told.
    told: String,
    /// Names of the key files that challenges were about.
    keys: Vec<String>,
}

impl Range {
    async fn start(test: &str) -> Self {
        let trace = Trace::new(test);
        let setup = Setup {
            policy: World::anything(),
            wrapper: trace.wrapper(),
            ..Setup::default()
        };
        let world = World::with(setup).await;
        let (resources, told, keys) = (Vec::new(), String::new(), Vec::new());
        Self {
            world,
            trace,
            resources,
            told,
            keys,
        }
    }

    /// A key that would be good in every other respect.
    fn plant(&self, name: &str) -> String {
        let path = self.world.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, format!("{CANARY}-CONTENT")).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        path.display().to_string()
    }

    /// Asks for a token of its own while the fault is in force.
    async fn refuse(&mut self, name: &str, value: Option<&str>) {
        let resource = format!("https%3A%2F%2Fcase-{}.example", self.resources.len());
        self.world.simulator().clear_journal();
        self.world
            .simulator()
            .set_fault(Fault::new(name, value).unwrap());
        let answer = self.world.token(&resource).await;
        self.world.simulator().clear_faults();

        let what = format!("{name}={value:?}: {answer:?}");
        assert_eq!(
            (answer.status, answer.error().as_str()),
            (502, "server_error"),
            "{what}"
        );
        assert!(
            answer
                .header("content-type")
                .unwrap()
                .starts_with("application/json"),
            "{what}"
        );
        let asked = self.world.asked();
        assert!(
            self.world.with_key().is_empty(),
            "{what}: something was sent: {asked:?}"
        );
        // One more challenge at most: the first may have been a race with HIMDS.
        assert!(matches!(asked.len(), 1 | 2), "{what}: {asked:?}");
        self.keys
            .extend(asked.into_iter().filter_map(|entry| entry.key));
        self.told.push_str(&answer.body);
        self.resources.push(resource);
    }

    /// Nothing came of all that, and all is well as soon as the challenges are. `opened` are the
    /// keys that take a look inside to know.
    async fn end(mut self, opened: &[String]) {
        let said = self.told + &self.world.said().await;
        for secret in self
            .keys
            .iter()
            .map(String::as_str)
            .chain([CANARY, "etc/shadow", "eyJ"])
        {
            assert!(!said.contains(secret), "{secret} was told");
        }
        let status = self.world.status().await;
        assert!(
            status.tokens.iter().all(|token| token.expires_on.is_none()),
            "{status:?}"
        );

        self.world.simulator().clear_journal();
        assert_eq!(
            self.world.token("https%3A%2F%2Fafter.example").await.status,
            200
        );
        // The first failure was remembered for longest.
        eventually("the failure is forgotten", || async {
            self.world.token(&self.resources[0]).await.status == 200
        })
        .await;
        assert_eq!(self.world.simulator().challenges(), 2);
        let good = self.world.asked()[0].key.clone().unwrap();
        let Some(trace) = self.trace.calls(&mut self.world).await else {
            return;
        };
        assert!(trace.contains(&good), "the trace shows no key at all");
        for name in self
            .keys
            .iter()
            .map(String::as_str)
            .chain([CANARY, "etc/shadow"])
        {
            let may_be = opened.iter().any(|key| key == name);
            assert_eq!(
                trace.contains(name),
                may_be,
                "{name} was opened: {may_be} would be right"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn u03_t7_a_realm_that_leads_elsewhere_is_refused_and_nothing_is_opened() {
    let mut range =
        Range::start("u03_t7_a_realm_that_leads_elsewhere_is_refused_and_nothing_is_opened").await;
    let tokens = range.world.path("tokens").display().to_string();
    let inside = range.plant("tokens/CANARY.key");
    let outside = range.plant("elsewhere/CANARY.key");
    range.plant("tokens/sub/CANARY.key");
    range.plant("tokens-CANARY/CANARY.key");
    range.plant("tokens/.CANARY.key");
    range.plant("tokens/CANARY.key.txt");
    range.plant("tokens/CANARY");
    let realms = [
        "/etc/shadow",
        "/proc/self/environ",
        "/dev/zero",
        "",
        "/",
        &tokens,
        &outside,
        &format!("{tokens}/../tokens/CANARY.key"),
        &format!("{tokens}/../elsewhere/CANARY.key"),
        &format!("{tokens}/sub/CANARY.key"),
        &format!("{tokens}/./CANARY.key"),
        &format!("{tokens}//CANARY.key"),
        &format!("/{inside}"),
        &format!("{tokens}-CANARY/CANARY.key"),
        &format!("{tokens}/.CANARY.key"),
        &format!("{tokens}/CANARY.key.txt"),
        &format!("{tokens}/CANARY"),
        &format!("{tokens}/CANARY.key/"),
        &format!("{tokens}/CANARY.key%00"),
        &format!("{tokens}/%43ANARY.key"),
        &format!("{tokens}/CANARY*.key"),
        &format!("{tokens}/CANARY\\.key"),
        &format!("{tokens}/{}.key", CANARY.repeat(30)),
        &format!("/{}{tokens}/CANARY.key", "x/../".repeat(1000)),
        &format!("{inside}=CANARY"),
        &format!("{inside} CANARY"),
        &inside.replace("CANARY.key", "CANARY\t.key"),
        &format!("{inside}, realm={outside}"),
        &format!("file://{inside}"),
        "CANARY.key",
        "./tokens/CANARY.key",
        "~/CANARY.key",
    ];
    for realm in realms {
        range.refuse("realm", Some(realm)).await;
    }
    range.end(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hu6_a_challenge_of_another_form_is_refused_and_nothing_is_opened() {
    let mut range =
        Range::start("hu6_a_challenge_of_another_form_is_refused_and_nothing_is_opened").await;
    for (name, value) in [
        ("quoted-realm", None),
        ("second-parameter", None),
        ("two-spaces", None),
        ("other-scheme", None),
        ("other-scheme", Some("Basic realm=/CANARY, Basic")),
        ("no-challenge-header", None),
        ("two-challenge-headers", None),
        ("realm-dotdot", None),
        ("realm-relative", None),
        ("realm-extension", None),
        ("realm-other-directory", None),
    ] {
        range.refuse(name, value).await;
    }
    range.end(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn u05_u06_hu8_hu9_t7_i25_only_a_small_regular_file_with_one_name_is_opened() {
    let test = "u05_u06_hu8_hu9_t7_i25_only_a_small_regular_file_with_one_name_is_opened";
    let mut range = Range::start(test).await;
    let secret = range.plant("CANARY");
    for (name, value) in [
        ("key-symlink", None),
        ("key-symlink", Some(secret.as_str())),
        ("key-symlink", Some("/etc/shadow")),
        ("key-symlink", Some("/proc/self/mem")),
        ("key-hardlink", None),
        ("key-hardlink", Some(secret.as_str())),
        ("key-fifo", None),
        ("key-socket", None),
        ("key-directory", None),
        ("key-empty", None),
        ("key-size", Some("0")),
        ("key-size", Some("4097")),
        ("key-size", Some("1000000000")),
        ("key-mode", Some("646")),
    ] {
        range.refuse(name, value).await;
    }
    if !skip_unless_root(&format!("a part of {test}")) {
        range.refuse("key-device", None).await;
        range.refuse("key-owner", Some("64010")).await;
    }
    // What is no header value is not sent either, but takes a look inside to know.
    let before = range.keys.len();
    for name in ["key-crlf", "key-binary"] {
        range.refuse(name, None).await;
    }
    let opened = range.keys[before..].to_vec();
    range.end(&opened).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hu7_a_tokens_directory_that_others_may_write_to_is_not_used() {
    let test = "hu7_a_tokens_directory_that_others_may_write_to_is_not_used";
    let mut range = Range::start(test).await;
    let dir = range.world.path("tokens");
    fs::set_permissions(&dir, Permissions::from_mode(0o2757)).unwrap();
    range.refuse("key-newline", None).await;
    let failure = range.world.status().await.upstream.last_failure.unwrap();
    assert!(failure.contains("writable by everybody"), "{failure}");
    fs::set_permissions(&dir, Permissions::from_mode(0o2750)).unwrap();
    if !skip_unless_root(&format!("a part of {test}")) {
        chown(&dir, Some(64_010), None).unwrap();
        range.refuse("key-newline", None).await;
        let failure = range.world.status().await.upstream.last_failure.unwrap();
        assert!(failure.contains("uid 64010"), "{failure}");
        chown(&dir, Some(0), None).unwrap();
        fs::set_permissions(&dir, Permissions::from_mode(0o2750)).unwrap();
    }
    assert!(!is_root() || range.resources.len() == 2);
    range.end(&[]).await;
}
