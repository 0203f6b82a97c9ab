/* Causal attention of many tokens over a context: FlashAttention (Dao et al. 2022, arXiv 2205.14135)
 * for the caches of a CPU. Some queries meet a run of keys at a time, in f32; both products, of
 * queries with keys and of weights with values, are one small kernel. */
#include "kernels.h"

#include <stdlib.h>
#include <string.h>

enum { LANES = 16, RUN = 128, QUERIES = 64, AT_ONCE = 8 };

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4)));

typedef struct {
    int width, padded; /* head_dim; the same in whole vectors */
    float *queries;    /* (width, QUERIES): a query is a lane */
    float *keys;       /* (RUN, width) */
    float *values;     /* (RUN, padded) */
    float *scores;     /* (RUN, QUERIES) */
    float *mixed;      /* (QUERIES, padded) */
    int seen[QUERIES]; /* how many tokens of the context a query sees */
    float most[QUERIES], sum[QUERIES], shrink[QUERIES];
} gpt_tile;

/* to (rows, columns) += a (rows, depth) times b (depth, columns); rows and columns in whole
 * AT_ONCE and LANES, the elements of a `down` and `along` apart. Eight sums for one vector of b hide
 * the latency of their additions. */
INLINE void multiply(const float *a, int down, int along, const float *b, int b_stride, int rows,
                     int depth, int columns, float *to, int stride) {
    for (int r = 0; r < rows; r += AT_ONCE)
        for (int c = 0; c < columns; c += LANES) {
            vec sum[AT_ONCE];
            EACH(j, AT_ONCE) sum[j] = *(vec *)(to + (r + j) * stride + c);
            for (int i = 0; i < depth; i++) {
                vec of_b = *(const vec *)(b + i * b_stride + c);
                EACH(j, AT_ONCE) sum[j] += a[(r + j) * down + i * along] * of_b;
            }
            EACH(j, AT_ONCE) *(vec *)(to + (r + j) * stride + c) = sum[j];
        }
}

INLINE void load_run(gpt_tile *tile, const uint16_t *keys, const uint16_t *values, size_t stride,
                     int count) {
    int width = tile->width, padded = tile->padded;
    for (int s = 0; s < count; s++) {
        float *key = tile->keys + s * width, *value = tile->values + s * padded;
        for (int d = 0; d < width; d++) key[d] = from_bf16(keys[s * stride + d]);
        for (int d = 0; d < width; d++) value[d] = from_bf16(values[s * stride + d]);
        for (int d = width; d < padded; d++) value[d] = 0;
    }
    memset(tile->keys + count * width, 0, sizeof(float) * (RUN - count) * width);
}

/* Scores of all queries over a run become weights, and `shrink` by what earlier sums shrink. */
INLINE void weigh(gpt_tile *tile, int first, int count) {
    float most[QUERIES], sum[QUERIES];
    for (int r = 0; r < QUERIES; r++) most[r] = tile->most[r], sum[r] = 0;
    for (int s = 0; s < count; s++) {
        float *score = tile->scores + s * QUERIES;
        for (int r = 0; r < QUERIES; r++) {
            score[r] = first + s < tile->seen[r] ? score[r] : -INFINITY;
            most[r] = score[r] > most[r] ? score[r] : most[r];
        }
    }
    for (int s = 0; s < count; s++) {
        float *score = tile->scores + s * QUERIES;
        for (int r = 0; r < QUERIES; r++) {
            float weight = exp_f32(score[r] - most[r]);
            score[r] = first + s < tile->seen[r] ? weight : 0;
            sum[r] += score[r];
        }
    }
    for (int r = 0; r < QUERIES; r++) {
        tile->shrink[r] = tile->sum[r] > 0 ? exp_f32(tile->most[r] - most[r]) : 0;
        tile->sum[r] = tile->sum[r] * tile->shrink[r] + sum[r];
        tile->most[r] = most[r];
    }
}

