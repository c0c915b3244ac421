//! `annulus bench optimizer`: our optimizers beside Candle's AdamW and a pass over the same memory.

use super::args::OptimizerArgs;
use super::heading::{self, Heading};
use super::limits;
use super::race::{Times, race};
use super::table::{Table, column, digits, percent, time};
use crate::collective::Group;
use crate::config::{self, OptimizerKind};
use crate::error::Result;
use crate::optim::{self, Optimizer};
use crate::train;
use crate::util::aligned::FlatBuf;
use crate::util::human;
use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};
use candle_nn::Optimizer as _;
use serde_json::{Map, Value, json};
use std::ops::Range;

/// Lengths of LeNet-5's parameters: weights and biases of two convolutions and two dense layers.
const LENET: &[usize] = &[150, 6, 2400, 16, 30_720, 120, 1200, 10];
/// Those of an MLP 784-4096-4096-10.
const MLP: &[usize] = &[784 * 4096, 4096, 4096 * 4096, 4096, 40_960, 10];
/// Bytes for each parameter: values, gradient, five moments, the pass's two, and Candle's AdamW with
/// its values, gradient, moments and temporaries.
const BYTES_EACH: u64 = 80;
/// Size of every gradient: not so small that squares become denormal, which would slow all down.
const GRADIENT: f32 = 1e-3;
const RATE: f64 = 1e-4;

/// The rules in their order in a race: kind and moments. Candle's AdamW and one memory pass for each
/// number of moments follow.
const RULES: [(OptimizerKind, usize); 3] =
    [(OptimizerKind::Sgd, 1), (OptimizerKind::Adam, 2), (OptimizerKind::Adamw, 2)];
const CANDLE: usize = RULES.len();
const PASSES: usize = CANDLE + 1;

/// Measures, prints, and writes what was asked for.
///
/// # Errors
/// When memory is short, an operation fails, or a rank is late.
pub fn run(args: &OptimizerArgs, group: &mut Group) -> Result<()> {
    heading::check_writable(args.json.as_deref(), group)?;
    let models: Vec<Vec<usize>> = match &args.params {
        Some(counts) => counts.iter().map(|&n| vec![n]).collect(),
        None => vec![LENET.to_vec(), MLP.to_vec()],
    };
    let most = models.iter().map(|lens| lens.iter().sum::<usize>()).max().unwrap_or(0);
    let what = format!("{} parameters", human::count(most as u64));
    limits::require_memory(group, BYTES_EACH * most as u64, &what, "Ask for fewer with --params")?;

    // One thread for Candle, too: ours have one.
    train::use_threads(Some(1), group)?;
    let heading = Heading::find(group)?;
    let budget = format!("{} s for each number of parameters", digits(args.seconds));
    heading.print(group, "optimizer", &budget);
    let table = begin(group);
    let mut rows = Vec::new();
    for lens in &models {
        let field = Field::new(lens);
        let mut field = group.together(field)?;
        let times = race(group, PASSES + 2, args.seconds, |_, which| field.step(which))?;
        let row = Row { parameters: lens.iter().sum(), times };
        row.print(&table);
        rows.push(row.to_json());
    }
    footer(&table);
    let mut figures = heading.to_json("optimizer");
    figures.insert("rows".to_owned(), Value::Array(rows));
    heading::write_json(args.json.as_deref(), figures, group)
}

/// Everything that is updated.
struct Field {
    slots: Vec<Range<usize>>,
    theta: FlatBuf,
    grad: FlatBuf,
    rules: Vec<Box<dyn Optimizer>>,
    pass: [FlatBuf; 2],
    candle: Candle,
}

/// Candle's own AdamW over tensors of the same lengths.
struct Candle {
    rule: candle_nn::AdamW,
    grads: GradStore,
}

impl Field {
    fn new(lens: &[usize]) -> Result<Field> {
        let total: usize = lens.iter().sum();
        let mut end = 0;
        let mut slot = |&len: &usize| {
            end += len;
            end - len..end
        };
        let rule = |(kind, _)| optim::build(&card(kind), lens);
        let mut grad = FlatBuf::zeroed(total)?;
        grad.fill(GRADIENT);
        Ok(Field {
            slots: lens.iter().map(&mut slot).collect(),
            theta: FlatBuf::zeroed(total)?,
            grad,
            rules: RULES.into_iter().map(rule).collect::<Result<_>>()?,
            pass: [FlatBuf::zeroed(total)?, FlatBuf::zeroed(total)?],
            candle: Candle::new(zeros(lens)?)?,
        })
    }

    /// One step of one entrant.
    fn step(&mut self, which: usize) -> Result<()> {
        if which == CANDLE {
            self.candle.rule.step(&self.candle.grads)?;
        } else if let Some(rule) = self.rules.get_mut(which) {
            rule.begin_step(RATE);
            for (i, slot) in self.slots.iter().enumerate() {
                rule.update(i, &mut self.theta[slot.clone()], &self.grad[slot.clone()], 1.0);
            }
        } else {
            let [m, v] = &mut self.pass;
            let mut moments: [&mut [f32]; 2] = [m, v];
            let moments = &mut moments[..1 + which - PASSES];
            limits::streams(&mut self.theta, &self.grad, moments);
        }
        Ok(())
    }
}

fn card(kind: OptimizerKind) -> config::Optimizer {
    let momentum = (kind == OptimizerKind::Sgd).then_some(0.9);
    config::Optimizer { kind, momentum, weight_decay: 0.01, ..Default::default() }
}

