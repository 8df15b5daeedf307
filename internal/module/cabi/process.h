// What a process that exists only to host one library needs beyond the calls: it
// says what killed it. Used by module-host only; the server itself never calls these.
#ifndef CABI_PROCESS_H
#define CABI_PROCESS_H

#include <stddef.h>

// The function of the ABI that this thread is executing, or NULL.
extern __thread const char *cabi_current;

// Reports a fatal signal on standard error (signal, function of the ABI, place
// in the code as "library+offset") and then dies of that very signal, so that the
// exit status and the core dump are those of the fault. Replaces the handlers
// of the Go runtime. Call after the library was loaded.
void cabi_report_crashes(void);

// Lines of the library's stdio appear when they are complete.
void cabi_line_buffering(void);

// Bytes that malloc has given out.
size_t cabi_heap_bytes(void);

#endif
