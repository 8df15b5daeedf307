// A module library that takes everything and does nothing, so that a measurement is the
// server's, and that of the process around the library. It waits for commands as a good
// library does: on a condition variable, up to the timeout. There are none.
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#ifndef FLEET_PROTOCOL_MODULE_H // what is needed of it; a test compiles this file with it
enum { OK = 0, NOT_OK = -1, TIMEOUT_OCCURRED = -12 };
struct buffer { void *data; size_t size_in_bytes; };
struct device_identification {
	int module;
	unsigned int device_type;
	struct buffer device_role;
	struct buffer device_name;
	unsigned int priority;
};
struct key_value { struct buffer key; struct buffer value; };
struct config { struct key_value *parameters; size_t size; };
#endif

struct context { pthread_mutex_t mutex; pthread_cond_t changed; };

int get_module_number(void) { return 1000; }
int is_device_type_supported(unsigned int type) { (void)type; return OK; }

int allocate(struct buffer *b, size_t size)
{
	b->data = malloc(size != 0 ? size : 1);
	b->size_in_bytes = size;
	return b->data != NULL ? OK : NOT_OK;
}

void deallocate(struct buffer *b)
{
	free(b->data);
	b->data = NULL;
	b->size_in_bytes = 0;
}

void *init(const struct config config)
{
	(void)config;
	struct context *c = calloc(1, sizeof *c);
	if (c == NULL)
		return NULL;
	pthread_condattr_t clock;
	pthread_condattr_init(&clock);
	pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
	pthread_mutex_init(&c->mutex, NULL);
	pthread_cond_init(&c->changed, &clock);
	return c;
}

int destroy(void **context)
{
	free(*context);
	*context = NULL;
	return OK;
}

int forward_status(const struct buffer status, const struct device_identification device, void *context)
{
	(void)status, (void)device, (void)context;
	return OK;
}

int forward_error_message(const struct buffer message, const struct device_identification device, void *context)
{
	return forward_status(message, device, context);
}

int device_disconnected(const int type, const struct device_identification device, void *context)
{
	(void)type, (void)device, (void)context;
	return OK;
}

int device_connected(const struct device_identification device, void *context)
{
	(void)device, (void)context;
	return OK;
}

int command_ack(const struct buffer command, const struct device_identification device, void *context)
{
	return forward_status(command, device, context);
}

int wait_for_command(int timeout_ms, void *context)
{
	struct context *c = context;
	struct timespec end;
	clock_gettime(CLOCK_MONOTONIC, &end);
	end.tv_sec += timeout_ms / 1000;
	end.tv_nsec += timeout_ms % 1000 * 1000000L;
	if (end.tv_nsec >= 1000000000L) {
		end.tv_sec++;
		end.tv_nsec -= 1000000000L;
	}
	pthread_mutex_lock(&c->mutex);
	while (pthread_cond_timedwait(&c->changed, &c->mutex, &end) == 0)
		;
	pthread_mutex_unlock(&c->mutex);
	return TIMEOUT_OCCURRED;
}

int pop_command(struct buffer *command, struct device_identification *device, void *context)
{
	(void)command, (void)device, (void)context;
	return NOT_OK;
}
