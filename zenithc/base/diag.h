/* The compile context, status codes and diagnostics.
 * Three kinds of error: the user's (zn_status + diagnostic), ours (ZN_BUG), memory (arena handler). */
#ifndef ZN_DIAG_H
#define ZN_DIAG_H
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>

#include "zenithc/base/arena.h"

typedef enum zn_status {
  ZN_OK = 0,
  ZN_ERR_MODEL,       /* the model is wrong or the check failed: exit 1 */
  ZN_ERR_USAGE,       /* command line or environment: exit 2 */
  ZN_ERR_UNSUPPORTED, /* valid, but we cannot do it: exit 1 */
  ZN_ERR_IO           /* a file could not be read or written: exit 2 */
} zn_status;

#define ZN_NODISCARD __attribute__((warn_unused_result))
/* The one control-flow macro. */
#define ZN_TRY(expr)                                                                               \
  do {                                                                                             \
    zn_status zn_st_ = (expr);                                                                     \
    if (zn_st_ != ZN_OK) return zn_st_;                                                            \
  } while (0)

typedef enum zn_severity { ZN_DIAG_ERROR, ZN_DIAG_WARNING, ZN_DIAG_NOTE, ZN_DIAG_HELP } zn_severity;

struct zn_ctx;
/* Receives each diagnostic as one complete line without newline, e.g.
 *   "model.onnx: node 'conv1' (Conv): input 2 'W' has rank 3, expected 4"   or "  help: ..." */
typedef void (*zn_sink)(void *user, zn_severity sev, const char *line);

/* One context per compile; no globals anywhere, so tests run in parallel. */
typedef struct zn_ctx {
  zn_arena perm;  /* lives as long as the context */
  zn_arena graph; /* one compile: graphs, weights copies, kernel modules */
  zn_arena tmp;   /* one pass: reset by the pass runner */
  zn_sink sink;   /* NULL: stderr */
  void *sink_user;
  unsigned errors, warnings;
  const char *file; /* the model's path, first part of diagnostics; may be NULL */
  int verbosity;
  void (*crash_dump)(struct zn_ctx *, FILE *); /* prints the current IR for ZN_BUG; may be NULL */
  void *crash_user;
} zn_ctx;

void zn_ctx_init(zn_ctx *c);
void zn_ctx_fini(zn_ctx *c);

/* where: "node 'conv1' (Conv)" or NULL. Returns ZN_ERR_MODEL so that `return zn_error(...)` reads well. */
zn_status zn_error(zn_ctx *c, const char *where, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* The same with another status. */
zn_status zn_fail(zn_ctx *c, zn_status st, const char *where, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
void zn_warn(zn_ctx *c, const char *where, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void zn_note(zn_ctx *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void zn_help(zn_ctx *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Our invariant broke: prints, writes zenithc-crash.zg when a dump is set, aborts (exit 134). */
_Noreturn void zn_bug(zn_ctx *c, const char *file, int line, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
#define ZN_BUG(ctx, ...) zn_bug((ctx), __FILE__, __LINE__, __VA_ARGS__)

int zn_exit_code(zn_status st);
#endif
