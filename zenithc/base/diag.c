/* Diagnostics go line by line to the context's sink; the exit code follows from the status. */
#include "zenithc/base/diag.h"

void zn_ctx_init(zn_ctx *c) {
  memset(c, 0, sizeof *c);
  zn_arena_init(&c->perm, "perm");
  zn_arena_init(&c->graph, "graph");
  zn_arena_init(&c->tmp, "tmp");
}

void zn_ctx_fini(zn_ctx *c) {
  zn_arena_reset(&c->tmp);
  zn_arena_reset(&c->graph);
  zn_arena_reset(&c->perm);
}

static void emit(zn_ctx *c, zn_severity sev, const char *where, const char *fmt, va_list ap) {
  static const char *const label[] = {"", "warning: ", "  note: ", "  help: "};
  char msg[2048], line[2600];
  vsnprintf(msg, sizeof msg, fmt, ap);
  if (sev == ZN_DIAG_ERROR) c->errors++;
  if (sev == ZN_DIAG_WARNING) c->warnings++;
  if (sev >= ZN_DIAG_NOTE)
    snprintf(line, sizeof line, "%s%s", label[sev], msg);
  else
    snprintf(line, sizeof line, "%s%s%s%s%s%s", c->file ? c->file : "zenithc", ": ", label[sev],
             where ? where : "", where ? ": " : "", msg);
  if (c->sink)
    c->sink(c->sink_user, sev, line);
  else
    fprintf(stderr, "%s\n", line);
}

zn_status zn_error(zn_ctx *c, const char *where, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  emit(c, ZN_DIAG_ERROR, where, fmt, ap);
  va_end(ap);
  return ZN_ERR_MODEL;
}

zn_status zn_fail(zn_ctx *c, zn_status st, const char *where, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  emit(c, ZN_DIAG_ERROR, where, fmt, ap);
  va_end(ap);
  return st;
}

void zn_warn(zn_ctx *c, const char *where, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  emit(c, ZN_DIAG_WARNING, where, fmt, ap);
  va_end(ap);
}

void zn_note(zn_ctx *c, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  emit(c, ZN_DIAG_NOTE, NULL, fmt, ap);
  va_end(ap);
}

void zn_help(zn_ctx *c, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  emit(c, ZN_DIAG_HELP, NULL, fmt, ap);
  va_end(ap);
}

_Noreturn void zn_bug(zn_ctx *c, const char *file, int line, const char *fmt, ...) {
  va_list ap;
  va_start(ap, fmt);
  fprintf(stderr, "zenithc: internal error at %s:%d: ", file, line);
  vfprintf(stderr, fmt, ap);
  fputc('\n', stderr);
  va_end(ap);
  if (c && c->crash_dump) {
    FILE *f = fopen("zenithc-crash.zg", "w");
    if (f) {
      c->crash_dump(c, f);
      fclose(f);
      fputs("zenithc: the graph is in zenithc-crash.zg; please report this with that file\n", stderr);
    }
  }
  abort();
}

int zn_exit_code(zn_status st) {
  return st == ZN_OK ? 0 : st == ZN_ERR_USAGE || st == ZN_ERR_IO ? 2 : 1;
}
