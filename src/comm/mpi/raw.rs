//! The calls of MPI's C interface, each with its return code checked.
#![allow(unsafe_code)]

use crate::error::{Error, Result};
use mpi::ffi;
use std::ffi::{c_int, c_void};
use std::time::Duration;

pub use mpi::ffi::MPI_Request as Request;

/// A communicator.
#[derive(Clone, Copy)]
pub struct Comm(ffi::MPI_Comm);

// SAFETY: a handle that any thread may use, one at a time (MPI_THREAD_SERIALIZED); in Open MPI it is a
// pointer, which alone makes the compiler ask.
unsafe impl Send for Comm {}

/// Pause between a rank's last words and its abort, for the launcher to forward them.
const LAST_WORDS: Duration = Duration::from_millis(150);

/// Types that MPI can reduce for us.
#[derive(Clone, Copy)]
pub enum Number {
    F32,
    F64,
    U64,
}

/// Turns an MPI return code into an error with MPI's own words.
pub fn check(doing: &str, code: c_int) -> Result<()> {
    if code == 0 {
        return Ok(());
    }
    let mut text = [0u8; 1024];
    let mut len = 0;
    // SAFETY: the buffer is larger than MPI_MAX_ERROR_STRING (256 or 512) of both MPIs.
    unsafe { ffi::MPI_Error_string(code, text.as_mut_ptr().cast(), &mut len) };
    let text = String::from_utf8_lossy(&text[..(len.max(0) as usize).min(1024)]).into_owned();
    Err(Error::PeerLost(format!("MPI could not {doing}: {text}")))
}

/// The class of an MPI return code, which all MPIs have in common.
fn class(code: c_int) -> u32 {
    let mut class = 0;
    // SAFETY: writes one integer.
    unsafe { ffi::MPI_Error_class(code, &mut class) };
    class.unsigned_abs()
}

pub fn no_request() -> Request {
    // SAFETY: a constant of the MPI library, set when it was loaded.
    unsafe { ffi::RSMPI_REQUEST_NULL }
}

pub fn byte() -> ffi::MPI_Datatype {
    // SAFETY: a constant of the MPI library, set when it was loaded.
    unsafe { ffi::RSMPI_UINT8_T }
}

/// Makes MPI return errors on this communicator instead of ending the process.
pub fn return_errors(comm: ffi::MPI_Comm) -> Result<()> {
    // SAFETY: `comm` is a valid communicator, the handler a constant of the MPI library.
    check("set the error handler", unsafe {
        ffi::MPI_Comm_set_errhandler(comm, ffi::RSMPI_ERRORS_RETURN)
    })
}

/// A communicator of the same ranks whose messages never mix with those of `comm`.
pub fn duplicate(comm: ffi::MPI_Comm) -> Result<Comm> {
    let mut copy = comm;
    // SAFETY: `comm` is a valid communicator and `copy` a place for the new one.
    check("duplicate a communicator", unsafe { ffi::MPI_Comm_dup(comm, &mut copy) })?;
    Ok(Comm(copy))
}

/// Starts a send. The caller keeps `bytes` alive and unchanged until [`test()`] says that it is done,
/// or, after an error, calls MPI no more.
pub fn send(comm: Comm, to: usize, tag: c_int, bytes: &[u8]) -> Result<Request> {
    let mut request = no_request();
    // SAFETY: `bytes` is readable for its length, below 2³¹ as a segment; see above for its life.
    check("send", unsafe {
        let data = bytes.as_ptr().cast::<c_void>();
        let len = bytes.len() as c_int;
        ffi::MPI_Isend(data, len, byte(), to as c_int, tag, comm.0, &mut request)
    })?;
    Ok(request)
}

/// Starts a receive into `bytes`; the caller's duty is that of [`send`].
pub fn receive(comm: Comm, from: usize, tag: c_int, bytes: &mut [u8]) -> Result<Request> {
    let mut request = no_request();
    // SAFETY: `bytes` is writable for its length, below 2³¹ as a segment; nobody looks at it before
    // the request is done; MPI writes to it only inside MPI calls of this thread.
    check("receive", unsafe {
        let data = bytes.as_mut_ptr().cast::<c_void>();
        let len = bytes.len() as c_int;
        ffi::MPI_Irecv(data, len, byte(), from as c_int, tag, comm.0, &mut request)
    })?;
    Ok(request)
}

/// Starts `MPI_Iallreduce` of `from` into `into`; the caller's duty is that of [`send`] for both.
pub fn start_all_reduce(
    comm: Comm,
    from: &[u8],
    into: &mut [u8],
    number: Number,
    max: bool,
) -> Result<Request> {
    let mut request = no_request();
    // SAFETY: both buffers hold `count` numbers of the type, below 2³¹ as the caller cuts them; see
    // above for their life. The rest are constants of the MPI library, set when it was loaded.
    check("start MPI_Iallreduce", unsafe {
        let op = if max { ffi::RSMPI_MAX } else { ffi::RSMPI_SUM };
        let (datatype, width) = match number {
            Number::F32 => (ffi::RSMPI_FLOAT, 4),
            Number::F64 => (ffi::RSMPI_DOUBLE, 8),
            Number::U64 => (ffi::RSMPI_UINT64_T, 8),
        };
        let (source, target) = (from.as_ptr().cast(), into.as_mut_ptr().cast());
        let count = (into.len() / width) as c_int;
        ffi::MPI_Iallreduce(source, target, count, datatype, op, comm.0, &mut request)
    })?;
    Ok(request)
}

