//! A pickle interpreter that only builds data and executes nothing.
//!
//! A pickle is a program for a stack machine (documented in Python's `pickletools` module). In
//! Python it can call any function that can be imported. Here every name is looked up in a fixed
//! list ([`globals`]) when it appears. Any other name is an error, and "calling" a listed name
//! builds one of the nodes below.
//! Nodes are in one vector and refer to each other by index, so that nesting and cycles need no
//! recursion. All limits are on counts that are also bounded by the length of the pickle.

mod build;
mod globals;
mod machine;

use super::{dtype::Dtype, error::Problem, strided::Layout};
use globals::{Global, Other};

/// A value on the stack. Strings are borrowed from the pickle.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    Str(&'a str),
    Global(Global),
    /// Index of a node.
    Node(usize),
    /// A value that is not part of a tensor: a float, bytes, a date.
    Ignored,
}

/// A value that others can refer to.
#[derive(Debug)]
pub(super) enum Node<'a> {
    /// A tuple or a list.
    Sequence(Vec<Value<'a>>),
    /// Entries in insertion order; a later entry replaces an earlier one.
    Dict(Vec<(Value<'a>, Value<'a>)>),
    /// An instance of a TorchScript class, and its attributes once they are set.
    Object {
        state: Value<'a>,
    },
    Storage(Storage<'a>),
    Tensor(StoredTensor<'a>),
    /// An unsupported tensor: its kind, and its shape if known.
    Unreadable {
        what: &'static str,
        shape: Option<Vec<usize>>,
    },
}

/// A reference to a storage, which contains elements.
#[derive(Debug, Clone, Copy)]
pub(super) struct Storage<'a> {
    /// Its key in the file: in an archive, the entry's name below `data/`.
    pub key: &'a str,
    /// Element type; `None` if each tensor has its own.
    pub dtype: Option<Dtype>,
    /// Number of elements (bytes if there is no element type).
    pub len: usize,
    /// Offset of the referenced part, in elements.
    pub skip: usize,
}

/// A tensor whose elements are still in the file.
#[derive(Debug)]
pub(super) struct StoredTensor<'a> {
    pub storage: Storage<'a>,
    pub dtype: Dtype,
    pub layout: Layout,
}

/// The result of parsing a pickle.
#[derive(Debug)]
pub(super) struct Pickle<'a> {
    nodes: Vec<Node<'a>>,
    root: Value<'a>,
    len: usize,
}

impl<'a> Pickle<'a> {
    /// Interprets the pickle at the start of `bytes`.
    ///
    /// # Errors
    /// `Refused` for a name that is not on the list, `Damaged` for all other errors.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Problem> {
        let mut machine = machine::Machine::new(bytes);
        let root = machine.run()?;
        Ok(Self {
            root,
            len: machine.at(),
            nodes: machine.into_nodes(),
        })
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// All referenced storages.
    pub fn storages(&self) -> impl Iterator<Item = &Storage<'a>> {
        self.nodes.iter().filter_map(|node| match node {
            Node::Storage(storage) => Some(storage),
            _ => None,
        })
    }

    /// The items of a list or tuple.
    pub fn sequence(&self, value: Value<'a>) -> Option<&[Value<'a>]> {
        match self.node(value)? {
            Node::Sequence(items) => Some(items),
            _ => None,
        }
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
}

#[cfg(test)]
mod tests;
