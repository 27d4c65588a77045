//! `arcbroker why`

use arcbroker_client::wire::{Decision, DecisionsAnswer, ExplainAnswer, Explained, SCHEMA};
use arcbroker_client::{Case, Client};
use arcbroker_policy::{Caller, Identity, Resource, Unit, allow_command};

use crate::{
    accounts,
    args::Why,
    clock,
    duration::ago,
    exit::{Exit, Failure},
    output::{self, Page, Tone, counted},
};

/// Denials that are shown without a number.
const DENIALS: u32 = 10;

/// Rules that are shown of those that do not hold.
const NEAREST: usize = 5;

pub(super) async fn run(client: &Client, why: &Why) -> Result<Exit, Failure> {
    let is_made_up =
        why.user.is_some() || why.unit.is_some() || why.container || !why.group.is_empty();
    if why.identity.is_some() && !is_made_up {
        return Err(usage(
            "--identity is about a made-up request: name who asks, with --user or --unit",
        ));
    }
    let answer = match (&why.subject, is_made_up) {
        (None, true) => return Err(usage("name the resource, such as keyvault")),
        (None, false) => return denials(client, why.json).await,
        (Some(resource), true) => client.explain_case(&case(why, resource)?).await,
        (Some(id), false) if is_request_id(id) => client.explain(id).await,
        (Some(_), false) => {
            return Err(usage(
                "that is not the number of a request; for a resource, name who asks: --user or --unit",
            ));
        }
    };
    let answer = answer.map_err(Failure::Command)?;
    if why.json {
        output::print_json(&answer)?;
    } else {
        let mut page = Page::new();
        fill(&mut page, &answer, clock::now());
        page.print()?;
    }
    Ok(Exit::OK)
}

fn usage(text: &str) -> Failure {
    Failure::Usage(text.to_owned())
}

/// Eight hexadecimal digits, a hyphen, a number.
fn is_request_id(text: &str) -> bool {
    text.split_once('-').is_some_and(|(run, number)| {
        run.len() == 8
            && run.bytes().all(|byte| byte.is_ascii_hexdigit())
            && number.parse::<u64>().is_ok()
    })
}

fn case(why: &Why, resource: &str) -> Result<Case, Failure> {
    let account = match &why.user {
        Some(user) => accounts::user(user)?,
        // Services run as root unless their unit says otherwise; so does whoever is only a group.
        None => accounts::user("0")?,
    };
    let mut groups = account.groups;
    for group in &why.group {
        groups.push(accounts::group(group)?);
    }
    Ok(Case {
        uid: account.uid,
        gid: account.gid,
        groups,
        unit: why.unit.clone(),
        container: why.container,
        identity: why.identity.clone(),
        resource: resource.to_owned(),
    })
}

async fn denials(client: &Client, json: bool) -> Result<Exit, Failure> {
    let decisions = client.decisions(DENIALS, Some("denied")).await;
    let decisions = decisions.map_err(Failure::Command)?;
    if json {
        output::print_json(&DecisionsAnswer {
            schema: SCHEMA,
            decisions,
        })?;
        return Ok(Exit::OK);
    }
    let mut page = Page::new();
    if decisions.is_empty() {
        page.line("Nobody has been denied a token since the daemon was started.");
    } else {
        let now = clock::now();
        let row = |decision: &Decision| {
            [
                decision.id.clone(),
                ago(decision.at, now),
                who(
                    decision.uid,
                    decision.user.as_deref(),
                    decision.unit.as_deref(),
                ),
                match &decision.stray {
                    Some(stray) => format!("(not its program: {stray})"),
                    None => decision.resource.clone().unwrap_or_default(),
                },
            ]
        };
        let rows: Vec<_> = decisions.iter().map(row).collect();
        page.table(["REQUEST", "WHEN", "WHO", "RESOURCE"], &rows)
            .blank()
            .line("The reasons of one: arcbroker why REQUEST");
    }
    page.print()?;
    Ok(Exit::OK)
}

