// A mock libcuda: "GPU" memory is host memory, and work is done when it is
// enqueued. See fake.h for what it verifies.
//
// control: init=CODE, devices=N, memory=full, stream=stuck|broken, capture=fail, integrated=1
#include "fake.h"

#include <cstring>
#include <functional>
#include <mutex>

using namespace fake;
using Result = unsigned;

namespace {

std::mutex lock;
std::map<std::uintptr_t, std::size_t> device_memory, host_memory, mapped_memory;

struct Graph { std::vector<std::function<void()>> work; };
struct Stream { bool capturing = false; Graph* graph = nullptr; };
struct Event { int recorded = 0; };

int contexts, streams, events, graphs;
char context_word;

Result allocate(std::map<std::uintptr_t, std::size_t>& where, std::size_t bytes, std::uintptr_t* address) {
    if (control("memory") == "full") return 2;
    if (bytes == 0) return 1;
    std::lock_guard<std::mutex> guard(lock);
    // Filled with a pattern, because the content is undefined, not zero.
    auto* block = static_cast<unsigned char*>(std::malloc(bytes));
    std::memset(block, 0xA5, bytes);
    *address = reinterpret_cast<std::uintptr_t>(block);
    where[*address] = bytes;
    return 0;
}

Result release(std::map<std::uintptr_t, std::size_t>& where, std::uintptr_t address, char const* what) {
    std::lock_guard<std::mutex> guard(lock);
    auto found = where.find(address);
    if (found == where.end()) {
        note("VIOLATION: %s of an address that is not allocated", what);
        return 1;
    }
    if (control("stream") == "stuck") note("VIOLATION: %s while work is under way", what);
    std::free(reinterpret_cast<void*>(address));
    where.erase(found);
    return 0;
}

void run(Stream* stream, std::function<void()> work) {
    if (stream->capturing) stream->graph->work.push_back(std::move(work));
    else work();
}

}  // namespace

EXPORT std::size_t fake_bytes_at(void* address) {
    std::lock_guard<std::mutex> guard(lock);
    auto at = reinterpret_cast<std::uintptr_t>(address);
    for (auto* memory : {&device_memory, &mapped_memory}) {
        auto found = memory->find(at);
        if (found != memory->end()) return found->second;
    }
    return 0;
}
EXPORT void fake_enqueue(Stream* stream, void (*work)(void*), void* argument) {
    run(stream, [=] { work(argument); });
}

