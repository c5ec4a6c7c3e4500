/* What the upgrade rules of composite operators share: nodes in one call. Values are those of u's graph; helper nodes are
 * named after u. */
#ifndef ZN_ONNX_UPGRADE_TOOLS_H
#define ZN_ONNX_UPGRADE_TOOLS_H
#include "frontends/onnx/upgrade.h"

/* Reports "<operator> of <domain> with <what>" as unsupported; u's outputs become unknown values, u is done. */
void zn_u_lacking(zn_unode *u, const char *what);
/* Are the first n inputs there? Otherwise reports it. */
bool zn_u_need(zn_unode *u, uint32_t n);
void zn_u_finish(zn_unode *u, zn_vid v); /* v is output 0, u is done */
bool zn_u_wants(const zn_unode *u, uint32_t o); /* output o has a name */

zn_nid zn_u_nodes(zn_unode *u, zn_op op, const zn_vid *in, uint32_t num_in, uint32_t num_out);
/* A node with those attributes of u that its operator has; the second form: its only output. */
zn_nid zn_u_nodes_with_attrs(zn_unode *u, zn_op op, const zn_vid *in, uint32_t n, uint32_t num_out);
zn_vid zn_u_with_attrs(zn_unode *u, zn_op op, const zn_vid *in, uint32_t n);
zn_vid zn_u_op3(zn_unode *u, zn_op op, zn_vid a, zn_vid b, zn_vid c);
zn_vid zn_u_num(zn_unode *u, zn_dtype t, double v); /* rank 0 */
zn_vid zn_u_cast(zn_unode *u, zn_vid v, zn_dtype t);
zn_vid zn_u_concat(zn_unode *u, const zn_vid *in, uint32_t n, int64_t axis);
zn_vid zn_u_unsqueeze(zn_unode *u, zn_vid v, int64_t axis);
zn_vid zn_u_reshape(zn_unode *u, zn_vid v, const int64_t *dims,
                    uint32_t n); /* 0 copies, -1 infers */
zn_vid zn_u_reshape_as(zn_unode *u, zn_vid v, zn_vid like); /* in the shape of `like` */
zn_vid zn_u_transpose(zn_unode *u, zn_vid v, const int64_t *perm, uint32_t n);
zn_vid zn_u_slice(zn_unode *u, zn_vid v, int64_t axis, int64_t from, int64_t to);
/* Parts of v along an axis; sizes NULL: equal ones. */
void zn_u_split(zn_unode *u, zn_vid v, int64_t axis, const int64_t *sizes, uint32_t n, zn_vid *out);
zn_vid zn_u_gather(zn_unode *u, zn_vid v, int64_t i); /* v[i], the axis gone */
/* Dimension `axis` of v: an i64 scalar, or a vector of one element. */
zn_vid zn_u_dim(zn_unode *u, zn_vid v, int64_t axis, bool vector);
zn_vid zn_u_range(zn_unode *u, zn_vid end); /* 0, 1, ... below an i64 scalar */
/* Last two axes exchanged; 0 when the rank is unknown. */
zn_vid zn_u_swapped(zn_unode *u, zn_vid v);
/* Channels from the second to the last axis and back; 0 when the rank is unknown. */
zn_vid zn_u_channels(zn_unode *u, zn_vid v, bool last);
/* (A - za)(B - zb) sa sb + bias in f32; zero points and bias may be 0. */
zn_vid zn_u_scaled_product(zn_unode *u, zn_vid a, zn_vid b, zn_vid sa, zn_vid sb, zn_vid za,
                           zn_vid zb, zn_vid bias);
/* Numbers of 2, 4 or 8 bits, packed in bytes along the last axis, the first ones low: [..., bytes] to [..., bytes * 8 / bits]. */
zn_vid zn_u_unpacked(zn_unode *u, zn_vid x, int64_t bits);
bool zn_u_const_dim(zn_unode *u, zn_vid v, int d, int64_t *out); /* d negative: from the back */

zn_vid zn_u_gelu(zn_unode *u, zn_vid v, bool fast); /* by erf; fast: by tanh */
zn_vid zn_u_swish(zn_unode *u, zn_vid v, double alpha); /* v * sigmoid(alpha * v) */
/* An activation of a fused operator by name. Its parameters are attributes of the standard one, for Clip inputs. */
bool zn_u_activation_known(const char *name);
const char *zn_u_activation_param(const char *name, uint32_t i); /* NULL behind the last */
/* n of its parameters, in that order; the others have their defaults. */
zn_vid zn_u_activation(zn_unode *u, const char *name, const double *params, uint32_t n, zn_vid v);
#endif
