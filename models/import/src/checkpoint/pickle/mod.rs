//! A pickle interpreter that builds data and runs nothing.
//!
//! A pickle is a program for a stack machine (Python's `pickletools` module documents it). In
//! Python it may call any function that can be imported. Here a name is looked up in a fixed list
//! ([`globals`]) the moment it appears, anything else ends the reading, and "calling" one of the
//! listed names builds a node of the kinds below.
//!
//! Nodes live in one vector and refer to each other by index, so that neither nesting nor cycles
//! cost recursion. All limits are on counts that the pickle's own length bounds as well.

mod build;
mod globals;
mod machine;

use super::{dtype::Dtype, error::Problem, strided::Layout};
use globals::Global;

/// A value on the stack. Strings point into the pickle.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    Str(&'a str),
    Global(Global),
    /// Index of a node.
    Node(usize),
    /// Something that no tensor is made of: a float, bytes, a date.
    Ignored,
}

/// A value that others refer to.
#[derive(Debug)]
pub(super) enum Node<'a> {
    /// A tuple or a list.
    Sequence(Vec<Value<'a>>),
    /// Entries in the order in which they were set; a later one replaces an earlier one.
    Dict(Vec<(Value<'a>, Value<'a>)>),
    /// An instance of a TorchScript class, and its attributes once they are known.
    Object {
        state: Value<'a>,
    },
    Storage(Storage<'a>),
    Tensor(StoredTensor<'a>),
}

/// A reference to an archive entry that holds elements.
#[derive(Debug, Clone, Copy)]
pub(super) struct Storage<'a> {
    /// Name of the entry, below `data/`.
    pub key: &'a str,
    /// Element type; `None` where each tensor brings its own.
    pub dtype: Option<Dtype>,
    /// Number of elements (bytes, where there is no element type).
    pub len: usize,
}

/// A tensor whose elements are still in the archive.
#[derive(Debug)]
pub(super) struct StoredTensor<'a> {
    pub storage: Storage<'a>,
    pub dtype: Dtype,
    pub layout: Layout,
}

/// What a pickle describes.
#[derive(Debug)]
pub(super) struct Pickle<'a> {
    nodes: Vec<Node<'a>>,
    root: Value<'a>,
}

impl<'a> Pickle<'a> {
    /// Interprets a whole pickle.
    ///
    /// # Errors
    /// `Refused` for a name that is not on the list, `Damaged` for anything else.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Problem> {
        let mut machine = machine::Machine::new(bytes);
        let root = machine.run()?;
        Ok(Self {
            nodes: machine.into_nodes(),
            root,
        })
    }

    /// The object that was pickled.
    pub fn root(&self) -> Value<'a> {
        self.root
    }

    /// The node that a value refers to.
    pub fn node(&self, value: Value<'a>) -> Option<&Node<'a>> {
        match value {
            Value::Node(index) => self.nodes.get(index),
            _ => None,
        }
    }

    /// The entries of a dictionary.
    pub fn dict(&self, value: Value<'a>) -> Option<&[(Value<'a>, Value<'a>)]> {
        match self.node(value)? {
            Node::Dict(entries) => Some(entries),
            _ => None,
        }
    }

    /// The tensor that a value is.
    pub fn tensor(&self, value: Value<'a>) -> Option<&StoredTensor<'a>> {
        match self.node(value)? {
            Node::Tensor(tensor) => Some(tensor),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
