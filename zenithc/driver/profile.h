/* `bench --profile`: where the time of one run goes, kernel by kernel, beside what the machine could do. */
#ifndef ZN_PROFILE_H
#define ZN_PROFILE_H
#include "targets/native.h"
#include "zenithc/driver/tools.h"

/* Runs `call` `runs` times with a clock around every kernel, and prints a row a kernel, the slowest first. The rates
 * (roofline.h) come from the compiler's counts, which a session has that was opened from a model, not from an artifact. */
zn_status zn_profile_print(zn_ctx *c, const zn_session *s, const zn_native_call *call, unsigned threads, unsigned runs);
#endif
