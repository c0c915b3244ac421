//! Counter-based random numbers: Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy
//! as 1, 2, 3", SC11).
//!
//! A draw is a pure function of (seed, purpose, epoch, layer, sample, position). It never depends on
//! the rank, the thread or what was drawn before, so the same job draws the same numbers at any rank
//! count and after a resume. Only IEEE-exact operations turn bits into floats, so machines agree.

/// What a stream of random numbers is used for; streams of different purposes never overlap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Purpose {
    /// Initial parameters.
    Init = 1,
    /// The order of the samples in an epoch.
    Order = 2,
    /// Dropout masks.
    Dropout = 3,
    /// Data made up for tests and probes.
    Synthetic = 4,
    /// Changes of the training images.
    Augment = 5,
    /// Samples drawn with replacement.
    Draw = 6,
    /// Trials of a search.
    Search = 7,
}

/// A stream of random numbers for one (seed, purpose, epoch, layer, sample).
#[derive(Clone, Debug)]
pub struct Rng {
    key: [u32; 2],
    sample: u64,
    block: u64,
    words: [u32; 4],
    used: usize,
}

impl Rng {
    /// The stream for `sample` in `layer` during `epoch`. Give 0 for what does not apply.
    #[must_use]
    pub fn new(seed: u64, purpose: Purpose, epoch: u64, layer: u64, sample: u64) -> Rng {
        let mut key = mix(seed);
        for word in [purpose as u64, epoch, layer] {
            key = mix(key ^ word);
        }
        let key = [key as u32, (key >> 32) as u32];
        Rng { key, sample, block: 0, words: [0; 4], used: 4 }
    }

    /// 32 uniform bits.
    pub fn next_u32(&mut self) -> u32 {
        if self.used == 4 {
            let counter = [
                self.block as u32,
                (self.block >> 32) as u32,
                self.sample as u32,
                (self.sample >> 32) as u32,
            ];
            self.words = philox(counter, self.key);
            self.block += 1;
            self.used = 0;
        }
        self.used += 1;
        self.words[self.used - 1]
    }

    /// 64 uniform bits.
    pub fn next_u64(&mut self) -> u64 {
        u64::from(self.next_u32()) | u64::from(self.next_u32()) << 32
    }

    /// Uniform in [0, 1), a multiple of 2⁻²⁴.
    pub fn uniform(&mut self) -> f32 {
        (self.next_u32() >> 8) as f32 * (1.0 / (1 << 24) as f32)
    }

    /// Uniform in [0, 1), a multiple of 2⁻⁵³.
    pub fn uniform_f64(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform in 0..bound; 0 if `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        below(self.next_u64(), bound)
    }

    /// Uniform in [-bound, bound).
    pub fn symmetric(&mut self, bound: f32) -> f32 {
        (2.0 * self.uniform() - 1.0) * bound
    }
}

/// A number below `bound` from 64 random bits; the bias is below bound / 2⁶⁴.
#[must_use]
pub fn below(bits: u64, bound: u64) -> u64 {
    ((u128::from(bits) * u128::from(bound)) >> 64) as u64
}

/// SplitMix64's finaliser: every input bit reaches every output bit.
#[must_use]
pub fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// Ten rounds of Philox 4x32.
fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let a = u64::from(counter[0]) * 0xD251_1F53;
        let b = u64::from(counter[2]) * 0xCD9E_8D57;
        counter = [
            (b >> 32) as u32 ^ counter[1] ^ key[0],
            b as u32,
            (a >> 32) as u32 ^ counter[3] ^ key[1],
            a as u32,
        ];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_gives_the_known_answers_of_the_random123_library() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(
            philox([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
    }

    #[test]
    fn streams_differ_in_every_coordinate_and_repeat_when_asked_again() {
        let first = |s, p, e, l, i| Rng::new(s, p, e, l, i).next_u64();
        let base = first(1, Purpose::Dropout, 2, 3, 4);
        assert_eq!(base, first(1, Purpose::Dropout, 2, 3, 4));
        for other in [
            first(2, Purpose::Dropout, 2, 3, 4),
            first(1, Purpose::Init, 2, 3, 4),
            first(1, Purpose::Dropout, 3, 3, 4),
            first(1, Purpose::Dropout, 2, 4, 4),
            first(1, Purpose::Dropout, 2, 3, 5),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn uniform_numbers_lie_in_the_unit_interval_with_the_right_mean_and_variance() {
        let mut rng = Rng::new(7, Purpose::Synthetic, 0, 0, 0);
        let n = 100_000;
        let (mut sum, mut squares) = (0.0f64, 0.0f64);
        for _ in 0..n {
            let u = f64::from(rng.uniform());
            assert!((0.0..1.0).contains(&u));
            sum += u;
            squares += u * u;
        }
        let mean = sum / f64::from(n);
        let variance = squares / f64::from(n) - mean * mean;
        assert!((mean - 0.5).abs() < 0.004, "{mean}");
        assert!((variance - 1.0 / 12.0).abs() < 0.002, "{variance}");
    }
}
