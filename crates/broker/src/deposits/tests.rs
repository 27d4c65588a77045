use std::os::fd::BorrowedFd;
use std::time::Duration;

use arcbroker_client::Secret;
use sd_notify::NotifyState;

use super::*;
use crate::clock::Now;
use crate::sealed;
use crate::slot::{Plan, Wish};
use crate::token::{AccessToken, Issue};

const VAULT: &str = "https://vault.azure.net";
const SOURCE: &str = "himds http://127.0.0.1:40342";

/// A service manager that holds things.
#[derive(Clone, Default)]
struct Holder(Arc<Mutex<HashMap<String, Vec<OwnedFd>>>>);

impl Holder {
    fn manager(&self) -> Manager {
        let holder = self.clone();
        Manager::from_fn(move |state, descriptors| {
            holder.tell(state, descriptors);
            Ok(())
        })
    }

    /// One that holds nothing more, and still lets go.
    fn full(&self) -> Manager {
        let holder = self.clone();
        Manager::from_fn(move |state, descriptors| {
            if !descriptors.is_empty() {
                return Err(io::Error::other("full"));
            }
            holder.tell(state, descriptors);
            Ok(())
        })
    }

    fn tell(&self, state: &[NotifyState<'_>], descriptors: &[BorrowedFd<'_>]) {
        let name = state.iter().find_map(|state| match state {
            NotifyState::FdName(name) => Some((*name).to_owned()),
            _ => None,
        });
        let name = name.unwrap();
        let mut held = self.0.lock().unwrap();
        match state.first().unwrap() {
            NotifyState::FdStoreRemove => drop(held.remove(&name)),
            _ => held.entry(name).or_default().extend(
                descriptors
                    .iter()
                    .map(|descriptor| descriptor.try_clone_to_owned().unwrap()),
            ),
        }
    }

    fn deposits(&self) -> Deposits {
        Deposits::new(self.manager(), SOURCE)
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.0.lock().unwrap().keys().cloned().collect();
        names.sort();
        names
    }

    /// What the next daemon is given; it is held on.
    fn given(&self) -> HashMap<String, Vec<OwnedFd>> {
        let held = self.0.lock().unwrap();
        let copies = |all: &Vec<OwnedFd>| all.iter().map(|one| one.try_clone().unwrap()).collect();
        held.iter()
            .map(|(name, all)| (name.clone(), copies(all)))
            .collect()
    }

    fn hold(&self, name: &str, content: &[u8]) {
        let memory = sealed::write(c"test", content).unwrap();
        self.manager().hold(name, &[memory.as_fd()]).unwrap();
    }
}

fn at(seconds: u64) -> Now {
    Now {
        wall: Duration::from_secs(1_000_000 + seconds),
        boot: Duration::from_secs(seconds),
    }
}

fn key(resource: &str) -> Key {
    Key {
        identity: Identity::System,
        resource: Resource::exact(resource).unwrap(),
    }
}

/// A slot with a token of a day, and a client id.
fn slot(name: &str, received: u64) -> Slot {
    let issue = Issue {
        access_token: Secret::from(name.to_owned()),
        expires_on: 1_000_000 + received + 86_400,
        expires_in: None,
        not_before: "999".into(),
        client_id: Some("c".into()),
    };
    let token = AccessToken::new(&issue, &key(VAULT).resource, at(received)).unwrap();
    let mut slot = Slot::default();
    let errand = slot.errand(at(received));
    slot.land(errand, Ok(token), at(received), 1.0);
    slot
}

fn answer(slot: &mut Slot, now: Now) -> String {
    let token = slot.token(now).unwrap();
    String::from_utf8(token.answer(now).concat()).unwrap()
}

#[test]
fn a_token_is_the_same_for_the_next_daemon() {
    let holder = Holder::default();
    let mut before = slot("T0K", 10);
    holder.deposits().put(&key(VAULT), &before);
    let mut found = holder.deposits().take(holder.given());
    let (found_key, after) = found.first_mut().unwrap();
    assert_eq!(*found_key, key(VAULT));
    assert_eq!(answer(after, at(60)), answer(&mut before, at(60)));
    let (was, is) = (before.view(at(60)), after.view(at(60)));
    assert_eq!(was.refresh_in, is.refresh_in);
    assert_eq!(was.token.unwrap().digest(), is.token.unwrap().digest());
    assert_eq!(holder.names().len(), 1, "it is held on");
    let plan = after.plan(at(60), false, Duration::from_secs(20), Wish::default());
    assert!(matches!(plan, Plan::Serve(_)), "{plan:?}");
}

