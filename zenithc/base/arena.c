/* Arena blocks: a list of calloc'd chunks, newest first. Large requests get a block of their own. */
#include "zenithc/base/arena.h"

#include <stdarg.h>
#include <stdio.h>

struct zn_arena_block {
  zn_arena_block *next;
  size_t size, used;
  size_t pad; /* keeps data 16-byte aligned */
};

enum { BLOCK = 1 << 16 };
static _Thread_local uint64_t fail_after;

void zn_arena_fail_after(uint64_t n) { fail_after = n; }

void zn_arena_init(zn_arena *a, const char *name) {
  memset(a, 0, sizeof *a);
  a->name = name;
}

void zn_arena_reset(zn_arena *a) {
  for (zn_arena_block *b = a->head, *next; b; b = next) {
    next = b->next;
    free(b);
  }
  a->head = NULL;
  a->used = 0;
}

static void out_of_memory(zn_arena *a, size_t want) {
  if (a->oom) a->oom(a->oom_user, want);
  fprintf(stderr, "zenithc: out of memory (arena '%s', %zu bytes wanted)\n", a->name, want);
  exit(3);
}

void *zn_arena_alloc(zn_arena *a, size_t bytes) {
  size_t n = (bytes + 15) & ~(size_t)15;
  if (n < bytes || n > SIZE_MAX / 2) out_of_memory(a, bytes);
  if (n == 0) n = 16;
  if (fail_after && --fail_after == 0) out_of_memory(a, bytes);
  if (a->limit && a->used + n > a->limit) out_of_memory(a, bytes);
  zn_arena_block *b = a->head;
  if (!b || b->size - b->used < n) {
    size_t size = n > BLOCK / 4 ? n : BLOCK;
    zn_arena_block *fresh = calloc(1, sizeof *fresh + size);
    if (!fresh) {
      out_of_memory(a, bytes);
      abort(); /* a handler that returns is our bug */
    }
    fresh->size = size;
    if (b && n > BLOCK / 4) { /* keep filling the current block afterwards */
      fresh->next = b->next;
      b->next = fresh;
    } else {
      fresh->next = b;
      a->head = fresh;
    }
    b = fresh;
  }
  void *p = (char *)(b + 1) + b->used;
  b->used += n;
  a->used += n;
  return p;
}

void *zn_arena_array(zn_arena *a, size_t count, size_t size) {
  if (size && count > SIZE_MAX / 2 / size) out_of_memory(a, SIZE_MAX);
  return zn_arena_alloc(a, count * size);
}

void *zn_arena_grow(zn_arena *a, const void *old, size_t old_bytes, size_t new_bytes) {
  void *p = zn_arena_alloc(a, new_bytes);
  if (old_bytes) memcpy(p, old, old_bytes);
  return p;
}

char *zn_arena_strndup(zn_arena *a, const char *s, size_t n) {
  char *p = zn_arena_alloc(a, n + 1);
  memcpy(p, s, n);
  p[n] = 0;
  return p;
}

char *zn_arena_strdup(zn_arena *a, const char *s) { return zn_arena_strndup(a, s, strlen(s)); }

char *zn_arena_printf(zn_arena *a, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  int n = vsnprintf(NULL, 0, fmt, ap);
  va_end(ap);
  char *p = zn_arena_alloc(a, (size_t)n + 1);
  va_start(ap, fmt);
  vsnprintf(p, (size_t)n + 1, fmt, ap);
  va_end(ap);
  return p;
}
