// A module library for tests. It writes down every call with all its bytes,
// counts what it allocated and got back, notices calls that the ABI forbids to
// overlap, and misbehaves on request. Configuration keys:
//
//   record=PATH    file to append the record to, one line per event
//   init=null      init returns NULL
//   rc=N           what the calls from the car return
//   wait=N         what wait_for_command returns, at once
//   waits=1        wait_for_command is recorded, too
//   destroy=N      what destroy returns
//   echo=1         a forwarded status becomes a command for the same device
//   pop=SCENARIO   what pop_command does, see scenario()
//   block=FUNCTION blocks in it until the file of "release" exists, at most 30 s
//   release=PATH
//
// Compiled with PROBE_NUMBER (default 77) and, to lack symbols, PROBE_INCOMPLETE.
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fleet_protocol_module.h"

#ifndef PROBE_NUMBER
#define PROBE_NUMBER 77
#endif

#ifndef PROBE_PAUSE
#define PROBE_PAUSE 20 // us per call, so that overlaps happen
#endif

static atomic_int allocated, freed, supported_asked;

struct command {
	struct buffer data, role, name;
	int module;
	unsigned type;
	struct command *next;
};

struct context {
	char record[512], release[512], pop[512], block[512];
	int rc, wait, destroy, echo, scripted_wait, tell_waits;
	int pops;
	atomic_int calls, waits, pops_running, violations;
	pthread_mutex_t mutex;
	struct command *first, **last;
};

