/* Prints how many pixels of an image each class has, and writes the class map to a file.
 *
 *     classes BUNDLE HEAD IMAGE.ppm OUT.raw */

#include <loftup.h>

#include "ppm.h"

enum { WIDTH = 224, HEIGHT = 224 };

static int failed(const char *what) {
    fprintf(stderr, "%s: %s\n", what, loftup_last_error());
    return 1;
}

int main(int count, char **arguments) {
    loftup_options options = {sizeof options};
    loftup_image image = {sizeof image};
    loftup_model *model = NULL;
    loftup_head *head = NULL;
    loftup_frame *frame = NULL;
    static unsigned char classes[WIDTH * HEIGHT];
    size_t counts[256] = {0}, i;
    unsigned char *pixels;
    FILE *out;
    int result = 1;

    if (count != 5) {
        fprintf(stderr, "usage: classes BUNDLE HEAD IMAGE.ppm OUT.raw\n");
        return 2;
    }
    pixels = read_ppm(arguments[3], &image.width, &image.height);
    if (pixels == NULL) {
        fprintf(stderr, "%s: not a binary PPM image of 8 bits\n", arguments[3]);
        return 1;
    }
    image.data = pixels;
    image.length = image.width * image.height * 3;
    image.format = LOFTUP_PIXEL_FORMAT_RGB8;
    options.engine = LOFTUP_ENGINE_CPU;

    if (loftup_open(arguments[1], &options, &model) != LOFTUP_STATUS_OK ||
        loftup_head_open(model, arguments[2], &head) != LOFTUP_STATUS_OK ||
        loftup_encode(model, &image, WIDTH, HEIGHT, NULL, &frame) != LOFTUP_STATUS_OK ||
        loftup_frame_classes(frame, head, NULL, classes, sizeof classes) != LOFTUP_STATUS_OK) {
        failed(arguments[3]);
        goto end;
    }
    for (i = 0; i < sizeof classes; i++)
        counts[classes[i]]++;
    for (i = 0; i < 256; i++) {
        const char *name = loftup_head_class_name(head, i);
        if (counts[i] > 0)
            printf("%s: %zu\n", name != NULL ? name : "no class", counts[i]);
    }
    out = fopen(arguments[4], "wb");
    if (out != NULL) {
        result = fwrite(classes, 1, sizeof classes, out) != sizeof classes;
        result |= fclose(out) != 0;
    }
    if (result != 0)
        perror(arguments[4]);

end:
    loftup_frame_free(frame);
    loftup_head_free(head);
    loftup_model_free(model);
    free(pixels);
    return result;
}
