/* Functions as C text, one statement per kept value. A value used once is written into its user
 * where that cannot move a read past a write: such values wait as text ("pending") and are declared
 * when a store, an assignment or the edge of a region comes first. */
#include <assert.h>
#include <inttypes.h>

#include "codegen/cstyle/cs_priv.h"

enum { INLINE_MAX = 88 }; /* longest text that may still be nested */

enum { MAX_READS = 4 };

typedef struct read_set { /* what a pending text reads */
  bool memory;
  uint8_t num_vars; /* MAX_READS + 1: any variable */
  zn_kref vars[MAX_READS];
} read_set;

typedef struct value {
  const char *text; /* atom or parenthesised expression; NULL before the definition */
  /* Sums and products of integers: the same as an unsigned expression without parentheses; else
   * NULL. */
  const char *raw;
  char raw_kind; /* '+' sum, '*' product, 0 atom */
  uint8_t mask;  /* bool vectors: width */
  bool pending;
  uint32_t uses;
  read_set reads;
} value;

typedef struct printer {
  cs_state *s;
  const zn_kfunc *f;
  zn_arena *arena;
  zn_text *out;
  value *v;
  uint32_t *pending;
  uint32_t num_pending;
  int depth;
  bool in_threads;      /* SIMT: inside a thread loop */
  uint32_t threads_end; /* its End */
  uint64_t alloc_at;    /* SIMT: shared memory taken so far */
  bool awaited;         /* SIMT: behind the kernel's Await */
  read_set reads; /* of the operands consumed since the instruction began */
} printer;

static void indent(printer *p) {
  for (int i = 0; i < p->depth; i++) zn_text_puts(p->out, "  ");
}

static const char *fmt(printer *p, const char *f, ...) __attribute__((format(printf, 2, 3)));
static const char *fmt(printer *p, const char *f, ...) {
  char small[512];
  va_list ap, again;
  va_start(ap, f);
  va_copy(again, ap);
  int n = vsnprintf(small, sizeof small, f, ap);
  va_end(ap);
  char *r = zn_arena_alloc(p->arena, (size_t)n + 1);
  if ((size_t)n < sizeof small)
    memcpy(r, small, (size_t)n + 1);
  else
    vsnprintf(r, (size_t)n + 1, f, again);
  va_end(again);
  return r;
}

static cs_type type_of(const printer *p, zn_kref r) {
  const zn_kinst *in = &p->f->insts[r];
  return cs_vector(zn_kf_dtype(p->f, r), in->lanes, p->v[r].mask);
}

/* Text without one pair of parentheses around the whole. */
static const char *bare(printer *p, const char *t) {
  size_t n = strlen(t);
  if (n < 2 || t[0] != '(') return t;
  int depth = 0;
  for (size_t i = 0; i < n; i++) {
    depth += t[i] == '(' ? 1 : t[i] == ')' ? -1 : 0;
    if (depth == 0) return i == n - 1 ? zn_arena_strndup(p->arena, t + 1, n - 2) : t;
  }
  return t;
}

/* ---- pending values ---- */

static void declare(printer *p, zn_kref r) {
  value *v = &p->v[r];
  indent(p);
  if (v->raw && zn_kf_dtype(p->f, r) == ZN_IDX) {
    zn_text_printf(p->out, "%s v%u = %s;\n", p->s->dia->unsigned_idx, r, v->raw);
    v->raw = fmt(p, "v%u", r);
    v->text = fmt(p, "(%s)v%u", p->s->dia->scalar[ZN_IDX], r);
    v->raw_kind = 0;
  } else {
    zn_text_printf(p->out, "%s v%u = %s;\n", cs_name(p->s, type_of(p, r)), r, bare(p, v->text));
    v->text = fmt(p, "v%u", r);
    v->raw = NULL;
  }
  memset(&v->reads, 0, sizeof v->reads);
  v->pending = false;
}

static bool reads_var(const read_set *r, zn_kref var) {
  for (uint32_t i = 0; i < r->num_vars && i < MAX_READS; i++)
    if (r->vars[i] == var) return true;
  return r->num_vars > MAX_READS;
}

static void add_var(read_set *r, zn_kref var) {
  if (reads_var(r, var)) return;
  if (r->num_vars < MAX_READS) r->vars[r->num_vars] = var;
  r->num_vars++;
}

static void add_reads(read_set *r, const read_set *more) {
  r->memory |= more->memory;
  if (more->num_vars > MAX_READS) r->num_vars = MAX_READS + 1;
  for (uint32_t i = 0; i < more->num_vars && i < MAX_READS; i++) add_var(r, more->vars[i]);
}

typedef enum flush_what { FLUSH_ALL, FLUSH_MEMORY, FLUSH_VAR } flush_what;

/* Declares the pending values that must not move past what comes next. */
static void flush(printer *p, flush_what what, zn_kref var) {
  uint32_t kept = 0;
  for (uint32_t i = 0; i < p->num_pending; i++) {
    zn_kref r = p->pending[i];
    const value *v = &p->v[r];
    if (!v->pending) continue;
    if (what == FLUSH_ALL || (what == FLUSH_MEMORY ? v->reads.memory : reads_var(&v->reads, var)))
      declare(p, r);
    else
      p->pending[kept++] = r;
  }
  p->num_pending = kept;
}

/* Takes the operand's text for use in the present instruction. */
static const char *use(printer *p, zn_kref r) {
  value *v = &p->v[r];
  assert(v->text);
  add_reads(&p->reads, &v->reads);
  v->pending = false;
  return v->text;
}

static const char *use_bare(printer *p, zn_kref r) { return bare(p, use(p, r)); }

/* An index where the context converts to idx: the unsigned text will do. */
static const char *use_index(printer *p, zn_kref r) {
  const char *raw = p->v[r].raw, *text = use_bare(p, r);
  return raw ? raw : text;
}

/* The operand as an unsigned number, for wrapping arithmetic. */
static const char *use_raw(printer *p, zn_kref r, zn_dtype t) {
  const zn_kinst *in = &p->f->insts[r];
  const char *raw = p->v[r].raw, *text = use(p, r), *u = cs_unsigned(p->s, t);
  if (raw) return p->v[r].raw_kind ? fmt(p, "(%s)", raw) : raw;
  if (in->op == ZN_K_Const && in->imm.i >= 0 && in->imm.i <= INT32_MAX)
    return fmt(p, "%" PRId64 "u", in->imm.i);
  return fmt(p, "(%s)%s", u, text);
}

