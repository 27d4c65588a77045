//! What the path of a control group says about the process in it.
//!
//! The name of a unit deep in the tree proves nothing: whoever has a delegated part of the tree can
//! make directories of any name there. Only what stands above all delegated parts is systemd's own,
//! so a path is read from its root.

use crate::Unit;

/// The slice below which systemd puts the services of the system.
const SYSTEM: &str = "system.slice";
const SLICE: &str = ".slice";
const SCOPE: &str = ".scope";
const SERVICE: &str = ".service";
/// Hexadecimal digits of a container's id.
const ID: usize = 64;

/// How container managers name their control groups: the beginning of a name that is not a
/// service's, or the whole of it. Where each of them comes from:
///
/// - Docker: `docker-ID.scope` with its systemd driver, `docker/ID` with its cgroupfs driver.
/// - containerd and nerdctl: the runtime's `slice:prefix:name` becomes `prefix-ID.scope`; without the
///   systemd driver it stays as it is. `runc-ID.scope` and `crun-ID.scope` where no prefix is given.
/// - CRI-O: `crio-ID.scope`. Kubernetes: `kubepods`, `kubepods.slice`, `kubepods-burstable.slice`.
/// - Podman and Buildah: `libpod-ID.scope`, `libpod-payload-ID` (`--cgroups=split`, as in Quadlet),
///   `libpod_pod_ID.slice`, `libpod_parent`; `podman-PID.scope` in RHEL 8.
/// - systemd-machined: everything in `machine.slice`; `machine-NAME.scope` elsewhere.
/// - LXC, LXD and Incus: `lxc/NAME`, `lxc.payload/NAME`, `lxc.payload.NAME`; Proxmox `lxc.payload-ID`.
/// - Cloud Foundry: `garden/ID`. Amazon ECS: `ecs/TASK/ID`, `ecstasks-ID.slice`.
/// - Apptainer and Singularity: `apptainer-PID.scope`, `singularity-PID.scope`.
const CONTAINERS: [(&str, Match); 26] = [
    ("apptainer-", Match::Start),
    ("buildah-", Match::Start),
    ("cri-containerd-", Match::Start),
    ("crio-", Match::Start),
    ("crun-", Match::Start),
    ("docker", Match::Whole),
    ("docker-", Match::Start),
    ("ecs", Match::Whole),
    ("ecstasks", Match::Start),
    ("garden", Match::Whole),
    ("kubepods", Match::Whole),
    ("kubepods-", Match::Start),
    ("kubepods.slice", Match::Whole),
    ("libpod-", Match::Start),
    ("libpod_", Match::Start),
    ("lxc", Match::Whole),
    ("lxc.payload", Match::Whole),
    ("lxc.payload-", Match::Start),
    ("lxc.payload.", Match::Start),
    ("machine-", Match::Start),
    ("machine.slice", Match::Whole),
    ("nerdctl-", Match::Start),
    ("podman-", Match::Start),
    ("runc-", Match::Start),
    ("singularity-", Match::Start),
    ("user-libpod_", Match::Start),
];

#[derive(Clone, Copy, Debug)]
enum Match {
    Whole,
    Start,
}

/// The path of a control group as `/proc/PID/cgroup` has it: from the root of a hierarchy.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ControlGroup<'p>(&'p str);

impl<'p> ControlGroup<'p> {
    /// None where the text is no path from the root, or leads out of the part of the tree that we see.
    pub fn new(path: &'p str) -> Option<Self> {
        let rest = path.strip_prefix('/')?;
        let is_name = |name: &str| !matches!(name, "" | "." | "..");
        (rest.is_empty() || rest.split('/').all(is_name)).then_some(Self(rest))
    }

