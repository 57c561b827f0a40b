//! The table of virtual function slots and enum values.
//!
//! TensorRT's API consists of C++ classes. The second word of a public object points to its
//! implementation, and every public method is an inline call of a virtual function of that
//! implementation: the functions named `V...` below. `IParser`, `IParserError`, `ILogger` and
//! `IProgressMonitor` have no separate implementation. Slots are counted from the address that a
//! vtable pointer points to; the first two of every `V...` class are its destructors. Linux on
//! x86-64 and aarch64 use the same (Itanium) C++ ABI and have the same slots.
//!
//! Evidence: `tests/headers/slots.cc`, compiled against NVIDIA's headers, prints these numbers, and
//! `tests/slots.rs` compares them. See `docs/tensorrt.md`.

use crate::version::Layout;

/// A function that a version does not have.
pub(crate) const NONE: i16 = -1;

/// A position in a vtable, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot(i16);

impl Slot {
    /// Whether this version has the function.
    pub(crate) fn exists(self) -> bool {
        self.0 >= 0
    }

    /// The position in the vtable.
    ///
    /// # Panics
    /// If the version lacks the function. Callers of an optional function check [`Slot::exists`]
    /// first, and a test lists the optional functions.
    pub(crate) fn index(self) -> usize {
        usize::try_from(self.0).expect("a function that this TensorRT version has")
    }
}

