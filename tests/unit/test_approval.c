// SPDX-License-Identifier: Apache-2.0
// The text that operators approve, and SSH signatures over it: made by ssh-keygen, and for security
// keys by PROTOCOL.u2f in software; `ssh-keygen -Y verify` accepts each.
#include "approval.h"

#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "sshsig.h"
#include "tap.h"

static const char text[] = "custody approval v1\n"
                           "host alpha\n"
                           "request 0123456789abcdef0123456789abcdef\n"
                           "operation key.destroy\n"
                           "key wg0\n"
                           "generation 3\n"
                           "expires 2026-11-27T12:00:00.000000Z\n";

static const struct {
    const char *name, *key, *signature;
} vectors[] = {
    {"ed25519",
     "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMIbfUveZgr7+kogsGXYQDkJEgcbl4/9jS"
     "AXqARIAURX",
     "U1NIU0lHAAAAAQAAADMAAAALc3NoLWVkMjU1MTkAAAAgwht9S95mCvv6SiCwZdhAOQkSBx"
     "uXj/2NIBeoBEgBRFcAAAAQY3VzdG9keS1hcHByb3ZhbAAAAAAAAAAGc2hhNTEyAAAAUwAA"
     "AAtzc2gtZWQyNTUxOQAAAECH1vmGsQlzrNP53aT7z2VkUBPSQUC8JHe1KAN6KheB6joiwW"
     "VPCKTrF4XD2jYP1WQIOIOlxNvs9t9jlEcIaRYD"},
    {"ecdsa P-256",
     "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAA"
     "BBBPmpY0no+uvdUFq1Z6N+vJVgkW4j/wRWOPJy/nDAtyfHrKHdCEseCYLk4CPQTNXb8N/R"
     "2FsT2EKLUHl+r6iQM1w=",
     "U1NIU0lHAAAAAQAAAGgAAAATZWNkc2Etc2hhMi1uaXN0cDI1NgAAAAhuaXN0cDI1NgAAAE"
     "EE+aljSej6691QWrVno368lWCRbiP/BFY48nL+cMC3J8esod0ISx4JguTgI9BM1dvw39HY"
     "WxPYQotQeX6vqJAzXAAAABBjdXN0b2R5LWFwcHJvdmFsAAAAAAAAAAZzaGE1MTIAAABkAA"
     "AAE2VjZHNhLXNoYTItbmlzdHAyNTYAAABJAAAAIBN3qTOM5sB3B4e3Agkklo5a3PSpVQpf"
     "WuCOPbhWxpAHAAAAIQCOZyc8fXvqRlvEDPOnTmj7YdkDTcDC2rMb5ozXfTR7xw=="},
    {"ed25519 on a security key",
     "sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAA"
     "AIAOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4AAAABHNzaDo=",
     "U1NIU0lHAAAAAQAAAEoAAAAac2stc3NoLWVkMjU1MTlAb3BlbnNzaC5jb20AAAAgA6EHv/"
     "POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbgAAAAEc3NoOgAAABBjdXN0b2R5LWFwcHJv"
     "dmFsAAAAAAAAAAZzaGE1MTIAAABnAAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAA"
     "AAQBOONbkJwBxROZuSORgGkVG+IH4UYeIG6E2KQHsWB5N8oXc/Bg0kW/12P81/ztQdTc0A"
     "Z+yY1ejhg+Hjcx0h8QoBAAAABw=="},
    {"ecdsa P-256 on a security key",
     "sk-ecdsa-sha2-nistp256@openssh.com AAAAInNrLWVjZHNhLXNoYTItbmlzdHAyNTZ"
     "Ab3BlbnNzaC5jb20AAAAIbmlzdHAyNTYAAABBBHyrRrWNaK9mq9SDebWBQBR58u39lqdmT"
     "nr4a+VLOz9Td/B5B+yr7FuPztTYqUji3g71Y/nOUiyQr/LFp46nWe4AAAAEc3NoOg==",
     "U1NIU0lHAAAAAQAAAH8AAAAic2stZWNkc2Etc2hhMi1uaXN0cDI1NkBvcGVuc3NoLmNvbQ"
     "AAAAhuaXN0cDI1NgAAAEEEfKtGtY1or2ar1IN5tYFAFHny7f2Wp2ZOevhr5Us7P1N38HkH"
     "7KvsW4/O1NipSOLeDvVj+c5SLJCv8sWnjqdZ7gAAAARzc2g6AAAAEGN1c3RvZHktYXBwcm"
     "92YWwAAAAAAAAABnNoYTUxMgAAAHkAAAAic2stZWNkc2Etc2hhMi1uaXN0cDI1NkBvcGVu"
     "c3NoLmNvbQAAAEoAAAAhAIn/DIL1UG1GqrasbyCXHsz0oM8RD5PNJuN1OsmNG0B8AAAAIQ"
     "C8CsM00X2slNbag+xjSPJo0mxZB82/MekAs/SCd3EsHwEAAAAH"},
};
#define VECTORS (sizeof(vectors) / sizeof(vectors[0]))

