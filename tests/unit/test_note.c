// SPDX-License-Identifier: Apache-2.0
// Signed notes: the keys and notes of golang.org/x/mod/sumdb/note's tests and examples, the rules
// of c2sp.org/signed-note, and whatever is malformed.
#include "note.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sodium.h>

#include "signer.h"
#include "tap.h"

#define NEUMANN "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
#define TEXT                                                                                       \
    "If you think cryptography is the answer to your problem,\n"                                   \
    "then you don't know what your problem is.\n"
#define BY_NEUMANN                                                                                 \
    "\u2014 PeterNeumann "                                                                         \
    "x08go/ZJkuBS9UG/"                                                                             \
    "SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
#define BY_ROOT                                                                                    \
    "\u2014 EnochRoot "                                                                            \
    "rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/"                                                 \
    "5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLox33WWd1RvMc+QQ=\n"
// The example of c2sp.org/signed-note, whose key is not published.
#define QUASIMODO                                                                                  \
    "Ognuno sta solo sul cuor della terra\ntrafitto da un raggio di sole:\n\ned è subito sera.\n"
#define BY_SALVATORE                                                                               \
    "\u2014 quasimodo.example/salvatore "                                                          \
    "NnugSzTjtVAewIS+Z/iJhUPeFDkO/"                                                                \
    "5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xMcXxj99ihAQwaqP3ZekRwNtIc=\n"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static struct note_key neumann(void)
{
    struct note_key key;
    CU_ASSERT_EQUAL_FATAL(note_key_parse(&key, NEUMANN, NULL), 0);
    return key;
}

static int verify(const char *note, const struct note_key *keys, size_t count, bool *signed_by)
{
    size_t text_length = 0;
    struct error err;
    return note_verify(note, strlen(note), keys, count, &text_length, signed_by, &err);
}

// ---- keys ----

static void test_known_key(void)
{
    struct note_key key = neumann();
    CU_ASSERT_STRING_EQUAL(key.name, "PeterNeumann");
    CU_ASSERT_EQUAL(key.id, 0xc74f20a3);
    char vkey[NOTE_VKEY_MAX];
    note_key_format(&key, vkey);
    CU_ASSERT_STRING_EQUAL(vkey, NEUMANN);
    struct note_key made;
    CU_ASSERT_EQUAL(note_key_make(&made, "PeterNeumann", key.public_key, NULL), 0);
    CU_ASSERT_EQUAL(memcmp(&made, &key, sizeof(key)), 0);
    CU_ASSERT_EQUAL(note_key_parse(&made, " \t" NEUMANN " \r\n", NULL), 0);
    CU_ASSERT_EQUAL(memcmp(&made, &key, sizeof(key)), 0);
}

// Every proper part of an encoded key, and every key with one character changed, is refused.
static void test_mangled_keys(void)
{
    static const char vkey[] = NEUMANN;
    size_t length = strlen(vkey);
    struct note_key key;
    struct error err;
    char mangled[sizeof(vkey)];
    for (size_t i = 0; i <= length; i++)
        for (size_t j = i; j <= length; j++) {
            if (i == 0 && j == length)
                continue;
            memcpy(mangled, vkey + i, j - i);
            mangled[j - i] = '\0';
            CU_ASSERT_EQUAL(note_key_parse(&key, mangled, &err), -1);
        }
    for (size_t i = 0; i < length; i++) {
        memcpy(mangled, vkey, sizeof(vkey));
        mangled[i]++;
        CU_ASSERT_EQUAL(note_key_parse(&key, mangled, &err), -1);
    }
    static const char *const bad[] = {
        "",
        "+",
        "++",
        // A longer key and another algorithm, each with the id that it would have.
        "PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==",
        "PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        // Upper-case id, a space and a newline inside.
        "PeterNeumann+C74F20A3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "Peter Neumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBf\nsVkmqq/LDE4izWy10TW",
    };
    for (size_t i = 0; i < COUNT(bad); i++)
        CU_ASSERT_EQUAL(note_key_parse(&key, bad[i], &err), -1);
}

