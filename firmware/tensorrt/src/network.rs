//! Networks and the ONNX parser that populates them.

use std::ffi::{c_char, c_void};
use std::path::Path;
use std::rc::Rc;

use crate::abi::{self, Object, Pointer, dims_call, virtual_call};
use crate::diagnosis;
use crate::error::{Error, Result};
use crate::library::Library;
use crate::object::{BuilderInner, Owned};
use crate::tensor::{DataType, Direction, TensorInfo};
use crate::version::Layout;

/// More inputs or outputs than this indicate a wrong function table.
const MAX_TENSORS: i32 = 4096;

/// A network to build. Its tensors have the types of the ONNX graph if TensorRT can
/// guarantee that ("strongly typed", from 10.0).
#[derive(Debug)]
pub struct Network {
    object: Owned,
    builder: Rc<BuilderInner>,
}

impl Network {
    pub(crate) fn new(builder: &Rc<BuilderInner>) -> Result<Network> {
        const CALL: &str = "createNetworkV2";
        let library = builder.library();
        let slots = library.slots();
        let mut flags = 0u32;
        if library.layout() == Layout::V8 {
            flags |= 1 << slots.flag_explicit_batch.index();
        }
        if slots.flag_strongly_typed.exists() {
            flags |= 1 << slots.flag_strongly_typed.index();
        }
        let mark = library.logger().mark();
        let implementation = builder.enter(CALL)?;
        // SAFETY: `INetworkDefinition* createNetworkV2(uint32_t) noexcept` of a live builder.
        let pointer = unsafe {
            virtual_call!(implementation, slots.builder_network, (u32 = flags) -> Pointer)
        };
        let object = Object::accept(pointer).ok_or_else(|| library.refused(CALL, mark))?;
        // SAFETY: newly created and owned; networks have the common destructor.
        let object = unsafe { Owned::new(object, slots.object_delete) };
        Ok(Network {
            object,
            builder: Rc::clone(builder),
        })
    }

    pub(crate) fn builder(&self) -> &Rc<BuilderInner> {
        &self.builder
    }

    pub(crate) fn pointer(&self) -> Pointer {
        self.object.pointer()
    }

    fn library(&self) -> &Library {
        self.builder.library()
    }

    /// Whether TensorRT keeps the types of the graph. Before 10.0 it does not, and the
    /// builder configuration must allow each lower precision: see
    /// [`crate::BuilderConfig::allow_lower_precision`].
    pub fn is_strongly_typed(&self) -> bool {
        self.library().slots().flag_strongly_typed.exists()
    }

    /// Number of layers.
    ///
    /// # Errors
    /// [`Error::Refused`].
    pub fn layer_count(&self) -> Result<usize> {
        let implementation = self.object.implementation("getNbLayers")?;
        let slot = self.library().slots().network_layers;
        // SAFETY: `int32_t getNbLayers() const noexcept` of a live network.
        let count = unsafe { virtual_call!(implementation, slot, () -> i32) };
        Ok(usize::try_from(count).unwrap_or(0))
    }

    /// The inputs, in graph order.
    ///
    /// # Errors
    /// [`Error::Refused`] if TensorRT returns invalid values.
    pub fn inputs(&self) -> Result<Vec<TensorInfo>> {
        self.tensors(Direction::Input)
    }

    /// The outputs, in graph order.
    ///
    /// # Errors
    /// Same as for [`Network::inputs`].
    pub fn outputs(&self) -> Result<Vec<TensorInfo>> {
        self.tensors(Direction::Output)
    }

    fn tensors(&self, direction: Direction) -> Result<Vec<TensorInfo>> {
        const CALL: &str = "reading the network's inputs and outputs";
        let slots = self.library().slots();
        let (count, get) = match direction {
            Direction::Input => (slots.network_inputs, slots.network_input),
            Direction::Output => (slots.network_outputs, slots.network_output),
        };
        let refuse = |message: String| Error::Refused {
            call: CALL,
            message,
        };
        let implementation = self.object.implementation(CALL)?;
        // SAFETY: `int32_t getNbInputs() const noexcept` (or outputs) of a live network.
        let count = unsafe { virtual_call!(implementation, count, () -> i32) };
        if !(0..=MAX_TENSORS).contains(&count) {
            return Err(refuse(format!("the count is {count}")));
        }
        let mut tensors = Vec::new();
        for index in 0..count {
            // SAFETY: `ITensor* getInput(int32_t) const noexcept` (or output), index in range.
            let pointer = unsafe { virtual_call!(implementation, get, (i32 = index) -> Pointer) };
            let tensor = Object::accept(pointer)
                .ok_or_else(|| refuse(format!("number {index} is missing")))?;
            // SAFETY: tensors are public objects that live as long as their network.
            tensors.push(unsafe { self.describe(tensor, direction) }?);
        }
        Ok(tensors)
    }

