// A mock libnvonnxparser. It reads the names, types and shapes of the graph's
// inputs and outputs from the protobuf and ignores the rest.
//
// control: parse_error=TEXT
#include "slots.h"
#include "fake.h"

#include <set>

using namespace fake;

namespace {

// A minimal reader for protobuf's wire format: a field number, and a number or a slice.
struct Reader {
    unsigned char const* at;
    unsigned char const* end;
    bool good = true;
    std::uint64_t field = 0, number = 0;
    Reader slice() const { return Reader{body, body + number}; }
    std::string text() const { return std::string(body, body + number); }
    unsigned char const* body = nullptr;

    Reader(void const* from, void const* to)
        : at(static_cast<unsigned char const*>(from)), end(static_cast<unsigned char const*>(to)) {}

    std::uint64_t varint() {
        std::uint64_t value = 0;
        for (int shift = 0; shift < 64; shift += 7) {
            if (at == end) break;
            unsigned char byte = *at++;
            value |= static_cast<std::uint64_t>(byte & 127) << shift;
            if (byte < 128) return value;
        }
        good = false;
        return 0;
    }

    bool next() {
        if (!good || at == end) return false;
        auto tag = varint();
        field = tag >> 3;
        if (!good || field == 0) return good = false;
        switch (tag & 7) {
        case 0: number = varint(); body = nullptr; return good;
        case 1: case 5: {
            std::size_t size = (tag & 7) == 1 ? 8 : 4;
            if (static_cast<std::size_t>(end - at) < size) return good = false;
            at += size;
            body = nullptr;
            return true;
        }
        case 2:
            number = varint();
            if (!good || number > static_cast<std::uint64_t>(end - at)) return good = false;
            body = at;
            at += number;
            return true;
        default: return good = false;
        }
    }
};

int type_of(std::uint64_t onnx) {
    switch (onnx) {
    case 1: return 0;
    case 10: return 1;
    case 3: return 2;
    case 6: return 3;
    case 9: return 4;
    case 2: return 5;
    case 16: return 7;
    case 7: return 8;
    default: return -1;
    }
}

// ValueInfoProto: name = 1, type = 2 { tensor_type = 1 { elem_type = 1, shape = 2 { dim = 1 } } }.
Tensor value_info(Reader info, bool input) {
    Tensor tensor{input, "", -1, {}, {}};
    while (info.next()) {
        if (info.field == 1) tensor.name = info.text();
        if (info.field != 2) continue;
        auto type = info.slice();
        while (type.next()) {
            if (type.field != 1) continue;
            auto of_tensor = type.slice();
            while (of_tensor.next()) {
                if (of_tensor.field == 1) tensor.type = type_of(of_tensor.number);
                if (of_tensor.field != 2) continue;
                auto shape = of_tensor.slice();
                while (shape.next()) {
                    auto dimension = shape.slice();
                    std::int64_t extent = -1;
                    std::string symbol;
                    while (dimension.next()) {
                        if (dimension.field == 1) extent = static_cast<std::int64_t>(dimension.number);
                        if (dimension.field == 2) symbol = dimension.text();
                    }
                    tensor.dims.push_back(extent);
                    tensor.symbols.push_back(symbol);
                }
            }
        }
    }
    return tensor;
}

struct Error {
    void** table;
    std::string text;
    int node;
};

struct Parser {
    void** table;
    Network* network;
    std::vector<Error*> errors;
};

char const* error_text(Error* self) { return self->text.c_str(); }
int error_node(Error* self) { return self->node; }
char const* error_name(Error* self) { return self->node < 0 ? "" : "fake_node"; }
char const* error_operator(Error* self) { return self->node < 0 ? "" : "FakeOperator"; }

void fail(Parser* parser, std::string text, int node) {
    static void** const made = table({at(SLOT_IParserError_desc, &error_text), at(SLOT_IParserError_node, &error_node),
                                      at(SLOT_IParserError_nodeName, &error_name),
                                      at(SLOT_IParserError_nodeOperator, &error_operator)});
    parser->errors.push_back(new Error{made, std::move(text), node});
}

bool parse(Parser* self, void const* model, std::size_t size, char const*) {
    note("parse %zu bytes", size);
    if (auto text = control("parse_error"); !text.empty()) {
        fail(self, text, 3);
        return false;
    }
    Reader reader(model, static_cast<char const*>(model) + size);
    bool graph_seen = false;
    std::set<std::string> constants;
    std::vector<Tensor> found;
    while (reader.next()) {
        if (reader.field != 7 || !reader.body) continue;
        graph_seen = true;
        auto graph = reader.slice();
        while (graph.next()) {
            if (graph.field == 11 || graph.field == 12) found.push_back(value_info(graph.slice(), graph.field == 11));
            if (graph.field == 5) {
                auto constant = graph.slice();
                while (constant.next())
                    if (constant.field == 8 && constant.body) constants.insert(constant.text());
            }
        }
        reader.good = reader.good && graph.good;
    }
    if (!reader.good || !graph_seen || found.empty()) {
        fail(self, "Failed to parse the ONNX model.", -1);
        return false;
    }
    for (auto const& tensor : found)
        if (!constants.count(tensor.name)) self->network->tensors.push_back(tensor);
    return true;
}

int errors(Parser* self) { return static_cast<int>(self->errors.size()); }
void* error(Parser* self, int index) { return self->errors[static_cast<std::size_t>(index)]; }

void destroy(Parser* self) {
    static void** const dead = [] {
        auto** made = new void*[slots];
        for (int i = 0; i < slots; ++i) made[i] = reinterpret_cast<void*>(&zombie);
        return made;
    }();
    note("~Parser");
    --self->network->children;
    self->table = dead;
}

}  // namespace

EXPORT int getNvOnnxParserVersion() { return FAKE_PARSER_VERSION; }

EXPORT void* createNvOnnxParser_INTERNAL(void* network, void*, int version) {
    note("createNvOnnxParser_INTERNAL");
    if (version != FAKE_PARSER_VERSION) note("VIOLATION: parser called with version %d", version);
    static void** const made = table({at(SLOT_IParser_parse, &parse), at(SLOT_IParser_getNbErrors, &errors),
                                      at(SLOT_IParser_getError, &error), at(SLOT_IParser_delete, &destroy)});
    auto* parser = new Parser{made, static_cast<Network*>(network), {}};
    ++parser->network->children;
    return parser;
}
