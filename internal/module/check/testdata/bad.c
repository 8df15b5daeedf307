// A module that breaks one rule, the one that BAD in the environment names, and
// keeps all the others without it. Number 67, device types 1 and 2; a status
// "command:X" becomes the command X.
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "fleet_protocol_module.h"

static int bad(const char *what)
{
	const char *asked = getenv("BAD");
	return asked != NULL && strcmp(asked, what) == 0;
}

struct command {
	char data[64], role[70000];
	struct device_identification device;
	struct command *next;
};

struct context {
	pthread_mutex_t mutex;
	struct command *first;
	char roles[32][32];
	const char *kept;
	char ballast[512];
};

static pthread_mutex_t everything = PTHREAD_MUTEX_INITIALIZER;
static struct context *last_used;
static char still[] = "static";

int get_module_number(void) { return bad("number") ? 1000 + getpid() % 1000000 : 67; }

int is_device_type_supported(unsigned int type)
{
	if (bad("types"))
		return NOT_OK;
	if (bad("moody types") && type == 2)
		return unlink(getenv("BAD_FILE")) == 0 ? OK : (close(creat(getenv("BAD_FILE"), 0600)), NOT_OK);
	return type == 1 || type == 2 ? OK : NOT_OK;
}

int allocate(struct buffer *b, size_t n)
{
	b->data = malloc(n + 1);
	b->size_in_bytes = n;
	return OK;
}

void deallocate(struct buffer *b)
{
	free(b->data);
	b->data = NULL;
	if (!bad("size kept"))
		b->size_in_bytes = 0;
}

void *init(const struct config config)
{
	if (bad("init"))
		return NULL;
	for (size_t i = 0; i < config.size; i++) {
		char value[100];
		const struct buffer *b = &config.parameters[i].value;
		if (bad("config") || b->size_in_bytes < sizeof value)
			memcpy(value, b->data, b->size_in_bytes);
		__asm__ volatile("" : : "r"(value) : "memory");
	}
	struct context *con = calloc(1, sizeof *con);
	pthread_mutex_init(&con->mutex, NULL);
	return con;
}

int destroy(void **context)
{
	struct context *con = *context;
	while (con->first != NULL) {
		struct command *next = con->first->next;
		free(con->first);
		con->first = next;
	}
	if (last_used == con)
		last_used = NULL;
	if (!bad("leak"))
		free(con);
	if (!bad("context kept"))
		*context = NULL;
	return bad("destroy code") ? NOT_OK : OK;
}

static int same(const struct buffer *b, const char *text)
{
	return b->size_in_bytes == strlen(text) && memcmp(b->data, text, b->size_in_bytes) == 0;
}

static void lock(void) { if (bad("lock")) pthread_mutex_lock(&everything); }
static void unlock(void) { if (bad("lock")) pthread_mutex_unlock(&everything); }

int device_connected(const struct device_identification d, void *context)
{
	struct context *con = context;
	if (bad("connect"))
		return NOT_OK;
	lock();
	unlock();
	for (int i = 0; i < 32 && d.device_role.size_in_bytes < 32; i++)
		if (con->roles[i][0] == '\0') {
			memcpy(con->roles[i], d.device_role.data, d.device_role.size_in_bytes);
			break;
		} else if (same(&d.device_role, con->roles[i])) {
			break;
		}
	return OK;
}

int device_disconnected(const int kind, const struct device_identification d, void *context)
{
	struct context *con = context;
	(void)kind;
	for (int i = 0; i < 32; i++)
		if (same(&d.device_role, con->roles[i])) {
			memset(con->roles[i], 0, sizeof con->roles[i]);
			return OK;
		}
	if (bad("unknown crash"))
		abort();
	return bad("unknown") || d.device_role.size_in_bytes >= 32 ? OK : NOT_OK;
}

int forward_status(const struct buffer status, const struct device_identification d, void *context)
{
	struct context *con = context;
	lock();
	unlock();
	if (bad("code"))
		return 7;
	if (bad("payload")) {
		char copy[65536];
		memcpy(copy, status.data, status.size_in_bytes);
		__asm__ volatile("" : : "r"(copy) : "memory");
	}
	if (bad("terminator") && strlen(status.data) == 12345)
		return NOT_OK;
	if (bad("kept input")) {
		if (con->kept != NULL && *(volatile const char *)con->kept == 'x')
			return NOT_OK;
		if (status.size_in_bytes > 0)
			con->kept = status.data;
	}
	if (bad("cross talk")) {
		if (last_used == NULL || rand() % 2)
			last_used = con;
		con = last_used;
	}
	if (status.size_in_bytes < 8 || status.size_in_bytes > 60 || memcmp(status.data, "command:", 8) != 0)
		return OK;
	struct command *c = calloc(1, sizeof *c);
	memcpy(c->data, (char *)status.data + 8, status.size_in_bytes - 8);
	memcpy(c->role, d.device_role.data, d.device_role.size_in_bytes);
	c->device = d;
	pthread_mutex_lock(&con->mutex);
	struct command **at = &con->first;
	while (!bad("newest first") && *at != NULL)
		at = &(*at)->next;
	c->next = *at;
	*at = c;
	pthread_mutex_unlock(&con->mutex);
	return OK;
}

int forward_error_message(const struct buffer message, const struct device_identification d, void *context)
{
	(void)message;
	(void)d;
	(void)context;
	return OK;
}

int command_ack(const struct buffer command, const struct device_identification d, void *context)
{
	return forward_error_message(command, d, context);
}

int wait_for_command(int timeout, void *context)
{
	struct context *con = context;
	if (bad("spin"))
		return TIMEOUT_OCCURRED;
	lock();
	int result = TIMEOUT_OCCURRED;
	for (int i = 0; result != OK && i < timeout; i++) {
		pthread_mutex_lock(&con->mutex);
		if (con->first != NULL)
			result = OK;
		pthread_mutex_unlock(&con->mutex);
		if (result != OK)
			usleep(1000);
	}
	if (bad("endless") && con->roles[0][0] != '\0')
		result = OK;
	if (bad("long wait"))
		usleep(1500000);
	if (bad("no device") && con->roles[0][0] != '\0')
		result = OK;
	unlock();
	return result;
}

static void put(struct buffer *b, const char *text)
{
	allocate(b, strlen(text));
	memcpy(b->data, text, strlen(text));
}

int pop_command(struct buffer *command, struct device_identification *device, void *context)
{
	struct context *con = context;
	pthread_mutex_lock(&con->mutex);
	struct command *c = con->first;
	if (c != NULL)
		con->first = c->next;
	int left = con->first != NULL;
	pthread_mutex_unlock(&con->mutex);
	if (bad("endless")) {
		free(c);
		put(command, "again");
		put(&device->device_role, con->roles[0]);
		device->module = 67;
		device->device_type = 1;
		return 1;
	}
	if (c == NULL)
		return 0;
	put(command, c->data);
	put(&device->device_role, c->role);
	put(&device->device_name, "name");
	if (bad("static output"))
		command->data = still;
	if (bad("overrun"))
		memset(command->data, 'x', command->size_in_bytes + 9);
	device->module = bad("wrong device") ? 1 : c->device.module;
	device->device_type = c->device.device_type;
	free(c);
	return left;
}
