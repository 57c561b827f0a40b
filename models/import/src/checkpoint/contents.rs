//! Finds the model's tensors among the objects of a pickle, and their names.

use std::{collections::HashSet, sync::Arc};

use super::{
    dtype::ByteOrder,
    entry::{Entries, Entry, Extent, Source, Unreadable},
    error::{Problem, printable},
    pickle::{Node, Pickle, Value},
};

/// Keys under which training checkpoints store the `state_dict` of a model. `module` is
/// DeepSpeed's, `teacher` and `student` are from DINO training; the rest are weight averages, as
/// named by timm and others.
const WRAPPERS: [&str; 12] = [
    "state_dict",
    "model_state_dict",
    "model",
    "module",
    "teacher",
    "student",
    "ema",
    "ema_model",
    "model_ema",
    "ema_state_dict",
    "state_dict_ema",
    "model_ema_state_dict",
];
/// Maximum nesting of wrappers.
const MAX_WRAPPERS: usize = 4;
/// Maximum nesting of modules and dictionaries.
const MAX_DEPTH: usize = 64;
const MAX_NAME: usize = 1024;
/// Memory accounted for a name beyond its bytes, and for each axis of its tensor: approximately the
/// real memory use.
const NAME: usize = 64;
const AXIS: usize = 16;

/// All tensors with their dotted names. `extent` finds a storage by key.
pub(super) fn entries<'a>(
    pickle: &Pickle<'a>,
    source: &Arc<Source>,
    order: ByteOrder,
    mut extent: impl FnMut(&'a str) -> Result<Extent, Problem>,
) -> Result<Entries, Problem> {
    let mut entries = Entries::new();
    for (name, node) in tensors(pickle)? {
        let entry = match node {
            Node::Tensor(tensor) => {
                Entry::stored(&name, tensor, source, order, || extent(tensor.storage.key))?
            }
            Node::Unreadable { what, shape } => Entry::Unreadable(Unreadable {
                shape: shape.clone(),
                what: format!("{what}, which is not supported"),
                remedy: "save a dense copy in float32, float16 or bfloat16",
                integer: false,
            }),
            _ => continue,
        };
        entries.insert(name, entry);
    }
    Ok(entries)
}

/// The tensor nodes by name. Work and memory are bounded by the length of the pickle.
fn tensors<'p, 'a>(pickle: &'p Pickle<'a>) -> Result<Vec<(String, &'p Node<'a>)>, Problem> {
    let mut found = Vec::new();
    let mut budget = pickle.len().saturating_mul(16).saturating_add(1 << 16);
    for (prefix, root) in roots(pickle) {
        collect(pickle, prefix, root, &mut budget, &mut found)?;
    }
    if found.is_empty() {
        return Err(Problem::unsupported(
            format!("it contains no named tensors; {}", describe(pickle)),
            format!(
                "save a state_dict, at the top level or under a key {}",
                WRAPPERS[..4].join(", ")
            ),
        ));
    }
    match found.iter().find(|(name, _)| !is_name(name)) {
        Some((name, _)) => Err(Problem::damaged(format!(
            "{} is not a valid tensor name",
            printable(name)
        ))),
        None => Ok(found),
    }
}

/// Whether a name can be used in messages and graphs.
pub(super) fn is_name(name: &str) -> bool {
    name.len() <= MAX_NAME && !name.chars().any(char::is_control)
}

/// The models and the prefixes of their names: the root, or the values of wrapper keys. Wrapped
/// models take precedence, because a stray tensor such as a loss may be next to one. If a
/// dictionary wraps several models, the keys become prefixes.
fn roots<'a>(pickle: &Pickle<'a>) -> Vec<(String, Value<'a>)> {
    let mut at = pickle.root();
    for _ in 0..MAX_WRAPPERS {
        let entries = pickle.dict(at).unwrap_or_default();
        let wrapped: Vec<(&str, Value)> = WRAPPERS
            .iter()
            .filter_map(|wrapper| {
                let (_, inner) = entries
                    .iter()
                    .rfind(|(key, _)| *key == Value::Str(wrapper))?;
                holds_tensors(pickle, *inner).then_some((*wrapper, *inner))
            })
            .collect();
        match wrapped[..] {
            [] => break,
            [(wrapper, inner)] => {
                log::debug!("taking the tensors under {wrapper}");
                at = inner;
            }
            _ => {
                let named = |(wrapper, inner): (&str, _)| (format!("{wrapper}."), inner);
                return wrapped.into_iter().map(named).collect();
            }
        }
    }
    vec![(String::new(), at)]
}

