/*
 * fleet_protocol_module.h - the interface between the External Server and a
 * module: a shared library that understands the devices of one module number.
 *
 * A module is loaded once per process (dlopen). For every car it serves, the
 * server calls init() and receives one context; all later calls name it.
 *
 *     init -> device_connected / forward_status / ... -> destroy
 *                wait_for_command, pop_command, pop_command, wait_...
 *
 * WHO OWNS WHAT
 *   Into the module   Structs are passed by value, the bytes behind them belong
 *   (MOD-1)           to the server and are valid during the call only. Copy
 *                     what you keep.
 *   Out of the module pop_command() fills buffers with memory of the module. The
 *   (MOD-2)           server copies the bytes and gives all three buffers back
 *                     through deallocate(), also when pop_command() failed.
 *                     Nobody else's free() ever touches them.
 *   Length, not NUL   Buffers are as long as size_in_bytes says. They are not
 *   (MOD-3)           terminated by NUL and may contain NUL. Text is UTF-8.
 *
 * WHO CALLS WHEN
 *   Different contexts are used at the same time by different threads (MOD-5).
 *   One context: one call at a time, EXCEPT that wait_for_command() may run
 *   together with one other call. pop_command() never overlaps
 *   wait_for_command() (MOD-6). Any call may come from any thread; do not rely
 *   on thread-local state.
 *   After destroy() no call uses the context again (MOD-4).
 *
 * Plain C11; a C++ compiler may read it as well.
 */
#ifndef FLEET_PROTOCOL_MODULE_H
#define FLEET_PROTOCOL_MODULE_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#define FLEET_PROTOCOL_STATIC_ASSERT(condition, text) static_assert(condition, text)
#else
#define FLEET_PROTOCOL_STATIC_ASSERT(condition, text) _Static_assert(condition, text)
#endif

/* Put before every function below, so that a library may be compiled with
 * -fvisibility=hidden and still shows the server what it needs. */
#if defined(__GNUC__)
#define FLEET_PROTOCOL_EXPORT __attribute__((visibility("default")))
#else
#define FLEET_PROTOCOL_EXPORT
#endif

/* Results. -1 to -9 are generic errors and free for the module's own use. */
enum {
    OK = 0,
    NOT_OK = -1,
    RESERVED = -10,
    CONTEXT_INCORRECT = RESERVED - 1, /* the context is NULL or not ours */
    TIMEOUT_OCCURRED = RESERVED - 2   /* nothing happened in the time given */
};

/* Why a device left: the first argument of device_disconnected(). */
enum {
    DISCONNECT_ANNOUNCED = 0, /* the device or its gateway said so */
    DISCONNECT_TIMEOUT = 1,   /* the session with the car ended */
    DISCONNECT_ERROR = 2      /* reserved */
};

/* A run of bytes. data may be NULL only when size_in_bytes is 0. */
struct buffer {
    void *data;
    size_t size_in_bytes;
};

/* A device. Role and name are UTF-8. The server passes priority 0 in every
 * call (MOD-11, MOD-12); identify a device by the fields before it. */
struct device_identification {
    int module;
    unsigned int device_type;
    struct buffer device_role;
    struct buffer device_name;
    unsigned int priority;
};

/* One configuration value; both parts are UTF-8 text. */
struct key_value {
    struct buffer key;
    struct buffer value;
};

/* What init() receives: company_name, car_name, then the pairs of the module's
 * "config" object in the order of the configuration file (MOD-8). */
struct config {
    struct key_value *parameters;
    size_t size; /* number of pairs */
};

/* The layout is the contract. Natural alignment, as the C compiler does it;
 * #pragma pack around this header breaks it, and breaks it here. */
