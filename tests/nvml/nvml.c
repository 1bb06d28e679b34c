/*
 * An NVML (libnvidia-ml.so.1) with the real one's ABI, whose cards are the lines of a text file.
 *
 * The file's path is in $FAKE_NVML_STATE. Every call reads it anew, so a test changes the cards while a process
 * runs. The calls are appended to the same path with ".calls": "init", "shutdown", "count", "temperature 5", ...
 * Of lines with the same first words the last one counts:
 *
 *   cards 8                   number of cards; 0 when not stated
 *   temperature 0 71          degrees Celsius of card 0; 0 when not stated, as all below
 *   utilization 0 93          percent
 *   used 0 1073741824         bytes
 *   total 0 25769803776       bytes
 *   power 0 215400            milliwatts
 *   lost 3                    card 3 has fallen off the bus: each of its calls returns NVML_ERROR_GPU_IS_LOST
 *   fail power 2 3            the call `power` of card 2 returns code 3
 *   hang temperature 5        the call `temperature` of card 5 never returns
 *   init_error 9              initialisation returns code 9
 *   driver 2                  the driver was loaded again: what was initialised under another number is void
 *
 * The calls of a card are: handle name uuid temperature utilization memory power.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, GPU_IS_LOST = 15 };

typedef struct { unsigned index; } Card, *Device;
typedef struct { unsigned gpu, memory; } Utilization;
typedef struct { unsigned long long total, free, used; } Memory;

static unsigned initialised;
static long long initialised_driver;

/* The number after the last line that begins with these words, 0 if it ends there; `otherwise` without such a line. */
__attribute__((format(printf, 2, 3))) static long long stated(long long otherwise, const char *words, ...)
{
    char key[64], line[128];
    va_list arguments;
    va_start(arguments, words);
    size_t length = vsnprintf(key, sizeof key, words, arguments);
    va_end(arguments);
    FILE *file = fopen(getenv("FAKE_NVML_STATE"), "r");
    while (fgets(line, sizeof line, file))
        if (!strncmp(line, key, length) && (line[length] == ' ' || line[length] == '\n'))
            otherwise = atoll(line + length);
    fclose(file);
    return otherwise;
}

static void record(const char *call)
{
    char path[4096];
    snprintf(path, sizeof path, "%s.calls", getenv("FAKE_NVML_STATE"));
    FILE *file = fopen(path, "a");
    fprintf(file, "%s\n", call);
    fclose(file);
}

static int usable(void)
{
    return initialised && initialised_driver == stated(1, "driver");
}

/* What a call of a card returns. */
static int outcome(const char *name, unsigned card)
{
    char call[64];
    snprintf(call, sizeof call, "%s %u", name, card);
    record(call);
    if (stated(-1, "hang %s", call) >= 0)
        for (;;) pause();
    if (!usable()) return UNINITIALIZED;
    if (stated(-1, "lost %u", card) >= 0) return GPU_IS_LOST;
    return stated(SUCCESS, "fail %s", call);
}

int nvmlInitWithFlags(unsigned flags)
{
    (void)flags;
    record("init");
    int code = stated(SUCCESS, "init_error");
    if (code != SUCCESS) return code;
    initialised++;
    initialised_driver = stated(1, "driver");
    return SUCCESS;
}

int nvmlInit_v2(void)
{
    return nvmlInitWithFlags(0);
}

int nvmlShutdown(void)
{
    record("shutdown");
    if (!initialised) return UNINITIALIZED;
    initialised--;
    return SUCCESS;
}

/* pynvml asks only for the codes that it has no text of its own for. */
const char *nvmlErrorString(int code)
{
    static char text[32];
    snprintf(text, sizeof text, "NVML's text for %d", code);
    return text;
}

int nvmlDeviceGetCount_v2(unsigned *count)
{
    record("count");
    if (!usable()) return UNINITIALIZED;
    *count = stated(0, "cards");
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, Device *device)
{
    static Card cards[64];
    if (index >= stated(0, "cards") || index >= 64) return INVALID_ARGUMENT;
    cards[index].index = index;
    *device = &cards[index];
    return outcome("handle", index);
}

int nvmlDeviceGetName(Device device, char *name, unsigned length)
{
    snprintf(name, length, "NVIDIA GeForce RTX 3090");
    return outcome("name", device->index);
}

int nvmlDeviceGetUUID(Device device, char *uuid, unsigned length)
{
    snprintf(uuid, length, "GPU-00000000-0000-0000-0000-%012u", device->index);
    return outcome("uuid", device->index);
}

int nvmlDeviceGetTemperature(Device device, int sensor, unsigned *celsius)
{
    if (sensor != 0) return INVALID_ARGUMENT;
    *celsius = stated(0, "temperature %u", device->index);
    return outcome("temperature", device->index);
}

int nvmlDeviceGetUtilizationRates(Device device, Utilization *percent)
{
    *percent = (Utilization){.gpu = stated(0, "utilization %u", device->index)};
    return outcome("utilization", device->index);
}

int nvmlDeviceGetMemoryInfo(Device device, Memory *bytes)
{
    bytes->total = stated(0, "total %u", device->index);
    bytes->used = stated(0, "used %u", device->index);
    bytes->free = bytes->total - bytes->used;
    return outcome("memory", device->index);
}

int nvmlDeviceGetPowerUsage(Device device, unsigned *milliwatts)
{
    *milliwatts = stated(0, "power %u", device->index);
    return outcome("power", device->index);
}
