// libloftup: dense features of vision foundation models, for C99 and C++.
//
// Made from the Rust sources by cbindgen; do not edit it. C++ programs include loftup.hpp.
//
// Calls. A function that can fail returns a loftup_status, 0 for success, and leaves a message for
//   loftup_last_error. Then nothing was written to outputs but handles, which are NULL; the contents of
//   an output buffer are undefined if LOFTUP_STATUS_ENGINE or LOFTUP_STATUS_INTERNAL is returned.
// Handles. They are made by functions that get their address, and freed with the function of their
//   type. A handle never needs another one to stay: a bundle may be freed before its frames.
// Structs that begin with `size` can grow. Set `size` to sizeof the struct and the rest to 0:
//     loftup_options options = {sizeof(loftup_options)};
// Strings are UTF-8, paths are bytes; both end with a zero. What a function gets is only used during
//   the call.
// Buffers belong to the caller. Their lengths count elements, and may be more than needed.
// Sizes and coordinates are in pixels, from the top left. Regions, points and masks of a frame are in
//   pixels of its output, not of the image that it was made from.
// Threads. Every handle may be used by several threads at once; calls with one tracker or one set of
//   clicks wait for each other. Only freeing is exclusive: no other thread may still use the handle.
//   Messages of errors belong to the thread.


#ifndef LOFTUP_H
#define LOFTUP_H



#include <stddef.h>
#include <stdint.h>

// Version of the binary interface that this header describes. A library with another number must
// not be used.
#define LOFTUP_ABI_VERSION 1

// The class of a pixel whose scores are NaN, or where no word was found.
#define LOFTUP_NO_CLASS 255

// Result of a call.
enum loftup_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // Done.
    LOFTUP_STATUS_OK = 0,
    // A pointer is NULL, or a value is not one that the function takes.
    LOFTUP_STATUS_INVALID_ARGUMENT = 1,
    // A buffer is too short. The message says how long it must be.
    LOFTUP_STATUS_BUFFER_TOO_SHORT = 2,
    // There is no such file, head or part in the bundle.
    LOFTUP_STATUS_NOT_FOUND = 3,
    // The bundle or a file is damaged, or not of a kind that this version reads.
    LOFTUP_STATUS_BAD_FILE = 4,
    // The engine is not available, or it failed.
    LOFTUP_STATUS_ENGINE = 5,
    // There is not enough memory.
    LOFTUP_STATUS_OUT_OF_MEMORY = 6,
    // A defect of the library. The handle may be freed, but not used any more.
    LOFTUP_STATUS_INTERNAL = 7,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum loftup_status loftup_status;
#else
typedef int32_t loftup_status;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// An inference engine, for loftup_options.engine.
enum loftup_engine
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // TensorRT where it is installed and works, the CPU otherwise, also later when TensorRT fails.
    LOFTUP_ENGINE_AUTO = 0,
    // TensorRT only.
    LOFTUP_ENGINE_TENSORRT = 1,
    // The CPU only: two runs on one machine give the same bits.
    LOFTUP_ENGINE_CPU = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum loftup_engine loftup_engine;
#else
typedef int32_t loftup_engine;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// A precision of the graphs of a bundle, for loftup_options.precision.
enum loftup_precision
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // The engine's preferred one among those of the bundle.
    LOFTUP_PRECISION_AUTO = 0,
    // 32-bit floats.
    LOFTUP_PRECISION_FP32 = 1,
    // 16-bit floats, with 32-bit floats where required.
    LOFTUP_PRECISION_FP16 = 2,
    // 8-bit products, 32-bit floats elsewhere.
    LOFTUP_PRECISION_INT8 = 3,
    // Weights of 16 bits, arithmetic in 32 bits.
    LOFTUP_PRECISION_FP16_WEIGHTS = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum loftup_precision loftup_precision;
#else
typedef int32_t loftup_precision;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// The matrix products of LoftUp on a CPU, for loftup_options.cpu_precision. Where TensorRT is used they
// have 32 bits, also when the CPU takes over.
enum loftup_cpu_precision
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // 32-bit floats, whatever the precision of the graphs.
    LOFTUP_CPU_PRECISION_FP32 = 0,
    // That of the graphs, within the error that the bundle allows.
    LOFTUP_CPU_PRECISION_AUTO = 1,
    // 16-bit integers.
    LOFTUP_CPU_PRECISION_INT16 = 2,
    // 16-bit floats; ARM only.
    LOFTUP_CPU_PRECISION_FP16 = 3,
    // bfloat16.
    LOFTUP_CPU_PRECISION_BF16 = 4,
    // 8-bit integers.
    LOFTUP_CPU_PRECISION_INT8 = 5,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum loftup_cpu_precision loftup_cpu_precision;
