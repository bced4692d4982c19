//! `svp-conformance LAYOUT...` opens each OCI image layout with ocidir, an independent implementation, has it checked,
//! and reads every image's config. Prints one line per layout; exits with 1 at the first that is not sound.

use std::process::ExitCode;

use ocidir::OciRead;
use ocidir::cap_std::{ambient_authority, fs::Dir};
use ocidir::oci_spec::image::{ImageConfiguration, MediaType};

type Failure = Box<dyn std::error::Error>;

fn check(path: &str) -> Result<String, Failure> {
    let layout = ocidir::OciDir::open(Dir::open_ambient_dir(path, ambient_authority())?)?;
    let index = layout.read_index()?;
    if index.manifests().is_empty() {
        return Err("the layout contains no image".into());
    }
    let blobs = layout.fsck()?;
    let mut layers = 0;
    for descriptor in index.manifests() {
        if descriptor.media_type() != &MediaType::ImageManifest {
            return Err(format!("{} is not an image manifest", descriptor.media_type()).into());
        }
        let manifest: ocidir::oci_spec::image::ImageManifest = layout.read_json_blob(descriptor)?;
        let config: ImageConfiguration = layout.read_json_blob(manifest.config())?;
        if config.rootfs().diff_ids().len() != manifest.layers().len() {
            return Err("the numbers of diff IDs and layers differ".into());
        }
        layers += manifest.layers().len();
    }
    Ok(format!(
        "{path}: sound: {} images, {layers} layers, {blobs} blobs checked",
        index.manifests().len()
    ))
}

fn main() -> ExitCode {
    let layouts: Vec<String> = std::env::args().skip(1).collect();
    if layouts.is_empty() {
        eprintln!("usage: svp-conformance LAYOUT...");
        return ExitCode::from(2);
    }
    for path in &layouts {
        match check(path) {
            Ok(line) => println!("{line}"),
            Err(error) => {
                eprintln!("{path}: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
