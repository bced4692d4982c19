//! Compression settings: format and level. See docs/decisions/045-compression-asked-for.md.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::oci::media_type::Compression;

/// The default gzip level: see docs/decisions/001-compression.md.
const GZIP_LEVEL: u32 = 4;
/// The default zstd level.
const ZSTD_LEVEL: u32 = 3;
/// Levels above 19 use windows wider than the 8 MiB that every reader accepts (RFC 8878, 3.1.1.1.2).
const ZSTD_LEVELS: RangeInclusive<u32> = 1..=19;
const GZIP_LEVELS: RangeInclusive<u32> = 1..=9;

/// Compression format and level. The level is valid for the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    compression: Compression,
    level: Option<u32>,
}

impl Settings {
    /// Creates settings for `compression` at `level`: gzip 1 to 9, zstd 1 to 19; `None` for the default.
    ///
    /// # Errors
    /// [`Kind::Usage`](crate::error::Kind::Usage) for a level that the format does not have.
    pub fn new(compression: Compression, level: Option<u32>) -> Result<Self> {
        let levels = match compression {
            Compression::None => None,
            Compression::Gzip => Some(GZIP_LEVELS),
            Compression::Zstd => Some(ZSTD_LEVELS),
        };
        match (level, levels) {
            (Some(level), None) => Err(Error::usage(format!(
                "compression level {level} requires a compression format"
            ))
            .hint("omit the level, or choose gzip or zstd")),
            (Some(level), Some(levels)) if !levels.contains(&level) => {
                Err(Error::usage(format!("{compression} has no compression level {level}"))
                    .hint(format!("choose one from {} to {}", levels.start(), levels.end())))
            }
            _ => Ok(Settings { compression, level }),
        }
    }

    /// Returns the format.
    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// Returns the requested level, if any.
    pub fn asked_level(&self) -> Option<u32> {
        self.level
    }

    /// Returns the level to compress with; 0 without compression.
    pub(super) fn level(&self) -> u32 {
        self.level.unwrap_or(match self.compression {
            Compression::None => 0,
            Compression::Gzip => GZIP_LEVEL,
            Compression::Zstd => ZSTD_LEVEL,
        })
    }
}

impl From<Compression> for Settings {
    /// Uses the format's default level.
    fn from(compression: Compression) -> Self {
        Settings { compression, level: None }
    }
}

impl Default for Settings {
    /// The default that every registry and engine accepts.
    fn default() -> Self {
        Compression::Gzip.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_those_of_the_format() {
        for (compression, most) in [(Compression::Gzip, 9), (Compression::Zstd, 19)] {
            assert!(Settings::new(compression, None).is_ok());
            for (level, is_one) in [(0, false), (1, true), (most, true), (most + 1, false)] {
                let made = Settings::new(compression, Some(level));
                assert_eq!(made.is_ok(), is_one, "{compression} {level}");
            }
        }
        assert!(Settings::new(Compression::None, None).is_ok());
        let error = Settings::new(Compression::None, Some(1)).unwrap_err();
        assert_eq!(error.kind().exit_code(), 2);
    }
}
