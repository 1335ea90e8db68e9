//! The forms of [`Holder`] and [`Status`] for the feature `serde`.

use std::path::PathBuf;
use std::time::SystemTime;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::holder::Holder;
use crate::inspect::{Status, StatusKind};
use crate::printable::printable;
use crate::process::HostProcess;
use crate::sys::{Numbering, Process};

#[derive(Serialize, Deserialize)]
#[serde(rename = "Holder")]
struct HolderForm {
    pid: u32,
    #[serde(default)]
    pid_namespace: Option<u64>,
    /// Whether the process ID is that of another pid namespace, whose number is unknown.
    #[serde(default)]
    other_pid_namespace: bool,
    /// When the process started, in the unit of the system.
    #[serde(default)]
    started: Option<u64>,
    #[serde(default)]
    boot: Option<String>,
    #[serde(default)]
    host: String,
    #[serde(default)]
    command: Option<String>,
    #[serde(default)]
    label: Option<String>,
    #[serde(default)]
    since: Option<SystemTime>,
    #[serde(default)]
    slot: Option<u32>,
    #[serde(default)]
    shared: bool,
}

impl From<&Holder> for HolderForm {
    fn from(holder: &Holder) -> Self {
        let identity = &holder.process.identity;
        Self {
            pid: identity.pid,
            pid_namespace: holder.pid_namespace(),
            other_pid_namespace: identity.numbering == Numbering::Other,
            started: identity.started,
            boot: identity.boot.clone(),
            host: holder.process.host.clone(),
            command: holder.command.clone(),
            label: holder.label.clone(),
            since: holder.since,
            slot: holder.slot,
            shared: holder.is_shared,
        }
    }
}

impl From<HolderForm> for Holder {
    fn from(form: HolderForm) -> Self {
        let numbering = match form.pid_namespace {
            Some(inode) => Numbering::Namespace(inode),
            None if form.other_pid_namespace => Numbering::Other,
            None => Numbering::Unknown,
        };
        // The text may have been changed since it was serialized.
        let printed = |text: Option<String>| text.as_deref().map(printable);
        Self {
            process: HostProcess {
                identity: Process {
                    pid: form.pid,
                    numbering,
                    started: form.started,
                    boot: printed(form.boot),
                },
                host: printable(&form.host),
            },
            command: printed(form.command),
            label: printed(form.label),
            since: form.since,
            slot: form.slot,
            is_shared: form.shared,
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename = "Status")]
struct StatusForm {
    path: String,
    kind: StatusKind,
    held: bool,
    #[serde(default)]
    holders: Vec<Holder>,
    #[serde(default)]
    lost: Vec<Holder>,
    #[serde(default)]
    waiters: Vec<Holder>,
    #[serde(default)]
    capacity: Option<u32>,
    #[serde(default)]
    held_slots: Vec<u32>,
    #[serde(default)]
    set: bool,
    #[serde(default)]
    broken: bool,
    #[serde(default)]
    payload_len: Option<u64>,
}

impl From<&Status> for StatusForm {
    fn from(status: &Status) -> Self {
        Self {
            // A path that is not Unicode cannot be serialized as it is.
            path: status.path.to_string_lossy().into_owned(),
            kind: status.kind,
            held: status.is_held,
            holders: status.holders.clone(),
            lost: status.lost.clone(),
            waiters: status.waiters.clone(),
            capacity: status.capacity,
            held_slots: status.held_slots.clone(),
            set: status.is_set,
            broken: status.is_broken,
            payload_len: status.len,
        }
    }
}

impl From<StatusForm> for Status {
    fn from(form: StatusForm) -> Self {
        Self {
            path: PathBuf::from(form.path).into(),
            kind: form.kind,
            is_held: form.held,
            holders: form.holders,
            lost: form.lost,
            waiters: form.waiters,
            capacity: form.capacity,
            held_slots: form.held_slots,
            len: form.payload_len,
            is_set: form.set,
            is_broken: form.broken,
        }
    }
}

impl Serialize for Holder {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        HolderForm::from(self).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Holder {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        HolderForm::deserialize(deserializer).map(Self::from)
    }
}

impl Serialize for Status {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        StatusForm::from(self).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Status {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        StatusForm::deserialize(deserializer).map(Self::from)
    }
}
