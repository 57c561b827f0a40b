//! GPU memory and pinned host memory.

use std::ffi::c_void;
use std::sync::Arc;

use super::driver::DeviceAddress;
use super::{Device, Stream};
use crate::error::{Error, Result};

/// `CU_MEMHOSTALLOC_DEVICEMAP`: the GPU can use the memory at its own address.
const DEVICE_MAP: u32 = 2;

/// A buffer that the GPU uses: in its own memory, or pinned host memory that it shares.
#[derive(Debug)]
pub struct DeviceBuffer {
    device: Arc<Device>,
    address: DeviceAddress,
    bytes: usize,
    /// The host memory at this address, kept alive; `None` for GPU memory.
    host: Option<Arc<HostBlock>>,
}

impl DeviceBuffer {
    /// Allocates `bytes` bytes (at least one) of undefined content.
    ///
    /// # Errors
    /// [`Error::Cuda`], among others when the memory is full.
    pub fn new(device: &Arc<Device>, bytes: usize) -> Result<DeviceBuffer> {
        device.bind()?;
        let mut address = 0;
        // SAFETY: writes one address; zero bytes are not allowed.
        unsafe { device.driver().memory_alloc(&mut address, bytes.max(1)) }?;
        Ok(DeviceBuffer {
            device: Arc::clone(device),
            address,
            bytes,
            host: None,
        })
    }

    /// Whether it is pinned host memory.
    pub fn is_mapped(&self) -> bool {
        self.host.is_some()
    }

    /// Size in bytes.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether the size is zero.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    pub(crate) fn address(&self) -> *mut c_void {
        self.address as *mut c_void
    }

    pub(crate) fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// Copies `from` to the start of the buffer; blocks until it is done.
    ///
    /// # Errors
    /// [`Error::Argument`] if it does not fit; [`Error::Cuda`].
    pub fn upload(&self, from: &[u8]) -> Result<()> {
        self.check(from.len())?;
        self.device.bind()?;
        // SAFETY: both ranges are valid for `from.len()` bytes; the call returns after the copy.
        unsafe {
            self.device
                .driver()
                .upload(self.address, from.as_ptr().cast(), from.len())
        }
    }

    /// Copies the start of the buffer to `to`; blocks until it is done.
    ///
    /// # Errors
    /// [`Error::Argument`] if `to` is larger; [`Error::Cuda`].
    pub fn download(&self, to: &mut [u8]) -> Result<()> {
        self.check(to.len())?;
        self.device.bind()?;
        // SAFETY: both ranges are valid for `to.len()` bytes; the call returns after the copy.
        unsafe {
            self.device
                .driver()
                .download(to.as_mut_ptr().cast(), self.address, to.len())
        }
    }

    /// Starts a copy of the first `bytes` bytes of `from` to this buffer.
    ///
    /// # Errors
    /// [`Error::Argument`] if either is smaller; [`Error::Cuda`].
    ///
    /// # Safety
    /// Until the stream has completed the copy, `from` must not be dropped or written, and this
    /// buffer must not be dropped.
    pub unsafe fn upload_async(
        &self,
        from: &PinnedBuffer,
        bytes: usize,
        stream: &Stream,
    ) -> Result<()> {
        self.check(bytes)?;
        from.check(bytes)?;
        self.device.bind()?;
        let (to, from) = (self.address, from.0.address.cast_const());
        // SAFETY: both ranges are valid for `bytes` bytes; the caller keeps them valid.
        unsafe {
            self.device
                .driver()
                .upload_async(to, from, bytes, stream.handle())
        }
    }

    /// Starts a copy of the first `bytes` bytes of this buffer to `to`.
    ///
    /// # Errors
    /// [`Error::Argument`] if either is smaller; [`Error::Cuda`].
    ///
    /// # Safety
    /// Until the stream has completed the copy, `to` must not be dropped, read or written, and this
    /// buffer must not be dropped.
    pub unsafe fn download_async(
        &self,
        to: &mut PinnedBuffer,
        bytes: usize,
        stream: &Stream,
    ) -> Result<()> {
        self.check(bytes)?;
        to.check(bytes)?;
        self.device.bind()?;
        // SAFETY: both ranges are valid for `bytes` bytes; the caller keeps them valid.
        unsafe {
            self.device
                .driver()
                .download_async(to.0.address, self.address, bytes, stream.handle())
        }
    }

    fn check(&self, bytes: usize) -> Result<()> {
        fits(bytes, self.bytes, "GPU")
    }
}

