//! What comes from C and goes back: pointers, strings, buffers, and structs that grow.

use std::{
    ffi::{CStr, OsStr, c_char},
    mem::size_of,
    os::unix::ffi::OsStrExt,
    path::Path,
    ptr, slice,
};

use crate::status::{Error, Result, loftup_status};

fn null(name: &str) -> Error {
    Error::argument(format!("{name} is NULL"))
}

/// A handle or a struct.
///
/// # Safety
/// `pointer` is NULL or valid for reads as long as the result is used.
pub(crate) unsafe fn get<'a, T>(pointer: *const T, name: &str) -> Result<&'a T> {
    // SAFETY: the caller's promise.
    unsafe { pointer.as_ref() }.ok_or_else(|| null(name))
}

/// Writes a result.
///
/// # Safety
/// `pointer` is NULL or valid for a write.
pub(crate) unsafe fn set<T>(pointer: *mut T, value: T, name: &str) -> Result<()> {
    if pointer.is_null() {
        return Err(null(name));
    }
    // SAFETY: not NULL, and otherwise the caller's promise. What is there is not dropped: it may never
    // have been written.
    unsafe { pointer.write(value) };
    Ok(())
}

/// Makes a handle: first it checks that there is a place for it, then calls `make`. On errors the place
/// gets NULL.
///
/// # Safety
/// `place` is NULL or valid for a write.
pub(crate) unsafe fn make<T>(
    place: *mut *mut T,
    name: &str,
    make: impl FnOnce() -> Result<T>,
) -> Result<()> {
    // SAFETY: the caller's promise.
    unsafe { set(place, ptr::null_mut(), name) }?;
    let handle = Box::into_raw(Box::new(make()?));
    // SAFETY: as above.
    unsafe { set(place, handle, name) }
}

/// Frees a handle; NULL is ignored.
///
/// # Safety
/// `handle` is NULL, or from [`make`] and not used afterwards.
pub(crate) unsafe fn free<T>(handle: *mut T) {
    if !handle.is_null() {
        crate::status::guard(|| {
            // SAFETY: from `Box::into_raw`, and the caller's promise.
            drop(unsafe { Box::from_raw(handle) });
            Ok(())
        });
    }
}

/// A string of UTF-8.
///
/// # Safety
/// `text` is NULL, or ends with a zero and does not change as long as the result is used.
pub(crate) unsafe fn text<'a>(text: *const c_char, name: &str) -> Result<&'a str> {
    // SAFETY: the caller's promise.
    let bytes = unsafe { bytes(text, name) }?;
    std::str::from_utf8(bytes).map_err(|_| Error::argument(format!("{name} is not UTF-8")))
}

/// A path.
///
/// # Safety
/// As for [`text`].
pub(crate) unsafe fn path<'a>(path: *const c_char, name: &str) -> Result<&'a Path> {
    // SAFETY: the caller's promise.
    let bytes = unsafe { bytes(path, name) }?;
    if bytes.is_empty() {
        return Err(Error::argument(format!("{name} is empty")));
    }
    Ok(Path::new(OsStr::from_bytes(bytes)))
}

unsafe fn bytes<'a>(text: *const c_char, name: &str) -> Result<&'a [u8]> {
    if text.is_null() {
        return Err(null(name));
    }
    // SAFETY: not NULL, and otherwise the promise of the caller of `text` or `path`.
    Ok(unsafe { CStr::from_ptr(text) }.to_bytes())
}

/// Whether a buffer of `len` elements can be one: not NULL, aligned, and not too long for Rust.
fn check_buffer<T>(buffer: *const T, len: usize, name: &str) -> Result<()> {
    if buffer.is_null() {
        return Err(null(name));
    }
    if !buffer.is_aligned() {
        return Err(Error::argument(format!(
            "{name} is not aligned to {} bytes",
            align_of::<T>()
        )));
    }
    let bytes = len.checked_mul(size_of::<T>());
    if bytes.is_none_or(|n| isize::try_from(n).is_err()) {
        let what = format!("{name}: a length of {len} is not possible");
        return Err(Error::argument(what));
    }
    Ok(())
}

/// A buffer that is read. NULL is one without elements if `len` is 0.
///
/// # Safety
/// `buffer` is NULL or valid for reads of `len` elements, which do not change as long as the result is
/// used.
pub(crate) unsafe fn input<'a, T>(buffer: *const T, len: usize, name: &str) -> Result<&'a [T]> {
    if len == 0 {
        return Ok(&[]);
    }
    check_buffer(buffer, len, name)?;
    // SAFETY: checked, and otherwise the caller's promise.
    Ok(unsafe { slice::from_raw_parts(buffer, len) })
}

