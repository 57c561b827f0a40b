//! Deserializing engines.

use std::ffi::{c_char, c_void};
use std::sync::Arc;

use crate::abi::{self, Bool, Object, Pointer, dims_call, virtual_call};
use crate::cuda::Device;
use crate::diagnosis;
use crate::error::{Error, Result};
use crate::library::Library;
use crate::object::Owned;
use crate::tensor::{DataType, Direction, TensorInfo, find};

/// More inputs and outputs than this indicate a wrong function table.
const MAX_TENSORS: i32 = 4096;

/// Deserializes engines.
#[derive(Debug)]
pub struct Runtime(Arc<RuntimeInner>);

/// The TensorRT runtime, kept alive by its engines.
#[derive(Debug)]
struct RuntimeInner {
    object: Owned,
    device: Arc<Device>,
    library: Library,
}

// SAFETY: NVIDIA documents deserialization and the non-modifying functions of a runtime as
// thread-safe ("Threading" in the developer guide). Functions that modify it take `&mut Runtime`
// here, and engines never call them. Every call first makes the GPU's context current on its
// thread.
unsafe impl Send for RuntimeInner {}
// SAFETY: as above.
unsafe impl Sync for RuntimeInner {}

impl Drop for RuntimeInner {
    fn drop(&mut self) {
        bind_or_warn(&self.device);
    }
}

fn bind_or_warn(device: &Device) {
    if let Err(error) = device.bind() {
        log::warn!("deleting a TensorRT object without its GPU: {error}");
    }
}

impl Runtime {
    /// Creates a runtime on `device`. A [`Device`] proves that CUDA works, which TensorRT
    /// requires.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Cuda`].
    pub fn new(library: &Library, device: &Arc<Device>) -> Result<Runtime> {
        const HINT: &str = "it is not a TensorRT runtime; install TensorRT";
        device.bind()?;
        // SAFETY: a device exists, so CUDA works.
        let object = unsafe { library.create("createInferRuntime_INTERNAL", HINT) }?;
        // SAFETY: newly created and owned; runtimes have the common destructor.
        let object = unsafe { Owned::new(object, library.slots().object_delete) };
        let inner = RuntimeInner {
            object,
            device: Arc::clone(device),
            library: library.clone(),
        };
        Ok(Runtime(Arc::new(inner)))
    }

    /// The library.
    pub fn library(&self) -> &Library {
        &self.0.library
    }

    /// Sets the number of threads that TensorRT may use.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn set_max_threads(&mut self, threads: u32) -> Result<()> {
        const CALL: &str = "setMaxThreads";
        let library = &self.0.library;
        let mark = library.logger().mark();
        let implementation = self.0.object.implementation(CALL)?;
        let threads = i32::try_from(threads).unwrap_or(i32::MAX);
        // SAFETY: `bool setMaxThreads(int32_t) noexcept`.
        let set = unsafe {
            virtual_call!(implementation, library.slots().runtime_max_threads,
                (i32 = threads) -> Bool)
        };
        if set.yes() {
            Ok(())
        } else {
            Err(library.refused(CALL, mark))
        }
    }

    /// Selects the DLA core for engines built for DLA.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn set_dla_core(&mut self, core: u32) -> Result<()> {
        let implementation = self.0.object.implementation("setDLACore")?;
        let slot = self.0.library.slots().runtime_dla_core;
        let core = i32::try_from(core).unwrap_or(i32::MAX);
        // SAFETY: `void setDLACore(int32_t) noexcept`.
        unsafe { virtual_call!(implementation, slot, (i32 = core) -> ()) };
        Ok(())
    }

    /// Deserializes an engine. TensorRT trusts these bytes: pass only files with a verified
    /// checksum.
    ///
    /// # Errors
    /// [`Error::Deserialize`], with `stale` set if the engine was built by another version or for
    /// another GPU; [`Error::Shape`] if the engine has inputs or outputs that this crate does not
    /// support.
    pub fn deserialize(&self, engine: &[u8]) -> Result<Arc<Engine>> {
        const CALL: &str = "deserializeCudaEngine";
        if engine.is_empty() {
            let message = "the engine file is empty".into();
            return Err(Error::Deserialize {
                message,
                stale: false,
            });
        }
        let library = &self.0.library;
        let slots = library.slots();
        self.0.device.bind()?;
        let mark = library.logger().mark();
        let implementation = self.0.object.implementation(CALL)?;
        // SAFETY: `ICudaEngine* deserializeCudaEngine(void const*, size_t) noexcept`; the bytes are
        // only read during the call.
        let pointer = unsafe {
            virtual_call!(implementation, slots.runtime_deserialize,
                (*const c_void = engine.as_ptr().cast(), usize = engine.len()) -> Pointer)
        };
        let object = Object::accept(pointer)
            .ok_or_else(|| diagnosis::deserialize_failure(&library.logger().since(mark)))?;
        // SAFETY: newly created and owned; engines have the common destructor.
        let object = unsafe { Owned::new(object, slots.object_delete) };
        Engine::new(object, &self.0).map(Arc::new)
    }
}