static void test_names(void)
{
    static const uint8_t public_key[32] = {1};
    static const char *const bad[] = {
        "",          "a b",      "a+b",    "a\tb",    "a\nb",      "a\x7f",
        "a\xc2\x85", "a\u00a0b", "\u1680", "\u2003x", "x\u2028",   "x\u2029",
        "x\u202f",   "x\u205fx", "\u3000", "\xff",    "a\xc0\x80", "\xed\xa0\x80",
    };
    static const char *const good[] = {"a", "alpha/custody/log", "schl\u00fcssel", "\u9375",
                                       "\U0001f511"};
    struct note_key key;
    struct error err;
    for (size_t i = 0; i < COUNT(bad); i++)
        CU_ASSERT_EQUAL(note_key_make(&key, bad[i], public_key, &err), -1);
    for (size_t i = 0; i < COUNT(good); i++)
        CU_ASSERT_EQUAL(note_key_make(&key, good[i], public_key, &err), 0);
    char name[NOTE_NAME_MAX + 2];
    memset(name, 'n', sizeof(name));
    name[NOTE_NAME_MAX + 1] = '\0';
    CU_ASSERT_EQUAL(note_key_make(&key, name, public_key, &err), -1);
    name[NOTE_NAME_MAX] = '\0';
    CU_ASSERT_EQUAL(note_key_make(&key, name, public_key, &err), 0);
    char vkey[NOTE_VKEY_MAX];
    note_key_format(&key, vkey);
    struct note_key again;
    CU_ASSERT_EQUAL(note_key_parse(&again, vkey, &err), 0);
    CU_ASSERT_EQUAL(memcmp(&again, &key, sizeof(key)), 0);
}

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    CU_ASSERT_PTR_NOT_NULL_FATAL(file);
    fputs(text, file);
    fclose(file);
}

static void test_key_files(void)
{
    char folder[] = "/tmp/test_note.XXXXXX";
    CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(folder));
    char path[64];
    snprintf(path, sizeof(path), "%s/vkey", folder);
    struct note_key key;
    struct error err;
    CU_ASSERT_EQUAL(note_key_read(&key, path, &err), -1);
    CU_ASSERT(strstr(err.message, path) != NULL);
    write_file(path, NEUMANN "\nanything\n");
    CU_ASSERT_EQUAL(note_key_read(&key, path, &err), 0);
    CU_ASSERT_STRING_EQUAL(key.name, "PeterNeumann");
    write_file(path, NEUMANN);
    CU_ASSERT_EQUAL(note_key_read(&key, path, &err), 0);
    write_file(path, "");
    CU_ASSERT_EQUAL(note_key_read(&key, path, &err), -1);
    CU_ASSERT(strstr(err.message, path) != NULL);
    char line[1001];
    memset(line, 'x', 1000);
    line[1000] = '\0';
    write_file(path, line);
    CU_ASSERT_EQUAL(note_key_read(&key, path, &err), -1);
    CU_ASSERT_EQUAL(note_key_read(&key, folder, &err), -1);
    unlink(path);
    CU_ASSERT_EQUAL(mkfifo(path, 0600), 0);
    CU_ASSERT_EQUAL(note_key_read(&key, path, &err), -1); // and returns
    unlink(path);
    rmdir(folder);
}

// ---- notes ----

static void test_known_notes(void)
{
    struct note_key key = neumann();
    size_t text_length = 0;
    bool signed_by = false;
    static const char one[] = TEXT "\n" BY_NEUMANN;
    CU_ASSERT_EQUAL(note_verify(one, sizeof(one) - 1, &key, 1, &text_length, &signed_by, NULL), 0);
    CU_ASSERT_EQUAL(text_length, sizeof(TEXT) - 1);
    CU_ASSERT(signed_by);
    CU_ASSERT_EQUAL(verify(TEXT "\n" BY_NEUMANN BY_ROOT, &key, 1, NULL), 0);
    CU_ASSERT_EQUAL(verify(TEXT "\n" BY_ROOT BY_NEUMANN, &key, 1, NULL), 0);
    CU_ASSERT_EQUAL(verify(TEXT "\n" BY_NEUMANN BY_NEUMANN, &key, 1, NULL), 0);
    // Well formed, but by nobody we know.
    CU_ASSERT_EQUAL(verify(TEXT "\n" BY_ROOT, &key, 1, NULL), -1);
    CU_ASSERT_EQUAL(verify(QUASIMODO "\n" BY_SALVATORE, &key, 1, NULL), -1);
    CU_ASSERT_EQUAL(verify(one, NULL, 0, NULL), -1);
}

