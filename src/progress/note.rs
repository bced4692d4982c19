//! Notes: facts that the user should know and that are not faults.

use std::net::{Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

/// A note, grouped by subject. JSON has no such level: each code belongs to one enum.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Note {
    /// About images and the store.
    Image(ImageNote),
    /// About services.
    Service(ServiceNote),
    /// About backups.
    Backup(BackupNote),
}

impl From<ImageNote> for Note {
    fn from(note: ImageNote) -> Self {
        Note::Image(note)
    }
}

impl From<ServiceNote> for Note {
    fn from(note: ServiceNote) -> Self {
        Note::Service(note)
    }
}

impl From<BackupNote> for Note {
    fn from(note: BackupNote) -> Self {
        Note::Backup(note)
    }
}

/// Notes about images and the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "code", rename_all = "kebab-case", rename_all_fields = "camelCase")]
#[allow(missing_docs, reason = "docs/progress.md documents each field")]
pub enum ImageNote {
    OciManifest { digest: String, docker_digest: String },
    EntriesSkipped { count: usize },
    SeveralImages { directory: String, reference: String },
    SocketSkipped { path: String },
    ChangesDropped { paths: Vec<String> },
    LogShortened { path: String, dropped: u64 },
    UnmappedUsers { names: Vec<String> },
    ArgumentsSwapped { image: String, base: String },
    DeviceNotCreated { path: String, major: u32, minor: u32 },
    OwnerNotSet { path: String, uid: u32, gid: u32 },
    XattrNotSet { path: String, name: String },
    SetIdDropped { path: String, mode: String },
    CapabilityConfined { path: String },
    SetIdKept { directory: String },
    KeywordsIgnored { tar: String, keywords: Vec<String> },
    MoreNotSet { count: u64 },
    PackCreated { directory: String, name: String },
    LayersKept,
    ImageInUse { image: String, services: Vec<String> },
    Freed { bytes: u64, dry_run: bool },
}

/// Notes about services and containers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "code", rename_all = "kebab-case", rename_all_fields = "camelCase")]
#[allow(missing_docs, reason = "docs/progress.md documents each field")]
pub enum ServiceNote {
    HostNetwork { reason: String },
    NoNetwork { reason: String },
    NoLimits { reason: String },
    PublishedWithoutNetwork,
    VolumeIgnored { path: String, reason: String },
    AddressMoved { service: String, from: Ipv4Addr, to: Ipv4Addr },
    PortMoved { port: u16, to: SocketAddr, reason: PortReason },
    PortTaken { port: u16 },
    ContainerKilled,
    ContainerNotStarted { reason: String },
    ContainerRestart { delay_ms: u64 },
    ComponentNotStarted { reason: String },
    ComponentRestart { component: String, end: String, delay_ms: u64 },
    ComponentStuck,
    Unhealthy { reason: String },
    UnhealthyRestart,
    Healthy,
    StopTimedOut { components: Vec<String>, signal: String, seconds: u32 },
    LogLost { reason: String },
    LogsWritten,
    NetworkRestored,
    NetworkLost { reason: String },
    OutOfMemory,
    NotAtBoot { service: String },
    TagMoved { service: String, image: String, running: String, tagged: String },
    UpToDate { service: String, image: String, digest: String },
    FilesLeft { service: String },
    LinkedBy { service: String, users: Vec<String> },
    VolumeShared { volume: String },
    VolumesKept { volumes: Vec<String> },
    VolumeRemoved { volume: String },
    SecretsHidden,
    Export { message: String },
}

/// The reason why a service's port has another number on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PortReason {
    /// Listening on the port needs a privilege.
    Privileged,
    /// Another program listens on the port, on all addresses.
    InUse,
}

/// Notes about backups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "code", rename_all = "kebab-case", rename_all_fields = "camelCase")]
#[allow(missing_docs, reason = "docs/progress.md documents each field")]
pub enum BackupNote {
    CopiesFiles { service: String, stopped: bool },
    HostPathSkipped { path: String, at: String },
    NoHeader,
    NoRestoreScript,
    Verified,
    CopyRemoved { service: String, dry_run: bool },
}