static void say(struct context *con, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void say(struct context *con, const char *format, ...)
{
	char line[4096];
	__builtin_va_list arguments;
	__builtin_va_start(arguments, format);
	int n = vsnprintf(line, sizeof line - 1, format, arguments);
	__builtin_va_end(arguments);
	if (con->record[0] == '\0' || n < 0)
		return;
	line[n++] = '\n';
	int fd = open(con->record, O_WRONLY | O_CREAT | O_APPEND, 0600);
	if (fd < 0)
		return;
	if (write(fd, line, (size_t)n) != n)
		atomic_fetch_add(&con->violations, 1);
	close(fd);
}

static const char *hex(const struct buffer *b, char *out)
{
	char *p = out;
	*p = '\0';
	for (size_t i = 0; i < b->size_in_bytes && i < 500; i++)
		p += sprintf(p, "%02x", ((unsigned char *)b->data)[i]);
	return out;
}

static void say_call(struct context *con, const char *function, const struct buffer *data, int kind,
                     const struct device_identification *d)
{
	char a[1024], b[1024], c[1024];
	static const struct buffer none;
	say(con, "%s data=%s kind=%d module=%d type=%u role=%s name=%s priority=%u", function,
	    hex(data ? data : &none, a), kind, d->module, d->device_type, hex(&d->device_role, b),
	    hex(&d->device_name, c), d->priority);
}

static void maybe_block(struct context *con, const char *function)
{
	if (strcmp(con->block, function) != 0)
		return;
	say(con, "blocked %s", function);
	for (int i = 0; i < 30000 && access(con->release, F_OK) != 0; i++)
		usleep(1000);
	say(con, "unblocked %s", function);
}

// Every call but wait_for_command passes here: never two at a time.
static void enter(struct context *con)
{
	if (atomic_fetch_add(&con->calls, 1) != 0)
		atomic_fetch_add(&con->violations, 1);
	if (PROBE_PAUSE > 0)
		usleep(PROBE_PAUSE);
}

static void leave(struct context *con)
{
	atomic_fetch_sub(&con->calls, 1);
}

int get_module_number(void) { return PROBE_NUMBER; }

// Supports even types; 1000000 tells how often it was asked.
int is_device_type_supported(unsigned int type)
{
	int asked = atomic_fetch_add(&supported_asked, 1);
	if (type == 1000000)
		return asked == 3 ? OK : NOT_OK;
	return type % 2 == 0 ? OK : NOT_OK;
}

int allocate(struct buffer *b, size_t n)
{
	b->data = malloc(n + 1);
	b->size_in_bytes = n;
	atomic_fetch_add(&allocated, 1);
	return OK;
}

void deallocate(struct buffer *b)
{
	if (b->data != NULL)
		atomic_fetch_add(&freed, 1);
	free(b->data);
	b->data = NULL;
	b->size_in_bytes = 0;
}

static void put(struct buffer *to, const void *data, size_t n)
{
	allocate(to, n);
	memcpy(to->data, data, n);
}

static void put_text(struct buffer *to, const char *text) { put(to, text, strlen(text)); }

static void text_of(const struct buffer *b, char *out, size_t size)
{
	snprintf(out, size, "%.*s", (int)b->size_in_bytes, (const char *)b->data);
}

void *init(const struct config config)
{
	struct context *con = calloc(1, sizeof *con);
	con->scripted_wait = 1;
	con->last = &con->first;
	pthread_mutex_init(&con->mutex, NULL);
	int null = 0;
	for (size_t i = 0; i < config.size; i++) {
		char key[64], value[512];
		text_of(&config.parameters[i].key, key, sizeof key);
		text_of(&config.parameters[i].value, value, sizeof value);
		if (strcmp(key, "record") == 0) strcpy(con->record, value);
		if (strcmp(key, "release") == 0) strcpy(con->release, value);
		if (strcmp(key, "block") == 0) strcpy(con->block, value);
		if (strcmp(key, "pop") == 0) strcpy(con->pop, value);
		if (strcmp(key, "init") == 0) null = 1;
		if (strcmp(key, "rc") == 0) con->rc = atoi(value);
		if (strcmp(key, "destroy") == 0) con->destroy = atoi(value);
		if (strcmp(key, "echo") == 0) con->echo = 1;
		if (strcmp(key, "waits") == 0)
			con->tell_waits = 1;
		if (strcmp(key, "wait") == 0) {
			con->wait = atoi(value);
			con->scripted_wait = 0;
		}
	}
	for (size_t i = 0; i < config.size; i++) {
		char a[1024], b[1024];
		say(con, "init %s=%s", hex(&config.parameters[i].key, a), hex(&config.parameters[i].value, b));
	}
	maybe_block(con, "init");
	if (null) {
		free(con);
		return NULL;
	}
	return con;
}

int destroy(void **context)
{
	struct context *con = *context;
	if (atomic_load(&con->waits) != 0)
		atomic_fetch_add(&con->violations, 1);
	enter(con);
	maybe_block(con, "destroy");
	while (con->first != NULL) {
		struct command *c = con->first;
		con->first = c->next;
		deallocate(&c->data);
		deallocate(&c->role);
		deallocate(&c->name);
		free(c);
	}
	say(con, "destroy held=%d violations=%d", atomic_load(&allocated) - atomic_load(&freed),
	    atomic_load(&con->violations));
	int result = con->destroy;
	free(con);
	*context = NULL;
	return result;
}

int forward_status(const struct buffer status, const struct device_identification d, void *context)
{
	struct context *con = context;
	enter(con);
	say_call(con, "forward_status", &status, -1, &d);
	maybe_block(con, "forward_status");
	if (con->echo) {
		struct command *c = calloc(1, sizeof *c);
		put(&c->data, status.data, status.size_in_bytes);
		put(&c->role, d.device_role.data, d.device_role.size_in_bytes);
		put(&c->name, d.device_name.data, d.device_name.size_in_bytes);
		c->module = d.module;
		c->type = d.device_type;
		pthread_mutex_lock(&con->mutex);
		*con->last = c;
		con->last = &c->next;
		pthread_mutex_unlock(&con->mutex);
	}
	leave(con);
	return con->rc;
}

static int plain(struct context *con, const char *function, const struct buffer *data, int kind,
                 const struct device_identification *d)
{
	enter(con);
	say_call(con, function, data, kind, d);
	maybe_block(con, function);
	leave(con);
	return con->rc;
}

int forward_error_message(const struct buffer message, const struct device_identification d, void *context)
{
	return plain(context, "forward_error_message", &message, -1, &d);
}

int device_disconnected(const int kind, const struct device_identification d, void *context)
{
	return plain(context, "device_disconnected", NULL, kind, &d);
}

int device_connected(const struct device_identification d, void *context)
{
	return plain(context, "device_connected", NULL, -1, &d);
}

int wait_for_command(int timeout, void *context)
{
	struct context *con = context;
	if (atomic_fetch_add(&con->waits, 1) != 0 || atomic_load(&con->pops_running) != 0)
		atomic_fetch_add(&con->violations, 1);
	if (con->tell_waits)
		say(con, "wait");
	maybe_block(con, "wait_for_command");
	int result = con->wait;
	if (con->scripted_wait) {
		result = TIMEOUT_OCCURRED;
		for (int i = 0; i < timeout * 2 && result != OK; i++) {
			pthread_mutex_lock(&con->mutex);
			if (con->first != NULL)
				result = OK;
			pthread_mutex_unlock(&con->mutex);
			if (result != OK)
				usleep(500);
		}
	}
	atomic_fetch_sub(&con->waits, 1);
	return result;
}

static void lamp(struct buffer *command, struct device_identification *d, const char *data)
{
	put_text(command, data);
	put_text(&d->device_role, "lamp");
	put_text(&d->device_name, "Lamp");
	d->module = PROBE_NUMBER;
	d->device_type = 4000000000u;
	d->priority = 3;
}

// The misbehaviours; n counts the calls of the context.
__attribute__((unused)) static int scenario(const char *name, int n, struct buffer *command, struct device_identification *d)
{
	if (strcmp(name, "two") == 0) {
		lamp(command, d, n == 0 ? "first" : "second");
		return 1 - n;
	}
	if (strcmp(name, "one_then_error") == 0) {
		lamp(command, d, "first");
		return n == 0 ? 1 : -2; // with filled buffers also when it fails
	}
	if (strcmp(name, "error") == 0) {
		lamp(command, d, "never");
		return CONTEXT_INCORRECT;
	}
	if (strcmp(name, "nothing") == 0)
		return 0;
	if (strcmp(name, "empty") == 0) { // empty data, real device
		lamp(command, d, "");
		return 0;
	}
	if (strcmp(name, "not_utf8") == 0) {
		lamp(command, d, "data");
		if (n != 1)
			((char *)(n == 0 ? d->device_role.data : d->device_name.data))[1] = (char)0xff;
		return 2 - n;
	}
	if (strcmp(name, "absurd") == 0) {
		lamp(command, d, "data");
		if (n > 0)
			d->device_role.size_in_bytes = (size_t)1 << 62;
		return 1;
	}
	if (strcmp(name, "too_large") == 0) { // between commands that are not
		lamp(command, d, "data");
		struct buffer *b = n == 1 ? &d->device_role : n == 2 ? &d->device_name : n == 3 ? command : NULL;
		if (b != NULL) {
			deallocate(b);
			allocate(b, n == 3 ? 4000001 : 4097);
			memset(b->data, 'x', b->size_in_bytes);
		}
		return 4 - n;
	}
	if (strcmp(name, "largest") == 0) {
		lamp(command, d, "");
		struct buffer *all[] = {command, &d->device_role, &d->device_name};
		for (int i = 0; i < 3; i++) {
			deallocate(all[i]);
			allocate(all[i], i == 0 ? 4000000 : 4096);
			memset(all[i]->data, 'x', all[i]->size_in_bytes);
		}
		return 0;
	}
	if (strcmp(name, "hollow") == 0) {
		lamp(command, d, "data");
		deallocate(&d->device_name);
		d->device_name.size_in_bytes = 4;
		return 0;
	}
	lamp(command, d, "again"); // "endless"
	return 1;
}

#ifndef PROBE_INCOMPLETE
int pop_command(struct buffer *command, struct device_identification *d, void *context)
{
	struct context *con = context;
	enter(con);
	atomic_fetch_add(&con->pops_running, 1);
	if (atomic_load(&con->waits) != 0)
		atomic_fetch_add(&con->violations, 1);
	static const struct buffer none;
	static const struct device_identification nobody;
	if (memcmp(command, &none, sizeof none) != 0 || memcmp(d, &nobody, sizeof nobody) != 0)
		atomic_fetch_add(&con->violations, 1);
	maybe_block(con, "pop_command");
	int result;
	if (con->pop[0] != '\0') {
		result = scenario(con->pop, con->pops++, command, d);
	} else {
		pthread_mutex_lock(&con->mutex);
		struct command *c = con->first;
		con->first = c->next;
		if (con->first == NULL)
			con->last = &con->first;
		result = con->first != NULL;
		pthread_mutex_unlock(&con->mutex);
		*command = c->data;
		d->device_role = c->role;
		d->device_name = c->name;
		d->module = c->module;
		d->device_type = c->type;
		free(c);
	}
	atomic_fetch_sub(&con->pops_running, 1);
	leave(con);
	return result;
}

int command_ack(const struct buffer command, const struct device_identification d, void *context)
{
	return plain(context, "command_ack", &command, -1, &d);
}
#endif
