/* Attention of one token over a run of its context, and the sum of such runs.
 *
 * A long context is cut into runs that threads take apart and gpt_merge puts together, as in
 * Flash-Decoding (Dao et al. 2023): each run has its own maximum and sum (Milakov and Gimelshein
 * 2018, arXiv 1805.02867). Keys and values are read once for several query heads that share them. */
#include "kernels.h"

#include <string.h>

enum { LANES = 16, AHEAD_TOKENS = 16, MOST_HEADS = 4, MOST_VECTORS = 16 };

/* Vectors of the compiler, for whatever registers the machine has. */
typedef float vec __attribute__((vector_size(4 * LANES), aligned(4)));
typedef float vec8 __attribute__((vector_size(32)));
typedef float vec4 __attribute__((vector_size(16)));
typedef uint32_t words __attribute__((vector_size(4 * LANES), aligned(4)));
typedef uint16_t halves __attribute__((vector_size(2 * LANES), aligned(2)));

INLINE vec load_bf16(const uint16_t *from) {
    words wide = __builtin_convertvector(*(const halves *)from, words) << 16;
    return (vec)wide;
}

INLINE float sum_of(vec v) {
    union { vec all; vec8 half[2]; } sixteen = {v};
    union { vec8 all; vec4 half[2]; } eight = {sixteen.half[0] + sixteen.half[1]};
    vec4 four = eight.half[0] + eight.half[1];
    return (four[0] + four[2]) + (four[1] + four[3]);
}

/* scores (heads, count) = the products of `heads` queries with the keys of a run */
INLINE void scores_of(const uint16_t *keys, size_t stride, int count, const float *queries,
                      const int heads, const int vectors, float *scores) {
    vec query[MOST_HEADS][MOST_VECTORS];
    EACH(g, heads)
        EACH(w, vectors)
            query[g][w] = *(const vec *)(queries + (g * vectors + w) * LANES);
    for (int s = 0; s < count; s++) {
        const uint16_t *key = keys + s * stride;
        vec sum[MOST_HEADS];
        EACH(g, heads) sum[g] = (vec){0};
        EACH(w, vectors) {
            vec wide = load_bf16(key + w * LANES);
            if (w % 2 == 0) __builtin_prefetch(key + AHEAD_TOKENS * stride + w * LANES);
            EACH(g, heads) sum[g] += query[g][w] * wide;
        }
        EACH(g, heads) scores[(size_t)g * count + s] = sum_of(sum[g]);
    }
}

/* mixed (heads, head_dim) = the values of a run, weighted by scores (heads, count) */
INLINE void mix(const uint16_t *values, size_t stride, int count, const float *scores,
                const int heads, const int vectors, float *mixed) {
    vec sum[MOST_HEADS][MOST_VECTORS];
    EACH(g, heads)
        EACH(w, vectors) sum[g][w] = (vec){0};
    for (int s = 0; s < count; s++) {
        const uint16_t *value = values + s * stride;
        EACH(w, vectors) {
            vec wide = load_bf16(value + w * LANES);
            if (w % 2 == 0) __builtin_prefetch(value + AHEAD_TOKENS * stride + w * LANES);
            EACH(g, heads) sum[g][w] += scores[(size_t)g * count + s] * wide;
        }
    }
    EACH(g, heads)
        EACH(w, vectors) *(vec *)(mixed + (g * vectors + w) * LANES) = sum[g][w];
}

/* Heads of other widths than those named below are seldom: they may be slow. */
static void scores_of_odd(const uint16_t *keys, size_t stride, int count, const float *query,
                          int width, float *scores) {
    for (int s = 0; s < count; s++) {
        float sum = 0;
        for (int d = 0; d < width; d++) sum += query[d] * from_bf16(keys[s * stride + d]);
        scores[s] = sum;
    }
}

static void mix_odd(const uint16_t *values, size_t stride, int count, const float *scores,
                    int width, float *mixed) {
    memset(mixed, 0, sizeof(float) * width);
    for (int s = 0; s < count; s++)
        for (int d = 0; d < width; d++) mixed[d] += scores[s] * from_bf16(values[s * stride + d]);
}

INLINE void softmax(float *score, int count, gpt_softmax *state) {
    float most = -INFINITY, sum = 0;
    for (int s = 0; s < count; s++) most = score[s] > most ? score[s] : most;
    if (!(most > -INFINITY)) most = NAN; /* nothing but NaN: let it show */
    for (int s = 0; s < count; s++) score[s] = exp_f32(score[s] - most);
    for (int s = 0; s < count; s++) sum += score[s];
    *state = (gpt_softmax){most, sum};
}

/* `heads` query heads from g on; constants, so that queries and sums stay in registers. */
#define ATTEND(heads, vectors)                                                                    \
    do {                                                                                          \
        const float *query = queries + (size_t)g * width;                                         \
        float *score = scores + (size_t)g * count;                                                \
        scores_of(keys, stride, count, query, heads, vectors, score);                             \
        EACH(i, heads) softmax(score + (size_t)i * count, count, state + g + i);                  \
        mix(values, stride, count, score, heads, vectors, mixed + (size_t)g * width);             \
        g += heads;                                                                               \
    } while (0)

CLONES void gpt_attend(const gpt_shape *shape, const uint16_t *keys, const uint16_t *values,
                       int first, int last, const float *queries, float *scores, float *mixed,
                       gpt_softmax *state) {
    int width = shape->head_dim, shared = shape->n_heads / shape->n_kv_heads;
    int count = last - first;
    size_t stride = (size_t)shape->n_kv_heads * width;
    keys += first * stride;
    values += first * stride;
    for (int g = 0; g < shared;) {
        if (width == 64 && shared - g >= 4) ATTEND(4, 4);
        else if (width == 64) ATTEND(1, 4);
        else if (width == 128 && shared - g >= 2) ATTEND(2, 8);
        else if (width == 128) ATTEND(1, 8);
        else if (width == 16) ATTEND(1, 1);
        else if (width == 80) ATTEND(1, 5);
        else if (width == 96) ATTEND(1, 6);
        else if (width == 256) ATTEND(1, 16);
        else {
            scores_of_odd(keys, stride, count, queries + (size_t)g * width, width, scores);
            softmax(scores, count, state + g);
            mix_odd(values, stride, count, scores, width, mixed + (size_t)g * width);
            g++;
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