/// The first `needed` elements of a buffer that is written. `needed` is `None` if it cannot be counted.
///
/// # Safety
/// `buffer` is NULL or valid for writes of `len` elements, and nothing else uses it as long as the
/// result is used.
pub(crate) unsafe fn output<'a, T: Copy>(
    (buffer, len): (*mut T, usize),
    needed: Option<usize>,
    name: &str,
) -> Result<&'a mut [T]> {
    check_buffer(buffer, len, name)?;
    let Some(needed) = needed.filter(|n| *n <= len) else {
        let needed = needed.map_or("more than can be counted".into(), |n| n.to_string());
        return Err(Error::new(
            loftup_status::BufferTooShort,
            format!("{name}: a length of {len}, needed {needed}"),
        ));
    };
    // SAFETY: checked, and otherwise the caller's promise.
    Ok(unsafe { slice::from_raw_parts_mut(buffer, needed) })
}

/// A struct that begins with its size, as the caller knows it, so that it can grow.
///
/// # Safety
/// It is `repr(C)`, its first field is a `usize`, and zeros are a valid value of it.
pub(crate) unsafe trait Growing: Copy {
    /// Its name in C.
    const NAME: &'static str;
}

/// More than any struct will ever have: a size above it was never set.
const MOST: usize = 4096;

fn check_size<T: Growing>(size: usize) -> Result<()> {
    if (size_of::<usize>()..=MOST).contains(&size) {
        return Ok(());
    }
    Err(Error::argument(format!(
        "{name}.size is {size}: set it to sizeof({name})",
        name = T::NAME
    )))
}

/// Reads a struct of options. What the caller's version does not have is 0, and so the default. What
/// this version does not have must be 0.
///
/// # Safety
/// `from` is NULL, or valid for reads of as many bytes as its first field says.
pub(crate) unsafe fn options<T: Growing>(from: *const T) -> Result<T> {
    // SAFETY: zeros are valid, by the trait.
    let mut value: T = unsafe { std::mem::zeroed() };
    if from.is_null() {
        return Ok(value);
    }
    // SAFETY: the first field is there in every version.
    let size = unsafe { from.cast::<usize>().read() };
    check_size::<T>(size)?;
    // SAFETY: the caller's promise for `size` bytes.
    let bytes = unsafe { slice::from_raw_parts(from.cast::<u8>(), size) };
    if bytes.iter().skip(size_of::<T>()).any(|b| *b != 0) {
        return Err(Error::argument(format!(
            "{} has options that this version of the library does not know",
            T::NAME
        )));
    }
    // SAFETY: at most as many bytes as either has; all fields are plain numbers or pointers.
    unsafe {
        ptr::copy_nonoverlapping(
            bytes.as_ptr(),
            ptr::from_mut(&mut value).cast(),
            size.min(size_of::<T>()),
        );
    }
    Ok(value)
}

/// Writes a struct of results: as much as the caller's version has. Its size stays.
///
/// # Safety
/// `to` is NULL, or valid for writes of as many bytes as its first field says.
pub(crate) unsafe fn results<T: Growing>(to: *mut T, value: T) -> Result<()> {
    // SAFETY: the caller's promise.
    unsafe { get(to.cast_const().cast::<usize>(), T::NAME) }?;
    // SAFETY: not NULL, and the first field is there in every version.
    let size = unsafe { to.cast::<usize>().read() };
    check_size::<T>(size)?;
    let first = size_of::<usize>();
    let count = size.min(size_of::<T>()) - first;
    // SAFETY: at most as many bytes as either has.
    unsafe {
        ptr::copy_nonoverlapping(
            ptr::from_ref(&value).cast::<u8>().add(first),
            to.cast::<u8>().add(first),
            count,
        );
    }
    Ok(())
}

/// One of a set of named numbers.
pub(crate) fn choice<T: Copy>(number: i32, of: &[(i32, T)], name: &str) -> Result<T> {
    let found = of.iter().find(|(n, _)| *n == number);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let known: Vec<String> = of.iter().map(|(n, _)| n.to_string()).collect();
        Error::argument(format!(
            "{name} is {number}, not one of {}",
            known.join(", ")
        ))
    })
}

/// Writes a string to a field of fixed length, cut to what fits.
pub(crate) fn copy_text(text: &str, to: &mut [c_char]) {
    let mut end = text.len().min(to.len() - 1);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let bytes = text.as_bytes()[..end].iter().chain(std::iter::repeat(&0));
    for (to, byte) in to.iter_mut().zip(bytes) {
        *to = *byte as c_char;
    }
}

#[cfg(test)]
mod tests;
