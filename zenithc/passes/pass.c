/* The pass runner: walks passes.def in order, and after each pass verifies, dumps and times as
 * asked, then resets the context's tmp arena. Bodies of If, Loop and Scan are visited by the passes
 * themselves through zn_pass_bodies. */
#include "zenithc/passes/pass.h"

#include <inttypes.h>
#include <time.h>

const zn_pass zn_passes[] = {
#define PASS(letter, name, level, doc) {letter, #name, zn_pass_##name, doc, level},
#include "zenithc/passes/passes.def"
#undef PASS
};
const unsigned zn_num_passes = sizeof zn_passes / sizeof zn_passes[0];

bool zn_pass_may_rewrite(zn_pass_opts *o) {
  if (o->rewrite_limit >= 0 && o->rewrites >= o->rewrite_limit) return false;
  o->rewrites++;
  return true;
}

zn_status zn_pass_bodies(zn_ctx *c, zn_graph *g, zn_pass_opts *o, zn_pass_fn run) {
  for (uint32_t i = 0; i < g->num_order; i++) {
    const zn_nid n = g->order[i];
    for (uint32_t k = 0; k < g->nodes[n].num_attrs; k++) {
      const zn_attr *a = &g->nodes[n].attrs[k];
      if (a->kind == ZN_A_GRAPH && !g->nodes[n].dead) ZN_TRY(run(c, a->u.g, o));
    }
  }
  return ZN_OK;
}

static double now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static void dump(zn_ctx *c, const zn_graph *g, const zn_pass *p, const zn_pass_opts *o) {
  FILE *f = o->dump_to ? o->dump_to : stderr;
  zn_text t;
  zn_text_init(&t, &c->tmp);
  zn_graph_print(g, &t);
  fprintf(f, "# after %s\n%s", p->name, t.s ? t.s : "");
}

static zn_status run_one(zn_ctx *c, zn_graph *g, const zn_pass *p, zn_pass_opts *o) {
  const double t0 = now_ms();
  const int64_t r0 = o->rewrites;
  zn_status st = p->run(c, g, o);
  if (o->time) {
    fprintf(stderr, "%-8s %9.2f ms  %6" PRId64 " rewrites  %6u nodes\n", p->name, now_ms() - t0,
            o->rewrites - r0, g->num_order);
  }
  if (st == ZN_OK && o->dump && strchr(o->dump, p->letter)) dump(c, g, p, o);
  if (st == ZN_OK && o->verify_each) {
    st = zn_graph_verify(c, g);
    if (st != ZN_OK) zn_note(c, "the graph is malformed after pass '%s'", p->name);
  }
  zn_arena_reset(&c->tmp);
  return st;
}

static const zn_pass *find_pass(const char *s, size_t n) {
  for (unsigned i = 0; i < zn_num_passes; i++) {
    if (strlen(zn_passes[i].name) == n && memcmp(zn_passes[i].name, s, n) == 0)
      return &zn_passes[i];
  }
  return NULL;
}

static zn_status unknown_pass(zn_ctx *c, const char *s, size_t n) {
  zn_fail(c, ZN_ERR_USAGE, NULL, "unknown pass '%.*s'", (int)n, s);
  for (unsigned i = 0; i < zn_num_passes; i++) zn_help(c, "%-8s %s", zn_passes[i].name, zn_passes[i].doc);
  return ZN_ERR_USAGE;
}

/* Passes that are named, to stop behind or to print after, must exist. */
static zn_status check_names(zn_ctx *c, const zn_pass_opts *o) {
  if (o->stop_after && !find_pass(o->stop_after, strlen(o->stop_after)))
    return unknown_pass(c, o->stop_after, strlen(o->stop_after));
  for (const char *d = o->dump ? o->dump : ""; *d; d++) {
    unsigned i = 0;
    while (i < zn_num_passes && zn_passes[i].letter != *d) i++;
    if (i < zn_num_passes) continue;
    zn_fail(c, ZN_ERR_USAGE, NULL, "-d%s: no pass has the letter '%c'", o->dump, *d);
    zn_help(c, "`zenithc -d?` lists them");
    return ZN_ERR_USAGE;
  }
  return ZN_OK;
}

zn_status zn_passes_run(zn_ctx *c, zn_graph *g, zn_pass_opts *o) {
  ZN_TRY(check_names(c, o));
  for (unsigned i = 0; i < zn_num_passes; i++) {
    if (zn_passes[i].min_level > o->opt_level) continue;
    ZN_TRY(run_one(c, g, &zn_passes[i], o));
    if (o->stop_after && strcmp(o->stop_after, zn_passes[i].name) == 0) break;
  }
  return ZN_OK;
}

zn_status zn_passes_run_named(zn_ctx *c, zn_graph *g, const char *names, zn_pass_opts *o) {
  for (const char *s = names; *s;) {
    const size_t n = strcspn(s, ",");
    const zn_pass *p = find_pass(s, n);
    if (!p) return unknown_pass(c, s, n);
    ZN_TRY(run_one(c, g, p, o));
    s += n + (s[n] == ',');
  }
  return ZN_OK;
}
