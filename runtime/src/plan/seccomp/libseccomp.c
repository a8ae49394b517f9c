#include <errno.h>
#include <seccomp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Reads a profile as words on stdin and writes libseccomp's BPF for it to stdout:
   default <action> | optimize <level> | arch <SCMP_ARCH token> | rule <action> <name> <n> (<arg> <op> <a> <b>)*
   Status 4: libseccomp refuses it.
   With arguments: the numbers of the system calls of these names on five architectures; negative ones it lacks. */
int main(int argc, char **argv) {
  static const uint32_t archs[] = {SCMP_ARCH_X86_64, SCMP_ARCH_X86, SCMP_ARCH_X32, SCMP_ARCH_AARCH64, SCMP_ARCH_ARM};
  for (int i = 1; i < argc; i++)
    for (int a = 0; a < 5; a++) printf("%d%c", seccomp_syscall_resolve_name_arch(archs[a], argv[i]), a < 4 ? ' ' : '\n');
  if (argc > 1) return 0;
  char word[64], name[64];
  scmp_filter_ctx ctx = NULL;
  unsigned long action, value;
  while (scanf("%63s", word) == 1) {
    int rc = 0;
    if (!strcmp(word, "default") && scanf("%lu", &action) == 1) {
      ctx = seccomp_init((uint32_t)action);
      if (!ctx) return 2;
    } else if (!strcmp(word, "optimize") && scanf("%lu", &value) == 1) {
      rc = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, (uint32_t)value);
    } else if (!strcmp(word, "arch") && scanf("%lu", &value) == 1) {
      rc = seccomp_arch_add(ctx, (uint32_t)value);
      if (rc == -EEXIST) rc = 0;
    } else if (!strcmp(word, "rule")) {
      struct scmp_arg_cmp args[6];
      unsigned n;
      if (scanf("%lu %63s %u", &action, name, &n) != 3 || n > 6) return 3;
      for (unsigned i = 0; i < n; i++) {
        unsigned op;
        if (scanf("%u %u %lu %lu", &args[i].arg, &op, &args[i].datum_a, &args[i].datum_b) != 4) return 3;
        args[i].op = op;
      }
      int nr = seccomp_syscall_resolve_name(name);
      if (nr == __NR_SCMP_ERROR) continue;
      rc = seccomp_rule_add_array(ctx, (uint32_t)action, nr, n, args);
    } else return 3;
    if (rc) { fprintf(stderr, "%s: %s\n", word, strerror(-rc)); return 4; }
  }
  return seccomp_export_bpf(ctx, 1) ? 5 : 0;
}
