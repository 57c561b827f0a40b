//! GPU memory and pinned host memory.

use std::ffi::c_void;
use std::sync::Arc;

use super::driver::DeviceAddress;
use super::{Device, Stream};
use crate::error::{Error, Result};

/// A buffer in GPU memory.
#[derive(Debug)]
pub struct DeviceBuffer {
    device: Arc<Device>,
    address: DeviceAddress,
    bytes: usize,
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
        })
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
        let (to, from) = (self.address, from.address.cast_const());
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
                .download_async(to.address, self.address, bytes, stream.handle())
        }
    }

    fn check(&self, bytes: usize) -> Result<()> {
        fits(bytes, self.bytes, "GPU")
    }
}

impl Drop for DeviceBuffer {
    fn drop(&mut self) {
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
pub struct PinnedBuffer {
    device: Arc<Device>,
    address: *mut c_void,
    bytes: usize,
}

// SAFETY: plain memory, accessed only through `&self` and `&mut self`.
unsafe impl Send for PinnedBuffer {}
// SAFETY: as above.
unsafe impl Sync for PinnedBuffer {}

impl PinnedBuffer {
    /// Allocates `bytes` bytes, zeroed.
    ///
    /// # Errors
    /// [`Error::Cuda`], among others when the memory is full.
    pub fn new(device: &Arc<Device>, bytes: usize) -> Result<PinnedBuffer> {
        device.bind()?;
        let mut address = std::ptr::null_mut();
        // SAFETY: writes one address; zero bytes are not allowed; no flags.
        unsafe { device.driver().host_alloc(&mut address, bytes.max(1), 0) }?;
        if address.is_null() {
            return Err(Error::Argument(
                "CUDA returned no host memory; close other programs".into(),
            ));
        }
        // SAFETY: newly allocated with this many bytes.
        unsafe { address.cast::<u8>().write_bytes(0, bytes.max(1)) };
        Ok(PinnedBuffer {
            device: Arc::clone(device),
            address,
            bytes,
        })
    }

    /// The bytes. Aligned for every element type, since the driver aligns to pages.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: `bytes` initialized bytes that live as long as `self`; asynchronous writers are
        // bound by the contract of `download_async`.
        unsafe { std::slice::from_raw_parts(self.address.cast(), self.bytes) }
    }

    /// The bytes, mutable.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`, and `&mut self` excludes other readers.
        unsafe { std::slice::from_raw_parts_mut(self.address.cast(), self.bytes) }
    }

    fn check(&self, bytes: usize) -> Result<()> {
        fits(bytes, self.bytes, "pinned")
    }
}

impl Drop for PinnedBuffer {
    fn drop(&mut self) {
        // SAFETY: allocated by `new`, freed once; no copy is pending (contract of the copy
        // functions).
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
