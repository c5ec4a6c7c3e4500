/* Inputs of a run: from files, and generated from a seed where no file is given. */
#include <inttypes.h>
#include <math.h>

#include "zenithc/driver/tools.h"
#include "zenithc/eval/gen.h"

zn_status zn_value_fits(zn_ctx *c, const zn_kio *io, const zn_htensor *t) {
  bool fine = (t->dtype == io->dtype || (t->kind && !t->dims[0])) && t->rank == io->rank && zn_kio_vkind(io) == t->kind;
  for (uint32_t d = 0; fine && d < t->rank; d++) fine = io->dims[d] < 0 || io->dims[d] == t->dims[d];
  if (fine) return ZN_OK;
  zn_text want;
  zn_text_init(&want, &c->perm);
  for (uint32_t d = 0; d < io->rank; d++)
    if (io->dims[d] < 0) zn_text_printf(&want, "%s%s", d ? "," : "", io->dim_text[d]);
    else zn_text_printf(&want, "%s%" PRId64, d ? "," : "", io->dims[d]);
  return zn_fail(c, ZN_ERR_USAGE, NULL, "input '%s' is given as %s; the model expects %s[%s]", io->name,
                 zn_tensor_text(&c->perm, t), zn_dtypes[io->dtype].name, want.s ? want.s : "");
}

/* ---- symbolic dimensions ---- */

typedef struct sizes {
  zn_exprs *ex;
  const zn_opts *o;
  int64_t otherwise, grow;
  struct {
    const char *name;
    int64_t value;
  } known[64];
  uint32_t n;
} sizes;

/* NAME=VALUE or NAME=LO..HI among --dim. */
static bool from_option(const zn_opts *o, const char *name, int64_t *out) {
  const struct zn_optval *v = &o->val[ZN_O_dim];
  for (uint32_t i = 0; i < v->n; i++) {
    size_t k = strcspn(v->v[i], "=");
    if (strlen(name) != k || memcmp(name, v->v[i], k)) continue;
    *out = strtoll(v->v[i] + k + 1, NULL, 10);
    return true;
  }
  return false;
}

static bool size_of(void *user, zn_expr sym, int64_t *out) {
  sizes *s = user;
  const char *name = zn_ex_name(s->ex, sym);
  if (from_option(s->o, name, out)) return true;
  *out = s->otherwise;
  for (uint32_t i = 0; i < s->n; i++)
    if (!strcmp(s->known[i].name, name)) *out = s->known[i].value;
  return true;
}

static zn_expr parse_dim(zn_ctx *c, sizes *s, const char *text) {
  zn_lexer l;
  zn_expr e = ZN_EX_NONE;
  if (!text || !*text) return e; /* maps have no dimensions to speak of */
  zn_lex_init(&l, c, &c->perm, text, strlen(text));
  return zn_ex_parse(s->ex, &l, &e) == ZN_OK ? e : ZN_EX_NONE;
}

static void learn(zn_ctx *c, sizes *s, const zn_kio *io, const zn_htensor *t) {
  for (uint32_t d = 0; d < io->rank; d++) {
    if (io->dims[d] >= 0 || !io->dim_text[d] || s->n == 64) continue;
    zn_expr e = parse_dim(c, s, io->dim_text[d]);
    if (e == ZN_EX_NONE || zn_ex_kind(s->ex, e) != ZN_EX_SYM) continue;
    s->known[s->n].name = zn_ex_name(s->ex, e);
    s->known[s->n++].value = t->dims[d];
  }
}

static zn_status dims_of(zn_ctx *c, sizes *s, const zn_kio *io, int64_t *dims) {
  for (uint32_t d = 0; d < io->rank; d++) {
    dims[d] = io->dims[d];
    if (dims[d] >= 0) continue;
    zn_expr e = parse_dim(c, s, io->dim_text[d]);
    if (e == ZN_EX_NONE || !zn_ex_eval(s->ex, e, size_of, s, &dims[d]) || dims[d] < 0)
      dims[d] = s->otherwise;
  }
  return ZN_OK;
}

/* ---- contents ---- */

typedef struct given {
  zn_gen_dim *d;
  uint32_t n, cap;
} given;

static void give(zn_arena *a, given *v, const char *name, int64_t value) {
  for (uint32_t i = 0; i < v->n; i++)
    if (!strcmp(v->d[i].name, name)) return;
  zn_gen_dim d = {name, value};
  ZN_PUSH(a, v->d, v->n, v->cap, d);
}

/* What is known about the symbols in the graph's input shapes: an artifact may have been compiled with some of them
 * fixed. */
static void give_dims(zn_arena *a, const sizes *s, const zn_kio *io, const zn_graph *g, given *v) {
  for (uint32_t i = 0; i < g->num_inputs; i++) {
    const zn_type *t = &g->vals[g->inputs[i]].type;
    for (uint32_t d = 0; d < io[i].rank && (int)d < t->rank; d++) {
      if (t->dims[d] == ZN_EX_NONE || zn_ex_kind(g->ex, t->dims[d]) != ZN_EX_SYM) continue;
      const char *name = zn_ex_name(g->ex, t->dims[d]);
      int64_t x = 0;
      bool known = io[i].dims[d] >= 0;
      if (known) x = io[i].dims[d];
      else known = from_option(s->o, name, &x);
      for (uint32_t k = 0; k < s->n && !known; k++)
        if (!strcmp(s->known[k].name, name)) x = s->known[k].value, known = true;
      if (!known && s->otherwise) x = s->otherwise, known = true;
      if (known) give(a, v, name, x);
    }
  }
}

