//! Calling C++ virtual functions from Rust.
//!
//! The only place where a slot number becomes a call. Under the Itanium C++ ABI (Linux on x86-64
//! and aarch64), a virtual call `object->method(arguments)` calls the function at `table[slot]`
//! with `object` as the first argument and otherwise the C calling convention. A trivially copyable
//! class larger than two words is returned through a hidden pointer, as a C struct is.

use std::ffi::c_void;
use std::ptr::NonNull;

use crate::error::{Error, Result};
use crate::version::Layout;

/// A pointer to a C++ object.
pub(crate) type Pointer = *mut c_void;

/// Lower addresses are never objects. TensorRT 10.16 and 11.4 return 0x228 from
/// `createInferRuntime_INTERNAL` if CUDA is missing.
const LOWEST: usize = 4096;

/// A public TensorRT object: its vtable pointer, then the pointer to its implementation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Object(NonNull<c_void>);

impl Object {
    /// Checks a pointer returned by a factory; `None` if it cannot be an object.
    pub(crate) fn accept(pointer: Pointer) -> Option<Object> {
        let address = pointer as usize;
        if address < LOWEST || !address.is_multiple_of(align_of::<Pointer>()) {
            return None;
        }
        NonNull::new(pointer).map(Object)
    }

    /// The object, to be passed to TensorRT by reference.
    pub(crate) fn pointer(self) -> Pointer {
        self.0.as_ptr()
    }

    /// The implementation, on which methods are called.
    ///
    /// # Safety
    /// `self` must be a live public object with an implementation pointer.
    pub(crate) unsafe fn implementation(self, call: &'static str) -> Result<Pointer> {
        // SAFETY: the caller guarantees a live public object; its second word is `mImpl` (a
        // protected member of the classes derived from `INoCopy`, in all supported versions).
        let pointer = unsafe { *self.0.as_ptr().cast::<Pointer>().add(1) };
        match Object::accept(pointer) {
            Some(_) => Ok(pointer),
            None => Err(Error::Refused {
                call,
                message:
                    "the object has no implementation: the library's layout is not as expected"
                        .into(),
            }),
        }
    }
}

/// Calls the virtual function at `slot` in the vtable of `object`:
/// `virtual_call!(object, slot, (Type = value, ...) -> Result)`.
///
/// Must be used inside `unsafe`: `object` must be live, and its vtable must have a function with
/// this signature at `slot`.
macro_rules! virtual_call {
    ($object:expr, $slot:expr, ($($type:ty = $value:expr),*) -> $result:ty) => {{
        type Function = unsafe extern "C" fn($crate::abi::Pointer $(, $type)*) -> $result;
        let object: $crate::abi::Pointer = $object;
        let table = *object.cast::<*const $crate::abi::Pointer>();
        let function: Function = std::mem::transmute::<$crate::abi::Pointer, Function>(
            *table.add($slot.index()),
        );
        function(object $(, $value)*)
    }};
}
pub(crate) use virtual_call;

/// TensorRT's maximum rank.
pub(crate) const MAX_RANK: usize = 8;

/// `nvinfer1::Dims` of TensorRT 8.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dims32 {
    rank: i32,
    extents: [i32; MAX_RANK],
}

/// `nvinfer1::Dims` since TensorRT 10.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dims64 {
    rank: i32,
    extents: [i64; MAX_RANK],
}

impl Dims64 {
    pub(crate) fn new(shape: &[i64]) -> Option<Dims64> {
        let mut extents = [0; MAX_RANK];
        extents.get_mut(..shape.len())?.copy_from_slice(shape);
        Some(Dims64 {
            rank: i32::try_from(shape.len()).ok()?,
            extents,
        })
    }

    /// The shape; `None` for rank -1, which TensorRT returns on errors.
    pub(crate) fn decode(&self) -> Option<Vec<i64>> {
        let rank = usize::try_from(self.rank).ok()?;
        Some(self.extents.get(..rank)?.to_vec())
    }
}

impl Dims32 {
    pub(crate) fn new(shape: &[i64]) -> Option<Dims32> {
        let mut extents = [0; MAX_RANK];
        for (extent, wanted) in extents.get_mut(..shape.len())?.iter_mut().zip(shape) {
            *extent = i32::try_from(*wanted).ok()?;
        }
        Some(Dims32 {
            rank: i32::try_from(shape.len()).ok()?,
            extents,
        })
    }

    /// The shape; `None` for rank -1, which TensorRT returns on errors.
    pub(crate) fn decode(&self) -> Option<Vec<i64>> {
        let rank = usize::try_from(self.rank).ok()?;
        Some(
            self.extents
                .get(..rank)?
                .iter()
                .map(|extent| i64::from(*extent))
                .collect(),
        )
    }
}

