//! An execution context with its memory and stream: fill the inputs, run, read the outputs.

mod port;

use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::time::Duration;

use crate::context::Context;
use crate::cuda::{Graph, Stream};
use crate::error::{Error, Result};
use crate::runtime::Engine;
use crate::tensor::{Direction, find};

pub use port::Copied;
use port::Port;

/// Maximum time that dropping an executor, or a failed start, waits for pending work.
const DRAIN: Duration = Duration::from_secs(2);

/// Runs an engine on a stream. Memory is allocated when shapes become known, and then
/// reused; a run allocates nothing.
///
/// During a run, inputs and outputs are not accessible. A run that times out ([`Error::Timeout`])
/// is still pending: wait again, or drop the executor, which then leaks its memory instead of
/// crashing.
#[derive(Debug)]
pub struct Executor(ManuallyDrop<Parts>);

/// Fields are dropped in order.
#[derive(Debug)]
struct Parts {
    capture: Capture,
    context: Context,
    ports: Vec<Port>,
    stream: Arc<Stream>,
    /// Whether the host's and the GPU's memory of a tensor are the same.
    zero_copy: bool,
    running: bool,
    /// Whether shapes or memory changed since the last run.
    changed: bool,
    /// Whether the outputs hold the result of a run.
    complete: bool,
}

/// State of CUDA graph capture.
#[derive(Debug)]
enum Capture {
    /// Disabled, or not supported by this engine.
    Off,
    /// Enabled. TensorRT needs one regular run after every change of shape.
    Wanted { warm: bool },
    /// Captured.
    Ready(Graph),
}

impl Executor {
    /// Creates a context for `engine` on `stream`. Inputs with static shapes can be filled
    /// immediately, others after [`Executor::set_shape`].
    ///
    /// # Errors
    /// Same as [`Context::new`]; [`Error::Cuda`] when memory is full.
    pub fn new(engine: &Arc<Engine>, stream: &Arc<Stream>) -> Result<Executor> {
        let context = Context::new(engine)?;
        let mut executor = Executor(ManuallyDrop::new(Parts {
            capture: Capture::Off,
            context,
            ports: engine.tensors().iter().map(Port::new).collect(),
            stream: Arc::clone(stream),
            zero_copy: false,
            running: false,
            changed: true,
            complete: false,
        }));
        for index in 0..executor.0.ports.len() {
            let info = &executor.0.ports[index].info;
            if info.direction == Direction::Input && !info.is_dynamic() {
                executor.allocate(index)?;
            }
        }
        Ok(executor)
    }

    /// The engine.
    pub fn engine(&self) -> &Arc<Engine> {
        self.0.context.engine()
    }

    /// The stream.
    pub fn stream(&self) -> &Arc<Stream> {
        &self.0.stream
    }

    /// Selects an optimization profile. All dynamic shapes must be set again.
    ///
    /// # Errors
    /// Same as for [`Context::set_profile`].
    pub fn set_profile(&mut self, profile: u32) -> Result<()> {
        self.idle()?;
        let Parts {
            context, stream, ..
        } = &mut *self.0;
        context.set_profile(profile, stream)?;
        self.change();
        Ok(())
    }

    /// Sets the shape of an input.
    ///
    /// # Errors
    /// Same as [`Context::set_input_shape`]; [`Error::Cuda`] when memory is full.
    pub fn set_shape(&mut self, input: &str, shape: &[i64]) -> Result<()> {
        self.idle()?;
        let index = self.index(Direction::Input, input)?;
        self.0.context.set_input_shape(input, shape)?;
        self.change();
        self.allocate(index)
    }

    /// Makes `input` read the output of `from` on the GPU without a copy, now and after
    /// every later run of `from`. Both must use the same stream, which keeps them in
    /// order. Must be repeated when `from` changes shape.
    ///
    /// # Errors
    /// [`Error::Argument`] if the streams or element types differ; as
    /// [`Executor::set_shape`].
    pub fn share_input(&mut self, input: &str, from: &mut Executor, output: &str) -> Result<()> {
        self.idle()?;
        let index = self.index(Direction::Input, input)?;
        let source = from.index(Direction::Output, output)?;
        if !Arc::ptr_eq(&self.0.stream, &from.0.stream) {
            return Err(Error::Argument(format!(
                "{input} and {output} are on different streams; create both executors with the same stream"
            )));
        }
        let types = (
            self.0.ports[index].info.data_type,
            from.0.ports[source].info.data_type,
        );
        if types.0 != types.1 {
            return Err(Error::Argument(format!(
                "{input} has element type {:?}, but {output} has {:?}",
                types.0, types.1
            )));
        }
        from.idle()?;
        from.prepare()?;
        let shape = from.0.context.shape(output)?;
        self.0.context.set_input_shape(input, &shape)?;
        self.change();
        let buffer = from.0.ports[source].buffer.clone();
        let port = &mut self.0.ports[index];
        port.bytes = from.0.ports[source].bytes;
        port.buffer = buffer;
        port.host = None;
        port.on_host = false;
        let Parts { context, ports, .. } = &mut *self.0;
        ports[index].bind(context)
    }

