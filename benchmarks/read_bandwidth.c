/* Reads buffers again and again with several threads and prints the rate of each pass as JSON.

   read_bandwidth MIB THREADS PASSES

   Several ways, since none is the fastest on every machine: small or huge pages, with and without
   software prefetch. They take turns, so that all see the same minutes of a shared machine. What
   is read is summed up, so that no read can be left out. */

#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

typedef uint64_t vec __attribute__((vector_size(64)));

enum { LANES = 8, AHEAD_BYTES = 2048, WAYS = 4 };

struct part {
    const vec *start;
    size_t count; /* of vectors, a multiple of LANES */
    int prefetch;
    uint64_t sum;
};

struct way {
    const char *name;
    int huge, prefetch;
};

static const struct way ways[WAYS] = {
    {"small pages", 0, 0},
    {"small pages, prefetch", 0, 1},
    {"huge pages", 1, 0},
    {"huge pages, prefetch", 1, 1},
};

static void *read_part(void *argument) {
    struct part *part = argument;
    vec sums[LANES];
    memset(sums, 0, sizeof sums);
    for (size_t i = 0; i < part->count; i += LANES) {
        const vec *at = part->start + i;
        for (int lane = 0; lane < LANES; lane++) {
            if (part->prefetch) /* a hint: past the end of the buffer it does nothing */
                __builtin_prefetch((const char *)(at + lane) + AHEAD_BYTES, 0, 0);
            sums[lane] += at[lane];
        }
    }
    for (int lane = 0; lane < LANES; lane++)
        for (size_t k = 0; k < sizeof(vec) / sizeof(uint64_t); k++)
            part->sum += sums[lane][k];
    return NULL;
}

static double now_s(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec * 1e-9;
}

static void *must(void *memory) {
    if (!memory || memory == MAP_FAILED) {
        fprintf(stderr, "read_bandwidth: no memory\n");
        exit(1);
    }
    return memory;
}

static char *make_buffer(size_t bytes, int huge) {
    int access = PROT_READ | PROT_WRITE, kind = MAP_PRIVATE | MAP_ANONYMOUS;
    char *buffer = must(mmap(NULL, bytes, access, kind, -1, 0));
#ifdef MADV_HUGEPAGE
    madvise(buffer, bytes, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
#else
    (void)huge;
#endif
    memset(buffer, 1, bytes); /* else all of it would be the one page of zeros */
    return buffer;
}

/* One pass over the buffer, in bytes a second; the first part is read by the calling thread. */
static double pass(const char *buffer, size_t bytes, int count, int prefetch, uint64_t *sum) {
    struct part parts[count];
    pthread_t threads[count];
    size_t vectors = bytes / sizeof(vec) / LANES / count * LANES;
    for (int i = 0; i < count; i++)
        parts[i] = (struct part){(const vec *)buffer + i * vectors, vectors, prefetch, 0};
    double start = now_s();
    for (int i = 1; i < count; i++)
        if (pthread_create(&threads[i], NULL, read_part, &parts[i])) exit(1);
    read_part(&parts[0]);
    for (int i = 1; i < count; i++)
        pthread_join(threads[i], NULL);
    double elapsed_s = now_s() - start;
    for (int i = 0; i < count; i++)
        *sum += parts[i].sum;
    return vectors * count * sizeof(vec) / elapsed_s;
}

int main(int argc, char **argv) {
    size_t bytes = argc == 4 ? (size_t)atol(argv[1]) << 20 : 0;
    int count = argc == 4 ? atoi(argv[2]) : 0, passes = argc == 4 ? atoi(argv[3]) : 0;
    if (!bytes || count < 1 || count > 1024 || passes < 1) {
        fprintf(stderr, "usage: read_bandwidth MIB THREADS PASSES\n");
        return 2;
    }
    char *buffers[2] = {make_buffer(bytes, 0), make_buffer(bytes, 1)};
    double *rates = must(calloc(WAYS * passes, sizeof *rates));
    uint64_t sum = 0;
    for (int turn = -1; turn < passes; turn++) /* the first turn isn't counted */
        for (int way = 0; way < WAYS; way++) {
            double rate = pass(buffers[ways[way].huge], bytes, count, ways[way].prefetch, &sum);
            if (turn >= 0) rates[way * passes + turn] = rate;
        }
    printf("{\"checksum\": \"%llx\", \"bytes_per_s\": {", (unsigned long long)sum);
    for (int way = 0; way < WAYS; way++) {
        printf("%s\"%s\": [", way ? ", " : "", ways[way].name);
        for (int turn = 0; turn < passes; turn++)
            printf("%s%.5g", turn ? ", " : "", rates[way * passes + turn]);
        printf("]");
    }
    printf("}}\n");
    free(rates);
    return 0;
}
