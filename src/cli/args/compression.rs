//! `--compression` and `--compression-level`.

use clap::ValueEnum;

use crate::error::Result;
use crate::layer::settings::Settings;
use crate::oci::media_type::Compression;

/// Compression of new layers.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct CompressionArgs {
    /// Compression of the new layers [default: gzip]; the base's layers stay as they are
    #[arg(long, value_enum, value_name = "FORMAT")]
    compression: Option<CompressionFormat>,
    /// Compression level: gzip 1 to 9, zstd 1 to 19
    #[arg(long, value_name = "N")]
    compression_level: Option<u32>,
}

impl CompressionArgs {
    /// Returns the settings for writing layers.
    pub(in crate::cli) fn settings(&self) -> Result<Settings> {
        Settings::new(
            self.compression.map_or(Compression::Gzip, Into::into),
            self.compression_level,
        )
    }

    /// Returns the compression given on the command line, if any.
    pub(in crate::cli) fn asked(&self) -> Result<Option<Settings>> {
        let any = self.compression.is_some() || self.compression_level.is_some();
        any.then(|| self.settings()).transpose()
    }
}

/// Compression of copied layers.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct RecompressionArgs {
    /// Recompress each layer that has another format; without this, layers are copied byte for byte
    #[arg(long, value_enum, value_name = "FORMAT")]
    compression: Option<CompressionFormat>,
    /// Recompress all layers at this level: gzip 1 to 9, zstd 1 to 19
    #[arg(long, value_name = "N", requires = "compression")]
    compression_level: Option<u32>,
}

impl RecompressionArgs {
    /// Returns the compression given on the command line, if any.
    pub(in crate::cli) fn asked(&self) -> Result<Option<Settings>> {
        let settings =
            |format: CompressionFormat| Settings::new(format.into(), self.compression_level);
        self.compression.map(settings).transpose()
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(in crate::cli) enum CompressionFormat {
    /// Supported by every tool
    Gzip,
    /// Smaller and faster; supported by docker 23, containerd 1.5, podman and skopeo
    Zstd,
    /// Uncompressed tar
    None,
}

impl From<CompressionFormat> for Compression {
    fn from(format: CompressionFormat) -> Self {
        match format {
            CompressionFormat::Gzip => Compression::Gzip,
            CompressionFormat::Zstd => Compression::Zstd,
            CompressionFormat::None => Compression::None,
        }
    }
}
