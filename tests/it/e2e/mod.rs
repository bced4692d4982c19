//! End-to-end tests: the program with real packs, real bases and other tools, and its failure modes.

mod backup;
mod bad_images;
mod bad_packs;
mod bad_scripts;
mod common;
mod demo;
mod exact;
mod export;
mod hard;
mod interop;
mod interrupt;
mod live;
mod long;
mod memory;
mod network;
mod no_network;
mod reproducible;
mod resources;
mod round_trip;
mod run;
mod services;
mod setup;
mod stuck;
mod talk;
mod terminal;
mod variables;
