// A module that does what no module should. Number 66, every device type below
// 300. Well behaved it records what it is told, one line each, and turns a
// status "command:X" into the command X.
//
// Configuration of a context:
//   record=PATH            file to append the record to
//   attack=FUNCTION:WHAT   what to do in which function, see attack()
//   waits=PATH             file that gets a line whenever wait_for_command begins
//   gate=PATH              what the attack "gate" waits for
//   once=PATH              only if this file does not exist; it is created
// In the environment, for functions without a context: ATTACK and ATTACK_ONCE.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fleet_protocol_module.h"

struct context {
	char record[512], waits[512], attack[128], once[512], car[64];
	pthread_mutex_t mutex;
	char commands[64][64];
	int count;
	struct device_identification device;
	char role[64], name[64];
};

static void say(const char *path, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void say(const char *path, const char *format, ...)
{
	char line[1024];
	__builtin_va_list arguments;
	__builtin_va_start(arguments, format);
	int n = vsnprintf(line, sizeof line - 1, format, arguments);
	__builtin_va_end(arguments);
	if (path[0] == '\0' || n < 0)
		return;
	line[n++] = '\n';
	int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, line, (size_t)n) != n)
		abort();
	close(fd);
}

static char gate[512];

static void on_signal(int number) { (void)number; }

static void *thread_segv(void *unused)
{
	(void)unused;
	*(volatile int *)8 = 1;
	return NULL;
}

static void overflow(volatile char *above)
{
	volatile char here[4096];
	here[0] = above[0];
	overflow(here);
	here[1] = 1; // no tail call
}

static void attack(const char *what)
{
	fprintf(stderr, "attack: about to %s\n", what);
	if (strcmp(what, "segv") == 0)
		*(volatile int *)16 = 1;
	if (strcmp(what, "overflow") == 0)
		overflow("");
	if (strcmp(what, "thread") == 0) {
		pthread_t t;
		pthread_create(&t, NULL, thread_segv, NULL);
		pthread_join(t, NULL);
	}
	if (strcmp(what, "abort") == 0)
		abort();
	if (strcmp(what, "exit") == 0)
		exit(3);
	if (strcmp(what, "exit0") == 0)
		exit(0);
	if (strcmp(what, "kill") == 0)
		kill(getpid(), SIGKILL);
	if (strcmp(what, "stop") == 0)
		kill(getpid(), SIGSTOP);
	if (strcmp(what, "fork") == 0) { // with every descriptor, for ever
		if (fork() == 0)
			for (;;)
				pause();
		abort();
	}
	if (strcmp(what, "forkblock") == 0) { // and ignore what can be ignored
		for (int i = 1; i < 65; i++)
			signal(i, SIG_IGN);
		if (fork() == 0)
			for (;;)
				pause();
		for (;;)
			pause();
	}
	if (strncmp(what, "forkthen", 8) == 0) { // and end oneself once the server is gone
		pid_t parent = getppid();
		if (fork() == 0)
			for (;;)
				pause();
		if (strcmp(what, "forkthenprint") == 0)
			for (;;) // until nobody reads it
				puts("still there");
		while (getppid() == parent)
			;
		if (strcmp(what, "forkthensegv") == 0)
			*(volatile int *)16 = 1;
		exit(3);
	}
	if (strncmp(what, "daemon", 6) == 0) { // leave group, session and parent, and say who one is
		pid_t child = fork();
		if (child == 0) {
			setsid();
			if (fork() == 0) {
				setsid();
				for (int i = 1; i < 65; i++)
					signal(i, SIG_IGN);
				char pid[16];
				snprintf(pid, sizeof pid, "%d", getpid());
				say(gate, "%s", pid);
				for (;;)
					pause();
			}
			_exit(0);
		}
		waitpid(child, NULL, 0);
		struct stat file; // with the pid in it: this process's end is the daemon's
		while (stat(gate, &file) != 0 || file.st_size == 0)
			usleep(1000);
		if (strcmp(what, "daemonsegv") == 0)
			*(volatile int *)16 = 1;
		if (strcmp(what, "daemonblock") == 0)
			for (;;)
				pause();
	}
	if (strcmp(what, "spin") == 0)
		for (volatile int i = 0;; i++)
			;
	if (strcmp(what, "slow") == 0) // well behaved otherwise
		usleep(50000);
	if (strcmp(what, "brief") == 0)
		usleep(2000);
	if (strcmp(what, "gate") == 0)
		while (access(gate, F_OK) != 0)
			usleep(1000);
	if (strcmp(what, "block") == 0)
		for (;;)
			pause();
	if (strcmp(what, "leak") == 0)
		for (;;) {
			memset(malloc(1 << 20), 1, 1 << 20);
			usleep(500);
		}
	if (strcmp(what, "pipe") == 0) { // SIGPIPE and EPIPE
		int p[2];
		if (pipe(p) != 0)
			abort();
		close(p[0]);
		signal(SIGPIPE, SIG_DFL);
		if (write(p[1], "x", 1) < 0)
			abort();
	}
	if (strcmp(what, "close") == 0) { // every descriptor, the server's too
		for (int i = 0; i < 1000; i++)
			close(i);
	}
	if (strcmp(what, "garbage") == 0)
		for (int i = 3; i < 64; i++) { // the server listens on one of them; files are records of cars
			struct stat status;
			if (fstat(i, &status) != 0 || !S_ISSOCK(status.st_mode) || write(i, "\xff\xff\xff\xff garbage", 12) < 0)
				continue;
		}
	if (strcmp(what, "heap") == 0) {
		char *p = malloc(24), *q = malloc(24);
		memset(p - 16, 0x41, 64);
		free(q);
		free(p);
		free(p);
		abort(); // whatever the allocator made of it
	}
	if (strcmp(what, "handlers") == 0) { // without SA_ONSTACK, on all signals
		for (int i = 1; i < 65; i++) {
			struct sigaction action;
			memset(&action, 0, sizeof action);
			action.sa_handler = on_signal;
			sigaction(i, &action, NULL);
		}
		raise(SIGURG);
		kill(getpid(), SIGURG);
	}
	if (strcmp(what, "flood") == 0) {
		static char line[100000];
		memset(line, 'y', sizeof line - 1);
		for (int i = 0; i < 200; i++)
			puts(line);
		for (int i = 0; i < 2000; i++)
			printf("line %d \x1b[31m\xff\n", i);
		abort();
	}
}