/// Whether a dictionary contains a tensor, directly or in a nested dictionary.
fn holds_tensors(pickle: &Pickle, root: Value) -> bool {
    let mut seen = HashSet::new();
    let mut waiting = vec![root];
    while let Some(value) = waiting.pop() {
        let Value::Node(index) = value else { continue };
        match pickle.node(value) {
            Some(Node::Tensor(_) | Node::Unreadable { .. }) => return value != root,
            Some(Node::Dict(entries)) if seen.insert(index) => {
                let named = entries
                    .iter()
                    .filter(|(key, _)| matches!(key, Value::Str(_)));
                waiting.extend(named.map(|(_, value)| *value));
            }
            _ => {}
        }
    }
    false
}

/// Adds the tensors of a dictionary and its nested dictionaries, or of the attributes of a
/// TorchScript module and its submodules.
fn collect<'p, 'a>(
    pickle: &'p Pickle<'a>,
    prefix: String,
    root: Value<'a>,
    budget: &mut usize,
    found: &mut Vec<(String, &'p Node<'a>)>,
) -> Result<(), Problem> {
    // A shared module is visited once per path and gets several names. In a malicious file the
    // number of paths is exponential in the depth.
    let is_module = matches!(pickle.node(root), Some(Node::Object { .. }));
    let mut waiting = vec![(root, prefix, 0)];
    let spend = |budget: &mut usize, cost| -> Result<(), Problem> {
        *budget = budget
            .checked_sub(cost)
            .ok_or_else(|| Problem::damaged("its modules are shared too often"))?;
        Ok(())
    };
    while let Some((value, prefix, depth)) = waiting.pop() {
        let entries = match pickle.node(value) {
            Some(Node::Object { state }) => pickle.dict(*state),
            _ => pickle.dict(value),
        };
        for (key, value) in entries.unwrap_or_default() {
            let Value::Str(key) = key else { continue };
            spend(budget, prefix.len() + key.len() + 2)?;
            let name = format!("{prefix}{key}");
            match pickle.node(*value) {
                Some(node @ (Node::Tensor(_) | Node::Unreadable { .. })) => {
                    found.push((name, node));
                }
                Some(Node::Object { .. }) if is_module => {
                    waiting.push((*value, name + ".", depth + 1));
                }
                Some(Node::Dict(_)) if !is_module => {
                    waiting.push((*value, name + ".", depth + 1));
                }
                _ => continue,
            }
            let axes = match pickle.node(*value) {
                Some(Node::Tensor(tensor)) => tensor.layout.shape.len(),
                _ => 0,
            };
            spend(budget, NAME + AXIS * axes)?;
            if depth >= MAX_DEPTH || prefix.len() > MAX_NAME {
                return Err(Problem::damaged("its modules are nested too deeply"));
            }
        }
    }
    Ok(())
}

/// Describes the root object, for an error message.
fn describe(pickle: &Pickle) -> String {
    match pickle.node(pickle.root()) {
        Some(Node::Dict(entries)) if entries.is_empty() => "it is an empty dictionary".into(),
        Some(Node::Dict(entries)) => {
            let keys = entries.iter().map(|(key, _)| match key {
                Value::Str(key) => printable(key),
                _ => "(not a string)".into(),
            });
            let shown: Vec<String> = keys.take(8).collect();
            let more = if entries.len() > shown.len() {
                ", ..."
            } else {
                ""
            };
            format!("its keys are {}{more}", shown.join(", "))
        }
        Some(Node::Tensor(_) | Node::Unreadable { .. }) => {
            "it is a single tensor without a name".into()
        }
        Some(Node::Sequence(_)) => "it is a list".into(),
        Some(Node::Object { .. }) => "it is a module without parameters".into(),
        Some(Node::Storage(_)) | None => "it is a plain value".into(),
    }
}
