/* Reset: switch the floating-point unit on, fill .data and .bss, call main, leave through
 * semihosting. */
#include <stdint.h>

extern uint32_t data_start[], data_end[], data_load[], bss_start[], bss_end[], stack_top[];
int main(void);
void reset(void);
void fault(void);
void semihost_exit(int code);

__attribute__((section(".vectors"), used)) static void *const vectors[16] = {
    stack_top,     (void *)reset, (void *)fault, (void *)fault,
    (void *)fault, (void *)fault, (void *)fault};

__attribute__((noreturn, optimize("no-tree-loop-distribute-patterns"))) void reset(void) {
  *(volatile uint32_t *)0xE000ED88 |= 0xFu << 20; /* CPACR: full access to CP10 and CP11 */
  __asm__ volatile("dsb\n isb");
  for (uint32_t *to = data_start, *from = data_load; to < data_end;) *to++ = *from++;
  for (uint32_t *to = bss_start; to < bss_end;) *to++ = 0;
  semihost_exit(main());
  for (;;) {
  }
}

void fault(void) { semihost_exit(99); }
