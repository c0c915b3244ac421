//! Layers, models and optimizers compute what PyTorch computes.
//!
//! The expected numbers are in `tests/golden/`, written by `scripts/golden/make_golden.py`. Differences
//! are measured against the largest element of a tensor: 1e-5 for layers, 1e-6 for optimizers.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use annulus::config::{self, ModelKind, OptimizerKind};
use annulus::model::{self, Gpt, GptShape, Model, Pass};
use annulus::nn::{BatchNorm2d, Param, ParamBuilder, ParamSet, cross_entropy};
use annulus::optim::{self, Optimizer};
use candle_core::{Device, Tensor, Var};
use safetensors::SafeTensors;
use std::ops::Range;
use std::path::Path;

/// One file of golden numbers.
struct Golden(Vec<u8>);

impl Golden {
    fn read(name: &str) -> Golden {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        Golden(std::fs::read(folder.join(name).with_extension("safetensors")).unwrap())
    }

    fn bytes(&self, name: &str) -> (Vec<u8>, Vec<usize>) {
        let tensors = SafeTensors::deserialize(&self.0).unwrap();
        let view = tensors.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
        (view.data().to_vec(), view.shape().to_vec())
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        let (bytes, _) = self.bytes(name);
        bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    }

    /// Whether a tensor of this name is there.
    fn has(&self, name: &str) -> bool {
        SafeTensors::deserialize(&self.0).unwrap().tensor(name).is_ok()
    }

    fn card(&self) -> config::Optimizer {
        let (_, metadata) = SafeTensors::read_metadata(&self.0).unwrap();
        serde_json::from_str(&metadata.metadata().as_ref().unwrap()["card"]).unwrap()
    }
}

fn assert_close(what: &str, got: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(0f32, |a, v| a.max(v.abs()));
    for (i, (g, e)) in got.iter().zip(expected).enumerate() {
        let error = (g - e).abs() / largest;
        assert!(error <= tolerance, "{what}[{i}]: {g}, PyTorch {e}, relative error {error:.1e}");
    }
}

fn follow_the_trajectory(name: &str) {
    let golden = Golden::read(&format!("optimizer_{name}"));
    let card = golden.card();
    let mut values = [golden.floats("p0.start"), golden.floats("p1.start")];
    let lens = values.each_ref().map(Vec::len);
    let mut rule = optim::build(&card, &lens).unwrap();
    for step in 0..10 {
        if step == 5 {
            // A run that is stopped and continued goes the same way.
            let state = rule.state();
            rule = optim::build(&card, &lens).unwrap();
            rule.load_state(state).unwrap();
        }
        rule.begin_step(card.lr * (1.0 - 0.05 * f64::from(step)));
        for (i, values) in values.iter_mut().enumerate() {
            let grad = golden.floats(&format!("p{i}.grad.{step}"));
            // Clipping by a power of two, undone exactly in the gradient, changes nothing.
            let doubled: Vec<f32> = grad.iter().map(|g| 2.0 * g).collect();
            rule.update(i, values, &doubled, 0.5);
            let expected = golden.floats(&format!("p{i}.value.{step}"));
            assert_close(&format!("{name} p{i} step {step}"), values, &expected, 1e-6);
        }
    }
}

#[test]
fn sgd_follows_pytorch_for_ten_steps() {
    for name in ["sgd", "sgd_decay", "sgd_momentum", "sgd_nesterov"] {
        follow_the_trajectory(name);
    }
}

#[test]
fn adam_follows_pytorch_for_ten_steps() {
    for name in ["adam", "adam_decay"] {
        follow_the_trajectory(name);
    }
}

#[test]
fn rmsprop_lion_lamb_and_lars_follow_pytorch_for_ten_steps() {
    for name in ["rmsprop", "rmsprop_momentum", "lion", "lamb", "lars"] {
        follow_the_trajectory(name);
    }
}

#[test]
fn adamw_follows_pytorch_for_ten_steps() {
    for name in ["adamw", "adamw_betas"] {
        follow_the_trajectory(name);
    }
}

