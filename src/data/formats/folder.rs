//! Folders of PNG and JPEG pictures.
//!
//! ```text
//!   folder/cat/1.png             or, with a CSV of labels:   folder/1.png
//!   folder/cat/2.jpg                                         folder/more/2.jpg
//!   folder/dog/1.png             file,label
//!                                1.png,cat
//!                                more/2.jpg,dog
//! ```
//!
//! The class of a picture is its folder, classes in sorted order. Samples are the first picture of each
//! class, then the second of each, …, so that a limit takes of all classes; with a CSV they have its order.
//! One pass when the folder is opened hashes every file and looks at its header; a picture is decoded when
//! its sample is used.

use super::names::Classes;
use super::picture::{self, Samples};
use super::rows::{PLAIN, Rows, text, wrong_at};
use super::source::{Source, regular};
use crate::config::{Data, Split};
use crate::data::{Dataset, limits};
use crate::error::{Error, Result};
use std::fmt::Display;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

/// Labelled pictures.
#[derive(Debug)]
pub struct Folder {
    root: PathBuf,
    /// Path below the folder, and label.
    pictures: Vec<(Box<Path>, u32)>,
    samples: Samples,
    classes: usize,
    fingerprint: String,
}

impl Folder {
    /// Opens one part of a card's data set; its training part says which classes there are.
    ///
    /// # Errors
    /// [`Error::NoInput`] if a folder or file is missing; [`Error::Data`] with its name if one is no picture
    /// or, without `resize`, of another size than the others; [`Error::Config`] if there are not as many
    /// classes as the card says.
    pub fn open(card: &Data, split: &Split, limit: Option<usize>) -> Result<Folder> {
        let root = super::given(split.folder.as_ref(), "folder")?;
        let classes = classes(card)?;
        let mut pictures = match &split.labels {
            Some(labels) => labelled(labels, &classes)?,
            None => by_class(root, &classes)?,
        };
        pictures.truncate(limit.unwrap_or(pictures.len()));
        let samples = Samples::new(card.pictures, card.normalize);
        let (root, classes, fingerprint) = (root.to_owned(), card.classes, String::new());
        let mut folder = Folder { root, pictures, samples, classes, fingerprint };
        folder.look_at_all()?;
        Ok(folder)
    }

    /// Finds the size of the samples and hashes everything.
    fn look_at_all(&mut self) -> Result<()> {
        if self.pictures.is_empty() {
            return Err(wrong(&self.root, "has no pictures"));
        }
        let mut hash = blake3::Hasher::new();
        for (path, label) in &self.pictures {
            let path = self.root.join(path);
            let bytes = load(&path)?;
            self.samples.look(&bytes).map_err(|what| wrong(&path, what))?;
            hash.update(&label.to_le_bytes()).update(&(bytes.len() as u64).to_le_bytes());
            hash.update(&bytes);
        }
        self.fingerprint = hash.finalize().to_hex().to_string();
        Ok(())
    }
}

impl Dataset for Folder {
    fn len(&self) -> usize {
        self.pictures.len()
    }

