//! Builds the result of "calling" an allowed name.

use super::{Global, Node, Other, Problem, Storage, StoredTensor, Value, machine::Machine};
use crate::checkpoint::{dtype::Dtype, strided::Layout};

/// More axes than PyTorch's own kernels support.
const MAX_AXES: usize = 32;

impl<'a> Machine<'a> {
    /// The value of `function(*arguments)`.
    pub(super) fn call(
        &mut self,
        function: Value<'a>,
        arguments: Value<'a>,
    ) -> Result<Value<'a>, Problem> {
        let Value::Global(global) = function else {
            return Err(self.damaged("an object that is not a function is called"));
        };
        match global {
            Global::RebuildFromType => {
                // A tensor with attributes: the actual call is in the arguments.
                let function = self.argument(arguments, 0)?;
                match function {
                    Value::Global(
                        inner @ (Global::RebuildTensor
                        | Global::RebuildTensorV3
                        | Global::RebuildOther(_)
                        | Global::FirstArgument),
                    ) => self.build(inner, self.argument(arguments, 2)?),
                    _ => Err(self.damaged("a tensor is rebuilt by an unsuitable function")),
                }
            }
            _ => self.build(global, arguments),
        }
    }

    fn build(&mut self, global: Global, arguments: Value<'a>) -> Result<Value<'a>, Problem> {
        match global {
            Global::RebuildTensor => self.tensor(arguments, None, 6),
            Global::RebuildTensorV3 => match self.argument(arguments, 6)? {
                Value::Global(Global::Dtype(dtype)) => self.tensor(arguments, Some(dtype), 7),
                _ => Err(self.damaged("a tensor has no element type")),
            },
            Global::RebuildOther(other) => {
                let node = Node::Unreadable {
                    what: match other {
                        Other::Sparse => "is sparse",
                        Other::Meta => "was saved on the meta device, without elements",
                        Other::Quantized => "is quantized",
                        Other::Nested => "is nested",
                        Other::Subclass => "is a subclass of torch.Tensor",
                    },
                    shape: self.shape_of(other, arguments),
                };
                self.add(node)
            }
            Global::FirstArgument => self.argument(arguments, 0),
            Global::Dict => self.add(Node::Dict(Vec::new())),
            Global::ScriptClass => self.add(Node::Object { state: Value::None }),
            Global::RebuildFromType
            | Global::Storage(_)
            | Global::UntypedStorage
            | Global::Dtype(_)
            | Global::Ignored => Ok(Value::Ignored),
        }
    }

    /// The shape of an unsupported tensor, if it can be determined.
    fn shape_of(&self, other: Other, arguments: Value<'a>) -> Option<Vec<usize>> {
        let shape = match other {
            Other::Sparse => {
                let parts = self.sequence(self.argument(arguments, 1).ok()?)?;
                let shape = parts.iter().find(|part| self.sequence(**part).is_some());
                *shape?
            }
            Other::Meta => self.argument(arguments, 1).ok()?,
            Other::Quantized => self.argument(arguments, 2).ok()?,
            Other::Nested | Other::Subclass => return None,
        };
        self.sizes(shape).ok()
    }

    /// (storage, offset, shape, stride, ...), all in elements. The argument at `metadata` is absent
    /// or a dictionary that says whether the elements must be conjugated or negated.
    fn tensor(
        &mut self,
        arguments: Value<'a>,
        dtype: Option<Dtype>,
        metadata: usize,
    ) -> Result<Value<'a>, Problem> {
        let storage = match self.argument(arguments, 0)? {
            Value::Node(index) => match self.nodes.get(index) {
                Some(Node::Storage(storage)) => *storage,
                _ => return Err(self.damaged("a tensor has no storage")),
            },
            _ => return Err(self.damaged("a tensor has no storage")),
        };
        let dtype = dtype
            .or(storage.dtype)
            .ok_or_else(|| self.damaged("a tensor has no element type"))?;
        let offset = self
            .size(self.argument(arguments, 1)?)?
            .checked_add(storage.skip)
            .ok_or_else(|| self.damaged("the offset of a tensor is too large"))?;
        let shape = self.sizes(self.argument(arguments, 2)?)?;
        let stride = self.sizes(self.argument(arguments, 3)?)?;
        if shape.len() != stride.len() {
            return Err(self.damaged("a tensor has a different number of strides and axes"));
        }
        if let Ok(Value::Node(index)) = self.argument(arguments, metadata)
            && let Some(Node::Dict(entries)) = self.nodes.get(index)
            && !entries.is_empty()
        {
            return self.add(Node::Unreadable {
                what: "is a conjugated or negated view",
                shape: Some(shape),
            });
        }
        let layout = Layout {
            offset,
            shape,
            stride,
        };
        self.add(Node::Tensor(StoredTensor {
            storage,
            dtype,
            layout,
        }))
    }

    /// A persistent ID: ("storage", class, key, device, length). Before PyTorch 1.6 it may be
    /// followed by a view of the storage, (key, offset, length), or `None`.
    pub(super) fn storage(&self, id: Value<'a>) -> Result<Storage<'a>, Problem> {
        let wrong = || self.damaged("a storage reference is invalid");
        let items = self.sequence(id).ok_or_else(wrong)?;
        match *items {
            [
                Value::Str("storage"),
                Value::Global(class),
                Value::Str(key),
                _,
                len,
                ref view @ ..,
            ] => {
                let dtype = match class {
                    Global::Storage(dtype) => Some(dtype),
                    Global::UntypedStorage => None,
                    _ => return Err(wrong()),
                };
                Ok(Storage {
                    key,
                    dtype,
                    len: self.size(len)?,
                    skip: match view.first().and_then(|view| self.sequence(*view)) {
                        Some(&[_, offset, ..]) => self.size(offset)?,
                        Some(_) => return Err(wrong()),
                        None => 0,
                    },
                })
            }
            _ => Err(wrong()),
        }
    }

    fn argument(&self, arguments: Value<'a>, index: usize) -> Result<Value<'a>, Problem> {
        let items = self.sequence(arguments);
        let value = items.and_then(|items| items.get(index)).copied();
        value.ok_or_else(|| self.damaged("a function call lacks arguments"))
    }

    fn sequence(&self, value: Value<'a>) -> Option<&[Value<'a>]> {
        match value {
            Value::Node(index) => match self.nodes.get(index)? {
                Node::Sequence(items) => Some(items),
                _ => None,
            },
            _ => None,
        }
    }

    fn sizes(&self, value: Value<'a>) -> Result<Vec<usize>, Problem> {
        let items = self.sequence(value).filter(|items| items.len() <= MAX_AXES);
        let items = items
            .ok_or_else(|| self.damaged("the shape of a tensor is not a tuple or is too long"))?;
        items.iter().map(|item| self.size(*item)).collect()
    }

    fn size(&self, value: Value<'a>) -> Result<usize, Problem> {
        match value {
            Value::Int(n) => usize::try_from(n).ok(),
            _ => None,
        }
        .ok_or_else(|| self.damaged("a size is not a valid number of elements"))
    }
}
