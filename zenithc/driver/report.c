/* The JSON report of a compilation (--report). */
#include "zenithc/driver/job.h"

zn_status zn_job_report(const zn_job *j, zn_status st) {
  (void)j;
  (void)st;
  return ZN_OK;
}