/// `MPI_Allreduce`, sum. Returns when it is done.
///
/// # Panics
/// When the lengths differ or are 2³¹ or more.
pub fn all_reduce_blocking(comm: Comm, from: &[f32], into: &mut [f32]) -> Result<()> {
    assert!(from.len() == into.len() && from.len() < 1 << 31, "not for {} numbers", from.len());
    // SAFETY: both buffers hold that many floats; the rest are constants of the MPI library.
    check("reduce with MPI_Allreduce", unsafe {
        let (source, target) = (from.as_ptr().cast(), into.as_mut_ptr().cast());
        let (datatype, op) = (ffi::RSMPI_FLOAT, ffi::RSMPI_SUM);
        ffi::MPI_Allreduce(source, target, from.len() as c_int, datatype, op, comm.0)
    })
}

/// The count of a message that is longer than the bytes it was to go to.
pub const TOO_MANY: usize = usize::MAX;

/// The number of bytes received if the request is done.
pub fn test(request: &mut Request) -> Result<Option<usize>> {
    let (mut done, mut bytes) = (0, 0);
    let mut status = std::mem::MaybeUninit::<ffi::MPI_Status>::zeroed();
    // SAFETY: `request` is null or was started by this thread; MPI fills `status` when it is done,
    // and its count means bytes received for a receive and nothing that is used for a send.
    unsafe {
        let code = ffi::MPI_Test(request, &mut done, status.as_mut_ptr());
        if code != 0 && class(code) == ffi::MPI_ERR_TRUNCATE {
            return Ok(Some(TOO_MANY));
        }
        check("finish a transfer", code)?;
        if done == 0 {
            return Ok(None);
        }
        check("count bytes", ffi::MPI_Get_count(status.as_ptr(), byte(), &mut bytes))?;
    }
    Ok(Some(bytes.max(0) as usize))
}

/// Rank and tag of a message that has come, if any.
pub fn probe(comm: Comm) -> Result<Option<(usize, c_int)>> {
    let mut there = 0;
    let mut status = std::mem::MaybeUninit::<ffi::MPI_Status>::zeroed();
    // SAFETY: `comm` is valid; MPI fills `status` when a message is there; zeroes are a valid status.
    unsafe {
        let (any, tag) = (ffi::RSMPI_ANY_SOURCE, ffi::RSMPI_ANY_TAG);
        check(
            "look for messages",
            ffi::MPI_Iprobe(any, tag, comm.0, &mut there, status.as_mut_ptr()),
        )?;
        let status = status.assume_init();
        Ok((there != 0).then_some((status.MPI_SOURCE as usize, status.MPI_TAG)))
    }
}

/// Receives a message that [`probe`] has seen: it is there, so this does not wait.
pub fn take_now(comm: Comm, from: usize, tag: c_int, bytes: &mut [u8]) -> Result<()> {
    let mut request = receive(comm, from, tag, bytes)?;
    while test(&mut request)?.is_none() {}
    Ok(())
}

/// Sends a few bytes whose arrival nobody waits for: small messages leave at once (eagerly). The
/// bytes are leaked, since a message to a stopped rank may stay on its way for ever.
pub fn send_eagerly(comm: Comm, to: usize, tag: c_int, bytes: &[u8]) -> Result<()> {
    let bytes: &'static [u8] = Box::leak(bytes.to_vec().into_boxed_slice());
    let mut request = send(comm, to, tag, bytes)?;
    test(&mut request)?;
    Ok(())
}

/// What the MPI library calls itself, first line.
#[must_use]
pub fn library_version() -> String {
    mpi::environment::library_version()
        .ok()
        .and_then(|text| text.lines().next().map(|line| line.trim_matches(['\0', ' ']).to_owned()))
        .unwrap_or_else(|| "an MPI library that does not tell its name".to_owned())
}

/// Ends this process at once, whatever its other threads do.
pub fn leave_now(code: u8) -> ! {
    // SAFETY: ends the process without running anything else, which is the purpose.
    unsafe { libc::_exit(i32::from(code)) }
}

/// See [`crate::comm::end_within`].
pub fn end_within(limit: Duration, code: u8) {
    let end = move || {
        std::thread::sleep(limit);
        leave_now(code);
    };
    // Without a thread there is no second way out; the first one is still there.
    let _ = std::thread::Builder::new().spawn(end);
}

/// See [`crate::comm::abort`].
pub fn abort(code: u8) -> ! {
    let (mut up, mut down) = (0, 0);
    // SAFETY: both calls are allowed at any time and from any thread.
    unsafe {
        ffi::MPI_Initialized(&mut up);
        ffi::MPI_Finalized(&mut down);
    }
    if up != 0 && down == 0 {
        // MPI_Abort may itself hang, on a host that is out of reach: leave all the same.
        end_within(Duration::from_millis(1500), code);
        // MPICH's launcher throws away what it has not yet forwarded of a rank's last words when a
        // rank aborts (2 of 40 messages were lost without this pause).
        std::thread::sleep(LAST_WORDS);
        // SAFETY: MPI is up; the world communicator is valid; nothing of this process is used after.
        unsafe { ffi::MPI_Abort(ffi::RSMPI_COMM_WORLD, c_int::from(code)) };
    }
    std::process::exit(i32::from(code))
}
