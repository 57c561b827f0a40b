//! What a head is.

use std::ffi::{CStr, CString, c_char};

use loftup_bundle::HeadKind;

use crate::border::Growing;

/// What the outputs of a head are.
#[repr(i32)]
#[derive(Debug, Clone, Copy)]
pub enum loftup_head_kind {
    /// One score per class.
    Classes = 0,
    /// A short descriptor.
    Descriptors = 1,
    /// Scores that loftup_frame_depth turns into meters.
    Depth = 2,
    /// The cosine similarity with each word; negative infinity where none was found.
    Words = 3,
}

/// What a head is.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct loftup_head_info {
    /// sizeof(loftup_head_info), set by the caller.
    pub size: usize,
    /// Its name, UTF-8; empty for a head from a file.
    pub name: *const c_char,
    /// Outputs per pixel.
    pub outputs: usize,
    /// Classes or words; 0 for other kinds.
    pub classes: usize,
    /// A loftup_head_kind.
    pub kind: i32,
    /// Always 0.
    pub reserved: i32,
}

// SAFETY: `repr(C)`, the size is first, and zeros are numbers and a NULL.
unsafe impl Growing for loftup_head_info {
    const NAME: &'static str = "loftup_head_info";
}

impl loftup_head_info {
    pub(crate) fn new(name: &CStr, kind: &HeadKind) -> Self {
        let number = match kind {
            HeadKind::Classes { .. } => loftup_head_kind::Classes,
            HeadKind::Descriptors { .. } => loftup_head_kind::Descriptors,
            HeadKind::Depth { .. } => loftup_head_kind::Depth,
            HeadKind::Words { .. } => loftup_head_kind::Words,
        };
        Self {
            size: size_of::<Self>(),
            name: name.as_ptr(),
            outputs: kind.outputs(),
            classes: kind.class_names().map_or(0, <[String]>::len),
            kind: number as i32,
            reserved: 0,
        }
    }
}

/// A name for C.
pub(crate) fn name_of(name: &str) -> CString {
    CString::new(name.replace('\0', "?")).unwrap_or_default()
}