/* From the graph: values that fit what the operators do with them. With `otherwise` 0 the generator picks sizes. */
static zn_status from_graph(zn_ctx *c, zn_arena *a, const sizes *s, const zn_kio *io, const zn_graph *g, uint64_t seed,
                            zn_htensor *out) {
  given v = {0};
  give_dims(a, s, io, g, &v);
  if (s->grow > 1) v.d = zn_gen_dims(g, a, v.d, v.n, s->grow, &v.n);
  return zn_gen_inputs(c, g, a, (zn_gen_kind)(seed / 1000003u % ZN_GEN_ZEROS), seed, v.d, v.n, out);
}

static uint64_t next_random(uint64_t *s) { /* splitmix64 */
  uint64_t z = *s += 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}

static zn_status generate(zn_ctx *c, zn_arena *a, sizes *s, const zn_kio *io, uint64_t *seed, zn_htensor *out) {
  int64_t dims[ZN_MAX_RANK];
  uint64_t count;
  if (io->dtype == ZN_STR || io->kind) {
    zn_fail(c, ZN_ERR_USAGE, NULL, "input '%s' holds %s, which are not generated without the model", io->name,
            io->kind ? "a sequence, an optional or a map" : "strings");
    zn_help(c, "give it with --input %s=FILE%s", io->name, io->kind ? ".pb" : ".npy");
    return ZN_ERR_USAGE;
  }
  ZN_TRY(dims_of(c, s, io, dims));
  if (!zn_dims_count(io->rank, dims, zn_dtype_bytes(io->dtype), &count) || count > (uint64_t)1 << 34)
    return zn_fail(c, ZN_ERR_USAGE, NULL, "input '%s' is too large to generate", io->name);
  *out = zn_htensor_new(a, io->dtype, io->rank, dims);
  uint64_t n = count * (zn_dtypes[io->dtype].cls == 'C' ? 2 : 1);
  zn_dtype t = io->dtype == ZN_C64 ? ZN_F32 : io->dtype == ZN_C128 ? ZN_F64 : io->dtype;
  for (uint64_t i = 0; i < n; i++) {
    uint64_t r = next_random(seed);
    if (zn_is_float(t)) zn_store_f64(t, out->data, i, (double)(r >> 11) * 0x1p-52 - 1);
    else zn_store_i64(t, out->data, i, (int64_t)(r & 1));
  }
  return ZN_OK;
}

static zn_status from_files(zn_ctx *c, const zn_opts *o, zn_arena *a, const zn_kio *io, uint32_t n, zn_htensor *in) {
  const struct zn_optval *v = &o->val[ZN_O_input];
  for (uint32_t k = 0; k < v->n; k++) {
    size_t len = strcspn(v->v[k], "=");
    uint32_t i = 0;
    while (i < n && (strlen(io[i].name) != len || memcmp(io[i].name, v->v[k], len))) i++;
    if (i == n) {
      zn_fail(c, ZN_ERR_USAGE, NULL, "--input %s: the model has no input '%.*s'", v->v[k], (int)len, v->v[k]);
      for (i = 0; i < n; i++) zn_note(c, "it has '%s'", io[i].name);
      return ZN_ERR_USAGE;
    }
    ZN_TRY(zn_value_read(c, a, v->v[k] + len + 1, io[i].name, zn_kio_vkind(&io[i]), &in[i]));
    zn_value_settle(&in[i], io[i].dtype, zn_kio_of(&io[i]));
    ZN_TRY(zn_value_fits(c, &io[i], &in[i]));
  }
  return ZN_OK;
}

zn_status zn_inputs_make(zn_ctx *c, const zn_opts *o, zn_arena *a, const zn_kio *io, uint32_t n, const zn_graph *g,
                         uint64_t seed, int64_t otherwise, zn_htensor **out) {
  zn_htensor *in = ZN_ARRAY(a, zn_htensor, n), *made = ZN_ARRAY(a, zn_htensor, n);
  bool fit = g && g->num_inputs == n, all = true;
  sizes s = {.ex = zn_exprs_new(&c->perm), .o = o, .otherwise = otherwise > 0 ? otherwise : 0, .grow = -otherwise};
  ZN_TRY(from_files(c, o, a, io, n, in));
  for (uint32_t i = 0; i < n; i++)
    if (in[i].data || in[i].dtype != ZN_NONE) learn(c, &s, &io[i], &in[i]);
    else all = false;
  if (fit && !all) ZN_TRY(from_graph(c, a, &s, io, g, seed, made));
  for (uint32_t i = 0; i < n; i++) {
    if (!in[i].data && in[i].dtype == ZN_NONE && fit) in[i] = made[i];
    if (!in[i].data && in[i].dtype == ZN_NONE) ZN_TRY(generate(c, a, &s, &io[i], &seed, &in[i]));
    in[i].name = io[i].name;
  }
  *out = in;
  return ZN_OK;
}
