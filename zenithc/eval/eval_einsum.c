/* Einsum, any equation: loops over the output labels, sums the product of all operands over the
 * rest. */
#include "zenithc/eval/eval_impl.h"

enum { LABELS = 2 * 26 + ZN_MAX_RANK, MAX_IN = 16 };

typedef struct einsum {
  int64_t dim[LABELS];                   /* 0: label unused (an extent of 0 is kept as -1) */
  uint8_t term[MAX_IN][2 * ZN_MAX_RANK]; /* labels of each operand's axes */
  uint32_t len[MAX_IN + 1];
  uint8_t out[2 * ZN_MAX_RANK];
  uint32_t num, ell; /* operands; axes behind the ellipsis */
} einsum;

static int label_of(char ch) {
  return ch >= 'a' && ch <= 'z' ? ch - 'a' : ch >= 'A' && ch <= 'Z' ? 26 + ch - 'A' : -1;
}

/* One term up to ',', '-' or the end. `rank` fixes how many axes its ellipsis covers (-1: output).
 */
static zn_status parse_term(zn_ev *e, einsum *s, const char **p, int rank, uint8_t *out,
                            uint32_t *len) {
  uint32_t letters = 0, n = 0;
  for (const char *q = *p; *q && *q != ',' && *q != '-'; q++) letters += label_of(*q) >= 0;
  for (; **p && **p != ',' && **p != '-'; (*p)++) {
    int l = label_of(**p);
    uint32_t axes = 1;
    if (**p == ' ') continue;
    if (**p == '.') {
      if (strncmp(*p, "...", 3) != 0) return zn_ev_fail(e, "the equation is not valid");
      *p += 2;
      axes = rank < 0 ? s->ell : (uint32_t)rank - letters;
      if (rank >= 0 && (uint32_t)rank < letters)
        return zn_ev_fail(e, "a term has more labels than axes");
      if (axes > s->ell) s->ell = axes;
      l = LABELS - (int)axes;
    } else if (l < 0) {
      return zn_ev_fail(e, "'%c' is not valid in an equation", **p);
    }
    for (uint32_t k = 0; k < axes; k++) {
      if (n == 2 * ZN_MAX_RANK) return zn_ev_fail(e, "a term has too many labels");
      out[n++] = (uint8_t)(l + (int)k);
    }
  }
  *len = n;
  return rank >= 0 && n != (uint32_t)rank
             ? zn_ev_fail(e, "a term has %u labels for rank %d", n, rank)
             : ZN_OK;
}

static zn_status parse(zn_ev *e, einsum *s) {
  memset(s, 0, sizeof *s);
  const char *eq = zn_node_str(e->n, "equation"), *p = eq;
  if (e->num_in > MAX_IN) return zn_ev_fail(e, "more than %d operands", MAX_IN);
  bool ellipsis = strchr(eq, '.') != NULL;
  uint32_t seen[LABELS] = {0};
  for (s->num = 0; s->num < e->num_in; s->num++) {
    const zn_eval_val *x = e->in[s->num];
    ZN_TRY(parse_term(e, s, &p, (int)x->rank, s->term[s->num], &s->len[s->num]));
    for (uint32_t d = 0; d < x->rank; d++) {
      uint8_t l = s->term[s->num][d];
      int64_t n = x->dims[d] ? x->dims[d] : -1;
      if (s->dim[l] == 0 || s->dim[l] == 1) s->dim[l] = n;
      else if (n != 1 && n != s->dim[l])
        return zn_ev_fail(e, "a label has extents %lld and %lld", (long long)n,
                          (long long)s->dim[l]);
      seen[l]++;
    }
    if (*p == ',') p++;
  }
  uint32_t nout = 0;
  if (p[0] == '-' && p[1] == '>') {
    p += 2;
    ZN_TRY(parse_term(e, s, &p, -1, s->out, &nout));
  } else { /* implicit: the ellipsis, then labels that occur once, A-Z before a-z */
    for (uint32_t k = 0; ellipsis && k < s->ell; k++)
      s->out[nout++] = (uint8_t)(LABELS - s->ell + k);
    for (int k = 0; k < 52 && nout < ZN_MAX_RANK; k++) {
      int l = k < 26 ? 26 + k : k - 26;
      if (seen[l] == 1) s->out[nout++] = (uint8_t)l;
    }
  }
  s->len[MAX_IN] = nout;
  return nout > ZN_MAX_RANK ? zn_ev_fail(e, "the output exceeds rank %d", ZN_MAX_RANK) : ZN_OK;
}

