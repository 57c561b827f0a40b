// Common to the mock versions of libnvinfer, libnvonnxparser and libcuda.
//
// They verify the order of calls, lifetimes and error handling. They verify
// nothing about NVIDIA's binary interface: their tables are generated from the
// same slot table as the binding (slots.h). tests/slots.rs and the real
// libraries verify that table.
//
// Each copy of a library uses its own directory:
//   calls.log  one line per call, in order, across all three libraries
//   control    `key=value` lines that change the behavior, read on each use
#pragma once
#include <dlfcn.h>
#include <fcntl.h>
#include <unistd.h>

#include <cstdarg>
#include <cstdint>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace fake {

inline std::string directory() {
    // Never destroyed: threads may still make calls while the process exits.
    static std::string const& found = *new std::string([] {
        Dl_info info{};
        dladdr(reinterpret_cast<void*>(&directory), &info);
        std::string path = info.dli_fname ? info.dli_fname : "./x";
        return path.substr(0, path.rfind('/') + 1);
    }());
    return found;
}

__attribute__((format(printf, 1, 2))) inline void note(char const* format, ...) {
    char line[512];
    va_list arguments;
    va_start(arguments, format);
    int length = std::vsnprintf(line, sizeof line - 1, format, arguments);
    va_end(arguments);
    if (length < 0) return;
    if (length > static_cast<int>(sizeof line) - 2) length = sizeof line - 2;
    line[length] = '\n';
    int file = open((directory() + "calls.log").c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (file >= 0) {
        if (write(file, line, static_cast<std::size_t>(length) + 1) < 0) std::abort();
        close(file);
    }
}

inline std::string control(std::string const& key, std::string const& otherwise = "") {
    std::ifstream file(directory() + "control");
    std::string line, value = otherwise;
    while (std::getline(file, line)) {
        if (line.compare(0, key.size() + 1, key + "=") == 0) value = line.substr(key.size() + 1);
    }
    return value;
}

inline bool was_called(std::string const& name) {
    std::ifstream file(directory() + "calls.log");
    std::string line;
    while (std::getline(file, line))
        if (line.compare(0, name.size(), name) == 0) return true;
    return false;
}

struct Tensor {
    bool input;
    std::string name;
    int type;  // nvinfer1::DataType
    std::vector<std::int64_t> dims;   // -1: dynamic
    std::vector<std::string> symbols; // names of dynamic dimensions
};

// Every object: the layout of the public class, then private fields. `implementation`
// points to the object's second vtable pointer, as mImpl does.
struct Object {
    void** table;
    void* implementation;
    void** implementation_table;
    char const* kind;
    int number;
    std::atomic<int> children;
    Object* parent;
};

inline Object* of(void* implementation) {
    auto* base = static_cast<char*>(implementation);
    return reinterpret_cast<Object*>(base - offsetof(Object, implementation_table));
}

struct Network : Object {
    std::vector<Tensor> tensors;
    std::vector<Object*> handles;
    unsigned flags;
};

template <int Slot> void trap() {
    note("VIOLATION: a function was called at slot %d, where this object has none", Slot);
    std::fprintf(stderr, "fake: a function was called at slot %d, where this object has none\n", Slot);
    std::abort();
}

inline void zombie() {
    note("VIOLATION: an object was used after it was deleted");
    std::fprintf(stderr, "fake: an object was used after it was deleted\n");
    std::abort();
}

constexpr int slots = 96;

template <int... Slot> void fill(void** table, std::integer_sequence<int, Slot...>) {
    ((table[Slot] = reinterpret_cast<void*>(&trap<Slot>)), ...);
}

using Entry = std::pair<int, void*>;

inline void** table(std::vector<Entry> const& entries) {
    auto** made = new void*[slots];
    fill(made, std::make_integer_sequence<int, slots>());
    for (auto const& entry : entries)
        if (entry.first >= 0 && entry.first < slots) made[entry.first] = entry.second;
    return made;
}

template <class F> Entry at(int slot, F* function) { return {slot, reinterpret_cast<void*>(function)}; }

// Deleting keeps the memory, so that a later use is detected instead of crashing.
inline void bury(Object* object) {
    static void** const dead = [] {
        auto** made = new void*[slots];
        for (int i = 0; i < slots; ++i) made[i] = reinterpret_cast<void*>(&zombie);
        return made;
    }();
    note("~%s %d", object->kind, object->number);
    if (object->children != 0)
        note("VIOLATION: %s %d was deleted before %d of the objects that depend on it", object->kind,
             object->number, object->children.load());
    if (object->parent) --object->parent->children;
    object->table = dead;
    object->implementation_table = dead;
}

template <class T> T* adopt(T* object, char const* kind, Object* parent, void** public_table, void** table) {
    static auto& counts = *new std::map<std::string, int>;
    static auto& mutex = *new std::mutex;
    object->kind = kind;
    {
        std::lock_guard<std::mutex> lock(mutex);
        object->number = ++counts[kind];
    }
    object->children = 0;
    object->parent = parent;
    if (parent) ++parent->children;
    object->table = public_table;
    object->implementation_table = table;
    object->implementation = &object->implementation_table;
    note("new %s %d", kind, object->number);
    return object;
}

inline void tell(void* logger, int severity, std::string const& text) {
    auto** functions = *static_cast<void***>(logger);
    using Log = void (*)(void*, int, char const*);
    reinterpret_cast<Log>(functions[SLOT_ILogger_log])(logger, severity, text.c_str());
}

}  // namespace fake