#[test]
fn a_new_one_is_held_before_the_old_one_is_let_go_and_the_newer_of_two_counts() {
    let holder = Holder::default();
    let deposits = holder.deposits();
    deposits.put(&key(VAULT), &slot("old", 0));
    let first = holder.given();
    deposits.put(&key(VAULT), &slot("new", 100));
    assert_eq!(holder.names().len(), 1);
    // Killed between the two.
    let mut both = holder.given();
    both.extend(first);
    assert_eq!(both.len(), 2);
    let mut found = holder.deposits().take(both);
    assert_eq!(found.len(), 1);
    let (_, slot) = found.first_mut().unwrap();
    assert!(answer(slot, at(200)).contains(r#""access_token":"new""#));
    // The next one goes on counting from there.
    let next = holder.deposits();
    next.take(holder.given());
    next.put(&key(VAULT), &self::slot("newest", 200));
    assert_eq!(holder.names().len(), 1);
    assert!(holder.names().first().unwrap().ends_with(".2"));
}

#[test]
fn tokens_come_in_the_order_in_which_they_were_received() {
    let holder = Holder::default();
    let deposits = holder.deposits();
    let other = Key {
        identity: "client-id:11111111-2222-3333-4444-555555555555"
            .parse()
            .unwrap(),
        ..key(VAULT)
    };
    deposits.put(&key(VAULT), &slot("late", 100));
    deposits.put(&other, &slot("early", 50));
    let found = holder.deposits().take(holder.given());
    let keys: Vec<_> = found.into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, [other, key(VAULT)]);
}

#[test]
fn a_slot_without_a_token_is_remembered_as_wanted_and_has_none() {
    let holder = Holder::default();
    let mut flushed = slot("T0K", 0);
    flushed.flush();
    holder.deposits().put(&key(VAULT), &flushed);
    let mut found = holder.deposits().take(holder.given());
    let (_, slot) = found.first_mut().unwrap();
    assert!(slot.token(at(1)).is_none());
    assert!(slot.is_due(at(1), Duration::from_hours(24)));
    // One that never had a token is nothing to remember.
    holder
        .deposits()
        .put(&key("https://other"), &Slot::default());
    assert_eq!(holder.names().len(), 1);
}

#[test]
fn i31_what_was_flushed_does_not_come_back_though_it_could_not_be_written_down() {
    let holder = Holder::default();
    holder.deposits().put(&key(VAULT), &slot("T0K", 0));
    let deposits = Deposits::new(holder.full(), SOURCE);
    deposits.take(holder.given());
    // A newer token that is not held leaves the older one, which may be handed out.
    deposits.put(&key(VAULT), &slot("N3W", 1));
    assert_eq!(holder.names().len(), 1);
    let mut flushed = slot("N3W", 1);
    flushed.flush();
    deposits.put(&key(VAULT), &flushed);
    assert!(holder.names().is_empty());
}

#[test]
fn what_ended_meanwhile_is_not_handed_out() {
    let holder = Holder::default();
    holder.deposits().put(&key(VAULT), &slot("T0K", 0));
    let mut found = holder.deposits().take(holder.given());
    let (_, slot) = found.first_mut().unwrap();
    assert!(slot.token(at(86_400 - 59)).is_none());
}

#[test]
fn what_is_damaged_or_of_elsewhere_is_let_go() {
    let good = {
        let holder = Holder::default();
        holder.deposits().put(&key(VAULT), &slot("T0K", 0));
        let (_, descriptors) = holder.given().into_iter().next().unwrap();
        sealed::read(descriptors.first().unwrap(), 4096).unwrap()
    };
    let name = name(&key(VAULT), 0);
    let odd = Note {
        source: SOURCE.to_owned(),
        identity: "nobody".to_owned(),
        resource: VAULT.to_owned(),
        slot: slot("T0K", 0).snapshot().unwrap(),
    };
    let odd = sealed::read(&NOTE.write(&odd).unwrap(), 4096).unwrap();
    for content in [b"garbage".as_slice(), &odd] {
        let holder = Holder::default();
        holder.hold(&name, content);
        assert!(holder.deposits().take(holder.given()).is_empty());
        assert!(holder.names().is_empty(), "it is let go");
    }
    let holder = Holder::default();
    holder.hold(&name, &good);
    holder.hold(&name, &good);
    assert!(
        holder.deposits().take(holder.given()).is_empty(),
        "two under one name"
    );
    holder.hold(&name, &good);
    let elsewhere = Deposits::new(holder.manager(), "himds http://127.0.0.1:1");
    assert!(elsewhere.take(holder.given()).is_empty());
    assert!(holder.names().is_empty());
}

#[test]
fn what_is_dropped_is_held_no_more() {
    let holder = Holder::default();
    let deposits = holder.deposits();
    deposits.put(&key(VAULT), &slot("T0K", 0));
    deposits.withdraw(&key(VAULT));
    deposits.withdraw(&key(VAULT));
    assert!(holder.names().is_empty());
}

#[test]
fn t14_no_token_is_in_what_is_printed() {
    let slot = slot("MARKER", 0);
    let printed = format!("{:?} {:?}", slot.snapshot(), Holder::default().deposits());
    assert!(!printed.contains("MARKER"), "{printed}");
}
