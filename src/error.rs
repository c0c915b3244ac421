//! The one error type of the crate, and the exit code that each kind of error ends the process with.
//!
//! A message says *what* failed, *where* (rank, host, step, file, line), *why*, and *what to do*.
//! It is written where those are known; the enum only sorts messages into exit codes, which scripts
//! and schedulers read (`docs/FAULTS.md` lists them).

use std::path::Path;

/// Everything that can go wrong, by what the caller can do about it.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The command line makes no sense.
    #[error("{0}")]
    Usage(String),
    /// A data or model file is there, but its content is not what it should be.
    #[error("{0}")]
    Data(String),
    /// A file that is needed does not exist or cannot be opened.
    #[error("{0}")]
    NoInput(String),
    /// Another rank died, stopped, or came too late.
    #[error("{0}")]
    PeerLost(String),
    /// A bug here or in a library.
    #[error("{0}")]
    Internal(String),
    /// An output file or folder cannot be created.
    #[error("{0}")]
    CannotCreate(String),
    /// Reading or writing failed half-way.
    #[error("{0}")]
    Io(String),
    /// The run was told to leave; it is saved and can go on. Not a failure.
    #[error("{0}")]
    Preempted(String),
    /// Ranks that must hold the same parameters do not, or a message arrived damaged.
    #[error("{0}")]
    ReplicasDiffer(String),
    /// The loss or a gradient became NaN or infinite.
    #[error("{0}")]
    NonFinite(String),
    /// The card is wrong, or the ranks do not agree on the job.
    #[error("{0}")]
    Config(String),
}

/// `Result` with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The process exit code, after BSD's `sysexits.h` where it has one.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Usage(_) => 64,
            Error::Data(_) => 65,
            Error::NoInput(_) => 66,
            Error::PeerLost(_) => 69,
            Error::Internal(_) => 70,
            Error::CannotCreate(_) => 73,
            Error::Io(_) => 74,
            Error::Preempted(_) => 75,
            Error::ReplicasDiffer(_) => 76,
            Error::NonFinite(_) => 77,
            Error::Config(_) => 78,
        }
    }

    /// The error of a kind given by its exit code: how a rank retells another rank's error.
    #[must_use]
    pub fn from_exit_code(code: u8, message: String) -> Error {
        match code {
            64 => Error::Usage(message),
            65 => Error::Data(message),
            66 => Error::NoInput(message),
            69 => Error::PeerLost(message),
            73 => Error::CannotCreate(message),
            74 => Error::Io(message),
            75 => Error::Preempted(message),
            76 => Error::ReplicasDiffer(message),
            77 => Error::NonFinite(message),
            78 => Error::Config(message),
            _ => Error::Internal(message),
        }
    }

    /// The same error with `prefix: ` before its message.
    #[must_use]
    pub fn context(self, prefix: impl std::fmt::Display) -> Error {
        Error::from_exit_code(self.exit_code(), format!("{prefix}: {self}"))
    }

    /// An I/O error while opening or reading `path`.
    #[must_use]
    pub fn reading(path: &Path, error: &std::io::Error) -> Error {
        use std::io::ErrorKind::{IsADirectory, NotFound, PermissionDenied};
        let path = path.display();
        match error.kind() {
            NotFound => Error::NoInput(format!("cannot read {path}: no such file")),
            PermissionDenied => Error::NoInput(format!("cannot read {path}: permission denied")),
            IsADirectory => {
                Error::NoInput(format!("cannot read {path}: it is a folder, not a file"))
            }
            _ => Error::Io(format!("cannot read {path}: {error}")),
        }
    }

    /// An I/O error while creating or writing `path`.
    #[must_use]
    pub fn writing(path: &Path, error: &std::io::Error) -> Error {
        use std::io::ErrorKind::{
            AlreadyExists, NotADirectory, NotFound, PermissionDenied, ReadOnlyFilesystem,
        };
        let message = format!("cannot write {}: {error}", path.display());
        match error.kind() {
            AlreadyExists | NotADirectory | NotFound | PermissionDenied | ReadOnlyFilesystem => {
                Error::CannotCreate(message)
            }
            _ => Error::Io(message),
        }
    }
}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Error {
        Error::Internal(format!("tensor operation failed: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_exit_code_comes_back_as_the_same_kind_of_error() {
        for code in [64, 65, 66, 69, 70, 73, 74, 75, 76, 77, 78] {
            assert_eq!(Error::from_exit_code(code, "x".into()).exit_code(), code);
        }
    }

    #[test]
    fn a_missing_file_is_no_input_and_a_folder_in_the_way_cannot_be_created() {
        let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
        assert_eq!(Error::reading(Path::new("a"), &missing).exit_code(), 66);
        let folder = std::io::Error::from(std::io::ErrorKind::NotADirectory);
        assert_eq!(Error::writing(Path::new("a"), &folder).exit_code(), 73);
    }
}
