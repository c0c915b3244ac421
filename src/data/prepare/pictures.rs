//! Folders of pictures: each folder below a source is a class.

use super::{Record, short};
use crate::config::{Color, Pictures as Wanted, Prepare};
use crate::data::formats::{folder, picture};
use crate::data::limits;
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// Files, of which some may be pictures.
#[derive(Debug)]
pub struct Pictures {
    roots: Vec<PathBuf>,
    /// Source, path below it with `/`, class: nothing for a file beside the folders.
    files: Vec<(usize, String, String)>,
    wanted: Wanted,
}

impl Pictures {
    /// Lists what is there, sorted.
    ///
    /// # Errors
    /// When a folder cannot be read, or there are no files.
    pub fn open(wishes: &Prepare) -> Result<Pictures> {
        let options = wishes.pictures.clone().unwrap_or_default();
        let roots = &wishes.sources;
        let color = if options.grey { Color::Grey } else { Color::Rgb };
        let wanted = Wanted { color, resize: options.resize, filter: None };
        let mut files = Vec::new();
        for (source, root) in roots.iter().enumerate() {
            let mut found = Vec::new();
            walk(root, "", &mut found)?;
            found.sort_unstable();
            for path in found {
                let class = path.split_once('/').map_or("", |(class, _)| class).to_owned();
                files.push((source, path, class));
            }
        }
        if files.is_empty() {
            let names: Vec<_> = roots.iter().map(|root| root.display().to_string()).collect();
            return Err(Error::Data(format!(
                "{}: holds no files; each class has a folder with its pictures in it",
                names.join(", ")
            )));
        }
        Ok(Pictures { roots: roots.to_vec(), files, wanted })
    }

    /// Number of files.
    pub fn count(&self) -> usize {
        self.files.len()
    }

    /// Source and path of a file.
    pub fn name(&self, i: usize) -> String {
        let (source, path, _) = &self.files[i];
        format!("{}/{path}", short(&self.roots[*source]))
    }

    fn path(&self, i: usize) -> PathBuf {
        let (source, path, _) = &self.files[i];
        self.roots[*source].join(path)
    }

    /// Numbers of a pixel.
    pub fn channels(&self) -> usize {
        if self.wanted.color == Color::Grey { 1 } else { 3 }
    }

    /// Rows, columns and pixels of a file.
    ///
    /// # Errors
    /// Why it is no picture that can be used.
    pub fn pixels(&self, i: usize) -> std::result::Result<([usize; 2], Vec<u8>), String> {
        let bytes = folder::load(&self.path(i)).map_err(|error| error.to_string())?;
        picture::decode(&bytes, &self.wanted)
    }

    /// Looks at a file.
    pub fn examine(&self, i: usize) -> Record {
        let (_, path, class) = &self.files[i];
        if !folder::is_picture(path) {
            return Record::refused(class, "no picture: its name ends in none of png, jpg, jpeg");
        }
        if class.is_empty() {
            return Record::refused(class, "in no class: lies beside the folders of the classes");
        }
        let (size, pixels) = match self.pixels(i) {
            Ok(found) => found,
            Err(why) => return Record::refused(class, format!("unreadable: {why}")),
        };
        if pixels.chunks_exact(self.channels()).all(|p| p == &pixels[..self.channels()]) {
            return Record::refused(class, "constant: all pixels are the same");
        }
        let mut hash = blake3::Hasher::new();
        hash.update(&(size[0] as u64).to_le_bytes()).update(&(size[1] as u64).to_le_bytes());
        let hash = hash.update(&pixels).finalize().to_hex().to_string();
        let look = Some(look(size, self.channels(), &pixels));
        Record { look, size, ..Record::of(hash, class) }
    }

    /// Names, lengths and times of all files.
    ///
    /// # Errors
    /// When one has gone.
    pub fn sign(&self, hash: &mut blake3::Hasher) -> Result<()> {
        for i in 0..self.count() {
            let path = self.path(i);
            let about = std::fs::symlink_metadata(&path).map_err(|e| Error::reading(&path, &e))?;
            let time = about.modified().ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok());
            let time = time.unwrap_or_default().as_nanos() as u64;
            hash.update(self.name(i).as_bytes()).update(&[0]);
            hash.update(&about.len().to_le_bytes()).update(&time.to_le_bytes());
        }
        Ok(())
    }
}

/// The files below a folder; names that begin with a dot are left out, links to folders not followed.
pub(super) fn walk(root: &Path, below: &str, found: &mut Vec<String>) -> Result<()> {
    for (path, name) in folder::entries(&root.join(below))? {
        let about = std::fs::symlink_metadata(&path).map_err(|e| Error::reading(&path, &e))?;
        let name = if below.is_empty() { name } else { format!("{below}/{name}") };
        if about.is_dir() {
            walk(root, &name, found)?;
        } else {
            found.push(name);
        }
        if found.len() > limits::FOLDER_FILES {
            return Err(Error::Data(format!(
                "{}: holds more than {} files",
                root.display(),
                limits::FOLDER_FILES
            )));
        }
    }
    Ok(())
}

/// dHash: the picture as 8 rows of 9 mean greys, and for each neighbouring pair whether it gets lighter.
fn look([rows, columns]: [usize; 2], channels: usize, pixels: &[u8]) -> u64 {
    let cell = |r: usize, c: usize| -> u64 {
        let (top, left) = (r * rows / 8, c * columns / 9);
        let bottom = ((r + 1) * rows / 8).max(top + 1);
        let right = ((c + 1) * columns / 9).max(left + 1);
        let mut sum = 0u64;
        for row in top..bottom {
            let line =
                &pixels[(row * columns + left) * channels..(row * columns + right) * channels];
            sum += line.iter().map(|&v| u64::from(v)).sum::<u64>();
        }
        // In 1/256 of a grey, so that rounding does not decide.
        sum * 256 / ((bottom - top) * (right - left)) as u64
    };
    let mut bits = 0;
    for row in 0..8 {
        for column in 0..8 {
            bits = (bits << 1) | u64::from(cell(row, column + 1) > cell(row, column));
        }
    }
    bits
}