// Signing what sumdb/note signs, with its key, gives its note to the byte (Ed25519 is
// deterministic).
static void test_known_signature(void)
{
    static const char skey[] = "AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
    uint8_t encoded[33], public_key[32], secret[64], signature[64];
    CU_ASSERT_EQUAL_FATAL(sodium_base642bin(encoded, sizeof(encoded), skey, strlen(skey), NULL,
                                            NULL, NULL, sodium_base64_VARIANT_ORIGINAL),
                          0);
    crypto_sign_seed_keypair(public_key, secret, encoded + 1);
    crypto_sign_detached(signature, NULL, (const unsigned char *)TEXT, strlen(TEXT), secret);
    struct note_key key;
    char note[NOTE_MAX];
    size_t length = 0;
    CU_ASSERT_EQUAL(note_key_make(&key, "PeterNeumann", public_key, NULL), 0);
    CU_ASSERT_EQUAL(note_format(TEXT, &key, signature, note, sizeof(note), &length, NULL), 0);
    CU_ASSERT_STRING_EQUAL(note, TEXT "\n" BY_NEUMANN);
    CU_ASSERT_EQUAL(length, strlen(note));
}

static void test_format(void)
{
    struct note_key key = neumann();
    uint8_t signature[NOTE_SIGNATURE_SIZE] = {0};
    char note[NOTE_MAX];
    size_t length = 0;
    static const char *const bad[] = {"", "no newline", "a\tb\n", "a\rb\n", "\xff\n"};
    for (size_t i = 0; i < COUNT(bad); i++)
        CU_ASSERT_EQUAL(note_format(bad[i], &key, signature, note, sizeof(note), &length, NULL),
                        -1);
    CU_ASSERT_EQUAL(note_format("a\n", &key, signature, note, sizeof(note), &length, NULL), 0);
    CU_ASSERT_EQUAL(note_format("a\n", &key, signature, note, length, &length, NULL), -1);
    CU_ASSERT_EQUAL(note_format("a\n", &key, signature, note, length + 1, &length, NULL), 0);
}

static void test_altered_notes(void)
{
    struct note_key key = neumann();
    char note[] = TEXT "\n" BY_NEUMANN;
    for (size_t i = 0; i < strlen(note); i++)
        for (unsigned bit = 0; bit < 8; bit++) {
            note[i] = (char)(note[i] ^ (1 << bit));
            size_t text_length = 0;
            struct error err;
            CU_ASSERT_EQUAL(note_verify(note, sizeof(note) - 1, &key, 1, &text_length, NULL, &err),
                            -1);
            note[i] = (char)(note[i] ^ (1 << bit));
        }
    for (size_t length = 0; length < sizeof(note) - 1; length++) {
        size_t text_length = 0;
        CU_ASSERT_EQUAL(note_verify(note, length, &key, 1, &text_length, NULL, NULL), -1);
    }
}

static void test_malformed_notes(void)
{
    struct note_key key = neumann();
    static const char *const bad[] = {
        "",
        "\n",
        "\n\n",
        BY_NEUMANN,
        "\n" BY_NEUMANN,
        TEXT BY_NEUMANN,
        TEXT "\n",
        TEXT "\n" BY_NEUMANN "\n",
        TEXT "\n" BY_NEUMANN "\nmore\n",
        TEXT "\n" BY_NEUMANN "no signature\n",
        TEXT "\n" BY_NEUMANN "\u2014 EnochRoot\n",
        TEXT "\n" BY_NEUMANN "\u2014 EnochRoot \n",
        TEXT "\n" BY_NEUMANN "\u2014 EnochRoot rwz+\n",
        TEXT "\n" BY_NEUMANN "\u2014 EnochRoot rwz+eA==\n", // a key id and nothing more
        TEXT "\n" BY_NEUMANN "\u2014 EnochRoot rwz+eAF=\n", // an unused bit is set
        TEXT "\n" BY_NEUMANN "\u2014 EnochRoot rwz+eAE\n",  // not padded
        TEXT "\n" BY_NEUMANN "\u2014 EnochRoot rwz+eAE= \n",
        TEXT "\n" BY_NEUMANN "\u2014  EnochRoot rwz+eAE=\n",
        TEXT "\n" BY_NEUMANN "\u2014 Enoch+Root rwz+eAE=\n",
        TEXT "\n" BY_NEUMANN "- EnochRoot rwz+eAE=\n",
        TEXT "\n" BY_NEUMANN "\u2014 EnochRoot rwz+eAE=\r\n",
        "\tx\n" TEXT "\n" BY_NEUMANN,
        "\xff\n" TEXT "\n" BY_NEUMANN,
    };
    for (size_t i = 0; i < COUNT(bad); i++)
        CU_ASSERT_EQUAL(verify(bad[i], &key, 1, NULL), -1);
    CU_ASSERT_EQUAL(verify(TEXT "\n" BY_NEUMANN "\u2014 EnochRoot rwz+eAE=\n", &key, 1, NULL), 0);
    static const char with_nul[] = "a\0b\n" TEXT "\n" BY_NEUMANN;
    size_t text_length = 0;
    CU_ASSERT_EQUAL(note_verify(with_nul, sizeof(with_nul) - 1, &key, 1, &text_length, NULL, NULL),
                    -1);
}

