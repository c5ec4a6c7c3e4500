#include "zenithc/driver/tools.h"
int zn_cmd_bench(zn_ctx *c, const zn_opts *o) { (void)c; (void)o; return 2; }
int zn_cmd_verify(zn_ctx *c, const zn_opts *o) { (void)c; (void)o; return 2; }
int zn_cmd_inspect(zn_ctx *c, const zn_opts *o) { (void)c; (void)o; return 2; }
int zn_cmd_targets(zn_ctx *c, const zn_opts *o) { (void)c; (void)o; return 2; }
int zn_cmd_ops(zn_ctx *c, const zn_opts *o) { (void)c; (void)o; return 2; }