/* `rows` queries, `shared` heads of each token, the first token at `position`. */
CLONES static void attend_tile(gpt_tile *tile, const uint16_t *keys, const uint16_t *values,
                               size_t stride, int position, int shared, int rows) {
    int length = position + (rows - 1) / shared + 1, width = tile->width, padded = tile->padded;
    memset(tile->mixed, 0, sizeof(float) * QUERIES * padded);
    for (int r = 0; r < QUERIES; r++) {
        tile->seen[r] = r < rows ? position + r / shared + 1 : 1;
        tile->most[r] = -INFINITY;
        tile->sum[r] = 0;
    }
    for (int first = 0; first < length; first += RUN) {
        int count = length - first < RUN ? length - first : RUN;
        int whole = (count + AT_ONCE - 1) / AT_ONCE * AT_ONCE;
        load_run(tile, keys + first * stride, values + first * stride, stride, count);
        memset(tile->scores, 0, sizeof(float) * whole * QUERIES);
        multiply(tile->keys, width, 1, tile->queries, QUERIES, whole, width, QUERIES, tile->scores,
                 QUERIES);
        weigh(tile, first, count);
        for (int r = 0; first && r < QUERIES; r++)
            for (int d = 0; d < padded; d++) tile->mixed[r * padded + d] *= tile->shrink[r];
        multiply(tile->scores, 1, QUERIES, tile->values, padded, QUERIES, count, padded,
                 tile->mixed, padded);
    }
}

CLONES static void read_queries(gpt_tile *tile, const uint16_t *from, size_t stride, int shared,
                                int rows) {
    int width = tile->width;
    float scale = 1.0f / sqrtf((float)width);
    memset(tile->queries, 0, sizeof(float) * QUERIES * width);
    for (int r = 0; r < rows; r++)
        for (int d = 0; d < width; d++)
            tile->queries[d * QUERIES + r] =
                from_bf16(from[r / shared * stride + r % shared * width + d]) * scale;
}

CLONES static void write_mixed(const gpt_tile *tile, uint16_t *to, size_t stride, int shared,
                               int rows) {
    for (int r = 0; r < rows; r++)
        for (int d = 0; d < tile->width; d++)
            to[r / shared * stride + r % shared * tile->width + d] =
                to_bf16(tile->mixed[r * tile->padded + d] / tile->sum[r]);
}

static int new_tile(gpt_tile *tile, int width) {
    tile->width = width;
    tile->padded = (width + LANES - 1) / LANES * LANES;
    size_t queries = QUERIES * width, keys = RUN * width, values = RUN * tile->padded;
    size_t all = queries + keys + values + QUERIES * RUN + QUERIES * tile->padded;
    tile->queries = malloc(sizeof(float) * all);
    if (!tile->queries) return 1;
    tile->keys = tile->queries + queries;
    tile->values = tile->keys + keys;
    tile->scores = tile->values + values;
    tile->mixed = tile->scores + QUERIES * RUN;
    return 0;
}

int gpt_attention(const gpt_shape *shape, const uint16_t *queries, const uint16_t *keys,
                  const uint16_t *values, int length, int tokens, uint16_t *out, int threads) {
    int width = shape->head_dim, shared = shape->n_heads / shape->n_kv_heads, failed = 0;
    size_t stride = (size_t)shape->n_heads * width, kv = (size_t)shape->n_kv_heads * width;
    int at_once = QUERIES / shared, tiles = (tokens + at_once - 1) / at_once;
    (void)threads;
#pragma omp parallel num_threads(threads) reduction(| : failed)
    {
        gpt_tile tile;
        failed = new_tile(&tile, width);
        /* The last queries see the most: they come first, so that no thread is left with them. */
#pragma omp for schedule(dynamic)
        for (int task = 0; task < tiles * shape->n_kv_heads; task++) {
            int head = task % shape->n_kv_heads, t = (tiles - 1 - task / shape->n_kv_heads) * at_once;
            int rows = (tokens - t < at_once ? tokens - t : at_once) * shared;
            size_t at = t * stride + (size_t)head * shared * width;
            if (failed) continue;
            read_queries(&tile, queries + at, stride, shared, rows);
            attend_tile(&tile, keys + head * width, values + head * width, kv,
                        length - tokens + t, shared, rows);
            write_mixed(&tile, out + at, stride, shared, rows);
        }
        free(tile.queries);
    }
    return failed;
}
