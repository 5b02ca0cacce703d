/* Pillow's anti-aliased BILINEAR resize of 8-bit RGB, with SIMD: the same bytes in about a fifth of the time.

   One pass along the rows and one along the columns; each rounds to 8 bits. Weights are fixed point with 22 bits, so
   a weighted sum of levels fits an int32. Source of the arithmetic: Pillow, src/libImaging/Resample.c (MIT-CMU),
   which takes pixel by pixel; here four rows go side by side. Built without contraction of floating-point
   operations (-ffp-contract=off), which would change weights. */

#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define WEIGHT_BITS 22
#define HALF (1 << (WEIGHT_BITS - 1))
#define ROWS 4            /* that go side by side */
#define LANES (4 * ROWS)  /* bytes of their pixels at one x: red, green, blue and one that is not used */

/* Compiled for several instruction sets, of which the loader chooses one. */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define FOR_EACH_CPU __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define FOR_EACH_CPU
#endif

/* A picture in somebody else's memory; rows lie `stride` bytes apart. */
typedef struct {
    uint8_t *bytes;
    size_t stride;
    int width, height;
} Picture;

/* What makes one output pixel: `count` inputs from `first` on, weighted. */
typedef struct {
    int first, count;
    const int32_t *weights;
} Taps;

/* The taps of each of `to` outputs of one axis; `*weights` owns the memory behind them. NULL when out of memory.
   A triangle, on both sides as wide as one output pixel or one input pixel, whichever is larger. */
static Taps *taps_of(int from, int to, int32_t **weights)
{
    double scale = (double)from / to, reach = scale < 1.0 ? 1.0 : scale;
    int most = (int)ceil(reach) * 2 + 1;
    Taps *taps = malloc(to * sizeof *taps);
    double *exact = malloc(most * sizeof *exact);
    *weights = malloc((size_t)to * most * sizeof **weights);
    if (!taps || !exact || !*weights) {
        free(taps), free(exact);
        return NULL;
    }
    for (int i = 0; i < to; i++) {
        double centre = (i + 0.5) * scale, sum = 0.0;
        int first = (int)(centre - reach + 0.5), end = (int)(centre + reach + 0.5);
        first = first < 0 ? 0 : first;
        end = end > from ? from : end;
        for (int j = first; j < end; j++) {
            double distance = fabs((j - centre + 0.5) * (1.0 / reach));
            exact[j - first] = distance < 1.0 ? 1.0 - distance : 0.0;
            sum += exact[j - first];
        }
        int32_t *own = *weights + (size_t)i * most;
        for (int j = 0; j < end - first; j++)
            own[j] = (int32_t)(0.5 + exact[j] / sum * (1 << WEIGHT_BITS));
        taps[i] = (Taps){first, end - first, own};
    }
    free(exact);
    return taps;
}

/* Up to ROWS rows side by side; never reads behind the last pixel of a row. */
static void gather(Picture in, int top, uint8_t *block)
{
    for (int row = 0; row < ROWS && top + row < in.height; row++) {
        const uint8_t *pixel = in.bytes + (top + row) * in.stride;
        uint8_t *place = block + 4 * row;
        for (int x = 0; x < in.width - 1; x++, pixel += 3, place += LANES)
            memcpy(place, pixel, 4);
        memcpy(place, pixel, 3);
    }
}

/* ROWS gathered rows to another width. `out`: one row behind the other, each with one more byte at its end. */
FOR_EACH_CPU static void resample_block(const uint8_t *restrict block, const Taps *restrict taps, int width,
                                        uint8_t *restrict out)
{
    size_t stride = 3 * (size_t)width + 1;
    for (int x = 0; x < width; x++, out += 3) {
        const uint8_t *pixels = block + LANES * (size_t)taps[x].first;
        int32_t sums[LANES];
        uint8_t levels[LANES];
        for (int lane = 0; lane < LANES; lane++)
            sums[lane] = HALF;
        for (int i = 0; i < taps[x].count; i++, pixels += LANES) {
            int32_t weight = taps[x].weights[i];
            for (int lane = 0; lane < LANES; lane++)
                sums[lane] += pixels[lane] * weight;
        }
        for (int lane = 0; lane < LANES; lane++)
            levels[lane] = (uint8_t)(sums[lane] >> WEIGHT_BITS);
        for (int row = 0; row < ROWS; row++)
            memcpy(out + row * stride, levels + 4 * row, 4);
    }
}