static int first_time(const char *once)
{
	if (once == NULL || once[0] == '\0')
		return 1;
	int fd = open(once, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return 0;
	close(fd);
	return 1;
}

static const char *asked(const char *spec, const char *function)
{
	size_t n = strlen(function);
	return spec != NULL && strncmp(spec, function, n) == 0 && spec[n] == ':' ? spec + n + 1 : NULL;
}

static const char *due(struct context *con, const char *function)
{
	const char *what = asked(con->attack, function);
	return what != NULL && first_time(con->once) ? what : NULL;
}

static void maybe(struct context *con, const char *function)
{
	const char *what = due(con, function);
	if (what != NULL)
		attack(what);
}

static void maybe_global(const char *function)
{
	const char *what = asked(getenv("ATTACK"), function);
	if (what != NULL && first_time(getenv("ATTACK_ONCE")))
		attack(what);
}

__attribute__((constructor)) static void loaded(void) { maybe_global("load"); }

int get_module_number(void)
{
	maybe_global("get_module_number");
	return 66;
}

int is_device_type_supported(unsigned int type)
{
	maybe_global("is_device_type_supported");
	return type < 300 ? OK : NOT_OK;
}

int allocate(struct buffer *b, size_t n)
{
	b->data = malloc(n + 1);
	b->size_in_bytes = n;
	return OK;
}

static int wild;

void deallocate(struct buffer *b)
{
	maybe_global("deallocate");
	if (!wild)
		free(b->data);
	b->data = NULL;
	b->size_in_bytes = 0;
}

static void text_of(const struct buffer *b, char *out, size_t size)
{
	snprintf(out, size, "%.*s", (int)b->size_in_bytes, (const char *)b->data);
}

void *init(const struct config config)
{
	struct context *con = calloc(1, sizeof *con);
	pthread_mutex_init(&con->mutex, NULL);
	int null = 0;
	for (size_t i = 0; i < config.size; i++) {
		char key[64], value[512];
		text_of(&config.parameters[i].key, key, sizeof key);
		text_of(&config.parameters[i].value, value, sizeof value);
		if (strcmp(key, "record") == 0) strcpy(con->record, value);
		if (strcmp(key, "waits") == 0) strcpy(con->waits, value);
		if (strcmp(key, "attack") == 0) snprintf(con->attack, sizeof con->attack, "%s", value);
		if (strcmp(key, "gate") == 0) strcpy(gate, value);
		if (strcmp(key, "once") == 0) strcpy(con->once, value);
		if (strcmp(key, "car_name") == 0) snprintf(con->car, sizeof con->car, "%s", value);
		if (strcmp(key, "null") == 0) null = 1;
		if (strcmp(key, "null_if") == 0 && access(value, F_OK) == 0) null = 1;
	}
	if (null) {
		fputs("no database\n", stderr);
		free(con);
		return NULL;
	}
	maybe(con, "init");
	say(con->record, "init %s", con->car);
	return con;
}

int destroy(void **context)
{
	struct context *con = *context;
	maybe(con, "destroy");
	say(con->record, "destroy %s", con->car);
	free(con);
	*context = NULL;
	return OK;
}

static int call(struct context *con, const char *function, const char *data, const struct device_identification *d)
{
	char role[64];
	text_of(&d->device_role, role, sizeof role);
	maybe(con, function);
	say(con->record, "%s %s %s %s", function, con->car, role, data);
	return OK;
}

int forward_status(const struct buffer status, const struct device_identification d, void *context)
{
	struct context *con = context;
	char data[512];
	text_of(&status, data, sizeof data);
	call(con, "forward_status", data, &d);
	if (strncmp(data, "command:", 8) == 0) {
		pthread_mutex_lock(&con->mutex);
		if (con->count < 64)
			snprintf(con->commands[con->count++], 64, "%s", data + 8);
		con->device = d;
		text_of(&d.device_role, con->role, sizeof con->role);
		text_of(&d.device_name, con->name, sizeof con->name);
		pthread_mutex_unlock(&con->mutex);
	}
	return OK;
}

int forward_error_message(const struct buffer message, const struct device_identification d, void *context)
{
	char data[512];
	text_of(&message, data, sizeof data);
	return call(context, "forward_error_message", data, &d);
}

int device_disconnected(const int kind, const struct device_identification d, void *context)
{
	char data[16];
	sprintf(data, "%d", kind);
	return call(context, "device_disconnected", data, &d);
}

int device_connected(const struct device_identification d, void *context)
{
	return call(context, "device_connected", "", &d);
}

int command_ack(const struct buffer command, const struct device_identification d, void *context)
{
	char data[512];
	text_of(&command, data, sizeof data);
	return call(context, "command_ack", data, &d);
}

int wait_for_command(int timeout, void *context)
{
	struct context *con = context;
	maybe(con, "wait_for_command");
	say(con->waits, "%s", con->car);
	for (int i = 0; i < timeout; i++) {
		pthread_mutex_lock(&con->mutex);
		int count = con->count;
		pthread_mutex_unlock(&con->mutex);
		if (count > 0 || (asked(con->attack, "pop_command") != NULL && access(con->once, F_OK) != 0))
			return OK;
		usleep(1000);
	}
	return TIMEOUT_OCCURRED;
}

static void put(struct buffer *b, const char *text)
{
	allocate(b, strlen(text));
	memcpy(b->data, text, strlen(text));
}

int pop_command(struct buffer *command, struct device_identification *d, void *context)
{
	struct context *con = context;
	const char *what = due(con, "pop_command");
	if (what != NULL && strcmp(what, "wild") == 0) {
		wild = 1;
		fprintf(stderr, "attack: about to return wild pointers\n");
		command->data = (void *)0x1000;
		command->size_in_bytes = 4096;
		return 0;
	}
	if (what != NULL && strcmp(what, "absurd") == 0) {
		put(command, "x");
		command->size_in_bytes = (size_t)-1;
		return 0;
	}
	if (what != NULL && strcmp(what, "fail") == 0)
		return -5;
	if (what != NULL && strcmp(what, "bigrole") == 0) {
		put(command, "x");
		put(&d->device_name, "n");
		allocate(&d->device_role, 20 << 20);
		memset(d->device_role.data, 'r', d->device_role.size_in_bytes);
		return 0;
	}
	if (what != NULL && strcmp(what, "bigdata") == 0) {
		put(&d->device_role, "r");
		allocate(command, 17 << 20);
		return 0;
	}
	if (what != NULL)
		attack(what);
	pthread_mutex_lock(&con->mutex);
	int left = -2;
	if (con->count > 0) {
		put(command, con->commands[0]);
		memmove(con->commands[0], con->commands[1], sizeof con->commands[0] * (size_t)--con->count);
		put(&d->device_role, con->role);
		put(&d->device_name, con->name);
		d->module = con->device.module;
		d->device_type = con->device.device_type;
		left = con->count;
	}
	pthread_mutex_unlock(&con->mutex);
	return left;
}
