#include "loftup_ros/model.hpp"

#include <algorithm>
#include <initializer_list>
#include <stdexcept>
#include <utility>

namespace loftup_ros {

namespace {

using Choices = std::initializer_list<std::pair<const char *, std::int32_t>>;

std::string join(const std::vector<std::string> &names) {
    std::string text;
    for (const std::string &name : names)
        text += (text.empty() ? "" : ", ") + name;
    return text;
}

std::int32_t choose(const char *parameter, const std::string &value, Choices choices) {
    std::vector<std::string> names;
    for (const auto &[name, number] : choices) {
        if (value == name)
            return number;
        names.push_back(name);
    }
    throw std::invalid_argument(std::string(parameter) + ": '" + value + "' is not one of " +
                                join(names));
}

loftup::Model open(const Settings &settings) {
    if (settings.model_file_path.empty())
        throw std::invalid_argument(
            "model_file_path is not set: give the path of a bundle made by `loftup convert`");
    if (!loftup::compatible())
        throw std::invalid_argument("the installed libloftup has another binary interface than the "
                                    "header that loftup_ros was built with: build it again");
    auto options = loftup::options();
    options.engine = choose("engine", settings.engine,
                            {{"auto", LOFTUP_ENGINE_AUTO},
                             {"tensorrt", LOFTUP_ENGINE_TENSORRT},
                             {"cpu", LOFTUP_ENGINE_CPU}});
    options.precision = choose("precision", settings.precision,
                               {{"auto", LOFTUP_PRECISION_AUTO},
                                {"fp32", LOFTUP_PRECISION_FP32},
                                {"fp16", LOFTUP_PRECISION_FP16},
                                {"int8", LOFTUP_PRECISION_INT8},
                                {"fp16-weights", LOFTUP_PRECISION_FP16_WEIGHTS}});
    if (!settings.cache_dir.empty())
        options.cache_directory = settings.cache_dir.c_str();
    return loftup::Model::open(settings.model_file_path, options);
}

std::size_t side(const char *parameter, std::int64_t value, std::size_t fallback) {
    if (value < 0)
        throw std::invalid_argument(std::string(parameter) + " is negative");
    return value > 0 ? static_cast<std::size_t>(value) : fallback;
}

/// Opens the head of that name, or the only one of its kind if the name is empty.
std::optional<loftup::Head> head(const loftup::Model &model, const char *parameter,
                                 const std::string &name,
                                 std::initializer_list<std::int32_t> kinds) {
    std::vector<std::string> names;
    for (std::size_t i = 0; i < model.info().heads; i++) {
        auto info = model.head_info(i);
        if (std::find(kinds.begin(), kinds.end(), info.kind) != kinds.end())
            names.emplace_back(info.name);
    }
    if (name.empty()) {
        if (names.size() > 1)
            throw std::invalid_argument(std::string(parameter) +
                                        " is not set, and the bundle has several: " + join(names));
        return names.empty() ? std::nullopt : std::optional(model.head(names.front()));
    }
    if (std::find(names.begin(), names.end(), name) == names.end())
        throw std::invalid_argument(std::string(parameter) + ": the bundle has no such head '" + name +
                                    "', but " + (names.empty() ? "none of its kind" : join(names)));
    return model.head(name);
}

} // namespace

Model::Model(const Settings &settings)
    : model_(open(settings)),
      width_(side("output_width", settings.output_width, model_.info().image_width)),
      height_(side("output_height", settings.output_height, model_.info().image_height)),
      method_(choose("upsampler", settings.upsampler,
                     {{"bundle", LOFTUP_METHOD_BUNDLE}, {"jbu", LOFTUP_METHOD_JBU}})),
      class_head_(head(model_, "class_head", settings.class_head,
                       {LOFTUP_HEAD_KIND_CLASSES, LOFTUP_HEAD_KIND_WORDS})),
      depth_head_(head(model_, "depth_head", settings.depth_head, {LOFTUP_HEAD_KIND_DEPTH})) {
    auto info = model_.info();
    if (info.backbone_dim == 0)
        throw std::invalid_argument(settings.model_file_path + " has no backbone");
    if (method_ == LOFTUP_METHOD_BUNDLE && info.upsampler == LOFTUP_UPSAMPLER_NONE)
        throw std::invalid_argument(settings.model_file_path +
                                    " has no upsampler: set upsampler to jbu");
    if (!class_head_ && !depth_head_)
        throw std::invalid_argument(settings.model_file_path +
                                    " has no head of classes, words or depth: make one with `loftup head`");
    if (class_head_) {
        std::size_t count = std::min<std::size_t>(class_head_->info().classes, 255);
        for (std::size_t i = 0; i < count; i++)
            class_names_.emplace_back(class_head_->class_name(i));
    }
    for (const std::string &name : settings.detection_classes) {
        auto at = std::find(class_names_.begin(), class_names_.end(), name);
        if (at == class_names_.end())
            throw std::invalid_argument("detection_classes: there is no class '" + name +
                                        "', but: " + join(class_names_));
        detected_[static_cast<std::size_t>(at - class_names_.begin())] = true;
    }
    if (settings.detection_min_area < 1)
        throw std::invalid_argument("detection_min_area is below 1");
}

void Model::compile() const {
    // With JBU, only the backbone is used, which is compiled by the first frame.
    if (method_ == LOFTUP_METHOD_BUNDLE)
        model_.compile(width_, height_);
}

loftup::Frame Model::encode(const loftup_image &image) const {
    auto options = loftup::encode_options();
    options.method = method_;
    return model_.encode(image, width_, height_, options);
}

} // namespace loftup_ros
