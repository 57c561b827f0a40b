//! Building engines.

use std::ffi::c_void;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use crate::abi::{Object, Pointer, virtual_call};
use crate::config::BuilderConfig;
use crate::cuda::Device;
use crate::diagnosis;
use crate::error::{Error, Result};
use crate::library::Library;
use crate::network::Network;
use crate::object::Owned;
use crate::profile::OptimizationProfile;

/// Turns networks into engines. Builder, configuration, networks and parsers
/// stay on the thread that made them: TensorRT shares state among them and
/// locks none of it.
#[derive(Debug)]
pub struct Builder(Rc<BuilderInner>);

/// The builder itself, kept alive by everything made with it.
#[derive(Debug)]
pub(crate) struct BuilderInner {
    object: Owned,
    device: Option<Arc<Device>>,
    library: Library,
}

impl BuilderInner {
    pub(crate) fn library(&self) -> &Library {
        &self.library
    }

    /// The implementation, with the GPU's context made current.
    pub(crate) fn enter(&self, call: &'static str) -> Result<Pointer> {
        self.bind()?;
        self.object.implementation(call)
    }

    pub(crate) fn bind(&self) -> Result<()> {
        self.device.as_ref().map_or(Ok(()), |device| device.bind())
    }

    /// Makes the GPU's context current before something is deleted.
    pub(crate) fn bind_or_warn(&self) {
        if let Err(error) = self.bind() {
            log::warn!("deleting a TensorRT object without its GPU: {error}");
        }
    }
}

impl Drop for BuilderInner {
    fn drop(&mut self) {
        self.bind_or_warn();
    }
}

impl Builder {
    /// Makes a builder that times and checks on `device`.
    ///
    /// Without a device only TensorRT-RTX can build: ahead of time, for the
    /// GPUs named in [`BuilderConfig::set_targets`].
    ///
    /// # Errors
    /// [`Error::NoCuda`] without a device unless the library is TensorRT-RTX;
    /// [`Error::Symbol`] from a lean runtime, which has no builder;
    /// [`Error::Refused`].
    pub fn new(library: &Library, device: Option<&Arc<Device>>) -> Result<Builder> {
        const CALL: &str = "createInferBuilder_INTERNAL";
        const HINT: &str = "this is a runtime without a builder; install the full TensorRT, or build the engine elsewhere";
        match device {
            Some(device) => device.bind()?,
            None if library.layout().is_rtx() => {}
            None => {
                return Err(Error::NoCuda {
                    reason: format!(
                        "{} builds engines only with a GPU; build on the robot, or ahead of time with TensorRT-RTX",
                        library.version()
                    ),
                });
            }
        }
        // SAFETY: a device exists, so CUDA works; or the library is TensorRT-RTX, whose builder
        // works without (seen with 1.4, 1.5 and 1.7).
        let object = unsafe { library.create(CALL, HINT) }?;
        // SAFETY: new and ours; builders have the common destructor.
        let object = unsafe { Owned::new(object, library.slots().object_delete) };
        let inner = BuilderInner {
            object,
            device: device.cloned(),
            library: library.clone(),
        };
        Ok(Builder(Rc::new(inner)))
    }

    /// The library.
    pub fn library(&self) -> &Library {
        &self.0.library
    }

