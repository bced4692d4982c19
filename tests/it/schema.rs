//! svp's output, checked with the OCI image specification's schemas and by ocidir.

use crate::support;
use svp::import::{ImportOptions, Input, import};
use svp::oci::{History, Platform, Reference};
use svp::progress::Silent;
use svp::store::Store;

#[test]
fn documents_and_layout_conform_to_the_specification() {
    let env = support::TestEnv::new();
    let store = Store::open(&env.path("images")).unwrap();
    let reference: Reference = "team/base:1".parse().unwrap();
    let options = ImportOptions { platform: Platform::host(), created: 0, threads: 2 };
    let input = Input::open(&support::busybox_base()).unwrap();
    let base = import(input, &store, &reference, &options, &Silent).unwrap();

    // An image as `svp build` makes it, with every field of the config that svp sets.
    let mut image = store.load_image(&base).unwrap();
    let layer = image.layers()[0].clone();
    let entry = History {
        created: Some("2024-01-02T03:04:05Z".into()),
        created_by: "svp build: bin/build base".into(),
        comment: Some("a comment".into()),
        empty_layer: false,
    };
    image.append_layer(layer.descriptor, layer.diff_id, &entry).unwrap();
    let config = image.config_mut();
    config.set_created("2024-01-02T03:04:05Z");
    config.set_entrypoint(&["/service/bin/run"]);
    config.set_working_dir("/service");
    config.clear_user();
    config.set_env("MYSQL_PORT", "3306");
    config.add_exposed_port("3306/tcp");
    config.add_volume("/var/lib/mysql");
    config.set_label("dev.servicepack.phase", "base");
    let built = store.insert_image(&image, &"mysql".parse().unwrap()).unwrap();

    let out = env.path("out");
    for (descriptor, name) in [(&base, "team/base:1"), (&built, "mysql")] {
        store.save_to_layout(descriptor, &out, &name.parse().unwrap()).unwrap();
        let manifest = store.load_manifest(descriptor).unwrap();
        support::check_schema("image-manifest-schema", &store.blob_path(&descriptor.digest));
        support::check_schema("config-schema", &store.blob_path(&manifest.config.digest));
    }
    support::check_schema("image-index-schema", &out.join("index.json"));
    support::check_schema("image-layout-schema", &out.join("oci-layout"));
    let report = support::conformance(&out);
    assert!(report.contains("2 images"), "{report}");
}
