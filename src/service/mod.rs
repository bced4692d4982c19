//! Instances of services: what running one needs.

mod state;

pub use state::{Saved, State, unreached};
