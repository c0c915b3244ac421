//! The file system as checkpoints use it. A trait, so that tests can stop the writing after every
//! single operation, let one fail, or take back what was not yet synced.

use rustix::io::Errno;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

/// A file that is being written.
pub trait Sink: Write {
    /// Returns once the bytes written so far are on the disk.
    ///
    /// # Errors
    /// Those of the file system; the file's content is then unknown.
    fn sync(&mut self) -> io::Result<()>;
}

/// The operations that change something, and the room that is left.
pub trait Disk: Send + Sync {
    /// Makes one folder.
    ///
    /// # Errors
    /// Those of the file system, as for all below.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Makes a file that must not be there yet.
    ///
    /// # Errors
    /// See above.
    fn create(&self, path: &Path) -> io::Result<Box<dyn Sink>>;
    /// Gives a file or folder another name; a file of that name is replaced.
    ///
    /// # Errors
    /// See above.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Returns once the folder's entries are on the disk.
    ///
    /// # Errors
    /// See above.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Removes one file.
    ///
    /// # Errors
    /// See above.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes one empty folder.
    ///
    /// # Errors
    /// See above.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
    /// Bytes that this user may still write there; `None` where the file system does not say.
    ///
    /// # Errors
    /// See above.
    fn free(&self, path: &Path) -> io::Result<Option<u64>>;
}

/// The file system itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct Real;

impl Sink for File {
    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }
}

impl Disk for Real {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn Sink>> {
        Ok(Box::new(OpenOptions::new().write(true).create_new(true).open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        match File::open(path)?.sync_all() {
            // Some network file systems cannot sync a folder and say so in this way.
            Err(e) if e.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => Ok(()),
            other => other,
        }
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    fn free(&self, path: &Path) -> io::Result<Option<u64>> {
        let about = rustix::fs::statvfs(path)?;
        // Some FUSE file systems fill in nothing.
        Ok((about.f_blocks > 0).then(|| about.f_bavail.saturating_mul(about.f_frsize)))
    }
}

/// Removes a folder with what is in it, one operation at a time.
pub(super) fn remove_tree(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        // A link is removed, not followed.
        if entry.file_type()?.is_dir() {
            remove_tree(disk, &entry.path())?;
        } else {
            disk.remove_file(&entry.path())?;
        }
    }
    disk.remove_dir(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_removed_without_following_links_out_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let (tree, beside) = (folder.path().join("tree"), folder.path().join("beside"));
        fs::create_dir_all(tree.join("deep")).unwrap();
        fs::create_dir(&beside).unwrap();
        fs::write(beside.join("file"), "kept").unwrap();
        fs::write(tree.join("deep/file"), "gone").unwrap();
        std::os::unix::fs::symlink(&beside, tree.join("link")).unwrap();
        remove_tree(&Real, &tree).unwrap();
        assert!(!tree.exists());
        assert_eq!(fs::read_to_string(beside.join("file")).unwrap(), "kept");
    }

    #[test]
    fn the_disk_says_how_much_room_it_has() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Real.free(folder.path()).unwrap().unwrap() > 0);
    }
}
