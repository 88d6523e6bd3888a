// SPDX-License-Identifier: Apache-2.0
// Chooses the backend of an interface, and what both backends share.
#include "device.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

const struct device_ops *device_select(enum device_backend backend, const char *interface)
{
    struct device_identity identity;
    if (backend == DEVICE_AUTO)
        backend = device_userspace.find(interface, &identity, NULL) == 0 ? DEVICE_USERSPACE
                                                                         : DEVICE_KERNEL;
    return backend == DEVICE_USERSPACE ? &device_userspace : &device_kernel;
}

int device_backend_from_name(const char *name)
{
    static const char *const names[] = {
        [DEVICE_AUTO] = "auto", [DEVICE_KERNEL] = "kernel", [DEVICE_USERSPACE] = "userspace"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(names[i], name) == 0)
            return (int)i;
    return -1;
}

bool device_name_is_valid(const char *interface)
{
    size_t length = strlen(interface);
    if (length == 0 || length > DEVICE_NAME_MAX || strcmp(interface, ".") == 0 ||
        strcmp(interface, "..") == 0)
        return false;
    for (const char *c = interface; *c != '\0'; c++)
        if (!isgraph((unsigned char)*c) || *c == '/' || *c == ':')
            return false;
    return true;
}

bool device_identity_equal(const struct device_identity *a, const struct device_identity *b)
{
    return a->number == b->number && a->made.tv_sec == b->made.tv_sec &&
           a->made.tv_nsec == b->made.tv_nsec;
}

struct description {
    char *text;
    size_t size, used;
};

static void describe_one(const char *interface, void *context)
{
    struct description *description = context;
    if (description->used + 1 >= description->size)
        return;
    int n = snprintf(description->text + description->used, description->size - description->used,
                     "%s%s", description->used == 0 ? "" : ", ", interface);
    if (n > 0)
        description->used += (size_t)n;
}

void device_describe_all(const struct device_ops *ops, char *text, size_t size)
{
    struct description description = {text, size, 0};
    if (ops->list(describe_one, &description, NULL) == 0 && description.used == 0)
        snprintf(text, size, "none");
    else if (description.used == 0)
        snprintf(text, size, "unknown");
}

int64_t device_now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}
