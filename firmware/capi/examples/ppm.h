/* Reads a binary PPM image (P6, 8 bits), for the examples. */
#ifndef PPM_H
#define PPM_H

#include <stdio.h>
#include <stdlib.h>

/* Returns the pixels, to be freed with free; NULL if it is no such image. */
static unsigned char *read_ppm(const char *path, size_t *width, size_t *height) {
    FILE *file = fopen(path, "rb");
    unsigned w = 0, h = 0, most = 0;
    unsigned char *pixels = NULL;
    if (file == NULL)
        return NULL;
    if (fscanf(file, "P6 %u %u %u", &w, &h, &most) == 3 && most == 255 && w > 0 && h > 0 &&
        w <= 16384 && h <= 16384 && fgetc(file) != EOF) {
        size_t bytes = (size_t)w * h * 3;
        pixels = (unsigned char *)malloc(bytes);
        if (pixels != NULL && fread(pixels, 1, bytes, file) != bytes) {
            free(pixels);
            pixels = NULL;
        }
    }
    fclose(file);
    *width = w;
    *height = h;
    return pixels;
}

#endif
