/* The comparison of an artifact with the evaluator. */
#include "zenithc/driver/job.h"

zn_status zn_job_selfcheck(zn_job *j) {
  j->verdict = "unchecked";
  return ZN_OK;
}
