//! Optimization profiles: the shapes that an engine supports.

use std::ffi::{c_char, c_void};
use std::rc::Rc;

use crate::abi::{self, Bool, Dims, Dims32, Object, Pointer, virtual_call};
use crate::error::{Error, Result};
use crate::object::BuilderInner;
use crate::tensor::TensorInfo;

/// The minimum, optimum and maximum shape of one input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShapeRange {
    /// Name of the input.
    pub input: String,
    /// Smallest shape used (`kMIN`).
    pub min: Vec<i64>,
    /// The shape to optimize for (`kOPT`).
    pub opt: Vec<i64>,
    /// Largest shape used (`kMAX`).
    pub max: Vec<i64>,
}

/// The input shapes that an engine supports: a range for every input with a dynamic
/// dimension.
#[derive(Debug)]
pub struct OptimizationProfile {
    object: Object,
    ranges: Vec<ShapeRange>,
    builder: Rc<BuilderInner>,
}

impl OptimizationProfile {
    pub(crate) fn new(builder: &Rc<BuilderInner>) -> Result<OptimizationProfile> {
        const CALL: &str = "createOptimizationProfile";
        let library = builder.library();
        let mark = library.logger().mark();
        let implementation = builder.enter(CALL)?;
        // SAFETY: `IOptimizationProfile* createOptimizationProfile() noexcept` of a live builder.
        let pointer = unsafe {
            virtual_call!(implementation, library.slots().builder_profile, () -> Pointer)
        };
        // The builder owns its profiles; this crate never deletes them.
        let object = Object::accept(pointer).ok_or_else(|| library.refused(CALL, mark))?;
        Ok(OptimizationProfile {
            object,
            ranges: Vec::new(),
            builder: Rc::clone(builder),
        })
    }

    pub(crate) fn builder(&self) -> &Rc<BuilderInner> {
        &self.builder
    }

    pub(crate) fn pointer(&self) -> Pointer {
        self.object.pointer()
    }

    pub(crate) fn ranges(&self) -> &[ShapeRange] {
        &self.ranges
    }

    /// Sets the range of one input.
    ///
    /// # Errors
    /// [`Error::Profile`] if the three shapes differ in rank, are not in
    /// ascending order, or TensorRT rejects them.
    pub fn set(&mut self, range: ShapeRange) -> Result<()> {
        range.check()?;
        let name = abi::c_name(&range.input)?;
        let library = self.builder.library();
        let slots = library.slots();
        // SAFETY: the profile lives as long as its builder.
        let implementation = unsafe { self.object.implementation("setDimensions") }?;
        // `OptProfileSelector`: kMIN, kOPT, kMAX.
        for (selector, shape) in [&range.min, &range.opt, &range.max].iter().enumerate() {
            let mark = library.logger().mark();
            let dims = Dims::new(library.layout(), shape)
                .ok_or_else(|| range.error(format!("the shape {shape:?} is too large")))?;
            let (name, selector) = (name.as_ptr(), selector as i32);
            // SAFETY: `bool setDimensions(char const*, OptProfileSelector, Dims)` in TensorRT 8,
            // with `Dims const&` in later versions; all noexcept.
            let set = unsafe {
                match &dims {
                    Dims::Narrow(dims) => virtual_call!(implementation, slots.profile_set,
                        (*const c_char = name, i32 = selector, Dims32 = *dims) -> Bool),
                    Dims::Wide(_) => virtual_call!(implementation, slots.profile_set,
                        (*const c_char = name, i32 = selector, *const c_void = dims.reference()) -> Bool),
                }
            };
            if !set.yes() {
                let reason = crate::diagnosis::joined(&library.logger().since(mark));
                return Err(range.error(format!("TensorRT rejected the shape {shape:?}: {reason}")));
            }
        }
        self.ranges.retain(|known| known.input != range.input);
        self.ranges.push(range);
        Ok(())
    }
}

impl ShapeRange {
    pub(crate) fn error(&self, message: String) -> Error {
        Error::Profile {
            input: self.input.clone(),
            message,
        }
    }

    /// Checks that the ranks are equal, and the dimensions ascending and not negative.
    fn check(&self) -> Result<()> {
        let ShapeRange { min, opt, max, .. } = self;
        let shapes = format!("{min:?} to {opt:?} to {max:?}");
        if min.len() != opt.len() || opt.len() != max.len() {
            return Err(self.error(format!(
                "the shapes {shapes} differ in rank; give all three the input's rank"
            )));
        }
        let ascending = min
            .iter()
            .zip(opt)
            .zip(max)
            .all(|((low, mid), high)| 0 <= *low && low <= mid && mid <= high);
        if !ascending {
            return Err(self.error(format!(
                "the shapes {shapes} must ascend in every dimension"
            )));
        }
        Ok(())
    }

    /// Checks the range against an input of the network.
    pub(crate) fn check_against(&self, input: &TensorInfo) -> Result<()> {
        if self.opt.len() != input.shape.len() {
            return Err(self.error(format!(
                "the shape {:?} does not have the rank of the input, {:?}",
                self.opt, input.shape
            )));
        }
        for (index, extent) in input.shape.iter().enumerate() {
            let fixed = *extent >= 0;
            if fixed && (self.min[index] != *extent || self.max[index] != *extent) {
                return Err(self.error(format!(
                    "dimension {index} of the input is fixed at {extent}, but the profile goes from {} to {}",
                    self.min[index], self.max[index]
                )));
            }
        }
        Ok(())
    }
}
