/* What stands between the matrix products, row by row: norms, rotations, the gate; and the head.
 * Rounding follows transformers in bf16: norms in f32, rotations and products cast at each step. */
#include "kernels.h"

#include <stdlib.h>
#include <string.h>

CLONES void gpt_norm_row(const uint16_t *x, const uint16_t *norm, float eps, int width,
                         uint16_t *out) {
    float sum = 0;
    for (int i = 0; i < width; i++) sum += from_bf16(x[i]) * from_bf16(x[i]);
    float scale = 1.0f / sqrtf(sum / (float)width + eps);
    for (int i = 0; i < width; i++)
        out[i] = to_bf16(from_bf16(norm[i]) * rounded(from_bf16(x[i]) * scale));
}

CLONES void gpt_rotate_head(const uint16_t *restrict x, const uint16_t *restrict cosines,
                            const uint16_t *restrict sines, int width, uint16_t *restrict out) {
    int half = width / 2;
    for (int i = 0; i < half; i++) {
        float low = from_bf16(x[i]), high = from_bf16(x[i + half]);
        float a = rounded(low * from_bf16(cosines[i])) - rounded(high * from_bf16(sines[i]));
        float b = rounded(high * from_bf16(cosines[i + half])) +
                  rounded(low * from_bf16(sines[i + half]));
        out[i] = to_bf16(a);
        out[i + half] = to_bf16(b);
    }
}

static inline float silu(float x) { return x / (1.0f + exp_f32(-x)); }

CLONES void gpt_gated(const float *gate, const float *up, int count, uint16_t *out) {
    for (int i = 0; i < count; i++)
        out[i] = to_bf16(rounded(silu(rounded(gate[i]))) * rounded(up[i]));
}

CLONES static void silu_mul(uint16_t *gate, const uint16_t *up, size_t count) {
    for (size_t i = 0; i < count; i++)
        gate[i] = to_bf16(rounded(silu(from_bf16(gate[i]))) * from_bf16(up[i]));
}

/* ---- many rows ---- */

void gpt_rmsnorm(const uint16_t *x, const uint16_t *norm, float norm_eps, int rows, int width,
                 uint16_t *out, int threads) {
    (void)threads;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int t = 0; t < rows; t++)
        gpt_norm_row(x + (size_t)t * width, norm, norm_eps, width, out + (size_t)t * width);
}

void gpt_rotate(uint16_t *x, const uint16_t *cosines, const uint16_t *sines, int rows, int n_heads,
                int head_dim, int threads) {
    (void)threads;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int t = 0; t < rows; t++)
        for (int h = 0; h < n_heads; h++) {
            uint16_t *head = x + ((size_t)t * n_heads + h) * head_dim, turned[MAX_HEAD_DIM];
            gpt_rotate_head(head, cosines + (size_t)t * head_dim, sines + (size_t)t * head_dim,
                            head_dim, turned);
            memcpy(head, turned, head_dim * sizeof *head);
        }
}

void gpt_silu_mul(uint16_t *gate, const uint16_t *up, size_t count, int threads) {
    enum { PIECE = 4096 };
    (void)threads;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (size_t at = 0; at < count; at += PIECE)
        silu_mul(gate + at, up + at, count - at < PIECE ? count - at : PIECE);
}

int gpt_head(const gpt_matrix *matrix, const uint16_t *norm, float norm_eps, const uint16_t *x,
             int rows, float *out, int threads) {
    enum { TILE = 64 };
    int k = matrix->k, tiles = (matrix->n + TILE - 1) / TILE;
    size_t of_row = gpt_vector_bytes(matrix);
    gpt_vector *vector = malloc(rows * (sizeof *vector + of_row + sizeof(uint16_t) * k));
    if (!vector) return 1;
    char *integers = (char *)(vector + rows);
    uint16_t *normed = (uint16_t *)(integers + rows * of_row);
    for (int t = 0; t < rows; t++) {
        const uint16_t *row = x + (size_t)t * k;
        if (norm) {
            gpt_norm_row(row, norm, norm_eps, k, normed + (size_t)t * k);
            row = normed + (size_t)t * k;
        }
        vector[t] = gpt_vector_of(row, matrix, integers + t * of_row);
    }
    (void)threads;
#pragma omp parallel for num_threads(threads) schedule(guided)
    for (int tile = 0; tile < tiles; tile++) {
        int first = tile * TILE, count = matrix->n - first < TILE ? matrix->n - first : TILE;
        gpt_dot(matrix, first, count, vector, rows, out + first, matrix->n);
    }
    free(vector);
    return 0;
}
