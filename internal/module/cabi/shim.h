// The C side of package cabi: everything that must not be expressed in Go.
// Structs that point to Go memory are put together here, so that no Go memory
// holding Go pointers ever crosses the border; addresses that come from a
// library stay here or travel as integers, so that no odd value is ever taken
// for a Go pointer.
#ifndef CABI_SHIM_H
#define CABI_SHIM_H

#include <stddef.h>
#include <stdint.h>

#include "fleet_protocol_module.h"

// All functions a library must have, in the order of symbols in cabi.go.
#define CABI_SYMBOLS(X)         \
	X(get_module_number)        \
	X(is_device_type_supported) \
	X(allocate)                 \
	X(deallocate)               \
	X(init)                     \
	X(destroy)                  \
	X(forward_status)           \
	X(forward_error_message)    \
	X(device_disconnected)      \
	X(device_connected)         \
	X(wait_for_command)         \
	X(pop_command)              \
	X(command_ack)

enum {
	CABI_DEVICE_CONNECTED,
	CABI_DEVICE_DISCONNECTED,
	CABI_FORWARD_STATUS,
	CABI_FORWARD_ERROR_MESSAGE,
	CABI_COMMAND_ACK
};

// The function table of one library; opaque to Go.
struct cabi_library;

// What pop_command filled in. Lives in C memory.
struct cabi_popped {
	struct buffer command;
	struct device_identification device;
	int hollow; // a buffer has a size but no data
};

// Loads the library. Returns NULL with the loader's words in error, or with an
// empty error and one bit in *missing for each absent function.
struct cabi_library *cabi_load(const char *path, unsigned *missing, char *error, size_t error_size);

int cabi_number(const struct cabi_library *lib);
int cabi_supported(const struct cabi_library *lib, unsigned type);

// bytes holds all keys and values one after the other, sizes their lengths (two
// per pair).
uintptr_t cabi_init(const struct cabi_library *lib, size_t pairs, const unsigned char *bytes, const size_t *sizes);
int cabi_destroy(const struct cabi_library *lib, uintptr_t context);

// One of the calls from the car to the module; data is what the call carries
// besides the device, if anything. The device's priority is always 0.
int cabi_call(const struct cabi_library *lib, uintptr_t context, int op, int disconnect_type,
              const unsigned char *data, size_t size, int module, unsigned type,
              const unsigned char *role, size_t role_size, const unsigned char *name, size_t name_size);

int cabi_wait(const struct cabi_library *lib, uintptr_t context, int timeout_ms);

// What a poll that is held shares with those who look after it. Lives in C memory.
struct cabi_poll {
	int end;            // see cabi_end_poll
	unsigned phase;     // 32 bits of a period: where in it the waits of this context end
	long long since_ms; // see cabi_waiting_ms
};

// Calls wait_for_command again and again until it answers anything but
// TIMEOUT_OCCURRED, which is returned, or until the poll is to end: then it returns
// TIMEOUT_OCCURRED. The waits are of timeout_ms at most, and shorter where that makes
// them end in their phase.
int cabi_hold(const struct cabi_library *lib, uintptr_t context, int timeout_ms, struct cabi_poll *poll);

// To be called before cabi_hold.
void cabi_begin_poll(struct cabi_poll *poll);

// Ends cabi_hold, on another thread, as soon as wait_for_command comes back.
void cabi_end_poll(struct cabi_poll *poll);

// Calls cabi_hold, or cabi_wait if held is 0, on a thread of its own, which writes id and
// the result to fd then, 8 bytes each, together. Returns 0, or an error number.
int cabi_start_wait(const struct cabi_library *lib, uintptr_t context, int timeout_ms, int held, struct cabi_poll *poll,
                    int fd, unsigned long long id);

// How long the wait_for_command of cabi_hold that is under way has taken so far, in
// milliseconds; 0 if there is none.
long long cabi_waiting_ms(const struct cabi_poll *poll);

// Zeroes popped and lets the library fill it. cabi_take must follow, whatever
// the result.
int cabi_pop(const struct cabi_library *lib, uintptr_t context, struct cabi_popped *popped);

// Copies command, role and name one after the other to "to", unless it is NULL,
// and gives the three buffers back to the library.
void cabi_take(const struct cabi_library *lib, struct cabi_popped *popped, unsigned char *to);

#endif
