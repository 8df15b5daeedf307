//go:build cgo && linux

#define _GNU_SOURCE
#include "process.h"

#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

__thread const char *cabi_current;

// Where code lies, noted beforehand: looking it up is not allowed in a handler.
enum { MAX_OBJECTS = 256 };
static struct object {
	uintptr_t from, to, base;
	char name[96];
} objects[MAX_OBJECTS];
static int object_count;

static int note_object(struct dl_phdr_info *info, size_t size, void *unused)
{
	(void)size;
	(void)unused;
	for (int i = 0; i < info->dlpi_phnum && object_count < MAX_OBJECTS; i++) {
		const ElfW(Phdr) *segment = &info->dlpi_phdr[i];
		if (segment->p_type != PT_LOAD || (segment->p_flags & PF_X) == 0)
			continue;
		struct object *o = &objects[object_count++];
		o->base = info->dlpi_addr;
		o->from = info->dlpi_addr + segment->p_vaddr;
		o->to = o->from + segment->p_memsz;
		const char *name = info->dlpi_name != NULL && info->dlpi_name[0] != '\0' ? info->dlpi_name : "module-host";
		const char *slash = strrchr(name, '/');
		snprintf(o->name, sizeof o->name, "%s", slash != NULL ? slash + 1 : name);
	}
	return 0;
}

static char *text(char *to, const char *end, const char *from)
{
	while (*from != '\0' && to < end)
		*to++ = *from++;
	return to;
}

static char *hex(char *to, const char *end, uintptr_t value)
{
	char digits[2 * sizeof value];
	int n = 0;
	do {
		digits[n++] = "0123456789abcdef"[value & 15];
		value >>= 4;
	} while (value != 0);
	to = text(to, end, "0x");
	while (n > 0 && to < end)
		*to++ = digits[--n];
	return to;
}

static const char *signal_name(int number)
{
	switch (number) {
	case SIGSEGV: return "SIGSEGV";
	case SIGBUS: return "SIGBUS";
	case SIGFPE: return "SIGFPE";
	case SIGILL: return "SIGILL";
	case SIGABRT: return "SIGABRT";
	}
	return "signal";
}

static uintptr_t program_counter(const void *context)
{
	const ucontext_t *uc = context;
#if defined(__x86_64__)
	return (uintptr_t)uc->uc_mcontext.gregs[REG_RIP];
#elif defined(__aarch64__)
	return (uintptr_t)uc->uc_mcontext.pc;
#else
	(void)uc;
	return 0;
#endif
}

static void crashed(int number, siginfo_t *info, void *context)
{
	char line[512];
	const char *end = line + sizeof line - 1;
	char *p = text(line, end, "module-host: ");
	p = text(p, end, signal_name(number));
	if (cabi_current != NULL) {
		p = text(p, end, " in ");
		p = text(p, end, cabi_current);
	}
	if (number == SIGSEGV || number == SIGBUS) {
		p = text(p, end, ", address ");
		p = hex(p, end, (uintptr_t)info->si_addr);
	}
	uintptr_t pc = program_counter(context);
	if (pc != 0 && number != SIGABRT) { // abort is always in the C library
		p = text(p, end, ", code ");
		const struct object *at = NULL;
		for (int i = 0; i < object_count; i++)
			if (pc >= objects[i].from && pc < objects[i].to)
				at = &objects[i];
		if (at != NULL) {
			p = text(p, end, at->name);
			p = text(p, end, "+");
			p = hex(p, end, pc - at->base);
		} else {
			p = hex(p, end, pc);
		}
	}
	*p++ = '\n';
	ssize_t ignored = write(STDERR_FILENO, line, (size_t)(p - line));
	(void)ignored;

	// Die of it: a fault comes again when the instruction is repeated, what was
	// sent is sent again.
	struct sigaction as_usual;
	memset(&as_usual, 0, sizeof as_usual);
	as_usual.sa_handler = SIG_DFL;
	sigaction(number, &as_usual, NULL);
	if (info->si_code <= 0)
		syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), number);
}

void cabi_report_crashes(void)
{
	object_count = 0;
	dl_iterate_phdr(note_object, NULL);
	const int numbers[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
	struct sigaction action;
	memset(&action, 0, sizeof action);
	action.sa_sigaction = crashed;
	action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
	for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
		sigaction(numbers[i], &action, NULL);
}

void cabi_line_buffering(void)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
}

size_t cabi_heap_bytes(void)
{
#if defined(__GLIBC__)
	struct mallinfo2 info = mallinfo2();
	return info.uordblks + info.hblkhd;
#else
	return 0;
#endif
}
