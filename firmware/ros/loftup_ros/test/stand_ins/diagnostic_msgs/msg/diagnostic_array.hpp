#pragma once
#include <memory>
#include <string>
#include <vector>

#include "std_msgs/msg/header.hpp"

namespace diagnostic_msgs::msg {
struct KeyValue {
    std::string key;
    std::string value;
};
struct DiagnosticStatus {
    static constexpr unsigned char OK = 0;
    static constexpr unsigned char WARN = 1;
    static constexpr unsigned char ERROR = 2;
    static constexpr unsigned char STALE = 3;

    unsigned char level = 0;
    std::string name;
    std::string message;
    std::string hardware_id;
    std::vector<KeyValue> values;
};
struct DiagnosticArray {
    using ConstSharedPtr = std::shared_ptr<const DiagnosticArray>;

    std_msgs::msg::Header header;
    std::vector<DiagnosticStatus> status;
};
} // namespace diagnostic_msgs::msg
