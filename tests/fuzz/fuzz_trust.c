// SPDX-License-Identifier: Apache-2.0
// Fuzzes the trust file: whoever it pins is found, with a key that bears the host's name, and reads
// back from a line that is made of both.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "trust.h"

static void require_line(const struct trust_entry *entry)
{
    char vkey[NOTE_VKEY_MAX], line[HOST_MAX + NOTE_VKEY_MAX + 3];
    note_key_format(&entry->key, vkey);
    int length = snprintf(line, sizeof(line), "%s %s\n", entry->host, vkey);
    struct trust *again = trust_parse(line, (size_t)length, NULL);
    REQUIRE(again != NULL && trust_count(again) == 1);
    REQUIRE(memcmp(trust_at(again, 0), entry, sizeof(*entry)) == 0);
    trust_free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error err = {.code = ERROR_OK};
    struct trust *trust = trust_parse((const char *)data, size, &err);
    if (trust == NULL) {
        fuzz_require_refusal(&err);
        return 0;
    }
    for (size_t i = 0; i < trust_count(trust); i++) {
        const struct trust_entry *entry = trust_at(trust, i);
        char name[NOTE_NAME_MAX + 1];
        name_host_key(entry->host, name, sizeof(name));
        REQUIRE(name_is_host(entry->host) && strcmp(entry->key.name, name) == 0);
        REQUIRE(trust_find(trust, entry->host) == entry);
        REQUIRE(i == 0 || strcmp(trust_at(trust, i - 1)->host, entry->host) < 0);
        require_line(entry);
    }
    REQUIRE(trust_at(trust, trust_count(trust)) == NULL);
    trust_free(trust);
    return 0;
}