/// An engine: a network compiled for this GPU.
#[derive(Debug)]
pub struct Engine {
    object: Owned,
    tensors: Vec<TensorInfo>,
    profiles: u32,
    runtime: Arc<RuntimeInner>,
}

// SAFETY: NVIDIA documents the non-modifying functions of an engine, including the creation of
// contexts, as thread-safe; nothing here modifies an engine.
unsafe impl Send for Engine {}
// SAFETY: as above.
unsafe impl Sync for Engine {}

impl Drop for Engine {
    fn drop(&mut self) {
        bind_or_warn(&self.runtime.device);
    }
}

impl Engine {
    fn new(object: Owned, runtime: &Arc<RuntimeInner>) -> Result<Engine> {
        const CALL: &str = "reading the engine's inputs and outputs";
        let library = &runtime.library;
        let slots = library.slots();
        let implementation = object.implementation(CALL)?;
        // SAFETY: `int32_t getNbIOTensors() const noexcept`, and
        // `int32_t getNbOptimizationProfiles() const noexcept`, of a live engine.
        let (count, profiles) = unsafe {
            (
                virtual_call!(implementation, slots.engine_tensors, () -> i32),
                virtual_call!(implementation, slots.engine_profiles, () -> i32),
            )
        };
        let mut engine = Engine {
            object,
            tensors: Vec::new(),
            profiles: u32::try_from(profiles).unwrap_or(0),
            runtime: Arc::clone(runtime),
        };
        if !(1..=MAX_TENSORS).contains(&count) {
            let message = format!("the count is {count}");
            return Err(Error::Refused {
                call: CALL,
                message,
            });
        }
        for index in 0..count {
            // SAFETY: `char const* getIOTensorName(int32_t) const noexcept`, index in range; the
            // string lives as long as the engine.
            let name = unsafe {
                abi::copy_text(virtual_call!(implementation, slots.engine_tensor_name,
                    (i32 = index) -> *const c_char))
            };
            let name = name.ok_or_else(|| Error::Refused {
                call: CALL,
                message: format!("number {index} has no name"),
            })?;
            let tensor = engine.describe(name)?;
            engine.tensors.push(tensor);
        }
        Ok(engine)
    }

    fn describe(&self, tensor: String) -> Result<TensorInfo> {
        let fail = |message: String| Error::Shape {
            tensor: tensor.clone(),
            message,
        };
        let library = &self.runtime.library;
        let slots = library.slots();
        let implementation = self.object.implementation("describing a tensor")?;
        let c_name = abi::c_name(&tensor)?;
        let name = c_name.as_ptr();
        // SAFETY: `TensorIOMode getTensorIOMode(char const*)`, `DataType getTensorDataType(...)`,
        // `TensorLocation getTensorLocation(...)`, `TensorFormat getTensorFormat(...)` and `Dims
        // getTensorShape(...)`, all const noexcept; all enums are 32-bit.
        let (mode, data_type, location, format, shape) = unsafe {
            (
                virtual_call!(implementation, slots.engine_mode, (*const c_char = name) -> i32),
                virtual_call!(implementation, slots.engine_type, (*const c_char = name) -> i32),
                virtual_call!(implementation, slots.engine_location, (*const c_char = name) -> i32),
                virtual_call!(implementation, slots.engine_format, (*const c_char = name) -> i32),
                dims_call!(library.layout(), implementation, slots.engine_shape,
                    (*const c_char = name)),
            )
        };
        let direction = match mode {
            1 => Direction::Input,
            2 => Direction::Output,
            _ => return Err(fail(format!("it is neither input nor output ({mode})"))),
        };
        let data_type = DataType::from_raw(data_type)
            .ok_or_else(|| fail(format!("its element type {data_type} is not supported")))?;
        // `TensorLocation::kDEVICE`; the other value means a shape tensor on the host.
        if location != 0 {
            return Err(fail(
                "it is a shape tensor; export the graph without shape inputs".into(),
            ));
        }
        // `TensorFormat::kLINEAR`; all others are padded or interleaved.
        if format != 0 {
            return Err(fail(format!(
                "its memory format {format} is not row-major; rebuild the engine with this program"
            )));
        }
        let shape = shape.ok_or_else(|| fail("its shape is unknown".into()))?;
        Ok(TensorInfo {
            name: tensor,
            direction,
            data_type,
            shape,
        })
    }

