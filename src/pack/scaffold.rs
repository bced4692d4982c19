//! Starts a new pack.
