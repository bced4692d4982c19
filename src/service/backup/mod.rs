//! Backups of services: what `bin/backup` prints, compressed, with a note of what it is a backup of; and
//! restoring them, in a fresh copy first.
//!
//! | file | what it does |
//! |---|---|
//! | `note` | what a backup says of itself, and where it says it |
//! | `file` | a file that takes another's place only when it is whole |
//! | `make` | making one |
//! | `feed` | reading one, whole and in bounded memory |
//! | `restore` | restoring one, or only trying to |
//! | `fresh` | the fresh copy of a service |
//! | `swap` | putting that in the old one's place |

mod feed;
pub mod file;
mod fresh;
pub mod make;
pub mod note;
pub mod restore;
pub mod swap;
