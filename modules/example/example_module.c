/*
 * The example module: number 1000, one kind of device (type 0, a button with a
 * lamp). It accepts every status and, as long as a button is connected, keeps
 * commanding the first one to switch its lamp off. Copy this file to start a
 * module of your own; fleet_protocol_module.h says who owns what and who calls
 * when.
 *
 * Configuration (all values are text):
 *   command_interval_ms   whole number 1 ... 86400000. Without it, every
 *                         wait_for_command() sleeps its full timeout and then
 *                         has a command (the classic behaviour of this module).
 *                         With it, a command becomes due each interval, counted
 *                         from the first device on, and the wait ends at once
 *                         when one is due. Late ones are not made up for.
 *   everything else       ignored
 */
#define _POSIX_C_SOURCE 200809L

#include <limits.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fleet_protocol_module.h"

enum {
    MODULE_NUMBER = 1000,
    BUTTON = 0,          /* the only device type */
    NOTHING_TO_POP = -2, /* pop_command() again without a new wait */
    UNKNOWN_DEVICE = -3  /* device_disconnected() of a device we never saw */
};

static const char COMMAND[] = "{\"lit_up\": false}";
static const int64_t MAX_INTERVAL_MS = 86400000;

/* A device as we keep it: with copies of its own (MOD-1). */
struct device {
    int module;
    unsigned int type;
    struct buffer role;
    struct buffer name;
    struct device *next;
};

/* All there is about one car. The mutex is needed: wait_for_command() runs
 * together with the other calls (MOD-5). */
struct context {
    pthread_mutex_t mutex;
    pthread_cond_t changed;  /* devices came or went */
    struct device *devices;  /* in the order in which they connected */
    int64_t interval_ms;     /* 0: sleep the full timeout */
    int64_t due_ms;          /* when the next command is due; interval mode */
    bool popped;             /* the command of the last wait was taken */
};

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Waits for a change or the moment, whichever is first. Spurious wake-ups are
 * the caller's business. */
static void wait_until(struct context *con, int64_t moment_ms)
{
    struct timespec moment;
    moment.tv_sec = (time_t)(moment_ms / 1000);
    moment.tv_nsec = (long)(moment_ms % 1000) * 1000000;
    pthread_cond_timedwait(&con->changed, &con->mutex, &moment);
}

/* ---- Buffers ---- */

int allocate(struct buffer *buffer, size_t n)
{
    if (buffer == NULL)
        return NOT_OK;
    void *data = NULL;
    if (n > 0) {
        data = malloc(n);
        if (data == NULL)
            return NOT_OK;
    }
    buffer->data = data;
    buffer->size_in_bytes = n;
    return OK;
}

void deallocate(struct buffer *buffer)
{
    if (buffer == NULL)
        return;
    free(buffer->data);
    buffer->data = NULL;
    buffer->size_in_bytes = 0;
}

static int copy_bytes(struct buffer *to, const void *data, size_t n)
{
    if (allocate(to, n) != OK)
        return NOT_OK;
    if (n > 0)
        memcpy(to->data, data, n);
    return OK;
}

static bool same_bytes(const struct buffer *a, const struct buffer *b)
{
    return a->size_in_bytes == b->size_in_bytes &&
           (a->size_in_bytes == 0 || memcmp(a->data, b->data, a->size_in_bytes) == 0);
}

static bool is_text(const struct buffer *buffer, const char *text)
{
    size_t n = strlen(text);
    return buffer->size_in_bytes == n && memcmp(buffer->data, text, n) == 0;
}

/* ---- Devices ---- */

static void free_device(struct device *device)
{
    if (device == NULL)
        return;
    deallocate(&device->role);
    deallocate(&device->name);
    free(device);
}

static struct device *copy_device(const struct device_identification *from)
{
    struct device *device = calloc(1, sizeof *device);
    if (device == NULL)
        return NULL;
    device->module = from->module;
    device->type = from->device_type;
    if (copy_bytes(&device->role, from->device_role.data, from->device_role.size_in_bytes) != OK ||
        copy_bytes(&device->name, from->device_name.data, from->device_name.size_in_bytes) != OK) {
        free_device(device);
        return NULL;
    }
    return device;
}

/* Returns the link that points to the device, or the empty link at the end of
 * the list: both adding and removing need exactly that. */
static struct device **find_device(struct context *con, const struct device_identification *wanted)
{
    struct device **link = &con->devices;
    while (*link != NULL) {
        struct device *device = *link;
        if (device->module == wanted->module && device->type == wanted->device_type &&
            same_bytes(&device->role, &wanted->device_role) && same_bytes(&device->name, &wanted->device_name))
            break;
        link = &device->next;
    }
    return link;
}

/* ---- The module ---- */

int get_module_number(void)
{
    return MODULE_NUMBER;
}

int is_device_type_supported(unsigned int device_type)
{
    return device_type == BUTTON ? OK : NOT_OK;
}

/* Reads a number that is not terminated by NUL (MOD-3). */
static bool read_interval(const struct buffer *text, int64_t *interval_ms)
{
    const char *digits = text->data;
    int64_t number = 0;
    if (text->size_in_bytes == 0)
        return false;
    for (size_t i = 0; i < text->size_in_bytes; i++) {
        if (digits[i] < '0' || digits[i] > '9')
            return false;
        number = number * 10 + (digits[i] - '0');
        if (number > MAX_INTERVAL_MS)
            return false;
    }
    *interval_ms = number;
    return number > 0;
}