static void define(printer *p, zn_kref r, const char *text, const char *raw) {
  value *v = &p->v[r];
  v->text = text;
  v->raw = raw;
  v->reads = p->reads;
  v->pending = true;
  p->pending[p->num_pending++] = r;
  if (v->uses > 1 || strlen(text) > INLINE_MAX) {
    declare(p, r);
    p->num_pending--;
  }
}

/* For what must stand here and not where it is used. */
static void define_now(printer *p, zn_kref r, const char *text) {
  p->v[r].text = text;
  declare(p, r);
}

/* An atom costs nothing to repeat. */
static void define_atom(printer *p, zn_kref r, const char *text) { p->v[r].text = text; }

/* A bool vector operand as a mask of the given width. */
static const char *use_mask(printer *p, zn_kref r, unsigned mask) {
  cs_type t = type_of(p, r);
  if (t.lanes == 1 || t.mask == mask) return use_bare(p, r);
  const char *fn = cs_vec_mask(p->s, t, mask);
  return fmt(p, "%s(%s)", fn, use_bare(p, r));
}

/* ---- values ---- */

static void print_const(printer *p, zn_kref r, const zn_kinst *in) {
  zn_dtype t = (zn_dtype)in->dtype;
  define_atom(p, r,
              zn_is_float(t) ? cs_float_literal(p->s, t, in->imm.f)
                             : cs_int_literal(p->s, t, in->imm.i));
}

static bool wraps(zn_kop op, zn_dtype t) {
  return (op == ZN_K_Add || op == ZN_K_Sub || op == ZN_K_Mul) && zn_kdt_is_int(t) && t != ZN_U32 &&
         t != ZN_U64;
}

static const char *op_symbol(zn_kop op) {
  return op == ZN_K_Add ? "+" : op == ZN_K_Sub ? "-" : "*";
}

/* Division, remainder and shifts by a constant need no case distinction. */
static const char *by_constant(printer *p, const zn_kinst *in, zn_dtype t) {
  const zn_kinst *k = &p->f->insts[in->b];
  if (k->op != ZN_K_Const || !zn_kdt_is_int(t)) return NULL;
  int64_t n = k->imm.i, bits = t == ZN_IDX ? 31 : (int64_t)zn_dtype_bytes(t) * 8;
  const char *c = p->s->dia->scalar[t];
  bool narrow = t != ZN_IDX && zn_dtype_bytes(t) < 4;
  if (n <= 0 || n > INT32_MAX) return NULL;
  if ((in->op == ZN_K_Div || in->op == ZN_K_Rem)) {
    const char *a = use(p, in->a), *cast = narrow ? fmt(p, "(%s)", c) : "";
    return fmt(p, "%s(%s %s %s)", cast, a, in->op == ZN_K_Div ? "/" : "%", use(p, in->b));
  }
  if (n >= bits) return NULL;
  if (in->op == ZN_K_Shl) {
    const char *a = use_raw(p, in->a, t);
    return fmt(p, "(%s)(%s << %" PRId64 ")", c, a, n);
  }
  if (in->op == ZN_K_Shr) return fmt(p, "(%s)(%s >> %" PRId64 ")", c, use(p, in->a), n);
  return NULL;
}

typedef struct term { /* an operand of index arithmetic */
  const char *text;
  char kind;        /* as value.raw_kind */
  bool is_unsigned; /* else a signed atom */
  bool is_const;
  int64_t k;
} term;

static term use_term(printer *p, zn_kref r) {
  const value *v = &p->v[r];
  const zn_kinst *in = &p->f->insts[r];
  term t = {
      .kind = v->raw ? v->raw_kind : 0, .is_unsigned = v->raw, .is_const = in->op == ZN_K_Const};
  const char *raw = v->raw, *text = use(p, r);
  t.text = raw ? raw : text;
  if (t.is_const) t.k = in->imm.i;
  return t;
}

/* Sums and products of indexes as one unsigned expression. C evaluates a chain from the left, so
 * its first two terms must hold an unsigned one; the rest follows. Constants go last. */
static void print_index_arith(printer *p, zn_kref r, const zn_kinst *in) {
  char op = *op_symbol((zn_kop)in->op);
  term a = use_term(p, in->a), b = use_term(p, in->b);
  bool chained = b.kind == '*' || (b.kind == '+' && op != '*');
  if (op != '-' && ((a.is_const && !b.is_const) || (!a.is_unsigned && chained))) {
    term t = a;
    a = b;
    b = t;
  }
  if (b.is_const && b.k == 0 && op != '*') {
    define(p, r, a.is_unsigned ? fmt(p, "(%s)(%s)", p->s->dia->scalar[ZN_IDX], a.text) : a.text,
           a.is_unsigned ? a.text : NULL);
    if (p->v[r].pending) p->v[r].raw_kind = a.kind;
    return;
  }
  if (!a.is_unsigned && !b.is_unsigned) a.text = fmt(p, "(%s)%s", p->s->dia->unsigned_idx, a.text);
  if (op == '*' && a.kind == '+') a.text = fmt(p, "(%s)", a.text);
  if (b.kind == '+' && op != '+') b.text = fmt(p, "(%s)", b.text);
  bool negative = op == '+' && b.is_const && b.k < 0 && b.k > -INT32_MAX;
  const char *raw =
      negative ? fmt(p, "%s - %" PRId64, a.text, -b.k) : fmt(p, "%s %c %s", a.text, op, b.text);
  define(p, r, fmt(p, "(%s)(%s)", p->s->dia->scalar[ZN_IDX], raw), raw);
  if (p->v[r].pending) p->v[r].raw_kind = op == '*' ? '*' : '+';
}

