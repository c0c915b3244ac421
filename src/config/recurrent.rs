//! What a recurrent network demands of a card.

use super::{Card, Format, Init, SpikeAction};

/// What is wrong with the fields of an `lstm` or `gru`: whether it is, the field, and the words.
pub(super) fn problems(card: &Card) -> Vec<(bool, &'static str, String)> {
    let model = &card.model;
    let recurrent = model.kind.is_recurrent();
    let of_tokens = card.data.format.is_of_tokens();
    let missing = |what: &str| format!("is missing; `lstm` and `gru` need the number of {what}");
    let used = || "is used by `lstm` and `gru` only; remove it or change model.kind".to_owned();
    let mut found = streams(card);
    let of_rows = matches!(card.data.format, Format::Csv | Format::Parquet);
    found.extend([
        (recurrent && model.width.is_none(), "model.width", missing("hidden values")),
        (recurrent && model.layers.is_none(), "model.layers", missing("layers")),
        (!recurrent && model.bidirectional.is_some(), "model.bidirectional", used()),
        (!recurrent && model.tied.is_some(), "model.tied", used()),
        (!recurrent && model.steps.is_some(), "model.steps", used()),
        (
            recurrent && of_tokens && model.bidirectional == Some(true),
            "model.bidirectional",
            "lets a model of text see the tokens that it should predict; remove it".to_owned(),
        ),
        (
            recurrent && of_tokens && model.steps.is_some(),
            "model.steps",
            "is not for text, whose steps are its tokens; remove it".to_owned(),
        ),
        (
            recurrent && of_rows && model.steps.is_none(),
            "model.steps",
            "is missing; say how many steps the values of a row are".to_owned(),
        ),
        (
            recurrent && !of_tokens && model.tied.is_some(),
            "model.tied",
            "is for text only; remove it".to_owned(),
        ),
        (
            recurrent && model.init != Init::default(),
            "model.init",
            "is not used by `lstm` and `gru`, whose weights start as PyTorch's; remove it"
                .to_owned(),
        ),
    ]);
    found
}

/// The same of streams of text, whose states are carried from batch to batch.
fn streams(card: &Card) -> Vec<(bool, &'static str, String)> {
    let Some(text) = card.data.text else { return Vec::new() };
    let Some(streams) = text.streams else { return Vec::new() };
    let batch = card.train.global_batch;
    let rewinds = card.guards.spike.as_ref().is_some_and(|s| s.action == SpikeAction::Rewind);
    let wrong = |wrong, what: String| (wrong, "data.text.streams", what);
    vec![
        wrong(
            !card.model.kind.is_recurrent(),
            "is for `lstm` and `gru`, which have states to carry; remove it".to_owned(),
        ),
        wrong(
            streams != batch,
            format!(
                "is {streams}; train.global_batch is {batch}, and each of its samples has a stream"
            ),
        ),
        wrong(
            text.stride() != text.context,
            "needs windows that do not overlap; remove data.text.stride".to_owned(),
        ),
        wrong(
            card.data.train.files.len() > 1,
            "would carry a state from one file into the next; give one training file".to_owned(),
        ),
        wrong(
            rewinds,
            "cannot be taken back after a spike; choose another guards.spike.action".to_owned(),
        ),
    ]
}
