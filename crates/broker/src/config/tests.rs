use std::path::Path;

use super::*;
use crate::detect::Choice;
use crate::kind::Kind;

fn errors(text: &str) -> String {
    let mut diagnostics = Diagnostics::new();
    let settings = read("broker.toml", text.as_bytes(), &mut diagnostics);
    assert_eq!(
        settings.is_none(),
        diagnostics.has_errors(),
        "{diagnostics}"
    );
    diagnostics.to_string()
}

fn settings(text: &str) -> Settings {
    read("broker.toml", text.as_bytes(), &mut Diagnostics::new()).unwrap()
}

#[test]
fn an_empty_file_is_all_defaults() {
    let settings = settings("");
    assert_eq!(
        settings.upstream.himds.endpoint.to_string(),
        "127.0.0.1:40342"
    );
    assert_eq!(
        settings.upstream.himds.keys.dir,
        PathBuf::from(upstream::TOKENS_DIR)
    );
    assert_eq!(settings.admin.mode, 0o600);
    assert_eq!(
        (settings.token.mode, settings.token.group.as_str()),
        (0o660, "arcbroker")
    );
    let limits = settings.limits;
    assert_eq!(
        (limits.all, limits.per_user, limits.per_unit),
        (4096, 1024, 1024)
    );
    let rates = (limits.requests.per_user, limits.requests.per_unit);
    assert_eq!(rates, (0, 0), "no limit");
    assert!(settings.audit.required);
    assert_eq!(settings.identity, Identity::System);
}

#[test]
fn the_file_that_ships_has_every_key_at_its_default() {
    let shipped = include_str!("../../../../packaging/broker.toml");
    let mut diagnostics = Diagnostics::new();
    let shipped = read("broker.toml", shipped.as_bytes(), &mut diagnostics).unwrap();
    // A machine without the agent has no user of its name.
    let others = |text: &String| !text.contains("there is no such user");
    let told: Vec<_> = diagnostics
        .iter()
        .map(ToString::to_string)
        .filter(others)
        .collect();
    assert!(told.is_empty(), "{told:?}");
    assert_eq!(format!("{shipped:?}"), format!("{:?}", settings("")));
}

#[test]
fn all_mistakes_are_told_at_once_and_where_they_are() {
    let text = "[upstream]\nhimds-endpoint = \"http://10.0.0.1:40342\"\n[sockets]\ntoken-mode = \"rw\"\n[auditt]\n";
    let errors = errors(text);
    for expected in [
        "broker.toml:2:18: this is not a loopback address",
        "broker.toml:4:14: this is not a file mode",
        "broker.toml:5:2: unknown",
        "3 errors",
    ] {
        assert!(errors.contains(expected), "{errors}");
    }
}

#[test]
fn an_endpoint_is_a_literal_loopback_address() {
    let set = |value: &str| errors(&format!("[upstream]\nhimds-endpoint = \"{value}\"\n"));
    for good in [
        "http://127.0.0.1:40342",
        "http://127.0.0.1:1/",
        "http://[::1]:40342",
        "http://127.9.9.9:5",
    ] {
        assert_eq!(set(good), "", "{good}");
    }
    for bad in [
        "http://localhost:40342",
        "https://127.0.0.1:40342",
        "127.0.0.1:40342",
        "http://127.0.0.1:1/x",
        "http://0.0.0.0:1",
        "http://[::]:1",
        "",
    ] {
        assert!(set(bad).contains("broker.toml:2:18"), "{bad}");
    }
}

#[test]
fn owners_are_names_or_numbers_and_those_that_do_not_exist_are_told() {
    let owners = "owners = [\"root\", 1234, \"1235\", \"no such user\", 4294967296]\n";
    let upstream = format!("[upstream]\n{owners}");
    let found = settings(&upstream).upstream.himds.owners;
    assert_eq!(
        format!("{found:?}"),
        r#"[1234, 1235, "root", "no such user"]"#
    );
    assert!(found.contains(0) && found.contains(1234) && found.contains(1235));
    let policy = format!("[policy]\n{owners}");
    assert_eq!(settings(&policy).policy.owners, [0, 1234, 1235]);
    for (text, said) in [
        (upstream, "it is looked up again"),
        (policy, "it is left out"),
    ] {
        let told = errors(&text);
        assert!(
            told.contains("there is no such user") && told.contains(said),
            "{told}"
        );
    }
}

#[test]
fn records_that_are_required_need_a_place() {
    let none = "[audit]\nfile = \"\"\njournald = false\n";
    assert!(errors(none).contains("required = false"));
    let audit = settings(&format!("{none}required = false\n")).audit;
    assert_eq!((audit.file, audit.journal), (None, None));
    let audit = settings("[audit]\nfile = \"\"\n").audit;
    assert_eq!(audit.journal, Some(PathBuf::from(JOURNAL_SOCKET)));
    assert!(errors("[audit]\njournal-socket = \"s\"\n").contains("absolute path"));
}

#[test]
fn the_default_identity_can_be_a_user_assigned_one() {
    let id = "client-id:11111111-2222-3333-4444-555555555555";
    assert_eq!(
        settings(&format!("[upstream]\nidentity = \"{id}\"\n"))
            .identity
            .to_string(),
        id
    );
    assert!(errors("[upstream]\nidentity = \"me\"\n").contains("broker.toml:2:12"));
}

#[test]
fn a_kind_is_configured_or_found_out() {
    for (kind, choice) in [
        ("auto", Choice::undecided()),
        ("himds", Choice::configured(Kind::Himds)),
        ("imds", Choice::configured(Kind::Imds)),
    ] {
        let text = format!("[upstream]\nkind = \"{kind}\"\n");
        assert_eq!(settings(&text).upstream.choice, choice);
        assert_eq!(errors(&text), "");
    }
    let errors = errors("[upstream]\nkind = \"aws\"\n");
    assert!(
        errors.contains("write one of \"auto\", \"himds\", \"imds\""),
        "{errors}"
    );
}

