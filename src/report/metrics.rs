//! `metrics.jsonl`: one JSON object a line, appended as things happen.
//!
//! A crash loses at most the line that was being written.

use serde::{Serialize, Serializer};

/// Numbers by name.
pub type Scores = Vec<(&'static str, f64)>;

fn by_name<S: Serializer>(scores: &Scores, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(scores.iter().copied())
}

/// One line.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Record {
    /// One optimizer step.
    Step {
        /// Counted from 1.
        step: u64,
        /// Counted from 1.
        epoch: u64,
        /// Mean over the global batch, before the step.
        loss: f64,
        /// Share of the global batch classified right, before the step.
        accuracy: f64,
        /// Learning rate of this step.
        lr: f64,
        /// Norm of the gradient before clipping.
        grad_norm: f64,
        /// What the loss was multiplied by before the backward pass, where the card wants that.
        #[serde(skip_serializing_if = "Option::is_none")]
        loss_scale: Option<u32>,
        /// Samples (tokens, of text) of this step over its wall time, all ranks together.
        samples_per_s: f64,
        /// Share of the step's wall time that rank 0 spent in gradient reduction.
        comm_share: f64,
        /// Share that it spent waiting for data.
        input_share: f64,
    },
    /// A step whose update was left out.
    Skip {
        /// Counted from 1.
        step: u64,
        /// Counted from 1.
        epoch: u64,
        /// As in [`Record::Step`]; null when it is NaN or infinite.
        loss: f64,
        /// As in [`Record::Step`].
        lr: f64,
        /// As in [`Record::Step`]; null when it is NaN or infinite.
        grad_norm: f64,
        /// As in [`Record::Step`].
        #[serde(skip_serializing_if = "Option::is_none")]
        loss_scale: Option<u32>,
        /// What was wrong, on which rank, in which tensor, with which samples.
        why: String,
    },
    /// One evaluation on the test set.
    Eval {
        /// Steps done.
        step: u64,
        /// Epochs done, the last one perhaps in part.
        epoch: u64,
        /// Mean over the test set.
        loss: f64,
        /// correct / count.
        accuracy: f64,
        /// What else the card counts, by name.
        #[serde(flatten, serialize_with = "by_name")]
        scores: Scores,
        /// Test samples (tokens, of text) classified right.
        correct: u64,
        /// Test samples (tokens, of text).
        count: u64,
        /// Since the evaluation before it, or the end of an epoch without one.
        seconds: f64,
    },
    /// The end of the run.
    Summary {
        /// Steps done.
        step: u64,
        /// Epochs done, the last one perhaps in part.
        epoch: u64,
        /// Test loss of the final model, or the last training loss without a test set.
        loss: f64,
        /// Test accuracy of the final model, if there is a test set.
        accuracy: Option<f64>,
        /// As in [`Record::Eval`].
        #[serde(flatten, serialize_with = "by_name")]
        scores: Scores,
        /// Learning rate of the last step.
        lr: f64,
        /// Steps whose update was left out.
        skipped: u64,
        /// Training samples (tokens, of text) over training time, evaluation left out.
        samples_per_s: f64,
        /// Wall time from the first step to the end in seconds.
        seconds: f64,
        /// Share of training time that rank 0 spent in gradient reduction.
        comm_share: f64,
        /// Bytes that rank 0 sent in all-reduces.
        bytes_sent: u64,
        /// Number of ranks.
        world_size: usize,
    },
}
