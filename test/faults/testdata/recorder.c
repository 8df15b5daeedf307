// A module library that proves delivery: the first 100 bytes of every status become
// one line of a file, written before forward_status returns. It misbehaves while files exist.
// Configuration keys:
//
//   record=PATH   file to append to
//   crash=PATH    forward_status removes the file and ends the process (SIGABRT)
//   poison=TEXT   forward_status of a status that contains it ends the process, every time
//   hang=PATH     forward_status blocks while the file exists
//   environment=PATH  file for the environment of the process
//   command=N     every Nth status of a context is sent back as a command; 0: none
//
// Compiled with RECORDER_NUMBER (default 78).
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "fleet_protocol_module.h"

#ifndef RECORDER_NUMBER
#define RECORDER_NUMBER 78
#endif

struct command {
	struct buffer data, role, name;
	unsigned type;
	struct command *next;
};

struct context {
	char crash[512], hang[512], poison[512];
	int record, every, statuses;
	pthread_mutex_t mutex;
	pthread_cond_t some;
	struct command *first, **last;
};

int get_module_number(void) { return RECORDER_NUMBER; }

int is_device_type_supported(unsigned int type) { return type < 10 ? OK : NOT_OK; }

int allocate(struct buffer *b, size_t n)
{
	b->data = malloc(n + 1);
	b->size_in_bytes = n;
	return b->data != NULL ? OK : NOT_OK;
}

void deallocate(struct buffer *b)
{
	free(b->data);
	b->data = NULL;
	b->size_in_bytes = 0;
}

static void copy(struct buffer *to, const struct buffer *from)
{
	if (allocate(to, from->size_in_bytes) == OK && from->size_in_bytes > 0)
		memcpy(to->data, from->data, from->size_in_bytes);
}

static int is(const struct buffer *b, const char *text)
{
	return b->size_in_bytes == strlen(text) && memcmp(b->data, text, b->size_in_bytes) == 0;
}

static int write_environment(const char *path)
{
	extern char **environ;
	FILE *f = fopen(path, "w");
	if (f == NULL)
		return NOT_OK;
	for (char **e = environ; *e != NULL; e++)
		fprintf(f, "%s\n", *e);
	return fclose(f) == 0 ? OK : NOT_OK;
}

void *init(const struct config config)
{
	struct context *con = calloc(1, sizeof *con);
	if (con == NULL)
		return NULL;
	con->record = -1;
	con->last = &con->first;
	pthread_mutex_init(&con->mutex, NULL);
	pthread_condattr_t monotonic;
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&con->some, &monotonic);
	for (size_t i = 0; i < config.size; i++) {
		const struct key_value *p = &config.parameters[i];
		char value[512];
		snprintf(value, sizeof value, "%.*s", (int)p->value.size_in_bytes, (const char *)p->value.data);
		if (is(&p->key, "record"))
			con->record = open(value, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
		if (is(&p->key, "crash"))
			strcpy(con->crash, value);
		if (is(&p->key, "hang"))
			strcpy(con->hang, value);
		if (is(&p->key, "poison"))
			strcpy(con->poison, value);
		if (is(&p->key, "environment") && write_environment(value) != OK)
			return NULL;
		if (is(&p->key, "command"))
			con->every = atoi(value);
	}
	if (con->record < 0) {
		free(con);
		return NULL;
	}
	return con;
}

static void drop(struct command *c)
{
	deallocate(&c->data);
	deallocate(&c->role);
	deallocate(&c->name);
	free(c);
}

int destroy(void **context)
{
	struct context *con = *context;
	while (con->first != NULL) {
		struct command *c = con->first;
		con->first = c->next;
		drop(c);
	}
	close(con->record);
	free(con);
	*context = NULL;
	return OK;
}

int forward_status(const struct buffer status, const struct device_identification d, void *context)
{
	struct context *con = context;
	while (con->hang[0] != '\0' && access(con->hang, F_OK) == 0)
		usleep(10000);
	if (con->poison[0] != '\0' && memmem(status.data, status.size_in_bytes, con->poison, strlen(con->poison)) != NULL)
		abort();
	char line[128];
	int length = status.size_in_bytes < 100 ? (int)status.size_in_bytes : 100;
	int n = snprintf(line, sizeof line, "%.*s\n", length, (const char *)status.data);
	if (n < 0 || write(con->record, line, (size_t)n) != n)
		return NOT_OK;
	if (con->crash[0] != '\0' && unlink(con->crash) == 0)
		abort();
	if (con->every > 0 && ++con->statuses % con->every == 0) {
		struct command *c = calloc(1, sizeof *c);
		if (c == NULL)
			return NOT_OK;
		copy(&c->data, &status);
		copy(&c->role, &d.device_role);
		copy(&c->name, &d.device_name);
		c->type = d.device_type;
		pthread_mutex_lock(&con->mutex);
		*con->last = c;
		con->last = &c->next;
		pthread_cond_signal(&con->some);
		pthread_mutex_unlock(&con->mutex);
	}
	return OK;
}

int forward_error_message(const struct buffer message, const struct device_identification d, void *context)
{
	(void)message, (void)d, (void)context;
	return OK;
}

int device_connected(const struct device_identification d, void *context)
{
	(void)d, (void)context;
	return OK;
}

int device_disconnected(const int kind, const struct device_identification d, void *context)
{
	(void)kind, (void)d, (void)context;
	return OK;
}

int wait_for_command(int timeout, void *context)
{
	struct context *con = context;
	struct timespec until;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += timeout / 1000;
	until.tv_nsec += timeout % 1000 * 1000000L;
	if (until.tv_nsec >= 1000000000L) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000L;
	}
	pthread_mutex_lock(&con->mutex);
	int late = 0;
	while (con->first == NULL && late == 0)
		late = pthread_cond_timedwait(&con->some, &con->mutex, &until);
	int result = con->first != NULL ? OK : TIMEOUT_OCCURRED;
	pthread_mutex_unlock(&con->mutex);
	return result;
}

int pop_command(struct buffer *command, struct device_identification *d, void *context)
{
	struct context *con = context;
	pthread_mutex_lock(&con->mutex);
	struct command *c = con->first;
	if (c == NULL) {
		pthread_mutex_unlock(&con->mutex);
		return NOT_OK;
	}
	con->first = c->next;
	if (con->first == NULL)
		con->last = &con->first;
	int more = con->first != NULL;
	pthread_mutex_unlock(&con->mutex);
	*command = c->data;
	d->device_role = c->role;
	d->device_name = c->name;
	d->module = RECORDER_NUMBER;
	d->device_type = c->type;
	d->priority = 0;
	free(c);
	return more;
}

int command_ack(const struct buffer command, const struct device_identification d, void *context)
{
	(void)command, (void)d, (void)context;
	return OK;
}
