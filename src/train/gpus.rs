//! The GPUs of this host: how many, which, and how much of their memory is free.

use crate::util::human;
use candle_core::{Device, DeviceLocation};

/// The number of the GPU that a device is; `None` for the processor.
#[must_use]
pub fn number(device: &Device) -> Option<usize> {
    match device.location() {
        DeviceLocation::Cuda { gpu_id } => Some(gpu_id),
        _ => None,
    }
}

/// A line for each GPU of this host, in the order of their numbers.
///
/// # Errors
/// Why there is none that can be used, in the driver's words.
pub fn list() -> Result<Vec<String>, String> {
    let count = driver::count()?;
    if count == 0 {
        return Err("the driver shows no GPU".to_owned());
    }
    Ok((0..count).map(describe).collect())
}

/// `GPU 0 (NVIDIA H100 80GB HBM3, 84.5 of 85.0 GB free)`: as it is now.
#[must_use]
pub fn describe(number: usize) -> String {
    match driver::look(number) {
        Ok((name, free, total)) => format!(
            "GPU {number} ({name}, {} of {} free)",
            human::bytes(free as u64),
            human::bytes(total as u64)
        ),
        Err(why) => format!("GPU {number} (it does not say what it is: {why})"),
    }
}

#[cfg(feature = "cuda")]
mod driver {
    use candle_core::cuda_backend::cudarc::driver::CudaContext;

    pub fn count() -> Result<usize, String> {
        CudaContext::device_count().map(|n| n.max(0) as usize).map_err(|e| e.to_string())
    }

    /// Name, bytes free and bytes in all.
    pub fn look(number: usize) -> Result<(String, usize, usize), String> {
        let look = || {
            let context = CudaContext::new(number)?;
            let (free, total) = context.mem_get_info()?;
            Ok::<_, candle_core::cuda_backend::cudarc::driver::DriverError>((
                context.name()?,
                free,
                total,
            ))
        };
        look().map_err(|e| e.to_string())
    }
}

#[cfg(not(feature = "cuda"))]
mod driver {
    const WITHOUT: &str = "this annulus was built without CUDA";

    pub fn count() -> Result<usize, String> {
        Err(WITHOUT.to_owned())
    }

    pub fn look(_number: usize) -> Result<(String, usize, usize), String> {
        Err(WITHOUT.to_owned())
    }
}