impl Candle {
    fn new(vars: Vec<Var>) -> Result<Candle> {
        // Gradients come out of `backward` only; those of a constant have room for others.
        let mut grads = Tensor::zeros((), DType::F32, &Device::Cpu)?.backward()?;
        for var in &vars {
            grads.insert(var.as_tensor(), Tensor::full(GRADIENT, var.shape(), &Device::Cpu)?);
        }
        let settings = candle_nn::ParamsAdamW { lr: RATE, ..Default::default() };
        Ok(Candle { rule: candle_nn::AdamW::new(vars, settings)?, grads })
    }
}

/// Zeros in Candle's tensors.
fn zeros(lens: &[usize]) -> Result<Vec<Var>> {
    let zeros = |&len: &usize| Ok(Var::zeros(len, DType::F32, &Device::Cpu)?);
    lens.iter().map(zeros).collect()
}

/// One number of parameters, measured.
struct Row {
    parameters: usize,
    times: Vec<Times>,
}

impl Row {
    fn ns_each(&self, times: &Times) -> f64 {
        times.p50() * 1e9 / self.parameters as f64
    }

    /// The time of a pass over the same memory, as a share of the rule's.
    fn limit_share(&self, rule: usize) -> f64 {
        self.times[PASSES + RULES[rule].1 - 1].p50() / self.times[rule].p50()
    }

    /// Bytes read and written in a second, in GB/s: values and moments both ways, gradients one way.
    fn gb_per_s(&self, rule: usize) -> f64 {
        let bytes = 4 * (3 + 2 * RULES[rule].1) * self.parameters;
        bytes as f64 / self.times[rule].p50() / 1e9
    }

    fn names() -> [String; CANDLE] {
        RULES.map(|(kind, _)| format!("{kind:?}").to_lowercase())
    }

    fn print(&self, table: &Table) {
        let count = human::count(self.parameters as u64);
        for (rule, name) in Self::names().into_iter().enumerate() {
            let times = &self.times[rule];
            table.row(&[
                count.clone(),
                name,
                time(times.p50()),
                time(times.p99()),
                digits(self.ns_each(times)),
                digits(self.gb_per_s(rule)),
                percent(Some(self.limit_share(rule))),
                format!("{}×", digits(self.times[CANDLE].p50() / times.p50())),
            ]);
        }
        let times = &self.times[CANDLE];
        let dash = || "–".to_owned();
        table.row(&[
            count,
            "Candle adamw".to_owned(),
            time(times.p50()),
            time(times.p99()),
            digits(self.ns_each(times)),
            dash(),
            dash(),
            "1.00×".to_owned(),
        ]);
    }

    fn to_json(&self) -> Value {
        let mut optimizers = Map::new();
        for (rule, name) in Self::names().into_iter().enumerate() {
            let times = &self.times[rule];
            let figures = json!({
                "p50_us": times.p50() * 1e6,
                "p99_us": times.p99() * 1e6,
                "ns_per_parameter": self.ns_each(times),
                "gb_s": self.gb_per_s(rule),
                "limit_share": self.limit_share(rule),
            });
            optimizers.insert(name, figures);
        }
        let candle = &self.times[CANDLE];
        let figures = json!({
            "p50_us": candle.p50() * 1e6,
            "p99_us": candle.p99() * 1e6,
            "ns_per_parameter": self.ns_each(candle),
        });
        optimizers.insert("candle_adamw".to_owned(), figures);
        json!({"parameters": self.parameters, "optimizers": optimizers})
    }
}

fn begin(group: &Group) -> Table {
    let columns = vec![
        column("parameters", 11),
        column("optimizer", 13),
        column("step p50", 9),
        column("p99", 9),
        column("ns/param", 9),
        column("GB/s", 8),
        column("limit", 7),
        column("Candle/this", 12),
    ];
    Table::begin(group.rank() == 0, columns)
}

fn footer(table: &Table) {
    table.note("");
    table.note("one thread each, all in turn; every rank updates its own parameters, all at once; the slowest");
    table.note("rank counts. SGD has momentum 0.9; all have weight decay");
    table.note("limit: time of one pass that reads and writes the same memory (adam: reads 4, writes 3 numbers");
    table.note("for each parameter) with one addition each, over the time of the step");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_models_have_the_parameters_that_the_help_names() {
        assert_eq!(LENET.iter().sum::<usize>(), 34_622);
        assert_eq!(MLP.iter().sum::<usize>(), 20_037_642);
    }

    #[test]
    fn ours_and_candles_adamw_take_the_same_steps_in_the_race() {
        let lens = [5, 33];
        let (mut field, vars) = (Field::new(&lens).unwrap(), zeros(&lens).unwrap());
        field.candle = Candle::new(vars.clone()).unwrap();
        for _ in 0..3 {
            field.step(2).unwrap();
            field.step(CANDLE).unwrap();
        }
        let flat = |var: &Var| var.to_vec1::<f32>().unwrap();
        let theirs: Vec<f32> = vars.iter().flat_map(flat).collect();
        assert_eq!(theirs.len(), 38);
        for (ours, theirs) in field.theta.iter().zip(theirs) {
            assert!((ours - theirs).abs() < 1e-7 && *ours != 0.0, "{ours} {theirs}");
        }
    }

    #[test]
    fn every_entrant_of_the_race_changes_what_it_should() {
        for which in 0..PASSES + 2 {
            let mut field = Field::new(&[64]).unwrap();
            field.step(which).unwrap();
            let moved = field.theta.iter().filter(|x| **x != 0.0).count();
            assert_eq!(moved, if which == CANDLE { 0 } else { 64 }, "entrant {which}");
        }
    }
}
