//! A disk that stops, fails, is slow or loses its power after a given operation.

use annulus::checkpoint::disk::{Disk, Real, Sink};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What happens at operation `at`, counted from 0.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// It is the last one of this process; a write gets half-way.
    Kill,
    /// It fails with this error number and changes nothing; a write gets half-way.
    Once(i32),
    /// So does every later one that makes or writes something.
    Full(i32),
}

#[derive(Default)]
struct Inner {
    fault: Option<(usize, Fault)>,
    done: usize,
    dead: bool,
    delay: Duration,
    free: Option<u64>,
    /// Files whose content is not yet on the disk.
    unsynced: Vec<PathBuf>,
    /// New names whose folder is not yet synced.
    unsynced_names: Vec<PathBuf>,
    /// Renamings whose folder is not yet synced, and the file that was replaced.
    unsynced_renames: Vec<(PathBuf, PathBuf, Option<Vec<u8>>)>,
}

/// The real disk with a fault, and a memory of what a power cut would take back.
#[derive(Clone, Default)]
pub struct Faulty(Arc<Mutex<Inner>>);

/// How far an operation may go.
enum Way {
    Whole,
    HalfThen(io::Error),
}

impl Faulty {
    pub fn new(at: usize, fault: Fault) -> Faulty {
        Faulty(Arc::new(Mutex::new(Inner { fault: Some((at, fault)), ..Inner::default() })))
    }

    pub fn slow(delay: Duration) -> Faulty {
        Faulty(Arc::new(Mutex::new(Inner { delay, ..Inner::default() })))
    }

    pub fn with_room(free: u64) -> Faulty {
        Faulty(Arc::new(Mutex::new(Inner { free: Some(free), ..Inner::default() })))
    }

    /// Operations so far.
    pub fn done(&self) -> usize {
        self.0.lock().unwrap().done
    }

    fn way(&self, makes: bool) -> io::Result<Way> {
        let mut inner = self.0.lock().unwrap();
        std::thread::sleep(inner.delay);
        if inner.dead {
            return Err(io::Error::other("the process is dead"));
        }
        let now = inner.done;
        inner.done += 1;
        match inner.fault {
            Some((at, Fault::Kill)) if now == at => {
                inner.dead = true;
                Ok(Way::HalfThen(io::Error::other("killed")))
            }
            Some((at, Fault::Once(errno))) if now == at => {
                Ok(Way::HalfThen(io::Error::from_raw_os_error(errno)))
            }
            Some((at, Fault::Full(errno))) if now >= at && makes => {
                Ok(Way::HalfThen(io::Error::from_raw_os_error(errno)))
            }
            _ => Ok(Way::Whole),
        }
    }

    /// Does an operation that cannot be half done.
    fn run<T>(&self, makes: bool, operation: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        match self.way(makes)? {
            Way::Whole => operation(),
            Way::HalfThen(error) => {
                if self.0.lock().unwrap().dead {
                    operation()?;
                }
                Err(error)
            }
        }
    }

    /// What is on the disk after the power went: nothing that was not synced, except, if `names`,
    /// that names and renamings reached it before the contents.
    pub fn cut_power(&self, names: bool) {
        let inner = self.0.lock().unwrap();
        for path in inner.unsynced.iter().filter(|p| p.exists()) {
            File::options().write(true).open(path).unwrap().set_len(0).unwrap();
        }
        if names {
            return;
        }
        for (from, to, replaced) in inner.unsynced_renames.iter().rev() {
            if to.exists() {
                fs::rename(to, from).unwrap();
            }
            if let Some(bytes) = replaced {
                fs::write(to, bytes).unwrap();
            }
        }
        for path in inner.unsynced_names.iter().rev() {
            if path.is_dir() {
                fs::remove_dir_all(path).unwrap();
            } else if path.exists() {
                fs::remove_file(path).unwrap();
            }
        }
    }
}

struct Handle {
    disk: Faulty,
    path: PathBuf,
    file: File,
}

impl Write for Handle {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.disk.way(true)? {
            Way::Whole => self.file.write(bytes),
            Way::HalfThen(error) => {
                self.file.write_all(&bytes[..bytes.len() / 2])?;
                Err(error)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink for Handle {
    fn sync(&mut self) -> io::Result<()> {
        let disk = self.disk.clone();
        disk.run(true, || {
            disk.0.lock().unwrap().unsynced.retain(|p| *p != self.path);
            Ok(())
        })
    }
}

impl Disk for Faulty {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.run(true, || {
            Real.create_dir(path)?;
            self.0.lock().unwrap().unsynced_names.push(path.to_owned());
            Ok(())
        })
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn Sink>> {
        self.run(true, || {
            let file = File::create_new(path)?;
            let mut inner = self.0.lock().unwrap();
            inner.unsynced.push(path.to_owned());
            inner.unsynced_names.push(path.to_owned());
            let handle = Handle { disk: self.clone(), path: path.to_owned(), file };
            Ok(Box::new(handle) as Box<dyn Sink>)
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.run(false, || {
            let replaced = fs::read(to).ok();
            Real.rename(from, to)?;
            let mut inner = self.0.lock().unwrap();
            let inner = &mut *inner;
            // The file keeps its debts under its new name.
            for path in inner.unsynced.iter_mut().chain(&mut inner.unsynced_names) {
                if let Ok(rest) = path.strip_prefix(from) {
                    // An empty rest would add a slash.
                    *path = if rest.as_os_str().is_empty() { to.into() } else { to.join(rest) };
                }
            }
            // Undoing the renaming gives the old name back; the new one then owes nothing.
            inner.unsynced_names.retain(|p| p != to);
            inner.unsynced_renames.push((from.to_owned(), to.to_owned(), replaced));
            Ok(())
        })
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.run(true, || {
            let mut inner = self.0.lock().unwrap();
            inner.unsynced_names.retain(|p| p.parent() != Some(path));
            inner.unsynced_renames.retain(|(_, to, _)| to.parent() != Some(path));
            Ok(())
        })
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.run(false, || Real.remove_file(path))
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.run(false, || Real.remove_dir(path))
    }

    fn free(&self, _: &Path) -> io::Result<Option<u64>> {
        Ok(self.0.lock().unwrap().free)
    }
}

#[test]
fn the_power_cut_takes_back_what_was_not_synced_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("a"), folder.path().join("b"));
    let disk = Faulty::default();
    let write = |path: &Path, sync: bool| {
        let mut file = disk.create(path).unwrap();
        file.write_all(b"12345").unwrap();
        if sync {
            file.sync().unwrap();
        }
    };
    write(&a, true);
    disk.sync_dir(folder.path()).unwrap();
    write(&b, false);
    disk.rename(&b, &a).unwrap();
    let contents: BTreeMap<_, _> = [false, true]
        .map(|names| {
            // The later state of the two is looked at first: it changes less.
            disk.cut_power(!names);
            (!names, fs::read(&a).unwrap())
        })
        .into();
    assert_eq!(contents[&true], b"", "the name came before the content");
    assert_eq!(contents[&false], b"12345", "the renaming is undone");
}