    /// All inputs and outputs, in engine order.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The input with this name.
    ///
    /// # Errors
    /// [`Error::NoTensor`].
    pub fn input(&self, name: &str) -> Result<&TensorInfo> {
        find(&self.tensors, Direction::Input, name)
    }

    /// The output with this name.
    ///
    /// # Errors
    /// [`Error::NoTensor`].
    pub fn output(&self, name: &str) -> Result<&TensorInfo> {
        find(&self.tensors, Direction::Output, name)
    }

    /// Number of optimization profiles.
    pub fn profile_count(&self) -> u32 {
        self.profiles
    }

    /// The minimum, optimum and maximum shape of `input` in profile `profile`.
    ///
    /// # Errors
    /// [`Error::NoTensor`]; [`Error::Shape`] if there is no such profile.
    pub fn profile_shapes(&self, input: &str, profile: u32) -> Result<[Vec<i64>; 3]> {
        let info = self.input(input)?;
        let fail = || Error::Shape {
            tensor: input.into(),
            message: format!(
                "there is no profile {profile}; the engine has {}",
                self.profiles
            ),
        };
        if profile >= self.profiles {
            return Err(fail());
        }
        let library = &self.runtime.library;
        let implementation = self.object.implementation("getProfileShape")?;
        let name = abi::c_name(&info.name)?;
        let mut shapes: [Vec<i64>; 3] = Default::default();
        for (selector, shape) in shapes.iter_mut().enumerate() {
            // SAFETY: `Dims getProfileShape(char const*, int32_t, OptProfileSelector) const
            // noexcept`, with a name and a profile that the engine has.
            let dims = unsafe {
                dims_call!(library.layout(), implementation, library.slots().engine_profile_shape,
                    (*const c_char = name.as_ptr(), i32 = profile as i32, i32 = selector as i32))
            };
            *shape = dims.ok_or_else(fail)?;
        }
        Ok(shapes)
    }

    /// The GPU of the engine.
    pub fn device(&self) -> &Arc<Device> {
        &self.runtime.device
    }

    pub(crate) fn library(&self) -> &Library {
        &self.runtime.library
    }

    /// Creates the TensorRT object of an execution context.
    pub(crate) fn create_context(&self) -> Result<Owned> {
        const CALL: &str = "createExecutionContext";
        let library = self.library();
        let slots = library.slots();
        self.runtime.device.bind()?;
        let mark = library.logger().mark();
        let implementation = self.object.implementation(CALL)?;
        // SAFETY: `IExecutionContext* createExecutionContext() noexcept` in TensorRT 8, with an
        // `ExecutionContextAllocationStrategy` (0: allocate all memory immediately) in later
        // versions.
        let pointer = unsafe {
            if library.layout().dims_are_32_bit() {
                virtual_call!(implementation, slots.engine_context, () -> Pointer)
            } else {
                virtual_call!(implementation, slots.engine_context, (i32 = 0) -> Pointer)
            }
        };
        let object = Object::accept(pointer).ok_or_else(|| library.refused(CALL, mark))?;
        // SAFETY: newly created and owned; contexts have the common destructor.
        Ok(unsafe { Owned::new(object, slots.object_delete) })
    }
}
