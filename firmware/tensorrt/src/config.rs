//! Builder configuration: memory, precision, profiles, timing cache, DLA.

use std::ffi::c_void;
use std::rc::Rc;
use std::sync::Arc;

use crate::abi::{Bool, Object, Pointer, virtual_call};
use crate::error::{Error, Result};
use crate::host_memory::HostMemory;
use crate::object::{BuilderInner, Owned};
use crate::profile::{OptimizationProfile, ShapeRange};
use crate::progress::{Monitor, Progress};
use crate::slots::Slot;
use crate::tensor::TensorInfo;

/// `MemoryPoolType::kWORKSPACE`.
const WORKSPACE: i32 = 0;
/// `DeviceType::kDLA`.
const DLA: i32 = 1;

/// The configuration of a build.
#[derive(Debug)]
pub struct BuilderConfig {
    // Dropped in this order: the configuration refers to the following fields.
    object: Owned,
    cache: Option<Owned>,
    monitor: Option<Box<Monitor>>,
    profiles: Vec<Vec<ShapeRange>>,
    builder: Rc<BuilderInner>,
}

impl BuilderConfig {
    pub(crate) fn new(builder: &Rc<BuilderInner>) -> Result<BuilderConfig> {
        const CALL: &str = "createBuilderConfig";
        let library = builder.library();
        let slots = library.slots();
        let mark = library.logger().mark();
        let implementation = builder.enter(CALL)?;
        // SAFETY: `IBuilderConfig* createBuilderConfig() noexcept` of a live builder.
        let pointer = unsafe { virtual_call!(implementation, slots.builder_config, () -> Pointer) };
        let object = Object::accept(pointer).ok_or_else(|| library.refused(CALL, mark))?;
        // SAFETY: newly created and owned; configurations have the common destructor.
        let object = unsafe { Owned::new(object, slots.object_delete) };
        let builder = Rc::clone(builder);
        Ok(BuilderConfig {
            object,
            cache: None,
            monitor: None,
            profiles: Vec::new(),
            builder,
        })
    }

    pub(crate) fn builder(&self) -> &Rc<BuilderInner> {
        &self.builder
    }

    pub(crate) fn pointer(&self) -> Pointer {
        self.object.pointer()
    }

    pub(crate) fn monitor(&self) -> Option<&Monitor> {
        self.monitor.as_deref()
    }

    /// Limits the GPU workspace memory of a layer, in bytes. TensorRT's default is all
    /// GPU memory.
    ///
    /// # Errors
    /// [`Error::Refused`] if TensorRT rejects the limit.
    pub fn set_workspace(&mut self, bytes: u64) -> Result<()> {
        const CALL: &str = "setMemoryPoolLimit";
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        let library = self.builder.library();
        let mark = library.logger().mark();
        let implementation = self.object.implementation(CALL)?;
        // SAFETY: `void setMemoryPoolLimit(MemoryPoolType, size_t) noexcept`.
        unsafe {
            virtual_call!(implementation, library.slots().config_set_pool,
                (i32 = WORKSPACE, usize = bytes) -> ())
        };
        if self.workspace()? != bytes as u64 {
            return Err(library.refused(CALL, mark));
        }
        Ok(())
    }

