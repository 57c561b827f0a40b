// The real macro registers a factory that makes the node from its options.
#pragma once
#include <memory>

#include "rclcpp/rclcpp.hpp"

#define RCLCPP_COMPONENTS_REGISTER_NODE(NodeClass)                                                 \
    std::shared_ptr<rclcpp::Node> stand_ins_make_component(const rclcpp::NodeOptions &options) {   \
        return std::make_shared<NodeClass>(options);                                               \
    }