/// Calls a virtual function that returns `Dims` and decodes the result: `dims_call!(layout, object,
/// slot, (Type = value, ...))` returns `Option<Vec<i64>>`.
macro_rules! dims_call {
    ($layout:expr, $object:expr, $slot:expr, ($($type:ty = $value:expr),*)) => {{
        if $layout.dims_are_32_bit() {
            $crate::abi::virtual_call!($object, $slot, ($($type = $value),*) -> $crate::abi::Dims32).decode()
        } else {
            $crate::abi::virtual_call!($object, $slot, ($($type = $value),*) -> $crate::abi::Dims64).decode()
        }
    }};
}
pub(crate) use dims_call;

/// A shape as the `Dims` of a TensorRT version, to be passed by reference.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Dims {
    Narrow(Dims32),
    Wide(Dims64),
}

impl Dims {
    /// `None` if the rank exceeds 8 or a dimension does not fit.
    pub(crate) fn new(layout: Layout, shape: &[i64]) -> Option<Dims> {
        if layout.dims_are_32_bit() {
            Dims32::new(shape).map(Dims::Narrow)
        } else {
            Dims64::new(shape).map(Dims::Wide)
        }
    }

    /// The address of the structure, for parameters of type `Dims const&`.
    pub(crate) fn reference(&self) -> *const c_void {
        match self {
            Dims::Narrow(dims) => std::ptr::from_ref(dims).cast(),
            Dims::Wide(dims) => std::ptr::from_ref(dims).cast(),
        }
    }
}

/// A returned C++ `bool`: only the low byte is defined.
#[repr(transparent)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bool(u8);

impl Bool {
    pub(crate) fn yes(self) -> bool {
        self.0 != 0
    }
}

/// `nvinfer1::InterfaceInfo`, which our implementations of interfaces return.
#[repr(C)]
pub(crate) struct InterfaceInfo {
    pub(crate) kind: *const std::ffi::c_char,
    pub(crate) major: i32,
    pub(crate) minor: i32,
}

/// Copies a C string owned by TensorRT; `None` if it is null or not UTF-8.
///
/// # Safety
/// `text` must be null or point to a NUL-terminated string.
pub(crate) unsafe fn copy_text(text: *const std::ffi::c_char) -> Option<String> {
    if (text as usize) < LOWEST {
        return None;
    }
    // SAFETY: not null, and the caller guarantees NUL termination.
    let text = unsafe { std::ffi::CStr::from_ptr(text) };
    Some(text.to_string_lossy().into_owned())
}

/// Converts a name to a C string.
pub(crate) fn c_name(name: &str) -> Result<std::ffi::CString> {
    std::ffi::CString::new(name).map_err(|_| {
        Error::Argument(format!(
            "the name {name:?} contains a NUL character; rename it"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_that_cannot_be_objects_are_refused() {
        for address in [0usize, 1, 0x228, 4095, 0x10_0001] {
            assert_eq!(Object::accept(address as Pointer), None, "{address:#x}");
        }
        let word = 0u64;
        assert!(Object::accept(std::ptr::from_ref(&word) as Pointer).is_some());
    }

    #[test]
    fn shapes_survive_both_kinds_of_dims() {
        for shape in [vec![], vec![1], vec![1, 384, -1, 16], vec![2; 8]] {
            assert_eq!(Dims32::new(&shape).unwrap().decode(), Some(shape.clone()));
            assert_eq!(Dims64::new(&shape).unwrap().decode(), Some(shape));
        }
        assert!(Dims64::new(&[1; 9]).is_none() && Dims32::new(&[1; 9]).is_none());
        assert!(Dims32::new(&[1 << 40]).is_none() && Dims64::new(&[1 << 40]).is_some());
    }

    #[test]
    fn an_absurd_rank_from_the_library_is_not_trusted() {
        for rank in [-1, 9, i32::MIN, i32::MAX] {
            assert_eq!(
                Dims64 {
                    rank,
                    extents: [1; 8]
                }
                .decode(),
                None
            );
            assert_eq!(
                Dims32 {
                    rank,
                    extents: [1; 8]
                }
                .decode(),
                None
            );
        }
    }

    #[test]
    fn structures_have_the_size_of_their_c_plus_plus_originals() {
        assert_eq!((size_of::<Dims32>(), size_of::<Dims64>()), (36, 72));
        assert_eq!(size_of::<InterfaceInfo>(), 16);
    }
}