FLEET_PROTOCOL_STATIC_ASSERT(offsetof(struct buffer, data) == 0, "buffer.data");
FLEET_PROTOCOL_STATIC_ASSERT(offsetof(struct buffer, size_in_bytes) == sizeof(void *), "buffer.size_in_bytes");
FLEET_PROTOCOL_STATIC_ASSERT(sizeof(struct key_value) == 2 * sizeof(struct buffer), "key_value");
FLEET_PROTOCOL_STATIC_ASSERT(offsetof(struct config, size) == sizeof(void *), "config.size");
#if defined(__LP64__)
FLEET_PROTOCOL_STATIC_ASSERT(sizeof(int) == 4, "int");
FLEET_PROTOCOL_STATIC_ASSERT(sizeof(struct buffer) == 16, "buffer");
FLEET_PROTOCOL_STATIC_ASSERT(offsetof(struct device_identification, module) == 0, "module");
FLEET_PROTOCOL_STATIC_ASSERT(offsetof(struct device_identification, device_type) == 4, "device_type");
FLEET_PROTOCOL_STATIC_ASSERT(offsetof(struct device_identification, device_role) == 8, "device_role");
FLEET_PROTOCOL_STATIC_ASSERT(offsetof(struct device_identification, device_name) == 24, "device_name");
FLEET_PROTOCOL_STATIC_ASSERT(offsetof(struct device_identification, priority) == 40, "priority");
FLEET_PROTOCOL_STATIC_ASSERT(sizeof(struct device_identification) == 48, "device_identification");
FLEET_PROTOCOL_STATIC_ASSERT(sizeof(struct key_value) == 32, "key_value on LP64");
FLEET_PROTOCOL_STATIC_ASSERT(sizeof(struct config) == 16, "config");
#endif

/* ---- Functions without a context. Called at any time, by any thread. ---- */

/* The module number, the same at every call. It must be the number under which
 * the library is configured, or the server does not start (MOD-10). */
FLEET_PROTOCOL_EXPORT int get_module_number(void);

/* OK when the module serves this device type, else NOT_OK. The answer for one
 * type must not change; the server remembers it. Must not block. */
FLEET_PROTOCOL_EXPORT int is_device_type_supported(unsigned int device_type);

/* Gives the buffer n bytes of the module's memory: OK, or NOT_OK and the buffer
 * stays unchanged. The server does not call it, yet requires it to exist. */
FLEET_PROTOCOL_EXPORT int allocate(struct buffer *buffer, size_t n);

/* Frees what allocate() or pop_command() put into the buffer and sets its size
 * to 0. Must accept a zeroed buffer. */
FLEET_PROTOCOL_EXPORT void deallocate(struct buffer *buffer);

/* ---- Life of a context. ---- */

/* Makes the context of one car, or returns NULL (configuration not usable, no
 * memory). Say why on stderr, without the values: they may be secret. */
FLEET_PROTOCOL_EXPORT void *init(const struct config config_data);

/* Ends a context, called once, when no other call is running; sets *context to
 * NULL and returns OK. */
FLEET_PROTOCOL_EXPORT int destroy(void **context);

/* ---- From the car to the module: OK, CONTEXT_INCORRECT, TIMEOUT_OCCURRED or
 * NOT_OK. A call that takes long delays the module's later calls of that car,
 * never the car's connection. ---- */

FLEET_PROTOCOL_EXPORT int forward_status(const struct buffer device_status,
                                         const struct device_identification device, void *context);

FLEET_PROTOCOL_EXPORT int forward_error_message(const struct buffer error_msg,
                                                const struct device_identification device, void *context);

/* disconnect_type is one of DISCONNECT_... */
FLEET_PROTOCOL_EXPORT int device_disconnected(const int disconnect_type,
                                              const struct device_identification device, void *context);

FLEET_PROTOCOL_EXPORT int device_connected(const struct device_identification device, void *context);

/* The car has received this command. */
FLEET_PROTOCOL_EXPORT int command_ack(const struct buffer command,
                                      const struct device_identification device, void *context);

/* ---- From the module to the car. ---- */

/* Blocks until a command is available (OK) or the time is over
 * (TIMEOUT_OCCURRED). Called once after init(), and again and again while a
 * device of the car is connected. Return within timeout_time_in_ms: a server that is being
 * stopped waits for this call (MOD-15). An error is retried with growing
 * pauses. */
FLEET_PROTOCOL_EXPORT int wait_for_command(int timeout_time_in_ms, void *context);

/* Takes the next command out, called after wait_for_command() returned OK. Both
 * structs come zeroed; fill in all three buffers with memory that deallocate()
 * can free. Returns how many commands remain (the server goes on until 0), or an
 * error (MOD-14). */
FLEET_PROTOCOL_EXPORT int pop_command(struct buffer *command, struct device_identification *device,
                                      void *context);

#ifdef __cplusplus
}
#endif

#endif
