//! Reads and writes JSON documents: sorted keys, no white space, bounded input.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

/// The maximum size of a manifest or index, in bytes; registries also limit it to 4 MiB.
pub const MAX_MANIFEST: u64 = 4 << 20;
/// The maximum size of an image config, in bytes.
pub const MAX_CONFIG: u64 = 8 << 20;

/// Serialises a document in svp's canonical form: sorted keys, no white space, UTF-8. Equal values give equal
/// bytes, and so equal digests.
pub fn canonical(value: &impl Serialize) -> Vec<u8> {
    // A `Value`'s maps are sorted; a struct's fields would keep source order.
    let value = serde_json::to_value(value).expect("svp's documents have string keys");
    serde_json::to_vec(&value).expect("a Value serialises")
}

/// Parses a document; error messages name it `what`.
///
/// # Errors
/// [`Kind::BadInput`](crate::error::Kind::BadInput) if it is not JSON of the expected shape.
pub fn parse<T: DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T> {
    serde_json::from_slice(bytes)
        .map_err(|error| Error::bad_input(format!("can't parse {what}")).source(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_sorted_at_every_level() {
        let value: serde_json::Value =
            parse(br#"{"b":{"z":1,"a":[{"y":1,"x":2}]},"a":null}"#, "x").unwrap();
        assert_eq!(canonical(&value), br#"{"a":null,"b":{"a":[{"x":2,"y":1}],"z":1}}"#);
    }

    #[test]
    fn deep_nesting_is_refused_and_does_not_overflow_the_stack() {
        let deep = "[".repeat(1 << 20);
        assert!(parse::<serde_json::Value>(deep.as_bytes(), "x").is_err());
    }
}
