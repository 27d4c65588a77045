//! Which cloud the machine is in: it decides what short names of resources stand for.

use std::os::fd::AsFd;
use std::sync::Arc;

use arcbroker_policy::Cloud;
use serde::{Deserialize, Serialize};

use crate::manager::{Kept, Manager};
use crate::note::Kind;

/// The name under which it is held for the next daemon.
pub const KEPT: &str = "machine.cloud";
const NOTE: Kind = Kind("arcbroker-machine 1");

/// Characters of a cloud's name that are repeated in messages.
const MAX_NAME: usize = 64;

/// What is known of the cloud of the machine.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Place {
    /// By configuration, or by the word of upstream.
    Known(Cloud),
    /// Upstream names a cloud whose resources have no short names here, or none: those of the
    /// public cloud stand in.
    Foreign(Arc<str>),
    /// Upstream has not told yet: the names of the public cloud stand in.
    Unknown,
}

#[derive(Debug, Deserialize, Serialize)]
struct Note {
    source: String,
    cloud: String,
}

impl Place {
    /// By configuration, or to be found out.
    pub fn configured(cloud: Option<Cloud>) -> Self {
        cloud.map_or(Self::Unknown, Self::Known)
    }

    /// As `compute.azEnvironment` of the instance metadata has it. A document that does not say it
    /// now will not say it later.
    pub fn told(instance: &[u8]) -> Self {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Instance {
            compute: Compute,
        }
        #[derive(Default, Deserialize)]
        #[serde(default, rename_all = "camelCase")]
        struct Compute {
            az_environment: String,
        }
        let instance: Instance = serde_json::from_slice(instance).unwrap_or_default();
        let name = instance.compute.az_environment;
        Cloud::from_az_environment(&name).map_or_else(|| Self::Foreign(shown(&name)), Self::Known)
    }

    /// Has the service manager hold it for the next daemon, which then need not ask.
    pub fn keep(&self, manager: &Manager, source: &str) {
        // Another name may be the word of an upstream that is not whole yet: the next daemon asks again.
        let Self::Known(cloud) = self else { return };
        let cloud = cloud.az_environment().to_owned();
        manager.let_go(KEPT);
        let source = source.to_owned();
        let held = NOTE
            .write(&Note { source, cloud })
            .and_then(|note| manager.hold(KEPT, &[note.as_fd()]));
        if let Err(error) = held {
            tracing::warn!(%error, "systemd could not be asked to hold the name of the cloud: a restart asks for it");
        }
    }

    /// What was held, of the same source.
    pub fn kept(held: &Kept, source: &str) -> Option<Self> {
        let note = held.get(KEPT)?.first()?;
        let note: Note = NOTE.read(note).ok()?;
        let cloud = Cloud::from_az_environment(&note.cloud)?;
        (note.source == source).then_some(Self::Known(cloud))
    }

    /// The cloud whose names are used.
    pub fn cloud(&self) -> Cloud {
        match self {
            Self::Known(cloud) => *cloud,
            Self::Foreign(_) | Self::Unknown => Cloud::Public,
        }
    }

    /// Whether there is nothing more to find out.
    pub fn is_settled(&self) -> bool {
        *self != Self::Unknown
    }

    /// The clouds that it may turn out to be, the one that is used first.
    pub fn candidates(&self) -> Vec<Cloud> {
        if self.is_settled() {
            vec![self.cloud()]
        } else {
            Cloud::ALL.to_vec()
        }
    }

    /// What an administrator should know of it.
    pub fn warning(&self) -> Option<String> {
        let Self::Foreign(name) = self else {
            return None;
        };
        let what = if name.is_empty() {
            "the instance metadata names no cloud".to_owned()
        } else {
            format!("the instance metadata names the cloud `{name}`, which is not known here")
        };
        Some(format!(
            "{what}: short names of resources stand for those of {}; write [upstream] cloud to choose another, \
             or resources in full",
            self.cloud()
        ))
    }
}

/// Fit for a terminal.
fn shown(name: &str) -> Arc<str> {
    let visible = |c: char| if c.is_ascii_graphic() { c } else { '?' };
    let text: String = name.chars().take(MAX_NAME).map(visible).collect();
    text.into()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn what_was_held_is_known_at_once_unless_it_is_of_elsewhere() {
        for place in [Place::Known(Cloud::China), Place::Foreign("Moon".into())] {
            let is_known = matches!(place, Place::Known(_));
            let held = Arc::new(Mutex::new(Kept::new()));
            let into = Arc::clone(&held);
            let manager = Manager::from_fn(move |_, descriptors| {
                let copies = descriptors
                    .iter()
                    .map(|one| one.try_clone_to_owned().unwrap());
                into.lock()
                    .unwrap()
                    .insert(KEPT.to_owned(), copies.collect());
                Ok(())
            });
            place.keep(&manager, "here");
            let held = held.lock().unwrap();
            assert_eq!(Place::kept(&held, "here"), is_known.then_some(place));
            assert_eq!(Place::kept(&held, "elsewhere"), None);
            assert_eq!(Place::kept(&Kept::new(), "here"), None);
        }
    }

    fn told(environment: &str) -> Place {
        let document = serde_json::json!({ "compute": { "azEnvironment": environment } });
        Place::told(document.to_string().as_bytes())
    }

    #[test]
    fn the_instance_metadata_names_the_cloud() {
        for (name, cloud) in [
            ("AzurePublicCloud", Cloud::Public),
            ("AzureUSGovernmentCloud", Cloud::UsGovernment),
            ("AzureChinaCloud", Cloud::China),
        ] {
            let place = told(name);
            assert_eq!(place, Place::Known(cloud));
            assert_eq!((place.cloud(), place.warning()), (cloud, None));
            assert_eq!(place.candidates(), [cloud]);
        }
    }

    #[test]
    fn in_a_cloud_without_short_names_those_of_the_public_one_stand_in_with_a_warning() {
        for name in ["AzureGermanCloud", "AzureStackCloud"] {
            let place = told(name);
            assert_eq!(place.cloud(), Cloud::Public);
            assert!(place.is_settled());
            let warning = place.warning().unwrap();
            assert!(
                warning.contains(name) && warning.contains("[upstream] cloud"),
                "{warning}"
            );
        }
        let hostile = told("\u{1b}[2J").warning().unwrap();
        assert!(hostile.contains("`?[2J`"), "{hostile}");
    }

    #[test]
    fn a_document_that_names_none_never_will() {
        for document in [
            "{}",
            r#"{"compute":{}}"#,
            r#"{"compute":{"azEnvironment":7}}"#,
            "",
        ] {
            let place = Place::told(document.as_bytes());
            assert_eq!((place.cloud(), place.is_settled()), (Cloud::Public, true));
            assert!(place.warning().unwrap().contains("names no cloud"));
        }
    }

    #[test]
    fn until_it_is_known_it_may_be_any_cloud_and_the_public_one_stands_in() {
        let place = Place::configured(None);
        assert_eq!(place, Place::Unknown);
        assert_eq!(place.candidates()[0], place.cloud());
        assert_eq!(place.candidates().len(), 3);
        let chosen = Place::configured(Some(Cloud::China));
        assert_eq!(chosen.candidates(), [Cloud::China]);
    }
}
