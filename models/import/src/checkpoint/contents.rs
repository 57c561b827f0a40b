//! Which of the objects in a pickle are the model's tensors, and what they are called.

use super::{
    error::{Problem, printable},
    pickle::{Node, Pickle, StoredTensor, Value},
};

/// Under which a training checkpoint keeps the model's `state_dict`, most specific first.
/// `module` is DeepSpeed's, `teacher` the exported half of a DINO or DINOv2 training run.
const WRAPPERS: [&str; 5] = [
    "state_dict",
    "model_state_dict",
    "model",
    "module",
    "teacher",
];
/// A wrapper in a wrapper in a wrapper is still believable.
const MAX_WRAPPERS: usize = 4;
/// Nesting of modules in a TorchScript archive.
const MAX_DEPTH: usize = 64;
const MAX_NAME: usize = 1024;

/// The tensors with their dotted names. `len` is the size of the pickle in bytes, by which the
/// work is bounded.
pub(super) fn tensors<'p, 'a>(
    pickle: &'p Pickle<'a>,
    len: usize,
) -> Result<Vec<(String, &'p StoredTensor<'a>)>, Problem> {
    let found = match pickle.node(pickle.root()) {
        Some(Node::Object { .. }) => script_module(pickle, len)?,
        _ => state_dict(pickle),
    };
    if found.is_empty() {
        return Err(Problem::unsupported(
            format!("it holds no tensors under names; {}", describe(pickle)),
            format!(
                "save a state_dict, or one under a key {}",
                WRAPPERS.join(", ")
            ),
        ));
    }
    match found.iter().find(|(name, _)| !is_name(name)) {
        Some((name, _)) => Err(Problem::damaged(format!(
            "{} is not the name of a tensor",
            printable(name)
        ))),
        None => Ok(found),
    }
}

/// Whether a name can stand in a message and in a graph.
pub(super) fn is_name(name: &str) -> bool {
    name.len() <= MAX_NAME && !name.chars().any(char::is_control)
}

/// The tensors directly in the root dictionary, or in the dictionary under the best wrapper key.
/// A wrapped one goes first: beside it there may be a stray tensor, such as a loss.
fn state_dict<'p, 'a>(pickle: &'p Pickle<'a>) -> Vec<(String, &'p StoredTensor<'a>)> {
    let mut at = pickle.root();
    for _ in 0..MAX_WRAPPERS {
        let Some(entries) = pickle.dict(at) else {
            break;
        };
        let inner = WRAPPERS.iter().find_map(|wrapper| {
            let (_, inner) = entries
                .iter()
                .rfind(|(key, _)| *key == Value::Str(wrapper))?;
            let worth = pickle.dict(*inner)?.iter().any(|(key, value)| {
                pickle.tensor(*value).is_some()
                    || (pickle.dict(*value).is_some()
                        && WRAPPERS.iter().any(|wrapper| *key == Value::Str(wrapper)))
            });
            worth.then_some((wrapper, *inner))
        });
        let Some((wrapper, inner)) = inner else { break };
        log::debug!("taking the tensors under {wrapper}");
        at = inner;
    }
    let entries = pickle.dict(at).unwrap_or_default();
    let named = entries.iter().filter_map(|(key, value)| match key {
        Value::Str(name) => Some((name.to_string(), pickle.tensor(*value)?)),
        _ => None,
    });
    named.collect()
}

/// The tensors among the attributes of a TorchScript module and its submodules.
fn script_module<'p, 'a>(
    pickle: &'p Pickle<'a>,
    len: usize,
) -> Result<Vec<(String, &'p StoredTensor<'a>)>, Problem> {
    // A module may be reached twice, and then has two names. A file made to exhaust us reaches
    // it two to the power of the depth times.
    let mut budget = len.saturating_mul(16).saturating_add(1 << 16);
    let mut found = Vec::new();
    let mut waiting = vec![(pickle.root(), String::new(), 0)];
    while let Some((value, prefix, depth)) = waiting.pop() {
        let Some(Node::Object { state }) = pickle.node(value) else {
            continue;
        };
        for (key, value) in pickle.dict(*state).unwrap_or_default() {
            let Value::Str(key) = key else { continue };
            let cost = prefix.len() + key.len() + 2;
            budget = budget.checked_sub(cost).ok_or_else(|| {
                Problem::damaged("its modules contain each other more often than a model's do")
            })?;
            let name = if depth == 0 {
                key.to_string()
            } else {
                format!("{prefix}.{key}")
            };
            match pickle.node(*value) {
                Some(Node::Tensor(tensor)) => found.push((name, tensor)),
                Some(Node::Object { .. }) if depth < MAX_DEPTH && name.len() <= MAX_NAME => {
                    waiting.push((*value, name, depth + 1));
                }
                Some(Node::Object { .. }) => {
                    return Err(Problem::damaged("its modules are nested without end"));
                }
                _ => {}
            }
        }
    }
    Ok(found)
}

/// For a message: what there is instead of tensors.
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
        Some(Node::Tensor(_)) => "it is one tensor without a name".into(),
        Some(Node::Sequence(_)) => "it is a list".into(),
        Some(Node::Object { .. }) => "it is a module without parameters".into(),
        Some(Node::Storage(_)) | None => "it is a plain value".into(),
    }
}
