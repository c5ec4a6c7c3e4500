/* Problems of a model are collected, counted by their text, and reported together at the end, with remedies. */
#include <stdarg.h>

#include "frontends/onnx/import.h"

enum { MAX_REPORTED = 40, MAX_HARD = 20 };

void zn_imp_hard(zn_imp *I, zn_status st) {
  if (I->status == ZN_OK) I->status = st;
  if (++I->hard >= MAX_HARD) I->stop = true;
}

void zn_imp_problem(zn_imp *I, const char *where, bool unsupported, const char *help, const char *fmt, ...) {
  char text[512];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  uint32_t k;
  if (zn_nmap_get(&I->problem_keys, text, &k)) {
    I->problems[k].count++;
    return;
  }
  if (I->num_problems >= 10000) {
    I->stop = true;
    return;
  }
  zn_problem p = {zn_arena_strdup(I->pa, where ? where : ""), zn_arena_strdup(I->pa, text),
                  help ? zn_arena_strdup(I->pa, help) : NULL, 1, unsupported};
  (void)zn_nmap_put(&I->problem_keys, p.text, I->num_problems);
  ZN_PUSH(I->pa, I->problems, I->num_problems, I->cap_problems, p);
}

void zn_imp_report(zn_imp *I) {
  for (uint32_t i = 0; i < I->num_problems && i < MAX_REPORTED; i++) {
    const zn_problem *p = &I->problems[i];
    zn_fail(I->c, p->unsupported ? ZN_ERR_UNSUPPORTED : ZN_ERR_MODEL, *p->where ? p->where : NULL, "%s", p->text);
    if (p->count > 1) zn_note(I->c, "%u times in this model", p->count);
    if (p->help) zn_help(I->c, "%s", p->help);
  }
  if (I->num_problems > MAX_REPORTED) zn_note(I->c, "and %u more kinds of errors", I->num_problems - MAX_REPORTED);
  for (uint32_t i = 0; i < I->num_problems && I->status != ZN_ERR_MODEL; i++) {
    zn_status st = I->problems[i].unsupported ? ZN_ERR_UNSUPPORTED : ZN_ERR_MODEL;
    if (I->status == ZN_OK || st == ZN_ERR_MODEL) I->status = st;
  }
}

const char *zn_unode_where(const zn_unode *u) {
  return zn_arena_printf(u->s->I->pa, "node '%s' (%s)", u->name, u->op);
}

/* ---- unknown operators ---- */

typedef struct first_row {
  const char *domain, *op;
  int version;
} first_row;
static const first_row first_rows[] = {
#define FIRST(domain, op, version) {domain, op, version},
#include "frontends/onnx/op_first.def"
#undef FIRST
};
enum { NUM_FIRST = sizeof first_rows / sizeof *first_rows };

int zn_op_first_version(const char *domain, const char *name) {
  size_t lo = 0, hi = NUM_FIRST; /* sorted by domain, then operator */
  while (lo < hi) {
    size_t mid = (lo + hi) / 2;
    int d = strcmp(first_rows[mid].domain, domain);
    if (d == 0) d = strcmp(first_rows[mid].op, name);
    if (d == 0) return first_rows[mid].version;
    if (d < 0) lo = mid + 1;
    else hi = mid;
  }
  return 0;
}

/* Edit distance, for names of at most 63 characters. */
static unsigned distance(const char *a, const char *b) {
  unsigned row[64];
  size_t n = strlen(b);
  if (n > 63 || strlen(a) > 63) return 99;
  for (unsigned j = 0; j <= n; j++) row[j] = j;
  for (unsigned i = 1; a[i - 1]; i++) {
    unsigned diag = row[0];
    row[0] = i;
    for (unsigned j = 1; j <= n; j++) {
      unsigned best = diag + (a[i - 1] != b[j - 1]);
      if (row[j] + 1 < best) best = row[j] + 1;
      if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
      diag = row[j];
      row[j] = best;
    }
  }
  return row[n];
}

void zn_imp_unknown_op(const zn_unode *u) {
  zn_imp *I = u->s->I;
  const char *help = NULL, *domain = *u->domain ? u->domain : "ai.onnx";
  const first_row *near = NULL;
  unsigned best = 3;
  bool standard = zn_op_first_version(u->domain, u->op) > 0;
  for (int i = 0; i < NUM_FIRST && !standard; i++) {
    unsigned d = distance(u->op, first_rows[i].op);
    if (d < best || (d == best && near && !strcmp(first_rows[i].domain, u->domain))) {
      best = d;
      near = &first_rows[i];
    }
  }
  if (standard)
    help = "a standard operator that this compiler does not implement yet";
  else if (near && best == 0)
    help = zn_arena_printf(I->pa, "'%s' exists in domain '%s' since opset %d", near->op,
                           *near->domain ? near->domain : "ai.onnx", near->version);
  else if (near)
    help = zn_arena_printf(I->pa, "did you mean '%s'?", near->op);
  else if (!strcmp(u->domain, "com.microsoft"))
    help = "an ONNX Runtime extension, written by its optimizer: export the model without that optimization";
  else
    help = "not an ONNX operator and not a function in the model: export it as a function or as standard operators";
  zn_imp_problem(I, zn_unode_where(u), true, help, "unknown operator '%s' of domain '%s'", u->op, domain);
}
