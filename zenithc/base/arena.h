/* Bump allocation by lifetime. A function without an arena parameter does not allocate.
 * Running out of memory calls the arena's handler, which must not return: callers never check. */
#ifndef ZN_ARENA_H
#define ZN_ARENA_H
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct zn_arena_block zn_arena_block;
typedef struct zn_arena {
  const char *name;                     /* "perm", "graph", "kern", "tmp": named by lifetime */
  zn_arena_block *head;
  size_t used, limit;                   /* bytes handed out; limit 0 = none */
  void (*oom)(void *user, size_t want); /* must not return; NULL: message on stderr, exit 3 */
  void *oom_user;
} zn_arena;

void zn_arena_init(zn_arena *a, const char *name);
void zn_arena_reset(zn_arena *a); /* frees every block; the arena stays usable */
/* 16-byte aligned, zero-filled, never NULL. */
void *zn_arena_alloc(zn_arena *a, size_t bytes);
/* Checked count * size; calls the handler on overflow. */
void *zn_arena_array(zn_arena *a, size_t count, size_t size);
/* Copies old (old_bytes) to a new block of new_bytes; the old block stays until reset. */
void *zn_arena_grow(zn_arena *a, const void *old, size_t old_bytes, size_t new_bytes);
char *zn_arena_strdup(zn_arena *a, const char *s);
char *zn_arena_strndup(zn_arena *a, const char *s, size_t n);
char *zn_arena_printf(zn_arena *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Test hook: the n-th allocation from now (1 = next) in any arena of this thread fails; 0 = off. */
void zn_arena_fail_after(uint64_t n);

#define ZN_NEW(arena, type) ((type *)zn_arena_alloc((arena), sizeof(type)))
#define ZN_ARRAY(arena, type, n) ((type *)zn_arena_array((arena), (size_t)(n), sizeof(type)))
/* Append to a plain growable array: ptr, count and cap are lvalues. */
#define ZN_PUSH(arena, ptr, count, cap, item)                                                      \
  do {                                                                                             \
    if ((count) == (cap)) {                                                                        \
      size_t zn_nc_ = (cap) ? (size_t)(cap)*2 : 8;                                                 \
      (ptr) = zn_arena_grow((arena), (ptr), (size_t)(count) * sizeof *(ptr),                       \
                            zn_nc_ * sizeof *(ptr));                                               \
      (cap) = (uint32_t)zn_nc_;                                                                    \
    }                                                                                              \
    (ptr)[(count)++] = (item);                                                                     \
  } while (0)
#endif
