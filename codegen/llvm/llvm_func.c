/* One linear walk over a function's instructions. Variables become allocas in the entry block (SROA promotes them),
 * regions become basic blocks, and memory accesses carry the alias scopes of the pointer parameter they go through. */
#include <assert.h>
#include <stddef.h>

#include "codegen/llvm/llvm_priv.h"
#include "runtime/zenith_device.h"

static LLVMBasicBlockRef new_block(zn_lfun *s) {
  return LLVMAppendBasicBlockInContext(s->m->lc, s->fv, "");
}

static zn_lval entry_alloca(zn_lfun *s, zn_ltype t, unsigned align) {
  zn_lval a = LLVMBuildAlloca(s->m->eb, t, "");
  if (align) LLVMSetAlignment(a, align);
  return a;
}

/* ---- alias scopes ---- */

static LLVMMetadataRef scope_node(zn_lfun *s, LLVMMetadataRef domain, uint32_t p) {
  char name[32];
  int n = snprintf(name, sizeof name, "%u", p);
  LLVMMetadataRef ops[2] = {LLVMMDStringInContext2(s->m->lc, name, (size_t)n), domain};
  return LLVMMDNodeInContext2(s->m->lc, ops, 2);
}

/* A buffer written by a kernel overlaps none that it only reads, nor another output; INOUT promises nothing. */
static void alias_scopes(zn_lfun *s) {
  const zn_kfunc *f = s->f;
  zn_lmod *m = s->m;
  LLVMMetadataRef dom = LLVMMDStringInContext2(m->lc, f->name, strlen(f->name));
  dom = LLVMMDNodeInContext2(m->lc, &dom, 1);
  LLVMMetadataRef *nodes = ZN_ARRAY(m->a, LLVMMetadataRef, f->num_params + 1);
  LLVMMetadataRef *others = ZN_ARRAY(m->a, LLVMMetadataRef, f->num_params + 1);
  for (uint32_t p = 0; p < f->num_params; p++)
    if (f->params[p].kind == ZN_KP_IN || f->params[p].kind == ZN_KP_OUT)
      nodes[p] = scope_node(s, dom, p);
  for (uint32_t p = 0; p < f->num_params; p++) {
    if (!nodes[p]) continue;
    size_t n = 0;
    for (uint32_t q = 0; q < f->num_params; q++) {
      bool written = f->params[p].kind == ZN_KP_OUT || f->params[q].kind == ZN_KP_OUT;
      if (q != p && nodes[q] && written) others[n++] = nodes[q];
    }
    if (n == 0) continue;
    s->md_scope[p] = LLVMMetadataAsValue(m->lc, LLVMMDNodeInContext2(m->lc, &nodes[p], 1));
    s->md_noalias[p] = LLVMMetadataAsValue(m->lc, LLVMMDNodeInContext2(m->lc, others, n));
  }
}

static void tag_access(zn_lfun *s, zn_lval inst, zn_kref ptr) {
  uint32_t origin = s->origin[ptr];
  if (!origin || !s->md_scope[origin - 1]) return;
  LLVMSetMetadata(inst, s->m->md_scope, s->md_scope[origin - 1]);
  LLVMSetMetadata(inst, s->m->md_noalias, s->md_noalias[origin - 1]);
}

/* ---- memory ---- */

static zn_lval element_ptr(zn_lfun *s, zn_dtype t, zn_kref ptr, zn_lval idx) {
  zn_ltype elem = t == ZN_BOOL ? s->m->i8 : zn_lm_scalar(s->m, t);
  return LLVMBuildGEP2(s->m->b, elem, s->v[ptr], &idx, 1, "");
}

static zn_lval load_at(zn_lfun *s, zn_dtype t, unsigned lanes, unsigned align, zn_kref ptr, zn_lval p) {
  zn_lmod *m = s->m;
  zn_ltype mem = t == ZN_BOOL ? zn_lm_vec(m->i8, lanes) : zn_lm_type(m, t, lanes);
  zn_lval r = LLVMBuildLoad2(m->b, mem, p, "");
  LLVMSetAlignment(r, align);
  tag_access(s, r, ptr);
  return t == ZN_BOOL ? LLVMBuildICmp(m->b, LLVMIntNE, r, LLVMConstNull(mem), "") : r;
}

