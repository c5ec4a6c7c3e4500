/* One compilation asked for on the command line, from options to the file in place. */
#ifndef ZN_JOB_H
#define ZN_JOB_H
#include "zenithc/driver/tools.h"

typedef struct zn_check_output { /* one output of the self-check or of verify */
  const char *name;
  zn_dtype dtype;
  double eta, eta_p999, sqnr_db, cosine, top1;
  bool pass;
} zn_check_output;

typedef struct zn_job {
  zn_ctx *c;
  const zn_opts *o;
  zn_compile_opts co;
  const zn_target *target;
  const char *out, *kind;          /* path and ".so" */
  const char *temp_dir, *temp_out; /* beside out; the same base name */
  zn_compiled k;
  char model_sha[65];
  int64_t artifact_bytes; /* with companions */
  uint64_t ram_bytes;
  double seconds_build, seconds_check;
  /* filled by the self-check */
  const char *verdict; /* "pass", "fail", "unchecked"; NULL: not reached */
  const char *summary; /* for the last line */
  const char *checked_on; /* "artifact", "kernel IR interpreter" */
  double tolerance, floor; /* floor < 0: not needed */
  const char *tolerance_source;
  uint32_t samples;
  zn_check_output *outputs;
  uint32_t num_outputs;
  const char *drift; /* first layer that drifts, or NULL */
} zn_job;

/* Compares the artifact at temp_out (or the kernel module, where it cannot run here) with the evaluator. */
zn_status zn_job_selfcheck(zn_job *j);
/* Writes --report when asked; st is how the job ended. */
zn_status zn_job_report(const zn_job *j, zn_status st);


/* sha256.c (FIPS 180-4): lower-case hexadecimal. */
void zn_sha256(const void *data, size_t n, char out_hex[65]);
zn_status zn_sha256_file(zn_ctx *c, const char *path, char out_hex[65]);
#endif
