//! Options that `convert` needs for an ONNX model.

use loftup_onnx::{ElementType, Interface};

use super::{Image, features, names};

/// The options that the conversion of this model needs, or the reason why it cannot be a backbone.
pub fn remarks(interface: &Interface) -> Vec<String> {
    let mut remarks = Vec::new();
    let image = match Image::of(interface) {
        Ok(image) => image,
        Err(why) => return vec![format!("not a backbone: {why}")],
    };
    let open = |axis: usize| {
        let shape = image.port.shape.as_ref();
        shape.is_none_or(|s| s[axis].is_none())
    };
    let (y, x) = image.axes();
    let size = if open(y) || open(x) {
        ", and --size for the dynamic size"
    } else {
        ""
    };
    remarks.push(format!("--backbone-onnx with --patch PIXELS{size}"));
    if features(interface, None).is_err() {
        let outputs = names(&interface.outputs);
        remarks.push(format!("--backbone-output, one of {outputs}"));
    }
    match image.port.element {
        ElementType::UINT8 => {
            remarks.push("no --mean or --std: the uint8 input takes values from 0 to 255".into());
        }
        other => {
            remarks.push("--mean and --std, unless they are ImageNet's".into());
            if other != ElementType::FLOAT32 {
                remarks.push(format!("{other} is converted to float32"));
            }
        }
    }
    remarks
}