/// A model at the golden initial parameters, with its optimizer.
struct Training {
    golden: Golden,
    set: ParamSet,
    model: Box<dyn Model>,
    rule: Box<dyn Optimizer>,
    lr: f64,
}

impl Training {
    fn start(name: &str, kind: ModelKind, hidden: &[usize]) -> Training {
        Training::of(name, kind, hidden, None)
    }

    fn of(name: &str, kind: ModelKind, hidden: &[usize], depth: Option<usize>) -> Training {
        let card = config::Model { hidden: hidden.to_vec(), depth, ..config::Model::of(kind) };
        Training::with(name, &card)
    }

    fn with(name: &str, card: &config::Model) -> Training {
        let golden = Golden::read(name);
        let (input, classes) = match golden.has("tokens") {
            true => (vec![golden.bytes("tokens").1[1]], 11),
            false => (golden.bytes("images").1[1..].to_vec(), 10),
        };
        let params = ParamBuilder::new(1, &Device::Cpu);
        let model = model::build(card, &input, classes, &params).unwrap();
        let set = params.finish(1 << 16, 1 << 20).unwrap();
        for param in &set {
            let name = format!("start.{}", param.name());
            let start = if golden.has(&name) { golden.floats(&name) } else { by_formula(param) };
            param.update(|values| values.copy_from_slice(&start)).unwrap();
        }
        let card = golden.card();
        assert_eq!(card.kind, OptimizerKind::Sgd);
        let lens: Vec<usize> = set.iter().map(|p| p.tensor().elem_count()).collect();
        let rule = optim::build(&card, &lens).unwrap();
        Training { golden, set, model, rule, lr: card.lr }
    }

    /// The samples `rows`, pixels in 0 to 1 or tokens, and their labels.
    fn samples(&self, rows: Range<usize>) -> (Tensor, Vec<u32>) {
        let of_tokens = self.golden.has("tokens");
        let (name, scale) = if of_tokens { ("tokens", 1.0) } else { ("images", 255.0) };
        let (values, mut shape) = self.golden.bytes(name);
        let len: usize = shape[1..].iter().product();
        let x: Vec<f32> = values.iter().map(|&v| f32::from(v) / scale).collect();
        shape[0] = rows.len();
        let x = Tensor::from_slice(&x[rows.start * len..rows.end * len], shape, &Device::Cpu);
        let each = if of_tokens { len } else { 1 };
        let labels = &self.golden.bytes("labels").0[rows.start * each..rows.end * each];
        (x.unwrap(), labels.iter().map(|&l| u32::from(l)).collect())
    }

    fn logits(&self, x: &Tensor, rows: Range<usize>) -> Tensor {
        let samples: Vec<u64> = rows.map(|i| i as u64).collect();
        let pass = Pass { train: true, seed: 1, epoch: 0, samples: &samples };
        self.model.forward(x, &pass).unwrap()
    }

    /// Forward and backward pass of the mean loss of batch `step`, cut into `parts` micro-batches.
    fn pass(&self, step: usize, parts: usize) -> f32 {
        let labels = self.golden.bytes("labels").1;
        let (batch, each) = (labels[0] / 10, labels[1..].iter().product::<usize>());
        let mut total = 0.0;
        self.set.grads().begin_step();
        for part in 0..parts {
            let rows =
                step * batch + part * batch / parts..step * batch + (part + 1) * batch / parts;
            let (x, labels) = self.samples(rows.clone());
            let losses = cross_entropy(&self.logits(&x, rows), &labels).unwrap();
            let loss = (losses.sum_all().unwrap() / (batch * each) as f64).unwrap();
            loss.backward().unwrap();
            total += loss.to_scalar::<f32>().unwrap();
        }
        total
    }

    fn gradients_equal_pytorchs(&self, parts: usize) {
        self.gradients_are_within(1e-5, parts);
    }

    fn gradients_are_within(&self, tolerance: f32, parts: usize) {
        self.pass(0, parts);
        for (i, param) in self.set.iter().enumerate() {
            let name = format!("grad.{}", param.name());
            let expected = self.golden.floats(&name);
            self.set.grads().read(i, |got| {
                assert_close(&name, &thinned(got, expected.len()), &expected, tolerance);
            });
        }
    }