#else
typedef int32_t loftup_cpu_precision;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// The upsampler of a bundle.
enum loftup_upsampler
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // None: frames can only be encoded with LOFTUP_METHOD_JBU.
    LOFTUP_UPSAMPLER_NONE = 0,
    // LoftUp.
    LOFTUP_UPSAMPLER_LOFTUP = 1,
    // NAF.
    LOFTUP_UPSAMPLER_NAF = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum loftup_upsampler loftup_upsampler;
#else
typedef int32_t loftup_upsampler;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// What the outputs of a head are.
enum loftup_head_kind
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // One score per class.
    LOFTUP_HEAD_KIND_CLASSES = 0,
    // A short descriptor.
    LOFTUP_HEAD_KIND_DESCRIPTORS = 1,
    // Scores that loftup_frame_depth turns into meters.
    LOFTUP_HEAD_KIND_DEPTH = 2,
    // The cosine similarity with each word; negative infinity where none was found.
    LOFTUP_HEAD_KIND_WORDS = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum loftup_head_kind loftup_head_kind;
#else
typedef int32_t loftup_head_kind;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// Layout of the pixels of a loftup_image. The YUV formats are ITU-R BT.601 in video range (16 to 235).
enum loftup_pixel_format
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // Red, green, blue.
    LOFTUP_PIXEL_FORMAT_RGB8 = 0,
    // Blue, green, red, as in OpenCV.
    LOFTUP_PIXEL_FORMAT_BGR8 = 1,
    // Red, green, blue, and a byte that is not used.
    LOFTUP_PIXEL_FORMAT_RGBA8 = 2,
    // Blue, green, red, and a byte that is not used.
    LOFTUP_PIXEL_FORMAT_BGRA8 = 3,
    // One gray level per pixel.
    LOFTUP_PIXEL_FORMAT_GRAY8 = 4,
    // YUV 4:2:0: the rows of Y, then half as many rows of U and V in turn, rounded up, with the same
    // stride.
    LOFTUP_PIXEL_FORMAT_NV12 = 5,
    // YUV 4:2:2: Y0, U, Y1, V for two pixels.
    LOFTUP_PIXEL_FORMAT_YUYV = 6,
    // YUV 4:2:2: U, Y0, V, Y1 for two pixels.
    LOFTUP_PIXEL_FORMAT_UYVY = 7,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum loftup_pixel_format loftup_pixel_format;
#else
typedef int32_t loftup_pixel_format;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// How features get the resolution of the output, for loftup_encode_options.method.
enum loftup_method
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // The upsampler of the bundle.
    LOFTUP_METHOD_BUNDLE = 0,
    // Joint bilateral upsampling of the backbone's features, which needs no weights. Heads for it are
    // others than those for LoftUp.
    LOFTUP_METHOD_JBU = 1,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum loftup_method loftup_method;
#else
typedef int32_t loftup_method;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// Importance of a message.
enum loftup_log_level
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    // Something failed.
    LOFTUP_LOG_LEVEL_ERROR = 1,
    // Something to look at, such as the fallback taking over.
    LOFTUP_LOG_LEVEL_WARN = 2,
    // What is done, such as an engine being built.
    LOFTUP_LOG_LEVEL_INFO = 3,
    // Details.
    LOFTUP_LOG_LEVEL_DEBUG = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum loftup_log_level loftup_log_level;
#else
typedef int32_t loftup_log_level;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

// The features of an image, and the clicks on an object in it.
typedef struct loftup_clicks loftup_clicks;

// An encoded image: what was computed once. Each output of it costs in proportion to its area.
typedef struct loftup_frame loftup_frame;

// A head with its weights.
typedef struct loftup_head loftup_head;

// A bundle that is loaded into an engine.
typedef struct loftup_model loftup_model;

// Follows objects through a video.
typedef struct loftup_tracker loftup_tracker;

// A pixel of the output.
typedef struct loftup_point {
    // Column.
    size_t x;
    // Row.
    size_t y;
} loftup_point;

