//! Finds every problem of a pack at once.
