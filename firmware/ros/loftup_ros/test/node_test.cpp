// The node between stand-ins of ROS 2: its outputs are those of loftup.hpp, bit for bit.
//
//     node_test BUNDLE     with the heads `classes` and `depth`

#include <algorithm>
#include <cmath>
#include <future>
#include <map>
#include <tuple>

#include "check.hpp"
#include "inbox.hpp"
#include "loftup_ros/convert.hpp"
#include "loftup_ros/loftup_node.hpp"

// Made by RCLCPP_COMPONENTS_REGISTER_NODE.
std::shared_ptr<rclcpp::Node> stand_ins_make_component(const rclcpp::NodeOptions &options);

namespace {

using sensor_msgs::msg::Image;
using vision_msgs::msg::Detection2DArray;

constexpr std::size_t WIDTH = 37, HEIGHT = 26;

struct Format {
    const char *encoding;
    loftup_pixel_format format;
    std::size_t bytes, rows_of_4;
};

const Format FORMATS[] = {
    {"rgb8", LOFTUP_PIXEL_FORMAT_RGB8, 3, 4},   {"bgr8", LOFTUP_PIXEL_FORMAT_BGR8, 3, 4},
    {"rgba8", LOFTUP_PIXEL_FORMAT_RGBA8, 4, 4}, {"bgra8", LOFTUP_PIXEL_FORMAT_BGRA8, 4, 4},
    {"mono8", LOFTUP_PIXEL_FORMAT_GRAY8, 1, 4}, {"nv12", LOFTUP_PIXEL_FORMAT_NV12, 1, 6},
    {"yuyv", LOFTUP_PIXEL_FORMAT_YUYV, 2, 4},   {"yuv422_yuy2", LOFTUP_PIXEL_FORMAT_YUYV, 2, 4},
    {"uyvy", LOFTUP_PIXEL_FORMAT_UYVY, 2, 4},   {"yuv422", LOFTUP_PIXEL_FORMAT_UYVY, 2, 4},
};

/// Disks on a gradient, with other bytes in the padding of rows.
Image picture(const Format &format, std::int32_t sec) {
    Image image;
    image.header.stamp = {sec, 250000000};
    image.header.frame_id = "front_camera_optical_frame";
    image.width = 62;
    image.height = 44;
    image.encoding = format.encoding;
    image.step = static_cast<std::uint32_t>(image.width * format.bytes + 7);
    const std::size_t rows = image.height / 4 * format.rows_of_4;
    for (std::size_t y = 0; y < rows; y++)
        for (std::size_t x = 0; x < image.step; x++) {
            std::size_t column = x / format.bytes, channel = x % format.bytes;
            std::size_t dx = (column + static_cast<std::size_t>(sec)) % 20, dy = y % 22;
            bool disk = (dx > 4 && dx < 15) && (dy > 5 && dy < 17);
            std::size_t value = disk ? 200 - 60 * channel : 30 + y * 3 + 20 * channel;
            image.data.push_back(static_cast<std::uint8_t>(x < image.width * format.bytes ? value : 255));
        }
    return image;
}

/// What loftup.hpp gives for an image.
struct Reference {
    explicit Reference(const char *bundle) : model(open(bundle)) {}
    static loftup::Model open(const char *bundle) {
        auto options = loftup::options();
        options.engine = LOFTUP_ENGINE_CPU;
        return loftup::Model::open(bundle, options);
    }
    loftup::Frame encode(const Image &image, std::int32_t format, std::int32_t method) const {
        auto options = loftup::encode_options();
        options.method = method;
        return model.encode(loftup::image(image.data, image.width, image.height, format, image.step),
                            WIDTH, HEIGHT, options);
    }
    loftup::Model model;
};

rclcpp::NodeOptions options(const std::string &bundle) {
    rclcpp::NodeOptions options;
    options.append_parameter_override("model_file_path", bundle);
    options.append_parameter_override("engine", std::string("cpu"));
    options.append_parameter_override("output_width", static_cast<std::int64_t>(WIDTH));
    options.append_parameter_override("output_height", static_cast<std::int64_t>(HEIGHT));
    return options;
}

void check_map(const Image &map, const Image &image, const char *encoding, std::size_t bytes) {
    CHECK(map.width == WIDTH && map.height == HEIGHT && map.step == WIDTH * bytes);
    CHECK(map.data.size() == WIDTH * HEIGHT * bytes && map.encoding == encoding);
    CHECK(map.is_bigendian == 0);
    CHECK(map.header.stamp.sec == image.header.stamp.sec);
    CHECK(map.header.stamp.nanosec == image.header.stamp.nanosec);
    CHECK(map.header.frame_id == image.header.frame_id);
}

/// Millimeters of a message.
std::vector<std::uint16_t> levels(const Image &map) {
    std::vector<std::uint16_t> out(map.data.size() / 2);
    for (std::size_t i = 0; i < out.size(); i++)
        out[i] = static_cast<std::uint16_t>(map.data[2 * i] + 256 * map.data[2 * i + 1]);
    return out;
}

/// Boxes of regions in another way: pixels take the smallest number among those connected to them,
/// until nothing changes. Class, left, top, right and bottom, sorted.
using Box = std::tuple<std::size_t, std::size_t, std::size_t, std::size_t, std::size_t>;
std::vector<Box> boxes(const std::vector<std::uint8_t> &map) {
    std::vector<std::size_t> number(map.size());
    for (std::size_t i = 0; i < map.size(); i++)
        number[i] = i;
    bool changed = true;
    auto join = [&](std::size_t a, std::size_t b) {
        if (map[a] == map[b] && number[a] != number[b]) {
            number[a] = number[b] = std::min(number[a], number[b]);
            changed = true;
        }
    };
    while (changed) {
        changed = false;
        for (std::size_t i = 0; i < map.size(); i++) {
            if (i % WIDTH + 1 < WIDTH)
                join(i, i + 1);
            if (i + WIDTH < map.size())
                join(i, i + WIDTH);
        }
    }
    std::map<std::size_t, Box> found;
    for (std::size_t i = 0; i < map.size(); i++) {
        std::size_t x = i % WIDTH, y = i / WIDTH;
        auto &[id, left, top, right, bottom] =
            found.try_emplace(number[i], map[i], x, y, x, y).first->second;
        left = std::min(left, x);
        top = std::min(top, y);
        right = std::max(right, x);
        bottom = std::max(bottom, y);
    }
    std::vector<Box> out;
    for (const auto &[_, box] : found)
        out.push_back(box);
    std::sort(out.begin(), out.end());
    return out;
}

void check_detections(const Detection2DArray &array, const Image &image, const Image &mask,
                      const std::vector<std::string> &names) {
    std::vector<Box> found;
    auto pixel = [](double at, std::size_t out, std::size_t in) {
        return static_cast<std::size_t>(std::lround(at * static_cast<double>(out) / static_cast<double>(in)));
    };
    for (const auto &d : array.detections) {
        CHECK(d.results.size() == 1 && d.bbox.center.theta == 0);
        CHECK(d.header.stamp.sec == image.header.stamp.sec);
        auto name = std::find(names.begin(), names.end(), d.results[0].hypothesis.class_id);
        CHECK(name != names.end());
        const auto &center = d.bbox.center.position;
        found.emplace_back(name - names.begin(),
                           pixel(center.x - d.bbox.size_x / 2, WIDTH, image.width),
                           pixel(center.y - d.bbox.size_y / 2, HEIGHT, image.height),
                           pixel(center.x + d.bbox.size_x / 2, WIDTH, image.width) - 1,
                           pixel(center.y + d.bbox.size_y / 2, HEIGHT, image.height) - 1);
    }
    std::sort(found.begin(), found.end());
    CHECK(found == boxes(mask.data));
    CHECK(array.header.frame_id == image.header.frame_id);
}

std::map<std::string, std::string> values(const diagnostic_msgs::msg::DiagnosticStatus &status) {
    std::map<std::string, std::string> out;
    for (const auto &v : status.values)
        out[v.key] = v.value;
    return out;
}

void test_outputs(const char *bundle, const std::string &upsampler, std::int32_t method) {
    const Reference reference(bundle);
    const auto class_head = reference.model.head("classes");
    const auto depth_head = reference.model.head("depth");
    std::vector<std::string> names;
    for (std::size_t i = 0; i < class_head.info().classes; i++)
        names.emplace_back(class_head.class_name(i));

    auto given = options(bundle);
    given.append_parameter_override("upsampler", upsampler);
    given.append_parameter_override("detection_classes", names);
    given.append_parameter_override("detection_min_area", std::int64_t{1});
    auto node = stand_ins_make_component(given);
    rclcpp::Node test("test");
    auto camera = test.create_publisher<Image>("image", rclcpp::SensorDataQoS());

    // Only what is subscribed to.
    Listener<Image> masks(test, "mask", rclcpp::QoS(10));
    std::size_t depths_before = stand_ins::topic("depth").published;
    std::size_t detections_before = stand_ins::topic("detections").published;
    camera->publish(picture(FORMATS[0], 1));
    check_map(*masks.inbox.next(), picture(FORMATS[0], 1), "mono8", 1);
    camera->publish(picture(FORMATS[0], 2));
    check_map(*masks.inbox.next(), picture(FORMATS[0], 2), "mono8", 1);
    CHECK(stand_ins::topic("depth").published == depths_before);
    CHECK(stand_ins::topic("detections").published == detections_before);

    Listener<Image> depths(test, "depth", rclcpp::QoS(10));
    Listener<Detection2DArray> detections(test, "detections", rclcpp::SensorDataQoS());
    std::vector<std::vector<std::uint8_t>> different;
    for (std::size_t i = 0; i < std::size(FORMATS); i++) {
        const Image image = picture(FORMATS[i], static_cast<std::int32_t>(10 + i));
        camera->publish(image);
        auto mask = masks.inbox.next();
        auto depth = depths.inbox.next();
        check_map(*mask, image, "mono8", 1);
        check_map(*depth, image, "16UC1", 2);
        auto frame = reference.encode(image, FORMATS[i].format, method);
        CHECK(mask->data == frame.classes(class_head));
        auto meters = frame.depth(depth_head);
        auto seen = levels(*depth);
        for (std::size_t p = 0; p < meters.size(); p++)
            CHECK(seen[p] == std::lround(meters[p] * 1000.0F) && seen[p] > 0);
        check_detections(*detections.inbox.next(), image, *mask, names);
        different.push_back(mask->data);
    }
    // Otherwise, the comparisons would say little.
    std::sort(different.begin(), different.end());
    CHECK(std::unique(different.begin(), different.end()) - different.begin() >= 3);
}

void test_labels(const char *bundle) {
    auto node = stand_ins_make_component(options(bundle));
    rclcpp::Node test("test");
    // Subscribes after they were published.
    Listener<vision_msgs::msg::LabelInfo> late(test, "label_info", rclcpp::QoS(1).transient_local());
    auto info = late.inbox.next();
    auto head = Reference(bundle).model.head("classes");
    CHECK(info->class_map.size() == head.info().classes && !info->class_map.empty());
    for (std::size_t i = 0; i < info->class_map.size(); i++) {
        CHECK(info->class_map[i].class_id == i);
        CHECK(info->class_map[i].class_name == head.class_name(i));
    }
    CHECK(late.inbox.empty());
}

void test_faults(const char *bundle) {
    using diagnostic_msgs::msg::DiagnosticStatus;
    Inbox<std::string> errors;
    stand_ins::on_error() = [&](const std::string &message) { errors.push(message); };
    auto node = stand_ins_make_component(options(bundle));
    rclcpp::Node test("test");
    auto camera = test.create_publisher<Image>("image", rclcpp::SensorDataQoS());
    Listener<diagnostic_msgs::msg::DiagnosticArray> reports(test, "/diagnostics", rclcpp::QoS(10));

    // A subscriber that holds the thread of the node with the first image.
    Inbox<Image::ConstSharedPtr> masks;
    std::promise<void> release;
    auto released = release.get_future().share();
    auto subscription = test.create_subscription<Image>(
        "mask", rclcpp::QoS(10), [&](Image::ConstSharedPtr mask) {
            masks.push(mask);
            released.wait();
        });
    camera->publish(picture(FORMATS[0], 1));
    CHECK(masks.next()->header.stamp.sec == 1);
    for (std::int32_t sec : {2, 3, 4})
        camera->publish(picture(FORMATS[0], sec));
    release.set_value();
    // 3 replaced 2, and 4 replaced 3.
    CHECK(masks.next()->header.stamp.sec == 4);

    struct Case {
        const char *error;
        void (*spoil)(Image &);
    };
    const Case cases[] = {
        {"bayer_rggb8", [](Image &i) { i.encoding = "bayer_rggb8"; }},
        {"not supported", [](Image &i) { i.encoding.clear(); }},
        {"step", [](Image &i) { i.step = 0; }},
        {"stride", [](Image &i) { i.step = 5; }},
        {"image", [](Image &i) { i.data.resize(100); }},
        {"image", [](Image &i) { i.data.clear(); }},
        {"image", [](Image &i) { i.width = 0; }},
        {"image", [](Image &i) { i.height = 0xffffffff; }},
    };
    std::uint64_t count = 0;
    for (const Case &c : cases) {
        Image image = picture(FORMATS[0], 5);
        c.spoil(image);
        camera->publish(image);
        std::string error = errors.next();
        std::printf("%s\n", error.c_str());
        CHECK(error.find(c.error) != std::string::npos);
        count++;
    }
    stand_ins::run_timers();
    auto report = reports.inbox.next()->status.at(0);
    auto value = values(report);
    CHECK(report.name == "/loftup: perception");
    // Images were processed in this period too.
    CHECK(report.level == DiagnosticStatus::WARN);
    CHECK(value.at("frames received") == std::to_string(4 + count));
    CHECK(value.at("frames processed") == "2");
    CHECK(value.at("frames dropped") == "2");
    CHECK(value.at("errors") == std::to_string(count));
    CHECK(value.at("degraded") == "false" && !value.at("engine").empty());
    CHECK(std::stod(value.at("latency max (ms)")) >= std::stod(value.at("latency mean (ms)")));
    CHECK(std::stod(value.at("latency mean (ms)")) > 0);

    // Only errors in this period.
    Image bad = picture(FORMATS[0], 6);
    bad.encoding = "jpeg";
    camera->publish(bad);
    errors.next();
    stand_ins::run_timers();
    report = reports.inbox.next()->status.at(0);
    CHECK(report.level == DiagnosticStatus::ERROR && report.message.find("jpeg") != std::string::npos);

    // It goes on, and nothing is new in the last period.
    stand_ins::run_timers();
    report = reports.inbox.next()->status.at(0);
    CHECK(report.level == DiagnosticStatus::OK && report.message == "running");
    camera->publish(picture(FORMATS[1], 7));
    CHECK(masks.next()->header.stamp.sec == 7);
    CHECK(errors.empty() && masks.empty());
    node.reset();
    stand_ins::on_error() = nullptr;
}

void test_parameters(const char *bundle) {
    auto refuses = [&](const char *name, auto value, const std::string &why) {
        auto given = options(bundle);
        given.append_parameter_override(name, value);
        CHECK_THROWS(stand_ins_make_component(given), why);
    };
    CHECK_THROWS(stand_ins_make_component(rclcpp::NodeOptions()), "model_file_path is not set");
    refuses("model_file_path", std::string("/nowhere.loftup"), "/nowhere.loftup");
    refuses("engine", std::string("gpu"), "engine: 'gpu' is not one of auto, tensorrt, cpu");
    refuses("precision", std::string("int4"), "precision: 'int4'");
    refuses("precision", std::string("int8"), "quantize");
    refuses("upsampler", std::string("bilinear"), "upsampler: 'bilinear' is not one of bundle, jbu");
    refuses("output_width", std::int64_t{-1}, "output_width is negative");
    refuses("output_height", std::int64_t{-1}, "output_height is negative");
    refuses("class_head", std::string("depth"),
            "class_head: the bundle has no such head 'depth', but classes");
    refuses("depth_head", std::string("classes"), "depth_head: the bundle has no such head");
    refuses("detection_classes", std::vector<std::string>{"unicorn"}, "unicorn");
    refuses("detection_min_area", std::int64_t{0}, "detection_min_area");
}

} // namespace

int main(int count, char **arguments) {
    if (count != 2) {
        std::fprintf(stderr, "usage: node_test BUNDLE\n");
        return 2;
    }
    test_parameters(arguments[1]);
    test_labels(arguments[1]);
    test_outputs(arguments[1], "bundle", LOFTUP_METHOD_BUNDLE);
    test_outputs(arguments[1], "jbu", LOFTUP_METHOD_JBU);
    test_faults(arguments[1]);
    std::puts("ok");
}