// An image in memory, rows from top to bottom. It is only read, and only during the call.
typedef struct loftup_image {
    // sizeof(loftup_image).
    size_t size;
    // The first byte of the first row.
    const uint8_t *data;
    // Bytes that may be read from there.
    size_t length;
    // Pixels in a row.
    size_t width;
    // Rows.
    size_t height;
    // Bytes from one row to the next; 0 for rows without padding.
    size_t stride;
    // A loftup_pixel_format.
    int32_t format;
    // Always 0.
    int32_t reserved;
} loftup_image;

// How an image is encoded. Zeros are the defaults.
typedef struct loftup_encode_options {
    // sizeof(loftup_encode_options).
    size_t size;
    // A loftup_method.
    int32_t method;
    // 0: LoftUp scales the colors by the minimum and maximum of each image, as in training. 1: by
    // color_min and color_max for every image, so that in video one hot pixel changes only itself.
    int32_t fixed_color_range;
    // Per channel, in normalized units: maps to -0.5.
    float color_min[3];
    // Maps to 0.5.
    float color_max[3];
} loftup_encode_options;

// What an encoded image gives.
typedef struct loftup_frame_info {
    // sizeof(loftup_frame_info), set by the caller.
    size_t size;
    // Columns of the output for the whole frame.
    size_t width;
    // Its rows.
    size_t height;
    // Channels of the features, without a head.
    size_t dim;
} loftup_frame_info;

// A rectangle of pixels of the output.
typedef struct loftup_rect {
    // Left column.
    size_t x;
    // Top row.
    size_t y;
    // Columns.
    size_t width;
    // Rows.
    size_t height;
} loftup_rect;

// What a head is.
typedef struct loftup_head_info {
    // sizeof(loftup_head_info), set by the caller.
    size_t size;
    // Its name, UTF-8; empty for a head from a file.
    const char *name;
    // Outputs per pixel.
    size_t outputs;
    // Classes or words; 0 for other kinds.
    size_t classes;
    // A loftup_head_kind.
    int32_t kind;
    // Always 0.
    int32_t reserved;
} loftup_head_info;

// Which engine answers, and what went wrong since the bundle was opened.
typedef struct loftup_health {
    // sizeof(loftup_health), set by the caller.
    size_t size;
    // 1 while the fallback answers, 0 while the preferred engine does.
    int32_t degraded;
    // Always 0.
    int32_t reserved;
    // Runs completed by the preferred engine.
    uint64_t preferred_runs;
    // Runs completed by the fallback.
    uint64_t fallback_runs;
    // Errors of the preferred engine, while loading or running.
    uint64_t errors;
    // Its runs with outputs that were not finite.
    uint64_t not_finite;
    // Comparisons with the reference outputs of the bundle that it failed.
    uint64_t wrong;
    // Its time-outs.
    uint64_t timeouts;
    // How often it was tried again.
    uint64_t retries;
    // Threads that hang in it now.
    uint64_t stuck;
    // Name, version and device of the engine that answers, UTF-8, cut to what fits.
    char engine[128];
    // Why the preferred engine does not answer; empty if it does.
    char reason[384];
} loftup_health;

// Receives a message: its loftup_log_level, one line of UTF-8 that is valid during the call, and the
// pointer that was given with the function. It may be called by any thread, by several at once, and
// must not call the library.
typedef void (*loftup_log_function)(int32_t level, const char *message, void *user);

// How a bundle is opened. Zeros are the defaults.
typedef struct loftup_options {
    // sizeof(loftup_options).
    size_t size;
    // A loftup_engine.
    int32_t engine;
    // A loftup_precision.
    int32_t precision;
    // Where TensorRT's engines are cached; NULL for the user's cache directory.
    const char *cache_directory;
    // Threads that compute tiles; 0 for one per core.
    size_t threads;
    // Longest side of a tile in pixels; 0 for the engine's preferred one. Another tile size changes
    // the rounding of outputs.
    size_t tile;
    // A loftup_cpu_precision.
    int32_t cpu_precision;
    // Always 0.
    int32_t reserved;
} loftup_options;

