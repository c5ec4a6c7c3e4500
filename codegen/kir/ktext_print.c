/* Kernel IR to text (docs/zk.md). Values are numbered in the order they are printed, so that the
 * text of a parsed module is the same text again. */
#include "codegen/kir/ktext.h"

static void put_name(zn_text *t, const char *s) {
  size_t n = strlen(s);
  if (zn_text_is_ident(s, n))
    zn_text_put(t, s, n);
  else
    zn_text_quote(t, s, n);
}

/* Quoted where it is no identifier: a name may have line ends in it. */
static void put_comment(zn_text *t, const char *name) {
  zn_text_puts(t, " # ");
  put_name(t, name);
}

static void put_type(zn_text *t, zn_dtype dt, unsigned lanes) {
  zn_text_puts(t, zn_dtypes[dt].name);
  if (lanes > 1) zn_text_printf(t, "x%u", lanes);
}

/* ---- constants and the head ---- */

uint64_t zn_kconst_place(const zn_kconst *k, uint64_t *pos) {
  uint64_t bytes = k->count * zn_dtype_bytes(k->dtype);
  if (k->dtype == ZN_STR || bytes <= 256) return UINT64_MAX;
  uint64_t at = (*pos + 63) & ~UINT64_C(63);
  *pos = at + bytes;
  return at;
}

static bool has_nan(const zn_kconst *k) {
  for (uint64_t i = 0; zn_is_float(k->dtype) && i < k->count; i++) {
    double x = zn_load_f64(k->dtype, k->data, i);
    if (x != x) return true;
  }
  return !zn_is_float(k->dtype) && !zn_is_int(k->dtype) && k->dtype != ZN_BOOL &&
         k->dtype != ZN_STR;
}

static void put_elements(zn_text *t, const zn_kconst *k) {
  zn_text_puts(t, " [");
  for (uint64_t i = 0; i < k->count; i++) {
    if (i) zn_text_puts(t, i % 16 ? ", " : ",\n  ");
    if (k->dtype == ZN_STR) {
      const zn_str *s = (const zn_str *)k->data + i;
      zn_text_quote(t, s->ptr, s->len);
    } else if (zn_is_float(k->dtype)) {
      zn_text_double(t, zn_load_f64(k->dtype, k->data, i));
    } else {
      zn_text_printf(t, "%lld", (long long)zn_load_i64(k->dtype, k->data, i));
    }
  }
  zn_text_puts(t, "]\n");
}

static void put_const(zn_text *t, const zn_kconst *c, const char *bin_name, uint64_t *pos) {
  zn_kconst here = *c, *k = &here;
  zn_text_puts(t, "const ");
  put_name(t, k->name);
  zn_text_printf(t, " %s %llu", zn_dtypes[k->dtype].name, (unsigned long long)k->count);
  uint64_t at = bin_name ? zn_kconst_place(k, pos) : UINT64_MAX;
  if (at != UINT64_MAX) {
    zn_text_puts(t, " bin ");
    zn_text_quote(t, bin_name, strlen(bin_name));
    zn_text_printf(t, " %llu\n", (unsigned long long)at);
    return;
  }
  here.data = zn_kconst_data(c, t->arena);
  if (has_nan(k)) {
    zn_text_puts(t, " hex \"");
    const unsigned char *p = k->data;
    for (uint64_t i = 0; i < k->count * zn_dtype_bytes(k->dtype); i++)
      zn_text_printf(t, "%02x", p[i]);
    zn_text_puts(t, "\"\n");
  } else {
    put_elements(t, k);
  }
}

static void put_io(zn_text *t, const char *word, const zn_kio *io) {
  zn_text_printf(t, "%s ", word);
  put_name(t, io->name);
  zn_text_printf(t, " %s ", zn_dtypes[io->dtype].name);
  if (io->kind) zn_text_printf(t, "kind %u ", io->kind);
  zn_text_puts(t, "[");
  for (uint32_t i = 0; i < io->rank; i++) {
    zn_text_printf(t, "%s%lld", i ? ", " : "", (long long)io->dims[i]);
    if (io->dim_text[i] && *io->dim_text[i]) {
      zn_text_puts(t, " ");
      zn_text_quote(t, io->dim_text[i], strlen(io->dim_text[i]));
    }
  }
  zn_text_puts(t, "]\n");
}