EXPORT Result cuInit(unsigned) { note("cuInit"); return static_cast<Result>(std::atoi(control("init", "0").c_str())); }
EXPORT Result cuDriverGetVersion(int* version) { *version = 12060; return 0; }
EXPORT Result cuGetErrorName(unsigned code, char const** name) {
    *name = code == 2 ? "CUDA_ERROR_OUT_OF_MEMORY" : code == 700 ? "CUDA_ERROR_ILLEGAL_ADDRESS"
        : code == 999 ? "CUDA_ERROR_UNKNOWN" : code == 100 ? "CUDA_ERROR_NO_DEVICE"
        : code == 34 ? "CUDA_ERROR_STUB_LIBRARY" : nullptr;
    return *name ? 0 : 1;
}
EXPORT Result cuDeviceGetCount(int* count) { note("cuDeviceGetCount"); *count = std::atoi(control("devices", "1").c_str()); return 0; }
EXPORT Result cuDeviceGet(int* device, int ordinal) { *device = ordinal; return 0; }
EXPORT Result cuDeviceGetName(char* name, int length, int) { std::snprintf(name, static_cast<std::size_t>(length), "Pretend GPU"); return 0; }
EXPORT Result cuDeviceTotalMem_v2(std::size_t* bytes, int) { *bytes = std::size_t{8} << 30; return 0; }
EXPORT Result cuDeviceGetAttribute(int* value, int attribute, int) {
    // 18: integrated, 19: can map host memory.
    *value = attribute == 75 ? 8 : attribute == 76 ? 7 : attribute == 18 ? std::atoi(control("integrated", "0").c_str()) : 1;
    return 0;
}
EXPORT Result cuDevicePrimaryCtxRetain(void** context, int) { note("new CudaContext %d", ++contexts); *context = &context_word; return 0; }
EXPORT Result cuDevicePrimaryCtxRelease_v2(int) {
    note("~CudaContext %d", contexts--);
    if (streams || events || graphs || !device_memory.empty() || !host_memory.empty())
        note("VIOLATION: context released with %d streams, %d events, %d graphs, %zu + %zu blocks left", streams,
             events, graphs, device_memory.size(), host_memory.size());
    return 0;
}
EXPORT Result cuCtxSetCurrent(void*) { return 0; }
EXPORT Result cuMemAlloc_v2(std::uintptr_t* address, std::size_t bytes) { note("cuMemAlloc %zu", bytes); return allocate(device_memory, bytes, address); }
EXPORT Result cuMemFree_v2(std::uintptr_t address) { note("cuMemFree"); return release(device_memory, address, "cuMemFree"); }
EXPORT Result cuMemHostAlloc(void** address, std::size_t bytes, unsigned flags) {
    note("cuMemHostAlloc %zu", bytes);
    auto* at = reinterpret_cast<std::uintptr_t*>(address);
    auto result = allocate(host_memory, bytes, at);
    std::lock_guard<std::mutex> guard(lock);
    if (result == 0 && (flags & 2)) mapped_memory[*at] = bytes;
    return result;
}
EXPORT Result cuMemHostGetDevicePointer_v2(std::uintptr_t* device, void* host, unsigned flags) {
    note("cuMemHostGetDevicePointer");
    *device = reinterpret_cast<std::uintptr_t>(host);
    std::lock_guard<std::mutex> guard(lock);
    return flags == 0 && mapped_memory.count(*device) ? 0 : 1;
}
EXPORT Result cuMemFreeHost(void* address) {
    note("cuMemFreeHost");
    {
        std::lock_guard<std::mutex> guard(lock);
        mapped_memory.erase(reinterpret_cast<std::uintptr_t>(address));
    }
    return release(host_memory, reinterpret_cast<std::uintptr_t>(address), "cuMemFreeHost");
}
EXPORT Result cuMemcpyHtoD_v2(std::uintptr_t to, void const* from, std::size_t bytes) { std::memcpy(reinterpret_cast<void*>(to), from, bytes); return 0; }
EXPORT Result cuMemcpyDtoH_v2(void* to, std::uintptr_t from, std::size_t bytes) { std::memcpy(to, reinterpret_cast<void*>(from), bytes); return 0; }
EXPORT Result cuMemcpyHtoDAsync_v2(std::uintptr_t to, void const* from, std::size_t bytes, Stream* stream) {
    note("cuMemcpyHtoDAsync %zu", bytes);
    run(stream, [=] { std::memcpy(reinterpret_cast<void*>(to), from, bytes); });
    return 0;
}
EXPORT Result cuMemcpyDtoHAsync_v2(void* to, std::uintptr_t from, std::size_t bytes, Stream* stream) {
    note("cuMemcpyDtoHAsync %zu", bytes);
    run(stream, [=] { std::memcpy(to, reinterpret_cast<void*>(from), bytes); });
    return 0;
}
EXPORT Result cuStreamCreate(Stream** stream, unsigned) { ++streams; note("new Stream"); *stream = new Stream; return 0; }
EXPORT Result cuStreamDestroy_v2(Stream* stream) { --streams; note("~Stream"); delete stream; return 0; }
EXPORT Result cuStreamSynchronize(Stream*) {
    while (control("stream") == "stuck") usleep(1000);
    return control("stream") == "broken" ? 700 : 0;
}
EXPORT Result cuStreamQuery(Stream*) {
    auto state = control("stream");
    return state == "stuck" ? 600 : state == "broken" ? 700 : 0;
}
EXPORT Result cuStreamBeginCapture_v2(Stream* stream, unsigned) {
    note("cuStreamBeginCapture");
    stream->capturing = true;
    stream->graph = new Graph;
    ++graphs;
    return 0;
}
EXPORT Result cuStreamEndCapture(Stream* stream, Graph** graph) {
    note("cuStreamEndCapture");
    stream->capturing = false;
    *graph = stream->graph;
    if (control("capture") != "fail") return 0;
    delete stream->graph;
    --graphs;
    *graph = nullptr;
    return 901;
}
EXPORT Result cuGraphInstantiateWithFlags(Graph** executable, Graph* graph, unsigned long long) { ++graphs; *executable = new Graph(*graph); return 0; }
EXPORT Result cuGraphLaunch(Graph* executable, Stream*) {
    note("cuGraphLaunch");
    for (auto& work : executable->work) work();
    return 0;
}
EXPORT Result cuGraphExecDestroy(Graph* executable) { --graphs; note("~GraphExec"); delete executable; return 0; }
EXPORT Result cuGraphDestroy(Graph* graph) { --graphs; delete graph; return 0; }
EXPORT Result cuEventCreate(Event** event, unsigned) { ++events; *event = new Event; return 0; }
EXPORT Result cuEventRecord(Event* event, Stream*) { event->recorded = 1; return 0; }
EXPORT Result cuEventQuery(Event* event) { return event->recorded ? 0 : 600; }
EXPORT Result cuEventDestroy_v2(Event* event) { --events; delete event; return 0; }
EXPORT Result cuEventElapsedTime(float* milliseconds, Event*, Event*) { *milliseconds = 1.5f; return 0; }