// What a bundle has.
typedef struct loftup_model_info {
    // sizeof(loftup_model_info), set by the caller.
    size_t size;
    // Channels of the upsampled features; those of the backbone if there is no upsampler.
    size_t dim;
    // Channels of the backbone's features, and of what LOFTUP_METHOD_JBU gives; 0 without a backbone.
    size_t backbone_dim;
    // Side of the backbone's patch, in pixels of its input.
    size_t patch;
    // Columns of the backbone's input; the default if it takes any size.
    size_t image_width;
    // Rows of the backbone's input.
    size_t image_height;
    // Columns of the backbone's grid of features for an input of that size.
    size_t grid_width;
    // Rows of that grid.
    size_t grid_height;
    // Number of heads.
    size_t heads;
    // 1 if the backbone takes any size that is a multiple of its patch, 0 if only the one above.
    int32_t any_size;
    // A loftup_upsampler.
    int32_t upsampler;
    // The loftup_precision that was loaded.
    int32_t precision;
    // Always 0.
    int32_t reserved;
} loftup_model_info;

// How objects are tracked. Zeros are the defaults.
typedef struct loftup_tracker_options {
    // sizeof(loftup_tracker_options).
    size_t size;
    // The largest label, and so the most objects at a time; at most 254. Default: 10.
    size_t max_objects;
    // Frames that labels are taken from, besides the one in which objects were started. Default: 7.
    size_t last_frames;
    // How far an object can move between frames, in cells of the grid. Default: 12.
    size_t radius;
    // The most similar cells that a label is the weighted mean of. Default: 5.
    size_t top_k;
    // Labels are interpolated to this multiple of the grid. Default: 2.
    size_t output_scale;
    // Threads. Default: one per core.
    size_t threads;
    // The weight of a cell is exp(cosine similarity / temperature). Default: 0.1.
    float temperature;
    // An object whose soft label is nowhere above this is not visible.
    float min_label;
} loftup_tracker_options;

// A tracked object in one frame.
typedef struct loftup_object {
    // Its label, the same from its start until it is removed.
    uint32_t label;
    // The mean of its soft label over its pixels, 0 to 1; 0 while it is not visible.
    float confidence;
    // Pixels in the mask; 0 while it is not visible.
    size_t area;
    // The smallest box around its pixels; zeros while it is not visible.
    struct loftup_rect bounds;
} loftup_object;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// Returns the library's LOFTUP_ABI_VERSION.
uint32_t loftup_abi_version(void);

// Returns the library's version, such as "0.1.0".
const char *loftup_version(void);

// Begins to segment an object of an encoded image: computes its features, which are kept. The frame
// is not needed afterwards.
//
// @param threshold  The cosine similarity from which a pixel belongs to the object, -1 to 1; NULL for
//                   the one that was fitted for the bundle with `loftup head clicks`, or else 0.6.
// @param clicks     Gets the handle, to be freed with loftup_clicks_free; NULL on errors.
loftup_status loftup_clicks_new(const struct loftup_frame *frame,
                                const float *threshold,
                                struct loftup_clicks **clicks);

// Frees clicks and features; NULL is ignored.
void loftup_clicks_free(struct loftup_clicks *clicks);

// Adds a click. At most 256 can be added.
//
// @param point     A pixel of the frame's output.
// @param positive  1 if it belongs to the object, 0 if not.
loftup_status loftup_clicks_add(struct loftup_clicks *clicks,
                                struct loftup_point point,
                                int32_t positive);

// Forgets all clicks; the features are kept.
loftup_status loftup_clicks_clear(struct loftup_clicks *clicks);

// Writes the mask of the object for the clicks so far.
//
// @param width   Columns of the mask: those of the frame's output, or others, to which the scores are
//                interpolated.
// @param height  Its rows.
// @param mask    Gets 1 for the object and 0 elsewhere, [height, width].
// @param length  Bytes that may be written there.
loftup_status loftup_clicks_mask(struct loftup_clicks *clicks,
                                 size_t width,
                                 size_t height,
                                 uint8_t *mask,
                                 size_t length);

// Encodes an image: resizes it to the size of the output, runs the backbone, and computes the keys.
//
// @param image    The image, in any size.
// @param width    Columns of the output for the whole frame. Regions and points are in its pixels.
// @param height   Its rows.
// @param options  NULL for the defaults.
// @param frame    Gets the encoded image, to be freed with loftup_frame_free; NULL on errors.
loftup_status loftup_encode(const struct loftup_model *model,
                            const struct loftup_image *image,
                            size_t width,
                            size_t height,
                            const struct loftup_encode_options *options,
                            struct loftup_frame **frame);

// Frees an encoded image; NULL is ignored.
void loftup_frame_free(struct loftup_frame *frame);