static void store_at(zn_lfun *s, zn_dtype t, unsigned lanes, unsigned align, zn_kref ptr, zn_lval p,
                     zn_lval v) {
  zn_lmod *m = s->m;
  if (t == ZN_BOOL) v = LLVMBuildZExt(m->b, v, zn_lm_vec(m->i8, lanes), "");
  zn_lval st = LLVMBuildStore(m->b, v, p);
  LLVMSetAlignment(st, align);
  tag_access(s, st, ptr);
}

static zn_lval lane(zn_lfun *s, zn_lval v, unsigned i) {
  return LLVMBuildExtractElement(s->m->b, v, LLVMConstInt(s->m->i32, i, 0), "");
}

static unsigned access_align(zn_lfun *s, const zn_kinst *in) {
  unsigned elem = zn_lm_bytes(s->m, (zn_dtype)in->dtype);
  return in->imm.i ? (unsigned)in->imm.i : elem;
}

static zn_lval gather(zn_lfun *s, const zn_kinst *in) {
  zn_dtype t = (zn_dtype)in->dtype;
  unsigned align = zn_lm_bytes(s->m, t);
  zn_lval r = LLVMGetPoison(zn_lm_type(s->m, t, in->lanes));
  for (unsigned i = 0; i < in->lanes; i++) {
    zn_lval p = element_ptr(s, t, in->a, lane(s, s->v[in->b], i));
    zn_lval e = load_at(s, t, 1, align, in->a, p);
    r = LLVMBuildInsertElement(s->m->b, r, e, LLVMConstInt(s->m->i32, i, 0), "");
  }
  return r;
}

static zn_lval emit_load(zn_lfun *s, const zn_kinst *in) {
  zn_dtype t = (zn_dtype)in->dtype;
  if (s->f->insts[in->b].lanes > 1) return gather(s, in);
  zn_lval p = element_ptr(s, t, in->a, s->v[in->b]);
  return load_at(s, t, in->lanes, access_align(s, in), in->a, p);
}

static void emit_store(zn_lfun *s, const zn_kinst *in) {
  zn_dtype t = (zn_dtype)in->dtype;
  if (s->f->insts[in->b].lanes == 1) {
    zn_lval p = element_ptr(s, t, in->a, s->v[in->b]);
    store_at(s, t, in->lanes, access_align(s, in), in->a, p, zn_lf_opnd(s, in->c, in->lanes));
    return;
  }
  zn_lval v = zn_lf_opnd(s, in->c, in->lanes);
  for (unsigned i = 0; i < in->lanes; i++) {
    zn_lval p = element_ptr(s, t, in->a, lane(s, s->v[in->b], i));
    store_at(s, t, 1, zn_lm_bytes(s->m, t), in->a, p, lane(s, v, i));
  }
}

/* zn_host: user, parallel_for, profile, alloc_user, alloc, image_user, decode_image. */
static zn_lval host_field(zn_lfun *s, zn_kref host, unsigned k) {
  zn_lmod *m = s->m;
  zn_lval at = LLVMConstInt(m->i32, k, 0);
  zn_lval p = LLVMBuildGEP2(m->b, m->ptr, s->v[host], &at, 1, "");
  return LLVMBuildLoad2(m->b, m->ptr, p, "");
}

static zn_lval emit_host_alloc(zn_lfun *s, const zn_kinst *in) {
  zn_lmod *m = s->m;
  zn_lval user = host_field(s, in->a, 3), hook = host_field(s, in->a, 4);
  zn_ltype pt[2] = {m->ptr, m->idx};
  zn_lval args[2] = {user, s->v[in->b]};
  return LLVMBuildCall2(m->b, LLVMFunctionType(m->ptr, pt, 2, 0), hook, args, 2, "");
}

