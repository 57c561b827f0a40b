// A mock libnvinfer. See fake.h for what it verifies.
//
// An "engine" is the list of inputs and outputs as text. Running it fills every
// output with mean(inputs) + 0.01 * (index modulo 97).
//
// control: build=null, build_error=TEXT, deserialize=null, context=null,
//   enqueue=false|hang|nan|plausible, dla_cores=N, runtime=0x228,
//   dim.NAME=NUMBER, or a product of input dimensions: guidance.0*guidance.2-4*guidance.3-4
// With enqueue=plausible the outputs are smooth, finite, of unit variance, and wrong.
#include "slots.h"
#include "fake.h"

#include <cmath>
#include <cstring>
#include <sstream>

using namespace fake;

namespace {

#if NARROW_DIMS
struct Dims { std::int32_t rank; std::int32_t d[8]; };
#else
struct Dims { std::int32_t rank; std::int64_t d[8]; };
#endif

Dims dims_of(std::vector<std::int64_t> const& shape) {
    Dims dims{};
    dims.rank = static_cast<std::int32_t>(shape.size());
    for (std::size_t i = 0; i < shape.size() && i < 8; ++i) dims.d[i] = static_cast<decltype(dims.d[0] + 0)>(shape[i]);
    return dims;
}

std::vector<std::int64_t> shape_of(Dims const& dims) {
    return std::vector<std::int64_t>(dims.d, dims.d + dims.rank);
}

struct Profile : Object { std::map<std::string, std::vector<std::int64_t>> ranges[3]; };
struct Config : Object {
    std::vector<Profile*> profiles;
    void* monitor;
    void* cache;
    std::size_t workspace;
    unsigned flags;
    int device;
};
struct Memory : Object { std::string bytes; };
struct Engine : Object {
    std::vector<Tensor> tensors;
    std::vector<std::map<std::string, std::vector<std::int64_t>>> profiles;  // three per profile
};
struct Context : Object {
    std::map<std::string, std::vector<std::int64_t>> shapes;
    std::map<std::string, void*> addresses;
    int profile;
};

void* the_logger;

// ---- memory -----------------------------------------------------------------

void const* memory_data(void* self) { return static_cast<Memory*>(of(self))->bytes.data(); }
std::size_t memory_size(void* self) { return static_cast<Memory*>(of(self))->bytes.size(); }

void** plain() {
    static void** const made = table({at(SLOT_INoCopy_delete, &bury)});
    return made;
}

Memory* memory(std::string bytes, Object* parent) {
    static void** const made =
        table({at(SLOT_VHostMemory_data, &memory_data), at(SLOT_VHostMemory_size, &memory_size)});
    auto* made_now = adopt(new Memory, "HostMemory", parent, plain(), made);
    made_now->bytes = std::move(bytes);
    return made_now;
}

// ---- network ----------------------------------------------------------------

struct Handle : Object { Tensor tensor; };

char const* tensor_name(void* self) { return static_cast<Handle*>(of(self))->tensor.name.c_str(); }
Dims tensor_dims(void* self) { return dims_of(static_cast<Handle*>(of(self))->tensor.dims); }
int tensor_type(void* self) { return static_cast<Handle*>(of(self))->tensor.type; }

int count(void* self, bool input) {
    int n = 0;
    for (auto const& tensor : static_cast<Network*>(of(self))->tensors) n += tensor.input == input;
    return n;
}
void* get(void* self, int index, bool input) {
    static void** const made = table({at(SLOT_VTensor_getName, &tensor_name),
                                      at(SLOT_VTensor_getDimensions, &tensor_dims),
                                      at(SLOT_VTensor_getType, &tensor_type)});
    auto* network = static_cast<Network*>(of(self));
    for (auto const& tensor : network->tensors) {
        if (tensor.input != input || index-- != 0) continue;
        auto* handle = new Handle;
        handle->tensor = tensor;
        handle->table = plain();
        handle->implementation_table = made;
        handle->implementation = &handle->implementation_table;
        network->handles.push_back(handle);
        return handle;
    }
    return nullptr;
}
int network_inputs(void* self) { return count(self, true); }
int network_outputs(void* self) { return count(self, false); }
void* network_input(void* self, int index) { return get(self, index, true); }
void* network_output(void* self, int index) { return get(self, index, false); }
// NVIDIA's parser 8.5 calls these on any network (tests/cuda.rs).
bool network_implicit_batch(void*) { return false; }
void network_set_recorder(void*, void*) {}
void* network_get_recorder(void*) { return nullptr; }
int network_layers(void* self) { return static_cast<int>(static_cast<Network*>(of(self))->tensors.size()); }

// ---- profile and configuration ------------------------------------------------

#if NARROW_DIMS
bool profile_set(void* self, char const* name, int which, Dims dims) {
    static_cast<Profile*>(of(self))->ranges[which][name] = shape_of(dims);
    return true;
}
#else
bool profile_set(void* self, char const* name, int which, Dims const& dims) {
    static_cast<Profile*>(of(self))->ranges[which][name] = shape_of(dims);
    return true;
}
#endif

Config* config(void* self) { return static_cast<Config*>(of(self)); }

void config_set_pool(void* self, int, std::size_t bytes) { config(self)->workspace = bytes; }
std::size_t config_get_pool(void* self, int) { return config(self)->workspace; }
void config_set_flag(void* self, int flag) { config(self)->flags |= 1u << flag; note("setFlag %d", flag); }
void config_clear_flag(void* self, int flag) { config(self)->flags &= ~(1u << flag); note("clearFlag %d", flag); }
bool config_get_flag(void* self, int flag) { return config(self)->flags >> flag & 1; }
void config_device(void* self, int device) { config(self)->device = device; note("setDefaultDeviceType %d", device); }
void config_core(void*, int core) { note("setDLACore %d", core); }
int config_add_profile(void* self, void* profile) {
    config(self)->profiles.push_back(static_cast<Profile*>(profile));
    return static_cast<int>(config(self)->profiles.size()) - 1;
}
void config_monitor(void* self, void* monitor) { config(self)->monitor = monitor; }

void* cache_serialize(void* self) { return memory("timings", of(self)->parent); }
void* config_create_cache(void* self, void const*, std::size_t size) {
    static void** const made = table({at(SLOT_VTimingCache_serialize, &cache_serialize)});
    note("createTimingCache of %zu bytes", size);
    return adopt(new Object, "TimingCache", of(self)->parent, plain(), made);
}
bool config_set_cache(void* self, void* cache, bool ignore) {
    config(self)->cache = cache;
    return !ignore && control("cache") != "mismatch";
}
void* config_get_cache(void* self) { return config(self)->cache; }

// ---- builder ----------------------------------------------------------------

void* builder_config(void* self) {
    static void** const made = table(
        {at(SLOT_VBuilderConfig_setMemoryPoolLimit, &config_set_pool),
         at(SLOT_VBuilderConfig_getMemoryPoolLimit, &config_get_pool),
         at(SLOT_VBuilderConfig_setFlag, &config_set_flag), at(SLOT_VBuilderConfig_clearFlag, &config_clear_flag),
         at(SLOT_VBuilderConfig_getFlag, &config_get_flag),
         at(SLOT_VBuilderConfig_setDefaultDeviceType, &config_device),
         at(SLOT_VBuilderConfig_setDLACore, &config_core),
         at(SLOT_VBuilderConfig_addOptimizationProfile, &config_add_profile),
         at(SLOT_VBuilderConfig_createTimingCache, &config_create_cache),
         at(SLOT_VBuilderConfig_setTimingCache, &config_set_cache),
         at(SLOT_VBuilderConfig_getTimingCache, &config_get_cache),
         at(SLOT_VBuilderConfig_setProgressMonitor, &config_monitor)});
    auto* made_now = adopt(new Config, "BuilderConfig", of(self), plain(), made);
    made_now->monitor = made_now->cache = nullptr;
    made_now->workspace = std::size_t{8} << 30;
    made_now->flags = 0;
    made_now->device = 0;
    return made_now;
}

void* builder_network(void* self, unsigned flags) {
    static void** const made = table(
        {at(SLOT_VNetworkDefinition_getNbInputs, &network_inputs),
         at(SLOT_VNetworkDefinition_getInput, &network_input),
         at(SLOT_VNetworkDefinition_getNbOutputs, &network_outputs),
         at(SLOT_VNetworkDefinition_getOutput, &network_output),
         at(SLOT_VNetworkDefinition_getNbLayers, &network_layers),
         at(NARROW_DIMS ? 38 : -1, &network_implicit_batch),
         at(NARROW_DIMS ? 53 : -1, &network_set_recorder),
         at(NARROW_DIMS ? 54 : -1, &network_get_recorder)});
    note("createNetworkV2 flags %u", flags);
    auto* network = adopt(new Network, "Network", of(self), plain(), made);
    network->flags = flags;
    return network;
}

void* builder_profile(void*) {
    static void** const made = table({at(SLOT_VOptimizationProfile_setDimensions, &profile_set)});
    // Owned by the builder, so not deleted separately.
    return adopt(new Profile, "Profile", nullptr, plain(), made);
}

int builder_dla(void*) { return std::atoi(control("dla_cores", "0").c_str()); }

void put(std::ostream& out, std::vector<std::int64_t> const& shape) {
    out << shape.size();
    for (auto extent : shape) out << ' ' << extent;
    out << '\n';
}

std::vector<std::int64_t> take(std::istream& in) {
    std::size_t rank = 0;
    in >> rank;
    std::vector<std::int64_t> shape(rank > 8 ? 0 : rank);
    for (auto& extent : shape) in >> extent;
    return shape;
}

bool monitored(void* monitor, bool& go_on) {
    if (!monitor) return true;
    auto** functions = *static_cast<void***>(monitor);
    using Start = void (*)(void*, char const*, char const*, int);
    using Step = bool (*)(void*, char const*, int);
    using Finish = void (*)(void*, char const*);
    auto slot = [&](int number) { return functions[number < 0 ? 0 : number]; };
    reinterpret_cast<Start>(slot(SLOT_IProgressMonitor_phaseStart))(monitor, "build", nullptr, 3);
    for (int step = 0; step < 3 && go_on; ++step)
        go_on = reinterpret_cast<Step>(slot(SLOT_IProgressMonitor_stepComplete))(monitor, "build", step);
    reinterpret_cast<Finish>(slot(SLOT_IProgressMonitor_phaseFinish))(monitor, "build");
    return go_on;
}

void* builder_build(void* self, void* the_network, void* the_config) {
    note("buildSerializedNetwork");
    auto* network = static_cast<Network*>(the_network);
    auto* settings = static_cast<Config*>(the_config);
    bool go_on = true;
    if (!monitored(settings->monitor, go_on)) return nullptr;
    if (auto text = control("build_error"); !text.empty()) {
        tell(the_logger, 1, text);
        return nullptr;
    }
    if (control("build") == "null") return nullptr;
    std::ostringstream out;
    out << "LOFTUP-FAKE " << FAKE_VERSION << ' ' << network->tensors.size() << ' ' << settings->profiles.size() << '\n';
    for (auto const& tensor : network->tensors) {
        out << tensor.input << ' ' << tensor.name << ' ' << tensor.type << '\n';
        put(out, tensor.dims);
        for (auto const& symbol : tensor.symbols) out << (symbol.empty() ? "-" : symbol) << '\n';
    }
    for (auto* profile : settings->profiles)
        for (auto const& ranges : profile->ranges) {
            out << ranges.size() << '\n';
            for (auto const& range : ranges) {
                out << range.first << '\n';
                put(out, range.second);
            }
        }
    return memory(out.str(), of(self));
}

// ---- context ----------------------------------------------------------------

Tensor const* find(Context* context, char const* name) {
    for (auto const& tensor : static_cast<Engine*>(context->parent)->tensors)
        if (tensor.name == name) return &tensor;
    return nullptr;
}

// The value of a named dimension: from an input, a product of such names, or `control`.
std::int64_t symbol_value(Context* context, std::string const& symbol) {
    auto* engine = static_cast<Engine*>(context->parent);
    for (auto const& tensor : engine->tensors)
        for (std::size_t i = 0; i < tensor.dims.size(); ++i)
            if (tensor.input && tensor.dims[i] < 0 && tensor.symbols[i] == symbol) {
                auto set = context->shapes.find(tensor.name);
                return set == context->shapes.end() ? -1 : set->second[i];
            }
    auto star = symbol.find('*');
    if (star != std::string::npos) {
        auto left = symbol_value(context, symbol.substr(0, star));
        auto right = symbol_value(context, symbol.substr(star + 1));
        return left < 0 || right < 0 ? -1 : left * right;
    }
    auto text = control("dim." + symbol, "-1");
    if (text.find('.') == std::string::npos) return std::atoll(text.c_str());
    std::int64_t product = 1;
    std::istringstream terms(text);
    for (std::string term; std::getline(terms, term, '*');) {
        auto dot = term.find('.'), minus = term.find('-');
        auto set = context->shapes.find(term.substr(0, dot));
        auto axis = std::strtoul(term.c_str() + dot + 1, nullptr, 10);
        if (set == context->shapes.end() || axis >= set->second.size()) return -1;
        product *= set->second[axis] - (minus == std::string::npos ? 0 : std::atoll(term.c_str() + minus + 1));
    }
    return product;
}

std::vector<std::int64_t> present(Context* context, Tensor const& tensor) {
    auto set = context->shapes.find(tensor.name);
    if (set != context->shapes.end()) return set->second;
    auto shape = tensor.dims;
    for (std::size_t i = 0; i < shape.size(); ++i)
        if (shape[i] < 0) shape[i] = symbol_value(context, tensor.symbols[i]);
    return shape;
}

Dims context_shape(void* self, char const* name) {
    auto* context = static_cast<Context*>(of(self));
    auto* tensor = find(context, name);
    if (!tensor) return Dims{-1, {}};
    return dims_of(present(context, *tensor));
}

bool context_set_shape(void* self, char const* name, Dims const& dims) {
    auto* context = static_cast<Context*>(of(self));
    auto* engine = static_cast<Engine*>(context->parent);
    auto shape = shape_of(dims);
    std::size_t base = static_cast<std::size_t>(context->profile) * 3;
    if (base + 2 < engine->profiles.size()) {
        auto& least = engine->profiles[base][name];
        auto& most = engine->profiles[base + 2][name];
        for (std::size_t i = 0; i < shape.size() && i < least.size(); ++i)
            if (shape[i] < least[i] || shape[i] > most[i]) {
                tell(the_logger, 1, "Static dimension mismatch or runtime dimension outside the profile");
                return false;
            }
    }
    context->shapes[name] = shape;
    return true;
}

bool context_profile(void* self, int profile, void*) {
    auto* context = static_cast<Context*>(of(self));
    auto* engine = static_cast<Engine*>(context->parent);
    if (profile < 0 || static_cast<std::size_t>(profile) * 3 >= engine->profiles.size()) {
        tell(the_logger, 1, "profile index out of range");
        return false;
    }
    context->profile = profile;
    context->shapes.clear();
    return true;
}

bool context_address(void* self, char const* name, void* address) {
    static_cast<Context*>(of(self))->addresses[name] = address;
    return true;
}

std::size_t size_of(int type) {
    switch (type) {
    case 0: case 3: return 4;
    case 1: case 7: return 2;
    case 8: return 8;
    default: return 1;
    }
}

float half_to_float(std::uint16_t half) {
    int exponent = half >> 10 & 31;
    float mantissa = static_cast<float>(half & 1023);
    float value = exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(mantissa + 1024, exponent - 25);
    if (exponent == 31) value = (half & 1023) ? NAN : INFINITY;
    return half & 0x8000 ? -value : value;
}

std::uint16_t float_to_half(float value) {
    if (std::isnan(value)) return 0x7e00;
    std::uint16_t sign = std::signbit(value) ? 0x8000 : 0;
    value = std::fabs(value);
    if (value >= 65520) return sign | 0x7c00;
    int exponent = 0;
    float fraction = std::frexp(value, &exponent);
    if (exponent < -13) return static_cast<std::uint16_t>(sign | static_cast<int>(std::nearbyint(std::ldexp(value, 24))));
    int bits = static_cast<int>(std::nearbyint(std::ldexp(fraction, 11)));
    return static_cast<std::uint16_t>(sign | (((exponent + 14) << 10) + bits - 1024));
}

double read(char const* data, int type, std::size_t index) {
    switch (type) {
    case 0: { float v; std::memcpy(&v, data + 4 * index, 4); return v; }
    case 1: { std::uint16_t v; std::memcpy(&v, data + 2 * index, 2); return half_to_float(v); }
    case 3: { std::int32_t v; std::memcpy(&v, data + 4 * index, 4); return v; }
    case 8: { std::int64_t v; std::memcpy(&v, data + 8 * index, 8); return static_cast<double>(v); }
    case 2: return static_cast<signed char>(data[index]);
    default: return static_cast<unsigned char>(data[index]);
    }
}

void store(char* data, int type, std::size_t index, float value) {
    if (type == 0) std::memcpy(data + 4 * index, &value, 4);
    else if (type == 1) { auto half = float_to_half(value); std::memcpy(data + 2 * index, &half, 2); }
    else if (type == 3) { auto whole = static_cast<std::int32_t>(value); std::memcpy(data + 4 * index, &whole, 4); }
    else data[index * size_of(type)] = static_cast<char>(value);
}

using Work = void (*)(void*);
template <class F> F driver(char const* name) {
    static void* const handle = dlopen((directory() + "libcuda.so.1").c_str(), RTLD_NOW | RTLD_LOCAL);
    return handle ? reinterpret_cast<F>(dlsym(handle, name)) : nullptr;
}

struct Job { Context* context; std::string mode; };

float output(Job const& job, double mean, std::size_t i) {
    if (job.mode == "nan") return NAN;
    if (job.mode == "plausible") return static_cast<float>(1.4142 * std::sin(0.7 * static_cast<double>(i) + mean));
    return static_cast<float>(mean) + 0.01f * static_cast<float>(i % 97);
}


void compute(void* argument) {
    auto* job = static_cast<Job*>(argument);
    auto* context = job->context;
    auto& tensors = static_cast<Engine*>(context->parent)->tensors;
    auto held = driver<std::size_t (*)(void*)>("fake_bytes_at");
    double sum = 0;
    std::size_t counted = 0;
    for (int pass = 0; pass < 2; ++pass)
        for (auto const& tensor : tensors) {
            if (tensor.input != (pass == 0)) continue;
            std::size_t elements = 1;
            for (auto extent : present(context, tensor)) elements *= static_cast<std::size_t>(extent);
            auto* data = static_cast<char*>(context->addresses[tensor.name]);
            if (!held || held(data) < elements * size_of(tensor.type)) {
                note("VIOLATION: %s has no memory of its size", tensor.name.c_str());
                return;
            }
            for (std::size_t i = 0; i < elements; ++i) {
                if (tensor.input) sum += read(data, tensor.type, i);
                else store(data, tensor.type, i, output(*job, sum / static_cast<double>(counted ? counted : 1), i));
            }
            if (tensor.input) counted += elements;
        }
}

bool context_enqueue(void* self, void* stream) {
    auto* context = static_cast<Context*>(of(self));
    note("enqueueV3 %d", context->number);
    auto mode = control("enqueue", "ok");
    if (mode == "false") {
        tell(the_logger, 1, "IExecutionContext::enqueueV3: Error Code 1: Cuda Runtime (an illegal memory access was encountered)");
        return false;
    }
    while (control("enqueue", "ok") == "hang") usleep(1000);
    auto enqueue = driver<void (*)(void*, Work, void*)>("fake_enqueue");
    if (!enqueue) return false;
    enqueue(stream, &compute, new Job{context, mode});
    return true;
}

// ---- engine and runtime -------------------------------------------------------

Engine* engine(void* self) { return static_cast<Engine*>(of(self)); }
Tensor const& tensor(void* self, char const* name) {
    for (auto const& tensor : engine(self)->tensors)
        if (tensor.name == name) return tensor;
    note("VIOLATION: no tensor %s", name);
    std::abort();
}
int engine_tensors(void* self) { return static_cast<int>(engine(self)->tensors.size()); }
char const* engine_tensor_name(void* self, int index) {
    return engine(self)->tensors[static_cast<std::size_t>(index)].name.c_str();
}
int engine_profiles(void* self) {
    // A network without profiles gets a default one, as in TensorRT.
    auto there = engine(self)->profiles.size() / 3;
    return there ? static_cast<int>(there) : 1;
}
Dims engine_shape(void* self, char const* name) { return dims_of(tensor(self, name).dims); }
int engine_type(void* self, char const* name) { return tensor(self, name).type; }
int engine_mode(void* self, char const* name) { return tensor(self, name).input ? 1 : 2; }
int engine_zero(void*, char const*) { return 0; }
Dims engine_profile_shape(void* self, char const* name, int profile, int which) {
    auto index = static_cast<std::size_t>(profile * 3 + which);
    if (index >= engine(self)->profiles.size()) return dims_of(tensor(self, name).dims);
    return dims_of(engine(self)->profiles[index][name]);
}

void* engine_context(void* self
#if !NARROW_DIMS
                     , int strategy
#endif
) {
#if !NARROW_DIMS
    if (strategy != 0) note("VIOLATION: allocation strategy %d", strategy);
#endif
    static void** const made = table(
        {at(SLOT_VExecutionContext_setOptimizationProfileAsync, &context_profile),
         at(SLOT_VExecutionContext_setInputShape, &context_set_shape),
         at(SLOT_VExecutionContext_getTensorShape, &context_shape),
         at(SLOT_VExecutionContext_setTensorAddress, &context_address),
         at(SLOT_VExecutionContext_enqueueV3, &context_enqueue)});
    if (control("context") == "null") {
        tell(the_logger, 1, "IExecutionContext::IExecutionContext: Error Code 2: OutOfMemory (Requested size was 4096 bytes.)");
        return nullptr;
    }
    auto* context = adopt(new Context, "Context", of(self), plain(), made);
    context->profile = 0;
    return context;
}

bool runtime_threads(void*, int threads) { return threads > 0; }
void runtime_core(void*, int core) { note("runtime setDLACore %d", core); }

void* runtime_deserialize(void* self, void const* blob, std::size_t size) {
    static void** const made = table(
        {at(SLOT_VCudaEngine_getNbIOTensors, &engine_tensors),
         at(SLOT_VCudaEngine_getIOTensorName, &engine_tensor_name),
         at(SLOT_VCudaEngine_getNbOptimizationProfiles, &engine_profiles),
         at(SLOT_VCudaEngine_getTensorShape, &engine_shape),
         at(SLOT_VCudaEngine_getTensorDataType, &engine_type),
         at(SLOT_VCudaEngine_getTensorIOMode, &engine_mode),
         at(SLOT_VCudaEngine_getTensorLocation, &engine_zero),
         at(SLOT_VCudaEngine_getTensorFormat, &engine_zero),
         at(SLOT_VCudaEngine_getProfileShape, &engine_profile_shape),
         at(SLOT_VCudaEngine_createExecutionContext, &engine_context)});
    std::istringstream in(std::string(static_cast<char const*>(blob), size));
    std::string magic;
    int version = 0;
    std::size_t tensors = 0, profiles = 0;
    in >> magic >> version >> tensors >> profiles;
    if (magic != "LOFTUP-FAKE" || control("deserialize") == "null") {
        tell(the_logger, 1, "IRuntime::deserializeCudaEngine: Error Code 1: Serialization (plan header is damaged)");
        return nullptr;
    }
    if (version != FAKE_VERSION) {
        tell(the_logger, 1, "Serialization assertion failed. Version tag does not match. Note: Current Version: " +
                                std::to_string(FAKE_VERSION) + ", Serialized Engine Version: " + std::to_string(version));
        return nullptr;
    }
    auto* made_now = adopt(new Engine, "Engine", of(self), plain(), made);
    for (std::size_t i = 0; i < tensors; ++i) {
        Tensor tensor;
        in >> tensor.input >> tensor.name >> tensor.type;
        tensor.dims = take(in);
        for (std::size_t k = 0; k < tensor.dims.size(); ++k) {
            std::string symbol;
            in >> symbol;
            tensor.symbols.push_back(symbol == "-" ? "" : symbol);
        }
        made_now->tensors.push_back(tensor);
    }
    for (std::size_t i = 0; i < profiles * 3; ++i) {
        std::size_t ranges = 0;
        in >> ranges;
        made_now->profiles.emplace_back();
        for (std::size_t k = 0; k < ranges; ++k) {
            std::string name;
            in >> name;
            made_now->profiles.back()[name] = take(in);
        }
    }
    return made_now;
}

bool usable(int version) {
    if (version != FAKE_VERSION) note("VIOLATION: called with version %d", version);
    return was_called("cuInit") && control("runtime") != "0x228";
}

}  // namespace

