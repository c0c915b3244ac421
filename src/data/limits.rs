//! Caps on what a data file may ask for, by name. A file may be hostile or merely broken; what it
//! declares is believed only as far as its own size can carry.

/// A gzip file may always unpack to this many bytes (16 MiB), whatever its size: small data sets
/// of blank images pack 1000 to 1.
pub const GZIP_ALWAYS_ALLOWED: u64 = 16 << 20;

/// Beyond that, to this many times its size. MNIST's images unpack to 5 times theirs; deflate
/// cannot do better than 1032, and only a bomb comes near.
pub const GZIP_MAX_RATIO: u64 = 200;

/// IDX files of more dimensions than images of several channels have.
pub const IDX_MAX_DIMS: usize = 4;

/// Bytes of an npy header. NumPy's own limit is 10,000 characters.
pub const NPY_HEADER_BYTES: u32 = 64 << 10;

/// Sizes in an npy header; NumPy has 64 at most.
pub const NPY_MAX_DIMS: usize = 64;

/// Bytes of a row of a CSV file.
pub const CSV_ROW_BYTES: usize = 1 << 20;

/// Different values of one column that are told apart: labels, categories.
pub const CSV_VALUES: usize = 65_536;

/// Features of a sample of a table, categories counted one by one.
pub const TABLE_FEATURES: usize = 65_536;

/// Bytes of features of one part of a table that each rank keeps in memory.
pub const TABLE_MEMORY: usize = 256 << 20;

/// Rows that a Parquet file may declare whatever its size, and for each of its bytes beyond: columns of few
/// values pack to a fraction of a bit per row.
pub const PARQUET_ROWS_ALWAYS: u64 = 1 << 20;
/// See above.
pub const PARQUET_ROWS_PER_BYTE: u64 = 64;

/// Files in a folder; each takes about 100 bytes of memory.
pub const FOLDER_FILES: usize = 10_000_000;

/// Bytes of a picture's file.
pub const PICTURE_BYTES: u64 = 64 << 20;

/// Pixels of a picture.
pub const PICTURE_PIXELS: u64 = 64 << 20;

/// Bytes that a picture may take while it is decoded. A PNG of 1 MB can ask for 10 GB.
pub const PICTURE_MEMORY: u64 = 512 << 20;

/// Bytes of a long name, or of other attributes, before a member of a tar archive.
pub const TAR_ATTRIBUTES: u64 = 64 << 10;

/// Bytes of the text that has the label of a sample of a tar archive.
pub const TAR_LABEL_BYTES: u64 = 1 << 20;

/// Files of one sample of a tar archive.
pub const TAR_SAMPLE_FILES: usize = 64;

/// The most bytes that a gzip file of `size` bytes may unpack to.
#[must_use]
pub fn gzip_cap(size: u64) -> u64 {
    size.saturating_mul(GZIP_MAX_RATIO).max(GZIP_ALWAYS_ALLOWED)
}

/// Values of a column of categories that is prepared.
pub const PREPARE_CATEGORIES: usize = 1024;

/// Bytes of the samples of a prepared file.
pub const PREPARE_SHARD: usize = 1 << 30;