static zn_lval emit_host_image(zn_lfun *s, const zn_kinst *in) {
  zn_lmod *m = s->m;
  zn_lval user = host_field(s, in->a, 5), hook = host_field(s, in->a, 6);
  zn_ltype pt[4] = {m->ptr, m->ptr, m->i32, m->ptr};
  zn_lval args[4] = {user, s->v[in->b], LLVMConstInt(m->i32, (uint64_t)in->imm.i, 0), s->v[in->c]};
  return LLVMBuildCall2(m->b, LLVMFunctionType(m->i32, pt, 4, 0), hook, args, 4, "");
}

static zn_lval emit_memory(zn_lfun *s, uint32_t i) {
  const zn_kinst *in = &s->f->insts[i];
  zn_lmod *m = s->m;
  switch (in->op) {
    case ZN_K_Load: return emit_load(s, in);
    case ZN_K_Store: emit_store(s, in); return NULL;
    case ZN_K_PtrAdd:
      s->origin[i] = s->origin[in->a];
      return LLVMBuildGEP2(m->b, m->i8, s->v[in->a], &s->v[in->b], 1, "");
    case ZN_K_HostAlloc: return emit_host_alloc(s, in);
    case ZN_K_HostImage: return emit_host_image(s, in);
    default: {
      assert(in->op == ZN_K_Alloc);
      uint64_t bytes = (uint64_t)in->imm.i * zn_lm_bytes(m, (zn_dtype)in->dtype);
      return entry_alloca(s, LLVMArrayType2(m->i8, bytes), 64);
    }
  }
}

/* ---- regions ---- */

static zn_lregion *push_region(zn_lfun *s, uint8_t op) {
  zn_lregion r = {.op = op};
  ZN_PUSH(s->m->a, s->regions, s->num_regions, s->cap_regions, r);
  return &s->regions[s->num_regions - 1];
}

static zn_lval min_max(zn_lfun *s, LLVMIntPredicate p, zn_lval x, zn_lval y) {
  return LLVMBuildSelect(s->m->b, LLVMBuildICmp(s->m->b, p, x, y, ""), x, y, "");
}

/* The part [begin, end) of a grid loop lo..hi: from the first iteration >= begin to the smaller end. */
static void grid_bounds(zn_lfun *s, const zn_kinst *in, zn_lval *lo, zn_lval *hi) {
  LLVMBuilderRef b = s->m->b;
  zn_lval begin = LLVMGetParam(s->fv, 2), end = LLVMGetParam(s->fv, 3);
  int64_t zero;
  *hi = min_max(s, LLVMIntSLT, end, *hi);
  if (zn_kf_const_int(s->f, in->a, &zero) && zero == 0 && in->imm.i == 1) {
    *lo = begin;
    return;
  }
  zn_lval from = min_max(s, LLVMIntSGT, begin, *lo);
  if (in->imm.i != 1) { /* lo + ceil((from - lo) / step) * step */
    zn_lval step = LLVMConstInt(s->m->idx, (uint64_t)in->imm.i, 0);
    zn_lval up = LLVMConstInt(s->m->idx, (uint64_t)(in->imm.i - 1), 0);
    zn_lval d = LLVMBuildAdd(b, LLVMBuildSub(b, from, *lo, ""), up, "");
    from = LLVMBuildAdd(b, *lo, LLVMBuildMul(b, LLVMBuildUDiv(b, d, step, ""), step, ""), "");
  }
  *lo = from;
}

static zn_lval open_for(zn_lfun *s, const zn_kinst *in) {
  LLVMBuilderRef b = s->m->b;
  zn_lval lo = s->v[in->a], hi = s->v[in->b];
  if ((in->c & 255) == ZN_FOR_GRID) grid_bounds(s, in, &lo, &hi);
  LLVMBasicBlockRef pre = LLVMGetInsertBlock(b), body = new_block(s);
  zn_lregion *r = push_region(s, ZN_K_For);
  r->head = body;
  r->exit = new_block(s);
  r->step = in->imm.i;
  /* Rotated: a guard in front, the test at the bottom (in close_for). */
  LLVMBuildCondBr(b, LLVMBuildICmp(b, LLVMIntSLT, lo, hi, ""), body, r->exit);
  LLVMPositionBuilderAtEnd(b, body);
  r->phi = LLVMBuildPhi(b, s->m->idx, "");
  LLVMAddIncoming(r->phi, &lo, &pre, 1);
  r->hi = hi;
  return r->phi;
}