    fn ten_steps_equal_pytorchs(&mut self) {
        self.ten_steps_are_within(1e-5);
    }

    fn ten_steps_are_within(&mut self, tolerance: f32) {
        let mut losses = Vec::new();
        for step in 0..10 {
            losses.push(self.pass(step, 1));
            self.rule.begin_step(self.lr);
            for (i, param) in self.set.iter().enumerate() {
                self.set.grads().read(i, |grad| {
                    param.update(|theta| self.rule.update(i, theta, grad, 1.0)).unwrap();
                });
            }
        }
        assert_close("losses", &losses, &self.golden.floats("losses"), tolerance);
        for param in &self.set {
            let name = format!("end.{}", param.name());
            let expected = self.golden.floats(&name);
            let got = thinned(&param.to_vec().unwrap(), expected.len());
            assert_close(&name, &got, &expected, tolerance);
        }
    }
}

/// As `by_formula` of the script: values that both sides make for themselves.
fn by_formula(param: &Param) -> Vec<f32> {
    let dims = param.tensor().dims();
    let fan_in: usize = dims[1..].iter().product();
    let value = |i: u64| {
        let place = (i * 2_654_435_761) % (1 << 32);
        let value = place as f64 / f64::from(1u32 << 31) - 1.0;
        let scaled =
            if dims.len() > 1 { value * (6.0 / fan_in as f64).sqrt() } else { 1.0 + value / 2.0 };
        scaled as f32
    };
    (0..param.tensor().elem_count() as u64).map(value).collect()
}

/// Every n-th value, so that `len` are left: of large tensors the files hold no more.
fn thinned(values: &[f32], len: usize) -> Vec<f32> {
    values.iter().copied().step_by(values.len().div_ceil(len)).collect()
}

#[test]
fn lenet5_has_pytorchs_gradients_whole_and_in_micro_batches() {
    let training = Training::start("lenet5", ModelKind::LeNet5, &[]);
    for parts in [1, 2, 3, 8] {
        training.gradients_equal_pytorchs(parts);
    }
}

#[test]
fn lenet5_has_pytorchs_losses_and_parameters_over_ten_steps() {
    Training::start("lenet5", ModelKind::LeNet5, &[]).ten_steps_equal_pytorchs();
}

#[test]
fn the_mlp_has_pytorchs_gradients_whole_and_in_micro_batches() {
    let training = Training::start("mlp", ModelKind::Mlp, &[24, 16]);
    for parts in [1, 2, 3, 8] {
        training.gradients_equal_pytorchs(parts);
    }
}

#[test]
fn the_mlp_has_pytorchs_losses_and_parameters_over_ten_steps() {
    Training::start("mlp", ModelKind::Mlp, &[24, 16]).ten_steps_equal_pytorchs();
}

#[test]
fn a_resnet_has_pytorchs_gradients_whole_and_in_micro_batches() {
    let training = Training::of("resnet8", ModelKind::ResNet, &[], Some(8));
    for parts in [1, 2, 3, 8] {
        training.gradients_are_within(1e-5, parts);
    }
}

#[test]
fn a_resnet_has_pytorchs_losses_and_parameters_over_ten_steps() {
    Training::of("resnet8", ModelKind::ResNet, &[], Some(8)).ten_steps_are_within(1e-5);
}

/// Two recurrent layers of `width`.
fn recurrent(kind: ModelKind, width: usize) -> config::Model {
    config::Model { width: Some(width), layers: Some(2), ..config::Model::of(kind) }
}

#[test]
fn recurrent_text_models_have_pytorchs_logits_gradients_losses_and_parameters() {
    for (name, kind, tied) in
        [("lstm_text", ModelKind::Lstm, None), ("gru_text", ModelKind::Gru, Some(true))]
    {
        let card = config::Model { tied, ..recurrent(kind, 8) };
        let mut training = Training::with(name, &card);
        let logits = training.logits(&training.samples(0..3).0, 0..3).flatten_all().unwrap();
        let expected = training.golden.floats("logits");
        assert_close("logits", &logits.to_vec1::<f32>().unwrap(), &expected, 1e-5);
        for parts in [1, 3] {
            training.gradients_equal_pytorchs(parts);
        }
        training.ten_steps_equal_pytorchs();
    }
}

