// The ROS 2 node.

#ifndef LOFTUP_ROS__LOFTUP_NODE_HPP_
#define LOFTUP_ROS__LOFTUP_NODE_HPP_

#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "diagnostic_msgs/msg/diagnostic_array.hpp"
#include "rclcpp/rclcpp.hpp"
#include "sensor_msgs/msg/image.hpp"
#include "vision_msgs/msg/detection2_d_array.hpp"
#include "vision_msgs/msg/label_info.hpp"

#include "loftup_ros/latest.hpp"
#include "loftup_ros/model.hpp"

namespace loftup_ros {

/// Publishes class maps, depth maps and detections of images. A thread of its own processes the newest
/// image, so that no callback waits.
class LoftupNode : public rclcpp::Node {
  public:
    /// Throws an exception that says why, if a parameter is not valid or the bundle cannot be opened.
    explicit LoftupNode(const rclcpp::NodeOptions &options = rclcpp::NodeOptions());
    ~LoftupNode() override;

  private:
    using Image = sensor_msgs::msg::Image;
    using LabelInfo = vision_msgs::msg::LabelInfo;
    using Detection2DArray = vision_msgs::msg::Detection2DArray;
    using DiagnosticArray = diagnostic_msgs::msg::DiagnosticArray;
    using Clock = std::chrono::steady_clock;

    struct Arrival {
        Image::ConstSharedPtr image;
        Clock::time_point time;
    };

    /// Since the start, and since the last diagnostics.
    struct Counters {
        std::uint64_t received = 0, processed = 0, dropped = 0, errors = 0;
        std::string last_error;
        std::uint64_t recent = 0, recent_errors = 0;
        double latency_sum_ms = 0, latency_max_ms = 0;
    };

    Settings declare_settings();
    void publish_labels();
    void receive(Image::ConstSharedPtr image);
    void run();
    /// Returns whether anything was published.
    bool process(const Image &image);
    void publish_detections(const Image &image, loftup::Span<const std::uint8_t> classes);
    void failed(const std::string &message);
    void diagnose();

    Settings settings_;
    Model model_;
    Latest<Arrival> latest_;
    std::mutex mutex_;
    Counters counters_;
    bool ready_ = false;

    rclcpp::Publisher<Image>::SharedPtr mask_, depth_;
    rclcpp::Publisher<LabelInfo>::SharedPtr labels_;
    rclcpp::Publisher<Detection2DArray>::SharedPtr detections_;
    rclcpp::Publisher<DiagnosticArray>::SharedPtr diagnostics_;
    rclcpp::Subscription<Image>::SharedPtr images_;
    rclcpp::TimerBase::SharedPtr timer_;
    std::thread worker_;
};

} // namespace loftup_ros

#endif
