//! Shares loaded graphs within the process.
//!
//! A node that replaces a hung model abandons the old one. Without sharing, each would keep its own
//! copy of the weights.

use std::sync::{Arc, Weak};

use loftup_bundle::Precision;
use parking_lot::Mutex;

use super::{BackendError, Graph, Model};

/// The identity of a model: loads with equal keys can share it.
#[derive(PartialEq)]
struct Key {
    name: Arc<str>,
    sha256: Arc<str>,
    precision: Precision,
    inputs: Arc<[String]>,
    outputs: Arc<[String]>,
    kernels: String,
}

/// Returns the model of `graph`: an existing one, or the result of `load`. `kernels` identifies the
/// kernels that it uses. A graph without a known hash is always loaded.
///
/// # Errors
/// Errors of `load`.
pub(super) fn shared(
    graph: &Graph,
    kernels: String,
    load: impl FnOnce() -> Result<Arc<dyn Model>, BackendError>,
) -> Result<Arc<dyn Model>, BackendError> {
    static MODELS: Mutex<Vec<(Key, Weak<dyn Model>)>> = Mutex::new(Vec::new());
    let Some(sha256) = graph.sha256.clone() else {
        return load();
    };
    let key = Key {
        name: graph.name.clone(),
        sha256,
        precision: graph.precision,
        inputs: graph.inputs.clone(),
        outputs: graph.outputs.clone(),
        kernels,
    };
    // Held while loading, so that no graph is loaded twice.
    let mut models = MODELS.lock();
    models.retain(|(_, model)| model.strong_count() > 0);
    let known = models.iter().find(|(k, _)| *k == key);
    if let Some(model) = known.and_then(|(_, model)| model.upgrade()) {
        return Ok(model);
    }
    let model = load()?;
    models.push((key, Arc::downgrade(&model)));
    Ok(model)
}
