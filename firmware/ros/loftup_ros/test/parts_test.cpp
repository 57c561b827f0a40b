// The parts of the node that need neither ROS nor a bundle.

#include <cmath>
#include <cstdio>
#include <limits>
#include <stdexcept>
#include <thread>

#include "check.hpp"
#include "loftup_ros/convert.hpp"
#include "loftup_ros/latest.hpp"

using namespace loftup_ros;

static void test_millimeters() {
    const float inf = std::numeric_limits<float>::infinity();
    struct Case {
        float meters;
        unsigned millimeters;
    };
    const Case cases[] = {
        {0.0F, 0},         {-1.0F, 0},     {std::nanf(""), 0}, {inf, 0},     {-inf, 0},
        {0.0004F, 0},      {0.0006F, 1},   {1.2344F, 1234},    {1.2346F, 1235},
        {65.535F, 65535U}, {65.536F, 0},   {1e30F, 0},
    };
    for (const Case &c : cases) {
        auto bytes = millimeters({&c.meters, 1});
        CHECK(bytes.size() == 2);
        CHECK((bytes[0] | bytes[1] << 8) == static_cast<int>(c.millimeters));
    }
    CHECK(millimeters({}).empty());
}

static void test_regions() {
    // Pixels that touch at a corner are not connected; 2 is not wanted; the 1 at the right is too small
    // for an area of 2.
    const std::vector<std::uint8_t> map = {
        1, 1, 0, 0, 1, //
        1, 0, 3, 2, 0, //
        0, 3, 3, 2, 2, //
        3, 0, 0, 255, 255,
    };
    std::array<bool, 256> wanted{};
    wanted[1] = wanted[3] = true;
    auto same = [](const Region &r, unsigned id, std::size_t area, loftup::Rect box) {
        return r.class_id == id && r.area == area && r.box.x == box.x && r.box.y == box.y &&
               r.box.width == box.width && r.box.height == box.height;
    };
    auto found = regions(map, 5, 4, wanted, 2);
    CHECK(found.size() == 2);
    CHECK(same(found[0], 1, 3, {0, 0, 2, 2}));
    CHECK(same(found[1], 3, 3, {1, 1, 2, 2}));
    found = regions(map, 5, 4, wanted, 1);
    CHECK(found.size() == 4);
    CHECK(same(found[1], 1, 1, {4, 0, 1, 1}));
    CHECK(same(found[3], 3, 1, {0, 3, 1, 1}));
    CHECK(regions(map, 5, 4, {}, 1).empty());
    CHECK(regions({}, 0, 0, wanted, 1).empty());
    // One pixel, and a map without borders between classes.
    CHECK(regions({map.data(), 1}, 1, 1, wanted, 1).size() == 1);
    const std::vector<std::uint8_t> large(640 * 480, 1);
    found = regions(large, 640, 480, wanted, 1);
    CHECK(found.size() == 1 && same(found[0], 1, 640 * 480, {0, 0, 640, 480}));
}

static void test_view() {
    const std::vector<std::uint8_t> data(64);
    auto image = view("bgra8", 3, 2, 16, data);
    CHECK(image.format == LOFTUP_PIXEL_FORMAT_BGRA8 && image.width == 3 && image.height == 2);
    CHECK(image.stride == 16 && image.length == 64 && image.data == data.data());
    CHECK_THROWS(view("bayer_rggb8", 3, 2, 16, data), "bayer_rggb8");
    CHECK_THROWS(view("", 3, 2, 16, data), "not supported");
    CHECK_THROWS(view("rgb8", 3, 2, 0, data), "step is 0");
}

static void test_latest() {
    Latest<int> latest;
    CHECK(!latest.put(1));
    CHECK(latest.put(2));
    CHECK(latest.take() == 2);
    CHECK(!latest.put(3));
    latest.close();
    CHECK(!latest.take());
    Latest<int> other;
    std::thread reader([&] { CHECK(!other.take()); });
    other.close();
    reader.join();
}

int main() {
    test_millimeters();
    test_regions();
    test_view();
    test_latest();
    std::puts("ok");
}
