//! Rounding to 16 bits and back as one operator.
//!
//! tract casts value by value, with one function call each, which takes 80 % of the run time of a
//! graph that rounds its activations.

use half::{f16, slice::HalfFloatSliceExt};
use tract_onnx::{
    prelude::*,
    tract_core::{
        internal::bail,
        ops::{
            cast::Cast,
            element_wise::{ElementWiseMiniOp, ElementWiseOp},
        },
    },
};

/// Values per chunk: their 16-bit copies stay in the L1 cache.
const CHUNK: usize = 1024;

/// Rounds to 16 bits (to nearest, ties to even) and back.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rounding;

impl ElementWiseMiniOp for Rounding {
    fn name(&self) -> String {
        "RoundToHalf".into()
    }

    fn eval_in_place(&self, t: &mut Tensor, _: Option<DatumType>) -> TractResult<()> {
        if t.datum_type() != f32::datum_type() {
            bail!("rounding to 16 bits expects F32, got {:?}", t.datum_type());
        }
        round(t.try_as_plain_ram_mut()?.as_slice_mut::<f32>()?);
        Ok(())
    }
}

/// Rounds every value to 16 bits.
fn round(values: &mut [f32]) {
    let mut narrow = [f16::ZERO; CHUNK];
    for chunk in values.chunks_mut(CHUNK) {
        let narrow = &mut narrow[..chunk.len()];
        narrow.convert_from_f32_slice(chunk);
        narrow.convert_to_f32_slice(chunk);
    }
}

/// Replaces casts to 16 bits and back by [`Rounding`].
pub fn fuse(model: &mut TypedModel) -> TractResult<()> {
    let casts = |model: &TypedModel, node: usize, to: DatumType| {
        let op = model.node(node).op_as::<Cast>();
        op.is_some_and(|op| op.to == to)
    };
    for id in 0..model.nodes().len() {
        if !casts(model, id, f32::datum_type()) {
            continue;
        }
        let narrow = model.node(id).inputs[0].node;
        if !casts(model, narrow, f16::datum_type()) {
            continue;
        }
        let wide = model.node(narrow).inputs[0];
        if model.outlet_fact(wide)?.datum_type != f32::datum_type() {
            continue;
        }
        let op = ElementWiseOp(Box::new(Rounding), None);
        TypedModelPatch::replace_single_op(model, model.node(id), &[wide], op)?.apply(model)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_become_those_of_the_standard() {
        // More than one chunk and not a multiple of any vector length; every exponent, ties, values
        // that are subnormal or overflow in 16 bits, and NaN.
        let mut values: Vec<f32> = (0..3 * CHUNK as u32 + 13)
            .map(|i| f32::from_bits(i.wrapping_mul(0x9e37_79b9)))
            .collect();
        values.extend([
            0.0,
            -0.0,
            65504.0,
            65519.9,
            65520.0,
            -1e9,
            5.9e-8,
            2.9e-8,
            6.1e-5,
            2049.0,
            2051.0,
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::NAN,
        ]);
        let wanted: Vec<f32> = values.iter().map(|x| f16::from_f32(*x).to_f32()).collect();
        round(&mut values);
        for (found, wanted) in values.iter().zip(&wanted) {
            let same = found.to_bits() == wanted.to_bits() || found.is_nan() && wanted.is_nan();
            assert!(same, "{found}, expected {wanted}");
        }
    }

    #[test]
    fn a_cast_to_16_bits_and_back_is_one_operator() {
        let mut model = TypedModel::default();
        let x = model.add_source("x", f32::fact([3])).unwrap();
        let cast = |to| Cast { to };
        let narrow = model
            .wire_node("narrow", cast(f16::datum_type()), &[x])
            .unwrap();
        let wide = model
            .wire_node("wide", cast(f32::datum_type()), &narrow)
            .unwrap();
        model.select_output_outlets(&wide).unwrap();
        let run = |model: &TypedModel| {
            let plan = model
                .clone()
                .into_optimized()
                .unwrap()
                .into_runnable()
                .unwrap();
            let outputs = plan
                .run(tvec!(tensor1(&[0.1f32, 1e6, -1e-9]).into()))
                .unwrap();
            outputs[0].clone().into_tensor()
        };
        let before = run(&model);
        fuse(&mut model).unwrap();
        let model = model.into_optimized().unwrap();
        let ops: Vec<String> = model.nodes().iter().map(|n| n.op().name().into()).collect();
        assert_eq!(ops, ["Source", "RoundToHalf"]);
        let after = run(&model);
        assert_eq!(before, after);
    }
}
