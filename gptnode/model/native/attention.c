/* Attention of one token over a run of its context, and the sum of such runs.
 *
 * A long context is cut into runs that threads take apart and gpt_merge puts together, as in
 * Flash-Decoding (Dao et al. 2023): each run has its own maximum and sum (Milakov and Gimelshein
 * 2018, arXiv 1805.02867). Keys and values are read once for all query heads that share them. */
#include "kernels.h"

#include <string.h>

enum { LANES = 16, MAX_HEAD_DIM = 256, AT_ONCE = 4 };

CLONES void gpt_attend(const gpt_shape *shape, const uint16_t *keys, const uint16_t *values,
                       int first, int last, const float *queries, float *scores, float *mixed,
                       gpt_softmax *state) {
    int width = shape->head_dim, shared = shape->n_heads / shape->n_kv_heads;
    int count = last - first;
    size_t stride = (size_t)shape->n_kv_heads * width;
    float wide[AT_ONCE][MAX_HEAD_DIM];

    for (int s = 0; s < count; s++) {
        const uint16_t *key = keys + (first + s) * stride;
        for (int d = 0; d < width; d++) wide[0][d] = from_bf16(key[d]);
        for (int g = 0; g < shared; g++) {
            const float *query = queries + (size_t)g * width;
            float lane[LANES] = {0}, sum = 0;
            int d = 0;
            for (; d + LANES <= width; d += LANES)
                for (int j = 0; j < LANES; j++) lane[j] += wide[0][d + j] * query[d + j];
            for (; d < width; d++) sum += wide[0][d] * query[d];
            for (int half = LANES / 2; half > 0; half /= 2)
                for (int j = 0; j < half; j++) lane[j] += lane[j + half];
            scores[(size_t)g * count + s] = sum + lane[0];
        }
    }
    for (int g = 0; g < shared; g++) {
        float *score = scores + (size_t)g * count, most = -INFINITY, sum = 0;
        for (int s = 0; s < count; s++) most = score[s] > most ? score[s] : most;
        if (!(most > -INFINITY)) most = NAN; /* nothing but NaN: let it show */
        for (int s = 0; s < count; s++) score[s] = exp_f32(score[s] - most);
        for (int s = 0; s < count; s++) sum += score[s];
        state[g] = (gpt_softmax){most, sum};
    }
    memset(mixed, 0, sizeof(float) * shared * width);
    for (int s = 0; s < count; s += AT_ONCE) {
        int many = count - s < AT_ONCE ? count - s : AT_ONCE;
        for (int i = 0; i < AT_ONCE; i++) {
            const uint16_t *value = values + (first + s + (i < many ? i : 0)) * stride;
            for (int d = 0; d < width; d++) wide[i][d] = from_bf16(value[d]);
        }
        for (int g = 0; g < shared; g++) {
            const float *score = scores + (size_t)g * count + s;
            float p[AT_ONCE], *out = mixed + (size_t)g * width;
            for (int i = 0; i < AT_ONCE; i++) p[i] = i < many ? score[i] : 0;
            for (int d = 0; d < width; d++)
                out[d] += p[0] * wide[0][d] + p[1] * wide[1][d] + p[2] * wide[2][d] +
                          p[3] * wide[3][d];
        }
    }
}

CLONES void gpt_merge(const gpt_shape *shape, const float *mixed, const gpt_softmax *state,
                      int parts, uint16_t *out) {
    int width = shape->head_dim, heads = shape->n_heads;
    for (int h = 0; h < heads; h++) {
        float most = state[h].max, sum = 0, total[MAX_HEAD_DIM] = {0};
        for (int p = 1; p < parts; p++)
            most = state[p * heads + h].max > most ? state[p * heads + h].max : most;
        for (int p = 0; p < parts; p++) {
            const gpt_softmax *run = state + (size_t)p * heads + h;
            const float *of_run = mixed + ((size_t)p * heads + h) * width;
            float weight = exp_f32(run->max - most);
            sum += weight * run->sum;
            for (int d = 0; d < width; d++) total[d] += weight * of_run[d];
        }
        for (int d = 0; d < width; d++) out[h * width + d] = to_bf16(total[d] / sum);
    }
}
