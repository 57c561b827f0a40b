//! The stack machine: opcodes, stack, memo.

use std::collections::HashMap;

use super::{Node, Problem, Value, globals};
use crate::checkpoint::error::printable;

/// Limits far above what real checkpoints need.
const MAX_STACK: usize = 1 << 20;
const MAX_MARKS: usize = 4096;
const MAX_NODES: usize = 1 << 22;
const MAX_MEMO: usize = 1 << 22;

pub(super) struct Machine<'a> {
    input: &'a [u8],
    at: usize,
    stack: Vec<Value<'a>>,
    /// Stack heights of the MARKs.
    marks: Vec<usize>,
    memo: HashMap<usize, Value<'a>>,
    pub(super) nodes: Vec<Node<'a>>,
    /// Maximum number of sizes and strides in all nodes. A tensor takes more bytes of the pickle
    /// than it has of these, unless a malicious file reuses the same tuples to exhaust memory.
    extents: usize,
}

impl<'a> Machine<'a> {
    pub fn new(input: &'a [u8]) -> Self {
        Self {
            input,
            at: 0,
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            nodes: Vec::new(),
            extents: 0,
        }
    }

    /// Bytes read.
    pub fn at(&self) -> usize {
        self.at
    }

    pub fn into_nodes(self) -> Vec<Node<'a>> {
        self.nodes
    }

    /// Runs until the STOP opcode.
    pub fn run(&mut self) -> Result<Value<'a>, Problem> {
        loop {
            let at = self.at;
            let opcode = self.byte()?;
            if opcode == b'.' {
                return self.pop();
            }
            self.step(opcode, at)?;
            if self.stack.len() > MAX_STACK || self.marks.len() > MAX_MARKS {
                return Err(self.damaged("its stack is too large"));
            }
        }
    }

    fn step(&mut self, opcode: u8, at: usize) -> Result<(), Problem> {
        match opcode {
            // Framing. Frames only control read-ahead.
            0x80 => match self.byte()? {
                2..=5 => {}
                other => return Err(self.damaged(format!("unknown pickle protocol {other}"))),
            },
            0x95 => drop(self.take(8)?),

            // Constants.
            b'N' => self.push(Value::None),
            0x88 => self.push(Value::Bool(true)),
            0x89 => self.push(Value::Bool(false)),
            b'K' => {
                let n = self.byte()?;
                self.push(Value::Int(n.into()));
            }
            b'M' => {
                let n = u16::from_le_bytes(self.array()?);
                self.push(Value::Int(n.into()));
            }
            b'J' => {
                let n = i32::from_le_bytes(self.array()?);
                self.push(Value::Int(n.into()));
            }
            b'I' => {
                let line = self.line()?;
                let value = match line {
                    "00" => Value::Bool(false),
                    "01" => Value::Bool(true),
                    _ => line.parse().map(Value::Int).unwrap_or(Value::Ignored),
                };
                self.push(value);
            }
            0x8a => {
                let n = self.byte()?.into();
                self.long(n)?;
            }
            0x8b => {
                let n = self.length4()?;
                self.long(n)?;
            }
            b'G' => {
                self.take(8)?;
                self.push(Value::Ignored);
            }

            // Text and bytes. Python 2 text can have any encoding.
            0x8c | b'X' | 0x8d => {
                let n = match opcode {
                    0x8c => self.byte()?.into(),
                    b'X' => self.length4()?,
                    _ => self.length8()?,
                };
                let text = std::str::from_utf8(self.take(n)?)
                    .map_err(|_| self.damaged("a string is not UTF-8"))?;
                self.push(Value::Str(text));
            }
            b'U' | b'T' => {
                let n = if opcode == b'U' {
                    self.byte()?.into()
                } else {
                    self.length4()?
                };
                let text = std::str::from_utf8(self.take(n)?);
                self.push(text.map_or(Value::Ignored, Value::Str));
            }
            b'C' | b'B' | 0x8e | 0x96 => {
                let n = match opcode {
                    b'C' => self.byte()?.into(),
                    b'B' => self.length4()?,
                    _ => self.length8()?,
                };
                self.take(n)?;
                self.push(Value::Ignored);
            }

            // Stack and memo.
            b'(' => self.marks.push(self.stack.len()),
            b'0' => {
                if self.marks.last() == Some(&self.stack.len()) {
                    self.marks.pop();
                } else {
                    self.pop()?;
                }
            }
            b'1' => drop(self.pop_mark()?),
            b'2' => {
                let top = self.top()?;
                self.push(top);
            }
            b'q' | b'r' | 0x94 => {
                let index = match opcode {
                    b'q' => self.byte()?.into(),
                    b'r' => self.length4()?,
                    _ => self.memo.len(),
                };
                if index >= MAX_MEMO || index > self.input.len() {
                    return Err(self.damaged(format!("memo index {index} is too large")));
                }
                let top = self.top()?;
                self.memo.insert(index, top);
            }
            b'h' | b'j' => {
                let index = if opcode == b'h' {
                    self.byte()?.into()
                } else {
                    self.length4()?
                };
                let value = self.memo.get(&index).copied();
                let value = value
                    .ok_or_else(|| self.damaged(format!("memo entry {index} does not exist")))?;
                self.push(value);
            }

            // Containers.
            b')' | b']' | 0x8f => self.push_node(Node::Sequence(Vec::new()))?,
            b'}' => self.push_node(Node::Dict(Vec::new()))?,
            0x85..=0x87 => {
                let n = usize::from(opcode - 0x84);
                let from = self
                    .stack
                    .len()
                    .checked_sub(n)
                    .filter(|from| *from >= self.floor());
                let from = from.ok_or_else(|| self.underflow())?;
                let items = self.stack.split_off(from);
                self.push_node(Node::Sequence(items))?;
            }
            b't' | b'l' | 0x91 => {
                let items = self.pop_mark()?;
                self.push_node(Node::Sequence(items))?;
            }
            b'd' => {
                let items = self.pop_mark()?;
                self.push_node(Node::Dict(Vec::new()))?;
                self.set_items(items)?;
            }
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])?;
            }
            b'e' | 0x90 => {
                let items = self.pop_mark()?;
                self.append(items)?;
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set_items(vec![key, value])?;
            }
            b'u' => {
                let items = self.pop_mark()?;
                self.set_items(items)?;
            }

            // Names, and calls to them.
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.name(module, name)?;
            }
            0x93 => match (self.pop()?, self.pop()?) {
                (Value::Str(name), Value::Str(module)) => self.name(module, name)?,
                _ => return Err(self.damaged("a name is not a string")),
            },
            b'R' | 0x81 => {
                let arguments = self.pop()?;
                let function = self.pop()?;
                let value = self.call(function, arguments)?;
                self.push(value);
            }
            0x92 => {
                self.pop()?;
                let arguments = self.pop()?;
                let class = self.pop()?;
                let value = self.call(class, arguments)?;
                self.push(value);
            }
            b'i' => {
                let (module, name) = (self.line()?, self.line()?);
                self.pop_mark()?;
                self.name(module, name)?;
                self.pop()?;
                self.push(Value::Ignored);
            }
            b'o' => {
                self.pop_mark()?;
                self.push(Value::Ignored);
            }
            b'b' => {
                let state = self.pop()?;
                self.set_state(state)?;
            }
            b'Q' => {
                let id = self.pop()?;
                let node = Node::Storage(self.storage(id)?);
                self.push_node(node)?;
            }
            0x82..=0x84 => {
                return Err(Problem::Refused {
                    global: "a class by extension code".into(),
                    whole: false,
                });
            }
            _ => {
                return Err(Problem::damaged(format!(
                    "unknown pickle opcode 0x{opcode:02x} at byte {at} of the pickle"
                )));
            }
        }
        Ok(())
    }

    /// Looks up a name. This is the only way for a class or function to get onto the stack.
    fn name(&mut self, module: &str, name: &str) -> Result<(), Problem> {
        let global = globals::resolve(module, name).ok_or_else(|| Problem::Refused {
            global: printable(&format!("{module}.{name}")),
            // If it is the first name in the pickle, the saved object is an instance of it.
            whole: self.stack.is_empty() && self.nodes.is_empty(),
        })?;
        self.push(Value::Global(global));
        Ok(())
    }

    /// A little-endian two's complement integer of `n` bytes. Seeds can exceed 64 bits.
    fn long(&mut self, n: usize) -> Result<(), Problem> {
        let bytes = self.take(n)?;
        let value = if n > 8 {
            Value::Ignored
        } else {
            let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
            let mut wide = [if negative { 0xff } else { 0 }; 8];
            wide[..n].copy_from_slice(bytes);
            Value::Int(i64::from_le_bytes(wide))
        };
        self.push(value);
        Ok(())
    }

    fn append(&mut self, mut items: Vec<Value<'a>>) -> Result<(), Problem> {
        match self.top()? {
            Value::Ignored => Ok(()),
            Value::Node(index) => match self.nodes.get_mut(index) {
                Some(Node::Sequence(list)) => {
                    list.append(&mut items);
                    Ok(())
                }
                _ => Err(self.damaged("an item is appended to an object that is not a list")),
            },
            _ => Err(self.damaged("an item is appended to an object that is not a list")),
        }
    }

    fn set_items(&mut self, items: Vec<Value<'a>>) -> Result<(), Problem> {
        if !items.len().is_multiple_of(2) {
            return Err(self.damaged("a dictionary key has no value"));
        }
        match self.top()? {
            Value::Ignored => Ok(()),
            Value::Node(index) => match self.nodes.get_mut(index) {
                Some(Node::Dict(entries)) => {
                    let (pairs, _) = items.as_chunks::<2>();
                    entries.extend(pairs.iter().map(|[key, value]| (*key, *value)));
                    Ok(())
                }
                _ => Err(self.damaged("an item is set in an object that is not a dictionary")),
            },
            _ => Err(self.damaged("an item is set in an object that is not a dictionary")),
        }
    }

    /// Sets the state of the object at the top of the stack. It is kept only for TorchScript
    /// objects: tensors and dictionaries are complete without it.
    fn set_state(&mut self, new: Value<'a>) -> Result<(), Problem> {
        match self.top()? {
            Value::Ignored => Ok(()),
            Value::Node(index) => {
                if let Some(Node::Object { state }) = self.nodes.get_mut(index) {
                    *state = new;
                }
                Ok(())
            }
            _ => Err(self.damaged("a state is set on an object without state")),
        }
    }

    pub(super) fn push(&mut self, value: Value<'a>) {
        self.stack.push(value);
    }

    fn push_node(&mut self, node: Node<'a>) -> Result<(), Problem> {
        let value = self.add(node)?;
        self.push(value);
        Ok(())
    }

    pub(super) fn add(&mut self, node: Node<'a>) -> Result<Value<'a>, Problem> {
        if self.nodes.len() >= MAX_NODES {
            return Err(self.damaged("it describes more objects than any real checkpoint"));
        }
        self.extents += match &node {
            Node::Tensor(tensor) => tensor.layout.shape.len() + tensor.layout.stride.len(),
            Node::Unreadable { shape, .. } => shape.as_ref().map_or(0, Vec::len),
            _ => 0,
        };
        if self.extents > self.input.len() {
            return Err(self.damaged("its tensors share their shapes too often"));
        }
        self.nodes.push(node);
        Ok(Value::Node(self.nodes.len() - 1))
    }

    /// Stack height that pops must not go below: that of the innermost MARK.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn top(&self) -> Result<Value<'a>, Problem> {
        let value = self
            .stack
            .get(self.floor()..)
            .and_then(|above| above.last());
        value.copied().ok_or_else(|| self.underflow())
    }

    fn pop(&mut self) -> Result<Value<'a>, Problem> {
        let value = self.top()?;
        self.stack.pop();
        Ok(value)
    }

    fn pop_mark(&mut self) -> Result<Vec<Value<'a>>, Problem> {
        let mark = self.marks.pop().ok_or_else(|| self.underflow())?;
        if mark > self.stack.len() {
            return Err(self.underflow());
        }
        Ok(self.stack.split_off(mark))
    }

    fn byte(&mut self) -> Result<u8, Problem> {
        self.array::<1>().map(|[b]| b)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Problem> {
        let bytes = self
            .input
            .get(self.at..)
            .and_then(|rest| rest.first_chunk::<N>());
        let bytes = *bytes.ok_or_else(|| self.damaged("it ends unexpectedly"))?;
        self.at += N;
        Ok(bytes)
    }

    fn length4(&mut self) -> Result<usize, Problem> {
        self.array().map(|b| u32::from_le_bytes(b) as usize)
    }

    fn length8(&mut self) -> Result<usize, Problem> {
        let n = u64::from_le_bytes(self.array()?);
        usize::try_from(n).map_err(|_| self.damaged("it ends unexpectedly"))
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], Problem> {
        let end = self.at.checked_add(n);
        let bytes = end.and_then(|end| self.input.get(self.at..end));
        let bytes = bytes.ok_or_else(|| self.damaged("it ends unexpectedly"))?;
        self.at += n;
        Ok(bytes)
    }

    fn line(&mut self) -> Result<&'a str, Problem> {
        let rest = &self.input[self.at.min(self.input.len())..];
        let n = rest.iter().position(|&b| b == b'\n');
        let n = n.ok_or_else(|| self.damaged("it ends unexpectedly"))?;
        self.at += n + 1;
        std::str::from_utf8(&rest[..n]).map_err(|_| self.damaged("a name is not UTF-8"))
    }

    fn underflow(&self) -> Problem {
        self.damaged("it pops from an empty stack")
    }

    pub(super) fn damaged(&self, what: impl std::fmt::Display) -> Problem {
        Problem::damaged(format!("its pickle, at byte {}: {what}", self.at))
    }
}
