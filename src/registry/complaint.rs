//! What a registry's refusal complains about.

/// What a refusal complains about, as far as its words tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Complaint {
    /// The request is too large.
    TooLarge,
    /// The request is too small.
    TooSmall,
    /// The way of uploading, such as the range of a chunk.
    Form,
    #[default]
    Other,
}
