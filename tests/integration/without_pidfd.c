// SPDX-License-Identifier: Apache-2.0
// Runs a program as on a kernel before Linux 6.5: getsockopt(SO_PEERPIDFD) fails with ENOPROTOOPT.
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PEERPIDFD 77 // SO_PEERPIDFD, include/uapi/asm-generic/socket.h

#if defined(__x86_64__)
#define ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#else
#error "this test's filter knows no such processor"
#endif

#define LOAD(member) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, member))
// Goes on when it is `value`, else skips `rest` instructions: to the one that allows.
#define NEED(value, rest) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, rest)

int main(int argc, char **argv)
{
    struct sock_filter filter[] = {
        LOAD(arch),
        NEED(ARCHITECTURE, 7),
        LOAD(nr),
        NEED(__NR_getsockopt, 5),
        LOAD(args[1]), // the lower half, on a little-endian machine
        NEED(SOL_SOCKET, 3),
        LOAD(args[2]),
        NEED(PEERPIDFD, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOPROTOOPT),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof(filter) / sizeof(filter[0]), .filter = filter};
    if (argc < 2) {
        fprintf(stderr, "usage: without_pidfd PROGRAM [ARGUMENT...]\n");
        return 2;
    }
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) {
        fprintf(stderr, "without_pidfd: seccomp: %s\n", strerror(errno));
        return 1;
    }
    execv(argv[1], argv + 1);
    fprintf(stderr, "without_pidfd: %s: %s\n", argv[1], strerror(errno));
    return 1;
}
