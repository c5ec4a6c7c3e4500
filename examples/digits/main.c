/* Reads handwritten digits (digits.txt) with a compiled model. Two builds of this file:
 *     cc main.c -ldl                                                  digits MODEL.so digits.txt [ANSWERS]
 *     cc -DMODEL=digits_model -DMODEL_HEADER='"digits.h"' main.c digits.c      digits digits.txt [ANSWERS]
 * Prints a few of the digits with what the model takes them for, then accuracy, latency and memory; with ANSWERS, writes
 * one predicted label a line. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#ifdef MODEL_HEADER
#include MODEL_HEADER
#else
#include <dlfcn.h>

#include "zenith.h"
#endif

enum { SIDE = 8, PIXELS = SIDE * SIDE, CLASSES = 10, MAX_DIGITS = 1000, SHOWN = 6 };

typedef struct digit {
  int label, predicted;
  float pixels[PIXELS]; /* 0 to 1 */
  float logits[CLASSES];
} digit;

static digit digits[MAX_DIGITS];

/* One line: the label, a blank, 64 characters 0-9 a-g. Returns the number of digits. */
static int read_digits(const char *path) {
  char line[128];
  int n = 0;
  FILE *f = fopen(path, "r");
  if (!f) return 0;
  while (n < MAX_DIGITS && fgets(line, sizeof line, f)) {
    if (strlen(line) < PIXELS + 2) break;
    digits[n].label = line[0] - '0';
    for (int i = 0; i < PIXELS; i++) {
      int c = line[2 + i];
      digits[n].pixels[i] = (float)(c <= '9' ? c - '0' : c - 'a' + 10) / 16;
    }
    n++;
  }
  fclose(f);
  return n;
}

static void draw(const digit *first, int n) {
  static const char *const shade[] = {"  ", "░░", "▒▒", "▓▓", "██"};
  for (int y = 0; y < SIDE; y++) {
    for (int k = 0; k < n; k++) {
      for (int x = 0; x < SIDE; x++) fputs(shade[(int)(first[k].pixels[y * SIDE + x] * 4 + 0.5f)], stdout);
      fputs("  ", stdout);
    }
    putchar('\n');
  }
  for (int k = 0; k < n; k++) printf("     read as %d    ", first[k].predicted);
  putchar('\n');
}

static int best_class(const float *logits) {
  int best = 0;
  for (int i = 1; i < CLASSES; i++)
    if (logits[i] > logits[best]) best = i;
  return best;
}

static double microseconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* Classifies all n digits; *out_us is the median time of one. Returns what the model returned. */
static int32_t classify(const zn_model *m, int n, double *out_us) {
  static _Alignas(64) unsigned char workspace[1 << 20];
  static double us[MAX_DIGITS];
  for (int i = 0; i < n; i++) {
    digit *d = &digits[i];
    zn_tensor in = {.dtype = 1, .rank = 4, .shape = {1, 1, SIDE, SIDE}, .bytes = sizeof d->pixels};
    zn_tensor out = {.dtype = 1, .rank = 2, .shape = {1, CLASSES}, .bytes = sizeof d->logits};
    in.u.data = d->pixels;
    out.u.data = d->logits;
    double start = microseconds();
    int32_t rc = m->run(&in, &out, workspace, sizeof workspace, NULL);
    us[i] = microseconds() - start;
    if (rc != ZN_RUN_OK) return rc;
    d->predicted = best_class(d->logits);
  }
  qsort(us, (size_t)n, sizeof us[0], by_value);
  *out_us = us[n / 2];
  return ZN_RUN_OK;
}

static const zn_model *open_model(int *argc, char ***argv) {
#ifdef MODEL_HEADER
  (void)argc, (void)argv;
  return &MODEL;
#else
  if (*argc < 2) return NULL;
  void *so = dlopen((*argv)[1], RTLD_NOW);
  if (!so) fprintf(stderr, "%s\n", dlerror());
  --*argc, ++*argv;
  return so ? dlsym(so, "zn_model_main") : NULL;
#endif
}

int main(int argc, char **argv) {
  const zn_model *m = open_model(&argc, &argv);
  int n = argc > 1 ? read_digits(argv[1]) : 0;
  if (!m || !n) {
    fprintf(stderr, "usage: digits [MODEL.so] digits.txt [ANSWERS]\n");
    return 2;
  }
  double us = 0;
  int32_t rc = classify(m, n, &us);
  if (rc != ZN_RUN_OK) {
    fprintf(stderr, "the model returned %" PRId32 "\n", rc);
    return 1;
  }
  int right = 0;
  FILE *answers = argc > 2 ? fopen(argv[2], "w") : NULL;
  for (int i = 0; i < n; i++) {
    right += digits[i].predicted == digits[i].label;
    if (answers) fprintf(answers, "%d\n", digits[i].predicted);
  }
  if (answers) fclose(answers);
  draw(digits, n < SHOWN ? n : SHOWN);
  printf("accuracy   %d of %d held-out digits (%.1f %%)\n", right, n, 100.0 * right / n);
  printf("latency    %.1f us for one digit, one thread (median)\n", us);
  printf("memory     %" PRIu64 " bytes of workspace, %" PRIu64 " of weights, no heap\n", m->workspace_bytes,
         m->weights_bytes);
  return right * 100 >= n * 95 ? 0 : 1;
}