    /// Keeps an output on the GPU, for [`Executor::share_input`].
    ///
    /// # Errors
    /// [`Error::NoTensor`].
    pub fn keep_on_device(&mut self, output: &str) -> Result<()> {
        self.idle()?;
        let index = self.index(Direction::Output, output)?;
        let port = &mut self.0.ports[index];
        port.on_host = false;
        port.host = None;
        self.change();
        Ok(())
    }

    /// Whether runs are captured as a CUDA graph and launched with one call, which saves
    /// CPU time for engines with many short kernels. Falls back to regular runs, with a
    /// warning, if the engine cannot be captured.
    ///
    /// # Errors
    /// [`Error::Argument`] while a run is pending.
    pub fn use_graph(&mut self, wanted: bool) -> Result<()> {
        self.idle()?;
        self.0.capture = if wanted {
            Capture::Wanted { warm: false }
        } else {
            Capture::Off
        };
        Ok(())
    }

    /// Whether inputs and outputs are in pinned host memory that the GPU uses directly, so that a run copies
    /// nothing. Only has an effect on a GPU that shares the memory of the CPU
    /// ([`Device::shares_host_memory`](crate::cuda::Device::shares_host_memory)); off by default. The contents
    /// of the inputs are lost.
    ///
    /// # Errors
    /// [`Error::Argument`] while a run is pending; [`Error::Cuda`].
    pub fn use_zero_copy(&mut self, wanted: bool) -> Result<()> {
        self.idle()?;
        let zero_copy = wanted && self.engine().device().shares_host_memory()?;
        if zero_copy == self.0.zero_copy {
            return Ok(());
        }
        self.0.zero_copy = zero_copy;
        self.change();
        for index in 0..self.0.ports.len() {
            let port = &self.0.ports[index];
            if port.info.direction == Direction::Input && port.host.is_some() {
                self.allocate(index)?;
            }
        }
        Ok(())
    }

    /// The bytes that a run copies at the current shapes.
    pub fn copied_per_run(&self) -> Copied {
        Copied::of(&self.0.ports)
    }

    /// Whether the next run launches a captured graph.
    pub fn is_captured(&self) -> bool {
        matches!(self.0.capture, Capture::Ready(_))
    }

    /// The bytes of an input, row-major, for writing.
    ///
    /// # Errors
    /// [`Error::Shape`] before its shape is set; [`Error::Argument`] while a
    /// run is pending or if the input is shared.
    pub fn input_mut(&mut self, input: &str) -> Result<&mut [u8]> {
        self.idle()?;
        let index = self.index(Direction::Input, input)?;
        let port = &mut self.0.ports[index];
        let bytes = port.bytes;
        match &mut port.host {
            Some(host) => Ok(&mut host.as_mut_slice()[..bytes]),
            None if !port.on_host => Err(Error::Argument(format!(
                "{input} is shared with another executor's output"
            ))),
            None => Err(Error::Shape {
                tensor: input.into(),
                message: "its shape is not set; call set_shape first".into(),
            }),
        }
    }

    /// The current shape of an input or output.
    ///
    /// # Errors
    /// Same as for [`Context::shape`].
    pub fn shape(&self, tensor: &str) -> Result<Vec<i64>> {
        self.0.context.shape(tensor)
    }

    /// Allocates and binds memory for the current shapes.
    ///
    /// # Errors
    /// [`Error::Shape`] if a shape is not set; [`Error::Cuda`] when memory is full.
    pub fn prepare(&mut self) -> Result<()> {
        self.idle()?;
        if !self.0.changed {
            return Ok(());
        }
        for index in 0..self.0.ports.len() {
            let port = &self.0.ports[index];
            if port.info.direction == Direction::Output {
                self.allocate(index)?;
            } else if port.buffer.is_none() {
                let tensor = port.info.name.clone();
                let message = "its shape is not set; call set_shape first".into();
                return Err(Error::Shape { tensor, message });
            }
        }
        self.0.changed = false;
        Ok(())
    }

    /// Enqueues a run: copies of the inputs, the engine, copies of the outputs.
    ///
    /// # Errors
    /// Same as for [`Executor::prepare`] and [`Context::enqueue`].
    pub fn start(&mut self) -> Result<()> {
        self.prepare()?;
        self.0.running = true;
        self.0.complete = false;
        let started = self.launch();
        if started.is_err() {
            // Part of it may be running and using the memory.
            let stream = Arc::clone(&self.0.stream);
            self.0.running = matches!(stream.wait(DRAIN), Err(Error::Timeout { .. }));
            if !matches!(self.0.capture, Capture::Off) {
                self.0.capture = Capture::Wanted { warm: false };
            }
        }
        started
    }

