//! Random names.

/// Returns a new name of 24 hexadecimal digits.
pub(crate) fn random_name() -> String {
    let bytes: [u8; 12] = rand::random();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