    /// The service or scope of the system that the process belongs to: the first name below
    /// `/system.slice` and its slices.
    ///
    /// None for everything below `/user.slice`, which its users arrange as they like; none for the
    /// scope of a container, whose name its starter chooses.
    pub fn system_unit(self) -> Option<Unit> {
        let mut names = Self(self.0.strip_prefix(SYSTEM)?.strip_prefix('/')?)
            .names()
            .peekable();
        let mut slice = SYSTEM;
        // systemd puts a-b.slice into a.slice, always.
        while let Some(inner) = names.next_if(|name| name.ends_with(SLICE)) {
            if !is_below(inner, slice) {
                return None;
            }
            slice = inner;
        }
        let name = names.next().filter(|name| !is_of_container(name))?;
        Unit::parse(name).ok()
    }

    /// Whether any name in the path is one that a container manager gives.
    pub fn is_container(self) -> bool {
        self.names().any(is_of_container)
    }

    /// The names from the root on, with systemd's escaping undone: a name that could be taken for
    /// one of the kernel's own files, or that begins with `_` or `.`, has a `_` before it.
    fn names(self) -> impl Iterator<Item = &'p str> {
        let names = self.0.split('/').filter(|name| !name.is_empty());
        names.map(|name| name.strip_prefix('_').unwrap_or(name))
    }
}

fn is_below(inner: &str, outer: &str) -> bool {
    let outer = outer.strip_suffix(SLICE).unwrap_or(outer);
    let rest = inner.strip_prefix(outer);
    rest.is_some_and(|rest| rest.starts_with('-') && rest.len() > 1 + SLICE.len())
}

pub(crate) fn is_of_container(name: &str) -> bool {
    if name.ends_with(SERVICE) {
        return false;
    }
    let known = CONTAINERS.iter().any(|(known, how)| match how {
        Match::Whole => name == *known,
        Match::Start => name.starts_with(known),
    });
    known || ends_in_id(name.strip_suffix(SCOPE).unwrap_or(name))
}

