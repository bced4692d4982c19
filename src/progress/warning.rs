//! Warnings: conditions that the user probably does not intend.

use serde::{Deserialize, Serialize};

/// A warning; the command continues.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "code", rename_all = "kebab-case", rename_all_fields = "camelCase")]
#[allow(missing_docs, reason = "docs/progress.md documents each field")]
pub enum Warning {
    StoredImageUsed { reason: String },
    OtherPlatform { offered: String, wanted: String },
    NotVerified { policy: String, source: String },
    ProcessesKilled { processes: u64, memory: u64 },
    ProcessesRefused { pids: u64 },
    PackDiffers { pack: String },
    ContainerNetwork { reason: String, evidence: String },
    Unreadable { holder: String, reason: String },
    PruneBlocked { holder: String, reason: String },
    LayersUnreadable { reason: String },
    ServiceUnreadable { reason: String },
    ServiceDiscarded { reason: String },
    LinkVariables { service: String, link: String, variables: Vec<String>, winner: String },
    SharedVolume { service: String, volume: String },
    VolumeOfUnknownSetup { volume: String },
    VolumesOfEarlierSetup { volumes: Vec<String>, instance: String },
    OtherImage { image: String, digest: String },
    BackupEmpty,
    BackupFailed { exit_code: i32, file: Option<String>, file_kept: bool },
    RestoreFailed { exit_code: i32, verifying: bool },
}
