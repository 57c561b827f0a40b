// libloftup for C++17: handles that free themselves, over loftup.h.
//
// Functions throw loftup::Error. With LOFTUP_NO_EXCEPTIONS defined (or exceptions turned off) they do
// not: they return loftup::Result, which holds a value or an error.

#ifndef LOFTUP_HPP
#define LOFTUP_HPP

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "loftup.h"

#if !defined(LOFTUP_NO_EXCEPTIONS) && !defined(__cpp_exceptions)
#define LOFTUP_NO_EXCEPTIONS
#endif

#ifndef LOFTUP_NO_EXCEPTIONS
#include <stdexcept>
#endif

namespace loftup {

/// A view of elements that belong to someone else.
template <typename T> class Span {
  public:
    constexpr Span() noexcept = default;
    constexpr Span(T *data, std::size_t size) noexcept : data_(data), size_(size) {}
    /// Of a vector, array or other contiguous container.
    template <typename C, typename = std::enable_if_t<std::is_convertible_v<
                              decltype(std::declval<C &>().data()), T *>>>
    constexpr Span(C &&container) noexcept : data_(container.data()), size_(container.size()) {}

    constexpr T *data() const noexcept { return data_; }
    constexpr std::size_t size() const noexcept { return size_; }
    constexpr bool empty() const noexcept { return size_ == 0; }
    constexpr T *begin() const noexcept { return data_; }
    constexpr T *end() const noexcept { return data_ + size_; }
    constexpr T &operator[](std::size_t i) const noexcept { return data_[i]; }

  private:
    T *data_ = nullptr;
    std::size_t size_ = 0;
};

/// Why a call failed.
#ifndef LOFTUP_NO_EXCEPTIONS
class Error : public std::runtime_error {
  public:
    Error(loftup_status status, const char *message)
        : std::runtime_error(message), status_(status) {}
    loftup_status status() const noexcept { return status_; }

  private:
    loftup_status status_;
};

template <typename T> using Result = T;
#else
class Error {
  public:
    Error(loftup_status status, std::string message)
        : status_(status), message_(std::move(message)) {}
    loftup_status status() const noexcept { return status_; }
    const char *what() const noexcept { return message_.c_str(); }

  private:
    loftup_status status_;
    std::string message_;
};

/// A value, or why there is none.
template <typename T> class [[nodiscard]] Result {
  public:
    Result(T value) : value_(std::move(value)) {}
    Result(Error error) : error_(std::move(error)) {}
    explicit operator bool() const noexcept { return value_.has_value(); }
    T &operator*() & { return *value_; }
    T &&operator*() && { return std::move(*value_); }
    T *operator->() { return &*value_; }
    const Error &error() const { return *error_; }

  private:
    std::optional<T> value_;
    std::optional<Error> error_;
};

/// Success, or why not.
template <> class [[nodiscard]] Result<void> {
  public:
    Result() = default;
    Result(Error error) : error_(std::move(error)) {}
    explicit operator bool() const noexcept { return !error_; }
    const Error &error() const { return *error_; }

  private:
    std::optional<Error> error_;
};
#endif

namespace detail {

template <typename T, typename F> Result<T> result(loftup_status status, F value) {
    if (status == LOFTUP_STATUS_OK) {
        if constexpr (std::is_void_v<T>) {
            value();
            return Result<T>();
        } else {
            return value();
        }
    }
#ifndef LOFTUP_NO_EXCEPTIONS
    throw Error(status, loftup_last_error());
#else
    return Error(status, loftup_last_error());
#endif
}

inline Result<void> done(loftup_status status) {
    return result<void>(status, [] {});
}

template <typename T> T sized() {
    T value{};
    value.size = sizeof(T);
    return value;
}

template <typename T, void (*Free)(T *)> struct Deleter {
    void operator()(T *handle) const noexcept { Free(handle); }
};

template <typename T, void (*Free)(T *)> using Handle = std::unique_ptr<T, Deleter<T, Free>>;

} // namespace detail

using Rect = loftup_rect;
using Point = loftup_point;
using Object = loftup_object;

/// Options with their size set and defaults otherwise.
inline loftup_options options() { return detail::sized<loftup_options>(); }
inline loftup_encode_options encode_options() { return detail::sized<loftup_encode_options>(); }
inline loftup_tracker_options tracker_options() { return detail::sized<loftup_tracker_options>(); }

/// An image in memory. A stride of 0 is one without padding.
inline loftup_image image(Span<const std::uint8_t> data, std::size_t width, std::size_t height,
                          std::int32_t format = LOFTUP_PIXEL_FORMAT_RGB8, std::size_t stride = 0) {
    auto image = detail::sized<loftup_image>();
    image.data = data.data();
    image.length = data.size();
    image.width = width;
    image.height = height;
    image.stride = stride;
    image.format = format;
    return image;
}

/// Whether the library has the binary interface of this header.
inline bool compatible() noexcept { return loftup_abi_version() == LOFTUP_ABI_VERSION; }

/// A head with its weights.
class Head {
  public:
    explicit Head(loftup_head *handle) noexcept : handle_(handle) {}