static void print_scalar_arith(printer *p, zn_kref r, const zn_kinst *in) {
  zn_dtype t = zn_kf_dtype(p->f, in->a);
  zn_kop op = (zn_kop)in->op;
  const char *sig = zn_kops[op].sig;
  if (sig[1] == '-') {
    define(p, r, cs_scalar_un(p->s, op, t, use(p, in->a)), NULL);
  } else if (zn_kop_is_dot(in->op)) {
    const char *a = use_bare(p, in->a), *b = use_bare(p, in->b), *c = use_bare(p, in->c);
    define(p, r, fmt(p, "%s(%s, %s, %s)", cs_dot(p->s, op, 1, (unsigned)in->imm.i), a, b, c), NULL);
  } else if (sig[2] != '-') {
    const char *a = use_bare(p, in->a), *b = use_bare(p, in->b), *c = use_bare(p, in->c);
    define(p, r, cs_scalar_fma(p->s, t, a, b, c), NULL);
  } else if (wraps(op, t) && t == ZN_IDX) {
    print_index_arith(p, r, in);
  } else if (wraps(op, t)) {
    const char *a = use_raw(p, in->a, t), *b = use_raw(p, in->b, t);
    const char *raw = fmt(p, "%s %s %s", a, op_symbol(op), b);
    define(p, r, fmt(p, "(%s)(%s)", p->s->dia->scalar[t], raw), raw);
    if (p->v[r].pending) p->v[r].raw_kind = '+';
  } else {
    const char *text = by_constant(p, in, t);
    if (!text) {
      const char *a = use(p, in->a), *b = use(p, in->b);
      text = cs_scalar_bin(p->s, op, t, a, b);
    }
    define(p, r, text, NULL);
  }
}

static unsigned wider(unsigned a, unsigned b) { return a > b ? a : b; }

static void print_vector_arith(printer *p, zn_kref r, const zn_kinst *in) {
  zn_kop op = (zn_kop)in->op;
  const char *sig = zn_kops[op].sig, *fn;
  cs_type t = type_of(p, in->a);
  if (t.mask) {
    t.mask = (uint8_t)(sig[1] == '-' ? t.mask : wider(t.mask, type_of(p, in->b).mask));
    p->v[r].mask = t.mask;
    const char *a = use_mask(p, in->a, t.mask);
    fn = zn_kops[op].cls == 'P' ? cs_vec_cmp(p->s, op, t)
         : sig[1] == '-'        ? cs_vec_un(p->s, op, t)
                                : cs_vec_bin(p->s, op, t);
    if (sig[1] == '-')
      define(p, r, fmt(p, "%s(%s)", fn, a), NULL);
    else
      define(p, r, fmt(p, "%s(%s, %s)", fn, a, use_mask(p, in->b, t.mask)), NULL);
    return;
  }
  if (zn_kops[op].cls == 'P') p->v[r].mask = (uint8_t)cs_mask_of((zn_dtype)t.dtype);
  const char *a = use_bare(p, in->a);
  if (sig[1] == '-') {
    define(p, r, fmt(p, "%s(%s)", cs_vec_un(p->s, op, t), a), NULL);
    return;
  }
  const char *b = use_bare(p, in->b);
  if (sig[2] != '-') {
    const char *c = use_bare(p, in->c);
    fn = zn_kop_is_dot(in->op) ? cs_dot(p->s, op, in->lanes, (unsigned)in->imm.i) : cs_vec_fma(p->s, t);
    define(p, r, fmt(p, "%s(%s, %s, %s)", fn, a, b, c), NULL);
    return;
  }
  fn = zn_kops[op].cls == 'P' ? cs_vec_cmp(p->s, op, t) : cs_vec_bin(p->s, op, t);
  define(p, r, fmt(p, "%s(%s, %s)", fn, a, b), NULL);
}

static void print_select(printer *p, zn_kref r, const zn_kinst *in) {
  if (in->lanes == 1 || p->f->insts[in->a].lanes == 1) {
    cs_type b = type_of(p, in->b), c = type_of(p, in->c);
    if (b.mask) p->v[r].mask = (uint8_t)wider(b.mask, c.mask);
    const char *cond = use(p, in->a), *x, *y;
    x = b.mask ? use_mask(p, in->b, p->v[r].mask) : use(p, in->b);
    y = b.mask ? use_mask(p, in->c, p->v[r].mask) : use(p, in->c);
    define(p, r, fmt(p, "(%s ? %s : %s)", cond, x, y), NULL);
    return;
  }
  cs_type t = type_of(p, in->b);
  if (t.mask) {
    t.mask = (uint8_t)wider(t.mask, wider(type_of(p, in->a).mask, type_of(p, in->c).mask));
    p->v[r].mask = t.mask;
    const char *m = use_mask(p, in->a, t.mask), *x = use_mask(p, in->b, t.mask),
               *y = use_mask(p, in->c, t.mask);
    define(p, r, fmt(p, "%s(%s, %s, %s)", cs_vec_select(p->s, t), m, x, y), NULL);
    return;
  }
  const char *m = use_mask(p, in->a, cs_mask_of((zn_dtype)t.dtype)), *x = use_bare(p, in->b),
             *y = use_bare(p, in->c);
  define(p, r, fmt(p, "%s(%s, %s, %s)", cs_vec_select(p->s, t), m, x, y), NULL);
}

static void print_convert(printer *p, zn_kref r, const zn_kinst *in) {
  zn_dtype from = zn_kf_dtype(p->f, in->a), to = (zn_dtype)in->dtype;
  zn_kop op = (zn_kop)in->op;
  if (op == ZN_K_Select) {
    print_select(p, r, in);
    return;
  }
  if (in->lanes == 1) {
    const char *a = use(p, in->a);
    define(p, r,
           op == ZN_K_Bitcast ? cs_scalar_bitcast(p->s, from, to, a)
                              : cs_scalar_cvt(p->s, op, from, to, a),
           NULL);
    return;
  }
  cs_type f = type_of(p, in->a);
  if (from == to) {
    p->v[r].mask = f.mask;
    define(p, r, use(p, in->a), NULL);
    return;
  }
  if (f.mask) f.mask = (uint8_t)cs_mask_of(to);
  if (to == ZN_BOOL) p->v[r].mask = (uint8_t)cs_mask_of(from);
  cs_type t = type_of(p, r);
  const char *a = f.mask ? use_mask(p, in->a, f.mask) : use_bare(p, in->a);
  if (op == ZN_K_Bitcast)
    define(p, r, f.dtype == t.dtype ? a : fmt(p, "%s(%s)", cs_vec_bitcast(p->s, f, t), a), NULL);
  else
    define(p, r, fmt(p, "%s(%s)", cs_vec_cvt(p->s, op, f, t, from, to), a), NULL);
}

