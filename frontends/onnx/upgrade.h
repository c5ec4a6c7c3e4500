/* Upgrade rules: UPGRADE(domain, operator, below, rule). A node of an opset version below the row's is rewritten by
 * zn_up_<rule>; rows of one operator apply in order. "below 1000": in every version. */
#ifndef ZN_ONNX_UPGRADE_H
#define ZN_ONNX_UPGRADE_H
#include "frontends/onnx/import.h"

#define UPGRADE(domain, op, below, rule) void zn_up_##rule(zn_unode *u);
#include "frontends/onnx/upgrade.def"
#undef UPGRADE

/* An attribute list becomes the i64 input i; nothing happens when the attribute is absent or (optional) empty. */
void zn_up_ints_to_input(zn_unode *u, const char *attr, uint32_t i);
#endif
