//! Streams, events and captured graphs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Device;
use super::driver::{Handle, NOT_READY};
use crate::error::{Error, Result};

/// `CU_STREAM_NON_BLOCKING`: does not wait for the default stream.
const NON_BLOCKING: u32 = 1;
/// `CU_STREAM_CAPTURE_MODE_THREAD_LOCAL`: other threads may allocate during a capture.
const THREAD_LOCAL: u32 = 1;

/// Maps "not ready" to `false`.
fn finished(result: Result<()>) -> Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(Error::Cuda {
            code: NOT_READY, ..
        }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// A queue of work for the GPU.
#[derive(Debug)]
pub struct Stream {
    device: Arc<Device>,
    handle: Handle,
}

// SAFETY: a driver handle; its functions can be called from any thread.
unsafe impl Send for Stream {}
// SAFETY: as above.
unsafe impl Sync for Stream {}

impl Stream {
    /// Creates a stream that does not wait for the default stream.
    ///
    /// # Errors
    /// [`Error::Cuda`].
    pub fn new(device: &Arc<Device>) -> Result<Arc<Stream>> {
        device.bind()?;
        let mut handle = std::ptr::null_mut();
        // SAFETY: writes one handle.
        unsafe { device.driver().stream_create(&mut handle, NON_BLOCKING) }?;
        Ok(Arc::new(Stream {
            device: Arc::clone(device),
            handle,
        }))
    }

    /// The GPU of the stream.
    pub fn device(&self) -> &Arc<Device> {
        &self.device
    }

    pub(crate) fn handle(&self) -> Handle {
        self.handle
    }

    /// Whether all work is done.
    ///
    /// # Errors
    /// [`Error::Cuda`]: also for errors of the work itself, which CUDA reports late.
    pub fn is_idle(&self) -> Result<bool> {
        self.device.bind()?;
        // SAFETY: the handle lives as long as `self`.
        finished(unsafe { self.device.driver().stream_query(self.handle) })
    }

    /// Blocks until all work is done, without a limit.
    ///
    /// # Errors
    /// [`Error::Cuda`].
    pub fn synchronize(&self) -> Result<()> {
        self.device.bind()?;
        // SAFETY: the handle lives as long as `self`.
        unsafe { self.device.driver().stream_synchronize(self.handle) }
    }

    /// Blocks until all work is done, at most for `limit`. Polls, because CUDA has no wait with a
    /// timeout: first without sleeping, then every 50 microseconds.
    ///
    /// # Errors
    /// [`Error::Timeout`]; the work continues. [`Error::Cuda`].
    pub fn wait(&self, limit: Duration) -> Result<()> {
        const SPIN: Duration = Duration::from_micros(200);
        const PAUSE: Duration = Duration::from_micros(50);
        let start = Instant::now();
        loop {
            if self.is_idle()? {
                return Ok(());
            }
            let waited = start.elapsed();
            if waited >= limit {
                return Err(Error::Timeout { after: limit });
            }
            if waited < SPIN {
                std::thread::yield_now();
            } else {
                std::thread::sleep(PAUSE.min(limit - waited));
            }
        }
    }

    /// Captures what `work` enqueues on this stream instead of running it.
    ///
    /// # Errors
    /// Errors of `work`; [`Error::Cuda`] if something in it cannot be captured.
    pub fn capture(self: &Arc<Self>, work: impl FnOnce() -> Result<()>) -> Result<Graph> {
        self.device.bind()?;
        let driver = self.device.driver();
        // SAFETY: the handle lives as long as `self`.
        unsafe { driver.capture_begin(self.handle, THREAD_LOCAL) }?;
        let done = work();
        let mut graph = std::ptr::null_mut();
        // Also if `work` fails, because the capture must end.
        // SAFETY: writes one handle, null if the capture was invalidated.
        let ended = unsafe { driver.capture_end(self.handle, &mut graph) };
        let mut executable = std::ptr::null_mut();
        let made = done.and(ended).and_then(|()| {
            // SAFETY: the graph was just captured; writes one handle.
            unsafe { driver.graph_instantiate(&mut executable, graph, 0) }
        });
        if !graph.is_null() {
            // SAFETY: created by the capture and no longer used: the executable graph is a copy.
            if let Err(error) = unsafe { driver.graph_destroy(graph) } {
                log::warn!("freeing a captured graph failed: {error}");
            }
        }
        made.map(|()| Graph {
            stream: Arc::clone(self),
            executable,
        })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: created by `new`, destroyed once; CUDA completes enqueued work on its own.
        let destroyed = self
            .device
            .bind()
            .and_then(|()| unsafe { self.device.driver().stream_destroy(self.handle) });
        if let Err(error) = destroyed {
            log::warn!("destroying a CUDA stream failed: {error}");
        }
    }
}

/// Work captured from a stream, launched with one call.
#[derive(Debug)]
pub struct Graph {
    stream: Arc<Stream>,
    executable: Handle,
}

// SAFETY: a driver handle; the driver does not allow launching a graph from two threads at the same
// time, and `launch` takes `&mut self`.
unsafe impl Send for Graph {}

impl Graph {
    /// Enqueues the captured work on the stream it was captured from.
    ///
    /// # Errors
    /// [`Error::Cuda`].
    ///
    /// # Safety
    /// All memory and all TensorRT contexts used by the captured work must live until the stream
    /// has completed it, and be in the same state as during the capture.
    pub unsafe fn launch(&mut self) -> Result<()> {
        self.stream.device.bind()?;
        // SAFETY: both handles live as long as `self`; the caller guarantees the rest.
        unsafe {
            self.stream
                .device
                .driver()
                .graph_launch(self.executable, self.stream.handle)
        }
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        let device = &self.stream.device;
        // SAFETY: created by the capture, destroyed once; CUDA completes a pending launch.
        let destroyed = device
            .bind()
            .and_then(|()| unsafe { device.driver().graph_executable_destroy(self.executable) });
        if let Err(error) = destroyed {
            log::warn!("freeing a CUDA graph failed: {error}");
        }
    }
}

/// A CUDA event, for timing.
#[derive(Debug)]
pub struct Event {
    device: Arc<Device>,
    handle: Handle,
}

// SAFETY: a driver handle; its functions can be called from any thread.
unsafe impl Send for Event {}
// SAFETY: as above.
unsafe impl Sync for Event {}

impl Event {
    /// Creates a timing event.
    ///
    /// # Errors
    /// [`Error::Cuda`].
    pub fn new(device: &Arc<Device>) -> Result<Event> {
        device.bind()?;
        let mut handle = std::ptr::null_mut();
        // SAFETY: writes one handle.
        unsafe { device.driver().event_create(&mut handle, 0) }?;
        Ok(Event {
            device: Arc::clone(device),
            handle,
        })
    }

    /// Records the event after the work enqueued so far.
    ///
    /// # Errors
    /// [`Error::Cuda`].
    pub fn record(&self, stream: &Stream) -> Result<()> {
        self.device.bind()?;
        // SAFETY: both handles are live.
        unsafe {
            self.device
                .driver()
                .event_record(self.handle, stream.handle)
        }
    }

    /// Whether the GPU has reached the event.
    ///
    /// # Errors
    /// [`Error::Cuda`].
    pub fn is_past(&self) -> Result<bool> {
        self.device.bind()?;
        // SAFETY: the handle lives as long as `self`.
        finished(unsafe { self.device.driver().event_query(self.handle) })
    }

    /// GPU time from this event to `end`; both must have been reached.
    ///
    /// # Errors
    /// [`Error::Cuda`].
    pub fn elapsed(&self, end: &Event) -> Result<Duration> {
        self.device.bind()?;
        let mut milliseconds = 0.0;
        // SAFETY: both handles are live; writes one number.
        unsafe {
            self.device
                .driver()
                .event_elapsed(&mut milliseconds, self.handle, end.handle)
        }?;
        Duration::try_from_secs_f32(milliseconds / 1000.0).map_err(|_| {
            Error::Argument(format!(
                "CUDA returned {milliseconds} ms between two events; record both first"
            ))
        })
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: created by `new`, destroyed once.
        let destroyed = self
            .device
            .bind()
            .and_then(|()| unsafe { self.device.driver().event_destroy(self.handle) });
        if let Err(error) = destroyed {
            log::warn!("freeing a CUDA event failed: {error}");
        }
    }
}