    /// Waits for the pending run, at most for `limit`.
    ///
    /// # Errors
    /// [`Error::Timeout`], after which it can be waited for again;
    /// [`Error::Cuda`] if the run failed on the GPU.
    pub fn wait(&mut self, limit: Duration) -> Result<()> {
        if !self.0.running {
            return Ok(());
        }
        let done = self.0.stream.wait(limit);
        self.0.running = matches!(done, Err(Error::Timeout { .. }));
        self.0.complete = done.is_ok();
        done
    }

    /// [`Executor::start`], then [`Executor::wait`].
    ///
    /// # Errors
    /// Errors of both.
    pub fn run(&mut self, limit: Duration) -> Result<()> {
        self.start()?;
        self.wait(limit)
    }

    /// The bytes of an output of the last run, row-major.
    ///
    /// # Errors
    /// [`Error::Argument`] before a run is complete, or if the output stays on
    /// the GPU.
    pub fn output(&self, output: &str) -> Result<&[u8]> {
        self.idle()?;
        let port = &self.0.ports[self.index(Direction::Output, output)?];
        if !self.0.complete {
            return Err(Error::Argument(format!(
                "{output} is not computed yet; call run first"
            )));
        }
        match &port.host {
            Some(host) => Ok(&host.as_slice()[..port.bytes]),
            None => Err(Error::Argument(format!("{output} stays on the GPU"))),
        }
    }

    fn idle(&self) -> Result<()> {
        if !self.0.running {
            return Ok(());
        }
        Err(Error::Argument(
            "a run is pending; wait for it first".into(),
        ))
    }

    fn index(&self, direction: Direction, name: &str) -> Result<usize> {
        find(self.engine().tensors(), direction, name)?;
        let found = self.0.ports.iter().position(|port| port.info.name == name);
        found.ok_or_else(|| Error::Argument(format!("there is no tensor {name}")))
    }

    /// Invalidates results, graph and output memory.
    fn change(&mut self) {
        self.0.changed = true;
        self.0.complete = false;
        if !matches!(self.0.capture, Capture::Off) {
            self.0.capture = Capture::Wanted { warm: false };
        }
    }

    /// Allocates memory for a tensor at its current shape; reuses memory that is large enough.
    fn allocate(&mut self, index: usize) -> Result<()> {
        let Parts {
            context,
            ports,
            zero_copy,
            ..
        } = &mut *self.0;
        ports[index].allocate(context, *zero_copy)?;
        ports[index].bind(context)
    }

    fn launch(&mut self) -> Result<()> {
        let parts = &mut *self.0;
        match &mut parts.capture {
            Capture::Ready(graph) => {
                // SAFETY: everything that it uses is kept alive by `parts`, and any change of shape
                // or memory discards the graph (`change`).
                return unsafe { graph.launch() };
            }
            Capture::Wanted { warm: true } => {
                let stream = Arc::clone(&parts.stream);
                match stream.capture(|| parts.enqueue()) {
                    Ok(graph) => {
                        parts.capture = Capture::Ready(graph);
                        return self.launch();
                    }
                    Err(error) => {
                        log::warn!(
                            "this engine cannot be captured as a CUDA graph, running it without one: {error}"
                        );
                        parts.capture = Capture::Off;
                    }
                }
            }
            Capture::Wanted { warm } => *warm = true,
            Capture::Off => {}
        }
        parts.enqueue()
    }
}

impl Parts {
    /// Enqueues input copies, the engine and output copies on the stream.
    fn enqueue(&mut self) -> Result<()> {
        let Parts {
            context,
            ports,
            stream,
            ..
        } = self;
        let inputs = |port: &&Port| port.info.direction == Direction::Input && port.is_copied();
        for port in ports.iter().filter(inputs) {
            if let (Some(buffer), Some(host)) = (&port.buffer, &port.host) {
                // SAFETY: `running` prevents access to the host memory, and `Drop` prevents freeing
                // both, until the stream is idle.
                unsafe { buffer.upload_async(host, port.bytes, stream) }?;
            }
        }
        context.enqueue(stream)?;
        let outputs =
            |port: &&mut Port| port.info.direction == Direction::Output && port.is_copied();
        for port in ports.iter_mut().filter(outputs) {
            if let (Some(buffer), Some(host)) = (&port.buffer, &mut port.host) {
                // SAFETY: as above.
                unsafe { buffer.download_async(host, port.bytes, stream) }?;
            }
        }
        Ok(())
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        if self.0.running
            && let Err(error @ Error::Timeout { .. }) = self.0.stream.wait(DRAIN)
        {
            log::error!("leaking a TensorRT context and its memory: {error}");
            return;
        }
        // SAFETY: dropped only here, and not used afterwards.
        unsafe { ManuallyDrop::drop(&mut self.0) };
    }
}