void *init(const struct config config_data)
{
    struct context *con = calloc(1, sizeof *con);
    if (con == NULL)
        return NULL;
    for (size_t i = 0; i < config_data.size; i++) {
        const struct key_value *pair = &config_data.parameters[i];
        if (is_text(&pair->key, "command_interval_ms") && !read_interval(&pair->value, &con->interval_ms)) {
            fprintf(stderr, "example module: command_interval_ms must be a whole number from 1 to %lld\n",
                    (long long)MAX_INTERVAL_MS);
            free(con);
            return NULL;
        }
    }

    /* The monotonic clock: no call waits for an hour because a clock was set. */
    pthread_condattr_t attributes;
    if (pthread_condattr_init(&attributes) != 0) {
        free(con);
        return NULL;
    }
    bool made = pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC) == 0 &&
                pthread_cond_init(&con->changed, &attributes) == 0;
    pthread_condattr_destroy(&attributes);
    if (!made) {
        free(con);
        return NULL;
    }
    if (pthread_mutex_init(&con->mutex, NULL) != 0) {
        pthread_cond_destroy(&con->changed);
        free(con);
        return NULL;
    }
    return con;
}

int destroy(void **context)
{
    if (context == NULL || *context == NULL)
        return CONTEXT_INCORRECT;
    struct context *con = *context;
    while (con->devices != NULL) {
        struct device *next = con->devices->next;
        free_device(con->devices);
        con->devices = next;
    }
    pthread_cond_destroy(&con->changed);
    pthread_mutex_destroy(&con->mutex);
    free(con);
    *context = NULL;
    return OK;
}

int device_connected(const struct device_identification device, void *context)
{
    struct context *con = context;
    if (con == NULL)
        return CONTEXT_INCORRECT;
    if (is_device_type_supported(device.device_type) != OK)
        return NOT_OK;

    int result = OK;
    pthread_mutex_lock(&con->mutex);
    struct device **link = find_device(con, &device);
    if (*link == NULL) { /* connecting twice changes nothing */
        bool first = con->devices == NULL;
        *link = copy_device(&device);
        if (*link == NULL) {
            result = NOT_OK;
        } else if (first) {
            con->due_ms = now_ms() + con->interval_ms;
            pthread_cond_signal(&con->changed);
        }
    }
    pthread_mutex_unlock(&con->mutex);
    return result;
}

int device_disconnected(const int disconnect_type, const struct device_identification device, void *context)
{
    (void)disconnect_type; /* whatever the reason, the device is gone */
    struct context *con = context;
    if (con == NULL)
        return CONTEXT_INCORRECT;

    pthread_mutex_lock(&con->mutex);
    struct device **link = find_device(con, &device);
    struct device *found = *link;
    if (found != NULL)
        *link = found->next;
    pthread_mutex_unlock(&con->mutex);

    free_device(found);
    return found != NULL ? OK : UNKNOWN_DEVICE;
}

int forward_status(const struct buffer device_status, const struct device_identification device, void *context)
{
    /* A button sends {"pressed": true} or {"pressed": false}. A real module
     * reads it here, or copies it for a thread of its own. */
    (void)device_status;
    (void)device;
    return context != NULL ? OK : CONTEXT_INCORRECT;
}

int forward_error_message(const struct buffer error_msg, const struct device_identification device, void *context)
{
    (void)error_msg;
    (void)device;
    return context != NULL ? OK : CONTEXT_INCORRECT;
}

int command_ack(const struct buffer command, const struct device_identification device, void *context)
{
    (void)command;
    (void)device;
    return context != NULL ? OK : CONTEXT_INCORRECT;
}

/* ---- Commands ---- */

int wait_for_command(int timeout_time_in_ms, void *context)
{
    struct context *con = context;
    if (con == NULL)
        return CONTEXT_INCORRECT;
    const int64_t end = now_ms() + (timeout_time_in_ms > 0 ? timeout_time_in_ms : 0);
    int result = TIMEOUT_OCCURRED;

    pthread_mutex_lock(&con->mutex);
    for (;;) {
        const int64_t now = now_ms();
        const bool has_device = con->devices != NULL;
        if (con->interval_ms == 0) {
            if (now >= end) {
                result = has_device ? OK : TIMEOUT_OCCURRED;
                break;
            }
            wait_until(con, end);
            continue;
        }
        if (has_device && now >= con->due_ms) {
            con->due_ms += con->interval_ms;
            if (con->due_ms <= now) /* we are behind: skip, do not pile up */
                con->due_ms = now + con->interval_ms;
            result = OK;
            break;
        }
        if (now >= end)
            break;
        wait_until(con, has_device && con->due_ms < end ? con->due_ms : end);
    }
    con->popped = false;
    pthread_mutex_unlock(&con->mutex);
    return result;
}

int pop_command(struct buffer *command, struct device_identification *device, void *context)
{
    struct context *con = context;
    if (con == NULL)
        return CONTEXT_INCORRECT;
    if (command == NULL || device == NULL)
        return NOT_OK;

    int result = NOT_OK;
    pthread_mutex_lock(&con->mutex);
    const struct device *first = con->devices;
    if (first == NULL) {
        result = 0; /* the outputs stay empty */
    } else if (con->popped) {
        result = NOTHING_TO_POP;
    } else if (copy_bytes(command, COMMAND, strlen(COMMAND)) == OK &&
               copy_bytes(&device->device_role, first->role.data, first->role.size_in_bytes) == OK &&
               copy_bytes(&device->device_name, first->name.data, first->name.size_in_bytes) == OK) {
        /* On failure the server deallocates what was made so far (MOD-2). */
        device->module = first->module;
        device->device_type = first->type;
        device->priority = 0;
        con->popped = true;
        result = 1; /* this module always claims one more; a module of yours
                     * returns how many commands really remain */
    }
    pthread_mutex_unlock(&con->mutex);
    return result;
}