// Tells what an encoded image gives.
//
// @param info  Gets it; info->size must be set.
loftup_status loftup_frame_get_info(const struct loftup_frame *frame,
                                    struct loftup_frame_info *info);

// Computes the features of a frame or a region, or the outputs of a head.
//
// @param head    The head; NULL for features.
// @param region  The region; NULL for the whole frame.
// @param out     Gets [height, width, channels], rows from top to bottom, the channels of a pixel
//                together: loftup_frame_info.dim channels, or loftup_head_info.outputs of the head.
// @param length  Floats that may be written there.
loftup_status loftup_frame_features(const struct loftup_frame *frame,
                                    const struct loftup_head *head,
                                    const struct loftup_rect *region,
                                    float *out,
                                    size_t length);

// Computes the features at points, or the outputs of a head.
//
// @param head    The head; NULL for features.
// @param points  The points.
// @param count   Their number, which may be 0.
// @param out     Gets [count, channels], in the order of the points.
// @param length  Floats that may be written there.
loftup_status loftup_frame_points(const struct loftup_frame *frame,
                                  const struct loftup_head *head,
                                  const struct loftup_point *points,
                                  size_t count,
                                  float *out,
                                  size_t length);

// Computes the class of each pixel of a frame or a region: the number of the largest output of the
// head, or LOFTUP_NO_CLASS.
//
// @param head    A head of classes or words.
// @param region  The region; NULL for the whole frame.
// @param out     Gets [height, width].
// @param length  Bytes that may be written there.
loftup_status loftup_frame_classes(const struct loftup_frame *frame,
                                   const struct loftup_head *head,
                                   const struct loftup_rect *region,
                                   uint8_t *out,
                                   size_t length);

// Computes the depth of each pixel of a frame or a region in meters.
//
// @param head    A head of depth.
// @param region  The region; NULL for the whole frame.
// @param out     Gets [height, width].
// @param length  Floats that may be written there.
loftup_status loftup_frame_depth(const struct loftup_frame *frame,
                                 const struct loftup_head *head,
                                 const struct loftup_rect *region,
                                 float *out,
                                 size_t length);

// Loads a head of a bundle.
//
// @param name  Its name.
// @param head  Gets the head, to be freed with loftup_head_free; NULL on errors.
loftup_status loftup_head_open(const struct loftup_model *model,
                               const char *name,
                               struct loftup_head **head);

// Loads a head from a file, such as other words made by `loftup head text --out FILE.safetensors`.
//
// @param model  The bundle whose features it is for.
// @param path   The file.
// @param head   Gets the head, to be freed with loftup_head_free; NULL on errors.
loftup_status loftup_head_open_file(const struct loftup_model *model,
                                    const char *path,
                                    struct loftup_head **head);

// Frees a head; NULL is ignored.
void loftup_head_free(struct loftup_head *head);

// Tells what a head is.
//
// @param info  Gets it; info->size must be set. Its name is valid until the head is freed.
loftup_status loftup_head_get_info(const struct loftup_head *head, struct loftup_head_info *info);

// Returns the name of a class or word, UTF-8, valid until the head is freed; NULL if there is none of
// that number, such as LOFTUP_NO_CLASS.
const char *loftup_head_class_name(const struct loftup_head *head,
                                   size_t index);

// Tells which engine answers, and why.
//
// @param health  Gets it; health->size must be set.
loftup_status loftup_model_get_health(const struct loftup_model *model,
                                      struct loftup_health *health);

// Sends messages of the library to a function, for the rest of the process; without it there are none.
// It can be called once.
//
// @param level     The least important messages that are sent, a loftup_log_level.
// @param function  Receives them.
// @param user      Given to the function.
loftup_status loftup_log_to(int32_t level,
                            loftup_log_function function,
                            void *user);

// Opens a bundle, a directory made by `loftup convert`. Every file of it is checked. Graphs are
// loaded when they are first used.
//
// @param path     Path of the bundle.
// @param options  NULL for the defaults.
// @param model    Gets the bundle, to be freed with loftup_model_free; NULL on errors.
loftup_status loftup_open(const char *path,
                          const struct loftup_options *options,
                          struct loftup_model **model);

// Frees a bundle; NULL is ignored. Heads and frames that were made from it stay valid, and keep what
// they need of it.
void loftup_model_free(struct loftup_model *model);