static const char *lane_expr(printer *p, cs_type t, const char *a, int64_t lane) {
  const char *x = cs_is_pow2(t.lanes) ? fmt(p, "ZN_LANE(%s, %" PRId64 ")", a, lane)
                                      : fmt(p, "(%s).v[%" PRId64 "]", a, lane);
  return t.mask ? fmt(p, "(%s != 0)", x) : x;
}

static void print_shuffle(printer *p, zn_kref r, const zn_kinst *in) {
  cs_type a = type_of(p, in->a), b = type_of(p, in->b);
  unsigned mask = a.mask ? wider(a.mask, b.mask) : 0;
  p->v[r].mask = (uint8_t)mask;
  a.mask = (uint8_t)mask;
  cs_type to = type_of(p, r);
  if (to.lanes == 1) to.mask = (uint8_t)mask;
  const char *x = mask ? use_mask(p, in->a, mask) : use_bare(p, in->a);
  const char *y = in->a == in->b ? x : mask ? use_mask(p, in->b, mask) : use_bare(p, in->b);
  const char *fn = cs_vec_shuffle(p->s, a, to, p->f->extra + in->imm.i);
  const char *text = fmt(p, "%s(%s, %s)", fn, x, y);
  define(p, r, mask && to.lanes == 1 ? fmt(p, "(%s != 0)", text) : text, NULL);
}

static void print_vector_op(printer *p, zn_kref r, const zn_kinst *in) {
  cs_type a;
  switch (in->op) {
  case ZN_K_Mma: {
    const char *x = use_bare(p, in->a), *y = use_bare(p, in->b), *z = use_bare(p, in->c);
    define(p, r, fmt(p, "%s(%s, %s, %s)", cs_vec_mma(p->s, (zn_mma_format)in->imm.i), x, y, z), NULL);
    break;
  }
  case ZN_K_GroupWait: {
    const char *x = use_bare(p, in->a);
    define_now(p, r, fmt(p, "%s(%s)", cs_vec_groupwait(p->s, (zn_dtype)in->dtype, in->lanes), x));
    break;
  }
  case ZN_K_LaneXor: {
    const char *x = use_bare(p, in->a);
    /* all threads of the warp are here, maybe not at its use */
    define_now(p, r, fmt(p, "__shfl_xor_sync(0xffffffffu, %s, %" PRId64 ")", x, in->imm.i));
    break;
  }
  case ZN_K_Splat:
    if (in->dtype == ZN_BOOL) p->v[r].mask = 1;
    if (in->lanes == 1)
      define(p, r, use(p, in->a), NULL);
    else
      define(p, r, fmt(p, "%s(%s)", cs_vec_splat(p->s, type_of(p, r)), use_bare(p, in->a)), NULL);
    break;
  case ZN_K_Iota:
    define(p, r, in->lanes == 1 ? "0" : fmt(p, "%s()", cs_vec_iota(p->s, type_of(p, r))), NULL);
    break;
  case ZN_K_Extract:
    a = type_of(p, in->a);
    define(p, r, a.lanes == 1 ? use(p, in->a) : lane_expr(p, a, use_bare(p, in->a), in->imm.i),
           NULL);
    break;
  case ZN_K_Insert: {
    a = type_of(p, in->a);
    p->v[r].mask = a.mask;
    const char *x = use_bare(p, in->a), *y = use_bare(p, in->b);
    define(p, r,
           a.lanes == 1
               ? fmt(p, "(%s)", y)
               : fmt(p, "%s(%s, %" PRId64 ", %s)", cs_vec_insert(p->s, a), x, in->imm.i, y),
           NULL);
    break;
  }
  case ZN_K_Shuffle:
    print_shuffle(p, r, in);
    break;
  default:
    a = type_of(p, in->a);
    define(p, r,
           a.lanes == 1
               ? use(p, in->a)
               : fmt(p, "%s(%s)", cs_vec_reduce(p->s, (zn_kop)in->op, a), use_bare(p, in->a)),
           NULL);
  }
}

/* ---- memory ---- */

static const char *mem_tag(zn_dtype t) { return t == ZN_PTR ? "ptr" : zn_dtypes[cs_canon(t)].name; }

static void print_load(printer *p, zn_kref r, const zn_kinst *in) {
  bool gather = p->f->insts[in->b].lanes > 1;
  if (in->dtype == ZN_BOOL && in->lanes > 1) p->v[r].mask = 1;
  const char *base = use_bare(p, in->a), *at = use_index(p, in->b), *text;
  cs_type t = type_of(p, r);
  if (in->lanes == 1)
    text = fmt(p, "ZN_LD(%s, %s, %s)", mem_tag((zn_dtype)in->dtype), base, at);
  else if (gather)
    text = fmt(p, "%s(%s, %s)", cs_vec_gather(p->s, t, type_of(p, in->b)), base, at);
  else
    text = fmt(p, "%s(%s, %s)", cs_vec_load(p->s, t, in->imm.i), base, at);
  p->reads.memory = true;
  define(p, r, text, NULL);
}

static void print_store(printer *p, const zn_kinst *in) {
  bool scatter = p->f->insts[in->b].lanes > 1;
  cs_type t = type_of(p, in->c);
  const char *base = use_bare(p, in->a), *at = use_index(p, in->b);
  const char *v = t.mask ? use_mask(p, in->c, t.mask = 1) : use_bare(p, in->c);
  flush(p, FLUSH_MEMORY, 0);
  indent(p);
  if (p->f->team > 1 && !p->in_threads) zn_text_puts(p->out, "if (zn_rank == 0) ");
  if (in->lanes == 1)
    zn_text_printf(p->out, "ZN_ST(%s, %s, %s, %s);\n", mem_tag((zn_dtype)in->dtype), base, at, v);
  else if (scatter)
    zn_text_printf(p->out, "%s(%s, %s, %s);\n", cs_vec_scatter(p->s, t, type_of(p, in->b)), base,
                   at, v);
  else
    zn_text_printf(p->out, "%s(%s, %s, %s);\n", cs_vec_store(p->s, t, in->imm.i), base, at, v);
}