impl Drop for DeviceBuffer {
    fn drop(&mut self) {
        if self.host.is_some() {
            return;
        }
        // SAFETY: allocated by `new`, freed once; no enqueued work still uses it, because the
        // enqueuing side holds an `Arc` of it (`Context`) or guarantees it (`upload_async`).
        let freed = self
            .device
            .bind()
            .and_then(|()| unsafe { self.device.driver().memory_free(self.address) });
        if let Err(error) = freed {
            log::warn!("freeing {} bytes of GPU memory failed: {error}", self.bytes);
        }
    }
}

/// Pinned host memory, which the GPU copies directly and concurrently with other work.
#[derive(Debug)]
pub struct PinnedBuffer(Arc<HostBlock>);

/// Allocated pinned memory.
#[derive(Debug)]
struct HostBlock {
    device: Arc<Device>,
    address: *mut c_void,
    bytes: usize,
}

// SAFETY: plain memory, accessed only through `&PinnedBuffer` and `&mut PinnedBuffer`, of which there is
// one, and by the GPU.
unsafe impl Send for HostBlock {}
// SAFETY: as above.
unsafe impl Sync for HostBlock {}

impl PinnedBuffer {
    /// Allocates `bytes` bytes, zeroed.
    ///
    /// # Errors
    /// [`Error::Cuda`], among others when the memory is full.
    pub fn new(device: &Arc<Device>, bytes: usize) -> Result<PinnedBuffer> {
        HostBlock::new(device, bytes, 0).map(|block| PinnedBuffer(Arc::new(block)))
    }

    /// Allocates `bytes` bytes, zeroed, that the GPU uses as well, through the returned buffer. Work that
    /// uses the buffer must not be pending while the host reads or writes.
    ///
    /// # Errors
    /// [`Error::Cuda`], among others when the GPU cannot use host memory.
    pub(crate) fn mapped(
        device: &Arc<Device>,
        bytes: usize,
    ) -> Result<(PinnedBuffer, DeviceBuffer)> {
        let block = Arc::new(HostBlock::new(device, bytes, DEVICE_MAP)?);
        let mut address = 0;
        // SAFETY: writes one address; the memory was just allocated with `DEVICE_MAP`; no flags.
        unsafe {
            device
                .driver()
                .host_device_address(&mut address, block.address, 0)
        }?;
        let buffer = DeviceBuffer {
            device: Arc::clone(device),
            address,
            bytes,
            host: Some(Arc::clone(&block)),
        };
        Ok((PinnedBuffer(block), buffer))
    }

    /// The bytes. Aligned for every element type, since the driver aligns to pages.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: `bytes` initialized bytes that live as long as `self`; asynchronous writers are
        // bound by the contracts of `download_async` and `mapped`.
        unsafe { std::slice::from_raw_parts(self.0.address.cast(), self.0.bytes) }
    }

    /// The bytes, mutable.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`, and `&mut self` excludes other readers: no other `PinnedBuffer`
        // has this block.
        unsafe { std::slice::from_raw_parts_mut(self.0.address.cast(), self.0.bytes) }
    }

    fn check(&self, bytes: usize) -> Result<()> {
        fits(bytes, self.0.bytes, "pinned")
    }
}

impl HostBlock {
    fn new(device: &Arc<Device>, bytes: usize, flags: u32) -> Result<HostBlock> {
        device.bind()?;
        let mut address = std::ptr::null_mut();
        // SAFETY: writes one address; zero bytes are not allowed; the flags are those of CUDA.
        unsafe {
            device
                .driver()
                .host_alloc(&mut address, bytes.max(1), flags)
        }?;
        if address.is_null() {
            return Err(Error::Argument(
                "CUDA returned no host memory; close other programs".into(),
            ));
        }
        // SAFETY: newly allocated with this many bytes.
        unsafe { address.cast::<u8>().write_bytes(0, bytes.max(1)) };
        Ok(HostBlock {
            device: Arc::clone(device),
            address,
            bytes,
        })
    }
}

impl Drop for HostBlock {
    fn drop(&mut self) {
        // SAFETY: allocated by `new`, freed once; no copy is pending (contract of the copy
        // functions), and no work that uses a mapped buffer, which keeps this block alive.
        let freed = self
            .device
            .bind()
            .and_then(|()| unsafe { self.device.driver().host_free(self.address) });
        if let Err(error) = freed {
            log::warn!(
                "freeing {} bytes of pinned memory failed: {error}",
                self.bytes
            );
        }
    }
}

fn fits(wanted: usize, there: usize, what: &str) -> Result<()> {
    if wanted <= there {
        return Ok(());
    }
    Err(Error::Argument(format!(
        "{wanted} bytes do not fit in the {what} buffer of {there} bytes; make it larger"
    )))
}