    /// The workspace limit, in bytes.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn workspace(&self) -> Result<u64> {
        let implementation = self.object.implementation("getMemoryPoolLimit")?;
        let slot = self.builder.library().slots().config_get_pool;
        // SAFETY: `size_t getMemoryPoolLimit(MemoryPoolType) const noexcept`.
        Ok(unsafe { virtual_call!(implementation, slot, (i32 = WORKSPACE) -> usize) } as u64)
    }

    /// Allows TensorRT 8 to use the lower precisions of the graph, and requires it to follow them.
    /// Later versions always use the types of the graph, so this does nothing for them.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn allow_lower_precision(&mut self, half: bool, int8: bool) -> Result<()> {
        let slots = self.builder.library().slots();
        if slots.flag_strongly_typed.exists() {
            return Ok(());
        }
        let (half_flag, int8_flag, obey) =
            (slots.flag_half, slots.flag_int8, slots.flag_obey_precision);
        if half {
            self.set_flag(half_flag, true)?;
        }
        if int8 {
            self.set_flag(int8_flag, true)?;
        }
        if half || int8 {
            self.set_flag(obey, true)?;
        }
        Ok(())
    }

    /// Whether FP32 multiplications may use TF32, with its 10-bit mantissa.
    /// TensorRT allows it by default (relevant from Ampere on).
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn allow_tf32(&mut self, allow: bool) -> Result<()> {
        let flag = self.builder.library().slots().flag_tf32;
        self.set_flag(flag, allow)
    }

    /// Builds for DLA core `core`, with GPU fallback for unsupported layers.
    ///
    /// # Errors
    /// [`Error::Missing`] with TensorRT-RTX; [`Error::Refused`].
    pub fn use_dla(&mut self, core: u32) -> Result<()> {
        let library = self.builder.library().clone();
        let slots = library.slots();
        if !slots.flag_gpu_fallback.exists() {
            return Err(self.missing("DLA"));
        }
        let core = i32::try_from(core)
            .map_err(|_| Error::Argument(format!("there is no DLA core {core}")))?;
        let implementation = self.object.implementation("setDLACore")?;
        // SAFETY: `void setDefaultDeviceType(DeviceType) noexcept` and `void setDLACore(int32_t)
        // noexcept`.
        unsafe {
            virtual_call!(implementation, slots.config_default_device, (i32 = DLA) -> ());
            virtual_call!(implementation, slots.config_dla_core, (i32 = core) -> ());
        }
        self.set_flag(slots.flag_gpu_fallback, true)
    }

    /// Sets the compute capabilities to build for ahead of time, such as (8, 6).
    /// TensorRT-RTX only; by default it builds for the GPU of this machine.
    ///
    /// # Errors
    /// [`Error::Missing`] with standard TensorRT; [`Error::Refused`] for a GPU that the library
    /// does not support.
    pub fn set_targets(&mut self, capabilities: &[(u32, u32)]) -> Result<()> {
        const CALL: &str = "setComputeCapability";
        let library = self.builder.library();
        let slots = library.slots();
        if !slots.config_capabilities.exists() {
            return Err(self.missing("choice of target GPUs"));
        }
        let mark = library.logger().mark();
        let implementation = self.object.implementation(CALL)?;
        let count = capabilities.len() as i32;
        // SAFETY: `bool setNbComputeCapabilities(int32_t) noexcept`.
        let mut taken = unsafe {
            virtual_call!(implementation, slots.config_capabilities, (i32 = count) -> Bool)
        }
        .yes();
        for (index, (major, minor)) in capabilities.iter().enumerate() {
            // `ComputeCapability` has the value 10 * major + minor.
            let value = i32::try_from(10 * major + minor).unwrap_or(-1);
            // SAFETY: `bool setComputeCapability(ComputeCapability, int32_t) noexcept`.
            taken &= unsafe {
                virtual_call!(implementation, slots.config_capability,
                    (i32 = value, i32 = index as i32) -> Bool)
            }
            .yes();
        }
        if taken {
            Ok(())
        } else {
            Err(library.refused(CALL, mark))
        }
    }

    /// Adds a profile and returns its index for [`crate::Context::set_profile`].
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn add_profile(&mut self, profile: &OptimizationProfile) -> Result<u32> {
        const CALL: &str = "addOptimizationProfile";
        if !Rc::ptr_eq(&self.builder, profile.builder()) {
            return Err(Error::Argument(
                "the profile comes from another builder".into(),
            ));
        }
        let library = self.builder.library();
        let mark = library.logger().mark();
        let implementation = self.object.implementation(CALL)?;
        let pointer = profile.pointer();
        // SAFETY: `int32_t addOptimizationProfile(IOptimizationProfile const*) noexcept`; the
        // builder keeps the profile alive.
        let number = unsafe {
            virtual_call!(implementation, library.slots().config_add_profile,
                (Pointer = pointer) -> i32)
        };
        let number = u32::try_from(number).map_err(|_| library.refused(CALL, mark))?;
        self.profiles.push(profile.ranges().to_vec());
        Ok(number)
    }

    /// Attaches a timing cache of earlier builds on the same GPU, or an empty one if
    /// `bytes` is empty. A cache of another GPU or version is rejected.
    ///
    /// # Errors
    /// [`Error::Refused`]: build without it.
    pub fn set_timing_cache(&mut self, bytes: &[u8]) -> Result<()> {
        const CALL: &str = "setTimingCache";
        let library = self.builder.library();
        let slots = library.slots();
        let mark = library.logger().mark();
        self.builder.bind()?;
        let implementation = self.object.implementation(CALL)?;
        let data = if bytes.is_empty() {
            std::ptr::null()
        } else {
            bytes.as_ptr().cast()
        };
        // SAFETY: `ITimingCache* createTimingCache(void const*, size_t) const noexcept`; the bytes
        // are copied.
        let pointer = unsafe {
            virtual_call!(implementation, slots.config_create_cache,
                (*const c_void = data, usize = bytes.len()) -> Pointer)
        };
        let object = Object::accept(pointer).ok_or_else(|| library.refused(CALL, mark))?;
        // SAFETY: newly created and owned; caches have the common destructor.
        let cache = unsafe { Owned::new(object, slots.object_delete) };
        // SAFETY: `bool setTimingCache(ITimingCache const&, bool ignoreMismatch) noexcept`; the
        // cache is kept until the configuration is deleted.
        let taken = unsafe {
            virtual_call!(implementation, slots.config_set_cache,
                (Pointer = cache.pointer(), bool = false) -> Bool)
        };
        if !taken.yes() {
            return Err(library.refused(CALL, mark));
        }
        self.cache = Some(cache);
        Ok(())
    }

    /// The serialized timing cache after a build, for the next one; `None` if no cache
    /// is attached.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn timing_cache(&self) -> Result<Option<HostMemory>> {
        const CALL: &str = "ITimingCache::serialize";
        let library = self.builder.library();
        let slots = library.slots();
        self.builder.bind()?;
        let mark = library.logger().mark();
        let implementation = self.object.implementation(CALL)?;
        // SAFETY: `ITimingCache const* getTimingCache() const noexcept`.
        let cache = unsafe { virtual_call!(implementation, slots.config_get_cache, () -> Pointer) };
        let Some(cache) = Object::accept(cache) else {
            return Ok(None);
        };
        // SAFETY: a live public object owned by the configuration; `IHostMemory* serialize() const
        // noexcept`.
        let pointer = unsafe {
            let implementation = cache.implementation(CALL)?;
            virtual_call!(implementation, slots.cache_serialize, () -> Pointer)
        };
        let object = Object::accept(pointer).ok_or_else(|| library.refused(CALL, mark))?;
        // SAFETY: newly created and owned.
        unsafe { HostMemory::new(object, &self.builder) }.map(Some)
    }

    /// Reports the progress of builds with this configuration to `progress`.
    ///
    /// # Errors
    /// [`Error::Missing`] for TensorRT 8, which has no progress monitor.
    pub fn set_progress(&mut self, progress: Arc<dyn Progress>) -> Result<()> {
        let slots = self.builder.library().slots();
        let monitor =
            Monitor::new(slots, progress).ok_or_else(|| self.missing("progress monitor"))?;
        let implementation = self.object.implementation("setProgressMonitor")?;
        // SAFETY: `void setProgressMonitor(IProgressMonitor*) noexcept`; the monitor is boxed, so
        // it does not move, and is dropped after the configuration.
        unsafe {
            virtual_call!(implementation, slots.config_monitor,
                (Pointer = monitor.pointer()) -> ())
        };
        self.monitor = Some(monitor);
        Ok(())
    }

    /// Checks that every profile covers every input with a dynamic dimension.
    pub(crate) fn check_profiles(&self, inputs: &[TensorInfo]) -> Result<()> {
        for input in inputs {
            let missing = || Error::NoProfile {
                input: input.to_string(),
            };
            if input.is_dynamic() && self.profiles.is_empty() {
                return Err(missing());
            }
            for profile in &self.profiles {
                match profile.iter().find(|range| range.input == input.name) {
                    Some(range) => range.check_against(input)?,
                    None if input.is_dynamic() => return Err(missing()),
                    None => {}
                }
            }
        }
        let known = |name: &str| inputs.iter().any(|input| input.name == name);
        for range in self.profiles.iter().flatten() {
            if !known(&range.input) {
                return Err(range.error("the network has no such input".into()));
            }
        }
        Ok(())
    }

    fn missing(&self, what: &'static str) -> Error {
        Error::Missing {
            version: self.builder.library().version().to_string(),
            what,
        }
    }

    fn set_flag(&mut self, flag: Slot, on: bool) -> Result<()> {
        const CALL: &str = "setFlag";
        let slots = self.builder.library().slots();
        let implementation = self.object.implementation(CALL)?;
        let change = if on {
            slots.config_set_flag
        } else {
            slots.config_clear_flag
        };
        let flag = flag.index() as i32;
        // SAFETY: `void setFlag(BuilderFlag) noexcept`, `void clearFlag(BuilderFlag) noexcept` and
        // `bool getFlag(BuilderFlag) const noexcept`, with a flag that this version has.
        let now = unsafe {
            virtual_call!(implementation, change, (i32 = flag) -> ());
            virtual_call!(implementation, slots.config_get_flag, (i32 = flag) -> Bool)
        };
        if now.yes() == on {
            return Ok(());
        }
        Err(Error::Refused {
            call: CALL,
            message: format!("flag {flag} did not change"),
        })
    }
}

impl Drop for BuilderConfig {
    fn drop(&mut self) {
        self.builder.bind_or_warn();
    }
}
