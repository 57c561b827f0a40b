//! Building engines.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use crate::abi::{Object, Pointer, virtual_call};
use crate::config::BuilderConfig;
use crate::cuda::Device;
use crate::diagnosis;
use crate::error::{Error, Result};
use crate::host_memory::HostMemory;
use crate::library::Library;
use crate::network::Network;
use crate::object::{BuilderInner, Owned};
use crate::profile::OptimizationProfile;

/// Builds engines from networks. The builder, its configurations, networks and
/// parsers stay on the thread that created them: TensorRT shares state between
/// them without locks.
#[derive(Debug)]
pub struct Builder(Rc<BuilderInner>);

impl Builder {
    /// Creates a builder that selects kernels on `device`.
    ///
    /// Only TensorRT-RTX can build without a device: ahead of time, for the GPUs
    /// given to [`BuilderConfig::set_targets`].
    ///
    /// # Errors
    /// [`Error::NoCuda`] without a device, unless the library is TensorRT-RTX;
    /// [`Error::Symbol`] for a lean runtime, which has no builder;
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
        // works without CUDA (verified with 1.4, 1.5 and 1.7).
        let object = unsafe { library.create(CALL, HINT) }?;
        // SAFETY: newly created and owned; builders have the common destructor.
        let object = unsafe { Owned::new(object, library.slots().object_delete) };
        let inner = BuilderInner::new(object, device.cloned(), library.clone());
        Ok(Builder(Rc::new(inner)))
    }

    /// The library.
    pub fn library(&self) -> &Library {
        self.0.library()
    }

    /// Number of DLA cores (2 on Orin, 0 on desktop GPUs).
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Cuda`].
    pub fn dla_core_count(&self) -> Result<u32> {
        let implementation = self.0.enter("getNbDLACores")?;
        let slot = self.0.library().slots().builder_dla_cores;
        // SAFETY: `int32_t getNbDLACores() const noexcept` of a live builder.
        let count = unsafe { virtual_call!(implementation, slot, () -> i32) };
        Ok(u32::try_from(count).unwrap_or(0))
    }

    /// Creates an empty network.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Cuda`].
    pub fn network(&self) -> Result<Network> {
        Network::new(&self.0)
    }

    /// Creates a configuration with TensorRT's defaults.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Cuda`].
    pub fn config(&self) -> Result<BuilderConfig> {
        BuilderConfig::new(&self.0)
    }

    /// Creates an empty optimization profile.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Cuda`].
    pub fn profile(&self) -> Result<OptimizationProfile> {
        OptimizationProfile::new(&self.0)
    }

    /// Builds the engine and returns it serialized, for
    /// [`crate::Runtime::deserialize`]. Takes from seconds to many minutes; see
    /// [`BuilderConfig::set_progress`].
    ///
    /// # Errors
    /// [`Error::NoProfile`], [`Error::Profile`], [`Error::WorkspaceTooSmall`],
    /// [`Error::Cancelled`], otherwise [`Error::Build`].
    pub fn build(&self, network: &Network, config: &BuilderConfig) -> Result<HostMemory> {
        const CALL: &str = "buildSerializedNetwork";
        let foreign =
            !Rc::ptr_eq(&self.0, network.builder()) || !Rc::ptr_eq(&self.0, config.builder());
        if foreign {
            return Err(Error::Argument(
                "network and configuration must come from the same builder".into(),
            ));
        }
        config.check_profiles(&network.inputs()?)?;
        if let Some(monitor) = config.monitor() {
            monitor.reset();
        }
        let library = self.0.library();
        let mark = library.logger().mark();
        let start = Instant::now();
        let implementation = self.0.enter(CALL)?;
        // SAFETY: `IHostMemory* buildSerializedNetwork(INetworkDefinition&, IBuilderConfig&)
        // noexcept`; all three objects are live and belong to the same builder; references are
        // passed as addresses of the public objects.
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
        // SAFETY: newly created and owned.
        let memory = unsafe { HostMemory::new(object, &self.0) }?;
        log::info!(
            "built an engine of {} bytes in {:.1} s",
            memory.as_slice().len(),
            start.elapsed().as_secs_f64()
        );
        Ok(memory)
    }
}