/* Stride of operand x along each label. */
static void label_strides(const zn_eval_val *x, const uint8_t *term, int64_t *st) {
  int64_t xs[ZN_MAX_RANK];
  memset(st, 0, LABELS * sizeof *st);
  zn_ev_strides(x->rank, x->dims, xs);
  for (uint32_t d = 0; d < x->rank; d++)
    if (x->dims[d] != 1) st[term[d]] += xs[d];
}

typedef struct sums { /* the summed labels */
  uint32_t rank;
  uint8_t label[LABELS];
  int64_t dims[LABELS];
  uint64_t count;
} sums;

static void products(const zn_ev *e, const einsum *s, const sums *r, int64_t (*st)[LABELS],
                     const int64_t *base, double *t) {
  int64_t ix[LABELS] = {0}, at[MAX_IN];
  uint32_t last = r->rank ? r->rank - 1 : 0;
  int64_t n = r->rank ? r->dims[last] : 1;
  for (uint64_t k = 0; k < r->count; k += (uint64_t)n) {
    for (uint32_t i = 0; i < s->num; i++) {
      at[i] = base[i];
      for (uint32_t d = 0; d + 1 < r->rank; d++) at[i] += ix[d] * st[i][r->label[d]];
    }
    for (int64_t j = 0; j < n; j++) {
      double p = e->in[0]->u.f[at[0]];
      for (uint32_t i = 1; i < s->num; i++) p = zn_ev_r(e, p * e->in[i]->u.f[at[i]]);
      t[k + (uint64_t)j] = p;
      for (uint32_t i = 0; r->rank && i < s->num; i++) at[i] += st[i][r->label[last]];
    }
    if (r->rank > 1) zn_ev_next(r->rank - 1, r->dims, ix);
  }
}

static int64_t products_i(const zn_ev *e, const einsum *s, const sums *r, int64_t (*st)[LABELS],
                          const int64_t *base) {
  int64_t ix[LABELS] = {0};
  uint64_t total = 0;
  for (uint64_t k = 0; k < r->count; k++, zn_ev_next(r->rank, r->dims, ix)) {
    uint64_t p = 1;
    for (uint32_t i = 0; i < s->num; i++) {
      int64_t at = base[i];
      for (uint32_t d = 0; d < r->rank; d++) at += ix[d] * st[i][r->label[d]];
      p *= (uint64_t)e->in[i]->u.i[at];
    }
    total += p;
  }
  return (int64_t)total;
}

zn_status zn_eval_einsum(zn_ev *e) {
  einsum s;
  ZN_TRY(parse(e, &s));
  uint32_t nout = s.len[MAX_IN];
  int64_t dims[ZN_MAX_RANK], (*st)[LABELS] = zn_arena_array(e->tmp, MAX_IN, sizeof *st),
                             ix[ZN_MAX_RANK] = {0};
  bool kept[LABELS] = {0};
  for (uint32_t d = 0; d < nout; d++) {
    if (s.dim[s.out[d]] == 0) return zn_ev_fail(e, "an output label occurs in no operand");
    kept[s.out[d]] = true;
    dims[d] = s.dim[s.out[d]] < 0 ? 0 : s.dim[s.out[d]];
  }
  sums r = {.count = 1};
  for (uint32_t l = 0; l < LABELS; l++)
    if (s.dim[l] && !kept[l]) {
      r.label[r.rank] = (uint8_t)l;
      r.dims[r.rank++] = s.dim[l] < 0 ? 0 : s.dim[l];
      r.count *= (uint64_t)(s.dim[l] < 0 ? 0 : s.dim[l]);
    }
  for (uint32_t i = 0; i < s.num; i++) label_strides(e->in[i], s.term[i], st[i]);
  zn_dtype t = (zn_dtype)e->in[0]->dtype;
  ZN_TRY(zn_ev_out(e, 0, t, nout, dims));
  double *terms = ZN_ARRAY(e->tmp, double, r.count + 1);
  for (uint64_t k = 0; k < e->out[0].count; k++, zn_ev_next(nout, dims, ix)) {
    int64_t base[MAX_IN] = {0};
    for (uint32_t i = 0; i < s.num; i++)
      for (uint32_t d = 0; d < nout; d++) base[i] += ix[d] * st[i][s.out[d]];
    if (!zn_is_float(t)) {
      e->out[0].u.i[k] = zn_int_wrap(t, products_i(e, &s, &r, st, base));
      continue;
    }
    products(e, &s, &r, st, base, terms);
    e->out[0].u.f[k] = zn_ev_sum(e, terms, r.count, 1);
  }
  return ZN_OK;
}
