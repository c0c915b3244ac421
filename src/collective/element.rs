//! The number types that can be reduced.

use crate::comm::Reducible;
use crate::util::wide::wide;
use std::ops::Add;

/// How elements of different ranks are combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Op {
    /// Their sum.
    Sum = 0,
    /// The largest.
    Max = 1,
}

/// A number that can travel round the ring.
pub trait Element: bytemuck::Pod {
    /// What the header calls the type.
    const TYPE: u8;

    /// `into[i] = into[i] op from[i]`. The loops are plain so that they vectorise.
    fn reduce(op: Op, into: &mut [Self], from: &[Self]);

    /// The same numbers for a transport that reduces by itself.
    fn reducible(data: &mut [Self]) -> Reducible<'_>;
}

macro_rules! element {
    ($type:ty, $code:literal, $variant:ident, $sum:expr, $max:expr) => {
        impl Element for $type {
            const TYPE: u8 = $code;

            fn reduce(op: Op, into: &mut [Self], from: &[Self]) {
                wide! {
                    fn sum(into: &mut [$type], from: &[$type]) {
                        for (a, b) in into.iter_mut().zip(from) {
                            *a = $sum(*a, *b);
                        }
                    }
                }
                match op {
                    Op::Sum => sum(into, from),
                    Op::Max => into.iter_mut().zip(from).for_each(|(a, b)| *a = $max(*a, *b)),
                }
            }

            fn reducible(data: &mut [Self]) -> Reducible<'_> {
                Reducible::$variant(data)
            }
        }
    };
}

element!(f32, 1, F32, f32::add, f32::max);
element!(f64, 2, F64, f64::add, f64::max);
element!(u64, 3, U64, u64::wrapping_add, Ord::max);

/// The name of a type code, for messages.
pub(super) fn type_name(code: u8) -> &'static str {
    match code {
        0 => "bytes",
        1 => "f32",
        2 => "f64",
        3 => "u64",
        _ => "an unknown type",
    }
}
