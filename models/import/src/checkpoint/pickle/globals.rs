//! The classes and functions that a pickle may name, and their meaning.

use super::super::dtype::Dtype;

/// The meaning of an allowed name. None of them is ever called: each describes the data to build.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in super::super) enum Global {
    /// `torch._utils._rebuild_tensor_v2`: (storage, offset, shape, stride, ...).
    RebuildTensor,
    /// `torch._utils._rebuild_tensor_v3`: the same, with the element type as the seventh argument.
    RebuildTensorV3,
    /// Builds an unsupported tensor.
    RebuildOther(Other),
    /// Returns its first argument: parameters, sizes, typed lists.
    FirstArgument,
    /// `torch._tensor._rebuild_from_type_v2`: (function, class, arguments, attributes).
    RebuildFromType,
    /// A dictionary.
    Dict,
    /// A storage class.
    Storage(Dtype),
    /// A storage class without an element type.
    UntypedStorage,
    /// An element type.
    Dtype(Dtype),
    /// A class of a TorchScript archive: a set of attributes.
    ScriptClass,
    /// Other data in training checkpoints, which is dropped.
    Ignored,
}

/// Tensors that are not strided, or not supported.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in super::super) enum Other {
    /// (layout, (indices, ..., shape, ...)).
    Sparse,
    /// (element type, shape, ...), saved without elements.
    Meta,
    /// (storage, offset, shape, ...), and quantization parameters.
    Quantized,
    /// A nested tensor, which has several shapes.
    Nested,
    /// A subclass of `torch.Tensor` with its own layout.
    Subclass,
}

/// The meaning of a name; `None` if it is not allowed.
pub(super) fn resolve(module: &str, name: &str) -> Option<Global> {
    if module == "__torch__" || module.starts_with("__torch__.") {
        return Some(Global::ScriptClass);
    }
    Some(match (module, name) {
        ("torch._utils", "_rebuild_tensor_v2" | "_rebuild_tensor") => Global::RebuildTensor,
        ("torch._utils", "_rebuild_tensor_v3") => Global::RebuildTensorV3,
        ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state")
        | ("torch", "Size")
        | (
            "torch.jit._pickle",
            "restore_type_tag" | "build_intlist" | "build_doublelist" | "build_boollist"
            | "build_tensorlist",
        ) => Global::FirstArgument,
        ("torch._utils", "_rebuild_sparse_tensor" | "_rebuild_sparse_csr_tensor") => {
            Global::RebuildOther(Other::Sparse)
        }
        ("torch._utils", "_rebuild_meta_tensor_no_storage") => Global::RebuildOther(Other::Meta),
        ("torch._utils", "_rebuild_qtensor") => Global::RebuildOther(Other::Quantized),
        ("torch._utils", "_rebuild_nested_tensor") => Global::RebuildOther(Other::Nested),
        (
            "torch._utils",
            "_rebuild_wrapper_subclass"
            | "_rebuild_device_tensor_from_numpy"
            | "_rebuild_device_tensor_from_cpu_tensor",
        ) => Global::RebuildOther(Other::Subclass),
        ("torch._tensor", "_rebuild_from_type_v2") => Global::RebuildFromType,
        ("collections", "OrderedDict" | "defaultdict") | ("builtins" | "__builtin__", "dict") => {
            Global::Dict
        }
        ("torch.storage", "UntypedStorage") => Global::UntypedStorage,
        ("torch" | "torch.cuda" | "torch.storage", name) if name.ends_with("Storage") => {
            Global::Storage(storage_dtype(name.strip_suffix("Storage")?)?)
        }
        ("torch", name) if dtype(name).is_some() => Global::Dtype(dtype(name)?),
        _ if is_ignored(module, name) => Global::Ignored,
        _ => return None,
    })
}

fn storage_dtype(prefix: &str) -> Option<Dtype> {
    Some(match prefix {
        "Float" => Dtype::F32,
        "Half" => Dtype::F16,
        "BFloat16" => Dtype::Bf16,
        "Double" => Dtype::F64,
        "Long" => Dtype::Integer(8),
        "Int" => Dtype::Integer(4),
        "Short" => Dtype::Integer(2),
        "Char" | "Byte" | "Bool" => Dtype::Integer(1),
        "ComplexFloat" => Dtype::Other("complex64", 8),
        "ComplexDouble" => Dtype::Other("complex128", 16),
        "QInt8" => Dtype::Other("qint8", 1),
        "QUInt8" => Dtype::Other("quint8", 1),
        "QInt32" => Dtype::Other("qint32", 4),
        "QUInt4x2" => Dtype::Other("quint4x2", 1),
        "QUInt2x4" => Dtype::Other("quint2x4", 1),
        _ => return None,
    })
}

fn dtype(name: &str) -> Option<Dtype> {
    Some(match name {
        "float32" => Dtype::F32,
        "float16" => Dtype::F16,
        "bfloat16" => Dtype::Bf16,
        "float64" => Dtype::F64,
        "int64" | "uint64" => Dtype::Integer(8),
        "int32" | "uint32" => Dtype::Integer(4),
        "int16" | "uint16" => Dtype::Integer(2),
        "int8" | "uint8" | "bool" => Dtype::Integer(1),
        "complex32" => Dtype::Other("complex32", 4),
        "complex64" => Dtype::Other("complex64", 8),
        "complex128" => Dtype::Other("complex128", 16),
        "float8_e4m3fn" => Dtype::Other("float8_e4m3fn", 1),
        "float8_e4m3fnuz" => Dtype::Other("float8_e4m3fnuz", 1),
        "float8_e5m2" => Dtype::Other("float8_e5m2", 1),
        "float8_e5m2fnuz" => Dtype::Other("float8_e5m2fnuz", 1),
        "float8_e8m0fnu" => Dtype::Other("float8_e8m0fnu", 1),
        "float4_e2m1fn_x2" => Dtype::Other("float4_e2m1fn_x2", 1),
        "qint8" => Dtype::Other("qint8", 1),
        "quint8" => Dtype::Other("quint8", 1),
        "qint32" => Dtype::Other("qint32", 4),
        name if is_dtype(name) => Dtype::Other("unknown", 1),
        _ => return None,
    })
}

