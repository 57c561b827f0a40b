#include "loftup_ros/loftup_node.hpp"

#include <algorithm>
#include <exception>
#include <utility>
#include <vector>

#include "rclcpp_components/register_node_macro.hpp"

#include "loftup_ros/convert.hpp"

namespace loftup_ros {

namespace {

constexpr int LOG_INTERVAL_MS = 5000;

rcl_interfaces::msg::ParameterDescriptor describe(const std::string &description) {
    rcl_interfaces::msg::ParameterDescriptor descriptor;
    descriptor.description = description;
    descriptor.read_only = true;
    return descriptor;
}

bool wanted(const std::shared_ptr<rclcpp::PublisherBase> &publisher) {
    return publisher && publisher->get_subscription_count() > 0;
}

std::unique_ptr<sensor_msgs::msg::Image> map_of(const sensor_msgs::msg::Image &image,
                                                const Model &model, const std::string &encoding,
                                                std::size_t bytes_per_pixel,
                                                std::vector<std::uint8_t> data) {
    auto map = std::make_unique<sensor_msgs::msg::Image>();
    map->header = image.header;
    map->width = static_cast<std::uint32_t>(model.width());
    map->height = static_cast<std::uint32_t>(model.height());
    map->encoding = encoding;
    map->is_bigendian = 0;
    map->step = static_cast<std::uint32_t>(bytes_per_pixel * model.width());
    map->data = std::move(data);
    return map;
}

} // namespace

LoftupNode::LoftupNode(const rclcpp::NodeOptions &options)
    : rclcpp::Node("loftup", options), settings_(declare_settings()), model_(settings_) {
    const rclcpp::QoS qos(2);
    if (model_.class_head()) {
        mask_ = create_publisher<Image>("mask", qos);
        publish_labels();
        if (!settings_.detection_classes.empty())
            detections_ = create_publisher<Detection2DArray>("detections", qos);
    }
    if (model_.depth_head())
        depth_ = create_publisher<Image>("depth", qos);
    diagnostics_ = create_publisher<DiagnosticArray>("/diagnostics", rclcpp::QoS(1));
    timer_ = create_wall_timer(std::chrono::seconds(1), [this] { diagnose(); });
    images_ = create_subscription<Image>(
        "image", rclcpp::SensorDataQoS().keep_last(1),
        [this](Image::ConstSharedPtr image) { receive(std::move(image)); });
    // Last: an exception of the constructor must not find it running.
    worker_ = std::thread([this] { run(); });
}

LoftupNode::~LoftupNode() {
    images_.reset();
    timer_.reset();
    latest_.close();
    worker_.join();
}

Settings LoftupNode::declare_settings() {
    Settings s;
    auto text = [this](const char *name, std::string &value, const char *description) {
        value = declare_parameter<std::string>(name, value, describe(description));
    };
    auto count = [this](const char *name, std::int64_t &value, const char *description) {
        value = declare_parameter<std::int64_t>(name, value, describe(description));
    };
    text("model_file_path", s.model_file_path, "Bundle made by `loftup convert`");
    text("engine", s.engine, "auto, tensorrt or cpu");
    text("precision", s.precision, "auto, fp32, fp16, int8 or fp16-weights");
    text("cache_dir", s.cache_dir, "Where TensorRT's engines are cached; empty for the user's cache");
    count("output_width", s.output_width, "Columns of the outputs; 0 for those of the model's input");
    count("output_height", s.output_height, "Rows of the outputs; 0 for those of the model's input");
    text("class_head", s.class_head, "Head of classes or words; empty for the only one");
    text("depth_head", s.depth_head, "Head of depth; empty for the only one");
    text("upsampler", s.upsampler, "bundle, or jbu for joint bilateral upsampling");
    s.detection_classes = declare_parameter<std::vector<std::string>>(
        "detection_classes", s.detection_classes,
        describe("Names of the classes whose connected regions are published as detections"));
    count("detection_min_area", s.detection_min_area,
          "Pixels of the output that a region must have to be a detection");
    return s;
}

void LoftupNode::publish_labels() {
    // On Humble, communication within a process refuses transient local durability.
    rclcpp::PublisherOptions options;
    options.use_intra_process_comm = rclcpp::IntraProcessSetting::Disable;
    labels_ = create_publisher<LabelInfo>("label_info", rclcpp::QoS(1).transient_local(), options);
    LabelInfo info;
    info.header.stamp = now();
    // Classes are not thresholded.
    info.threshold = 0.0F;
    for (const std::string &name : model_.class_names()) {
        vision_msgs::msg::VisionClass entry;
        entry.class_id = static_cast<std::uint16_t>(info.class_map.size());
        entry.class_name = name;
        info.class_map.push_back(entry);
    }
    labels_->publish(info);
}

void LoftupNode::receive(Image::ConstSharedPtr image) {
    bool replaced = latest_.put({std::move(image), Clock::now()});
    std::lock_guard<std::mutex> lock(mutex_);
    counters_.received++;
    counters_.dropped += replaced ? 1 : 0;
}

void LoftupNode::run() {
    RCLCPP_INFO(get_logger(), "Loading %s for outputs of %zu x %zu; TensorRT may build engines for minutes",
                settings_.model_file_path.c_str(), model_.width(), model_.height());
    try {
        model_.compile();
    } catch (const std::exception &e) {
        failed(e.what());
    }
    {
        std::lock_guard<std::mutex> lock(mutex_);
        ready_ = true;
    }
    RCLCPP_INFO(get_logger(), "Ready on %s", model_.health().engine);
    while (auto arrival = latest_.take()) {
        try {
            if (!process(*arrival->image))
                continue;
        } catch (const std::exception &e) {
            failed(e.what());
            continue;
        }
        std::chrono::duration<double, std::milli> latency = Clock::now() - arrival->time;
        std::lock_guard<std::mutex> lock(mutex_);
        counters_.processed++;
        counters_.recent++;
        counters_.latency_sum_ms += latency.count();
        counters_.latency_max_ms = std::max(counters_.latency_max_ms, latency.count());
    }
}

bool LoftupNode::process(const Image &image) {
    const bool mask = wanted(mask_), detections = wanted(detections_), depth = wanted(depth_);
    if (!mask && !detections && !depth)
        return false;
    auto frame = model_.encode(
        view(image.encoding, image.width, image.height, image.step, image.data));
    if (mask || detections) {
        auto classes = frame.classes(*model_.class_head());
        if (detections)
            publish_detections(image, classes);
        if (mask)
            mask_->publish(map_of(image, model_, "mono8", 1, std::move(classes)));
    }
    if (depth) {
        auto meters = frame.depth(*model_.depth_head());
        depth_->publish(map_of(image, model_, "16UC1", 2, millimeters(meters)));
    }
    return true;
}

void LoftupNode::publish_detections(const Image &image,
                                    loftup::Span<const std::uint8_t> classes) {
    // Boxes are in pixels of the image, as its camera_info is.
    const double scale_x = static_cast<double>(image.width) / static_cast<double>(model_.width());
    const double scale_y = static_cast<double>(image.height) / static_cast<double>(model_.height());
    auto out = std::make_unique<Detection2DArray>();
    out->header = image.header;
    for (const Region &region : regions(classes, model_.width(), model_.height(), model_.detected(),
                                        static_cast<std::size_t>(settings_.detection_min_area))) {
        vision_msgs::msg::Detection2D detection;
        detection.header = image.header;
        vision_msgs::msg::ObjectHypothesisWithPose result;
        result.hypothesis.class_id = model_.class_names()[region.class_id];
        // A region has no score of its own.
        result.hypothesis.score = 1.0;
        detection.results.push_back(result);
        const double width = static_cast<double>(region.box.width) * scale_x;
        const double height = static_cast<double>(region.box.height) * scale_y;
        detection.bbox.center.position.x = static_cast<double>(region.box.x) * scale_x + width / 2;
        detection.bbox.center.position.y = static_cast<double>(region.box.y) * scale_y + height / 2;
        detection.bbox.size_x = width;
        detection.bbox.size_y = height;
        out->detections.push_back(std::move(detection));
    }
    detections_->publish(std::move(out));
}

void LoftupNode::failed(const std::string &message) {
    {
        std::lock_guard<std::mutex> lock(mutex_);
        counters_.errors++;
        counters_.recent_errors++;
        counters_.last_error = message;
    }
    RCLCPP_ERROR_THROTTLE(get_logger(), *get_clock(), LOG_INTERVAL_MS, "%s", message.c_str());
}

void LoftupNode::diagnose() {
    using diagnostic_msgs::msg::DiagnosticStatus;
    Counters counters;
    bool ready;
    {
        std::lock_guard<std::mutex> lock(mutex_);
        counters = counters_;
        ready = ready_;
        counters_.recent = counters_.recent_errors = 0;
        counters_.latency_sum_ms = counters_.latency_max_ms = 0;
    }
    const loftup_health health = model_.health();
    DiagnosticStatus status;
    status.name = std::string(get_fully_qualified_name()) + ": perception";
    status.hardware_id = health.engine;
    status.level = DiagnosticStatus::OK;
    status.message = ready ? "running" : "loading";
    if (health.degraded) {
        status.level = DiagnosticStatus::WARN;
        status.message = std::string("the fallback engine answers: ") + health.reason;
    }
    if (counters.recent_errors > 0) {
        status.level = counters.recent > 0 ? DiagnosticStatus::WARN : DiagnosticStatus::ERROR;
        status.message = counters.last_error;
    }
    auto add = [&status](const char *key, const std::string &value) {
        diagnostic_msgs::msg::KeyValue entry;
        entry.key = key;
        entry.value = value;
        status.values.push_back(entry);
    };
    const double mean =
        counters.recent > 0 ? counters.latency_sum_ms / static_cast<double>(counters.recent) : 0.0;
    add("engine", health.engine);
    add("degraded", health.degraded ? "true" : "false");
    add("frames received", std::to_string(counters.received));
    add("frames processed", std::to_string(counters.processed));
    add("frames dropped", std::to_string(counters.dropped));
    add("errors", std::to_string(counters.errors));
    add("last error", counters.last_error);
    add("latency mean (ms)", std::to_string(mean));
    add("latency max (ms)", std::to_string(counters.latency_max_ms));
    add("engine errors", std::to_string(health.errors));
    add("engine time-outs", std::to_string(health.timeouts));
    add("engine retries", std::to_string(health.retries));
    DiagnosticArray array;
    array.header.stamp = now();
    array.status.push_back(std::move(status));
    diagnostics_->publish(array);
}

} // namespace loftup_ros

RCLCPP_COMPONENTS_REGISTER_NODE(loftup_ros::LoftupNode)