/* ---- functions ---- */

typedef struct printer {
  const zn_kmod *m;
  const zn_kfunc *f;
  zn_text *t;
  uint32_t *number; /* per instruction: its %number */
  uint32_t next;
} printer;

static void put_ref(printer *p, zn_kref r) {
  zn_text_printf(p->t, "%%%u", r < p->f->num_insts ? p->number[r] : 0);
}

static const char *const for_kinds[] = {"serial", "grid", "vector", "unroll", "thread"};

static void put_for(printer *p, const zn_kinst *in) {
  zn_text_puts(p->t, "for ");
  put_ref(p, in->a);
  zn_text_puts(p->t, ", ");
  put_ref(p, in->b);
  zn_text_printf(p->t, ", %lld %s", (long long)in->imm.i, for_kinds[(in->c & 255) <= ZN_FOR_THREAD ? in->c & 255 : 0]);
  if (in->c >> 8) zn_text_printf(p->t, " %u", in->c >> 8);
  zn_text_puts(p->t, " {");
}

static void put_access(printer *p, const zn_kinst *in) {
  zn_text_puts(p->t, " ");
  put_ref(p, in->a);
  zn_text_puts(p->t, "[");
  put_ref(p, in->b);
  zn_text_puts(p->t, "]");
  if (in->op == ZN_K_Store || in->op == ZN_K_Poke) {
    zn_text_puts(p->t, ", ");
    put_ref(p, in->c);
  }
  if (in->op == ZN_K_Fetch && in->imm.i) zn_text_puts(p->t, " last");
  else if (in->imm.i) zn_text_printf(p->t, " align %lld", (long long)in->imm.i);
}

static void put_call(printer *p, const zn_kinst *in) {
  zn_text_printf(p->t, "call %lld(", (long long)in->imm.i);
  for (uint32_t i = 0; i < in->b; i++) {
    if (i) zn_text_puts(p->t, ", ");
    put_ref(p, p->f->extra[in->a + i]);
  }
  zn_text_puts(p->t, ") grid ");
  put_ref(p, in->c);
  if (p->m && in->imm.i >= 0 && in->imm.i < p->m->num_funcs)
    put_comment(p->t, p->m->funcs[in->imm.i]->name);
}

static void put_operands(printer *p, const zn_kinst *in) {
  const char *sig = zn_kops[in->op].sig;
  const zn_kref r[3] = {in->a, in->b, in->c};
  const char *sep = " ";
  for (int k = 0; k < 3; k++) {
    if (sig[k] == '-') continue;
    zn_text_puts(p->t, sep);
    put_ref(p, r[k]);
    sep = ", ";
  }
  if (in->op == ZN_K_Const && zn_is_float((zn_dtype)in->dtype)) {
    zn_text_puts(p->t, sep);
    zn_text_double(p->t, in->imm.f);
  } else if (in->op == ZN_K_Shuffle) {
    zn_text_puts(p->t, " [");
    for (unsigned j = 0; j < in->lanes; j++)
      zn_text_printf(p->t, "%s%u", j ? ", " : "", p->f->extra[in->imm.i + j]);
    zn_text_puts(p->t, "]");
  } else if (sig[4] != 'n') {
    zn_text_printf(p->t, "%s%lld", sep, (long long)in->imm.i);
  }
  if (in->op == ZN_K_Param && (uint64_t)in->imm.i < p->f->num_params)
    put_comment(p->t, p->f->params[in->imm.i].name);
  if (in->op == ZN_K_ConstAddr && p->m && (uint64_t)in->imm.i < p->m->num_consts)
    put_comment(p->t, p->m->consts[in->imm.i].name);
}

static void put_inst(printer *p, const zn_kinst *in) {
  switch (in->op) {
    case ZN_K_For: put_for(p, in); return;
    case ZN_K_If:
      zn_text_puts(p->t, "if ");
      put_ref(p, in->a);
      zn_text_puts(p->t, " {");
      return;
    case ZN_K_Else: zn_text_puts(p->t, "} else {"); return;
    case ZN_K_Loop: zn_text_puts(p->t, "loop {"); return;
    case ZN_K_End: zn_text_puts(p->t, "}"); return;
    case ZN_K_Call: put_call(p, in); return;
    default: break;
  }
  zn_text_puts(p->t, zn_kops[in->op].text);
  if (in->dtype) {
    zn_text_puts(p->t, ".");
    put_type(p->t, (zn_dtype)in->dtype, in->lanes);
  }
  if (in->op == ZN_K_Load || in->op == ZN_K_Store || in->op == ZN_K_Fetch || in->op == ZN_K_Poke)
    put_access(p, in);
  else
    put_operands(p, in);
}