    fn sample_shape(&self) -> &[usize] {
        self.samples.shape()
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn read(&self, index: usize, out: &mut [f32]) -> Result<u32> {
        let (Some((path, label)), true) =
            (self.pictures.get(index), out.len() == self.sample_len())
        else {
            return Err(super::no_sample(index, self.len()));
        };
        let path = self.root.join(path);
        self.samples.read(&load(&path)?, out).map_err(|what| wrong(&path, what))?;
        Ok(*label)
    }

    fn label(&self, index: usize) -> Result<u32> {
        let picture = self.pictures.get(index);
        picture.map(|(_, label)| *label).ok_or_else(|| super::no_sample(index, self.len()))
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }
}

/// The classes that the training part of a card has.
fn classes(card: &Data) -> Result<Classes> {
    if let Some(labels) = &card.train.labels {
        let mut found = std::collections::BTreeSet::new();
        each_row(labels, |_, label| {
            if found.len() <= limits::CSV_VALUES && !found.contains(label) {
                found.insert(label.to_owned());
            }
            Ok(())
        })?;
        return Classes::found(found, card.classes, labels.display());
    }
    let root = super::given(card.train.folder.as_ref(), "folder")?;
    Classes::named(class_folders(root)?, card.classes, root.display())
}

/// The names of the folders in `root`, sorted.
fn class_folders(root: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for (path, name) in entries(root)? {
        if std::fs::metadata(&path).map_err(|e| Error::reading(&path, &e))?.is_dir() {
            names.push(name);
        } else if is_picture(&name) {
            return Err(wrong(
                &path,
                "lies beside the folders of the classes; move it into one, or give a CSV of labels",
            ));
        }
    }
    if names.is_empty() {
        return Err(wrong(root, "holds no folders; each class has one, with its pictures in it"));
    }
    Ok(names)
}

/// The pictures of each class folder: the first of each, the second of each, …
fn by_class(root: &Path, classes: &Classes) -> Result<Vec<(Box<Path>, u32)>> {
    let mut of_classes = Vec::new();
    let mut count = 0;
    for name in class_folders(root)? {
        let path = root.join(&name);
        let label = classes.number(&name).map_err(|what| wrong(&path, what))?;
        let mut files = Vec::new();
        for (path, file) in entries(&path)? {
            if !is_picture(&file) {
                return Err(wrong(
                    &path,
                    "is no .png, .jpg or .jpeg; folders of classes hold pictures and nothing else",
                ));
            }
            files.push(Path::new(&name).join(file).into_boxed_path());
        }
        if files.is_empty() {
            return Err(wrong(&path, "holds no pictures; its class would be empty"));
        }
        count += files.len();
        of_classes.push((label, files.into_iter()));
    }
    let mut pictures = Vec::with_capacity(count);
    while pictures.len() < count {
        for (label, files) in &mut of_classes {
            pictures.extend(files.next().map(|file| (file, *label)));
        }
    }
    Ok(pictures)
}

/// The pictures that a CSV names.
fn labelled(path: &Path, classes: &Classes) -> Result<Vec<(Box<Path>, u32)>> {
    let mut pictures = Vec::new();
    each_row(path, |file, label| {
        let number = classes.number(label).map_err(|what| format!("column `label`: {what}"))?;
        let file = Path::new(file);
        let plain = file.components().all(|part| matches!(part, Component::Normal(_)));
        if !plain || file.as_os_str().is_empty() {
            return Err(format!(
                "column `file`: `{}` is not a path inside the folder",
                file.display().to_string().escape_debug()
            ));
        }
        if pictures.len() == limits::FOLDER_FILES {
            return Err(format!("more than {} pictures", limits::FOLDER_FILES));
        }
        pictures.push((file.into(), number));
        Ok(())
    })?;
    Ok(pictures)
}

/// Gives the file and label of each row of a CSV to `f`.
fn each_row(
    path: &Path,
    mut f: impl FnMut(&str, &str) -> std::result::Result<(), String>,
) -> Result<()> {
    let source = Source::open(path)?;
    source.refuse_gzip()?;
    let mut rows = Rows::of(&source, PLAIN);
    let mut places: Option<[usize; 2]> = None;
    while let Some((at, row)) = rows.next_row()? {
        let Some([file, label]) = places else {
            let place = |name: &str| row.iter().position(|cell| text(cell) == Ok(name));
            let (Some(file), Some(label)) = (place("file"), place("label")) else {
                return Err(wrong_at(
                    &source,
                    at,
                    "the first row must name columns `file`, `label`",
                ));
            };
            places = Some([file, label]);
            continue;
        };
        let cell = |place: usize, name: &str| {
            text(&row[place]).map_err(|what| format!("column `{name}`: {what}"))
        };
        let pair = cell(file, "file").and_then(|file| Ok((file, cell(label, "label")?)));
        pair.and_then(|(file, label)| f(file, label))
            .map_err(|what| wrong_at(&source, at, what))?;
    }
    Ok(())
}

/// What lies in a folder, sorted by name; names that begin with a dot are left out.
///
/// # Errors
/// When it is no folder, cannot be read, has too many entries or a name that is not UTF-8.
pub fn entries(folder: &Path) -> Result<Vec<(PathBuf, String)>> {
    let about = std::fs::metadata(folder).map_err(|e| Error::reading(folder, &e))?;
    if !about.is_dir() {
        let folder = folder.display();
        return Err(Error::NoInput(format!("cannot read {folder}: it is no folder")));
    }
    let failed = |e| Error::reading(folder, &e);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            return Err(wrong(&path, "has a name that is not UTF-8; rename it"));
        };
        if !name.starts_with('.') {
            let name = name.to_owned();
            found.push((path, name));
        }
        if found.len() > limits::FOLDER_FILES {
            return Err(wrong(folder, format!("holds more than {} files", limits::FOLDER_FILES)));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Whether a file of this name is taken for a picture.
pub fn is_picture(name: &str) -> bool {
    Path::new(name).extension().and_then(|end| end.to_str()).is_some_and(picture::is_picture)
}

/// All bytes of a picture's file.
///
/// # Errors
/// When it is no ordinary file (a pipe would block), cannot be read, or is too large.
pub fn load(path: &Path) -> Result<Vec<u8>> {
    let (file, size) = regular(path)?;
    let most = limits::PICTURE_BYTES;
    if size > most {
        return Err(wrong(path, format!("has {size} bytes; pictures of at most {most} are read")));
    }
    let mut bytes = Vec::with_capacity(size as usize + 1);
    file.take(most).read_to_end(&mut bytes).map_err(|e| Error::reading(path, &e))?;
    Ok(bytes)
}

/// A data error about a file. Names may hold anything: control characters are escaped.
fn wrong(path: &Path, what: impl Display) -> Error {
    Error::Data(format!("{}: {what}", path.display().to_string().escape_debug()))
}