#[test]
fn recurrent_classifiers_in_both_directions_have_pytorchs_gradients_losses_and_parameters() {
    for (name, kind) in [("lstm_rows", ModelKind::Lstm), ("gru_rows", ModelKind::Gru)] {
        let card = config::Model { bidirectional: Some(true), ..recurrent(kind, 6) };
        let mut training = Training::with(name, &card);
        for parts in [1, 3, 8] {
            training.gradients_equal_pytorchs(parts);
        }
        training.ten_steps_equal_pytorchs();
    }
}

#[test]
fn a_gpt_has_pytorchs_logits_loss_and_gradients() {
    let golden = Golden::read("gpt");
    let params = ParamBuilder::new(1, &Device::Cpu);
    let shape = GptShape { vocab: 11, context: 8, width: 16, layers: 2, heads: 2 };
    let model = Gpt::new(&shape, &params).unwrap();
    let set = params.finish(1 << 16, 1 << 20).unwrap();
    for param in &set {
        let start = golden.floats(&format!("start.{}", param.name()));
        param.update(|values| values.copy_from_slice(&start)).unwrap();
    }
    let ids = |name| golden.bytes(name).0.iter().map(|&t| u32::from(t)).collect::<Vec<_>>();
    let logits = model.forward(&ids("tokens"), 3).unwrap();
    let loss = cross_entropy(&logits, &ids("targets")).unwrap().mean_all().unwrap();
    set.grads().begin_step();
    loss.backward().unwrap();
    let logits = logits.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert_close("logits", &logits, &golden.floats("logits"), 1e-5);
    assert_close("loss", &[loss.to_scalar::<f32>().unwrap()], &golden.floats("loss"), 1e-5);
    for (i, param) in set.iter().enumerate() {
        let name = format!("grad.{}", param.name());
        let expected = golden.floats(&name);
        set.grads().read(i, |got| assert_close(&name, got, &expected, 1e-5));
    }
}

#[test]
fn batch_norm_has_pytorchs_results_gradients_and_averages() {
    let golden = Golden::read("batch_norm");
    let params = ParamBuilder::new(1, &Device::Cpu);
    let layer = BatchNorm2d::new(&params.pp("bn"), 3).unwrap();
    let set = params.finish(1 << 16, 1 << 20).unwrap();
    for param in &set {
        let start = golden.floats(&format!("start.{}", param.name()));
        param.update(|values| values.copy_from_slice(&start)).unwrap();
    }
    let tensor = |name: &str| {
        Tensor::from_vec(golden.floats(name), golden.bytes(name).1, &Device::Cpu).unwrap()
    };
    let close = |what: &str, got: &Tensor| {
        let got = got.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_close(what, &got, &golden.floats(what), 1e-5);
    };
    for i in 0..2 {
        let x = Var::from_tensor(&tensor(&format!("x.{i}"))).unwrap();
        set.grads().begin_step();
        let y = layer.forward(&x, true).unwrap();
        close(&format!("y.{i}"), &y);
        let loss = (y * tensor(&format!("mix.{i}"))).unwrap().sum_all().unwrap();
        close(&format!("dx.{i}"), loss.backward().unwrap().get(&x).unwrap());
    }
    for (i, param) in set.iter().enumerate() {
        let name = format!("grad.{}", param.name());
        set.grads().read(i, |got| assert_close(&name, got, &golden.floats(&name), 1e-5));
    }
    let running = layer.running();
    assert_close("mean", &running.mean, &golden.floats("mean"), 1e-6);
    assert_close("var", &running.var, &golden.floats("var"), 1e-6);
    close("y.eval", &layer.forward(&tensor("x.1"), false).unwrap());
}