/* All rows to the width of `out`; 0 when out of memory. */
static int resample_rows(Picture in, Picture out)
{
    size_t row_bytes = 3 * (size_t)out.width;
    int32_t *weights = NULL;
    Taps *taps = taps_of(in.width, out.width, &weights);
    uint8_t *block = calloc(in.width, LANES), *resampled = malloc(ROWS * (row_bytes + 1));
    int done = taps && block && resampled;
    for (int y = 0; done && y < in.height; y += ROWS) {
        gather(in, y, block);
        resample_block(block, taps, out.width, resampled);
        for (int row = 0; row < ROWS && y + row < in.height; row++)
            memcpy(out.bytes + (y + row) * out.stride, resampled + row * (row_bytes + 1), row_bytes);
    }
    free(taps), free(weights), free(block), free(resampled);
    return done;
}

/* The weighted sum of some rows of `length` bytes. */
FOR_EACH_CPU static void blend_rows(const uint8_t *restrict in, size_t stride, Taps taps, uint8_t *restrict out,
                                    int32_t *restrict sums, size_t length)
{
    for (size_t i = 0; i < length; i++)
        sums[i] = HALF;
    for (int tap = 0; tap < taps.count; tap++) {
        const uint8_t *row = in + (taps.first + tap) * stride;
        int32_t weight = taps.weights[tap];
        for (size_t i = 0; i < length; i++)
            sums[i] += row[i] * weight;
    }
    for (size_t i = 0; i < length; i++)
        out[i] = (uint8_t)(sums[i] >> WEIGHT_BITS);
}

/* All columns to the height of `out`; 0 when out of memory. */
static int resample_columns(Picture in, Picture out)
{
    size_t row_bytes = 3 * (size_t)out.width;
    int32_t *weights = NULL;
    Taps *taps = taps_of(in.height, out.height, &weights);
    int32_t *sums = malloc(row_bytes * sizeof *sums);
    int done = taps && sums;
    for (int y = 0; done && y < out.height; y++)
        blend_rows(in.bytes, in.stride, taps[y], out.bytes + y * out.stride, sums, row_bytes);
    free(taps), free(weights), free(sums);
    return done;
}

/* `in` at the size of `out`; 0 when out of memory. */
static int resize(Picture in, Picture out, int columns_first)
{
    Picture between = {.width = columns_first ? in.width : out.width, .height = columns_first ? out.height : in.height};
    between.stride = 3 * (size_t)between.width;
    between.bytes = malloc(between.stride * between.height);
    int done = between.bytes != NULL;
    if (columns_first)
        done = done && resample_columns(in, between) && resample_rows(between, out);
    else
        done = done && resample_rows(in, between) && resample_columns(between, out);
    free(between.bytes);
    return done;
}

PyDoc_STRVAR(resize_doc,
             "resize(image, image_width, box, out, size, columns_first)\n\n"
             "image, out: contiguous buffers of 8-bit RGB; box: left, top, right, bottom; size: width, height.");

static PyObject *resize_py(PyObject *module, PyObject *args)
{
    Py_buffer image, out;
    int image_width, left, top, right, bottom, width, height, columns_first;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*i(iiii)w*(ii)p", &image, &image_width, &left, &top, &right, &bottom, &out, &width,
                          &height, &columns_first))
        return NULL;
    size_t stride = 3 * (size_t)image_width;
    int fits = 0 <= left && left < right && right <= image_width && 0 <= top && top < bottom
               && bottom * stride <= (size_t)image.len && width > 0 && height > 0
               && 3 * (size_t)width * height == (size_t)out.len;
    int done = 0;
    if (fits) {
        Picture part = {(uint8_t *)image.buf + top * stride + 3 * (size_t)left, stride, right - left, bottom - top};
        Py_BEGIN_ALLOW_THREADS
        done = resize(part, (Picture){out.buf, 3 * (size_t)width, width, height}, columns_first);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&image);
    PyBuffer_Release(&out);
    if (done)
        Py_RETURN_NONE;
    return fits ? PyErr_NoMemory()
                : PyErr_Format(PyExc_ValueError, "the box (%d, %d, %d, %d) is empty or outside of the image, or out "
                               "does not hold %d x %d pixels", left, top, right, bottom, width, height);
}

static PyMethodDef methods[] = {{"resize", resize_py, METH_VARARGS, resize_doc}, {NULL, NULL, 0, NULL}};

static struct PyModuleDef definition = {.m_base = PyModuleDef_HEAD_INIT,
                                        .m_name = "vtray_resample",
                                        .m_doc = "Pillow's BILINEAR resize of 8-bit RGB, with SIMD.",
                                        .m_methods = methods};

PyMODINIT_FUNC PyInit_vtray_resample(void)
{
    return PyModuleDef_Init(&definition);
}