static void put_head(printer *p) {
  static const char *const kinds[] = {"in", "out", "inout", "int"};
  zn_text_printf(p->t, "%s ", p->f->is_entry ? "entry" : "kernel");
  put_name(p->t, p->f->name);
  zn_text_puts(p->t, "(");
  for (uint32_t i = 0; i < p->f->num_params; i++) {
    const zn_kparam *k = &p->f->params[i];
    if (i) zn_text_puts(p->t, ", ");
    put_name(p->t, k->name);
    zn_text_printf(p->t, " %s %s", kinds[k->kind & 3], zn_dtypes[k->dtype].name);
    if (k->align) zn_text_printf(p->t, " align %u", k->align);
  }
  zn_text_puts(p->t, p->f->exported ? ") exported" : ")");
  if (p->f->team) zn_text_printf(p->t, " team %u", p->f->team);
  if (p->f->blocks) zn_text_printf(p->t, " blocks %u", p->f->blocks);
  if (p->f->serial) zn_text_puts(p->t, " serial");
  if (p->f->on_host) zn_text_puts(p->t, " host");
  if (p->f->note) {
    zn_text_puts(p->t, " note ");
    zn_text_quote(p->t, p->f->note, strlen(p->f->note));
  }
  zn_text_puts(p->t, " {\n");
}

void zn_kfunc_print(const zn_kmod *m, const zn_kfunc *f, zn_text *t) {
  zn_arena tmp;
  zn_arena_init(&tmp, "print");
  printer p = {.m = m, .f = f, .t = t, .number = ZN_ARRAY(&tmp, uint32_t, f->num_insts), .next = 1};
  put_head(&p);
  int indent = 1;
  for (uint32_t i = 0; i < f->num_insts; i++) {
    const zn_kinst *in = &f->insts[i];
    if (in->op == ZN_K_Nop) continue;
    if (in->op == ZN_K_End || in->op == ZN_K_Else) indent--;
    zn_text_printf(t, "%*s", indent > 0 ? 2 * indent : 0, "");
    if (zn_kop_has_value((zn_kop)in->op)) {
      p.number[i] = p.next++;
      zn_text_printf(t, "%%%u = ", p.number[i]);
    }
    put_inst(&p, in);
    zn_text_puts(t, "\n");
    if (in->op == ZN_K_For || in->op == ZN_K_If || in->op == ZN_K_Loop || in->op == ZN_K_Else)
      indent++;
  }
  zn_text_puts(t, "}\n");
  zn_arena_reset(&tmp);
}

void zn_kmod_print_split(const zn_kmod *m, zn_text *t, const char *bin_name) {
  uint64_t pos = 0;
  zn_text_puts(t, "module ");
  put_name(t, m->name);
  zn_text_puts(t, "\n");
  if (m->provenance) {
    zn_text_puts(t, "provenance ");
    zn_text_quote(t, m->provenance, strlen(m->provenance));
    zn_text_puts(t, "\n");
  }
  zn_text_printf(t, "workspace %llu\nrun %u\nplan %u\n", (unsigned long long)m->workspace_bytes,
                 m->run_fn, m->plan_fn);
  for (uint32_t i = 0; i < m->num_inputs; i++) put_io(t, "input", &m->inputs[i]);
  for (uint32_t i = 0; i < m->num_outputs; i++) put_io(t, "output", &m->outputs[i]);
  for (uint32_t i = 0; i < m->num_consts; i++) put_const(t, &m->consts[i], bin_name, &pos);
  for (uint32_t i = 0; i < m->num_funcs; i++) {
    zn_text_puts(t, "\n");
    zn_kfunc_print(m, m->funcs[i], t);
  }
}

void zn_kmod_print(const zn_kmod *m, zn_text *t) { zn_kmod_print_split(m, t, NULL); }
