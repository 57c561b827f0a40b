// Writes the features of an image as 32-bit floats, [height, width, channels], and prints how similar
// its center is to its corners.
//
//     features BUNDLE IMAGE.ppm OUT.raw

#include <loftup.hpp>

#include <cmath>
#include <cstdio>
#include <memory>

#include "ppm.h"

namespace {

constexpr std::size_t WIDTH = 61, HEIGHT = 47;

float cosine(loftup::Span<const float> a, loftup::Span<const float> b) {
    float ab = 0, aa = 0, bb = 0;
    for (std::size_t i = 0; i < a.size(); i++) {
        ab += a[i] * b[i];
        aa += a[i] * a[i];
        bb += b[i] * b[i];
    }
    return ab / std::sqrt(aa * bb);
}

int run(const char *bundle, const char *path, const char *out) {
    std::size_t width, height;
    std::unique_ptr<unsigned char, void (*)(void *)> pixels(read_ppm(path, &width, &height), free);
    if (!pixels) {
        std::fprintf(stderr, "%s: not a binary PPM image of 8 bits\n", path);
        return 1;
    }
    auto options = loftup::options();
    options.engine = LOFTUP_ENGINE_CPU;
    auto model = loftup::Model::open(bundle, options);
    auto image = loftup::image({pixels.get(), width * height * 3}, width, height);
    auto frame = model.encode(image, WIDTH, HEIGHT);

    auto features = frame.features();
    std::size_t dim = frame.info().dim;
    auto pixel = [&](std::size_t x, std::size_t y) {
        return loftup::Span<const float>(&features[(y * WIDTH + x) * dim], dim);
    };
    auto center = pixel(WIDTH / 2, HEIGHT / 2);
    for (std::size_t y : {std::size_t{0}, HEIGHT - 1})
        for (std::size_t x : {std::size_t{0}, WIDTH - 1})
            std::printf("%zu,%zu: %.3f\n", x, y, cosine(center, pixel(x, y)));

    std::unique_ptr<std::FILE, int (*)(std::FILE *)> file(std::fopen(out, "wb"), std::fclose);
    if (!file || std::fwrite(features.data(), sizeof(float), features.size(), file.get()) !=
                     features.size()) {
        std::perror(out);
        return 1;
    }
    return 0;
}

} // namespace

int main(int count, char **arguments) {
    if (count != 4) {
        std::fprintf(stderr, "usage: features BUNDLE IMAGE.ppm OUT.raw\n");
        return 2;
    }
    try {
        return run(arguments[1], arguments[2], arguments[3]);
    } catch (const loftup::Error &e) {
        std::fprintf(stderr, "%s\n", e.what());
        return 1;
    }
}
