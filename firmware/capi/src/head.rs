//! Heads.

use std::{
    ffi::{CString, c_char},
    ptr,
};

use loftup_runtime::{depth::Depth, heads::Head};

use crate::{
    border,
    head_info::{loftup_head_info, name_of},
    model::loftup_model,
    status::{guard, loftup_status},
};

/// A head with its weights.
pub struct loftup_head {
    pub(crate) head: Head,
    /// What turns its outputs into meters, if they are a depth.
    pub(crate) depth: Option<Depth>,
    name: CString,
    classes: Vec<CString>,
}

impl loftup_head {
    fn new(name: &str, head: Head) -> Self {
        let classes = head.kind().class_names().unwrap_or_default();
        Self {
            depth: Depth::of(&head),
            name: name_of(name),
            classes: classes.iter().map(|name| name_of(name)).collect(),
            head,
        }
    }
}

/// Loads a head of a bundle.
///
/// @param name  Its name.
/// @param head  Gets the head, to be freed with loftup_head_free; NULL on errors.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loftup_head_open(
    model: *const loftup_model,
    name: *const c_char,
    head: *mut *mut loftup_head,
) -> loftup_status {
    // SAFETY: as the header asks.
    guard(|| unsafe {
        border::make(head, "head", || {
            let model = border::get(model, "model")?;
            let name = border::text(name, "name")?;
            Ok(loftup_head::new(name, model.perceptor.head(name)?))
        })
    })
}

/// Loads a head from a file, such as other words made by `loftup head text --out FILE.safetensors`.
///
/// @param model  The bundle whose features it is for.
/// @param path   The file.
/// @param head   Gets the head, to be freed with loftup_head_free; NULL on errors.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loftup_head_open_file(
    model: *const loftup_model,
    path: *const c_char,
    head: *mut *mut loftup_head,
) -> loftup_status {
    // SAFETY: as the header asks.
    guard(|| unsafe {
        border::make(head, "head", || {
            let model = border::get(model, "model")?;
            let path = border::path(path, "path")?;
            Ok(loftup_head::new("", model.perceptor.head_from_file(path)?))
        })
    })
}

/// Frees a head; NULL is ignored.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loftup_head_free(head: *mut loftup_head) {
    // SAFETY: as the header asks.
    unsafe { border::free(head) }
}

/// Tells what a head is.
///
/// @param info  Gets it; info->size must be set. Its name is valid until the head is freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loftup_head_get_info(
    head: *const loftup_head,
    info: *mut loftup_head_info,
) -> loftup_status {
    // SAFETY: as the header asks.
    guard(|| unsafe {
        let head = border::get(head, "head")?;
        border::results(info, loftup_head_info::new(&head.name, head.head.kind()))
    })
}

/// Returns the name of a class or word, UTF-8, valid until the head is freed; NULL if there is none of
/// that number, such as LOFTUP_NO_CLASS.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loftup_head_class_name(
    head: *const loftup_head,
    index: usize,
) -> *const c_char {
    // SAFETY: as the header asks.
    let head = unsafe { head.as_ref() };
    let name = head.and_then(|head| head.classes.get(index));
    name.map_or(ptr::null(), |name| name.as_ptr())
}