static void close_for(zn_lfun *s, const zn_lregion *r) {
  LLVMBuilderRef b = s->m->b;
  zn_lval step = LLVMConstInt(s->m->idx, (uint64_t)r->step, 0);
  zn_lval next = LLVMBuildNSWAdd(b, r->phi, step, "");
  LLVMBasicBlockRef latch = LLVMGetInsertBlock(b);
  LLVMBuildCondBr(b, LLVMBuildICmp(b, LLVMIntSLT, next, r->hi, ""), r->head, r->exit);
  LLVMAddIncoming(r->phi, &next, &latch, 1);
}

static void open_if(zn_lfun *s, const zn_kinst *in) {
  LLVMBuilderRef b = s->m->b;
  LLVMBasicBlockRef then = new_block(s);
  zn_lregion *r = push_region(s, ZN_K_If);
  r->next = new_block(s);
  r->exit = r->next;
  LLVMBuildCondBr(b, s->v[in->a], then, r->next);
  LLVMPositionBuilderAtEnd(b, then);
}

static void open_loop(zn_lfun *s) {
  zn_lregion *r = push_region(s, ZN_K_Loop);
  r->head = new_block(s);
  r->exit = new_block(s);
  LLVMBuildBr(s->m->b, r->head);
  LLVMPositionBuilderAtEnd(s->m->b, r->head);
}

static void emit_else(zn_lfun *s) {
  zn_lregion *r = &s->regions[s->num_regions - 1];
  r->exit = new_block(s);
  LLVMBuildBr(s->m->b, r->exit);
  LLVMPositionBuilderAtEnd(s->m->b, r->next);
}

static void emit_break(zn_lfun *s, zn_lval cond) {
  LLVMBasicBlockRef cont = new_block(s);
  uint32_t d = s->num_regions;
  while (d && s->regions[d - 1].op == ZN_K_If) d--;
  assert(d);
  LLVMBuildCondBr(s->m->b, cond, s->regions[d - 1].exit, cont);
  LLVMPositionBuilderAtEnd(s->m->b, cont);
}

static void emit_end(zn_lfun *s) {
  zn_lregion r = s->regions[--s->num_regions];
  if (r.op == ZN_K_For) {
    close_for(s, &r);
  } else {
    LLVMBuildBr(s->m->b, r.op == ZN_K_Loop ? r.head : r.exit);
  }
  LLVMPositionBuilderAtEnd(s->m->b, r.exit);
}

/* ---- launches ---- */

static void put_arg(zn_lfun *s, zn_lval arr, zn_ltype elem, unsigned k, zn_lval v) {
  zn_lval at = LLVMConstInt(s->m->i32, k, 0);
  zn_lval p = LLVMBuildGEP2(s->m->b, elem, arr, &at, 1, "");
  LLVMSetAlignment(LLVMBuildStore(s->m->b, v, p), s->m->caps->idx_bytes);
}

static uint32_t kernel_number(const zn_kmod *mod, uint32_t fn) {
  uint32_t k = 0;
  for (uint32_t i = 0; i < fn; i++) k += !mod->funcs[i]->is_entry;
  return k;
}

/* Places of the function pointers in zn_device_hooks, which take the hooks first. */
#define HOOK(name) (offsetof(zn_device_hooks, name) / sizeof(void *))
enum { HOOK_LAUNCH = HOOK(launch), HOOK_FETCH = HOOK(fetch), HOOK_POKE = HOOK(poke), HOOK_SHARE = HOOK(share) };
enum { HOOK_FLOW = HOOK(flow) };

