/* Device artifacts have two parts: kernels of the device, and kernels of the processor beside it for what a device cannot do.
 * Strings and lists hold addresses of the host's memory, so their kernels are the host's; a group that reads or writes one, or
 * reads a value computed from one in passing, is lowered with the host's caps, like a group of a CPU target. Everything else
 * stays on the device. All addresses in such an artifact's entries are the host's; the runtime has a twin for each place that
 * the device touches, and Share says before each use which side comes next. */
#include <assert.h>

#include "codegen/lower/program.h"
#include "zenithc/base/text.h"

/* ---- which groups ---- */

bool zn_lw_side(zn_lw *lw, bool host) {
  bool was = lw->on_host;
  if (!lw->device_caps->host) return was;
  lw->on_host = host;
  lw->caps = host ? lw->device_caps->host : lw->device_caps;
  return was;
}

static bool reads_host(const zn_lw *lw, const bool *host, zn_vid v) {
  return v && (zn_side_of_type(zn_lw_type(lw, v)) || (lw->g->vals[v].inlined && host[v]));
}

const bool *zn_side_values(zn_lw *lw) {
  const zn_graph *g = lw->g;
  bool any = false;
  for (uint32_t v = 1; v < g->num_vals && lw->device_caps->host; v++) any |= zn_side_of_type(&g->vals[v].type);
  if (!any) return NULL;
  bool *host = ZN_ARRAY(lw->arena, bool, g->num_vals);
  for (uint32_t i = 0; i < g->num_order; i++) {
    const zn_node *n = &g->nodes[g->order[i]];
    bool from_host = false;
    for (uint32_t k = 0; k < n->num_in; k++) from_host |= reads_host(lw, host, n->in[k]);
    for (uint32_t k = 0; k < n->num_out; k++)
      if (n->out[k]) host[n->out[k]] = from_host;
  }
  return host;
}

bool zn_side_of_group(const zn_lw *lw, zn_nid root) {
  const zn_graph *g = lw->g;
  if (g->nodes[root].op == ZN_OP_ImageDecoder) return true; /* by a hook of the caller's */
  if (!lw->host_values) return false;
  for (uint32_t i = 0; i < g->num_order; i++) {
    const zn_node *n = &g->nodes[g->order[i]];
    if (g->order[i] != root && n->group != root) continue;
    for (uint32_t k = 0; k < n->num_in; k++)
      if (reads_host(lw, lw->host_values, n->in[k])) return true;
    for (uint32_t k = 0; k < n->num_out; k++)
      if (n->out[k] && zn_side_of_type(zn_lw_type(lw, n->out[k]))) return true;
  }
  return false;
}

/* ---- which places ---- */

static void note(zn_lw *lw, zn_sides *s, zn_loc loc, uint8_t side) {
  if (loc.kind == ZN_LOC_PART) loc = lw->parts[loc.index].whole;
  if (loc.kind == ZN_LOC_INPUT) s->in[loc.index] |= side;
  if (loc.kind == ZN_LOC_OUTPUT) s->out[loc.index] |= side;
  if (loc.kind == ZN_LOC_WS) s->buf[loc.index] |= side;
}

/* A device kernel that follows an address in memory would follow the host's. */
static bool follows_addresses(const zn_kfunc *f) {
  for (uint32_t i = 1; i < f->num_insts; i++) {
    const zn_kinst *in = &f->insts[i];
    if (in->op == ZN_K_Load && in->dtype == ZN_PTR) return true;
    if (in->op == ZN_K_Store && zn_kf_dtype(f, in->c) == ZN_PTR) return true;
  }
  return false;
}

static void check_call(zn_lw *lw, const zn_step *step) {
  const zn_kfunc *f = lw->mod->funcs[step->fn];
  bool bad = follows_addresses(f);
  for (uint32_t k = 0; k < step->num_args; k++) bad |= !step->args[k].is_int && step->args[k].loc.kind == ZN_LOC_CELL;
  if (bad) ZN_BUG(lw->ctx, "kernel %s of the device follows addresses of the host", f->name);
}

static bool is_mixed(const zn_lw *lw) {
  bool mixed = lw->num_tables > 0;
  for (uint32_t i = 0; i < lw->mod->num_funcs; i++) mixed |= lw->mod->funcs[i]->on_host;
  for (uint32_t k = 0; k < lw->num_bufs; k++) mixed |= lw->bufs[k].heap;
  for (uint32_t k = 0; k < lw->g->num_inputs; k++) mixed |= zn_side_of_type(zn_lw_type(lw, lw->g->inputs[k]));
  for (uint32_t k = 0; k < lw->g->num_outputs; k++) mixed |= zn_side_of_type(zn_lw_type(lw, lw->g->outputs[k]));
  return mixed;
}

uint8_t zn_side_of_step(const zn_lw *lw, const zn_step *s) {
  return s->kind == ZN_STEP_IMAGE || lw->mod->funcs[s->fn]->on_host ? ZN_SIDE_HOST : ZN_SIDE_DEVICE;
}

zn_sides zn_sides_find(zn_lw *lw) {
  zn_sides s = {.mixed = lw->caps->simt && is_mixed(lw)};
  if (!s.mixed) return s;
  s.buf = ZN_ARRAY(lw->arena, uint8_t, lw->num_bufs + 1);
  s.in = ZN_ARRAY(lw->arena, uint8_t, lw->g->num_inputs + 1);
  s.out = ZN_ARRAY(lw->arena, uint8_t, lw->g->num_outputs + 1);
  for (uint32_t k = 0; k < lw->num_bufs; k++)
    if (lw->bufs[k].heap) s.buf[k] = ZN_SIDE_HOST | ZN_SIDE_DEVICE; /* the entry moves what grows */
  for (uint32_t i = 0; i < lw->num_steps; i++) {
    const zn_step *step = &lw->steps[i];
    if (step->kind != ZN_STEP_CALL && step->kind != ZN_STEP_IMAGE) continue;
    uint8_t side = zn_side_of_step(lw, step);
    if (side == ZN_SIDE_DEVICE) check_call(lw, step);
    for (uint32_t k = 0; k < step->num_args; k++)
      if (!step->args[k].is_int) note(lw, &s, step->args[k].loc, side);
  }
  return s;
}

/* ---- for the user ---- */

typedef struct named { /* kernels of one operator */
  const char *op;
  size_t len;
  uint32_t count;
} named;

/* Notes of kernels begin with the operator's name. */
void zn_sides_report(zn_lw *lw) {
  named list[8] = {{0}};
  uint32_t num = 0, host = 0, all = 0;
  for (uint32_t i = 0; i < lw->mod->num_funcs; i++) {
    const zn_kfunc *f = lw->mod->funcs[i];
    if (f->is_entry) continue;
    all++;
    if (!f->on_host) continue;
    host++;
    const char *op = f->note ? f->note : "constants";
    size_t len = strcspn(op, " ");
    uint32_t k = 0;
    while (k < num && !(list[k].len == len && !memcmp(list[k].op, op, len))) k++;
    if (k == num && num < 8) list[num++] = (named){op, len, 0};
    if (k < num) list[k].count++;
  }
  if (!host) return;
  zn_text t;
  zn_text_init(&t, lw->arena);
  for (uint32_t k = 0; k < num; k++)
    zn_text_printf(&t, "%s%.*s %u", k ? ", " : "", (int)list[k].len, list[k].op, list[k].count);
  zn_note(lw->ctx, "%u of %u kernels run on the host: %s%s", host, all, t.s, num == 8 ? ", ..." : "");
}