EXPORT int getInferLibVersion() { return FAKE_VERSION; }

EXPORT void* createInferBuilder_INTERNAL(void* logger, int version) {
    note("createInferBuilder_INTERNAL");
    the_logger = logger;
    // As the real library without CUDA: an address that is not an object.
    if (!usable(version)) return reinterpret_cast<void*>(0x228);
    static void** const made = table(
        {at(SLOT_VBuilder_getNbDLACores, &builder_dla), at(SLOT_VBuilder_createBuilderConfig, &builder_config),
         at(SLOT_VBuilder_createNetworkV2, &builder_network),
         at(SLOT_VBuilder_createOptimizationProfile, &builder_profile),
         at(SLOT_VBuilder_buildSerializedNetwork, &builder_build)});
    return adopt(new Object, "Builder", nullptr, plain(), made);
}

EXPORT void* createInferRuntime_INTERNAL(void* logger, int version) {
    note("createInferRuntime_INTERNAL");
    the_logger = logger;
    if (!usable(version)) return reinterpret_cast<void*>(0x228);
    static void** const made = table({at(SLOT_VRuntime_deserializeCudaEngine, &runtime_deserialize),
                                      at(SLOT_VRuntime_setMaxThreads, &runtime_threads),
                                      at(SLOT_VRuntime_setDLACore, &runtime_core)});
    return adopt(new Object, "Runtime", nullptr, plain(), made);
}