/// Whatever the manager, a container's id is a SHA-256 or as long as one.
fn ends_in_id(name: &str) -> bool {
    let Some(start) = name.len().checked_sub(ID) else {
        return false;
    };
    let (Some(before), Some(id)) = (name.get(..start), name.get(start..)) else {
        return false;
    };
    let is_hex = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f');
    id.bytes().all(is_hex) && (before.is_empty() || before.ends_with(['-', ':', '_', '.']))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTAINER: &str = "4f797c539e6c745de61a93ca3ff892358ecbcaccd8414d5db545c38428142970";

    fn unit(path: &str) -> Option<String> {
        let unit = ControlGroup::new(path)?.system_unit()?;
        Some(unit.as_str().to_owned())
    }

    #[test]
    fn the_unit_is_the_first_name_below_the_slices_of_the_system() {
        for (path, expected) in [
            ("/system.slice/backup.service", "backup.service"),
            (
                "/system.slice/backup.service/child/deeper",
                "backup.service",
            ),
            (
                "/system.slice/system-getty.slice/getty@tty1.service",
                "getty@tty1.service",
            ),
            (
                "/system.slice/system-a.slice/system-a-b.slice/x.scope",
                "x.scope",
            ),
            ("/system.slice/docker.service", "docker.service"),
            (
                "/system.slice/docker-registry.service",
                "docker-registry.service",
            ),
            ("/system.slice/crio-wipe.service", "crio-wipe.service"),
        ] {
            assert_eq!(unit(path).as_deref(), Some(expected), "{path}");
        }
    }

    #[test]
    fn t21_a_name_that_only_looks_like_a_unit_of_the_system_is_none() {
        for path in [
            "/",
            "/system.slice",
            "/init.scope",
            "/backup.service",
            "/user.slice/user-1000.slice/user@1000.service/app.slice/backup.service",
            "/user.slice/backup.service",
            "/user.slice/user-1000.slice/session-3.scope",
            "/user.slice/system.slice/backup.service",
            "/x/system.slice/backup.service",
            "/docker/ID/system.slice/backup.service",
            "/system.slice/docker-x.scope/backup.service",
            "/system.slice/docker-x.scope",
            "/system.slice/libpod-x.scope/container/backup.service",
            "/machine.slice/machine-x.scope/system.slice/backup.service",
            "/system.slice/child/backup.service",
            "/system.slice/user.slice/backup.service",
            "/system.slice/evil.slice/backup.service",
            "/system.slice/system-.slice/backup.service",
            "/system.slice/systemx-a.slice/backup.service",
            "/system.slice/backup.service (deleted)",
            "/system.slice/backup@.service",
            "/system.slice/BACKUP.SERVICE",
            "/SYSTEM.SLICE/backup.service",
            "/_system.slice/backup.service",
            "/system.slicex/backup.service",
            "/../system.slice/backup.service",
            "/../../system.slice/backup.service",
            "/system.slice/../system.slice/backup.service",
            "/system.slice/./backup.service",
            "//system.slice/backup.service",
            "/system.slice//backup.service",
            "/system.slice/backup.service/",
            "system.slice/backup.service",
            "",
        ] {
            assert_eq!(unit(path), None, "{path}");
        }
        let evil = unit("/system.slice/evil.service/backup.service");
        assert_eq!(evil.as_deref(), Some("evil.service"));
        assert_eq!(
            unit(&format!("/system.slice/other-{CONTAINER}.scope")),
            None
        );
    }

    #[test]
    fn the_escaping_of_systemd_is_undone_once() {
        for (path, expected) in [
            ("/system.slice/_cpu.service", Some("cpu.service")),
            ("/system.slice/__x.service", Some("_x.service")),
            ("/system.slice/_.x.service", Some(".x.service")),
            ("/system.slice/_docker-x.scope", None),
            ("/system.slice/_system-a.slice/x.service", Some("x.service")),
            ("/_system.slice/x.service", None),
        ] {
            assert_eq!(unit(path).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn containers_are_known_by_their_names_and_ids() {
        for path in [
            format!("/docker/{CONTAINER}"),
            format!("/system.slice/docker-{CONTAINER}.scope"),
            format!("/system.slice/docker-{CONTAINER}.scope/system.slice/backup.service"),
            format!("/machine.slice/libpod-{CONTAINER}.scope/container"),
            format!("/system.slice/web.service/libpod-payload-{CONTAINER}"),
            format!("/system.slice/containerd.service/system.slice:cri-containerd:{CONTAINER}"),
            format!("/kubepods/burstable/pod6d7d/{CONTAINER}"),
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/crio-1.scope"
                .to_owned(),
            format!("/{CONTAINER}"),
            format!("/somebody-new-{CONTAINER}.scope"),
            "/lxc.payload.web/system.slice/backup.service".to_owned(),
            "/lxc.payload-101/ns".to_owned(),
            "/lxc/101".to_owned(),
            "/machine.slice/systemd-nspawn@web.service/payload/system.slice/x.service".to_owned(),
            "/user.slice/user-1000.slice/user@1000.service/user.slice/user-libpod_pod_1.slice/x"
                .to_owned(),
        ] {
            assert!(ControlGroup::new(&path).unwrap().is_container(), "{path}");
        }
        for path in [
            "/",
            "/system.slice/docker.service",
            "/system.slice/docker-registry.service",
            "/system.slice/podman-auto-update.service",
            "/system.slice/machine-id-commit.service",
            "/system.slice/containerd.service",
            "/user.slice/user-1000.slice/session-3.scope",
            "/system.slice/a97c539e6c745de61a93ca3ff892358ecbcaccd8414d5db545c38428142970.scope",
        ] {
            assert!(!ControlGroup::new(path).unwrap().is_container(), "{path}");
        }
    }

    #[test]
    fn names_that_are_not_ascii_are_read_without_harm() {
        for path in [
            "/system.slice/b\u{430}ckup.service".to_owned(),
            format!("/{}", "\u{e9}".repeat(40)),
            format!("/x{}", "\u{1f600}".repeat(16)),
        ] {
            let group = ControlGroup::new(&path).unwrap();
            assert_eq!((group.system_unit(), group.is_container()), (None, false));
        }
    }
}