/// Whether PyTorch may have an element type of that name: a kind of number, followed by its bits.
/// Only the name is checked; the type itself is never used.
fn is_dtype(name: &str) -> bool {
    [
        "float", "bfloat", "int", "uint", "complex", "bits", "qint", "quint",
    ]
    .iter()
    .filter_map(|kind| name.strip_prefix(kind))
    .any(|bits| {
        bits.starts_with(|c: char| c.is_ascii_digit())
            && bits
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    })
}

/// Plain values, settings and statistics that PyTorch, Lightning, Hydra and NumPy store in training
/// checkpoints. Naming them is harmless, because nothing is built from them; the list is short so
/// that anything unexpected is noticed.
fn is_ignored(module: &str, name: &str) -> bool {
    match module {
        "builtins" | "__builtin__" => matches!(
            name,
            "set"
                | "frozenset"
                | "list"
                | "tuple"
                | "int"
                | "long"
                | "float"
                | "bool"
                | "str"
                | "unicode"
                | "bytes"
                | "bytearray"
                | "complex"
                | "slice"
                | "range"
                | "xrange"
                | "object"
        ),
        "collections" => matches!(name, "Counter" | "deque"),
        "copyreg" | "copy_reg" => name == "_reconstructor",
        "_codecs" => name == "encode",
        "argparse" => name == "Namespace",
        "types" => name == "SimpleNamespace",
        "typing" => name == "Any",
        "pathlib" | "pathlib._local" => name.ends_with("Path"),
        "datetime" => matches!(
            name,
            "datetime" | "date" | "time" | "timedelta" | "timezone"
        ),
        "numpy" => matches!(name, "ndarray" | "dtype") || is_numpy_scalar(name),
        "numpy.core.multiarray" | "numpy._core.multiarray" => {
            matches!(name, "scalar" | "_reconstruct")
        }
        "numpy.dtypes" => name.ends_with("DType"),
        "torch" => matches!(
            name,
            "device"
                | "Tensor"
                | "per_tensor_affine"
                | "per_channel_affine"
                | "per_channel_affine_float_qparams"
        ),
        "torch.nn.parameter" => matches!(name, "Parameter" | "Buffer"),
        "torch.torch_version" => name == "TorchVersion",
        "torch.serialization" => name == "_get_layout",
        "omegaconf.base" => matches!(name, "ContainerMetadata" | "Metadata"),
        "omegaconf.dictconfig" => name == "DictConfig",
        "omegaconf.listconfig" => name == "ListConfig",
        "omegaconf.nodes" => name.ends_with("Node"),
        "pytorch_lightning.utilities.parsing"
        | "lightning_fabric.utilities.data"
        | "lightning.fabric.utilities.data" => name == "AttributeDict",
        "pytorch_lightning.callbacks.model_checkpoint"
        | "lightning.pytorch.callbacks.model_checkpoint" => name == "ModelCheckpoint",
        _ => false,
    }
}

fn is_numpy_scalar(name: &str) -> bool {
    let bits = name.trim_start_matches(|c: char| c.is_ascii_lowercase());
    let kind = &name[..name.len() - bits.len()];
    matches!(kind, "float" | "int" | "uint" | "bool")
        && matches!(bits, "" | "_" | "8" | "16" | "32" | "64")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_listed_is_allowed() {
        for (module, name) in [
            ("os", "system"),
            ("posix", "system"),
            ("builtins", "eval"),
            ("builtins", "exec"),
            ("builtins", "getattr"),
            ("__builtin__", "__import__"),
            ("subprocess", "Popen"),
            ("torch", "load"),
            ("torch", "EvilStorage"),
            ("torch", "int_repr"),
            ("torch", "float8.load"),
            ("torch._utils", "_import_dotted_name"),
            ("torch.storage", "_load_from_bytes"),
            ("torch.hub", "load"),
            ("torch.nn.modules.linear", "Linear"),
            ("numpy", "load"),
            ("numpy", "float128x"),
            ("pathlib", "os"),
            ("__torch__x", "M"),
            ("functools", "partial"),
            ("", ""),
        ] {
            assert_eq!(resolve(module, name), None, "{module}.{name}");
        }
    }

    #[test]
    fn tensor_parts_and_script_classes_are_allowed() {
        assert_eq!(
            resolve("torch", "HalfStorage"),
            Some(Global::Storage(Dtype::F16))
        );
        assert_eq!(
            resolve("torch", "bfloat16"),
            Some(Global::Dtype(Dtype::Bf16))
        );
        assert_eq!(
            resolve("__torch__.torch.nn", "Linear"),
            Some(Global::ScriptClass)
        );
        assert_eq!(
            resolve("torch", "float3_new"),
            Some(Global::Dtype(Dtype::Other("unknown", 1)))
        );
        assert_eq!(resolve("numpy", "float64"), Some(Global::Ignored));
        assert_eq!(resolve("numpy", "bool_"), Some(Global::Ignored));
        assert_eq!(resolve("pathlib", "PosixPath"), Some(Global::Ignored));
    }
}