    loftup_head_info info() const {
        auto info = detail::sized<loftup_head_info>();
        loftup_head_get_info(handle_.get(), &info);
        return info;
    }
    /// NULL if there is no class of that number.
    const char *class_name(std::size_t index) const noexcept {
        return loftup_head_class_name(handle_.get(), index);
    }
    const loftup_head *get() const noexcept { return handle_.get(); }

  private:
    detail::Handle<loftup_head, loftup_head_free> handle_;
};

/// An encoded image. Without a region, functions compute the whole frame.
class Frame {
  public:
    explicit Frame(loftup_frame *handle) noexcept : handle_(handle) {}

    loftup_frame_info info() const {
        auto info = detail::sized<loftup_frame_info>();
        loftup_frame_get_info(handle_.get(), &info);
        return info;
    }
    /// [height, width, channels].
    Result<void> features(Span<float> out, const Head *head = nullptr,
                          const Rect *region = nullptr) const {
        return detail::done(loftup_frame_features(handle_.get(), head ? head->get() : nullptr, region,
                                                  out.data(), out.size()));
    }
    Result<std::vector<float>> features(const Head *head = nullptr,
                                        const Rect *region = nullptr) const {
        std::vector<float> out(area(region) * channels(head));
        auto status = loftup_frame_features(handle_.get(), head ? head->get() : nullptr, region,
                                            out.data(), out.size());
        return detail::result<std::vector<float>>(status, [&] { return std::move(out); });
    }
    /// [points, channels].
    Result<std::vector<float>> points(Span<const Point> points, const Head *head = nullptr) const {
        std::vector<float> out(points.size() * channels(head));
        auto status = loftup_frame_points(handle_.get(), head ? head->get() : nullptr, points.data(),
                                          points.size(), out.data(), out.size());
        return detail::result<std::vector<float>>(status, [&] { return std::move(out); });
    }
    /// [height, width].
    Result<std::vector<std::uint8_t>> classes(const Head &head, const Rect *region = nullptr) const {
        std::vector<std::uint8_t> out(area(region));
        auto status =
            loftup_frame_classes(handle_.get(), head.get(), region, out.data(), out.size());
        return detail::result<std::vector<std::uint8_t>>(status, [&] { return std::move(out); });
    }
    /// Meters, [height, width].
    Result<std::vector<float>> depth(const Head &head, const Rect *region = nullptr) const {
        std::vector<float> out(area(region));
        auto status = loftup_frame_depth(handle_.get(), head.get(), region, out.data(), out.size());
        return detail::result<std::vector<float>>(status, [&] { return std::move(out); });
    }
    const loftup_frame *get() const noexcept { return handle_.get(); }

  private:
    // A region that is not within the frame is refused by the library; it gets a buffer of the frame.
    std::size_t area(const Rect *region) const {
        auto i = info();
        bool inside = region && region->width <= i.width && region->height <= i.height;
        return inside ? region->width * region->height : i.width * i.height;
    }
    std::size_t channels(const Head *head) const {
        return head ? head->info().outputs : info().dim;
    }

    detail::Handle<loftup_frame, loftup_frame_free> handle_;
};

/// A bundle that is loaded into an engine.
class Model {
  public:
    explicit Model(loftup_model *handle) noexcept : handle_(handle) {}

