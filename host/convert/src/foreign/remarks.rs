//! What `convert` would need to take an ONNX file.

use loftup_onnx::{ElementType, Interface};

use super::{Image, features, names};

/// What a conversion of this graph as a backbone would need, one sentence each: options, or the
/// reason why it would be refused.
pub fn remarks(interface: &Interface) -> Vec<String> {
    let mut remarks = Vec::new();
    let image = match Image::of(interface) {
        Ok(image) => image,
        Err(why) => return vec![format!("not as a backbone: {why}")],
    };
    let open = |axis: usize| {
        let shape = image.port.shape.as_ref();
        shape.is_none_or(|s| s[axis].is_none())
    };
    let (y, x) = image.axes();
    let size = if open(y) || open(x) {
        "; --size chooses the size, which is dynamic"
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
            remarks.push("no --mean and --std: the input is given colors from 0 to 255".into());
        }
        other => {
            remarks.push("--mean and --std, unless they are those of ImageNet".into());
            if other != ElementType::FLOAT32 {
                remarks.push(format!("nothing for {other}, which becomes float32"));
            }
        }
    }
    remarks
}