static void print_memory(printer *p, zn_kref r, const zn_kinst *in) {
  switch (in->op) {
  case ZN_K_Load:
    print_load(p, r, in);
    break;
  case ZN_K_Store:
    print_store(p, in);
    break;
  case ZN_K_LdMatrix: {
    const char *base = use_bare(p, in->a), *at = use_index(p, in->b);
    define_now(p, r, fmt(p, "%s(%s, %s)", cs_vec_ldmatrix(p->s, in->lanes, in->imm.i == 1), base, at));
    break;
  }
  case ZN_K_GroupMma: {
    const char *a = use_bare(p, in->a), *b = use_bare(p, in->b), *c = use_bare(p, in->c);
    zn_mma_format format = zn_group_format(in->imm.i);
    define_now(p, r, fmt(p, "%s(%s, %s, %s)", cs_vec_groupmma(p->s, in->lanes, format, zn_group_under_way(in->imm.i)), a, b, c));
    break;
  }
  case ZN_K_PtrAdd: {
    const char *a = use(p, in->a), *b = use(p, in->b);
    define(p, r, fmt(p, "(%s + %s)", a, b), NULL);
    break;
  }
  case ZN_K_HostAlloc: {
    const char *host = use(p, in->a), *bytes = use(p, in->b);
    flush(p, FLUSH_ALL, 0);
    indent(p);
    zn_text_printf(p->out, "unsigned char *m%u = (unsigned char *)((const zn_host *)%s)->alloc("
                   "((const zn_host *)%s)->alloc_user, (size_t)%s);\n", r, host, host, bytes);
    define_atom(p, r, fmt(p, "m%u", r));
    break;
  }
  case ZN_K_HostImage: {
    const char *host = use(p, in->a), *file = use(p, in->b), *image = use(p, in->c);
    flush(p, FLUSH_ALL, 0);
    indent(p);
    zn_text_printf(p->out, "const int32_t m%u = ((const zn_host *)%s)->decode_image(((const zn_host *)%s)->image_user, "
                   "(const zn_tensor *)%s, %" PRId64 ", (zn_tensor *)%s);\n", r, host, host, file, in->imm.i, image);
    define_atom(p, r, fmt(p, "m%u", r));
    break;
  }
  default: { /* Alloc */
    const char *elem = cs_elem(p->s, cs_scalar((zn_dtype)in->dtype));
    if (p->f->team > 1) { /* the team's: shared memory */
      unsigned size = in->dtype == ZN_IDX ? 8 : zn_dtype_bytes((zn_dtype)in->dtype);
      define_atom(p, r, fmt(p, "(zn_team_mem + %" PRIu64 ")", p->alloc_at));
      p->alloc_at += ((uint64_t)in->imm.i * size + 15) & ~UINT64_C(15);
      break;
    }
    indent(p);
    zn_text_printf(p->out, "ZN_ALIGN64(%s m%u[%" PRId64 "]);\n", elem, r, in->imm.i);
    define_atom(p, r, fmt(p, "(unsigned char *)m%u", r));
  }
  }
}

/* ---- statements ---- */

static void open_region(printer *p) {
  zn_text_puts(p->out, " {\n");
  p->depth++;
}

/* SIMT: the grid loop is the team's own iteration, a thread loop takes every team-th step. */
static bool print_simt_for(printer *p, zn_kref r, const zn_kinst *in) {
  zn_for_kind kind = (zn_for_kind)(in->c & 255);
  if (!p->s->dia->simt || (kind != ZN_FOR_GRID && kind != ZN_FOR_THREAD)) return false;
  const char *lo = use(p, in->a), *hi = use(p, in->b);
  flush(p, FLUSH_ALL, 0);
  indent(p);
  define_atom(p, r, fmt(p, "i%u", r));
  if (kind == ZN_FOR_GRID) {
    zn_text_printf(p->out, "const zi i%u = zn_at;\n", r);
    indent(p);
    zn_text_printf(p->out, "if (i%u < %s)", r, hi);
  } else {
    p->in_threads = true;
    zn_text_printf(p->out, "for (zi i%u = %s + (zi)zn_rank * %" PRId64 "; i%u < %s; i%u += %" PRId64 ")", r, lo,
                   in->imm.i, r, hi, r, in->imm.i * p->f->team);
  }
  open_region(p);
  return true;
}

static void print_for(printer *p, zn_kref r, const zn_kinst *in) {
  if (print_simt_for(p, r, in)) return;
  bool grid = (in->c & 255) == ZN_FOR_GRID;
  const char *lo = use_index(p, in->a), *hi = use(p, in->b), *step = "++";
  if (grid || p->reads.memory || p->reads.num_vars) { /* the bounds are taken once */
    indent(p);
    if (grid)
      zn_text_printf(p->out, "const zi n%u = end < %s ? end : %s;\n", r, hi, hi);
    else
      zn_text_printf(p->out, "const zi n%u = %s;\n", r, bare(p, hi));
    hi = fmt(p, "n%u", r);
  }
  flush(p, FLUSH_ALL, 0);
  if (in->imm.i != 1) step = fmt(p, " += %" PRId64, in->imm.i);
  indent(p);
  zn_text_printf(p->out, "for (zi i%u = %s; i%u < %s; i%u%s)", r, grid ? "begin" : lo, r, hi, r,
                 step);
  open_region(p);
  define_atom(p, r, fmt(p, "i%u", r));
}

