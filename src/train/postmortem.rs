//! What is left of a job that a rank tears down: who fell silent, where each rank stood, what this one
//! did last. Said in the one line of the error, and in full in `faults/STEP-RANK.json` of the run folder.

use super::saving::CHECKPOINTS;
use crate::checkpoint;
use crate::comm::roll_call::{self, RollCall};
use crate::error::Error;
use crate::report::heartbeat::{self, Sign};
use crate::report::status;
use crate::util::whereabouts::Place;
use crate::util::{clock, files, flight, processes, whereabouts};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Name of the folder in the run folder.
const FAULTS: &str = "faults";
/// So many silent ranks are described in the line; the file has all.
const DESCRIBED: usize = 3;

/// The run folder, as far as this process sees it.
static FOLDER: Mutex<Option<PathBuf>> = Mutex::new(None);

/// From now on the run folder `out`, which this rank sees, is where reports go.
pub fn prepare(out: &Path) {
    *FOLDER.lock().unwrap_or_else(PoisonError::into_inner) = Some(out.to_owned());
}

/// What can be added to the words of `error`, which ends this rank and with it the job; empty, or a
/// sentence that begins with `; ` or `. `. Leaves the report behind.
#[must_use]
pub fn examine(error: &Error) -> String {
    let call = matches!(error, Error::PeerLost(_)).then(roll_call::last).flatten();
    examine_in(folder(), call, &error.to_string(), error.exit_code())
}

/// As [`examine`], for an end that is no error value: a panic, memory that is used up.
#[must_use]
pub fn examine_words(words: &str, code: u8) -> String {
    examine_in(folder(), None, words, code)
}

fn folder() -> Option<PathBuf> {
    // A panic must not wait for anybody.
    FOLDER.try_lock().ok().and_then(|folder| folder.clone())
}

fn examine_in(folder: Option<PathBuf>, call: Option<RollCall>, reason: &str, code: u8) -> String {
    let (Some(folder), Some((rank, size))) = (folder, whereabouts::rank()) else {
        return String::new();
    };
    let signs = heartbeat::signs(&folder, size);
    let culprits = call.as_ref().map_or(Vec::new(), culprits);
    let mut text: String =
        culprits.iter().take(DESCRIBED).filter_map(|&r| last_sign(signs[r].as_ref()?)).collect();
    if let Some(step) = checkpoint::last_step(&folder.join(CHECKPOINTS)) {
        text += &format!(". Last checkpoint: step {step}");
    }
    let whole = format!("{reason}{text}");
    if let Some(call) = call.as_ref().filter(|call| culprits.contains(&0) && speaks(call)) {
        status::fail_for_rank_0(&folder, code, &format!("as {} found: {whole}", call.names[rank]));
    }
    let report = report(&whole, code, (rank, size), call.as_ref(), &signs);
    match write(&folder, rank, &report) {
        Some(path) => format!("{text}. See {}", path.display()),
        None => text,
    }
}

/// The ranks to blame: the silent ones, else those in another collective.
fn culprits(call: &RollCall) -> Vec<usize> {
    match call.silent() {
        none if none.is_empty() => call.elsewhere(),
        silent => silent,
    }
}

/// Whether the caller is the first rank that is still there: it speaks for rank 0.
fn speaks(call: &RollCall) -> bool {
    call.answers.iter().position(Option::is_some) == Some(call.me)
}

/// `; rank 1's last sign: step 1233 forward, 11.2 s ago, the process is stopped`.
fn last_sign(sign: &Sign) -> Option<String> {
    let Sign { rank, step, phase, pid, .. } = sign;
    let ago = sign.progress_age_s();
    let state = match sign.is_of_this_host().then(|| processes::state(*pid)) {
        Some(processes::State::Alive) | None if sign.beats() => {
            "its process is alive: it is busy or stuck there"
        }
        Some(state) => state.words(),
        None => "no heartbeat since",
    };
    Some(format!("; rank {rank}'s last sign: step {step} {phase}, {ago:.1} s ago ({state})"))
}

fn report(
    reason: &str,
    code: u8,
    (rank, size): (usize, usize),
    call: Option<&RollCall>,
    signs: &[Option<Sign>],
) -> Value {
    let (place, now) = (whereabouts::place(), flight::monotonic());
    let ranks: Vec<Value> = (0..size).map(|r| standing(r, call, signs[r].as_ref())).collect();
    let events: Vec<Value> = flight::events()
        .iter()
        .map(|event| {
            let mut value = place_value(&event.place);
            value["ago_s"] = json!((now.saturating_sub(event.at)).as_secs_f64());
            value
        })
        .collect();
    json!({
        "written": clock::now(),
        "rank": rank,
        "size": size,
        "host": whereabouts::host_name(),
        "pid": std::process::id(),
        "place": place_value(&place),
        "exit_code": code,
        "reason": reason,
        "waited_s": call.map(|call| call.waited.as_secs_f64()),
        "waited_for": call.map(|call| call.whom),
        "ranks": ranks,
        "events": events,
    })
}

/// What is known of rank `r`: its answer to the roll call, its last heartbeat, its process.
fn standing(r: usize, call: Option<&RollCall>, sign: Option<&Sign>) -> Value {
    let answer = call.and_then(|call| call.answers[r]);
    let here = sign.filter(|sign| sign.is_of_this_host());
    json!({
        "rank": r,
        "name": call.map(|call| &call.names[r]),
        "answered": call.map(|_| answer.is_some()),
        "place": answer.as_ref().map(place_value),
        "heartbeat": sign,
        "progress_age_s": sign.map(Sign::progress_age_s),
        "process": here.map(|sign| processes::state(sign.pid).words()),
    })
}

fn place_value(place: &Place) -> Value {
    json!({
        "step": place.step,
        "phase": place.phase.name(),
        "collective": place.collective,
        "bucket": place.bucket,
    })
}

/// Writes the report; `None` where that fails: the error itself is more important.
fn write(folder: &Path, rank: usize, report: &Value) -> Option<PathBuf> {
    let faults = folder.join(FAULTS);
    std::fs::create_dir_all(&faults).ok()?;
    let path = faults.join(format!("{}-{rank}.json", whereabouts::place().step));
    let mut text = serde_json::to_vec_pretty(report).ok()?;
    text.push(b'\n');
    files::write_whole(&path, &text).ok()?;
    Some(path)
}
