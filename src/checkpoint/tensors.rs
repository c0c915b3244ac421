//! A group of tensors as a safetensors file: laid out without a copy, read with every number checked, so
//! that the memory for values is never more than the file's size ([`tensor_header`]).

use super::model_file::Named;
use crate::util::allocator;
use crate::util::tensor_header::{self, Checked, Entry, MAX_HEADER, MAX_TENSORS, Types};
use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::Read;

// Values are written as they lie in memory.
const _: () = assert!(cfg!(target_endian = "little"), "checkpoints are little-endian");

/// The only type of parameters and moments.
const TYPES: Types = &[("F32", 4)];

/// The pieces of the file that holds `tensors`, to be written one after the other. The values are
/// borrowed, so a snapshot needs no second copy to be written.
pub(super) fn lay_out(tensors: &[Named]) -> Checked<Vec<Cow<'_, [u8]>>> {
    let mut order: Vec<&Named> = tensors.iter().collect();
    order.sort_by(|a, b| a.name.cmp(&b.name));
    if order.len() > MAX_TENSORS {
        return Err(format!("{} tensors; {MAX_TENSORS} is the limit", order.len()));
    }
    if let Some(pair) = order.windows(2).find(|pair| pair[0].name == pair[1].name) {
        return Err(format!("two tensors are called {:?}", pair[0].name));
    }
    // Tools of the PyTorch world look for this mark before they read the tensors.
    let mut header = String::from(r#"{"__metadata__":{"format":"pt"}"#);
    let mut end = 0u64;
    for tensor in &order {
        tensor_header::check_name(&tensor.name)?;
        let sizes = tensor.shape.iter().map(|&n| n as u64);
        let bytes = tensor_header::size_of(&tensor.name, 4, sizes)?;
        if bytes != 4 * tensor.values.len() as u64 {
            let (name, shape, n) = (&tensor.name, &tensor.shape, tensor.values.len());
            return Err(format!("{name:?} has {n} values and the shape {shape:?}"));
        }
        let name = serde_json::to_string(&tensor.name).map_err(|e| e.to_string())?;
        let shape: Vec<String> = tensor.shape.iter().map(usize::to_string).collect();
        let (shape, begin) = (shape.join(","), end);
        end += bytes;
        // Writing to a String cannot fail.
        let _ = write!(
            header,
            r#",{name}:{{"dtype":"F32","shape":[{shape}],"data_offsets":[{begin},{end}]}}"#
        );
    }
    header.push('}');
    while !header.len().is_multiple_of(8) {
        header.push(' ');
    }
    if header.len() as u64 > MAX_HEADER {
        return Err(format!("the names take {} bytes; {MAX_HEADER} is the limit", header.len()));
    }
    let mut start = (header.len() as u64).to_le_bytes().to_vec();
    start.extend(header.into_bytes());
    let values = order.iter().map(|t| Cow::Borrowed(bytemuck::cast_slice(&t.values)));
    Ok(std::iter::once(Cow::Owned(start)).chain(values).collect())
}