macro_rules! table {
    ($($(#[$doc:meta])* $field:ident $name:literal = [$($column:expr),+];)+) => {
        /// The slots of one layout.
        #[derive(Debug, Clone, Copy)]
        pub(crate) struct Slots { $(pub(crate) $field: Slot,)+ }

        impl Slots {
            /// The slots of `layout`.
            pub(crate) fn of(layout: Layout) -> Slots {
                let column = layout.column();
                Slots { $($field: Slot([$($column),+][column]),)+ }
            }
        }

        /// Every row of the table as (C++ name, one slot per [`Layout::ALL`]).
        #[cfg(any(test, feature = "testing"))]
        pub(crate) fn rows() -> Vec<(&'static str, [i16; 5])> {
            vec![$(($name, [$($column),+]),)+]
        }
    };
}

table! {
    // field                    C++ name                                      8.5+  10.x  11.x  RTX1.3+ RTX1.5+
    builder_dla_cores           "VBuilder::getNbDLACores"                  = [7,    5,    3,    5,    3];
    builder_config              "VBuilder::createBuilderConfig"            = [9,    7,    5,    7,    5];
    builder_network             "VBuilder::createNetworkV2"                = [11,   8,    6,    8,    6];
    builder_profile             "VBuilder::createOptimizationProfile"      = [12,   9,    7,    9,    7];
    builder_build               "VBuilder::buildSerializedNetwork"         = [17,   14,   11,   14,   11];

    config_clear_flag           "VBuilderConfig::clearFlag"                = [14,   10,   8,    8,    8];
    config_set_flag             "VBuilderConfig::setFlag"                  = [15,   11,   9,    9,    9];
    config_get_flag             "VBuilderConfig::getFlag"                  = [16,   12,   10,   10,   10];
    config_dla_core             "VBuilderConfig::setDLACore"               = [22,   18,   16,   16,   16];
    config_default_device       "VBuilderConfig::setDefaultDeviceType"     = [24,   20,   18,   18,   18];
    config_add_profile          "VBuilderConfig::addOptimizationProfile"   = [29,   25,   23,   23,   23];
    config_create_cache         "VBuilderConfig::createTimingCache"        = [44,   40,   29,   29,   29];
    config_set_cache            "VBuilderConfig::setTimingCache"           = [45,   41,   30,   30,   30];
    config_get_cache            "VBuilderConfig::getTimingCache"           = [46,   42,   31,   31,   31];
    config_set_pool             "VBuilderConfig::setMemoryPoolLimit"       = [47,   43,   32,   32,   32];
    config_get_pool             "VBuilderConfig::getMemoryPoolLimit"       = [48,   44,   33,   33,   33];
    config_monitor              "VBuilderConfig::setProgressMonitor"       = [NONE, 56,   45,   45,   45];
    config_capabilities         "VBuilderConfig::setNbComputeCapabilities" = [NONE, NONE, NONE, 55,   55];
    config_capability           "VBuilderConfig::setComputeCapability"     = [NONE, NONE, NONE, 57,   57];

    network_layers              "VNetworkDefinition::getNbLayers"          = [17,   12,   12,   12,   12];
    network_inputs              "VNetworkDefinition::getNbInputs"          = [19,   14,   14,   14,   14];
    network_input               "VNetworkDefinition::getInput"             = [20,   15,   15,   15,   15];
    network_outputs             "VNetworkDefinition::getNbOutputs"         = [21,   16,   16,   16,   16];
    network_output              "VNetworkDefinition::getOutput"            = [22,   17,   17,   17,   17];

    tensor_name                 "VTensor::getName"                         = [3,    3,    3,    3,    3];
    tensor_shape                "VTensor::getDimensions"                   = [5,    5,    5,    5,    5];
    tensor_type                 "VTensor::getType"                         = [7,    7,    6,    7,    6];

    profile_set                 "VOptimizationProfile::setDimensions"      = [2,    2,    2,    2,    2];

    memory_data                 "VHostMemory::data"                        = [2,    2,    2,    2,    2];
    memory_size                 "VHostMemory::size"                        = [3,    3,    3,    3,    3];
    cache_serialize             "VTimingCache::serialize"                  = [2,    2,    2,    2,    2];

    runtime_dla_core            "VRuntime::setDLACore"                     = [3,    5,    4,    5,    4];
    runtime_max_threads         "VRuntime::setMaxThreads"                  = [10,   12,   11,   12,   11];
    runtime_deserialize         "VRuntime::deserializeCudaEngine"          = [2,    3,    3,    3,    3];

    engine_context              "VCudaEngine::createExecutionContext"      = [11,   5,    5,    5,    5];
    engine_profiles             "VCudaEngine::getNbOptimizationProfiles"   = [22,   10,   8,    8,    8];
    engine_shape                "VCudaEngine::getTensorShape"              = [34,   19,   15,   17,   15];
    engine_type                 "VCudaEngine::getTensorDataType"           = [35,   20,   16,   18,   16];
    engine_location             "VCudaEngine::getTensorLocation"           = [36,   21,   17,   19,   17];
    engine_mode                 "VCudaEngine::getTensorIOMode"             = [38,   23,   19,   21,   19];
    engine_format               "VCudaEngine::getTensorFormat"             = [41,   26,   22,   24,   22];
    engine_profile_shape        "VCudaEngine::getProfileShape"             = [44,   29,   25,   27,   25];
    engine_tensors              "VCudaEngine::getNbIOTensors"              = [45,   30,   26,   28,   26];
    engine_tensor_name          "VCudaEngine::getIOTensorName"             = [46,   31,   27,   29,   27];

    context_profile             "VExecutionContext::setOptimizationProfileAsync" = [25, 17, 16, 17, 16];
    context_set_shape           "VExecutionContext::setInputShape"         = [29,   21,   20,   21,   20];
    context_shape               "VExecutionContext::getTensorShape"        = [30,   22,   21,   22,   21];
    context_address             "VExecutionContext::setTensorAddress"      = [32,   24,   23,   24,   23];
    context_enqueue             "VExecutionContext::enqueueV3"             = [44,   37,   36,   37,   36];

    parser_parse                "IParser::parse"                           = [0,    0,    0,    0,    0];
    parser_errors               "IParser::getNbErrors"                     = [6,    5,    3,    5,    3];
    parser_error                "IParser::getError"                        = [7,    6,    4,    6,    4];
    parser_delete               "IParser::~IParser"                        = [10,   9,    7,    9,    7];
    parser_error_text           "IParserError::desc"                       = [1,    1,    1,    1,    1];
    parser_error_node           "IParserError::node"                       = [5,    5,    5,    5,    5];
    parser_error_node_name      "IParserError::nodeName"                   = [NONE, 6,    6,    6,    6];
    parser_error_operator       "IParserError::nodeOperator"               = [NONE, 7,    7,    7,    7];

    // Deleting destructor of every object with an implementation pointer.
    object_delete               "INoCopy::~INoCopy"                        = [1,    1,    1,    1,    1];

    // Interfaces implemented by this crate and called by TensorRT.
    logger_log                  "ILogger::log"                             = [0,    0,    4,    0,    4];
    logger_info                 "ILogger::getInterfaceInfo"                = [NONE, NONE, 1,    NONE, 1];
    monitor_info                "IProgressMonitor::getInterfaceInfo"       = [NONE, 1,    1,    1,    1];
    monitor_start               "IProgressMonitor::phaseStart"             = [NONE, 4,    4,    4,    4];
    monitor_step                "IProgressMonitor::stepComplete"           = [NONE, 5,    5,    5,    5];
    monitor_finish              "IProgressMonitor::phaseFinish"            = [NONE, 6,    6,    6,    6];

    // Enum values that differ between versions. Bits of a flag word are given by position.
    flag_strongly_typed         "NetworkDefinitionCreationFlag::kSTRONGLY_TYPED" = [NONE, 1, 0, 1,    0];
    flag_explicit_batch         "NetworkDefinitionCreationFlag::kEXPLICIT_BATCH" = [0, 0, NONE, NONE, NONE];
    flag_half                   "BuilderFlag::kFP16"                       = [0,    0,    NONE, NONE, NONE];
    flag_int8                   "BuilderFlag::kINT8"                       = [1,    1,    NONE, NONE, NONE];
    flag_obey_precision         "BuilderFlag::kOBEY_PRECISION_CONSTRAINTS" = [10,   9,    NONE, NONE, NONE];
    flag_gpu_fallback           "BuilderFlag::kGPU_FALLBACK"               = [3,    3,    3,    NONE, NONE];
    flag_tf32                   "BuilderFlag::kTF32"                       = [7,    6,    6,    6,    6];
}

/// Enum values that are the same in every version, by C++ name. Checked together with the table;
/// the code that uses them refers to their names.
#[cfg(any(test, feature = "testing"))]
pub(crate) const COMMON: [(&str, i64); 19] = [
    ("MemoryPoolType::kWORKSPACE", 0),
    ("DeviceType::kGPU", 0),
    ("DeviceType::kDLA", 1),
    ("OptProfileSelector::kMIN", 0),
    ("OptProfileSelector::kOPT", 1),
    ("OptProfileSelector::kMAX", 2),
    ("TensorIOMode::kINPUT", 1),
    ("TensorIOMode::kOUTPUT", 2),
    ("TensorFormat::kLINEAR", 0),
    ("TensorLocation::kDEVICE", 0),
    ("TensorLocation::kHOST", 1),
    ("DataType::kFLOAT", 0),
    ("DataType::kHALF", 1),
    ("DataType::kINT8", 2),
    ("DataType::kINT32", 3),
    ("DataType::kBOOL", 4),
    ("DataType::kUINT8", 5),
    ("ILogger::Severity::kERROR", 1),
    ("ILogger::Severity::kVERBOSE", 4),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_functions_asked_for_first_may_be_missing() {
        let optional = [
            "VBuilderConfig::setProgressMonitor",
            "VBuilderConfig::setNbComputeCapabilities",
            "VBuilderConfig::setComputeCapability",
            "IParserError::nodeName",
            "IParserError::nodeOperator",
        ];
        for (name, row) in rows() {
            let interface = name.starts_with("ILogger") || name.starts_with("IProgressMonitor");
            let value = name.contains("Flag::");
            if optional.contains(&name) || interface || value {
                continue;
            }
            assert!(
                row.iter().all(|slot| *slot >= 0),
                "{name} is called without checking that it exists"
            );
        }
    }

    #[test]
    fn no_two_functions_of_a_class_share_a_slot() {
        let rows = rows();
        for column in 0..Layout::ALL.len() {
            for (position, (name, row)) in rows.iter().enumerate() {
                let class = name.split("::").next();
                let clash = rows[..position].iter().find(|(other, cells)| {
                    other.split("::").next() == class
                        && cells[column] == row[column]
                        && row[column] != NONE
                });
                assert!(clash.is_none(), "{name} and {clash:?} in column {column}");
            }
        }
    }
}
