//! Execution contexts.

use std::collections::BTreeMap;
use std::ffi::{c_char, c_void};
use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::time::Duration;

use crate::abi::{self, Bool, Dims, dims_call, virtual_call};
use crate::cuda::{DeviceBuffer, Stream};
use crate::error::{Error, Result};
use crate::object::Owned;
use crate::runtime::Engine;
use crate::tensor::{Direction, TensorInfo, byte_count};

/// Maximum time that dropping a context waits for pending work. After that the context and
/// its memory are leaked, since freeing them would crash or block.
const DRAIN: Duration = Duration::from_secs(2);

/// An execution context of an engine. Several contexts of an engine can run
/// concurrently; one context runs once at a time.
#[derive(Debug)]
pub struct Context(ManuallyDrop<Inner>);

/// Fields are dropped in order: the context before the objects it refers to.
#[derive(Debug)]
struct Inner {
    object: Owned,
    bound: BTreeMap<String, Arc<DeviceBuffer>>,
    stream: Option<Arc<Stream>>,
    engine: Arc<Engine>,
}

// SAFETY: NVIDIA allows a context to be used from any thread, one at a time; every call with side
// effects takes `&mut self`. Not `Sync`: queries may compute shapes internally.
unsafe impl Send for Context {}

impl Context {
    /// Creates a context. TensorRT allocates its scratch memory immediately.
    ///
    /// # Errors
    /// [`Error::Refused`], among others when the GPU's memory is full.
    pub fn new(engine: &Arc<Engine>) -> Result<Context> {
        let object = engine.create_context()?;
        let engine = Arc::clone(engine);
        Ok(Context(ManuallyDrop::new(Inner {
            object,
            bound: BTreeMap::new(),
            stream: None,
            engine,
        })))
    }

