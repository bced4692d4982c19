//! Judges the result of setting an extended attribute.

use std::os::fd::BorrowedFd;

use rustix::io::Errno;

use crate::error::Result;
use crate::layer::meta;
use crate::layer::unpack::Loss;
use crate::layer::unpack::tree::{Tree, failure};

impl Tree {
    /// Reports an attribute that the caller may not set or the file system can't store.
    pub(super) fn check_xattr(
        &mut self,
        set: Result<(), Errno>,
        file: BorrowedFd<'_>,
        name: &[u8],
        attribute: &[u8],
    ) -> Result<()> {
        let Err(error) = set else {
            if self.drop_set_id && attribute == b"security.capability" {
                self.report.lose(self.cursor.path_of(name), Loss::Capability);
            }
            return Ok(());
        };
        // ext4 also returns ENOSPC for attributes larger than a block.
        let full = || rustix::fs::fstatvfs(file).is_ok_and(|fs| fs.f_bavail == 0);
        let path = self.cursor.path_of(name);
        let listed = match error {
            Errno::PERM | Errno::ACCESS | Errno::NOTSUP | Errno::INVAL => true,
            Errno::TOOBIG | Errno::RANGE | Errno::BADF => true,
            Errno::NOSPC => !full(),
            _ => false,
        };
        if !listed {
            return Err(failure("set an extended attribute of", &path, error));
        }
        let attribute = meta::unescape(attribute).unwrap_or_else(|| attribute.to_vec());
        let name = String::from_utf8_lossy(&attribute).into_owned();
        self.report.lose(path, Loss::Xattr { name });
        Ok(())
    }
}
