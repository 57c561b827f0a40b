// Compiled against TensorRT headers, prints the vtable slot of every function
// that the binding calls and the value of every constant that it passes, one
// `name value` pair per line, with the names of src/slots.rs.
//
// A pointer to a virtual member function is two words in the Itanium C++ ABI:
// the first is the offset of the slot in the vtable (plus one on x86-64; on
// aarch64 the flag of a virtual function is in the second).
#include "NvInfer.h"
#include "NvOnnxParser.h"

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <utility>

using namespace nvinfer1;
using namespace nvinfer1::apiv;

#if NV_TENSORRT_MAJOR == 8
#define MODERN 0
#else
#define MODERN 1
#endif
// TensorRT-RTX has the features of TensorRT 11 from 1.5 on.
#if NV_TENSORRT_MAJOR >= 11 || (NV_TENSORRT_MAJOR == 1 && NV_TENSORRT_MINOR >= 5)
#define ELEVEN 1
#else
#define ELEVEN 0
#endif

template <class Method> long slotOf(Method method) {
    std::intptr_t words[2] = {0, 0};
    static_assert(sizeof method == sizeof words, "not a pointer to a member function");
    std::memcpy(words, &method, sizeof words);
#ifdef __aarch64__
    return static_cast<long>(words[0] / static_cast<std::intptr_t>(sizeof(void*)));
#else
    return static_cast<long>((words[0] - 1) / static_cast<std::intptr_t>(sizeof(void*)));
#endif
}

static void put(char const* name, long value) { std::printf("%s %ld\n", name, value); }

#define SLOT(Class, Method) put(#Class "::" #Method, slotOf(&Class::Method));
#define SLOT_OF_TYPE(Class, Method, Type) put(#Class "::" #Method, slotOf(static_cast<Type>(&Class::Method)));
#define PARSER(Class, Method) put(#Class "::" #Method, slotOf(&nvonnxparser::Class::Method));
#define CONSTANT(Name, Value) put(Name, static_cast<long>(Value));

// Observes NVIDIA's inline code: passes it an object whose vtables consist of
// functions that only record their position.
int lastSlot, lastTable;
template <int Table, int Slot> void remember() { lastTable = Table; lastSlot = Slot; }
template <int Table, int... Slot> void fill(void** table, std::integer_sequence<int, Slot...>) {
    ((table[Slot] = reinterpret_cast<void*>(&remember<Table, Slot>)), ...);
}
struct Probe {
    void** table;
    void* implementation;
    void** implementationTable;
    static void** make(int which) {
        static void* tables[2][96];
        fill<0>(tables[0], std::make_integer_sequence<int, 96>());
        fill<1>(tables[1], std::make_integer_sequence<int, 96>());
        return tables[which];
    }
    Probe() : table(make(0)), implementation(&implementationTable), implementationTable(make(1)) {}
    template <class T> T* as() { return reinterpret_cast<T*>(this); }
};

// `delete object` calls the deleting destructor of the public object.
template <class T> void destructor(char const* name) {
    auto* probe = new Probe;
    lastTable = lastSlot = -1;
    delete probe->as<T>();
    put(name, lastTable == 0 ? lastSlot : -2);
}

// A method of a public object calls the implementation through its second word.
template <class T, class Call> void through(char const* name, Call call) {
    Probe probe;
    lastTable = lastSlot = -1;
    call(probe.as<T>());
    put(name, lastTable == 1 ? lastSlot : -2);
}
#define THROUGH(Class, Method, Arguments) \
    through<I##Class>("V" #Class "::" #Method, [](I##Class* object) { (void)object->Method Arguments; });