    /// The engine.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.0.engine
    }

    /// Selects the optimization profile, and blocks until the change has taken effect.
    ///
    /// # Errors
    /// [`Error::Refused`] if there is no such profile; [`Error::Cuda`].
    pub fn set_profile(&mut self, profile: u32, stream: &Arc<Stream>) -> Result<()> {
        const CALL: &str = "setOptimizationProfileAsync";
        self.check_stream(stream)?;
        let Inner { engine, object, .. } = &*self.0;
        let library = engine.library();
        engine.device().bind()?;
        let mark = library.logger().mark();
        let implementation = object.implementation(CALL)?;
        let profile = i32::try_from(profile).unwrap_or(i32::MAX);
        // SAFETY: `bool setOptimizationProfileAsync(int32_t, cudaStream_t) noexcept`; the runtime's
        // `cudaStream_t` and the driver's `CUstream` are the same handle.
        let set = unsafe {
            virtual_call!(implementation, library.slots().context_profile,
                (i32 = profile, *mut c_void = stream.handle()) -> Bool)
        };
        if !set.yes() {
            return Err(library.refused(CALL, mark));
        }
        stream.synchronize()
    }

    /// Sets the shape of an input with dynamic dimensions.
    ///
    /// # Errors
    /// [`Error::NoTensor`]; [`Error::Shape`] for a shape outside the profile.
    pub fn set_input_shape(&mut self, name: &str, shape: &[i64]) -> Result<()> {
        let info = self.0.engine.input(name)?;
        let fail = |why: String| {
            let built = format!("it was built as {:?}", info.shape);
            Error::Shape {
                tensor: name.into(),
                message: format!("{shape:?} is not allowed: {why}; {built}"),
            }
        };
        let library = self.0.engine.library();
        let dims =
            Dims::new(library.layout(), shape).ok_or_else(|| fail("it is too large".into()))?;
        let fits = shape.len() == info.shape.len()
            && shape
                .iter()
                .zip(&info.shape)
                .all(|(wanted, built)| *wanted >= 0 && (*built < 0 || wanted == built));
        if !fits {
            return Err(fail("rank and fixed dimensions must be equal".into()));
        }
        let c_name = abi::c_name(name)?;
        self.0.engine.device().bind()?;
        let mark = library.logger().mark();
        let implementation = self.0.object.implementation("setInputShape")?;
        // SAFETY: `bool setInputShape(char const*, Dims const&) noexcept`.
        let set = unsafe {
            virtual_call!(implementation, library.slots().context_set_shape,
                (*const c_char = c_name.as_ptr(), *const c_void = dims.reference()) -> Bool)
        };
        if set.yes() {
            return Ok(());
        }
        Err(fail(crate::diagnosis::joined(
            &library.logger().since(mark),
        )))
    }

    /// The current shape of an input or output; -1 for dimensions that depend on a shape
    /// that is not set.
    ///
    /// # Errors
    /// [`Error::NoTensor`], [`Error::Shape`].
    pub fn shape(&self, name: &str) -> Result<Vec<i64>> {
        let engine = &self.0.engine;
        let known = engine.tensors().iter().any(|tensor| tensor.name == name);
        if !known {
            engine.output(name)?;
        }
        let library = engine.library();
        let c_name = abi::c_name(name)?;
        let implementation = self.0.object.implementation("getTensorShape")?;
        // SAFETY: `Dims getTensorShape(char const*) const noexcept`.
        let dims = unsafe {
            dims_call!(library.layout(), implementation, library.slots().context_shape,
                (*const c_char = c_name.as_ptr()))
        };
        dims.ok_or_else(|| Error::Shape {
            tensor: name.into(),
            message: "TensorRT does not know its shape; set the shapes of all inputs first".into(),
        })
    }

    /// Current size of an input or output, in bytes.
    ///
    /// # Errors
    /// Same as for [`Context::shape`].
    pub fn byte_count(&self, tensor: &TensorInfo) -> Result<usize> {
        byte_count(&tensor.name, &self.shape(&tensor.name)?, tensor.data_type)
    }

    /// Binds the memory of an input or output. The context keeps it alive.
    ///
    /// # Errors
    /// [`Error::NoTensor`]; [`Error::Argument`] for memory of another GPU;
    /// [`Error::Refused`].
    pub fn bind(&mut self, name: &str, buffer: &Arc<DeviceBuffer>) -> Result<()> {
        const CALL: &str = "setTensorAddress";
        self.shape_exists(name)?;
        let Inner { engine, object, .. } = &*self.0;
        if !Arc::ptr_eq(buffer.device(), engine.device()) {
            return Err(Error::Argument(format!(
                "the memory for {name} is on another GPU"
            )));
        }
        let library = engine.library();
        let c_name = abi::c_name(name)?;
        let mark = library.logger().mark();
        let implementation = object.implementation(CALL)?;
        // SAFETY: `bool setTensorAddress(char const*, void*) noexcept`; the buffer is kept, and its
        // size is checked before every run.
        let set = unsafe {
            virtual_call!(implementation, library.slots().context_address,
                (*const c_char = c_name.as_ptr(), *mut c_void = buffer.address()) -> Bool)
        };
        if !set.yes() {
            return Err(library.refused(CALL, mark));
        }
        let replaced = self.0.bound.insert(name.into(), Arc::clone(buffer));
        // Pending work may still use the previous buffer.
        if let (Some(_), Some(stream)) = (&replaced, &self.0.stream)
            && let Err(error) = stream.wait(DRAIN)
        {
            log::error!("leaking the memory of {name}: {error}");
            std::mem::forget(replaced);
        }
        Ok(())
    }

    /// Enqueues a run and returns immediately; the outputs are complete when the stream is
    /// idle.
    ///
    /// # Errors
    /// [`Error::Argument`] if a tensor has no memory or too little;
    /// [`Error::Shape`] if a shape is not set; [`Error::Refused`].
    pub fn enqueue(&mut self, stream: &Arc<Stream>) -> Result<()> {
        const CALL: &str = "enqueueV3";
        self.check_stream(stream)?;
        self.check_bound()?;
        // Set before the call: work may be pending even if it fails.
        let earlier = self.0.stream.replace(Arc::clone(stream));
        if let Some(earlier) = earlier.filter(|earlier| !Arc::ptr_eq(earlier, stream)) {
            // One run at a time, because runs share the scratch memory.
            earlier.synchronize()?;
        }
        let Inner { engine, object, .. } = &*self.0;
        let library = engine.library();
        engine.device().bind()?;
        let mark = library.logger().mark();
        let implementation = object.implementation(CALL)?;
        // SAFETY: `bool enqueueV3(cudaStream_t) noexcept`; all memory is bound, large enough, and
        // kept alive by this context until its stream is idle.
        let enqueued = unsafe {
            virtual_call!(implementation, library.slots().context_enqueue,
                (*mut c_void = stream.handle()) -> Bool)
        };
        if enqueued.yes() {
            Ok(())
        } else {
            Err(self.0.engine.library().refused(CALL, mark))
        }
    }

    fn check_stream(&self, stream: &Stream) -> Result<()> {
        if Arc::ptr_eq(stream.device(), self.0.engine.device()) {
            return Ok(());
        }
        Err(Error::Argument(
            "the stream is on another GPU than the engine".into(),
        ))
    }

    fn shape_exists(&self, name: &str) -> Result<()> {
        let engine = &self.0.engine;
        engine
            .input(name)
            .or_else(|_| engine.output(name))
            .map(|_| ())
    }

    /// Checks that every tensor has enough memory for its current shape.
    fn check_bound(&self) -> Result<()> {
        for tensor in self.0.engine.tensors() {
            let bytes = self.byte_count(tensor)?;
            let there = self.0.bound.get(&tensor.name).map(|buffer| buffer.len());
            let what = if tensor.direction == Direction::Input {
                "input"
            } else {
                "output"
            };
            match there {
                Some(there) if there >= bytes => {}
                Some(there) => {
                    return Err(Error::Argument(format!(
                        "{what} {} needs {bytes} bytes, but its buffer has {there}; bind a larger buffer",
                        tensor.name
                    )));
                }
                None => {
                    return Err(Error::Argument(format!(
                        "{what} {} has no buffer; bind one of {bytes} bytes",
                        tensor.name
                    )));
                }
            }
        }
        Ok(())
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        let idle = match &self.0.stream {
            None => Ok(()),
            Some(stream) => stream.wait(DRAIN),
        };
        // A failed stream, unlike a busy one, has no running work.
        if let Err(error @ Error::Timeout { .. }) = idle {
            log::error!("leaking a TensorRT context and its memory: {error}");
            return;
        }
        if let Err(error) = self.0.engine.device().bind() {
            log::warn!("deleting a TensorRT context without its GPU: {error}");
        }
        // SAFETY: dropped only here, and not used afterwards.
        unsafe { ManuallyDrop::drop(&mut self.0) };
    }
}
