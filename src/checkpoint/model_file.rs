//! A model's parameters as a safetensors file with PyTorch's names and layouts.
//!
//! `torch.nn.Module.load_state_dict(safetensors.torch.load_file(path))` takes it as it is. The file
//! is written beside its final name, synced and renamed: it is whole or it is not there.

use crate::error::{Error, Result};
use crate::util::files;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// Larger headers are refused: 100,000 tensors need about this much.
const MAX_HEADER: u64 = 16 << 20;

/// A tensor on the host.
#[derive(Debug, Clone, PartialEq)]
pub struct Named {
    /// Dotted name, as PyTorch calls it.
    pub name: String,
    /// Dimensions.
    pub shape: Vec<usize>,
    /// Values in row-major order.
    pub values: Vec<f32>,
}

/// Writes the tensors to `path`, in the order of their names.
///
/// # Errors
/// [`Error::CannotCreate`] or [`Error::Io`] when the file cannot be written.
pub fn save(path: &Path, tensors: &[Named]) -> Result<()> {
    let views = tensors
        .iter()
        .map(|t| {
            let bytes = bytemuck::cast_slice(&t.values);
            Ok((t.name.as_str(), TensorView::new(Dtype::F32, t.shape.clone(), bytes)?))
        })
        .collect::<std::result::Result<BTreeMap<_, _>, safetensors::SafeTensorError>>()
        .map_err(|e| Error::Internal(format!("cannot describe the parameters: {e}")))?;
    // Tools of the PyTorch world look for this mark before they read the tensors.
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let bytes = safetensors::serialize(views, Some(metadata))
        .map_err(|e| Error::Internal(format!("cannot lay out the parameters: {e}")))?;
    files::write_whole(path, &bytes)
}

/// Reads all tensors of `path`, in the order of their names.
///
/// # Errors
/// [`Error::NoInput`] when it is not there, [`Error::Data`] when it is not a safetensors file of
/// `f32` tensors, or is cut off or damaged.
pub fn load(path: &Path) -> Result<Vec<Named>> {
    let bytes = std::fs::read(path).map_err(|e| Error::reading(path, &e))?;
    let bad = |why: String| Error::Data(format!("{}: {why}", path.display()));
    if bytes.starts_with(b"PK") || bytes.first() == Some(&0x80) {
        return Err(bad(
            "this is a PyTorch pickle, which can run code when it is read; convert it \
                        with safetensors.torch.save_file(model.state_dict(), PATH)"
                .to_owned(),
        ));
    }
    let header = bytes.first_chunk::<8>().map_or(0, |n| u64::from_le_bytes(*n));
    if header > MAX_HEADER || header.saturating_add(8) > bytes.len() as u64 {
        return Err(bad(format!(
            "not a safetensors file, or cut off: it announces a header of {header} bytes and is {} \
             bytes long",
            bytes.len()
        )));
    }
    let file = SafeTensors::deserialize(&bytes).map_err(|e| bad(format!("damaged: {e}")))?;
    let mut tensors = Vec::with_capacity(file.len());
    for (name, view) in file.iter() {
        if view.dtype() != Dtype::F32 {
            return Err(bad(format!("{name} is {:?}; only F32 is supported", view.dtype())));
        }
        let values = view
            .data()
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect();
        tensors.push(Named { name: name.to_owned(), shape: view.shape().to_vec(), values });
    }
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(tensors)
}

/// Compares what a file holds with what a model needs, both in name order.
///
/// # Errors
/// [`Error::Data`] listing every missing, unknown and differently shaped tensor at once.
pub fn check_fits(path: &Path, found: &[Named], needed: &[(String, Vec<usize>)]) -> Result<()> {
    let mut problems = Vec::new();
    for (name, shape) in needed {
        match found.iter().find(|t| t.name == *name) {
            None => problems.push(format!("{name} is missing")),
            Some(t) if t.shape != *shape => {
                problems.push(format!("{name} has shape {:?}, the model {shape:?}", t.shape));
            }
            Some(_) => {}
        }
    }
    for t in found.iter().filter(|t| needed.iter().all(|(name, _)| *name != t.name)) {
        problems.push(format!("{} is not in the model", t.name));
    }
    if problems.is_empty() {
        return Ok(());
    }
    Err(Error::Data(format!(
        "{} does not fit the model of the card: {}",
        path.display(),
        problems.join("; ")
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> Vec<Named> {
        vec![
            Named { name: "a.bias".into(), shape: vec![2], values: vec![1.0, -2.5] },
            Named { name: "a.weight".into(), shape: vec![2, 1], values: vec![3.0, 4.0] },
        ]
    }

    #[test]
    fn what_is_saved_is_loaded_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.safetensors");
        save(&path, &two()).unwrap();
        assert_eq!(load(&path).unwrap(), two());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_cut_anywhere_is_refused_and_never_read_past_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.safetensors");
        save(&path, &two()).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for len in 0..whole.len() {
            std::fs::write(&path, &whole[..len]).unwrap();
            assert_eq!(load(&path).unwrap_err().exit_code(), 65, "cut at {len}");
        }
        std::fs::write(&path, [0xff; 64]).unwrap();
        assert_eq!(load(&path).unwrap_err().exit_code(), 65);
    }

    #[test]
    fn a_pickle_is_refused_with_the_way_to_convert_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.pt");
        std::fs::write(&path, b"PK\x03\x04").unwrap();
        assert!(load(&path).unwrap_err().to_string().contains("save_file"));
    }

    #[test]
    fn every_difference_to_the_model_is_listed_at_once() {
        let needed = [("a.weight".to_owned(), vec![2, 2]), ("b.weight".to_owned(), vec![1])];
        let text = check_fits(Path::new("m"), &two(), &needed).unwrap_err().to_string();
        assert!(text.contains("a.weight has shape [2, 1], the model [2, 2]"), "{text}");
        assert!(text.contains("b.weight is missing"), "{text}");
        assert!(text.contains("a.bias is not in the model"), "{text}");
    }
}
