#include "loftup_ros/convert.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <utility>

namespace loftup_ros {

namespace {

struct Encoding {
    const char *name;
    std::int32_t format;
};

// The names of sensor_msgs/image_encodings.hpp; nv12 is the one of Isaac ROS.
constexpr Encoding ENCODINGS[] = {
    {"rgb8", LOFTUP_PIXEL_FORMAT_RGB8},   {"bgr8", LOFTUP_PIXEL_FORMAT_BGR8},
    {"rgba8", LOFTUP_PIXEL_FORMAT_RGBA8}, {"bgra8", LOFTUP_PIXEL_FORMAT_BGRA8},
    {"mono8", LOFTUP_PIXEL_FORMAT_GRAY8}, {"nv12", LOFTUP_PIXEL_FORMAT_NV12},
    {"yuyv", LOFTUP_PIXEL_FORMAT_YUYV},   {"yuv422_yuy2", LOFTUP_PIXEL_FORMAT_YUYV},
    {"uyvy", LOFTUP_PIXEL_FORMAT_UYVY},   {"yuv422", LOFTUP_PIXEL_FORMAT_UYVY},
};

} // namespace

loftup_image view(const std::string &encoding, std::size_t width, std::size_t height,
                  std::size_t step, const std::vector<std::uint8_t> &data) {
    auto known = std::find_if(std::begin(ENCODINGS), std::end(ENCODINGS),
                              [&](const Encoding &e) { return encoding == e.name; });
    if (known == std::end(ENCODINGS)) {
        std::string names;
        for (const Encoding &e : ENCODINGS)
            names += std::string(names.empty() ? "" : ", ") + e.name;
        throw std::invalid_argument("encoding '" + encoding + "' is not supported (" + names + ")");
    }
    // For loftup_encode, 0 is a stride without padding; in a message it is a mistake.
    if (step == 0)
        throw std::invalid_argument("step is 0");
    return loftup::image(data, width, height, known->format, step);
}

std::vector<std::uint8_t> millimeters(loftup::Span<const float> meters) {
    std::vector<std::uint8_t> out;
    out.reserve(2 * meters.size());
    for (float m : meters) {
        float mm = std::round(m * 1000.0F);
        // False for NaN.
        bool valid = mm > 0.0F && mm <= 65535.0F;
        auto value = valid ? static_cast<std::uint16_t>(mm) : std::uint16_t{0};
        out.push_back(static_cast<std::uint8_t>(value & 0xff));
        out.push_back(static_cast<std::uint8_t>(value >> 8));
    }
    return out;
}

std::vector<Region> regions(loftup::Span<const std::uint8_t> classes, std::size_t width,
                            std::size_t height, const std::array<bool, 256> &wanted,
                            std::size_t min_area) {
    std::vector<Region> found;
    std::vector<bool> seen(width * height, false);
    std::vector<std::size_t> stack;
    for (std::size_t start = 0; start < width * height; start++) {
        std::uint8_t id = classes[start];
        if (seen[start] || !wanted[id])
            continue;
        std::size_t area = 0, left = width, right = 0, top = height, bottom = 0;
        auto visit = [&](std::size_t i) {
            if (!seen[i] && classes[i] == id) {
                seen[i] = true;
                stack.push_back(i);
            }
        };
        visit(start);
        while (!stack.empty()) {
            std::size_t i = stack.back(), x = i % width, y = i / width;
            stack.pop_back();
            area++;
            left = std::min(left, x);
            right = std::max(right, x);
            top = std::min(top, y);
            bottom = std::max(bottom, y);
            if (x > 0)
                visit(i - 1);
            if (x + 1 < width)
                visit(i + 1);
            if (y > 0)
                visit(i - width);
            if (y + 1 < height)
                visit(i + width);
        }
        if (area >= min_area)
            found.push_back({id, area, {left, top, right - left + 1, bottom - top + 1}});
    }
    return found;
}

} // namespace loftup_ros
