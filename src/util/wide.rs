//! Plain loops compiled a second time for AVX2, chosen at run time.
//!
//! The project is built for any x86-64, whose vectors have 4 floats; nearly every machine has 8. The
//! loops use additions and multiplications as they are written, never fused ones, so both versions
//! (and other processors) give the same bits: replicas on different processors stay equal.
#![allow(unsafe_code)]

/// Defines a function whose body is compiled for the target and, on x86-64, again with AVX2.
///
/// What the body calls must be `#[inline(always)]`, or it stays at the narrow width.
macro_rules! wide {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        #[allow(unsafe_code, clippy::too_many_arguments)]
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn body($($arg: $ty),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2")]
                fn avx2($($arg: $ty),*) $(-> $ret)? {
                    body($($arg),*)
                }
                if std::arch::is_x86_feature_detected!("avx2") {
                    // SAFETY: the processor has AVX2, which was asked on the line above.
                    return unsafe { avx2($($arg),*) };
                }
            }
            body($($arg),*)
        }
    };
}
pub(crate) use wide;
