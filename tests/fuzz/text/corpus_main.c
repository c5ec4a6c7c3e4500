/* Runs a harness on every file of the given folders, without libFuzzer: what once broke must not break again. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static int run_file(const char *path) {
  FILE *f = fopen(path, "rb");
  if (!f) return 0;
  static uint8_t buf[1 << 22];
  size_t n = fread(buf, 1, sizeof buf, f);
  fclose(f);
  uint8_t *exact = malloc(n ? n : 1); /* so that a checker sees reads behind the end */
  for (size_t i = 0; i < n; i++) exact[i] = buf[i];
  (void)LLVMFuzzerTestOneInput(exact, n);
  free(exact);
  return 1;
}

int main(int argc, char **argv) {
  int files = 0;
  for (int i = 1; i < argc; i++) {
    struct dirent **names;
    int n = scandir(argv[i], &names, NULL, alphasort);
    for (int k = 0; k < n; k++) {
      char path[1024];
      snprintf(path, sizeof path, "%s/%s", argv[i], names[k]->d_name);
      if (names[k]->d_name[0] != '.') files += run_file(path);
      free(names[k]);
    }
    if (n >= 0) free(names);
  }
  printf("%d files\n", files);
  return files == 0;
}