    static Result<Model> open(const std::string &path, const loftup_options &options = {}) {
        loftup_model *handle = nullptr;
        auto given = options.size ? &options : nullptr;
        auto status = loftup_open(path.c_str(), given, &handle);
        return detail::result<Model>(status, [&] { return Model(handle); });
    }
    loftup_model_info info() const {
        auto info = detail::sized<loftup_model_info>();
        loftup_model_get_info(handle_.get(), &info);
        return info;
    }
    Result<loftup_head_info> head_info(std::size_t index) const {
        auto info = detail::sized<loftup_head_info>();
        auto status = loftup_model_get_head_info(handle_.get(), index, &info);
        return detail::result<loftup_head_info>(status, [&] { return info; });
    }
    loftup_health health() const {
        auto health = detail::sized<loftup_health>();
        loftup_model_get_health(handle_.get(), &health);
        return health;
    }
    Result<void> compile(std::size_t width, std::size_t height) const {
        return detail::done(loftup_model_compile(handle_.get(), width, height));
    }
    Result<Head> head(const std::string &name) const {
        loftup_head *handle = nullptr;
        auto status = loftup_head_open(handle_.get(), name.c_str(), &handle);
        return detail::result<Head>(status, [&] { return Head(handle); });
    }
    Result<Head> head_from_file(const std::string &path) const {
        loftup_head *handle = nullptr;
        auto status = loftup_head_open_file(handle_.get(), path.c_str(), &handle);
        return detail::result<Head>(status, [&] { return Head(handle); });
    }
    /// `width` and `height` are those of the output.
    Result<Frame> encode(const loftup_image &image, std::size_t width, std::size_t height,
                         const loftup_encode_options &options = {}) const {
        loftup_frame *handle = nullptr;
        auto given = options.size ? &options : nullptr;
        auto status = loftup_encode(handle_.get(), &image, width, height, given, &handle);
        return detail::result<Frame>(status, [&] { return Frame(handle); });
    }
    const loftup_model *get() const noexcept { return handle_.get(); }

  private:
    detail::Handle<loftup_model, loftup_model_free> handle_;
};

/// Follows objects through a video.
class Tracker {
  public:
    explicit Tracker(loftup_tracker *handle) noexcept : handle_(handle) {}

    static Result<Tracker> make(std::size_t width, std::size_t height, std::size_t dim,
                                const loftup_tracker_options &options = {}) {
        loftup_tracker *handle = nullptr;
        auto given = options.size ? &options : nullptr;
        auto status = loftup_tracker_new(width, height, dim, given, &handle);
        return detail::result<Tracker>(status, [&] { return Tracker(handle); });
    }
    Result<void> update(Span<const float> features) {
        return detail::done(
            loftup_tracker_update(handle_.get(), features.data(), features.size()));
    }
    Result<void> start_box(std::uint8_t label, Rect box, std::size_t width, std::size_t height) {
        return detail::done(loftup_tracker_start_box(handle_.get(), label, box, width, height));
    }
    Result<void> start_point(std::uint8_t label, Point point, std::size_t width,
                             std::size_t height) {
        return detail::done(
            loftup_tracker_start_point(handle_.get(), label, point, width, height));
    }
    Result<void> start_mask(Span<const std::uint8_t> mask, std::size_t width, std::size_t height) {
        return detail::done(
            loftup_tracker_start_mask(handle_.get(), mask.data(), mask.size(), width, height));
    }
    Result<void> remove(std::uint8_t label) {
        return detail::done(loftup_tracker_remove(handle_.get(), label));
    }
    /// Writes the mask and returns the objects.
    Result<std::vector<Object>> mask(std::size_t width, std::size_t height,
                                     Span<std::uint8_t> mask) {
        std::vector<Object> objects(254);
        std::size_t count = 0;
        auto status = loftup_tracker_mask(handle_.get(), width, height, mask.data(), mask.size(),
                                          objects.data(), objects.size(), &count);
        return detail::result<std::vector<Object>>(status, [&] {
            objects.resize(count);
            return std::move(objects);
        });
    }

  private:
    detail::Handle<loftup_tracker, loftup_tracker_free> handle_;
};

/// Segments an object from clicks.
class Clicks {
  public:
    explicit Clicks(loftup_clicks *handle) noexcept : handle_(handle) {}

    static Result<Clicks> make(const Frame &frame, std::optional<float> threshold = {}) {
        loftup_clicks *handle = nullptr;
        auto given = threshold ? &*threshold : nullptr;
        auto status = loftup_clicks_new(frame.get(), given, &handle);
        return detail::result<Clicks>(status, [&] { return Clicks(handle); });
    }
    Result<void> add(Point point, bool positive) {
        return detail::done(loftup_clicks_add(handle_.get(), point, positive));
    }
    Result<void> clear() { return detail::done(loftup_clicks_clear(handle_.get())); }
    /// 1 for the object, [height, width].
    Result<void> mask(std::size_t width, std::size_t height, Span<std::uint8_t> mask) {
        return detail::done(
            loftup_clicks_mask(handle_.get(), width, height, mask.data(), mask.size()));
    }

  private:
    detail::Handle<loftup_clicks, loftup_clicks_free> handle_;
};

} // namespace loftup

#endif