static zn_lval device_hook(zn_lfun *s, unsigned field, zn_ltype result, zn_lval *args, unsigned n) {
  zn_lmod *m = s->m;
  zn_lval all[5] = {LLVMGetParam(s->fv, 4)}, at = LLVMConstInt(m->i32, field, 0);
  zn_ltype types[5] = {m->ptr};
  for (unsigned i = 0; i < n; i++) all[i + 1] = args[i], types[i + 1] = LLVMTypeOf(args[i]);
  zn_lval fn = LLVMBuildLoad2(m->b, m->ptr, LLVMBuildGEP2(m->b, m->ptr, all[0], &at, 1, ""), "");
  return LLVMBuildCall2(m->b, LLVMFunctionType(result, types, n + 1, 0), fn, all, n + 1, "");
}

/* Fetch and Poke go through a cell on the stack. */
static zn_lval device_access(zn_lfun *s, const zn_kinst *in) {
  zn_lmod *m = s->m;
  zn_dtype t = (zn_dtype)in->dtype;
  zn_ltype mem = t == ZN_BOOL ? m->i8 : zn_lm_type(m, t, 1);
  zn_lval cell = entry_alloca(s, mem, 8), p = element_ptr(s, t, in->a, s->v[in->b]);
  zn_lval bytes = LLVMConstInt(m->i32, zn_lm_bytes(m, t), 0);
  if (in->op == ZN_K_Poke) {
    LLVMBuildStore(m->b, s->v[in->c], cell);
    zn_lval args[3] = {p, cell, bytes};
    device_hook(s, HOOK_POKE, m->none, args, 3);
    return NULL;
  }
  zn_lval args[4] = {cell, p, bytes, LLVMConstInt(m->i32, (uint64_t)in->imm.i, 0)};
  device_hook(s, HOOK_FETCH, m->none, args, 4);
  zn_lval r = LLVMBuildLoad2(m->b, mem, cell, "");
  return t == ZN_BOOL ? LLVMBuildICmp(m->b, LLVMIntNE, r, LLVMConstNull(mem), "") : r;
}

static void emit_share(zn_lfun *s, const zn_kinst *in) {
  zn_lval args[3] = {s->v[in->a], s->v[in->b], LLVMConstInt(s->m->i32, (uint64_t)in->imm.i, 0)};
  device_hook(s, HOOK_SHARE, s->m->none, args, 3);
}

static zn_lval emit_flow(zn_lfun *s, const zn_kinst *in) {
  zn_lval args[4] = {s->v[in->a], s->v[in->b], s->v[in->c], LLVMConstInt(s->m->i32, (uint64_t)in->imm.i, 0)};
  zn_lval r = device_hook(s, HOOK_FLOW, s->m->i32, args, 4);
  return LLVMBuildICmp(s->m->b, LLVMIntNE, r, LLVMConstNull(s->m->i32), "");
}

static void emit_call(zn_lfun *s, const zn_kinst *in) {
  zn_lmod *m = s->m;
  uint32_t fn = (uint32_t)in->imm.i;
  const zn_kfunc *k = m->mod->funcs[fn];
  unsigned nb = 0, ni = 0;
  for (uint32_t i = 0; i < in->b; i++) {
    zn_lval v = s->v[s->f->extra[in->a + i]];
    if (k->params[i].kind == ZN_KP_INT) put_arg(s, s->arr_ints, m->idx, ni++, v);
    else put_arg(s, s->arr_bufs, m->ptr, nb++, v);
  }
  if (m->o->device_blob && !k->on_host) {
    zn_lval args[4] = {LLVMConstInt(m->i32, kernel_number(m->mod, fn), 0), s->arr_bufs, s->arr_ints, s->v[in->c]};
    device_hook(s, HOOK_LAUNCH, m->none, args, 4);
    return;
  }
  zn_lval launch = zn_lm_launch_fn(m);
  uint64_t alone = k->serial ? INT32_MAX : 1; /* grids up to this are not split */
  zn_lval args[7] = {m->funcs[fn], s->arr_bufs, s->arr_ints, s->v[in->c], LLVMGetParam(s->fv, 4),
                     LLVMConstInt(m->i32, m->first_kernel + kernel_number(m->mod, fn), 0),
                     LLVMConstInt(m->idx, alone, 0)};
  LLVMBuildCall2(m->b, LLVMGlobalGetValueType(launch), launch, args, 7, "");
}

