//! A second policy that is judged beside the one in force: it decides nothing, and what it would
//! have decided otherwise is counted.
//!
//! So a policy can be tried on real requests for a week before it is put in force.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use arcbroker_client::wire::{ShadowDifference, ShadowStatus};
use arcbroker_policy::{Cloud, Diagnostics, Identity, Policy, Resource};
use arcbroker_policy_files::{Options, has_files, load};

use crate::clock::Now;
use crate::lock::lock;
use crate::peer::Peer;

/// Differences that are counted one by one; those of further rules are only in the totals.
const MOST: usize = 1024;

/// Those that `status` shows.
const SHOWN: usize = 20;

/// The policy that is tried.
#[derive(Debug)]
pub struct Shadow {
    dir: String,
    loaded: Result<Judge, Arc<str>>,
    /// Shared by those of the same files.
    tally: Arc<Mutex<Tally>>,
}

#[derive(Debug)]
struct Judge {
    policy: Policy,
    warnings: Vec<String>,
}

#[derive(Debug, Default)]
struct Tally {
    gained: u64,
    lost: u64,
    by_rule: HashMap<(Arc<str>, bool), Difference>,
}

#[derive(Debug)]
struct Difference {
    count: u64,
    /// Unix seconds.
    last_at: u64,
    /// Who, and for what, the last time.
    uid: u32,
    unit: Option<String>,
    resource: String,
}

/// One request, and which rule of the policy in force allowed it.
#[derive(Clone, Copy, Debug)]
pub struct Judged<'r> {
    /// Who asked.
    pub peer: &'r Peer,
    /// As whom.
    pub identity: &'r Identity,
    /// For what.
    pub resource: &'r Resource,
    /// By the policy in force.
    pub rule: Option<&'r str>,
}

impl Shadow {
    /// Loads it, if there is any file. What was counted goes on being counted while the files stay
    /// the same; what names in them stand for may be something else by now. Blocks.
    pub fn load(options: &Options, cloud: Cloud, before: Option<&Arc<Self>>) -> Option<Arc<Self>> {
        if !has_files(options) {
            return None;
        }
        let mut diagnostics = Diagnostics::new();
        let loaded = match load(options, cloud, &mut diagnostics) {
            Some(policy) => Ok(Judge {
                policy,
                warnings: diagnostics.iter().map(ToString::to_string).collect(),
            }),
            None => Err(diagnostics.to_string().into()),
        };
        let new = Self {
            dir: options.dir.display().to_string(),
            loaded,
            tally: Arc::default(),
        };
        match before {
            Some(before) if before.is_the_same(&new) => Some(Arc::new(Self {
                tally: Arc::clone(&before.tally),
                ..new
            })),
            _ => {
                new.tell();
                Some(Arc::new(new))
            }
        }
    }

    /// Judges one request, and counts it where the decision is another.
    pub fn judge(&self, judged: Judged<'_>, now: Now) {
        let Ok(judge) = &self.loaded else { return };
        let decision = judge
            .policy
            .decide(&judged.peer.caller, judged.identity, judged.resource);
        match (judged.rule, decision) {
            (None, Ok(grant)) => self.count(judged, grant.rule(), true, now),
            (Some(rule), Err(_)) => self.count(judged, rule, false, now),
            _ => {}
        }
    }

    /// What it says of a caller, where it can be used: the rule that would allow it, or none.
    pub fn verdict(
        &self,
        caller: &arcbroker_policy::Caller,
        identity: &Identity,
        resource: &Resource,
    ) -> Option<Option<String>> {
        let judge = self.loaded.as_ref().ok()?;
        let grant = judge.policy.decide(caller, identity, resource).ok();
        Some(grant.map(|grant| grant.rule().to_owned()))
    }

    /// What `status` shows.
    pub fn status(&self) -> ShadowStatus {
        let tally = lock(&self.tally);
        let mut differences: Vec<_> = tally.by_rule.iter().map(shown).collect();
        differences.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.rule.cmp(&b.rule)));
        differences.truncate(SHOWN);
        ShadowStatus {
            dir: self.dir.clone(),
            hash: self
                .loaded
                .as_ref()
                .ok()
                .map(|judge| judge.policy.hash().to_owned()),
            rules: self.loaded.as_ref().map_or(0, |judge| judge.policy.rules()),
            error: self.loaded.as_ref().err().map(ToString::to_string),
            warnings: self
                .loaded
                .as_ref()
                .map(|judge| judge.warnings.clone())
                .unwrap_or_default(),
            would_allow: tally.gained,
            would_deny: tally.lost,
            differences,
        }
    }

    fn is_the_same(&self, new: &Self) -> bool {
        match (&self.loaded, &new.loaded) {
            (Ok(old), Ok(new)) => old.policy.hash() == new.policy.hash(),
            (Err(old), Err(new)) => old == new,
            _ => false,
        }
    }

    fn tell(&self) {
        match &self.loaded {
            Ok(judge) => tracing::info!(
                dir = %self.dir,
                rules = judge.policy.rules(),
                hash = judge.policy.hash(),
                "a shadow policy is judged beside the one in force"
            ),
            Err(error) => tracing::warn!("the shadow policy cannot be judged:\n{error}"),
        }
    }

    fn count(&self, judged: Judged<'_>, rule: &str, gained: bool, now: Now) {
        let mut tally = lock(&self.tally);
        if gained {
            tally.gained += 1;
        } else {
            tally.lost += 1;
        }
        let key = (Arc::from(rule), gained);
        if tally.by_rule.len() >= MOST && !tally.by_rule.contains_key(&key) {
            return;
        }
        let caller = &judged.peer.caller;
        let unit = caller.unit.as_ref().map(ToString::to_string);
        let before = tally.by_rule.get(&key).map_or(0, |seen| seen.count);
        let difference = Difference {
            count: before + 1,
            last_at: now.wall.as_secs(),
            uid: caller.uid,
            unit,
            resource: judged.resource.to_string(),
        };
        // The 1st, 10th, 100th …: a busy caller must not fill the log.
        if is_power_of_ten(difference.count) {
            tracing::warn!(
                rule,
                would = word(gained),
                uid = difference.uid,
                unit = difference.unit.as_deref(),
                resource = %difference.resource,
                times = difference.count,
                "the shadow policy would decide otherwise"
            );
        }
        tally.by_rule.insert(key, difference);
    }
}