#[test]
fn imds_is_at_its_own_address_or_on_loopback() {
    let set = |value: &str| errors(&format!("[upstream]\nimds-endpoint = \"{value}\"\n"));
    for good in [
        "http://169.254.169.254",
        "http://169.254.169.254:80/",
        "http://169.254.169.254:8080",
        "http://127.0.0.1:5",
        "http://[::1]:5",
    ] {
        assert_eq!(set(good), "", "{good}");
    }
    for bad in [
        "http://169.254.169.253",
        "http://10.0.0.1",
        "http://[fe80::1]:80",
        "http://[::ffff:169.254.169.254]",
        "http://metadata",
        "https://169.254.169.254",
    ] {
        assert!(set(bad).contains("broker.toml:2:17"), "{bad}");
    }
}

#[test]
fn the_cloud_has_the_names_of_the_instance_metadata() {
    for (name, cloud) in [
        ("auto", None),
        ("AzurePublicCloud", Some(Cloud::Public)),
        ("AzureUSGovernmentCloud", Some(Cloud::UsGovernment)),
        ("AzureChinaCloud", Some(Cloud::China)),
    ] {
        let text = format!("[upstream]\ncloud = \"{name}\"\n");
        assert_eq!(settings(&text).cloud, cloud);
    }
    let errors = errors("[upstream]\ncloud = \"AzureGermanCloud\"\n");
    assert!(
        errors.contains("broker.toml:2:9") && errors.contains("AzureChinaCloud"),
        "{errors}"
    );
}

#[test]
fn no_more_is_asked_of_imds_than_it_takes() {
    let text = |kind| format!("[upstream]\nkind = \"{kind}\"\nfetches-per-second = 21\n");
    assert_eq!(settings(&text("himds")).turns.per_second, 21);
    assert_eq!(settings(&text("auto")).turns.per_second, 21);
    assert_eq!(settings(&text("imds")).turns.per_second, 20);
    let warning = errors(&text("imds"));
    assert!(
        warning.contains("broker.toml:3:22") && warning.contains("no more than 20"),
        "{warning}"
    );
    assert_eq!(errors(&text("auto")), "");
}

#[test]
fn what_is_logged_is_a_choice() {
    assert!(
        errors("[log]\nlevel = \"loud\"\n").contains("\"error\", \"warn\", \"info\", \"debug\"")
    );
    assert_eq!(errors("[log]\nlevel = \"debug\"\nformat = \"json\"\n"), "");
}

#[test]
fn the_daemon_is_held_to_what_the_configuration_names() {
    let dir = tempfile::tempdir().unwrap();
    let [policy, more, run] = ["policy", "more", "run"].map(|name| dir.path().join(name));
    for dir in [&policy, &run] {
        std::fs::create_dir(dir).unwrap();
    }
    let text = format!(
        "[upstream]\nhimds-endpoint = \"http://127.0.0.1:7\"\n[policy]\ndir = {:?}\n[sockets]\ntoken = {:?}\n\
         [sandbox]\nread = {more:?}\n",
        policy.join("policy.d"),
        run.join("token.sock"),
    );
    let settings = settings(&text);
    assert!(settings.sandbox.landlock);
    let bounds = settings.bounds(false);
    for dir in [&policy, &more] {
        assert!(bounds.read.contains(dir), "{bounds:?}");
    }
    assert!(bounds.write.contains(&run));
    assert_eq!(bounds.connect, [7, 80]);
    assert!(
        !settings.bounds(true).write.contains(&run),
        "it binds no sockets then"
    );
    assert!(errors("[sandbox]\nread = \"relative\"\n").contains("not an absolute path"));
    assert_eq!(errors("[sandbox]\nread = []\n"), "");
}

#[test]
fn the_daemon_is_held_to_the_kind_that_is_configured() {
    let dir = tempfile::tempdir().unwrap();
    let tokens = dir.path().join("azcmagent/tokens");
    let chassis = Path::new("/").join(detect::CHASSIS_DIR);
    for (kind, ports, is_agent, is_looked_for) in [
        ("auto", &[40342, 80][..], true, true),
        ("himds", &[40342], true, false),
        ("imds", &[80], false, false),
    ] {
        let text = format!("[upstream]\nkind = \"{kind}\"\ntokens-dir = {tokens:?}\n");
        let bounds = settings(&text).bounds(true);
        assert_eq!(bounds.connect, ports, "{kind}");
        let reads = |dir: &Path| bounds.read.iter().any(|read| read == dir);
        assert_eq!(reads(dir.path()), is_agent, "{kind}: {bounds:?}");
        assert_eq!(reads(&chassis), is_looked_for, "{kind}: {bounds:?}");
    }
}

#[test]
fn the_names_of_all_that_is_held_fit_into_one_variable_of_the_environment() {
    // A terminating zero and the variable's own name count too.
    const MOST: usize = 128 * 1024 - "LISTEN_FDNAMES=".len() - 1;
    let endpoint = crate::keep::PREFIX.len() + 2 * crate::keep::NAME + ":".len();
    let token = "token.0123456789abcdef.18446744073709551615:".len();
    let others = "token:admin:machine.cloud:".len();
    let endpoints = usize::try_from(MOST_ENDPOINTS).unwrap();
    assert!(3 * endpoints * endpoint + 257 * token + others <= MOST);
    let too_many = format!("[limits]\nendpoints = {}\n", MOST_ENDPOINTS + 1);
    assert!(errors(&too_many).contains("from 1 to 2048"));
}