/* Room for the arguments of the widest call. */
static void argument_arrays(zn_lfun *s) {
  unsigned nb = 1, ni = 1;
  for (uint32_t i = 1; i < s->f->num_insts; i++) {
    if (s->f->insts[i].op != ZN_K_Call) continue;
    const zn_kfunc *k = s->m->mod->funcs[s->f->insts[i].imm.i];
    unsigned ints = 0;
    for (uint32_t p = 0; p < k->num_params; p++) ints += k->params[p].kind == ZN_KP_INT;
    if (ints > ni) ni = ints;
    if (k->num_params - ints > nb) nb = k->num_params - ints;
  }
  s->arr_bufs = entry_alloca(s, LLVMArrayType2(s->m->ptr, nb), 0);
  s->arr_ints = entry_alloca(s, LLVMArrayType2(s->m->idx, ni), 0);
}

/* ---- statements and leaves ---- */

static zn_lval emit_var(zn_lfun *s, const zn_kinst *in) {
  zn_lval slot = entry_alloca(s, zn_lm_type(s->m, (zn_dtype)in->dtype, in->lanes), 0);
  LLVMBuildStore(s->m->b, zn_lf_opnd(s, in->a, in->lanes), slot);
  return slot;
}

/* For reading, into the second level and up. */
static void emit_prefetch(zn_lfun *s, const zn_kinst *in) {
  zn_lmod *m = s->m;
  zn_lval p = LLVMBuildGEP2(m->b, m->i8, s->v[in->a], &s->v[in->b], 1, "");
  zn_lval read = LLVMConstInt(m->i32, 0, 0), near = LLVMConstInt(m->i32, 2, 0);
  zn_lval args[4] = {p, read, near, LLVMConstInt(m->i32, 1, 0)};
  zn_lm_intrinsic(m, "llvm.prefetch", m->ptr, args, 4);
}

static zn_lval emit_statement(zn_lfun *s, const zn_kinst *in) {
  zn_lmod *m = s->m;
  switch (in->op) {
    case ZN_K_Var: return emit_var(s, in);
    case ZN_K_Get:
      return LLVMBuildLoad2(m->b, zn_lm_type(m, (zn_dtype)in->dtype, in->lanes), s->v[in->a], "");
    case ZN_K_Set: LLVMBuildStore(m->b, zn_lf_opnd(s, in->b, in->lanes), s->v[in->a]); break;
    case ZN_K_For: return open_for(s, in);
    case ZN_K_If: open_if(s, in); break;
    case ZN_K_Else: emit_else(s); break;
    case ZN_K_Loop: open_loop(s); break;
    case ZN_K_Break: emit_break(s, s->v[in->a]); break;
    case ZN_K_End: emit_end(s); break;
    case ZN_K_Ret:
      LLVMBuildRet(m->b, s->v[in->a]);
      LLVMPositionBuilderAtEnd(m->b, new_block(s)); /* what follows cannot be reached */
      break;
    case ZN_K_Call: emit_call(s, in); break;
    case ZN_K_Prefetch: emit_prefetch(s, in); break;
    case ZN_K_Share: emit_share(s, in); break;
    case ZN_K_TileDot: zn_lf_tile_dot(s, in); break;
    default: break;
  }
  return NULL;
}

