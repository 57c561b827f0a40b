//! Converts floats of other widths to 32 bits.

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

/// Converts every use of the types `narrow` in `graph` to 32-bit floats: constants, casts, inputs
/// and outputs. The values of constants are unchanged, except that 64-bit values are rounded and
/// clamped to the 32-bit range.
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

/// Whether anything in `graph` has the type `kind`.
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

/// The declared element type of `info`.
pub fn element_mut(info: &mut ValueInfoProto) -> Option<&mut i32> {
    let type_proto::Value::TensorType(tensor) = info.r#type.as_mut()?.value.as_mut()? else {
        return None;
    };
    Some(&mut tensor.elem_type)
}

/// The values of a constant of 16, 32 or 64 bits as 32-bit floats.
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

/// The nearest 32-bit value. Large finite values, as used in masks, stay finite.
fn narrowed(x: f64) -> f32 {
    if x.is_finite() {
        x.clamp(f32::MIN.into(), f32::MAX.into()) as f32
    } else {
        x as f32
    }
}
