use super::*;

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
    assert_eq!(settings.upstream.endpoint.to_string(), "127.0.0.1:40342");
    assert_eq!(settings.upstream.keys.dir, PathBuf::from(TOKENS_DIR));
    assert_eq!(settings.admin.mode, 0o600);
    assert_eq!(
        (settings.token.mode, settings.token.group.as_str()),
        (0o660, "arcbroker")
    );
    assert_eq!(settings.connections, (4096, 1024));
    assert!(settings.audit.required);
    assert_eq!(settings.identity, Identity::System);
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
fn owners_are_names_or_numbers_and_those_that_do_not_exist_are_left_out() {
    let text = "[upstream]\nowners = [\"root\", 1234, \"1235\", \"no such user\"]\n";
    assert_eq!(settings(text).upstream.owners, [0, 1234, 1235]);
    assert!(errors(text).contains("there is no such user"));
}

#[test]
fn records_that_are_required_need_a_file() {
    assert!(errors("[audit]\nfile = \"\"\n").contains("required = false"));
    let settings = settings("[audit]\nfile = \"\"\nrequired = false\n");
    assert_eq!(settings.audit.file, None);
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
fn kinds_that_are_not_offered_are_refused() {
    for (kind, good) in [
        ("auto", true),
        ("himds", true),
        ("imds", false),
        ("aws", false),
    ] {
        assert_eq!(
            errors(&format!("[upstream]\nkind = \"{kind}\"\n")).is_empty(),
            good,
            "{kind}"
        );
    }
}

#[test]
fn what_is_logged_is_a_choice() {
    assert!(
        errors("[log]\nlevel = \"loud\"\n").contains("\"error\", \"warn\", \"info\", \"debug\"")
    );
    assert_eq!(errors("[log]\nlevel = \"debug\"\nformat = \"json\"\n"), "");
}
