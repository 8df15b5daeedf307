//go:build cgo

#include "shim.h"
#include "process.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

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

static int is_strict(void)
{
	static atomic_int strict = -1;
	int answer = atomic_load_explicit(&strict, memory_order_relaxed);
	if (answer < 0) {
		const char *value = getenv("FLEET_MODULE_GUARD");
		answer = value != NULL && strcmp(value, "1") == 0;
		atomic_store_explicit(&strict, answer, memory_order_relaxed);
	}
	return answer;
}

static void violation(const char *text)
{
	fprintf(stderr, "module-check: %s\n", text);
}

// A buffer for the library to read. An empty one still has an address: libraries
// build strings from it.
static struct buffer input(const unsigned char *data, size_t size)
{
	static unsigned char nothing[1];
	struct buffer b = {size != 0 ? (void *)data : nothing, size};
	if (!is_strict())
		return b;
	const size_t page = (size_t)sysconf(_SC_PAGESIZE);
	const size_t pages = (size + page - 1) / page * page;
	unsigned char *from = mmap(NULL, pages + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (from == MAP_FAILED)
		return b;
	mprotect(from + pages, page, PROT_NONE);
	b.data = from + pages - size;
	if (size != 0)
		memcpy(b.data, data, size);
	return b;
}

// Takes back what input gave: in a strict process the bytes are gone, and their
// addresses stay forbidden for a while. Freed at once they would be those of the
// next input, and a library that kept a pointer would read that unnoticed.
static void take_back(const struct buffer *b)
{
	if (!is_strict())
		return;
	static struct range { void *from; size_t size; } forbidden[256];
	static unsigned next;
	static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
	const size_t page = (size_t)sysconf(_SC_PAGESIZE);
	const size_t pages = (b->size_in_bytes + page - 1) / page * page;
	struct range range = {(unsigned char *)b->data + b->size_in_bytes - pages, pages + page};
	mmap(range.from, range.size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	pthread_mutex_lock(&mutex);
	struct range oldest = forbidden[next];
	forbidden[next] = range;
	next = (next + 1) % (sizeof forbidden / sizeof *forbidden);
	pthread_mutex_unlock(&mutex);
	if (oldest.from != NULL)
		munmap(oldest.from, oldest.size);
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
	for (size_t i = 0; i < pairs; i++) {
		take_back(&parameters[i].key);
		take_back(&parameters[i].value);
	}
	free(parameters);
	return (uintptr_t)context;
}

int cabi_destroy(const struct cabi_library *lib, uintptr_t context)
{
	void *pointer = (void *)context;
	int result = CALL(destroy, &pointer);
	if (is_strict() && pointer != NULL)
		violation("MT-16: destroy did not set the context to NULL");
	return result;
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
	int result = NOT_OK;
	switch (op) {
	case CABI_DEVICE_CONNECTED:
		result = CALL(device_connected, device, con);
		break;
	case CABI_DEVICE_DISCONNECTED:
		result = CALL(device_disconnected, disconnect_type, device, con);
		break;
	case CABI_FORWARD_STATUS:
		result = CALL(forward_status, payload, device, con);
		break;
	case CABI_FORWARD_ERROR_MESSAGE:
		result = CALL(forward_error_message, payload, device, con);
		break;
	case CABI_COMMAND_ACK:
		result = CALL(command_ack, payload, device, con);
		break;
	}
	take_back(&payload);
	take_back(&device.device_role);
	take_back(&device.device_name);
	return result;
}

int cabi_wait(const struct cabi_library *lib, uintptr_t context, int timeout_ms)
{
	return CALL(wait_for_command, timeout_ms, (void *)context);
}

static long long now_us(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (long long)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

void cabi_begin_poll(struct cabi_poll *poll)
{
	__atomic_store_n(&poll->end, 0, __ATOMIC_SEQ_CST);
}

void cabi_end_poll(struct cabi_poll *poll)
{
	__atomic_store_n(&poll->end, 1, __ATOMIC_SEQ_CST);
}

long long cabi_waiting_ms(const struct cabi_poll *poll)
{
	const long long since = __atomic_load_n(&poll->since_ms, __ATOMIC_RELAXED);
	return since == 0 ? 0 : now_us() / 1000 - since;
}

// A wait that brings nothing within this time was none: some libraries ignore the
// timeout and would keep a core busy (MOD-15).
enum { QUICK_WAIT_US = 1000, IDLE_MIN_US = 1000, IDLE_MAX_US = 50000 };

// The timeout of a wait that begins now. After a moment in which the machine was busy,
// all waits that have passed meanwhile end together; with timeouts of one length they
// would do so for ever, and thousands of threads would wake up at once in every
// period. So each context has a phase in which its waits end.
static int in_phase(int timeout_ms, unsigned phase, long long now)
{
	const long long period = (long long)timeout_ms * 1000;
	const long long since = (now + (long long)((double)phase / 4294967296.0 * period)) % period;
	const long long left = period - since;
	if (left < period / 8)
		return timeout_ms; // a moment too early
	return (int)((left + 999) / 1000);
}

int cabi_hold(const struct cabi_library *lib, uintptr_t context, int timeout_ms, struct cabi_poll *poll)
{
	long idle = IDLE_MIN_US;
	int result = TIMEOUT_OCCURRED;
	while (__atomic_load_n(&poll->end, __ATOMIC_SEQ_CST) == 0) {
		const long long start = now_us();
		__atomic_store_n(&poll->since_ms, start / 1000, __ATOMIC_RELAXED);
		result = CALL(wait_for_command, in_phase(timeout_ms, poll->phase, start), (void *)context);
		__atomic_store_n(&poll->since_ms, 0, __ATOMIC_RELAXED);
		if (result != TIMEOUT_OCCURRED)
			break;
		if (now_us() - start >= QUICK_WAIT_US) {
			idle = IDLE_MIN_US;
			continue;
		}
		const struct timespec pause = {0, idle * 1000};
		nanosleep(&pause, NULL);
		idle = 2 * idle < IDLE_MAX_US ? 2 * idle : IDLE_MAX_US;
	}
	return result;
}

#define REPORT_STACK (64 << 10) // bytes; untouched they cost no memory

struct wait {
	const struct cabi_library *lib;
	uintptr_t context;
	int timeout_ms, held;
	struct cabi_poll *poll;
	int fd;
	long long said[2]; // id and result
};

static void *wait_thread(void *argument)
{
	struct wait *w = argument;
	// For the report of a crash when this thread's own stack is full.
	const stack_t report = {.ss_sp = malloc(REPORT_STACK), .ss_size = REPORT_STACK};
	if (report.ss_sp != NULL)
		sigaltstack(&report, NULL);
	w->said[1] = w->held ? cabi_hold(w->lib, w->context, w->timeout_ms, w->poll)
	                     : cabi_wait(w->lib, w->context, w->timeout_ms);
	while (write(w->fd, w->said, sizeof w->said) < 0 && errno == EINTR)
		;
	free(w);
	const stack_t none = {.ss_flags = SS_DISABLE};
	sigaltstack(&none, NULL);
	free(report.ss_sp);
	return NULL;
}

int cabi_start_wait(const struct cabi_library *lib, uintptr_t context, int timeout_ms, int held, struct cabi_poll *poll,
                    int fd, unsigned long long id)
{
	struct wait *w = malloc(sizeof *w);
	if (w == NULL)
		return ENOMEM;
	*w = (struct wait){lib, context, timeout_ms, held, poll, fd, {(long long)id, 0}};
	pthread_attr_t attributes;
	pthread_attr_init(&attributes);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	pthread_t thread;
	const int failed = pthread_create(&thread, &attributes, wait_thread, w);
	pthread_attr_destroy(&attributes);
	if (failed != 0)
		free(w);
	return failed;
}

static int is_hollow(const struct buffer *b)
{
	return b->data == NULL && b->size_in_bytes != 0;
}

int cabi_pop(const struct cabi_library *lib, uintptr_t context, struct cabi_popped *popped)
{
	memset(popped, 0, sizeof *popped);
	int result = CALL(pop_command, &popped->command, &popped->device, (void *)context);
	if (is_strict() && result >= 0 && popped->device.device_role.size_in_bytes == 0)
		violation("MT-12: pop_command returned a command for a device without a role");
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
		if (is_strict() && buffers[i]->size_in_bytes != 0)
			violation("MT-9: deallocate did not set the size to 0");
	}
}