/// The whole screen; `now` in Unix seconds.
fn fill(page: &mut Page, answer: &ExplainAnswer, now: u64) {
    let user = answer
        .decision
        .as_ref()
        .and_then(|decision| decision.user.as_deref());
    if let Some(decision) = &answer.decision {
        history(page, decision, answer, now);
    }
    verdict(page, answer, user);
    page.blank();
    rules(page, answer);
    if let Some(shadow) = &answer.shadow
        && shadow.allowed != answer.allowed
    {
        let would = match &shadow.rule {
            Some(rule) => format!("The shadow policy would allow it by `{rule}`."),
            None => "The shadow policy would deny it.".to_owned(),
        };
        page.blank().line(&would);
    }
    if !answer.allowed
        && answer.grant.is_none()
        && answer.explained.container.is_some()
        && let Some(command) = suggestion(&answer.explained, user)
    {
        page.blank()
            .line("To allow it:")
            .line(&format!("  sudo {command}"));
    }
}

/// What was decided then, where that differs from what would be now.
fn history(page: &mut Page, decision: &Decision, answer: &ExplainAnswer, now: u64) {
    let by = match &decision.rule {
        Some(rule) => format!(" by `{rule}`"),
        None => String::new(),
    };
    page.line(&format!(
        "Request {}, {}: {}{by}",
        decision.id,
        ago(decision.at, now),
        decision.outcome
    ));
    if decision.outcome == "unavailable" {
        page.line("It was allowed, and there was no token: see arcbroker status");
    }
    if decision.policy != answer.policy {
        page.line(&format!(
            "The policy has changed since, from {} to {}. By the one of now:",
            decision.policy, answer.policy
        ));
    }
    page.blank();
}

fn verdict(page: &mut Page, answer: &ExplainAnswer, user: Option<&str>) {
    let explained = &answer.explained;
    let mut who = who(explained.uid, user, explained.unit.as_deref());
    if explained.container == Some(true) {
        who.push_str(" in a container");
    }
    let whose = match explained.identity.as_str() {
        "system" => String::new(),
        identity => format!(" of {identity}"),
    };
    let what = format!("a token{whose} for {}", explained.resource);
    let bypass = if answer.bypass_cache {
        ", also past the cache"
    } else {
        ""
    };
    match (&answer.rule, &answer.grant) {
        (Some(rule), _) => page.verdict(
            Tone::Good,
            "allowed",
            &format!("  {who} may have {what}{bypass}: `{rule}`"),
        ),
        (None, Some(grant)) => page.verdict(
            Tone::Good,
            "allowed",
            &format!("  {who} may have {what} for a while: `{grant}`"),
        ),
        (None, None) => {
            page.verdict(Tone::Bad, "denied", &format!("  {who} may not have {what}"));
            page.line(match (explained.container, answer.denial.as_deref()) {
                (None, _) => {
                    "Nothing is known of the process: it had ended, or it is in a namespace that the daemon cannot see \
                     into. So no rule holds."
                }
                (_, Some("no-rule-for-caller")) => "No rule holds for this caller.",
                _ => "Rules hold for this caller, and none gives this resource with this identity.",
            })
        }
    };
}

fn rules(page: &mut Page, answer: &ExplainAnswer) {
    let shown: Vec<_> = answer.rules.iter().take(NEAREST).collect();
    if shown.is_empty() {
        page.line("There are no rules.");
        return;
    }
    let rows: Vec<_> = shown
        .iter()
        .map(|rule| {
            let failed = match rule.failed.as_slice() {
                [] => "nothing: it allows it".to_owned(),
                failed => failed.join(", "),
            };
            [
                rule.rule.clone(),
                failed,
                format!("{}:{}", rule.file, rule.line),
            ]
        })
        .collect();
    page.table(["RULE", "WHAT DOES NOT HOLD", "WHERE"], &rows);
    let more = answer.rules_total.saturating_sub(shown.len());
    if more > 0 {
        page.line(&format!(
            "and {} for which as much or more does not hold",
            counted(more as u64, "rule")
        ));
    }
}

