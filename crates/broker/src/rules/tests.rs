use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use arcbroker_policy::{Caller, Identity, Resource};
use nix::unistd::geteuid;
use tempfile::TempDir;

use super::*;
use crate::clock::Now;

const PUBLIC: &str = "https://vault.azure.net";
const US: &str = "https://vault.usgovcloudapi.net";
const CHINA: &str = "https://vault.azure.cn";

fn clock() -> Clock {
    Clock::from_fn(|| Now {
        wall: Duration::from_secs(7),
        boot: Duration::ZERO,
    })
}

fn write(dir: &TempDir, resources: &str) {
    // Only the owner may write to it, whatever the umask is.
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let path = dir.path().join("a.toml");
    let text =
        format!("version = 1\n[[rule]]\nname = \"a\"\nuser = 1\nresources = [{resources}]\n");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
}

fn start(resources: &str, place: Place) -> (TempDir, Reloader) {
    start_again(resources, place, None)
}

fn start_again(resources: &str, place: Place, kept: Option<Place>) -> (TempDir, Reloader) {
    let dir = tempfile::tempdir().unwrap();
    write(&dir, resources);
    let options = Options {
        dir: dir.path().to_owned(),
        owners: vec![geteuid().as_raw()],
        units: Ok(()),
    };
    let reloader = Reloader::start(options, no_shadow(), place, kept, clock()).unwrap();
    (dir, reloader)
}

fn allows(policy: &Policy, resource: &str) -> bool {
    let caller = Caller::new(1, 1, Vec::new());
    let resource = Resource::exact(resource).unwrap();
    policy.decide(&caller, &Identity::System, &resource).is_ok()
}

fn no_shadow() -> Options {
    Options {
        dir: "/nonexistent".into(),
        owners: vec![],
        units: Ok(()),
    }
}

#[test]
fn a_short_name_stands_for_what_it_is_in_the_cloud_that_becomes_known() {
    let (_dir, reloader) = start("\"keyvault\"", Place::Unknown);
    let before = Arc::clone(&reloader.watch().borrow());
    assert!(allows(&before.policy, PUBLIC) && !allows(&before.policy, US));
    assert!(allows(before.under(Cloud::UsGovernment), US));
    assert!(allows(before.under(Cloud::China), CHINA));
    assert!(!allows(before.under(Cloud::China), PUBLIC));

    reloader.settle(&Place::Unknown);
    assert!(!reloader.watch().borrow().place.is_settled());
    reloader.settle(&Place::Known(Cloud::UsGovernment));
    let after = Arc::clone(&reloader.watch().borrow());
    assert!(allows(&after.policy, US) && !allows(&after.policy, PUBLIC));
    assert_eq!(after.place, Place::Known(Cloud::UsGovernment));
    assert_eq!(after.policy.hash(), before.policy.hash(), "the same files");
    assert!(after.others.is_empty(), "the others are not kept");

    reloader.settle(&Place::Known(Cloud::China));
    assert!(
        allows(&reloader.watch().borrow().policy, US),
        "once and for all"
    );
}

#[tokio::test]
async fn a_reload_is_for_the_cloud_that_is_known_by_then() {
    let (dir, reloader) = start("\"keyvault\"", Place::Unknown);
    write(&dir, "\"keyvault\", \"arm\"");
    reloader.reload().await;
    let rules = Arc::clone(&reloader.watch().borrow());
    assert_eq!(rules.others.len(), 2);
    assert!(allows(
        rules.under(Cloud::China),
        "https://management.chinacloudapi.cn"
    ));

    reloader.settle(&Place::Known(Cloud::China));
    write(&dir, "\"keyvault\"");
    reloader.reload().await;
    let rules = Arc::clone(&reloader.watch().borrow());
    assert!(allows(&rules.policy, CHINA) && !allows(&rules.policy, PUBLIC));
    assert_eq!(rules.place, Place::Known(Cloud::China));
}

#[tokio::test]
async fn a_policy_that_is_of_no_use_in_the_cloud_keeps_the_old_one_loudly() {
    let (dir, reloader) = start("\"keyvault\", \"eventhubs\"", Place::Unknown);
    assert_eq!(reloader.watch().borrow().reload_error, None);
    reloader.settle(&Place::Known(Cloud::UsGovernment));
    let rules = Arc::clone(&reloader.watch().borrow());
    assert!(allows(&rules.policy, PUBLIC) && !allows(&rules.policy, US));
    let error = rules.reload_error.as_deref().unwrap();
    for part in [
        "AzureUSGovernmentCloud",
        "a.toml:5:26",
        "`eventhubs` is not known",
    ] {
        assert!(error.contains(part), "{error}");
    }

    write(&dir, "\"keyvault\"");
    reloader.reload().await;
    let rules = Arc::clone(&reloader.watch().borrow());
    assert!(allows(&rules.policy, US) && !allows(&rules.policy, PUBLIC));
    assert_eq!(rules.reload_error, None);
}