// The key of the third vector, when nobody touched it.
static const char untouched[] =
    "U1NIU0lHAAAAAQAAAEoAAAAac2stc3NoLWVkMjU1MTlAb3BlbnNzaC5jb20AAAAgA6EHv/"
    "POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbgAAAAEc3NoOgAAABBjdXN0b2R5LWFwcHJv"
    "dmFsAAAAAAAAAAZzaGE1MTIAAABnAAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAA"
    "AAQM4PB9NOLBxKMVl0UvrXNU35Bdqy9ghc7OM7OChm88GjVr2XPCefEzb1PgkNvDsMZnqa"
    "kYa8TSdVCXZsg4NYxQEAAAAABw==";

static const char armoured[] =
    "-----BEGIN SSH SIGNATURE-----\n"
    "U1NIU0lHAAAAAQAAADMAAAALc3NoLWVkMjU1MTkAAAAgwht9S95mCvv6SiCwZdhAOQkSBx\n"
    "uXj/2NIBeoBEgBRFcAAAAQY3VzdG9keS1hcHByb3ZhbAAAAAAAAAAGc2hhNTEyAAAAUwAA\n"
    "AAtzc2gtZWQyNTUxOQAAAECH1vmGsQlzrNP53aT7z2VkUBPSQUC8JHe1KAN6KheB6joiwW\n"
    "VPCKTrF4XD2jYP1WQIOIOlxNvs9t9jlEcIaRYD\n"
    "-----END SSH SIGNATURE-----\n";

static struct record request(void)
{
    struct record r;
    memset(&r, 0, sizeof(r));
    r.event = RECORD_APPROVAL_REQUESTED;
    strcpy(r.host, "alpha");
    strcpy(r.request_id, "0123456789abcdef0123456789abcdef");
    r.operation = OPERATION_KEY_DESTROY;
    strcpy(r.key, "wg0");
    r.generation = 3;
    record_time_parse("2026-11-27T12:00:00.000000Z", 27, &r.expires_us);
    return r;
}

static int verify(const char *key, const char *signature, struct error *err)
{
    return sshsig_verify(key, APPROVAL_NAMESPACE, text, strlen(text), signature, err);
}

static void test_text(void)
{
    char out[APPROVAL_TEXT_MAX];
    struct record r = request();
    CU_ASSERT_EQUAL(approval_text(&r, out), (int)strlen(text));
    CU_ASSERT_STRING_EQUAL(out, text);
    r.operation = OPERATION_NONE;
    CU_ASSERT_EQUAL(approval_text(&r, out), -1);
}

static void test_loss(void)
{
    char out[APPROVAL_TEXT_MAX], id[RECORD_REQUEST_MAX + 1];
    struct record r = request();
    r.operation = OPERATION_ACCEPT_LOSS;
    r.old_size = 12;
    r.new_size = 9;
    memset(r.old_root, 1, sizeof(r.old_root));
    CU_ASSERT_EQUAL(approval_loss_id(&r, r.request_id), 0);
    CU_ASSERT(approval_text(&r, out) > 0);
    CU_ASSERT_PTR_NOT_NULL(strstr(out, "operation log.accept-loss\nold-size 12\nold-root AQEB"));
    CU_ASSERT_PTR_NOT_NULL(strstr(out, "\nnew-size 9\nnew-root AAAA"));
    // The same heads, the same request; others, another.
    CU_ASSERT_EQUAL(approval_loss_id(&r, id), 0);
    CU_ASSERT_STRING_EQUAL(id, r.request_id);
    r.new_root[31] = 1;
    CU_ASSERT_EQUAL(approval_loss_id(&r, id), 0);
    CU_ASSERT_STRING_NOT_EQUAL(id, r.request_id);
}

static void test_vectors(void)
{
    for (size_t i = 0; i < VECTORS; i++)
        for (size_t key = 0; key < VECTORS; key++) {
            struct error err = {.message = ""};
            int result = verify(vectors[key].key, vectors[i].signature, &err);
            CU_ASSERT_EQUAL(result, key == i ? 0 : -1);
        }
}

