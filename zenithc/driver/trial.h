/* One measurement of zenithc tune: the model compiled with other answers to the questions of schedules, timed kernel by
 * kernel beside the usual artifact, in a process of its own. */
#ifndef ZN_TRIAL_H
#define ZN_TRIAL_H
#include "targets/native.h"
#include "zenithc/driver/tools.h"
#include "zenithc/tune/tunedb.h"

enum { ZN_TUNE_MAX_KNOBS = 8 };

typedef struct zn_subject { /* kernels of one signature */
  const char *signature;
  bool whole;               /* the choice changes other kernels too: the whole run is what counts */
  struct zn_subject_knob {
    const char *name;
    int64_t usual, choices[ZN_KNOB_MAX_CHOICES];
    uint32_t n;
  } knob[ZN_TUNE_MAX_KNOBS];
  uint32_t num_knobs;
  /* of the trial */
  bool trying;
  int64_t value[ZN_TUNE_MAX_KNOBS];
  double usual_ns, ratio, noise;
  /* of the search (cmd_tune.c) */
  int64_t best[ZN_TUNE_MAX_KNOBS];
  double best_ratio;
  const char *sure; /* knobs that won twice, or lost the second time */
  uint32_t at_knob, at_choice;
  bool done;
} zn_subject;

typedef struct zn_trial {
  zn_ctx *c;
  const zn_opts *o;
  zn_compile_opts co;
  zn_subject *subjects;
  uint32_t num;
  const char *dir;         /* for the trial's artifact */
  zn_session usual;        /* the artifact of the model's choices, loaded */
  zn_htensor *in;
  unsigned threads;
  /* found: of the whole run */
  double usual_ns, ratio, noise;
  uint32_t rounds;
} zn_trial;

/* Fills usual_ns, ratio and noise of every subject and of the whole; false: the child failed (it was killed, or ran longer
 * than `limit` seconds, or its artifact gives other results), and nothing is filled. */
bool zn_trial_run(zn_trial *t, unsigned limit);
#endif
