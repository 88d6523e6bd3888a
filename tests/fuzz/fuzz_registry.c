// SPDX-License-Identifier: Apache-2.0
// Fuzzes the names of notes in a registry: what is taken is written again in just one way.
#include <string.h>

#include "fuzz.h"
#include "tools/applier/registry.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char name[512], path[REGISTRY_PATH_MAX + 1], host[HOST_MAX + 1], key[KEY_MAX + 1];
    uint64_t generation;
    if (size >= sizeof(name))
        return 0;
    memcpy(name, data, size);
    name[size] = '\0';
    if (registry_bundle_name(name, &generation)) {
        REQUIRE(generation > 0);
        registry_bundle_path(path, "a", "b", generation);
        REQUIRE(strcmp(path + strlen("a/b/"), name) == 0);
    }
    if (registry_ack_name(name, &generation, host, key)) {
        REQUIRE(generation > 0 && name_is_host(host) && name_is_key(key));
        REQUIRE(strlen(name) <= REGISTRY_NAME_MAX);
        registry_ack_path(path, "a", "b", generation, host, key);
        REQUIRE(strcmp(path + strlen("a/b/"), name) == 0);
    }
    return 0;
}
