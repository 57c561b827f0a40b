#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "std_msgs/msg/header.hpp"

namespace vision_msgs::msg {
struct VisionClass {
    std::uint16_t class_id = 0;
    std::string class_name;
};
struct LabelInfo {
    using ConstSharedPtr = std::shared_ptr<const LabelInfo>;

    std_msgs::msg::Header header;
    std::vector<VisionClass> class_map;
    float threshold = 0;
};
} // namespace vision_msgs::msg
