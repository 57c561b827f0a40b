//! The part of CUDA that TensorRT needs: devices, streams, memory, graphs.
//!
//! The entry point is [`Cuda`], which exists only if CUDA works. No TensorRT runtime
//! function may be called without it: without a GPU, TensorRT returns invalid
//! addresses, or crashes.

mod driver;
mod memory;
mod stream;

use std::ffi::c_int;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};
use driver::{Driver, Handle};

pub use memory::{DeviceBuffer, PinnedBuffer};
pub use stream::{Event, Graph, Stream};

/// Environment variable with the path of CUDA's driver library, if the loader does not
/// find it.
pub const VARIABLE: &str = "LOFTUP_LIBCUDA";

/// Proof that CUDA works: its driver library is loaded and initialized, and there is at
/// least one GPU. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Cuda {
    driver: Arc<Driver>,
    devices: u32,
}

impl Cuda {
    /// Loads `libcuda` (`LOFTUP_LIBCUDA`, else `libcuda.so.1`), initializes it and counts the
    /// GPUs.
    ///
    /// # Errors
    /// [`Error::NoCuda`] if there is no driver or it does not start,
    /// [`Error::NoDevice`] if it has no GPU, [`Error::Symbol`] if it is too old.
    pub fn find() -> Result<Cuda> {
        match std::env::var_os(VARIABLE).filter(|value| !value.is_empty()) {
            Some(path) => Cuda::open(Path::new(&path)),
            // Not the bare `libcuda.so`: in containers that is often the toolkit's stub.
            None => Cuda::open(&PathBuf::from("libcuda.so.1")),
        }
    }

    /// Same as [`Cuda::find`], with the driver library `path`.
    ///
    /// # Errors
    /// Same as for [`Cuda::find`].
    pub fn open(path: &Path) -> Result<Cuda> {
        let name = path.display().to_string();
        // SAFETY: opening a library runs its initializers; NVIDIA's have no observable effects.
        let handle = unsafe { libloading::Library::new(path) }.map_err(|error| Error::NoCuda {
            reason: format!(
                "{name} cannot be opened ({}); install NVIDIA's driver (on a Jetson, the L4T packages), or run the container with GPU access",
                crate::library::loader_reason(&error, &name)
            ),
        })?;
        // Never unloaded: TensorRT uses the same driver until the process exits.
        let driver = Driver::load(Box::leak(Box::new(handle)), &name)?;
        // SAFETY: 0 is the only defined flags value; repeated calls are allowed.
        let started = unsafe { driver.init(0) };
        started.map_err(|error| match error {
            Error::Cuda { code: 100, .. } => Error::NoDevice,
            Error::Cuda { code, name, .. } => Error::NoCuda {
                reason: init_reason(code, &name),
            },
            other => other,
        })?;
        let mut count: c_int = 0;
        // SAFETY: writes one integer.
        unsafe { driver.device_count(&mut count) }?;
        match u32::try_from(count) {
            Ok(devices) if devices > 0 => Ok(Cuda {
                driver: Arc::new(driver),
                devices,
            }),
            _ => Err(Error::NoDevice),
        }
    }

    /// Number of GPUs, at least one.
    pub fn device_count(&self) -> u32 {
        self.devices
    }

    /// The newest CUDA version that the driver supports, as (major, minor).
    ///
    /// # Errors
    /// [`Error::Cuda`].
    pub fn driver_version(&self) -> Result<(u32, u32)> {
        let mut version: c_int = 0;
        // SAFETY: writes one integer.
        unsafe { self.driver.version(&mut version) }?;
        let version = version.unsigned_abs();
        Ok((version / 1000, version % 1000 / 10))
    }
}

/// Describes a failed initialization, with a hint.
fn init_reason(code: u32, name: &str) -> String {
    let hint = match code {
        34 => {
            "this libcuda is the toolkit's stub; install the driver, or remove the stub from the library path"
        }
        803 | 804 => {
            "the driver library and the kernel module have different versions; reboot after an update"
        }
        999 => "the kernel module is in a bad state; reload it or restart the machine",
        _ => {
            "check that the kernel module is loaded and that /dev/nvidia* (on a Jetson /dev/nvmap) can be opened"
        }
    };
    format!("cuInit failed with {name} ({code}); {hint}")
}