static void print_call(printer *p, const zn_kinst *in) {
  const zn_kfunc *k = p->s->mod->funcs[in->imm.i];
  uint32_t bufs = 0, ints = 0, kb = 0, ki = 0;
  for (uint32_t i = 0; i < k->num_params; i++)
    *(k->params[i].kind == ZN_KP_INT ? &ints : &bufs) += 1;
  flush(p, FLUSH_ALL, 0);
  indent(p);
  zn_text_printf(p->out, "{ /* %s */\n", k->note ? k->note : k->name);
  p->depth++;
  indent(p);
  zn_text_printf(p->out, "void *b[%u];\n", bufs ? bufs : 1);
  indent(p);
  zn_text_printf(p->out, "zi n[%u];\n", ints ? ints : 1);
  if (!bufs || !ints) {
    indent(p);
    zn_text_puts(p->out, bufs   ? "n[0] = 0;\n"
                         : ints ? "b[0] = NULL;\n"
                                : "b[0] = NULL; n[0] = 0;\n");
  }
  for (uint32_t i = 0; i < k->num_params; i++) {
    bool is_int = k->params[i].kind == ZN_KP_INT;
    indent(p);
    zn_text_printf(p->out, "%s[%u] = %s;\n", is_int ? "n" : "b", is_int ? ki++ : kb++,
                   is_int ? use_index(p, p->f->extra[in->a + i])
                          : use_bare(p, p->f->extra[in->a + i]));
  }
  indent(p);
  zn_text_printf(p->out, "zn_launch(host, %uu, %s, b, n, %s, %d);\n", p->s->kernel_no[in->imm.i],
                 p->s->kernel_names[in->imm.i], use_bare(p, in->c), !k->serial);
  p->depth--;
  indent(p);
  zn_text_puts(p->out, "}\n");
}

static void print_variable(printer *p, zn_kref r, const zn_kinst *in) {
  if (in->op == ZN_K_Var) {
    p->v[r].mask = p->v[in->a].mask;
    const char *init = use_bare(p, in->a);
    indent(p);
    zn_text_printf(p->out, "%s r%u = %s;\n", cs_name(p->s, type_of(p, r)), r, init);
    p->v[r].text = fmt(p, "r%u", r);
  } else if (in->op == ZN_K_Get) {
    p->v[r].mask = p->v[in->a].mask;
    add_var(&p->reads, in->a);
    define(p, r, p->v[in->a].text, NULL);
  } else {
    const char *x = p->v[in->a].mask ? use_mask(p, in->b, p->v[in->a].mask) : use_bare(p, in->b);
    flush(p, FLUSH_VAR, in->a);
    indent(p);
    zn_text_printf(p->out, "r%u = %s;\n", in->a, x);
  }
}

static const char *param_name(printer *p, uint32_t i);

/* From here on the kernel's buffers have other names, which depend on the wait. */
static void print_await(printer *p) {
  zn_text_puts(p->out, "ZN_AWAIT(zn_after);\n");
  for (uint32_t i = 0; i < p->f->num_params; i++) {
    if (p->f->params[i].kind == ZN_KP_INT) continue;
    indent(p);
    zn_text_printf(p->out, "unsigned char *const %sq%u = %s + zn_after; (void)q%u;\n", cs_restrict(p->f, i), i, param_name(p, i),
                   i);
  }
  for (uint32_t r = 1; r < p->f->num_insts; r++)
    if (p->f->insts[r].op == ZN_K_Param && p->f->insts[r].dtype == ZN_PTR && p->v[r].text)
      p->v[r].text = fmt(p, "q%u", (unsigned)p->f->insts[r].imm.i);
  p->awaited = true;
}

/* What threads of a team tell each other. */
static void print_signal(printer *p, const zn_kinst *in) {
  const char *sig = zn_kops[in->op].sig, *a = sig[0] == 'p' ? use_bare(p, in->a) : "";
  const char *b = sig[1] != '-' ? use_bare(p, in->b) : "", *c = sig[2] != '-' ? use_bare(p, in->c) : "";
  long long n = (long long)in->imm.i;
  flush(p, in->op == ZN_K_Meet ? FLUSH_ALL : FLUSH_MEMORY, 0);
  indent(p);
  switch (in->op) {
  case ZN_K_SignalSet: zn_text_printf(p->out, "ZN_SIGNAL_SET(%s, %lld);\n", a, n); break;
  case ZN_K_SignalArrive:
    if (n) zn_text_printf(p->out, "ZN_SIGNAL_ANNOUNCE(%s, %lld);\n", a, n);
    else zn_text_printf(p->out, "ZN_SIGNAL_ARRIVE(%s);\n", a);
    break;
  case ZN_K_AsyncArrive: zn_text_printf(p->out, "ZN_ASYNC_ARRIVE(%s);\n", a); break;
  case ZN_K_SignalWait: zn_text_printf(p->out, "ZN_SIGNAL_WAIT(%s, %s);\n", a, b); break;
  case ZN_K_BulkCopy: zn_text_printf(p->out, "ZN_BULK_COPY(%s, %s, %lld, %s);\n", a, b, n, c); break;
  case ZN_K_Meet: zn_text_puts(p->out, "__syncwarp();\n"); break;
  default: zn_text_printf(p->out, "ZN_REGISTERS(%s, %lld);\n", n < 0 ? "dec" : "inc", n < 0 ? -n : n); break;
  }
}

