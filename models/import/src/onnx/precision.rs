//! Floats of other widths become 32-bit ones.

use loftup_onnx::pb::{
    AttributeProto, GraphProto, TensorProto, ValueInfoProto, tensor_proto::DataType, type_proto,
};

use loftup_onnx::{rewrite::tensors, walk};

/// Attributes that name an element type.
const TYPE_ATTRIBUTES: [&str; 6] = [
    "to",
    "dtype",
    "output_dtype",
    "output_datatype",
    "stash_type",
    "softmax_precision",
];

/// Rewrites `graph` so that it holds and computes 32-bit floats wherever it names one of `narrow`:
/// constants, casts, inputs and outputs. Values of constants stay what they are; 64-bit ones are
/// rounded, and limited to what 32 bits hold.
///
/// # Errors
/// The name of a constant that cannot be read.
pub fn to_float32(graph: &mut GraphProto, narrow: &[DataType]) -> Result<(), String> {
    let is_narrow = |kind: i64| narrow.iter().any(|n| *n as i64 == kind);
    walk::tensors_mut(graph, &mut |tensor| {
        if is_narrow(tensor.data_type.into()) {
            let values = floats(tensor).ok_or_else(|| tensor.name.clone())?;
            *tensor = tensors::from_f32(&tensor.name, &tensor.dims, &values);
        }
        Ok::<_, String>(())
    })?;
    walk::graphs_mut(graph, &mut |graph| {
        let names_type = |a: &&mut AttributeProto| TYPE_ATTRIBUTES.contains(&a.name.as_str());
        let attributes = graph.node.iter_mut().flat_map(|n| &mut n.attribute);
        for attribute in attributes.filter(names_type) {
            if is_narrow(attribute.i) {
                attribute.i = DataType::Float as i64;
            }
        }
        for info in graph.input.iter_mut().chain(&mut graph.output) {
            if let Some(kind) = element_mut(info)
                && is_narrow((*kind).into())
            {
                *kind = DataType::Float as i32;
            }
        }
    });
    Ok(())
}

/// Whether anything in `graph` is of type `kind`.
pub fn mentions(graph: &mut GraphProto, kind: DataType) -> bool {
    let mut found = false;
    walk::tensors(graph, &mut |t| found |= t.data_type == kind as i32);
    walk::graphs_mut(graph, &mut |graph| {
        let mut attributes = graph.node.iter().flat_map(|n| &n.attribute);
        found |=
            attributes.any(|a| TYPE_ATTRIBUTES.contains(&a.name.as_str()) && a.i == kind as i64);
        for info in graph.input.iter_mut().chain(&mut graph.output) {
            found |= element_mut(info).is_some_and(|k| *k == kind as i32);
        }
    });
    found
}

/// The element type that `info` declares.
pub fn element_mut(info: &mut ValueInfoProto) -> Option<&mut i32> {
    let type_proto::Value::TensorType(tensor) = info.r#type.as_mut()?.value.as_mut()? else {
        return None;
    };
    Some(&mut tensor.elem_type)
}

/// Values of a constant of 16, 32 or 64 bits as 32-bit ones.
fn floats(tensor: &TensorProto) -> Option<Vec<f32>> {
    let raw = &tensor.raw_data;
    let values: Vec<f32> = if tensor.data_type == DataType::Bfloat16 as i32 {
        let widen = |bits: u16| f32::from_bits(u32::from(bits) << 16);
        if raw.is_empty() {
            tensor.int32_data.iter().map(|x| widen(*x as u16)).collect()
        } else {
            let chunks = raw.as_chunks::<2>().0.iter();
            chunks.map(|b| widen(u16::from_le_bytes(*b))).collect()
        }
    } else if tensor.data_type == DataType::Double as i32 {
        if raw.is_empty() {
            tensor.double_data.iter().map(|x| narrowed(*x)).collect()
        } else {
            let chunks = raw.as_chunks::<8>().0.iter();
            chunks.map(|b| narrowed(f64::from_le_bytes(*b))).collect()
        }
    } else {
        return tensors::floats(tensor);
    };
    (values.len() == tensors::count(tensor)?).then_some(values)
}

/// The nearest 32-bit value. Large finite ones, as masks have, stay finite.
fn narrowed(x: f64) -> f32 {
    if x.is_finite() {
        x.clamp(f32::MIN.into(), f32::MAX.into()) as f32
    } else {
        x as f32
    }
}
