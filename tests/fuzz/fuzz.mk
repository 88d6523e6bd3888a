# SPDX-License-Identifier: Apache-2.0
# Builds the fuzz targets with clang's sanitizers, apart from the rest of the build: tests/fuzz/run calls it in a folder
# of its own, with `top` set to the source tree. All that a target may need is in one archive, from which it links what
# it uses.

CC = clang
packages = libsodium libcrypto libmnl
fuzz = $(top)/tests/fuzz
targets := $(patsubst $(fuzz)/fuzz_%.c,%,$(wildcard $(fuzz)/fuzz_*.c))

# proto/ but the client library, whose peer is trusted for nothing by the same parsers.
proto_c := $(filter-out client connection guarded import release released requests rotation_requests,$(basename $(notdir $(wildcard $(top)/proto/*.c))))
# The applier's pure parts.
applier_c := device_view moves netlink netlink_peers preshared qdisc registry registry_dir uapi uapi_peers
sources := $(proto_c:%=proto/%.c) pkcs11/channel.c $(applier_c:%=tools/applier/%.c) \
	tests/unit/signer.c tests/fuzz/fuzz.c tests/fuzz/ssh_signer.c
objects := $(subst /,-,$(sources:.c=.o))

sanitize = -fsanitize=address,undefined -fno-sanitize-recover=all
CFLAGS = -g -O1 -fno-omit-frame-pointer -Wall -Wextra -Wno-unused-parameter -Werror
cflags := -std=gnu11 -D_GNU_SOURCE $(CFLAGS) $(sanitize) -I$(top) -I$(top)/proto -I$(top)/pkcs11 -I$(fuzz) \
	$(shell pkg-config --cflags $(packages))
libs := $(shell pkg-config --libs $(packages))

all: $(targets)

list:
	@echo $(targets)

define object
$(subst /,-,$(1:.c=.o)): $(top)/$(1)
	$$(CC) $$(cflags) -fsanitize=fuzzer-no-link -MMD -c -o $$@ $$<
endef
$(foreach source,$(sources),$(eval $(call object,$(source))))

fuzzed.a: $(objects)
	rm -f $@
	ar rcs $@ $(objects)

$(targets): %: $(fuzz)/fuzz_%.c fuzzed.a
	$(CC) $(cflags) -fsanitize=fuzzer -MMD -MF $@.d -o $@ $< fuzzed.a $(libs)

-include $(wildcard *.d)
.PHONY: all list
