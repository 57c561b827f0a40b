//! Objects of TensorRT that we own and delete.

use crate::abi::{Object, Pointer, virtual_call};
use crate::error::Result;
use crate::slots::Slot;

/// A TensorRT object that is deleted when this is dropped. Whoever holds one
/// also holds, declared after it, what the object depends on.
#[derive(Debug)]
pub(crate) struct Owned {
    object: Object,
    delete: Slot,
}

impl Owned {
    /// # Safety
    /// `object` must be live, ours to delete, and have its deleting destructor
    /// at `delete`.
    pub(crate) unsafe fn new(object: Object, delete: Slot) -> Owned {
        Owned { object, delete }
    }

    /// The public object, for parameters that are references.
    pub(crate) fn pointer(&self) -> Pointer {
        self.object.pointer()
    }

    /// The public object itself.
    pub(crate) fn object(&self) -> Object {
        self.object
    }

    /// The implementation, on which methods are called. Not for parsers.
    pub(crate) fn implementation(&self, call: &'static str) -> Result<Pointer> {
        // SAFETY: live until `self` is dropped. Parsers, which have no implementation pointer,
        // are only reached through `pointer`.
        unsafe { self.object.implementation(call) }
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: as promised to `new`: live, ours, with its deleting destructor at that slot.
        unsafe { virtual_call!(self.object.pointer(), self.delete, () -> ()) };
    }
}
