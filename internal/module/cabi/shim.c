//go:build cgo

#include "shim.h"
#include "process.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// The types of the functions are taken from the header: a wrong one cannot be
// written down here.
struct cabi_library {
#define FIELD(name) __typeof__(&name) name;
	CABI_SYMBOLS(FIELD)
#undef FIELD
};

struct cabi_library *cabi_load(const char *path, unsigned *missing, char *error, size_t error_size)
{
	*missing = 0;
	error[0] = '\0';
	// All symbols now: an undefined one is an error here and not a crash later.
	// Local: libraries must not see each other's init and destroy.
	void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (handle == NULL) {
		const char *words = dlerror(); // belongs to this thread, hence here
		snprintf(error, error_size, "%s", words != NULL ? words : "unknown reason");
		return NULL;
	}
	struct cabi_library *lib = calloc(1, sizeof *lib);
	if (lib == NULL) {
		snprintf(error, error_size, "out of memory");
		return NULL;
	}
	unsigned bit = 1;
	void *symbol;
#define FIND(name)                                   \
	symbol = dlsym(handle, #name);                   \
	if (symbol == NULL)                              \
		*missing |= bit;                             \
	memcpy(&lib->name, &symbol, sizeof lib->name);   \
	bit <<= 1;
	CABI_SYMBOLS(FIND)
#undef FIND
	if (*missing != 0) {
		free(lib);
		return NULL;
	}
	return lib;
}

// CALL makes a call and lets a crash report name it. Threads of the library do
// not have a name, as it should be.
#define CALL(name, ...)                                 \
	({                                                  \
		cabi_current = #name;                           \
		__typeof__(lib->name(__VA_ARGS__)) answer =     \
			lib->name(__VA_ARGS__);                     \
		cabi_current = NULL;                            \
		answer;                                         \
	})

int cabi_number(const struct cabi_library *lib)
{
	return CALL(get_module_number);
}

int cabi_supported(const struct cabi_library *lib, unsigned type)
{
	return CALL(is_device_type_supported, type);
}

// A buffer for the library to read. An empty one still has an address: libraries
// build strings from it.
static struct buffer input(const unsigned char *data, size_t size)
{
	static unsigned char nothing[1];
	struct buffer b = {size != 0 ? (void *)data : nothing, size};
	return b;
}

uintptr_t cabi_init(const struct cabi_library *lib, size_t pairs, const unsigned char *bytes, const size_t *sizes)
{
	struct key_value *parameters = calloc(pairs + 1, sizeof *parameters);
	if (parameters == NULL)
		return 0;
	for (size_t i = 0; i < pairs; i++) {
		parameters[i].key = input(bytes, sizes[2 * i]);
		bytes += sizes[2 * i];
		parameters[i].value = input(bytes, sizes[2 * i + 1]);
		bytes += sizes[2 * i + 1];
	}
	const struct config config = {parameters, pairs};
	void *context = CALL(init, config);
	free(parameters);
	return (uintptr_t)context;
}

int cabi_destroy(const struct cabi_library *lib, uintptr_t context)
{
	void *pointer = (void *)context;
	return CALL(destroy, &pointer);
}

int cabi_call(const struct cabi_library *lib, uintptr_t context, int op, int disconnect_type,
              const unsigned char *data, size_t size, int module, unsigned type,
              const unsigned char *role, size_t role_size, const unsigned char *name, size_t name_size)
{
	void *con = (void *)context;
	const struct buffer payload = input(data, size);
	const struct device_identification device = {
		.module = module,
		.device_type = type,
		.device_role = input(role, role_size),
		.device_name = input(name, name_size),
		.priority = 0,
	};
	switch (op) {
	case CABI_DEVICE_CONNECTED:
		return CALL(device_connected, device, con);
	case CABI_DEVICE_DISCONNECTED:
		return CALL(device_disconnected, disconnect_type, device, con);
	case CABI_FORWARD_STATUS:
		return CALL(forward_status, payload, device, con);
	case CABI_FORWARD_ERROR_MESSAGE:
		return CALL(forward_error_message, payload, device, con);
	case CABI_COMMAND_ACK:
		return CALL(command_ack, payload, device, con);
	}
	return NOT_OK;
}

int cabi_wait(const struct cabi_library *lib, uintptr_t context, int timeout_ms)
{
	return CALL(wait_for_command, timeout_ms, (void *)context);
}

static int is_hollow(const struct buffer *b)
{
	return b->data == NULL && b->size_in_bytes != 0;
}

int cabi_pop(const struct cabi_library *lib, uintptr_t context, struct cabi_popped *popped)
{
	memset(popped, 0, sizeof *popped);
	int result = CALL(pop_command, &popped->command, &popped->device, (void *)context);
	popped->hollow = is_hollow(&popped->command) || is_hollow(&popped->device.device_role) ||
	                 is_hollow(&popped->device.device_name);
	return result;
}

void cabi_take(const struct cabi_library *lib, struct cabi_popped *popped, unsigned char *to)
{
	struct buffer *buffers[] = {&popped->command, &popped->device.device_role, &popped->device.device_name};
	for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; i++) {
		const size_t size = buffers[i]->size_in_bytes;
		if (to != NULL && size != 0) {
			cabi_current = "pop_command (reading what it returned)"; // it may be anywhere
			memcpy(to, buffers[i]->data, size);
			to += size;
		}
		cabi_current = "deallocate";
		lib->deallocate(buffers[i]);
		cabi_current = NULL;
	}
}