fn who(uid: u32, user: Option<&str>, unit: Option<&str>) -> String {
    let user = match user {
        Some(user) => format!("{user} (uid {uid})"),
        None => format!("uid {uid}"),
    };
    match unit {
        Some(unit) => format!("{user} in {unit}"),
        None => user,
    }
}

/// The command that would allow it.
fn suggestion(explained: &Explained, user: Option<&str>) -> Option<String> {
    let caller = Caller {
        unit: explained
            .unit
            .as_deref()
            .map(Unit::parse)
            .transpose()
            .ok()?,
        container: explained.container,
        ..Caller::new(explained.uid, explained.gid, explained.groups.clone())
    };
    let identity: Identity = explained.identity.parse().ok()?;
    let resource = Resource::exact(&explained.resource).ok()?;
    Some(allow_command(&caller, user, &identity, &resource))
}

#[cfg(test)]
mod tests {
    use arcbroker_client::wire::{RuleExamined, ShadowVerdict};

    use super::*;

    fn answer() -> ExplainAnswer {
        ExplainAnswer {
            schema: SCHEMA,
            allowed: false,
            rule: None,
            bypass_cache: false,
            denial: Some("no-rule-for-resource".into()),
            explained: Explained {
                uid: 34,
                gid: 34,
                groups: vec![],
                unit: Some("backup.service".into()),
                container: Some(false),
                identity: "system".into(),
                resource: "https://vault.azure.net".into(),
            },
            policy: "abc".into(),
            rules: vec![RuleExamined {
                rule: "nightly backup".into(),
                file: "/p/backup.toml".into(),
                line: 3,
                failed: vec!["resources".into()],
                bypass_cache: false,
            }],
            rules_total: 3,
            grant: None,
            shadow: None,
            decision: None,
        }
    }

    fn screen(answer: &ExplainAnswer) -> String {
        let mut page = Page::with_colours(false);
        fill(&mut page, answer, 160);
        page.into_text()
    }

    #[test]
    fn a_denial_says_what_does_not_hold_and_what_would_allow_it() {
        assert_eq!(
            screen(&answer()),
            "\
denied  uid 34 in backup.service may not have a token for https://vault.azure.net
Rules hold for this caller, and none gives this resource with this identity.

RULE            WHAT DOES NOT HOLD  WHERE
nightly backup  resources           /p/backup.toml:3
and 2 rules for which as much or more does not hold

To allow it:
  sudo arcbroker allow --unit backup.service --user 34 https://vault.azure.net
"
        );
    }

    #[test]
    fn what_was_decided_by_another_policy_is_said_to_be() {
        let mut answer = answer();
        answer.decision = Some(Decision {
            id: "0000000a-7".into(),
            at: 100,
            outcome: "denied".into(),
            uid: 34,
            user: Some("backup".into()),
            gid: 34,
            groups: vec![],
            pid: None,
            unit: None,
            invocation: None,
            container: Some(false),
            identity: Some("system".into()),
            resource: Some("https://vault.azure.net".into()),
            rule: None,
            policy: "abb".into(),
            ms: 0,
            endpoint: None,
            stray: None,
        });
        answer.allowed = true;
        answer.rule = Some("nightly backup".into());
        answer.rules[0].failed.clear();
        answer.rules_total = 1;
        answer.shadow = Some(ShadowVerdict {
            allowed: false,
            rule: None,
        });
        let screen = screen(&answer);
        for line in [
            "Request 0000000a-7, 1 min ago: denied\n",
            "The policy has changed since, from abb to abc. By the one of now:\n",
            "allowed  backup (uid 34) in backup.service may have a token for https://vault.azure.net: `nightly backup`\n",
            "nightly backup  nothing: it allows it  /p/backup.toml:3\n",
            "The shadow policy would deny it.\n",
        ] {
            assert!(screen.contains(line), "{line}: {screen}");
        }
        assert!(!screen.contains("To allow it"), "{screen}");
    }

    #[test]
    fn a_request_is_told_from_a_resource() {
        assert!(is_request_id("0123abcd-17"));
        for text in ["keyvault", "0123abcd", "0123abcd-", "0123abc-1", "x-1"] {
            assert!(!is_request_id(text), "{text}");
        }
    }
}