// Tells what a bundle has.
//
// @param info  Gets it; info->size must be set.
loftup_status loftup_model_get_info(const struct loftup_model *model,
                                    struct loftup_model_info *info);

// Tells what a head of a bundle is. Heads are sorted by name.
//
// @param index  0 to loftup_model_info.heads - 1.
// @param info   Gets it; info->size must be set. Its name is valid until the bundle is freed.
loftup_status loftup_model_get_head_info(const struct loftup_model *model,
                                         size_t index,
                                         struct loftup_head_info *info);

// Compiles everything for outputs of a size, so that the first frame does not wait for it: on TensorRT
// an engine may take minutes to build, and is then cached.
//
// @param width   Columns of the output for the whole frame.
// @param height  Its rows.
loftup_status loftup_model_compile(const struct loftup_model *model,
                                   size_t width,
                                   size_t height);

// Returns the message of the last call of this thread that failed, one line of UTF-8; empty if none
// has. It is valid until the next call of this thread that fails. Calls that succeed leave it as it
// is.
const char *loftup_last_error(void);

// Returns the name of a status, such as "invalid argument"; "unknown" for other numbers.
const char *loftup_status_name(int32_t status);

// Makes a tracker. All of its memory is allocated here.
//
// @param width    Columns of the grid of features that it will be given.
// @param height   Rows of the grid.
// @param dim      Channels of the features.
// @param options  NULL for the defaults.
// @param tracker  Gets the tracker, to be freed with loftup_tracker_free; NULL on errors.
loftup_status loftup_tracker_new(size_t width,
                                 size_t height,
                                 size_t dim,
                                 const struct loftup_tracker_options *options,
                                 struct loftup_tracker **tracker);

// Frees a tracker; NULL is ignored.
void loftup_tracker_free(struct loftup_tracker *tracker);

// Gives a tracker the features of the next frame, and follows the objects to it. After an error it
// goes on as if the frame had not been.
//
// @param features  [height, width, dim], as loftup_frame_features writes them.
// @param length    Floats in it: height * width * dim.
loftup_status loftup_tracker_update(struct loftup_tracker *tracker,
                                    const float *features,
                                    size_t length);

// Starts an object in the current frame, with everything inside a box.
//
// @param label   Its label, from 1 to loftup_tracker_options.max_objects; if there is an object with
//                it, that one is started again.
// @param box     The box, in pixels of an image.
// @param width   Columns of that image.
// @param height  Its rows.
loftup_status loftup_tracker_start_box(struct loftup_tracker *tracker,
                                       uint8_t label,
                                       struct loftup_rect box,
                                       size_t width,
                                       size_t height);

// Starts an object in the current frame, with the cells around a pixel that are similar to it. As
// loftup_tracker_start_box otherwise.
loftup_status loftup_tracker_start_point(struct loftup_tracker *tracker,
                                         uint8_t label,
                                         struct loftup_point point,
                                         size_t width,
                                         size_t height);

// Starts an object for each value in a mask, from 1 to loftup_tracker_options.max_objects, in the
// current frame. 0 and 255 (void) are background.
//
// @param mask    [height, width].
// @param length  Bytes in it: height * width.
// @param width   Columns of the mask, which may have any size.
// @param height  Its rows.
loftup_status loftup_tracker_start_mask(struct loftup_tracker *tracker,
                                        const uint8_t *mask,
                                        size_t length,
                                        size_t width,
                                        size_t height);

// Removes an object, which becomes background; its label can be used again. Without such an object
// nothing happens.
loftup_status loftup_tracker_remove(struct loftup_tracker *tracker, uint8_t label);

// Writes the mask of the current frame, and where each object is.
//
// @param width         Columns of the mask, which may have any size.
// @param height        Its rows.
// @param mask          Gets the label of each pixel, [height, width]; 0 is background.
// @param length        Bytes that may be written there.
// @param objects       Gets the objects by label; NULL if they are not wanted.
// @param capacity      Objects that may be written there; loftup_tracker_options.max_objects is
//                      enough.
// @param count         Gets their number; NULL if it is not wanted.
loftup_status loftup_tracker_mask(struct loftup_tracker *tracker,
                                  size_t width,
                                  size_t height,
                                  uint8_t *mask,
                                  size_t length,
                                  struct loftup_object *objects,
                                  size_t capacity,
                                  size_t *count);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* LOFTUP_H */
