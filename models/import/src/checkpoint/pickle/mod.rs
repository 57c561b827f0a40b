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
use globals::{Global, Other};

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
    /// A tensor that is not read: what it is, and its shape where that is known.
    Unreadable {
        what: &'static str,
        shape: Option<Vec<usize>>,
    },
}

/// A reference to a storage, which holds elements.
#[derive(Debug, Clone, Copy)]
pub(super) struct Storage<'a> {
    /// By which the file names it: in an archive the entry's name below `data/`.
    pub key: &'a str,
    /// Element type; `None` where each tensor brings its own.
    pub dtype: Option<Dtype>,
    /// Number of elements (bytes, where there is no element type).
    pub len: usize,
    /// Number of elements before the part that is meant.
    pub skip: usize,
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
    len: usize,
}

impl<'a> Pickle<'a> {
    /// Interprets the pickle that `bytes` begin with.
    ///
    /// # Errors
    /// `Refused` for a name that is not on the list, `Damaged` for anything else.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Problem> {
        let mut machine = machine::Machine::new(bytes);
        let root = machine.run()?;
        Ok(Self {
            root,
            len: machine.at(),
            nodes: machine.into_nodes(),
        })
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// All storages that are referred to.
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