static void test_approval(void)
{
    struct record requested = request(), given;
    memset(&given, 0, sizeof(given));
    strcpy(given.request_id, requested.request_id);
    strcpy(given.operator_key, vectors[0].key);
    strcpy(given.signature, vectors[0].signature);
    CU_ASSERT_EQUAL(approval_verify(&requested, &given, NULL), 0);
    requested.generation = 4;
    CU_ASSERT_EQUAL(approval_verify(&requested, &given, NULL), -1);
    requested.generation = 3;
    strcpy(given.request_id, "1123456789abcdef0123456789abcdef");
    CU_ASSERT_EQUAL(approval_verify(&requested, &given, NULL), -1);
}

// Each character of a signature altered, each length cut: never accepted, never read beyond.
static void test_altered(void)
{
    static char altered[RECORD_SIGNATURE_MAX + 1];
    for (size_t i = 0; i < VECTORS; i++) {
        size_t length = strlen(vectors[i].signature);
        for (size_t at = 0; at < length; at++) {
            strcpy(altered, vectors[i].signature);
            altered[at] = altered[at] == 'A' ? 'B' : 'A';
            CU_ASSERT_EQUAL(verify(vectors[i].key, altered, NULL), -1);
            altered[at] = '\0';
            CU_ASSERT_EQUAL(verify(vectors[i].key, altered, NULL), -1);
        }
    }
}

static void test_refused(void)
{
    struct error err;
    const char *signature = vectors[0].signature;
    CU_ASSERT_EQUAL(sshsig_verify(vectors[0].key, "file", text, strlen(text), signature, &err), -1);
    CU_ASSERT_PTR_NOT_NULL(strstr(err.message, "namespace"));
    CU_ASSERT_EQUAL(
        sshsig_verify(vectors[0].key, APPROVAL_NAMESPACE, text, strlen(text) - 1, signature, &err),
        -1);
    CU_ASSERT_PTR_NOT_NULL(strstr(err.message, "not one over this text"));
    CU_ASSERT_EQUAL(verify(vectors[2].key, untouched, &err), -1);
    CU_ASSERT_PTR_NOT_NULL(strstr(err.message, "nobody touched"));
    CU_ASSERT_EQUAL(verify("ssh-rsa AAAAB3NzaC1yc2E=", signature, &err), -1);
    CU_ASSERT_PTR_NOT_NULL(strstr(err.message, "only ed25519 and ecdsa"));
}

static void test_keys(void)
{
    char key[RECORD_OPERATOR_KEY_MAX + 1];
    for (size_t i = 0; i < VECTORS; i++) {
        CU_ASSERT_EQUAL(sshsig_check_key(vectors[i].key, NULL), 0);
        strcpy(key, vectors[i].key);
        strcat(key, " ann@host");
        CU_ASSERT_EQUAL(sshsig_check_key(key, NULL), -1);
        key[strlen(vectors[i].key) - 8] = '\0';
        CU_ASSERT_EQUAL(sshsig_check_key(key, NULL), -1);
    }
    CU_ASSERT_EQUAL(sshsig_check_key("", NULL), -1);
    CU_ASSERT_EQUAL(sshsig_check_key("ssh-ed25519", NULL), -1);
}

static void test_armour(void)
{
    char base64[RECORD_SIGNATURE_MAX + 1], small[64];
    CU_ASSERT_EQUAL(sshsig_from_armour(armoured, strlen(armoured), base64, sizeof(base64), NULL),
                    0);
    CU_ASSERT_STRING_EQUAL(base64, vectors[0].signature);
    CU_ASSERT_EQUAL(sshsig_from_armour(armoured, strlen(armoured), small, sizeof(small), NULL), -1);
    CU_ASSERT_EQUAL(sshsig_from_armour(armoured, 200, base64, sizeof(base64), NULL), -1);
    CU_ASSERT_EQUAL(sshsig_from_armour("", 0, base64, sizeof(base64), NULL), -1);
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"the text of a destruction", test_text},
        {"the text and id of a loss", test_loss},
        {"each kind of signature, by its key alone", test_vectors},
        {"an approval is of its request", test_approval},
        {"altered and cut signatures", test_altered},
        {"what is refused, and why", test_refused},
        {"keys", test_keys},
        {"armour", test_armour},
        CU_TEST_INFO_NULL,
    };
    return sodium_init() < 0 ? EXIT_FAILURE : tap_run("approval", tests);
}
