// What a process that exists only to host one library needs beyond the calls:
// it says what killed it, and it never outlives the server. Used by module-host
// only; the server itself never calls these.
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

// Starts a thread that ends the process, and what it forked, when the other side
// of the socket is closed and the process has not ended by itself within grace_ms.
// No library call can keep it from doing so. A process that crashes or calls exit
// within this time ends what it forked as well. Call once, with a descriptor that
// nobody else closes. Returns 0 or an errno.
int cabi_guard(int fd, int grace_ms);

// Ends the process and its process group if it leads one. Does not return.
void cabi_end_group(void);

// Lines of the library's stdio appear when they are complete.
void cabi_line_buffering(void);

// Bytes that malloc has given out.
size_t cabi_heap_bytes(void);

#endif
