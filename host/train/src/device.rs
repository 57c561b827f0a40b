//! Selects the training device.

use burn::tensor::Device;

use crate::error::TrainError;

/// Opens the device with this name: `auto`, `cpu`, `cuda` or `cuda:N`.
///
/// # Errors
/// The device does not exist, or this program was built without support for it.
pub fn open(name: &str) -> Result<Device, TrainError> {
    let error = |what: &str| TrainError::Device {
        device: name.into(),
        what: what.into(),
    };
    match name {
        "cpu" => Ok(Device::flex()),
        "auto" => Ok(cuda(0).unwrap_or_else(|_| Device::flex())),
        _ => {
            let index = match name.split_once(':') {
                None if name == "cuda" => Some(0),
                Some(("cuda", index)) => index.parse().ok(),
                _ => None,
            };
            let index = index.ok_or_else(|| error("unknown; write auto, cpu, cuda or cuda:N"))?;
            cuda(index).map_err(error)
        }
    }
}

#[cfg(feature = "cuda")]
fn cuda(index: usize) -> Result<Device, &'static str> {
    // The framework panics if the driver is missing, so check for it first.
    let driver = ["/dev/nvidiactl", "/dev/nvhost-gpu", "/dev/nvgpu"];
    if !driver
        .iter()
        .any(|path| std::path::Path::new(path).exists())
    {
        return Err("this machine has no NVIDIA driver; write auto or cpu");
    }
    Ok(Device::cuda(index))
}

#[cfg(not(feature = "cuda"))]
fn cuda(_: usize) -> Result<Device, &'static str> {
    Err("this program was built without CUDA; build it with --features cuda, or write cpu")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_devices_are_errors_that_say_what_to_write() {
        for name in ["gpu", "cuda:x", "tpu:0", ""] {
            let message = open(name).unwrap_err().to_string();
            assert!(message.contains("auto, cpu, cuda or cuda:N"), "{message}");
        }
        assert!(open("auto").is_ok());
    }
}