// A text that must not be in a note is refused even when it is rightly signed.
static void test_signed_malformed_texts(void)
{
    static const char *const bad[] = {"a\tb\n", "a\rb\n", "\x01\n", "\xff\n", "a\xc0\x80\n"};
    struct signer signer;
    signer_make(&signer, "one", 1);
    for (size_t i = 0; i < COUNT(bad); i++) {
        uint8_t bytes[4 + NOTE_SIGNATURE_SIZE] = {
            (uint8_t)(signer.key.id >> 24), (uint8_t)(signer.key.id >> 16),
            (uint8_t)(signer.key.id >> 8), (uint8_t)signer.key.id};
        char base64[128], note[NOTE_MAX];
        crypto_sign_detached(bytes + 4, NULL, (const unsigned char *)bad[i], strlen(bad[i]),
                             signer.secret);
        sodium_bin2base64(base64, sizeof(base64), bytes, sizeof(bytes),
                          sodium_base64_VARIANT_ORIGINAL);
        snprintf(note, sizeof(note), "%s\n\u2014 one %s\n", bad[i], base64);
        CU_ASSERT_EQUAL(verify(note, &signer.key, 1, NULL), -1);
    }
}

// Signatures by several known keys, of which none may be wrong.
static void test_several_keys(void)
{
    struct signer one, two, twin;
    signer_make(&one, "one", 1);
    signer_make(&two, "two", 2);
    signer_make(&twin, "one", 3); // the name of the first, another key
    char first[NOTE_MAX], second[NOTE_MAX], note[2 * NOTE_MAX];
    signer_sign(&one, "text\n", first);
    signer_sign(&two, "text\n", second);
    const struct note_key keys[] = {two.key, twin.key, one.key};
    bool signed_by[3] = {true, true, true};
    CU_ASSERT_EQUAL(verify(first, keys, 3, signed_by), 0);
    CU_ASSERT(!signed_by[0] && !signed_by[1] && signed_by[2]);
    snprintf(note, sizeof(note), "%s%s", first, strstr(second, "\u2014"));
    CU_ASSERT_EQUAL(verify(note, keys, 3, signed_by), 0);
    CU_ASSERT(signed_by[0] && !signed_by[1] && signed_by[2]);
    CU_ASSERT_EQUAL(verify(note, &twin.key, 1, NULL), -1);
    signer_sign(&two, "other text\n", second);
    snprintf(note, sizeof(note), "%s%s", first, strstr(second, "\u2014"));
    CU_ASSERT_EQUAL(verify(note, keys, 3, NULL), -1);
    CU_ASSERT_EQUAL(verify(note, &one.key, 1, NULL), 0); // the wrong one is by a stranger here
}

static void test_limits(void)
{
    struct note_key key = neumann();
    char note[2 * NOTE_MAX] = TEXT "\n" BY_NEUMANN;
    for (size_t i = 2; i <= NOTE_SIGNATURES_MAX; i++)
        strcat(note, "\u2014 EnochRoot rwz+eAE=\n");
    CU_ASSERT_EQUAL(verify(note, &key, 1, NULL), 0);
    strcat(note, "\u2014 EnochRoot rwz+eAE=\n");
    CU_ASSERT_EQUAL(verify(note, &key, 1, NULL), -1);
    memset(note, 'x', sizeof(note));
    size_t text_length = 0;
    CU_ASSERT_EQUAL(note_verify(note, sizeof(note), &key, 1, &text_length, NULL, NULL), -1);
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"a key of sumdb/note", test_known_key},
        {"mangled keys are refused", test_mangled_keys},
        {"key names", test_names},
        {"key files", test_key_files},
        {"notes of sumdb/note and C2SP", test_known_notes},
        {"a signature of sumdb/note", test_known_signature},
        {"making notes", test_format},
        {"altered and cut notes are refused", test_altered_notes},
        {"malformed notes are refused", test_malformed_notes},
        {"malformed texts are refused though signed", test_signed_malformed_texts},
        {"several keys", test_several_keys},
        {"limits", test_limits},
        CU_TEST_INFO_NULL,
    };
    return tap_run("note", tests);
}
