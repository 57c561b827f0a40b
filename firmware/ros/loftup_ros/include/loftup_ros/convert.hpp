// Between sensor_msgs/Image and loftup, without ROS.

#ifndef LOFTUP_ROS__CONVERT_HPP_
#define LOFTUP_ROS__CONVERT_HPP_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <loftup.hpp>

namespace loftup_ros {

/// Views the pixels of a message. Throws std::invalid_argument for an encoding that is not known or a
/// step of 0; sizes are checked by loftup_encode.
loftup_image view(const std::string &encoding, std::size_t width, std::size_t height,
                  std::size_t step, const std::vector<std::uint8_t> &data);

/// Converts meters to 16UC1: little-endian millimeters. 0, no depth, where the depth is not finite, not
/// positive or above 65.535 m.
std::vector<std::uint8_t> millimeters(loftup::Span<const float> meters);

/// Connected pixels of one class, and the smallest box around them.
struct Region {
    std::uint8_t class_id;
    std::size_t area;
    loftup::Rect box;
};

/// Finds the regions of the wanted classes with at least `min_area` pixels, from top to bottom. Pixels are
/// connected if they share an edge.
std::vector<Region> regions(loftup::Span<const std::uint8_t> classes, std::size_t width,
                            std::size_t height, const std::array<bool, 256> &wanted,
                            std::size_t min_area);

} // namespace loftup_ros

#endif
