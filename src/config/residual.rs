//! What a residual network demands of a card.

use super::{Card, ModelKind};

/// What is wrong with the fields of a `resnet`: whether it is, the field, and the words.
pub(super) fn problems(card: &Card) -> Vec<(bool, &'static str, String)> {
    let model = &card.model;
    let resnet = model.kind == ModelKind::ResNet;
    let used = || "is used by `resnet` only; remove it or change model.kind".to_owned();
    let depth = match model.depth {
        None => (
            resnet,
            "model.depth",
            "is missing; `resnet` needs the number of layers: 8, 14, 20, 32, 44, 56 or another 6n + 2"
                .to_owned(),
        ),
        Some(_) if !resnet => (true, "model.depth", used()),
        Some(depth) => {
            let n = depth.saturating_sub(2) / 6;
            let (below, above) = (6 * n.max(1) + 2, 6 * (n + 1) + 2);
            let what = format!("{depth} is not 6n + 2; the nearest are {below} and {above}");
            (depth < 8 || depth % 6 != 2, "model.depth", what)
        }
    };
    vec![depth, (model.norm.is_some() && !resnet, "model.norm", used())]
}
