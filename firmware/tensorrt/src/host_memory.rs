//! Memory that TensorRT allocates.

use std::ffi::c_void;
use std::rc::Rc;

use crate::abi::{Object, virtual_call};
use crate::error::{Error, Result};
use crate::object::{BuilderInner, Owned};

/// Memory that TensorRT owns: a serialized engine or timing cache.
#[derive(Debug)]
pub struct HostMemory {
    data: *const u8,
    bytes: usize,
    // Fields are dropped in order: the memory before the builder.
    _object: Owned,
    _builder: Rc<BuilderInner>,
}

impl HostMemory {
    /// # Safety
    /// `object` must be a live `IHostMemory` owned by the caller.
    pub(crate) unsafe fn new(object: Object, builder: &Rc<BuilderInner>) -> Result<HostMemory> {
        const CALL: &str = "IHostMemory::data";
        let slots = builder.library().slots();
        // SAFETY: guaranteed by the caller.
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
        // SAFETY: TensorRT returned this address and length; both are valid and the content
        // unchanged until the object is deleted together with `self`.
        unsafe { std::slice::from_raw_parts(self.data, self.bytes) }
    }
}
