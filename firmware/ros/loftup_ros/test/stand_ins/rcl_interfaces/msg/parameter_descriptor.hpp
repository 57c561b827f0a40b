#pragma once
#include <string>

namespace rcl_interfaces::msg {
struct ParameterDescriptor {
    std::string description;
    bool read_only = false;
};
} // namespace rcl_interfaces::msg