/// A GPU with its primary context, which TensorRT shares.
#[derive(Debug)]
pub struct Device {
    cuda: Cuda,
    ordinal: u32,
    raw: c_int,
    context: Handle,
}

// SAFETY: the handles are plain values for the driver, whose functions can be called from any
// thread; `bind` makes the context current on the calling thread before each use.
unsafe impl Send for Device {}
// SAFETY: as above; nothing is modified through a shared reference.
unsafe impl Sync for Device {}

impl Device {
    /// Opens GPU number `ordinal`, from 0.
    ///
    /// # Errors
    /// [`Error::Argument`] if there are fewer GPUs; [`Error::Cuda`].
    pub fn new(cuda: &Cuda, ordinal: u32) -> Result<Arc<Device>> {
        if ordinal >= cuda.devices {
            return Err(Error::Argument(format!(
                "there is no GPU {ordinal}: this machine has {}, numbered from 0",
                cuda.devices
            )));
        }
        let mut raw: c_int = 0;
        let mut context: Handle = std::ptr::null_mut();
        // SAFETY: `raw` and `context` are written before they are used; the ordinal is in range.
        unsafe {
            cuda.driver.device(&mut raw, ordinal as c_int)?;
            cuda.driver.context_retain(&mut context, raw)?;
        }
        let device = Arc::new(Device {
            cuda: cuda.clone(),
            ordinal,
            raw,
            context,
        });
        device.bind()?;
        Ok(device)
    }

    pub(crate) fn driver(&self) -> &Driver {
        &self.cuda.driver
    }

    /// Makes this GPU's context current on the calling thread. TensorRT uses the current
    /// context.
    pub(crate) fn bind(&self) -> Result<()> {
        // SAFETY: the context is retained until `self` is dropped.
        unsafe { self.driver().context_set(self.context) }
    }

    /// The number of this GPU.
    pub fn ordinal(&self) -> u32 {
        self.ordinal
    }

    /// Its name, such as "Orin".
    ///
    /// # Errors
    /// [`Error::Cuda`].
    pub fn name(&self) -> Result<String> {
        let mut name = [0u8; 256];
        // SAFETY: writes at most 255 characters and a NUL; the last byte is never written and stays
        // NUL.
        unsafe {
            self.driver()
                .device_name(name.as_mut_ptr().cast(), 255, self.raw)
        }?;
        let end = name.iter().position(|byte| *byte == 0).unwrap_or(0);
        Ok(String::from_utf8_lossy(&name[..end]).into_owned())
    }

    /// Compute capability, (8, 7) on Orin. Engines are specific to it.
    ///
    /// # Errors
    /// [`Error::Cuda`].
    pub fn compute_capability(&self) -> Result<(u32, u32)> {
        const MAJOR: c_int = 75;
        const MINOR: c_int = 76;
        Ok((self.attribute(MAJOR)?, self.attribute(MINOR)?))
    }

    /// Whether the GPU shares the memory of the CPU and can use pinned host memory directly, as on a Jetson:
    /// then nothing has to be copied.
    ///
    /// # Errors
    /// [`Error::Cuda`].
    pub fn shares_host_memory(&self) -> Result<bool> {
        const INTEGRATED: c_int = 18;
        const CAN_MAP_HOST_MEMORY: c_int = 19;
        Ok(self.attribute(INTEGRATED)? != 0 && self.attribute(CAN_MAP_HOST_MEMORY)? != 0)
    }

    fn attribute(&self, attribute: c_int) -> Result<u32> {
        let mut value: c_int = 0;
        // SAFETY: writes one integer.
        unsafe {
            self.driver()
                .device_attribute(&mut value, attribute, self.raw)
        }?;
        Ok(value.unsigned_abs())
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: retained once by `new`; every object created on it holds an `Arc` of this device.
        if let Err(error) = unsafe { self.driver().context_release(self.raw) } {
            log::warn!("releasing GPU {} failed: {error}", self.ordinal);
        }
    }
}
