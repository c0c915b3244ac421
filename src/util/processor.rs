//! What kind of processor this is, as far as it decides how sums are ordered.

use std::fs;
use std::sync::OnceLock;

/// Name, vector instructions and caches of the processor. Kernels choose their width by the
/// instructions, and the matrix product its blocks by the caches; both order the additions.
#[must_use]
pub fn kind() -> String {
    static KIND: OnceLock<String> = OnceLock::new();
    let find = || {
        let mut parts = vec![std::env::consts::ARCH.to_owned()];
        parts.extend(name());
        parts.extend(instructions().iter().map(|&name| name.to_owned()));
        parts.extend(caches());
        parts.join(" ")
    };
    KIND.get_or_init(find).clone()
}

fn name() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

#[cfg(target_arch = "x86_64")]
fn instructions() -> Vec<&'static str> {
    let all = [
        ("avx2", std::arch::is_x86_feature_detected!("avx2")),
        ("fma", std::arch::is_x86_feature_detected!("fma")),
        ("avx512f", std::arch::is_x86_feature_detected!("avx512f")),
    ];
    all.into_iter().filter(|(_, there)| *there).map(|(name, _)| name).collect()
}

#[cfg(not(target_arch = "x86_64"))]
fn instructions() -> Vec<&'static str> {
    Vec::new()
}

/// Sizes of the caches of the first core, where the kernel tells them: `32K 512K 32768K`.
fn caches() -> Vec<String> {
    let size = |i: usize| {
        let path = format!("/sys/devices/system/cpu/cpu0/cache/index{i}/size");
        fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
    };
    (0..8).map_while(size).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_is_told_the_same_each_time_and_starts_with_the_architecture() {
        assert_eq!(kind(), kind());
        assert!(kind().starts_with(std::env::consts::ARCH));
    }
}