int main() {
    put("version", NV_TENSORRT_MAJOR * 10000 + NV_TENSORRT_MINOR * 100 + NV_TENSORRT_PATCH);

    SLOT(VBuilder, getNbDLACores)
    SLOT(VBuilder, createBuilderConfig)
    SLOT(VBuilder, createNetworkV2)
    SLOT(VBuilder, createOptimizationProfile)
    SLOT(VBuilder, buildSerializedNetwork)

    SLOT(VBuilderConfig, clearFlag)
    SLOT(VBuilderConfig, setFlag)
    SLOT(VBuilderConfig, getFlag)
    SLOT(VBuilderConfig, setDLACore)
    SLOT(VBuilderConfig, setDefaultDeviceType)
    SLOT(VBuilderConfig, addOptimizationProfile)
    SLOT(VBuilderConfig, createTimingCache)
    SLOT(VBuilderConfig, setTimingCache)
    SLOT(VBuilderConfig, getTimingCache)
    SLOT(VBuilderConfig, setMemoryPoolLimit)
    SLOT(VBuilderConfig, getMemoryPoolLimit)
#if MODERN
    SLOT(VBuilderConfig, setProgressMonitor)
#endif
#if NV_TENSORRT_MAJOR == 1
    SLOT(VBuilderConfig, setNbComputeCapabilities)
    SLOT(VBuilderConfig, setComputeCapability)
#endif

    SLOT(VNetworkDefinition, getNbInputs)
    SLOT(VNetworkDefinition, getInput)
    SLOT(VNetworkDefinition, getNbOutputs)
    SLOT(VNetworkDefinition, getOutput)
    SLOT(VNetworkDefinition, getNbLayers)

    SLOT(VTensor, getName)
    SLOT(VTensor, getDimensions)
    SLOT(VTensor, getType)

    SLOT(VOptimizationProfile, setDimensions)

    SLOT(VHostMemory, data)
    SLOT(VHostMemory, size)
    SLOT(VTimingCache, serialize)

    SLOT(VRuntime, setDLACore)
    SLOT(VRuntime, setMaxThreads)
#if MODERN
    using Deserialize = ICudaEngine* (VRuntime::*)(void const*, std::size_t) noexcept;
    SLOT_OF_TYPE(VRuntime, deserializeCudaEngine, Deserialize)
#else
    SLOT(VRuntime, deserializeCudaEngine)
#endif

    SLOT(VCudaEngine, createExecutionContext)
    SLOT(VCudaEngine, getNbOptimizationProfiles)
    SLOT(VCudaEngine, getTensorShape)
    SLOT(VCudaEngine, getTensorDataType)
    SLOT(VCudaEngine, getTensorIOMode)
    SLOT(VCudaEngine, getProfileShape)
    SLOT(VCudaEngine, getNbIOTensors)
    SLOT(VCudaEngine, getIOTensorName)
    SLOT(VCudaEngine, getTensorLocation)
    SLOT(VCudaEngine, getTensorFormat)

    SLOT(VExecutionContext, setOptimizationProfileAsync)
    SLOT(VExecutionContext, setInputShape)
    SLOT(VExecutionContext, getTensorShape)
    SLOT(VExecutionContext, setTensorAddress)
    SLOT(VExecutionContext, enqueueV3)

    PARSER(IParser, parse)
    PARSER(IParser, getNbErrors)
    PARSER(IParser, getError)
    PARSER(IParserError, desc)
    PARSER(IParserError, node)
#if MODERN
    PARSER(IParserError, nodeName)
    PARSER(IParserError, nodeOperator)
#endif

    SLOT(ILogger, log)
#if MODERN
    SLOT(IProgressMonitor, getInterfaceInfo)
    SLOT(IProgressMonitor, phaseStart)
    SLOT(IProgressMonitor, stepComplete)
    SLOT(IProgressMonitor, phaseFinish)
#endif
#if ELEVEN
    SLOT(ILogger, getInterfaceInfo)
#endif

    CONSTANT("sizeof Dims", sizeof(Dims))
    CONSTANT("Dims::MAX_DIMS", Dims::MAX_DIMS)
    CONSTANT("offsetof Dims::d", offsetof(Dims, d))
    CONSTANT("sizeof Dims::d[0]", sizeof(Dims::d[0]))
#if MODERN
    CONSTANT("sizeof InterfaceInfo", sizeof(InterfaceInfo))
    CONSTANT("NetworkDefinitionCreationFlag::kSTRONGLY_TYPED", NetworkDefinitionCreationFlag::kSTRONGLY_TYPED)
    CONSTANT("ExecutionContextAllocationStrategy::kSTATIC", ExecutionContextAllocationStrategy::kSTATIC)
#endif
#if NV_TENSORRT_MAJOR == 8 || NV_TENSORRT_MAJOR == 10
    CONSTANT("NetworkDefinitionCreationFlag::kEXPLICIT_BATCH", NetworkDefinitionCreationFlag::kEXPLICIT_BATCH)
    CONSTANT("BuilderFlag::kFP16", BuilderFlag::kFP16)
    CONSTANT("BuilderFlag::kINT8", BuilderFlag::kINT8)
    CONSTANT("BuilderFlag::kOBEY_PRECISION_CONSTRAINTS", BuilderFlag::kOBEY_PRECISION_CONSTRAINTS)
#endif
#if NV_TENSORRT_MAJOR != 1
    CONSTANT("BuilderFlag::kGPU_FALLBACK", BuilderFlag::kGPU_FALLBACK)
#endif
    CONSTANT("BuilderFlag::kTF32", BuilderFlag::kTF32)
    CONSTANT("MemoryPoolType::kWORKSPACE", MemoryPoolType::kWORKSPACE)
    CONSTANT("DeviceType::kGPU", DeviceType::kGPU)
    CONSTANT("DeviceType::kDLA", DeviceType::kDLA)
    CONSTANT("OptProfileSelector::kMIN", OptProfileSelector::kMIN)
    CONSTANT("OptProfileSelector::kOPT", OptProfileSelector::kOPT)
    CONSTANT("OptProfileSelector::kMAX", OptProfileSelector::kMAX)
    CONSTANT("TensorIOMode::kINPUT", TensorIOMode::kINPUT)
    CONSTANT("TensorIOMode::kOUTPUT", TensorIOMode::kOUTPUT)
    CONSTANT("TensorFormat::kLINEAR", TensorFormat::kLINEAR)
    CONSTANT("TensorLocation::kDEVICE", TensorLocation::kDEVICE)
    CONSTANT("TensorLocation::kHOST", TensorLocation::kHOST)
    CONSTANT("DataType::kFLOAT", DataType::kFLOAT)
    CONSTANT("DataType::kHALF", DataType::kHALF)
    CONSTANT("DataType::kINT8", DataType::kINT8)
    CONSTANT("DataType::kINT32", DataType::kINT32)
    CONSTANT("DataType::kBOOL", DataType::kBOOL)
    CONSTANT("DataType::kUINT8", DataType::kUINT8)
#if MODERN
    CONSTANT("DataType::kFP8", DataType::kFP8)
    CONSTANT("DataType::kBF16", DataType::kBF16)
    CONSTANT("DataType::kINT64", DataType::kINT64)
    CONSTANT("DataType::kINT4", DataType::kINT4)
#endif
    CONSTANT("ILogger::Severity::kERROR", ILogger::Severity::kERROR)
    CONSTANT("ILogger::Severity::kVERBOSE", ILogger::Severity::kVERBOSE)

    destructor<IBuilder>("INoCopy::~INoCopy");
    destructor<IBuilderConfig>("INoCopy::~INoCopy");
    destructor<INetworkDefinition>("INoCopy::~INoCopy");
    destructor<IHostMemory>("INoCopy::~INoCopy");
    destructor<ITimingCache>("INoCopy::~INoCopy");
    destructor<IRuntime>("INoCopy::~INoCopy");
    destructor<ICudaEngine>("INoCopy::~INoCopy");
    destructor<IExecutionContext>("INoCopy::~INoCopy");
    destructor<nvonnxparser::IParser>("IParser::~IParser");

    THROUGH(Builder, getNbDLACores, ())
    THROUGH(BuilderConfig, setDLACore, (0))
    THROUGH(NetworkDefinition, getNbInputs, ())
    THROUGH(Tensor, getName, ())
    THROUGH(OptimizationProfile, setDimensions, ("x", OptProfileSelector::kMIN, Dims{}))
    THROUGH(HostMemory, size, ())
    THROUGH(TimingCache, serialize, ())
    THROUGH(Runtime, setMaxThreads, (1))
    THROUGH(CudaEngine, getNbIOTensors, ())
    THROUGH(CudaEngine, createExecutionContext, ())
    THROUGH(ExecutionContext, enqueueV3, (nullptr))
    THROUGH(ExecutionContext, setInputShape, ("x", Dims{}))
    return 0;
}
