//! Visits a graph and its subgraphs (branches and loops).

use crate::pb::{GraphProto, NodeProto, TensorProto};

/// Calls `visit` on every constant: initializers, and tensors in attributes.
pub fn tensors<'a>(graph: &'a GraphProto, visit: &mut impl FnMut(&'a TensorProto)) {
    let mut waiting = vec![graph];
    while let Some(graph) = waiting.pop() {
        graph.initializer.iter().for_each(&mut *visit);
        for attribute in graph.node.iter().flat_map(|n| &n.attribute) {
            attribute.t.iter().for_each(&mut *visit);
            attribute.tensors.iter().for_each(&mut *visit);
            waiting.extend(attribute.g.iter().chain(&attribute.graphs));
        }
    }
}

/// Same as [`tensors`], mutable, until `visit` fails.
pub fn tensors_mut<E>(
    graph: &mut GraphProto,
    visit: &mut impl FnMut(&mut TensorProto) -> Result<(), E>,
) -> Result<(), E> {
    let mut waiting = vec![graph];
    while let Some(graph) = waiting.pop() {
        graph.initializer.iter_mut().try_for_each(&mut *visit)?;
        for attribute in graph.node.iter_mut().flat_map(|n| &mut n.attribute) {
            attribute.t.iter_mut().try_for_each(&mut *visit)?;
            attribute.tensors.iter_mut().try_for_each(&mut *visit)?;
            waiting.extend(attribute.g.iter_mut().chain(&mut attribute.graphs));
        }
    }
    Ok(())
}

/// Calls `visit` on the graph and all its subgraphs.
pub fn graphs_mut(graph: &mut GraphProto, visit: &mut impl FnMut(&mut GraphProto)) {
    let mut waiting = vec![graph];
    while let Some(graph) = waiting.pop() {
        visit(graph);
        for attribute in graph.node.iter_mut().flat_map(|n| &mut n.attribute) {
            waiting.extend(attribute.g.iter_mut().chain(&mut attribute.graphs));
        }
    }
}

/// Subgraphs of a node.
pub fn inner(node: &NodeProto) -> impl Iterator<Item = &GraphProto> {
    let attributes = node.attribute.iter();
    attributes.flat_map(|a| a.g.iter().chain(&a.graphs))
}
