//! TensorRT objects that this crate owns and deletes.

use std::sync::Arc;

use crate::abi::{Object, Pointer, virtual_call};
use crate::cuda::Device;
use crate::error::Result;
use crate::library::Library;
use crate::slots::Slot;

/// A TensorRT object that is deleted on drop. A struct that holds one also holds its dependencies,
/// in fields declared after it.
#[derive(Debug)]
pub(crate) struct Owned {
    object: Object,
    delete: Slot,
}

impl Owned {
    /// # Safety
    /// `object` must be live and owned by the caller, and `delete` must be the slot of its deleting
    /// destructor.
    pub(crate) unsafe fn new(object: Object, delete: Slot) -> Owned {
        Owned { object, delete }
    }

    /// The address of the public object, for reference parameters.
    pub(crate) fn pointer(&self) -> Pointer {
        self.object.pointer()
    }

    /// The public object.
    pub(crate) fn object(&self) -> Object {
        self.object
    }

    /// The implementation, on which methods are called. Parsers have none.
    pub(crate) fn implementation(&self, call: &'static str) -> Result<Pointer> {
        // SAFETY: live until `self` is dropped. Parsers, which have no implementation pointer, are
        // accessed only through `pointer`.
        unsafe { self.object.implementation(call) }
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: guaranteed by the caller of `new`: live, owned, and with its deleting destructor
        // at that slot.
        unsafe { virtual_call!(self.object.pointer(), self.delete, () -> ()) };
    }
}

/// The TensorRT builder, shared by all objects created from it, which keep it
/// alive.
#[derive(Debug)]
pub(crate) struct BuilderInner {
    object: Owned,
    device: Option<Arc<Device>>,
    library: Library,
}

impl BuilderInner {
    pub(crate) fn new(object: Owned, device: Option<Arc<Device>>, library: Library) -> Self {
        BuilderInner {
            object,
            device,
            library,
        }
    }

    pub(crate) fn library(&self) -> &Library {
        &self.library
    }

    /// Makes the CUDA context current and returns the implementation.
    pub(crate) fn enter(&self, call: &'static str) -> Result<Pointer> {
        self.bind()?;
        self.object.implementation(call)
    }

    pub(crate) fn bind(&self) -> Result<()> {
        self.device.as_ref().map_or(Ok(()), |device| device.bind())
    }

    /// Makes the CUDA context current before an object is deleted.
    pub(crate) fn bind_or_warn(&self) {
        if let Err(error) = self.bind() {
            log::warn!("deleting a TensorRT object without its CUDA context: {error}");
        }
    }
}

impl Drop for BuilderInner {
    fn drop(&mut self) {
        self.bind_or_warn();
    }
}