    /// # Safety
    /// `tensor` must be a live tensor of this network.
    unsafe fn describe(&self, tensor: Object, direction: Direction) -> Result<TensorInfo> {
        const CALL: &str = "reading a tensor";
        let library = self.library();
        let slots = library.slots();
        let refuse = |message: &str| Error::Refused {
            call: CALL,
            message: message.into(),
        };
        // SAFETY: the tensor is live; `char const* getName()`, `Dims getDimensions()` and
        // `DataType getType()`, all const noexcept.
        let (name, shape, data_type) = unsafe {
            let implementation = tensor.implementation(CALL)?;
            let name = virtual_call!(implementation, slots.tensor_name, () -> *const c_char);
            let shape = dims_call!(library.layout(), implementation, slots.tensor_shape, ());
            let data_type = virtual_call!(implementation, slots.tensor_type, () -> i32);
            (abi::copy_text(name), shape, data_type)
        };
        Ok(TensorInfo {
            name: name.ok_or_else(|| refuse("it has no name"))?,
            direction,
            data_type: DataType::from_raw(data_type)
                .ok_or_else(|| refuse(&format!("its element type {data_type} is unknown")))?,
            shape: shape.ok_or_else(|| refuse("its shape is unknown"))?,
        })
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.builder.bind_or_warn();
    }
}

/// TensorRT's ONNX parser and the network that it populates. The parser owns the
/// weights, so both are kept until the engine is built.
#[derive(Debug)]
pub struct OnnxParser {
    object: Owned,
    network: Network,
}

impl OnnxParser {
    /// Loads the parser that matches the network's library.
    ///
    /// # Errors
    /// [`Error::NoParser`], [`Error::Symbol`], [`Error::Refused`].
    pub fn new(network: Network) -> Result<OnnxParser> {
        let library = network.library().clone();
        let parser = library.parser()?;
        // SAFETY: the network is live, belongs to this library, and is dropped after the parser.
        let object = unsafe { parser.create(&library, network.object.object()) }?;
        // SAFETY: newly created and owned; parsers have their own destructor slot.
        let object = unsafe { Owned::new(object, library.slots().parser_delete) };
        Ok(OnnxParser { object, network })
    }

    /// Parses an ONNX model. `path` is the path of its file, needed only for models with
    /// external weights.
    ///
    /// # Errors
    /// [`Error::Parse`] with the first error's node, operator and description.
    pub fn parse(&mut self, model: &[u8], path: Option<&Path>) -> Result<()> {
        let library = self.network.library();
        let path = path
            .map(|path| abi::c_name(&path.to_string_lossy()))
            .transpose()?;
        let path = path.as_ref().map_or(std::ptr::null(), |path| path.as_ptr());
        let mark = library.logger().mark();
        // SAFETY: `bool parse(void const*, size_t, char const*) noexcept`; the bytes and the path
        // are only read during the call.
        let parsed = unsafe {
            virtual_call!(self.object.pointer(), library.slots().parser_parse,
                (*const c_void = model.as_ptr().cast(), usize = model.len(),
                 *const c_char = path) -> abi::Bool)
        };
        let errors = self.errors();
        if parsed.yes() {
            for (node, _, message) in errors {
                log::warn!(
                    "ONNX parser at {}: {message}",
                    node.as_deref().unwrap_or("the model")
                );
            }
            return self.check_outputs();
        }
        let more = errors.len().saturating_sub(1);
        Err(match errors.into_iter().next() {
            Some((node, operator, message)) => Error::Parse {
                node,
                operator,
                message,
                more,
            },
            None => Error::Parse {
                node: None,
                operator: None,
                message: diagnosis::joined(&library.logger().since(mark)),
                more: 0,
            },
        })
    }

    /// Checks that there are outputs: some parsers accept certain invalid files as models without a graph.
    fn check_outputs(&self) -> Result<()> {
        if !self.network.outputs()?.is_empty() {
            return Ok(());
        }
        let message =
            "it has no outputs: the file is empty, truncated, or not an ONNX model".into();
        Err(Error::Parse {
            node: None,
            operator: None,
            message,
            more: 0,
        })
    }

    /// Node, operator and description of each error.
    fn errors(&self) -> Vec<(Option<String>, Option<String>, String)> {
        let slots = self.network.library().slots();
        let parser = self.object.pointer();
        // SAFETY: `int getNbErrors() const noexcept` of a live parser.
        let count = unsafe { virtual_call!(parser, slots.parser_errors, () -> i32) };
        let mut errors = Vec::new();
        for index in 0..count.clamp(0, 100) {
            // SAFETY: `IParserError const* getError(int) const noexcept`, index in range.
            let pointer =
                unsafe { virtual_call!(parser, slots.parser_error, (i32 = index) -> Pointer) };
            let Some(error) = Object::accept(pointer) else {
                continue;
            };
            let error = error.pointer();
            let read = |slot: crate::slots::Slot| {
                // SAFETY: `char const* desc() const` and similar functions of an error owned by the
                // parser; the strings live as long as the parser.
                slot.exists()
                    .then(|| unsafe {
                        abi::copy_text(virtual_call!(error, slot, () -> *const c_char))
                    })
                    .flatten()
                    .filter(|text| !text.is_empty())
            };
            // SAFETY: `int node() const` of the same error.
            let number = unsafe { virtual_call!(error, slots.parser_error_node, () -> i32) };
            let operator = read(slots.parser_error_operator);
            let node = match (read(slots.parser_error_node_name), number >= 0) {
                (Some(name), _) => Some(format!("node {name}")),
                (None, true) => Some(format!("node number {number}")),
                (None, false) => None,
            };
            let node = match (node, &operator) {
                (Some(node), Some(operator)) => Some(format!("{node} ({operator})")),
                (node, _) => node,
            };
            let message = read(slots.parser_error_text).unwrap_or_default();
            errors.push((
                node,
                operator,
                diagnosis::one_line(&message, "no reason given"),
            ));
        }
        errors
    }

    /// The network parsed so far.
    pub fn network(&self) -> &Network {
        &self.network
    }
}
