//! `--compression` and `--compression-level`.

use clap::ValueEnum;

use crate::error::Result;
use crate::layer::settings::Settings;
use crate::oci::media_type::Compression;

/// How to compress what is made.
#[derive(Debug, clap::Args)]
pub(super) struct CompressionArgs {
    /// How to compress the layers that are made [default: gzip]; those of the base stay as they are
    #[arg(long, value_enum, value_name = "FORMAT")]
    compression: Option<Format>,
    /// How hard to compress them: gzip 1 to 9, zstd 1 to 19
    #[arg(long, value_name = "N")]
    compression_level: Option<u32>,
}

impl CompressionArgs {
    /// What layers are written with.
    pub(super) fn settings(&self) -> Result<Settings> {
        Settings::new(
            self.compression.map_or(Compression::Gzip, Into::into),
            self.compression_level,
        )
    }

    /// What was asked for, if anything was.
    pub(super) fn asked(&self) -> Result<Option<Settings>> {
        let any = self.compression.is_some() || self.compression_level.is_some();
        any.then(|| self.settings()).transpose()
    }
}

/// How to compress what is carried.
#[derive(Debug, clap::Args)]
pub(super) struct RecompressionArgs {
    /// Compress every layer anew that is not of this format; without it, layers stay as they are, byte for byte
    #[arg(long, value_enum, value_name = "FORMAT")]
    compression: Option<Format>,
    /// Compress all layers anew, this hard: gzip 1 to 9, zstd 1 to 19
    #[arg(long, value_name = "N", requires = "compression")]
    compression_level: Option<u32>,
}

impl RecompressionArgs {
    /// What was asked for, if anything was.
    pub(super) fn asked(&self) -> Result<Option<Settings>> {
        let settings = |format: Format| Settings::new(format.into(), self.compression_level);
        self.compression.map(settings).transpose()
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Format {
    /// Read by everything
    Gzip,
    /// Smaller and quicker; read by docker 23, containerd 1.5, podman and skopeo
    Zstd,
    /// Plain tars
    None,
}

impl From<Format> for Compression {
    fn from(format: Format) -> Self {
        match format {
            Format::Gzip => Compression::Gzip,
            Format::Zstd => Compression::Zstd,
            Format::None => Compression::None,
        }
    }
}