    /// How many DLA cores there are (2 on Orin, 0 on desktop GPUs).
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Cuda`].
    pub fn dla_core_count(&self) -> Result<u32> {
        let implementation = self.0.enter("getNbDLACores")?;
        let slot = self.0.library.slots().builder_dla_cores;
        // SAFETY: `int32_t getNbDLACores() const noexcept` of a live builder.
        let count = unsafe { virtual_call!(implementation, slot, () -> i32) };
        Ok(u32::try_from(count).unwrap_or(0))
    }

    /// An empty network.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Cuda`].
    pub fn network(&self) -> Result<Network> {
        Network::new(&self.0)
    }

    /// A configuration with TensorRT's defaults.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Cuda`].
    pub fn config(&self) -> Result<BuilderConfig> {
        BuilderConfig::new(&self.0)
    }

    /// An empty optimisation profile.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Cuda`].
    pub fn profile(&self) -> Result<OptimizationProfile> {
        OptimizationProfile::new(&self.0)
    }

    /// Builds the engine and returns it as bytes to be stored and given to
    /// [`crate::Runtime::deserialize`]. Takes seconds to many minutes; see
    /// [`BuilderConfig::set_progress`].
    ///
    /// # Errors
    /// [`Error::NoProfile`], [`Error::Profile`], [`Error::WorkspaceTooSmall`],
    /// [`Error::Cancelled`], else [`Error::Build`].
    pub fn build(&self, network: &Network, config: &BuilderConfig) -> Result<HostMemory> {
        const CALL: &str = "buildSerializedNetwork";
        let strangers =
            !Rc::ptr_eq(&self.0, network.builder()) || !Rc::ptr_eq(&self.0, config.builder());
        if strangers {
            return Err(Error::Argument(
                "network and configuration must come from the builder that builds".into(),
            ));
        }
        config.check_profiles(&network.inputs()?)?;
        if let Some(monitor) = config.monitor() {
            monitor.reset();
        }
        let library = &self.0.library;
        let mark = library.logger().mark();
        let start = Instant::now();
        let implementation = self.0.enter(CALL)?;
        // SAFETY: `IHostMemory* buildSerializedNetwork(INetworkDefinition&, IBuilderConfig&)
        // noexcept`; all three are live and belong together; references are passed as addresses
        // of the public objects.
        let pointer = unsafe {
            virtual_call!(implementation, library.slots().builder_build,
                (Pointer = network.pointer(), Pointer = config.pointer()) -> Pointer)
        };
        let Some(object) = Object::accept(pointer) else {
            if config
                .monitor()
                .is_some_and(|monitor| monitor.is_cancelled())
            {
                return Err(Error::Cancelled);
            }
            let entries = library.logger().since(mark);
            return Err(diagnosis::build_failure(&entries, config.workspace()?));
        };
        // SAFETY: new and ours.
        let memory = unsafe { HostMemory::new(object, &self.0) }?;
        log::info!(
            "built an engine of {} bytes in {:.1} s",
            memory.as_slice().len(),
            start.elapsed().as_secs_f64()
        );
        Ok(memory)
    }
}

/// Bytes that TensorRT owns: a serialised engine or timing cache.
#[derive(Debug)]
pub struct HostMemory {
    data: *const u8,
    bytes: usize,
    // Deleted first: field order.
    _object: Owned,
    _builder: Rc<BuilderInner>,
}

impl HostMemory {
    /// # Safety
    /// `object` must be a live `IHostMemory` that is ours to delete.
    pub(crate) unsafe fn new(object: Object, builder: &Rc<BuilderInner>) -> Result<HostMemory> {
        const CALL: &str = "reading TensorRT's memory";
        let slots = builder.library.slots();
        // SAFETY: as promised by the caller.
        let object = unsafe { Owned::new(object, slots.object_delete) };
        let implementation = object.implementation(CALL)?;
        // SAFETY: `void* data() const noexcept` and `size_t size() const noexcept`.
        let (data, bytes) = unsafe {
            (
                virtual_call!(implementation, slots.memory_data, () -> *const c_void),
                virtual_call!(implementation, slots.memory_size, () -> usize),
            )
        };
        if data.is_null() || bytes == 0 || isize::try_from(bytes).is_err() {
            return Err(Error::Refused {
                call: CALL,
                message: format!("{bytes} bytes at {data:?}"),
            });
        }
        Ok(HostMemory {
            data: data.cast(),
            bytes,
            _object: object,
            _builder: Rc::clone(builder),
        })
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: TensorRT gave this address and length; they stay valid and unchanged until the
        // object is deleted, with `self`.
        unsafe { std::slice::from_raw_parts(self.data, self.bytes) }
    }
}
