/* Misuse, parts of a frame, pixel formats, threads, tracking, clicks and memory.
 *
 *     checks BUNDLE */

#include <loftup.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                          \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "line %d: %s; last error: %s\n", __LINE__, #condition,                 \
                    loftup_last_error());                                                          \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)
#define OK(call) CHECK((call) == LOFTUP_STATUS_OK)
/* The call fails with this status, and the message has this text. */
#define FAILS(call, status, text)                                                                  \
    CHECK((call) == LOFTUP_STATUS_##status && strstr(loftup_last_error(), text) != NULL)

enum { W = 45, H = 33, IMAGE_W = 40, IMAGE_H = 30 };

static unsigned char rgb[IMAGE_W * IMAGE_H * 3];
static loftup_image image;
static loftup_model *model;

static loftup_frame *encode(const loftup_image *from) {
    loftup_frame *frame = NULL;
    OK(loftup_encode(model, from, W, H, NULL, &frame));
    CHECK(frame != NULL);
    return frame;
}

static void check_open(const char *path) {
    loftup_options options = {sizeof options};
    loftup_model *none = (loftup_model *)1;
    loftup_model_info info = {sizeof info};
    loftup_health health = {sizeof health};
    loftup_head_info head = {sizeof head};

    CHECK(loftup_abi_version() == LOFTUP_ABI_VERSION);
    CHECK(loftup_version()[0] != 0 && loftup_last_error()[0] == 0);
    CHECK(strcmp(loftup_status_name(LOFTUP_STATUS_NOT_FOUND), "not found") == 0);
    CHECK(strcmp(loftup_status_name(-1), "unknown") == 0);
    FAILS(loftup_open(path, NULL, NULL), INVALID_ARGUMENT, "model is NULL");
    FAILS(loftup_open(NULL, NULL, &none), INVALID_ARGUMENT, "path is NULL");
    CHECK(none == NULL);
    FAILS(loftup_open("", NULL, &none), INVALID_ARGUMENT, "path is empty");
    CHECK(loftup_open("/no/such.loftup", NULL, &none) != LOFTUP_STATUS_OK);
    CHECK(strstr(loftup_last_error(), "/no/such.loftup") != NULL && none == NULL);
    options.size = 0;
    FAILS(loftup_open(path, &options, &none), INVALID_ARGUMENT, "sizeof(loftup_options)");
    options.size = sizeof options;
    options.engine = 9;
    FAILS(loftup_open(path, &options, &none), INVALID_ARGUMENT, "engine is 9");
    options.engine = LOFTUP_ENGINE_CPU;
    options.cpu_precision = 6;
    FAILS(loftup_open(path, &options, &none), INVALID_ARGUMENT, "cpu_precision is 6");
    options.cpu_precision = LOFTUP_CPU_PRECISION_AUTO;
    OK(loftup_open(path, &options, &none));
    loftup_model_free(none);
    none = NULL;
    options.cpu_precision = LOFTUP_CPU_PRECISION_FP32;
    options.precision = LOFTUP_PRECISION_INT8;
    FAILS(loftup_open(path, &options, &none), NOT_FOUND, "int8");
    options.precision = LOFTUP_PRECISION_FP32;
    options.threads = 2;
    OK(loftup_open(path, &options, &model));

    OK(loftup_model_compile(model, W, H));
    FAILS(loftup_model_compile(model, 0, H), INVALID_ARGUMENT, "0 x 33");
    FAILS(loftup_model_get_info(NULL, &info), INVALID_ARGUMENT, "model is NULL");
    FAILS(loftup_model_get_info(model, NULL), INVALID_ARGUMENT, "NULL");
    OK(loftup_model_get_info(model, &info));
    CHECK(info.dim == 64 && info.backbone_dim == 64 && info.patch == 14 && info.heads == 2);
    CHECK(info.image_width == 224 && info.grid_width == 16 && info.grid_height == 16);
    CHECK(info.upsampler == LOFTUP_UPSAMPLER_LOFTUP && info.precision == LOFTUP_PRECISION_FP32);
    OK(loftup_model_get_head_info(model, 0, &head));
    CHECK(strcmp(head.name, "classes") == 0 && head.kind == LOFTUP_HEAD_KIND_CLASSES);
    CHECK(head.outputs == 3 && head.classes == 3);
    OK(loftup_model_get_head_info(model, 1, &head));
    CHECK(head.kind == LOFTUP_HEAD_KIND_DEPTH && head.outputs == 8 && head.classes == 0);
    FAILS(loftup_model_get_head_info(model, 2, &head), INVALID_ARGUMENT, "head 2");
    OK(loftup_model_get_health(model, &health));
    CHECK(health.degraded == 0 && health.engine[0] != 0 && health.reason[0] == 0);
}

static void check_parts(void) {
    static float whole[W * H * 64], part[W * H * 64], meters[W * H];
    static unsigned char classes[W * H];
    loftup_frame *frame = encode(&image), *none = NULL;
    loftup_frame_info info = {sizeof info};
    loftup_rect region = {5, 7, 21, 13}, outside = {40, 0, 6, 1};
    loftup_point points[3] = {{0, 0}, {W - 1, H - 1}, {17, 9}}, far = {W, 0};
    loftup_encode_options options = {sizeof options};
    loftup_head *head = NULL, *depth = NULL;
    float worst = 0;
    size_t i, c;

    OK(loftup_frame_get_info(frame, &info));
    CHECK(info.width == W && info.height == H && info.dim == 64);
    OK(loftup_frame_features(frame, NULL, NULL, whole, W * H * 64));
    OK(loftup_frame_features(frame, NULL, &region, part, W * H * 64));
    for (i = 0; i < 21 * 13; i++)
        for (c = 0; c < 64; c++)
            worst = fmaxf(worst, fabsf(part[i * 64 + c] -
                                       whole[((i / 21 + 7) * W + i % 21 + 5) * 64 + c]));
    OK(loftup_frame_points(frame, NULL, points, 3, part, 3 * 64));
    for (i = 0; i < 3; i++)
        for (c = 0; c < 64; c++)
            worst = fmaxf(worst, fabsf(part[i * 64 + c] -
                                       whole[(points[i].y * W + points[i].x) * 64 + c]));
    /* Other tiles, other order of sums: the bound is that of `loftup verify`. */
    CHECK(worst <= 2e-3f);

    FAILS(loftup_frame_features(frame, NULL, NULL, whole, W * H * 64 - 1), BUFFER_TOO_SHORT,
          "needed 95040");
    FAILS(loftup_frame_features(frame, NULL, NULL, NULL, W * H * 64), INVALID_ARGUMENT, "out is NULL");
    FAILS(loftup_frame_features(NULL, NULL, NULL, whole, 1), INVALID_ARGUMENT, "frame is NULL");
    FAILS(loftup_frame_features(frame, NULL, &outside, whole, W * H * 64), INVALID_ARGUMENT,
          "not within");
    region.width = 0;
    FAILS(loftup_frame_features(frame, NULL, &region, whole, W * H * 64), INVALID_ARGUMENT, "empty");
    FAILS(loftup_frame_points(frame, NULL, &far, 1, part, 64), INVALID_ARGUMENT, "outside");
    FAILS(loftup_frame_points(frame, NULL, NULL, 1, part, 64), INVALID_ARGUMENT, "points is NULL");
    OK(loftup_frame_points(frame, NULL, NULL, 0, NULL, 0));

    FAILS(loftup_head_open(model, "nothing", &head), NOT_FOUND, "classes, depth");
    FAILS(loftup_head_open(model, "\xff", &head), INVALID_ARGUMENT, "UTF-8");
    CHECK(loftup_head_open_file(model, "/no/such.safetensors", &head) != LOFTUP_STATUS_OK);
    CHECK(head == NULL);
    OK(loftup_head_open(model, "classes", &head));
    OK(loftup_head_open(model, "depth", &depth));
    CHECK(strcmp(loftup_head_class_name(head, 2), "sky") == 0);
    CHECK(loftup_head_class_name(head, 3) == NULL && loftup_head_class_name(NULL, 0) == NULL);
    OK(loftup_frame_features(frame, head, NULL, part, W * H * 3));
    OK(loftup_frame_classes(frame, head, NULL, classes, W * H));
    for (i = 0; i < W * H; i++)
        for (c = 0; c < 3; c++)
            CHECK(part[i * 3 + c] <= part[i * 3 + classes[i]]);
    FAILS(loftup_frame_classes(frame, depth, NULL, classes, W * H), INVALID_ARGUMENT, "no classes");
    FAILS(loftup_frame_classes(frame, NULL, NULL, classes, W * H), INVALID_ARGUMENT, "head is NULL");
    OK(loftup_frame_depth(frame, depth, NULL, meters, W * H));
    for (i = 0; i < W * H; i++)
        CHECK(meters[i] >= 0.25f && meters[i] <= 20.0f);
    FAILS(loftup_frame_depth(frame, head, NULL, meters, W * H), INVALID_ARGUMENT, "depth");

    options.method = LOFTUP_METHOD_JBU;
    OK(loftup_encode(model, &image, W, H, &options, &none));
    OK(loftup_frame_features(none, NULL, NULL, part, W * H * 64));
    CHECK(memcmp(part, whole, sizeof whole) != 0);
    loftup_frame_free(none);
    options.method = 2;
    FAILS(loftup_encode(model, &image, W, H, &options, &none), INVALID_ARGUMENT, "method is 2");
    options.method = 0;
    options.fixed_color_range = 1;
    FAILS(loftup_encode(model, &image, W, H, &options, &none), INVALID_ARGUMENT, "color_min");
    FAILS(loftup_encode(model, &image, W, 0, NULL, &none), INVALID_ARGUMENT, "45 x 0");
    /* After all these errors the frame is what it was. */
    OK(loftup_frame_features(frame, NULL, NULL, part, W * H * 64));
    CHECK(memcmp(part, whole, sizeof whole) == 0);
    loftup_head_free(head);
    loftup_head_free(depth);
    loftup_frame_free(frame);
}

static void check_images(void) {
    static unsigned char padded[IMAGE_H * (IMAGE_W * 4 + 9)];
    static float expected[W * H * 64], found[W * H * 64];
    loftup_image other = image;
    loftup_frame *frame = encode(&image), *none = (loftup_frame *)1;
    size_t x, y, c;

    OK(loftup_frame_features(frame, NULL, NULL, expected, W * H * 64));
    loftup_frame_free(frame);
    /* The same pixels as BGRA with gaps between the rows. */
    other.data = padded;
    other.length = sizeof padded;
    other.stride = IMAGE_W * 4 + 9;
    other.format = LOFTUP_PIXEL_FORMAT_BGRA8;
    for (y = 0; y < IMAGE_H; y++)
        for (x = 0; x < IMAGE_W; x++)
            for (c = 0; c < 3; c++)
                padded[y * other.stride + x * 4 + 2 - c] = rgb[(y * IMAGE_W + x) * 3 + c];
    frame = encode(&other);
    OK(loftup_frame_features(frame, NULL, NULL, found, W * H * 64));
    loftup_frame_free(frame);
    CHECK(memcmp(expected, found, sizeof found) == 0);

    other.stride = IMAGE_W * 4 - 1;
    FAILS(loftup_encode(model, &other, W, H, NULL, &none), INVALID_ARGUMENT, "stride");
    CHECK(none == NULL);
    other.stride = IMAGE_W * 4 + 9;
    other.length = (IMAGE_H - 1) * other.stride + IMAGE_W * 4 - 1;
    FAILS(loftup_encode(model, &other, W, H, NULL, &none), BUFFER_TOO_SHORT, "40 x 30");
    other.length++;
    loftup_frame_free(encode(&other));
    other.format = 8;
    FAILS(loftup_encode(model, &other, W, H, NULL, &none), INVALID_ARGUMENT, "format is 8");
    other.format = LOFTUP_PIXEL_FORMAT_NV12;
    other.width = SIZE_MAX;
    FAILS(loftup_encode(model, &other, W, H, NULL, &none), INVALID_ARGUMENT, "NV12");
    other.width = 0;
    CHECK(loftup_encode(model, &other, W, H, NULL, &none) == LOFTUP_STATUS_INVALID_ARGUMENT);
    other = image;
    other.data = NULL;
    FAILS(loftup_encode(model, &other, W, H, NULL, &none), INVALID_ARGUMENT, "image.data is NULL");
    FAILS(loftup_encode(model, NULL, W, H, NULL, &none), INVALID_ARGUMENT, "image is NULL");
    FAILS(loftup_encode(NULL, &image, W, H, NULL, &none), INVALID_ARGUMENT, "model is NULL");
}

static void check_tracker(void) {
    enum { GW = 12, GH = 9, DIM = 4 };
    static float features[GW * GH * DIM];
    static unsigned char mask[64 * 48], seeds[64 * 48];
    loftup_tracker_options options = {sizeof options};
    loftup_tracker *tracker = NULL;
    loftup_object objects[2];
    loftup_rect box = {16, 12, 16, 16};
    loftup_point point = {40, 20};
    size_t i, count = 9;

    for (i = 0; i < GW * GH * DIM; i++)
        features[i] = (float)((i * 7919) % 13) - 6;
    FAILS(loftup_tracker_new(0, GH, DIM, NULL, &tracker), INVALID_ARGUMENT, "grid");
    options.max_objects = 2;
    options.temperature = NAN;
    FAILS(loftup_tracker_new(GW, GH, DIM, &options, &tracker), INVALID_ARGUMENT, "temperature");
    options.temperature = 0;
    OK(loftup_tracker_new(GW, GH, DIM, &options, &tracker));
    FAILS(loftup_tracker_start_box(tracker, 1, box, 64, 48), INVALID_ARGUMENT, "no frame");
    FAILS(loftup_tracker_update(tracker, features, 5), INVALID_ARGUMENT, "5 values");
    FAILS(loftup_tracker_update(tracker, NULL, 5), INVALID_ARGUMENT, "features is NULL");
    OK(loftup_tracker_update(tracker, features, GW * GH * DIM));
    FAILS(loftup_tracker_start_box(tracker, 3, box, 64, 48), INVALID_ARGUMENT, "label 3");
    FAILS(loftup_tracker_start_box(tracker, 1, box, 20, 20), INVALID_ARGUMENT, "within");
    OK(loftup_tracker_start_box(tracker, 1, box, 64, 48));
    OK(loftup_tracker_start_point(tracker, 2, point, 64, 48));
    OK(loftup_tracker_update(tracker, features, GW * GH * DIM));
    FAILS(loftup_tracker_mask(tracker, 64, 48, mask, 1, NULL, 0, NULL), BUFFER_TOO_SHORT, "3072");
    FAILS(loftup_tracker_mask(tracker, 64, 48, mask, sizeof mask, objects, 1, NULL),
          BUFFER_TOO_SHORT, "objects");
    OK(loftup_tracker_mask(tracker, 64, 48, mask, sizeof mask, objects, 2, &count));
    CHECK(count == 2 && objects[0].label == 1 && objects[1].label == 2);
    CHECK(objects[0].area > 0 && objects[0].bounds.width > 0 && objects[0].confidence > 0);
    for (i = 0; i < sizeof mask; i++)
        objects[0].area -= mask[i] == 1;
    CHECK(objects[0].area == 0);
    OK(loftup_tracker_remove(tracker, 1));
    seeds[100] = 1;
    FAILS(loftup_tracker_start_mask(tracker, seeds, 5, 64, 48), INVALID_ARGUMENT, "mask of 5");
    OK(loftup_tracker_start_mask(tracker, seeds, sizeof seeds, 64, 48));
    features[3] = INFINITY;
    FAILS(loftup_tracker_update(tracker, features, GW * GH * DIM), INVALID_ARGUMENT, "inf");
    loftup_tracker_free(tracker);
    loftup_tracker_free(NULL);
}

static void check_clicks(void) {
    static unsigned char mask[W * H], large[90 * 66];
    loftup_frame *frame = encode(&image);
    loftup_clicks *clicks = NULL;
    loftup_point point = {20, 20}, far = {W, H};
    float threshold = 2;
    size_t i, inside = 0;

    FAILS(loftup_clicks_new(frame, &threshold, &clicks), INVALID_ARGUMENT, "threshold 2");
    OK(loftup_clicks_new(frame, NULL, &clicks));
    loftup_frame_free(frame);
    FAILS(loftup_clicks_add(clicks, far, 1), INVALID_ARGUMENT, "outside");
    FAILS(loftup_clicks_add(clicks, point, 2), INVALID_ARGUMENT, "positive is 2");
    OK(loftup_clicks_add(clicks, point, 1));
    OK(loftup_clicks_mask(clicks, W, H, mask, sizeof mask));
    OK(loftup_clicks_mask(clicks, 90, 66, large, sizeof large));
    CHECK(mask[20 * W + 20] == 1 && large[41 * 90 + 41] == 1);
    FAILS(loftup_clicks_mask(clicks, W, H, mask, 3), BUFFER_TOO_SHORT, "1485");
    OK(loftup_clicks_clear(clicks));
    OK(loftup_clicks_mask(clicks, W, H, mask, sizeof mask));
    for (i = 0; i < sizeof mask; i++)
        inside += mask[i];
    CHECK(inside == 0);
    loftup_clicks_free(clicks);
}

/* Each thread uses the same bundle and frame, and has messages of its own. */
static float in_thread[4][W * H * 64];

static void *work(void *argument) {
    float *out = (float *)argument;
    loftup_frame *own;
    loftup_frame_info info = {0};
    int i;
    for (i = 0; i < 3; i++) {
        CHECK(i > 0 || loftup_last_error()[0] == 0);
        FAILS(loftup_frame_get_info(NULL, &info), INVALID_ARGUMENT, "frame is NULL");
        own = encode(&image);
        OK(loftup_frame_features(own, NULL, NULL, out, W * H * 64));
        loftup_frame_free(own);
    }
    return NULL;
}

static void check_threads(void) {
    pthread_t threads[4];
    int i;
    for (i = 0; i < 4; i++)
        CHECK(pthread_create(&threads[i], NULL, work, in_thread[i]) == 0);
    for (i = 0; i < 4; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    for (i = 1; i < 4; i++)
        CHECK(memcmp(in_thread[0], in_thread[i], sizeof in_thread[0]) == 0);
}

/* Resident memory in KiB. */
static long resident(void) {
    char line[128];
    long kib = 0;
    FILE *file = fopen("/proc/self/status", "r");
    CHECK(file != NULL);
    while (fgets(line, sizeof line, file) != NULL)
        if (sscanf(line, "VmRSS: %ld", &kib) == 1)
            break;
    fclose(file);
    return kib;
}

static void check_memory(const char *path) {
    static float out[64];
    loftup_options options = {sizeof options};
    loftup_point point = {3, 4};
    long before = 0;
    int i;
    options.engine = LOFTUP_ENGINE_CPU;
    loftup_frame *frame = encode(&image);
    /* A point, a head, an error and a tracker each time. */
    for (i = 0; i < 10000; i++) {
        loftup_head *head = NULL;
        loftup_tracker *tracker = NULL;
        if (i == 1000)
            before = resident();
        OK(loftup_frame_points(frame, NULL, &point, 1, out, 64));
        OK(loftup_head_open(model, "classes", &head));
        OK(loftup_tracker_new(3, 2, 4, NULL, &tracker));
        CHECK(loftup_head_open(model, "nothing", NULL) != LOFTUP_STATUS_OK);
        loftup_tracker_free(tracker);
        loftup_head_free(head);
    }
    loftup_frame_free(frame);
    printf("10000 points, heads and trackers: %ld KiB more\n", resident() - before);
#ifndef __SANITIZE_ADDRESS__
    CHECK(resident() - before < 4096);
#endif
    /* A frame and a point of it each time, and a bundle at times. */
    for (i = 0; i < 120; i++) {
        if (i == 40)
            before = resident();
        frame = encode(&image);
        OK(loftup_frame_points(frame, NULL, &point, 1, out, 64));
        loftup_frame_free(frame);
        if (i % 20 == 0) {
            loftup_model *other = NULL;
            OK(loftup_open(path, &options, &other));
            loftup_model_free(other);
        }
    }
    printf("80 frames: %ld KiB more\n", resident() - before);
#ifndef __SANITIZE_ADDRESS__
    CHECK(resident() - before < 8192);
#endif
}

static int messages;

static void count_message(int32_t level, const char *message, void *user) {
    CHECK(level >= LOFTUP_LOG_LEVEL_ERROR && message[0] != 0);
    ++*(int *)user;
}

int main(int count, char **arguments) {
    loftup_frame *frame;
    loftup_frame_info info = {sizeof info};
    size_t i;
    CHECK(count == 2);
    for (i = 0; i < sizeof rgb; i++)
        rgb[i] = (unsigned char)((i * i / 7 + i * 31) % 251);
    image.size = sizeof image;
    image.data = rgb;
    image.length = sizeof rgb;
    image.width = IMAGE_W;
    image.height = IMAGE_H;

    check_open(arguments[1]);
    FAILS(loftup_log_to(9, count_message, &messages), INVALID_ARGUMENT, "level is 9");
    FAILS(loftup_log_to(LOFTUP_LOG_LEVEL_DEBUG, NULL, NULL), INVALID_ARGUMENT, "function is NULL");
    OK(loftup_log_to(LOFTUP_LOG_LEVEL_WARN, count_message, &messages));
    FAILS(loftup_log_to(LOFTUP_LOG_LEVEL_WARN, count_message, &messages), INVALID_ARGUMENT, "already");
    check_parts();
    check_images();
    check_tracker();
    check_clicks();
    check_threads();
    check_memory(arguments[1]);
    /* A frame outlives its bundle. */
    frame = encode(&image);
    loftup_model_free(model);
    OK(loftup_frame_get_info(frame, &info));
    OK(loftup_frame_features(frame, NULL, NULL, in_thread[0], W * H * 64));
    loftup_frame_free(frame);
    loftup_frame_free(NULL);
    loftup_model_free(NULL);
    loftup_head_free(NULL);
    loftup_clicks_free(NULL);
    puts("done");
    return 0;
}