static void print_statement(printer *p, zn_kref r, const zn_kinst *in) {
  const char *t;
  switch (in->op) {
  case ZN_K_Nop:
    break;
  case ZN_K_Var:
  case ZN_K_Get:
  case ZN_K_Set:
    print_variable(p, r, in);
    break;
  case ZN_K_For:
    print_for(p, r, in);
    break;
  case ZN_K_If:
    t = use_bare(p, in->a);
    flush(p, FLUSH_ALL, 0);
    indent(p);
    zn_text_printf(p->out, "if (%s)", t);
    open_region(p);
    break;
  case ZN_K_Loop:
    flush(p, FLUSH_ALL, 0);
    indent(p);
    zn_text_puts(p->out, "for (;;)");
    open_region(p);
    break;
  case ZN_K_Break:
    t = use_bare(p, in->a);
    indent(p);
    zn_text_printf(p->out, "if (%s) break;\n", t);
    break;
  case ZN_K_Ret:
    t = use_bare(p, in->a);
    indent(p);
    zn_text_printf(p->out, "return %s;\n", t);
    break;
  case ZN_K_Call:
    print_call(p, in);
    break;
  case ZN_K_Barrier:
    flush(p, FLUSH_ALL, 0);
    indent(p);
    zn_text_puts(p->out, p->f->team <= 32 ? "__syncwarp(zn_mask);\n" : "__syncthreads();\n");
    break;
  case ZN_K_AsyncCopy: {
    const char *to = use_bare(p, in->a), *from = use_bare(p, in->b), *n = use_bare(p, in->c);
    flush(p, FLUSH_MEMORY, 0);
    indent(p);
    zn_text_printf(p->out, "ZN_ASYNC_COPY(%s, %s, %s);\n", to, from, n);
    break;
  }
  case ZN_K_SignalSet:
  case ZN_K_SignalArrive:
  case ZN_K_AsyncArrive:
  case ZN_K_SignalWait:
  case ZN_K_BulkCopy:
  case ZN_K_Meet:
  case ZN_K_Registers: print_signal(p, in); break;
  case ZN_K_AsyncGroup:
  case ZN_K_AsyncWait:
  case ZN_K_AsyncShare:
  case ZN_K_Await:
    flush(p, FLUSH_MEMORY, 0);
    indent(p);
    if (in->op == ZN_K_AsyncWait) zn_text_printf(p->out, "ZN_ASYNC_WAIT(%" PRId64 ");\n", in->imm.i);
    else if (in->op == ZN_K_AsyncShare) zn_text_puts(p->out, "ZN_ASYNC_SHARE();\n");
    else if (in->op == ZN_K_AsyncGroup) zn_text_puts(p->out, "ZN_ASYNC_GROUP();\n");
    else print_await(p);
    break;
  case ZN_K_Prefetch: {
    const char *base = use_bare(p, in->a), *at = use_index(p, in->b);
    indent(p);
    zn_text_printf(p->out, "ZN_PREFETCH(%s, %s);\n", base, at);
    break;
  }
  default: /* Else, End */
    flush(p, FLUSH_ALL, 0);
    if (in->op == ZN_K_End && r == p->threads_end) p->in_threads = false;
    p->depth--;
    indent(p);
    zn_text_puts(p->out, in->op == ZN_K_Else ? "} else {\n" : "}\n");
    if (in->op == ZN_K_Else) p->depth++;
  }
}

static const char *param_name(printer *p, uint32_t i) {
  for (uint32_t j = 0; j < i; j++)
    if (!strcmp(p->f->params[i].name, p->f->params[j].name))
      return fmt(p, "p%u_%s", i, cs_ident(p->s, p->f->params[i].name));
  return fmt(p, "p_%s", cs_ident(p->s, p->f->params[i].name));
}

static bool has_effect(const zn_kinst *in) {
  return in->op == ZN_K_Store || in->op == ZN_K_HostImage || (zn_kops[in->op].cls == 'S' && in->op != ZN_K_Get);
}

static void print_inst(printer *p, zn_kref r) {
  const zn_kinst *in = &p->f->insts[r];
  zn_kop op = (zn_kop)in->op;
  memset(&p->reads, 0, sizeof p->reads);
  if (!has_effect(in) && zn_kops[op].cls != 'S' && p->v[r].uses == 0)
    return; /* no effect, not needed */
  switch (zn_kops[op].cls) {
  case 'C':
    if (op == ZN_K_Const) print_const(p, r, in);
    if (op == ZN_K_Param)
      define_atom(p, r, p->awaited && in->dtype == ZN_PTR ? fmt(p, "q%u", (unsigned)in->imm.i)
                                                          : param_name(p, (uint32_t)in->imm.i));
    if (op == ZN_K_ConstAddr)
      define_atom(p, r, fmt(p, "(unsigned char *)%s", p->s->const_names[in->imm.i]));
    if (op == ZN_K_Features) define(p, r, cs_features(p->s), NULL);
    break;
  case 'A':
  case 'M':
  case 'P':
    if (in->lanes == 1)
      print_scalar_arith(p, r, in);
    else
      print_vector_arith(p, r, in);
    break;
  case 'X':
    print_convert(p, r, in);
    break;
  case 'V':
    print_vector_op(p, r, in);
    break;
  case 'L':
    print_memory(p, r, in);
    break;
  default:
    if (op == ZN_K_Get && p->v[r].uses == 0) return;
    print_statement(p, r, in);
  }
}

/* ---- whole functions ---- */

static bool is_ref(char kind) { return kind == 'v' || kind == 'p' || kind == 'x' || kind == 'r'; }

/* Counts uses by instructions that are themselves needed, walking backwards. */
static void count_uses(printer *p) {
  for (uint32_t i = p->f->num_insts; i-- > 1;) {
    const zn_kinst *in = &p->f->insts[i];
    const char *sig = zn_kops[in->op].sig;
    if (!has_effect(in) && p->v[i].uses == 0) continue;
    if (is_ref(sig[0])) p->v[in->a].uses++;
    if (is_ref(sig[1])) p->v[in->b].uses++;
    if (is_ref(sig[2])) p->v[in->c].uses++;
    if (in->op != ZN_K_Call) continue;
    p->v[in->c].uses++;
    for (uint32_t k = 0; k < in->b; k++) p->v[p->f->extra[in->a + k]].uses++;
  }
}

static void print_body(cs_state *s, const zn_kfunc *f, void (*params)(printer *)) {
  zn_arena arena;
  zn_arena_init(&arena, "kern");
  printer p = {.s = s, .f = f, .arena = &arena, .out = &s->body, .depth = 1};
  p.v = ZN_ARRAY(&arena, value, f->num_insts);
  p.pending = ZN_ARRAY(&arena, uint32_t, f->num_insts);
  count_uses(&p);
  params(&p);
  const uint32_t *match = s->dia->simt ? zn_kf_match(f, &arena) : NULL;
  for (zn_kref r = 1; r < f->num_insts; r++) {
    if (match && f->insts[r].op == ZN_K_For && (f->insts[r].c & 255) == ZN_FOR_THREAD) p.threads_end = match[r];
    print_inst(&p, r);
  }
  zn_arena_reset(&arena);
}

static bool param_used(const printer *p, uint32_t n) {
  for (zn_kref r = 1; r < p->f->num_insts; r++)
    if (p->f->insts[r].op == ZN_K_Param && p->f->insts[r].imm.i == n && p->v[r].uses) return true;
  return false;
}