/// Reads the tensors of a file of `size` bytes, in the order of their names.
pub(super) fn read(source: &mut impl Read, size: u64) -> Checked<Vec<Named>> {
    let cut = |e: std::io::Error| format!("cannot be read to its end: {e}");
    let mut length = [0; 8];
    if size < 8 {
        return Err(format!("not a safetensors file: {size} bytes long"));
    }
    source.read_exact(&mut length).map_err(cut)?;
    let length = tensor_header::length(length, size)?;
    let mut header = vec![0; length as usize];
    source.read_exact(&mut header).map_err(cut)?;
    let entries = tensor_header::entries(&header, size - 8 - length, TYPES)?;
    drop(header);
    let mut tensors = Vec::with_capacity(entries.len());
    for Entry { name, shape, begin, end, .. } in entries {
        let count = ((end - begin) / 4) as usize;
        let mut values = Vec::new();
        allocator::may_fail(|| values.try_reserve_exact(count))
            .map_err(|e| format!("{name:?} needs {count} values of 4 bytes: {e}"))?;
        values.resize(count, 0f32);
        source.read_exact(bytemuck::cast_slice_mut(&mut values)).map_err(cut)?;
        let shape = shape.iter().map(|&n| n as usize).collect();
        tensors.push(Named { name, shape, values });
    }
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(tensors)
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::tensor::{Dtype, SafeTensors, TensorView};
    use std::collections::{BTreeMap, HashMap};

    fn some() -> Vec<Named> {
        let named = |name: &str, shape: &[usize]| {
            let n = shape.iter().product::<usize>();
            let values = (0..n).map(|i| i as f32 - 1.5).collect();
            Named { name: name.into(), shape: shape.into(), values }
        };
        vec![named("a\"b\n", &[2, 3]), named("scalar", &[]), named("w", &[5]), named("z", &[0, 3])]
    }

    fn bytes(tensors: &[Named]) -> Vec<u8> {
        lay_out(tensors).unwrap().concat()
    }

    #[test]
    fn the_file_is_byte_for_byte_what_the_safetensors_crate_writes() {
        let tensors = some();
        let views: BTreeMap<&str, TensorView> = tensors
            .iter()
            .map(|t| {
                let data = bytemuck::cast_slice(&t.values);
                (&*t.name, TensorView::new(Dtype::F32, t.shape.clone(), data).unwrap())
            })
            .collect();
        let mark = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        let theirs = safetensors::serialize(views, Some(mark)).unwrap();
        let ours = bytes(&tensors);
        assert_eq!(ours, theirs);
        assert_eq!(SafeTensors::deserialize(&ours).unwrap().len(), 4);
        assert_eq!(read(&mut &ours[..], ours.len() as u64).unwrap(), tensors);
    }

    #[test]
    fn tensors_that_cannot_be_written_are_refused_with_their_name() {
        let mut tensors = some();
        tensors[2].name = "scalar".into();
        assert!(lay_out(&tensors).unwrap_err().contains("two tensors are called \"scalar\""));
        let mut tensors = some();
        tensors[2].values.pop();
        assert!(lay_out(&tensors).unwrap_err().contains("\"w\" has 4 values and the shape [5]"));
    }

    #[test]
    fn a_header_that_lies_is_refused_before_memory_is_taken_for_it() {
        let file = |header: &str, data: usize| {
            let mut file = (header.len() as u64).to_le_bytes().to_vec();
            file.extend(header.as_bytes());
            file.resize(file.len() + data, 0);
            file
        };
        let entry = |shape: &str, offsets: &str| {
            format!(r#"{{"a":{{"dtype":"F32","shape":{shape},"data_offsets":{offsets}}}}}"#)
        };
        let twice = r#"{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},
                        "a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
        for (header, data, expected) in [
            (entry("[1]", "[0,4]").replace("F32", "F64"), 4, "\"F64\"; only F32"),
            (entry("[4611686018427387904]", "[0,0]"), 0, "larger than any memory"),
            (entry("[1000000000000]", "[0,4000000000000]"), 4, "the file has 4"),
            (entry("[2]", "[0,4]"), 4, "of 8 bytes lies at 0 to 4"),
            (entry("[1]", "[4,8]"), 8, "expected from 0"),
            (entry("[1]", "[8,4]"), 8, "lies at 8 to 4"),
            (entry("[1]", "[0,4]"), 5, "the file has 5"),
            (entry("[-1]", "[0,4]"), 4, "invalid value: integer `-1`"),
            (entry("[1.5]", "[0,4]"), 4, "invalid type: floating point"),
            (entry("[1,1,1,1,1,1,1,1,1]", "[0,4]"), 4, "at most 8 numbers"),
            (entry("[1]", "[0,4]").replace("\"a\"", "\"\""), 4, "name of 0 bytes"),
            (entry("[1]", "[0,4]").replace("}}", ",\"x\":1}}"), 4, "unknown field `x`"),
            (twice.to_owned(), 4, "two tensors are called \"a\""),
            ("[]".to_owned(), 0, "invalid type: sequence"),
            ("{}x".to_owned(), 0, "trailing characters"),
            (format!("{{\"__metadata__\":{}", "[".repeat(10_000)), 0, "its header is damaged"),
        ] {
            let bytes = file(&header, data);
            let message = read(&mut &bytes[..], bytes.len() as u64).unwrap_err();
            assert!(message.contains(expected), "{header:.80}: {message}");
        }
        let huge = [0xff; 64];
        assert!(read(&mut &huge[..], 64).unwrap_err().contains("announces a header"));
        assert!(read(&mut &huge[..3], 3).unwrap_err().contains("3 bytes long"));
    }
}
