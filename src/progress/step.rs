//! Steps of a command's work.

use serde::{Deserialize, Serialize};

/// A step that begins, or the result of the work, such as [`Step::Built`].
///
/// Digests are complete, names are as the user writes them, paths as svp prints them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "code", rename_all = "kebab-case", rename_all_fields = "camelCase")]
#[allow(missing_docs, reason = "docs/progress.md documents each field")]
pub enum Step {
    Pull { source: String },
    Push { digest: String, destination: String },
    Load { file: String },
    Import { input: String, reference: String },
    Write { reference: String, destination: String },
    BaseImage { source: String },
    ReadLayer { digest: String },
    UnpackLayer { digest: String },
    CompressLayer { digest: String, compression: String },
    DecompressLayer { digest: String },
    RunScript { script: String, phase: Option<String> },
    WriteLayer,
    Built { reference: String, digest: String },
    SetUp { reference: String, digest: String },
    LoggedIn { registry: String, keeper: String },
    LoggedOut { registry: String },
    LoginsRemoved { file: String },
    CreateVolume { volume: String, at: String },
    StopService,
    NotRunning { service: String },
    WaitForStop { service: String, signal: String, seconds: u32 },
    WaitForContainer { service: String },
    WaitForHealth { service: String },
    RunHealthCommand { service: String },
    RemoveService { service: String },
    WaitForStore,
    WaitForLayer { digest: String },
    WaitForServer { server: String },
    MeasureStore,
    PruneStore,
    RemoveImages,
    RunQuery { key: String },
    SyncFiles,
    ExportVolume { volume: String },
    ImportVolume { volume: String },
    MeasureVolumes,
    ReadBackup { service: String, image: String, created: String },
    Upgrade { service: String, image: String, digest: String },
    CopyVolumes,
    StartCopy,
    UnpackBackup,
    Cutover,
    CheckBlobs,
    CheckImages,
    CheckImageFiles,
    CheckUnpackedLayers,
}
