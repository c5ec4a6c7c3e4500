/* One compilation asked for on the command line, from options to the file in place. */
#ifndef ZN_JOB_H
#define ZN_JOB_H
#include "zenithc/base/sha256.h"
#include "zenithc/driver/verify.h"

typedef struct zn_job {
  zn_ctx *c;
  const zn_opts *o;
  zn_compile_opts co;
  const zn_target *target;
  const char *out, *kind;          /* path and ".so" */
  const char *place;               /* out, behind links */
  const char *temp_dir, *temp_out; /* beside place; the same base name */
  zn_onnx_maps maps;               /* files that the model is read from */
  zn_compiled k;
  char model_sha[65];
  int64_t artifact_bytes; /* with companions */
  uint64_t ram_bytes;
  double seconds_build, seconds_check;
  zn_verify v;            /* filled by the self-check */
  const char *checked_on; /* "artifact", "same code as .so", "kernel IR interpreter: <why>"; NULL: not checked */
} zn_job;

/* The next value of co.winograd_most for an artifact that misses the tolerance; 0: nothing finer is left. */
int zn_job_finer(const zn_job *j);
/* Compares the artifact at temp_out (or the kernel module, where it cannot run here) with the evaluator. Where they differ
 * too much but zn_job_finer has an answer, nothing is reported, and v.verdict is not ZN_VERDICT_PASS. */
zn_status zn_job_selfcheck(zn_job *j);
/* Writes --report when asked; st is how the job ended. */
zn_status zn_job_report(const zn_job *j, zn_status st);
#endif