static zn_lval emit_leaf(zn_lfun *s, uint32_t i) {
  const zn_kinst *in = &s->f->insts[i];
  zn_lmod *m = s->m;
  zn_dtype t = (zn_dtype)in->dtype;
  switch (in->op) {
    case ZN_K_Const:
      return zn_is_float(t) ? zn_lm_float(m, t, in->lanes, in->imm.f)
                            : zn_lm_int(m, t, in->lanes, in->imm.i);
    case ZN_K_Param:
      if (s->f->params[in->imm.i].kind != ZN_KP_INT) s->origin[i] = (uint32_t)in->imm.i + 1;
      return s->params[in->imm.i];
    case ZN_K_ConstAddr: {
      zn_lval off = LLVMConstInt(m->idx, m->const_off[in->imm.i], 0);
      return LLVMConstInBoundsGEP2(m->i8, m->weights, &off, 1);
    }
    default: {
      zn_lval fn = zn_lm_features_fn(m);
      return LLVMBuildCall2(m->b, LLVMGlobalGetValueType(fn), fn, NULL, 0, "");
    }
  }
}

static void emit_inst(zn_lfun *s, uint32_t i) {
  const zn_kinst *in = &s->f->insts[i];
  switch (zn_kops[in->op].cls) {
    case 'C': s->v[i] = emit_leaf(s, i); break;
    case 'A': case 'M': s->v[i] = zn_lf_arith(s, in); break;
    case 'P': s->v[i] = zn_lf_compare(s, in); break;
    case 'X': s->v[i] = zn_lf_convert(s, in); break;
    case 'V': s->v[i] = zn_lf_vector(s, in); break;
    case 'L':
      s->v[i] = in->op == ZN_K_Fetch || in->op == ZN_K_Poke ? device_access(s, in)
                : in->op == ZN_K_Flow                       ? emit_flow(s, in)
                                                            : emit_memory(s, i);
      break;
    default: s->v[i] = emit_statement(s, in);
  }
}

/* Kernels find their parameters in bufs[] and ints[]; entries have them as arguments. */
static void load_params(zn_lfun *s) {
  zn_lmod *m = s->m;
  unsigned nb = 0, ni = 0;
  for (uint32_t p = 0; p < s->f->num_params; p++) {
    if (s->f->is_entry) {
      s->params[p] = LLVMGetParam(s->fv, p);
      continue;
    }
    bool is_int = s->f->params[p].kind == ZN_KP_INT;
    zn_ltype t = is_int ? m->idx : m->ptr;
    zn_lval at = LLVMConstInt(m->i32, is_int ? ni++ : nb++, 0);
    zn_lval q = LLVMBuildGEP2(m->eb, t, LLVMGetParam(s->fv, is_int ? 1 : 0), &at, 1, "");
    s->params[p] = LLVMBuildLoad2(m->eb, t, q, "");
    LLVMSetAlignment(s->params[p], m->caps->idx_bytes);
  }
}

void zn_lf_emit(zn_lmod *m, uint32_t fn) {
  const zn_kfunc *f = m->mod->funcs[fn];
  zn_lfun s = {.m = m, .f = f, .fv = m->funcs[fn]};
  s.v = ZN_ARRAY(m->a, zn_lval, f->num_insts);
  s.origin = ZN_ARRAY(m->a, uint32_t, f->num_insts);
  s.params = ZN_ARRAY(m->a, zn_lval, f->num_params + 1);
  s.md_scope = ZN_ARRAY(m->a, zn_lval, f->num_params + 1);
  s.md_noalias = ZN_ARRAY(m->a, zn_lval, f->num_params + 1);
  LLVMBasicBlockRef entry = new_block(&s), body = new_block(&s);
  LLVMPositionBuilderAtEnd(m->eb, entry);
  LLVMPositionBuilderAtEnd(m->b, body);
  load_params(&s);
  if (f->is_entry) argument_arrays(&s);
  else alias_scopes(&s);
  zn_lf_tiles_begin(&s);
  for (uint32_t i = 1; i < f->num_insts; i++) emit_inst(&s, i);
  if (f->is_entry) LLVMBuildRet(m->b, LLVMConstInt(m->i32, 0, 0));
  else zn_lf_tiles_end(&s), LLVMBuildRetVoid(m->b);
  LLVMBuildBr(m->eb, body);
}
