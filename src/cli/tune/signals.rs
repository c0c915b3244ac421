//! What the search is told from outside: SIGINT, SIGTERM and SIGUSR1 let it leave.

use crate::error::{Error, Result};
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::flag;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Ended from the keyboard: 128 + SIGINT, as shells have it.
const INTERRUPTED: u8 = 130;
/// Told to leave, and everything is saved.
const SAVED: u8 = 75;

/// The ear of the search.
#[derive(Debug, Clone, Default)]
pub struct Signals {
    interrupted: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
}

impl Signals {
    /// From now on the signals are heard and end nothing.
    ///
    /// # Errors
    /// [`Error::Internal`] when the system refuses.
    pub fn listen() -> Result<Signals> {
        let signals = Signals::default();
        let Signals { interrupted, ended } = &signals;
        for (signal, heard) in [(SIGINT, interrupted), (SIGTERM, ended), (SIGUSR1, ended)] {
            flag::register(signal, Arc::clone(heard))
                .map_err(|e| Error::Internal(format!("cannot listen to signal {signal}: {e}")))?;
        }
        Ok(signals)
    }

    /// The exit code to leave with, if a signal has come since the last call.
    #[must_use]
    pub fn take(&self) -> Option<u8> {
        let interrupted = self.interrupted.swap(false, Relaxed);
        let ended = self.ended.swap(false, Relaxed);
        match (interrupted, ended) {
            (true, _) => Some(INTERRUPTED),
            (false, true) => Some(SAVED),
            (false, false) => None,
        }
    }
}
