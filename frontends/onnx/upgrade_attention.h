/* What the rules of attention with packed heads share (upgrade_attention.c, upgrade_gqa.c). */
#ifndef ZN_ONNX_UPGRADE_ATTENTION_H
#define ZN_ONNX_UPGRADE_ATTENTION_H
#include "frontends/onnx/upgrade_tools.h"

typedef struct zn_ua_core {
  zn_vid q, k, v; /* [batch, sequence, heads * size], or all [batch, heads, sequence, size] */
  zn_vid mask; /* additive, or 0 */
  zn_vid past_k, past_v; /* [batch, heads, sequence, size], or 0 */
  zn_vid
      filled; /* i64 [batch]: keys in use; with it q's rows are the last ones before that end. Or 0 */
  int64_t heads, kv_heads, left; /* left: keys before a query's own that it sees, -1 all */
  double scale, softcap; /* 0: default, none */
  bool causal;
  int mode; /* of the scores in output 3; -1 not wanted */
} zn_ua_core;

typedef struct zn_ua_rotary {
  zn_vid cos, sin, ids; /* ids: [batch, sequence], or 0: the tables are [batch, sequence, half] */
  int64_t heads, dim; /* 0: x has its heads apart; all of a head */
  bool interleaved;
} zn_ua_rotary;

double zn_ua_scale(zn_unode *u); /* of the scores, 0 where the default holds */
/* The standard Attention: output 0 the result, 1 and 2 present keys and values, 3 scores when wanted. */
zn_nid zn_ua_attend(zn_unode *u, const zn_ua_core *c);
/* [batch, sequence, heads * size] and [batch, heads, sequence, size]. */
zn_vid zn_ua_apart(zn_unode *u, zn_vid x, int64_t heads);
zn_vid zn_ua_together(zn_unode *u, zn_vid x);
bool zn_ua_heads_fit(zn_unode *u, int64_t heads); /* otherwise reports it */
/* Where keep: 0, else `filter`, in the type of `like`. */
zn_vid zn_ua_penalty(zn_unode *u, zn_vid keep, double filter, zn_vid like);
zn_vid zn_ua_rotate(zn_unode *u, zn_vid x, const zn_ua_rotary *r);
/* first[b] + 0, 1, ... for the rows of x: [batch, sequence]. */
zn_vid zn_ua_positions(zn_unode *u, zn_vid first, zn_vid x, int64_t axis);
#endif
