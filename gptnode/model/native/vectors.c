/* Rows of activations in the form that products with a kind of matrix want. */
#include "kernels.h"

#include <string.h>

static int runs_of(const gpt_matrix *matrix) { return (matrix->stride + DEPTH - 1) / DEPTH; }

static size_t run_bytes(const gpt_matrix *matrix) {
    return DEPTH * (matrix->kind == GPT_INT4 ? sizeof(int8_t) : sizeof(int16_t));
}

static size_t unit_count(const gpt_matrix *matrix, int rows) {
    if (matrix->kind == GPT_INT8) return rows;
    return matrix->kind == GPT_INT4 ? (size_t)runs_of(matrix) * rows * (DEPTH / GROUP_4) : 0;
}

gpt_vectors gpt_vectors_in(void *memory, const gpt_matrix *matrix, int rows) {
    int runs = runs_of(matrix);
    int together = matrix->kind == GPT_BF16 ? rows : matrix->kind == GPT_INT8 ? 1 : 4;
    float *units = (float *)((char *)memory + (size_t)runs * rows * run_bytes(matrix));
    int32_t *offsets = (int32_t *)(units + unit_count(matrix, rows));
    return (gpt_vectors){rows, runs, together, memory, units, offsets};
}

size_t gpt_vectors_bytes(const gpt_matrix *matrix, int rows) {
    size_t runs = (size_t)runs_of(matrix) * rows;
    size_t bytes = runs * run_bytes(matrix) + unit_count(matrix, rows) * sizeof(float);
    if (matrix->kind == GPT_INT4) bytes += runs * (DEPTH / 4) * sizeof(int32_t);
    return (bytes + 63) / 64 * 64;
}

/* The largest magnitude; without the sign, bf16 are in the order of their bits. */
static inline float largest(const uint16_t *row, int count) {
    uint16_t most = 0;
    for (int i = 0; i < count; i++) {
        uint16_t size = row[i] & 0x7fff;
        most = size > most ? size : most;
    }
    return from_bf16(most);
}

/* The value of one where `most` becomes `top`, and what to multiply by; NaN and Inf go into the
 * value, and so into every result. */
static inline float unit_of(float most, float top, float *per_unit) {
    *per_unit = top / most;
    if (isfinite(most) && isfinite(*per_unit)) return most / top;
    *per_unit = 0;
    return isfinite(most) ? 0 : NAN;
}

static inline int16_t nearest(uint16_t value, float per_unit) {
    return per_unit > 0 ? (int16_t)rintf(from_bf16(value) * per_unit) : 0;
}

static void to_bf16_runs(const uint16_t *row, int k, size_t apart, uint16_t *to) {
    for (int i = 0; i < k; i += DEPTH, to += apart) {
        int count = k - i < DEPTH ? k - i : DEPTH;
        memcpy(to, row + i, count * sizeof *to);
        memset(to + count, 0, (DEPTH - count) * sizeof *to);
    }
}

CLONES static float to_int16_runs(const uint16_t *row, int k, size_t apart, int16_t *to) {
    float per_unit, unit = unit_of(largest(row, k), 32767, &per_unit);
    for (int i = 0; i < k; i += DEPTH, to += apart) {
        int count = k - i < DEPTH ? k - i : DEPTH;
        for (int j = 0; j < count; j++) to[j] = nearest(row[i + j], per_unit);
        for (int j = count; j < DEPTH; j++) to[j] = 0;
    }
    return unit;
}

static inline void to_int8_group(const uint16_t *row, const int count, int8_t *to, float *unit,
                                 int32_t *offsets) {
    float per_unit;
    *unit = unit_of(largest(row, count), 127, &per_unit);
    for (int j = 0; j < count; j++) to[j] = (int8_t)nearest(row[j], per_unit);
    for (int j = count; j < GROUP_4; j++) to[j] = 0;
    for (int j = 0; j < GROUP_4 / 4; j++)
        offsets[j] = -8 * (to[4 * j] + to[4 * j + 1] + to[4 * j + 2] + to[4 * j + 3]);
}

/* The next run stands `apart` runs behind. */
CLONES static void to_int8_runs(const uint16_t *row, int k, size_t apart, int8_t *to, float *units,
                                int32_t *offsets) {
    for (int i = 0; i < k; i += DEPTH) {
        for (int j = 0; j < DEPTH; j += GROUP_4) {
            int left = k - i - j;
            const uint16_t *group = row + (left > 0 ? i + j : 0);
            int32_t *of_group = offsets + j / 4;
            float *unit = units + j / GROUP_4;
            if (left >= GROUP_4) to_int8_group(group, GROUP_4, to + j, unit, of_group);
            else to_int8_group(group, left > 0 ? left : 0, to + j, unit, of_group);
        }
        to += apart * DEPTH;
        units += apart * (DEPTH / GROUP_4);
        offsets += apart * (DEPTH / 4);
    }
}

void gpt_set_vector(const gpt_vectors *vectors, const gpt_matrix *matrix, int t,
                    const uint16_t *row) {
    size_t at = gpt_runs_before(vectors, 0, t), apart = gpt_runs_before(vectors, 1, t) - at;
    if (matrix->kind == GPT_BF16)
        to_bf16_runs(row, matrix->k, apart * DEPTH, (uint16_t *)vectors->values + at * DEPTH);
    else if (matrix->kind == GPT_INT8)
        vectors->units[t] = to_int16_runs(row, matrix->k, apart * DEPTH,
                                          (int16_t *)vectors->values + at * DEPTH);
    else
        to_int8_runs(row, matrix->k, apart, (int8_t *)vectors->values + at * DEPTH,
                     vectors->units + at * (DEPTH / GROUP_4), vectors->offsets + at * (DEPTH / 4));
}