fn shown((key, difference): (&(Arc<str>, bool), &Difference)) -> ShadowDifference {
    ShadowDifference {
        rule: key.0.to_string(),
        would: word(key.1).to_owned(),
        count: difference.count,
        last_at: difference.last_at,
        last_uid: difference.uid,
        last_unit: difference.unit.clone(),
        last_resource: difference.resource.clone(),
    }
}

fn word(gained: bool) -> &'static str {
    if gained { "allow" } else { "deny" }
}

fn is_power_of_ten(count: u64) -> bool {
    count > 0 && 10_u64.pow(count.ilog10()) == count
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;
    use std::time::Duration;

    use arcbroker_policy::Caller;
    use nix::unistd::geteuid;

    use super::*;

    const NOW: Now = Now {
        wall: Duration::from_secs(9),
        boot: Duration::from_secs(1),
    };

    fn write(dir: &Path, text: &str) {
        let path = dir.join("a.toml");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    }

    /// Only the owner may write to it, whatever the umask is.
    fn directory() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        dir
    }

    fn rule(uid: u32) -> String {
        format!("version = 1\n[[rule]]\nname = \"new\"\nuser = {uid}\nresources = \"https://a\"\n")
    }

    fn ask(shadow: &Shadow, uid: u32, rule: Option<&str>) {
        let peer = Peer {
            caller: Caller::new(uid, uid, vec![]),
            user: None,
            pid: None,
            invocation: None,
            endpoint: None,
        };
        let judged = Judged {
            peer: &peer,
            identity: &Identity::System,
            resource: &Resource::exact("https://a").unwrap(),
            rule,
        };
        shadow.judge(judged, NOW);
    }

    #[test]
    fn differences_are_counted_by_rule_and_outlive_a_reload_of_the_same_files() {
        let dir = directory();
        let options = Options {
            dir: dir.path().to_owned(),
            owners: vec![geteuid().as_raw()],
            units: Ok(()),
        };
        let load = |before: Option<&Arc<Shadow>>| Shadow::load(&options, Cloud::Public, before);
        assert!(load(None).is_none(), "no file, no shadow");

        write(dir.path(), &rule(7));
        let shadow = load(None).unwrap();
        ask(&shadow, 7, Some("old"));
        ask(&shadow, 7, None);
        ask(&shadow, 8, Some("old"));
        ask(&shadow, 8, Some("old"));
        ask(&shadow, 8, None);
        let shadow = load(Some(&shadow)).unwrap();
        let status = shadow.status();
        assert_eq!((status.would_allow, status.would_deny), (1, 2));
        let seen: Vec<_> = status
            .differences
            .iter()
            .map(|seen| (&*seen.rule, &*seen.would, seen.count, seen.last_uid))
            .collect();
        assert_eq!(seen, [("old", "deny", 2, 8), ("new", "allow", 1, 7)]);

        write(dir.path(), &rule(8));
        let shadow = load(Some(&shadow)).unwrap();
        assert_eq!(shadow.status().would_deny, 0, "other files, other counts");

        write(dir.path(), "version = 2");
        let shadow = load(Some(&shadow)).unwrap();
        ask(&shadow, 8, Some("old"));
        let status = shadow.status();
        assert!(status.error.unwrap().contains("version 2"));
        assert_eq!(status.would_deny, 0, "what cannot be used judges nobody");
    }

    #[test]
    fn the_same_files_count_on_in_the_cloud_that_becomes_known() {
        let dir = directory();
        write(dir.path(), &rule(7).replace("https://a", "keyvault"));
        let options = Options {
            dir: dir.path().to_owned(),
            owners: vec![geteuid().as_raw()],
            units: Ok(()),
        };
        let gives = |shadow: &Shadow, resource| {
            let caller = Caller::new(7, 7, vec![]);
            let resource = Resource::exact(resource).unwrap();
            let verdict = shadow.verdict(&caller, &Identity::System, &resource);
            verdict.unwrap().is_some()
        };
        let public = Shadow::load(&options, Cloud::Public, None).unwrap();
        ask(&public, 8, Some("old"));
        assert!(gives(&public, "https://vault.azure.net"));
        let other = Shadow::load(&options, Cloud::UsGovernment, Some(&public)).unwrap();
        assert!(gives(&other, "https://vault.usgovcloudapi.net"));
        assert!(!gives(&other, "https://vault.azure.net"));
        assert_eq!(other.status().would_deny, 1);
    }

    #[test]
    fn the_log_grows_with_the_number_of_digits() {
        let logged = (0..=1000).filter(|&count| is_power_of_ten(count));
        assert_eq!(logged.collect::<Vec<_>>(), [1, 10, 100, 1000]);
    }
}