#[test]
fn a_start_in_the_cloud_that_is_known_from_before_is_as_if_it_had_been_told_since() {
    let kept = || Some(Place::Known(Cloud::UsGovernment));
    let (_dir, reloader) = start_again("\"keyvault\"", Place::Unknown, kept());
    let rules = Arc::clone(&reloader.watch().borrow());
    assert!(allows(&rules.policy, US) && !allows(&rules.policy, PUBLIC));
    assert_eq!(
        (&rules.place, &rules.reload_error),
        (&kept().unwrap(), &None)
    );

    let (_dir, reloader) = start_again("\"keyvault\", \"eventhubs\"", Place::Unknown, kept());
    let rules = Arc::clone(&reloader.watch().borrow());
    assert!(allows(&rules.policy, PUBLIC) && !allows(&rules.policy, US));
    let error = rules.reload_error.as_deref().unwrap();
    assert!(error.contains("`eventhubs` is not known"), "{error}");

    let configured = Place::Known(Cloud::China);
    let (_dir, reloader) = start_again("\"keyvault\"", configured.clone(), kept());
    assert_eq!(reloader.watch().borrow().place, configured);
}

#[tokio::test]
async fn what_an_earlier_reload_has_read_does_not_replace_what_a_later_one_has() {
    let (dir, reloader) = start("\"keyvault\"", Place::Known(Cloud::Public));
    let slow = load_each(&reloader.options, &[Cloud::Public]);
    reloader.begun.fetch_add(1, Ordering::Relaxed);
    write(&dir, "\"arm\"");
    reloader.reload().await;
    let now = reloader.watch().borrow().reload_answer();
    reloader.replace(1, |old| {
        Rules::new(slow, old.place.clone(), &reloader.clock)
    });
    assert_eq!(reloader.watch().borrow().reload_answer(), now);
    assert!(!allows(&reloader.watch().borrow().policy, PUBLIC));
}

#[tokio::test]
async fn a_command_is_told_what_is_in_force_and_why_the_files_are_not() {
    let (dir, reloader) = start("\"keyvault\"", Place::Known(Cloud::Public));
    let before = reloader.watch().borrow().reload_answer();
    assert_eq!((before.rules, &before.error), (1, &None));
    write(&dir, "\"nonsense\"");
    reloader.reload().await;
    let after = reloader.watch().borrow().reload_answer();
    assert_eq!((after.rules, &after.hash), (1, &before.hash));
    assert!(after.error.unwrap().contains("a.toml:5:14"));
}

#[test]
fn a_foreign_cloud_is_a_warning_and_changes_nothing_else() {
    let (_dir, reloader) = start("\"keyvault\"", Place::Unknown);
    assert!(reloader.watch().borrow().warnings.is_empty());
    reloader.settle(&Place::Foreign("AzureGermanCloud".into()));
    let rules = Arc::clone(&reloader.watch().borrow());
    assert!(allows(&rules.policy, PUBLIC));
    assert_eq!(rules.warnings.len(), 1);
    assert!(rules.warnings[0].contains("AzureGermanCloud"));
}

#[test]
fn a_configured_cloud_is_the_only_one_that_is_looked_at() {
    let (_dir, reloader) = start("\"keyvault\"", Place::Known(Cloud::China));
    let rules = Arc::clone(&reloader.watch().borrow());
    assert!(allows(&rules.policy, CHINA) && rules.others.is_empty());
    assert!(
        allows(rules.under(Cloud::Public), CHINA),
        "no other is known of"
    );

    let dir = tempfile::tempdir().unwrap();
    write(&dir, "\"eventhubs\"");
    let options = Options {
        dir: dir.path().to_owned(),
        owners: vec![geteuid().as_raw()],
        units: Ok(()),
    };
    let place = Place::Known(Cloud::China);
    let error = Reloader::start(options, no_shadow(), place, None, clock()).unwrap_err();
    assert!(
        error.contains("`eventhubs` is not known in AzureChinaCloud"),
        "{error}"
    );
}