static bool has_grid(const zn_kfunc *f) {
  for (zn_kref r = 1; r < f->num_insts; r++)
    if (f->insts[r].op == ZN_K_For && (f->insts[r].c & 255) == ZN_FOR_GRID) return true;
  return false;
}

static void kernel_params(printer *p) {
  uint32_t bufs = 0, ints = 0;
  zn_text_puts(p->out, "  (void)bufs; (void)ints;");
  zn_text_puts(p->out, has_grid(p->f) ? "\n" : " (void)begin; (void)end;\n");
  for (uint32_t i = 0; i < p->f->num_params; i++) {
    bool is_int = p->f->params[i].kind == ZN_KP_INT;
    uint32_t n = is_int ? ints++ : bufs++;
    if (!param_used(p, i)) continue;
    if (is_int)
      zn_text_printf(p->out, "  const zi %s = ints[%u];\n", param_name(p, i), n);
    else
      zn_text_printf(p->out, "  unsigned char *const %s = (unsigned char *)bufs[%u];\n",
                     param_name(p, i), n);
  }
}

static void entry_params(printer *p) {
  static const char *const name[] = {"in", "out", "ws", "ws_bytes", "host"};
  zn_text_puts(p->out, "  (void)in; (void)out; (void)ws; (void)ws_bytes; (void)host;\n");
  for (uint32_t i = 0; i < 5; i++) {
    if (!param_used(p, i)) continue;
    if (i == 3)
      zn_text_printf(p->out, "  const zi %s = (zi)%s;\n", param_name(p, i), name[i]);
    else
      zn_text_printf(p->out, "  unsigned char *const %s = (unsigned char *)%s;\n", param_name(p, i),
                     name[i]);
  }
}

static void put_note(cs_state *s, const zn_kfunc *f) {
  zn_text_puts(&s->body, "\n/* ");
  for (const char *c = f->note ? f->note : f->name; *c; c++)
    if (!(c[0] == '*' && c[1] == '/')) zn_text_put(&s->body, *c == '\n' ? " " : c, 1);
  zn_text_puts(&s->body, " */\n");
}

void cs_print_kernel(cs_state *s, uint32_t fn) {
  static const char *const params = "(void *const *bufs, const zi *ints, zi begin, zi end)";
  const zn_kfunc *f = s->mod->funcs[fn];
  put_note(s, f);
  if (f->exported) zn_text_printf(&s->body, "void %s%s;\n", s->kernel_names[fn], params);
  zn_text_printf(&s->body, "%s void %s%s {\n",
                 f->exported ? s->dia->exported_qual : s->dia->kernel_qual, s->kernel_names[fn],
                 params);
  print_body(s, f, kernel_params);
  zn_text_puts(&s->body, "}\n");
}

static void simt_params(printer *p) {
  const zn_kfunc *f = p->f;
  unsigned team = f->team ? f->team : 1;
  if (team > 1)
    zn_text_printf(p->out, "  const unsigned zn_rank = threadIdx.x %% %uu;\n", team);
  else
    zn_text_puts(p->out, "  const unsigned zn_rank = 0;\n");
  zn_text_printf(p->out, "  const unsigned zn_team = threadIdx.x / %uu;\n", team);
  zn_text_printf(p->out, "  const zi zn_at = (zi)blockIdx.x * (zi)(blockDim.x / %uu) + (zi)zn_team;\n", team);
  zn_text_puts(p->out, "  if (zn_at >= zn_grid) return;\n  (void)zn_rank;\n");
  if (team > 1 && team <= 32)
    zn_text_printf(p->out, "  const unsigned zn_mask = %s; (void)zn_mask;\n",
                   team == 32 ? "0xffffffffu"
                              : fmt(p, "0x%xu << (threadIdx.x / %uu * %uu %% 32u)", (1u << team) - 1, team, team));
  if (team > 1 && zn_kfunc_alloc_bytes(f))
    zn_text_printf(p->out, "  unsigned char *const zn_team_mem = zn_shared + zn_team * %" PRIu64 "u;\n",
                   zn_kfunc_alloc_bytes(f));
}

static void put_simt_param(cs_state *s, printer *names, const zn_kfunc *f, bool ints) {
  for (uint32_t i = 0; i < f->num_params; i++) {
    if ((f->params[i].kind == ZN_KP_INT) != ints) continue;
    if (ints)
      zn_text_printf(&s->body, "const zi %s, ", param_name(names, i));
    else
      zn_text_printf(&s->body, "unsigned char *const %s%s, ", cs_restrict(f, i), param_name(names, i));
  }
}

void cs_print_simt_kernel(cs_state *s, uint32_t fn) {
  const zn_kfunc *f = s->mod->funcs[fn];
  unsigned team = f->team ? f->team : 1;
  printer names = {.s = s, .f = f, .arena = &s->arena};
  put_note(s, f);
  const char *blocks = f->blocks ? zn_arena_printf(&s->arena, ", %u", f->blocks) : "";
  zn_text_printf(&s->body, "extern \"C\" __global__ void __launch_bounds__(%u%s)\n%s(", team > 128 ? team : 128, blocks,
                 s->kernel_names[fn]);
  put_simt_param(s, &names, f, false);
  put_simt_param(s, &names, f, true);
  zn_text_puts(&s->body, "const unsigned char *const __restrict__ zn_weights, const zi zn_grid) {\n");
  print_body(s, f, simt_params);
  zn_text_puts(&s->body, "}\n");
}

void cs_print_entry(cs_state *s, uint32_t fn, const char *symbol) {
  const zn_kfunc *f = s->mod->funcs[fn];
  put_note(s, f);
  zn_text_printf(&s->body,
                 "ZN_FN int32_t %s(zn_tensor *in, zn_tensor *out, void *ws, size_t ws_bytes, const "
                 "zn_host *host) {\n",
                 symbol);
  print_body(s, f, entry_params);
  if (f->insts[f->num_insts - 1].op != ZN_K_Ret) zn_text_puts(&s->body, "  return 0;\n");
  zn_text_puts(&s->body, "}\n");
}
