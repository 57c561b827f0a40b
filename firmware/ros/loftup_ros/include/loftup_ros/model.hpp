// A bundle with the heads that the node uses, without ROS.

#ifndef LOFTUP_ROS__MODEL_HPP_
#define LOFTUP_ROS__MODEL_HPP_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <loftup.hpp>

namespace loftup_ros {

/// The parameters of the node, by their names.
struct Settings {
    std::string model_file_path;
    std::string engine = "auto";
    std::string precision = "auto";
    std::string cache_dir;
    std::int64_t output_width = 0;
    std::int64_t output_height = 0;
    std::string class_head;
    std::string depth_head;
    std::string upsampler = "bundle";
    std::vector<std::string> detection_classes;
    std::int64_t detection_min_area = 64;
};

/// A bundle with its heads, and the size of its outputs.
class Model {
  public:
    /// Throws std::invalid_argument for a setting that is not valid, and loftup::Error for a bundle that
    /// cannot be opened.
    explicit Model(const Settings &settings);

    /// Compiles everything for the outputs, which can take minutes on TensorRT.
    void compile() const;
    loftup::Frame encode(const loftup_image &image) const;
    loftup_health health() const { return model_.health(); }

    std::size_t width() const { return width_; }
    std::size_t height() const { return height_; }
    const std::optional<loftup::Head> &class_head() const { return class_head_; }
    const std::optional<loftup::Head> &depth_head() const { return depth_head_; }
    /// The names of the classes, by number.
    const std::vector<std::string> &class_names() const { return class_names_; }
    /// Which classes are detected, by number.
    const std::array<bool, 256> &detected() const { return detected_; }

  private:
    loftup::Model model_;
    std::size_t width_, height_;
    std::int32_t method_;
    std::optional<loftup::Head> class_head_, depth_head_;
    std::vector<std::string> class_names_;
    std::array<bool, 256> detected_{};
};

} // namespace loftup_ros

#endif
