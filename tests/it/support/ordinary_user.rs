//! An ordinary user for one test, for tests that root runs: no two tests share one, and none depends on one from an
//! earlier run.

use super::{repo, run};

/// A user with subordinate ids, created for one test. Removed when dropped, with its processes and its home.
pub struct OrdinaryUser {
    name: String,
}

impl OrdinaryUser {
    /// Creates the user. Only root can.
    #[track_caller]
    pub fn create() -> Self {
        let name = format!("svpt{:08x}", rand::random::<u32>());
        let stdout = run(repo().join("scripts/ordinary-user.sh"), ["add", &name]);
        assert_eq!(stdout, "created\n");
        OrdinaryUser { name }
    }

    /// Returns the login name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for OrdinaryUser {
    fn drop(&mut self) {
        run(repo().join("scripts/ordinary-user.sh"), ["remove", &self.name]);
    }
}
