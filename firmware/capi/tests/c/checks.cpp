// Every class of loftup.hpp, with exceptions and without.
//
//     checks BUNDLE

#include <loftup.hpp>

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

[[noreturn]] void failed(int line, const char *what) {
    std::fprintf(stderr, "line %d: %s; last error: %s\n", line, what, loftup_last_error());
    std::exit(1);
}
#define CHECK(condition) ((condition) ? void() : failed(__LINE__, #condition))

#ifndef LOFTUP_NO_EXCEPTIONS
template <typename T> T take(T value) { return value; }
template <typename F> bool fails(F call, loftup_status status) {
    try {
        (void)call();
    } catch (const loftup::Error &e) {
        return e.status() == status && e.what()[0] != 0;
    }
    return false;
}
#define DO(call) call
#else
template <typename T> T take(loftup::Result<T> result) {
    CHECK(result);
    return *std::move(result);
}
template <typename F> bool fails(F call, loftup_status status) {
    auto result = call();
    return !result && result.error().status() == status && result.error().what()[0] != 0;
}
#define DO(call) CHECK(call)
#endif

static_assert(!std::is_copy_constructible_v<loftup::Model>);
static_assert(std::is_nothrow_move_constructible_v<loftup::Frame>);

} // namespace

int main(int count, char **arguments) {
    CHECK(count == 2 && loftup::compatible());
    CHECK(fails([] { return loftup::Model::open("/no/such.loftup"); }, LOFTUP_STATUS_BAD_FILE) ||
          fails([] { return loftup::Model::open("/no/such.loftup"); }, LOFTUP_STATUS_NOT_FOUND));
    auto options = loftup::options();
    options.engine = LOFTUP_ENGINE_CPU;
    auto model = take(loftup::Model::open(arguments[1], options));
    CHECK(model.info().dim == 64 && model.health().degraded == 0);
    CHECK(std::strcmp(take(model.head_info(0)).name, "classes") == 0);
    CHECK(fails([&] { return model.head("nothing"); }, LOFTUP_STATUS_NOT_FOUND));
    auto head = take(model.head("classes"));
    auto depth = take(model.head("depth"));

    std::vector<std::uint8_t> pixels(40 * 30 * 3);
    for (std::size_t i = 0; i < pixels.size(); i++)
        pixels[i] = static_cast<std::uint8_t>(i * 31 % 251);
    auto image = loftup::image(pixels, 40, 30);
    DO(model.compile(21, 19));
    auto made = take(model.encode(image, 21, 19));
    auto frame = std::move(made); // a frame is moved, not copied
    auto whole = take(frame.features());
    CHECK(whole.size() == 21 * 19 * 64);
    loftup::Rect region{2, 3, 5, 4}, outside{20, 0, 2, 1};
    CHECK(take(frame.features(&head, &region)).size() == 5 * 4 * 3);
    CHECK(fails([&] { return frame.features(nullptr, &outside); }, LOFTUP_STATUS_INVALID_ARGUMENT));
    CHECK(fails([&] { return frame.classes(depth); }, LOFTUP_STATUS_INVALID_ARGUMENT));
    CHECK(take(frame.classes(head)).size() == 21 * 19);
    CHECK(take(frame.depth(depth, &region)).size() == 20);
    loftup::Point points[] = {{0, 0}, {20, 18}};
    CHECK(take(frame.points({points, 2})).size() == 2 * 64);
    std::vector<float> buffer(21 * 19 * 64);
    DO(frame.features(buffer));
    CHECK(buffer == whole);

    auto tracker = take(loftup::Tracker::make(21, 19, 64));
    std::vector<std::uint8_t> mask(21 * 19);
    DO(tracker.update(whole));
    DO(tracker.start_box(1, {4, 4, 6, 6}, 21, 19));
    DO(tracker.start_point(2, {15, 15}, 21, 19));
    DO(tracker.update(whole));
    CHECK(take(tracker.mask(21, 19, mask)).size() == 2);
    DO(tracker.remove(2));
    CHECK(take(tracker.mask(21, 19, mask)).size() == 1);
    DO(tracker.start_mask(mask, 21, 19));

    auto clicks = take(loftup::Clicks::make(frame, 0.5f));
    DO(clicks.add({10, 10}, true));
    DO(clicks.mask(21, 19, mask));
    CHECK(mask[10 * 21 + 10] == 1);
    DO(clicks.clear());
    return 0;
}
