// SPDX-License-Identifier: Apache-2.0
// The trust file: what it may say, how it is changed, and whose note is taken on its account.
#include "trust.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sodium.h>

#include "signer.h"
#include "tap.h"

static char dir[] = "/tmp/custody-trust-XXXXXX";
static char path[64], new_path[72];
static struct signer alpha, beta, other;
static char alpha_vkey[NOTE_VKEY_MAX], beta_vkey[NOTE_VKEY_MAX], other_vkey[NOTE_VKEY_MAX];

static void write_text(const char *text)
{
    FILE *file = fopen(path, "w");
    CU_ASSERT_PTR_NOT_NULL_FATAL(file);
    fputs(text, file);
    fclose(file);
}

static void file_is(const char *text)
{
    char bytes[4096] = "";
    FILE *file = fopen(path, "r");
    CU_ASSERT_PTR_NOT_NULL_FATAL(file);
    size_t length = fread(bytes, 1, sizeof(bytes) - 1, file);
    fclose(file);
    bytes[length] = '\0';
    CU_ASSERT_STRING_EQUAL(bytes, text);
    CU_ASSERT(access(new_path, F_OK) != 0 && errno == ENOENT);
}

static void refuses(const char *text, const char *words)
{
    struct error err = {.message = ""};
    write_text(text);
    struct trust *trust = trust_read(path, false, &err);
    CU_ASSERT_PTR_NULL(trust);
    CU_ASSERT_EQUAL(err.code, ERROR_INVALID_ARGUMENT);
    CU_ASSERT_PTR_NOT_NULL(strstr(err.message, path));
    CU_ASSERT_PTR_NOT_NULL(strstr(err.message, words));
    if (strstr(err.message, words) == NULL)
        printf("# '%s' is not '%s'\n", err.message, words);
    trust_free(trust);
}

// ---- reading ----

static void test_reading(void)
{
    char text[1024];
    snprintf(text, sizeof(text), "# who signs\n\nbeta %s\n\t alpha\t%s \n#alpha x\n", beta_vkey,
             alpha_vkey);
    write_text(text);
    struct trust *trust = trust_read(path, true, NULL);
    CU_ASSERT_PTR_NOT_NULL_FATAL(trust);
    CU_ASSERT_EQUAL(trust_count(trust), 2);
    CU_ASSERT_STRING_EQUAL(trust_at(trust, 0)->host, "alpha");
    CU_ASSERT_STRING_EQUAL(trust_at(trust, 1)->host, "beta");
    CU_ASSERT_PTR_NULL(trust_at(trust, 2));
    CU_ASSERT_PTR_EQUAL(trust_find(trust, "beta"), trust_at(trust, 1));
    CU_ASSERT_PTR_NULL(trust_find(trust, "gamma"));
    CU_ASSERT_EQUAL(trust_find(trust, "alpha")->key.id, alpha.key.id);
    trust_free(trust);
    trust_free(NULL);
}

static void test_refused(void)
{
    char text[1024];
    snprintf(text, sizeof(text), "alpha %s\n\nalpha %s\n", alpha_vkey, alpha_vkey);
    refuses(text, "line 3: host alpha stands there already");
    snprintf(text, sizeof(text), "# x\nalpha %s\n", beta_vkey);
    refuses(text, "line 2: host alpha: the key's name is beta/custody/host where "
                  "alpha/custody/host must stand");
    snprintf(text, sizeof(text), "Alpha %s\n", alpha_vkey);
    refuses(text, "line 1: 'Alpha' is no host id");
    refuses("alpha\n", "line 1: a host id and its verifier key");
    snprintf(text, sizeof(text), "alpha %s more\n", alpha_vkey);
    refuses(text, "line 1: a host id and its verifier key");
    refuses("alpha nonsense\n", "line 1: host alpha: this is not a verifier key");
    snprintf(text, sizeof(text), "alpha %s", alpha_vkey);
    refuses(text, "last line has no end");
    memset(text, 'a', 300);
    strcpy(text + 300, " x\n");
    refuses(text, "is no host id");
    strcpy(text, "alpha ");
    memset(text + 6, 'a', 300);
    strcpy(text + 306, "\n");
    refuses(text, "line 1: a host id and its verifier key");
    CU_ASSERT_PTR_NULL(trust_parse("a\0b\n", 4, NULL));
}

static void test_missing_and_empty(void)
{
    struct error err = {.message = ""};
    unlink(path);
    struct trust *trust = trust_read(path, false, &err);
    CU_ASSERT_PTR_NOT_NULL_FATAL(trust);
    CU_ASSERT_EQUAL(trust_count(trust), 0);
    trust_free(trust);
    CU_ASSERT_PTR_NULL(trust_read(path, true, &err));
    CU_ASSERT_EQUAL(err.code, ERROR_NOT_FOUND);
    CU_ASSERT_PTR_NOT_NULL(strstr(err.message, "no such file"));
    write_text("# nobody\n");
    CU_ASSERT_PTR_NULL(trust_read(path, true, &err));
    CU_ASSERT_EQUAL(err.code, ERROR_NOT_FOUND);
    CU_ASSERT_PTR_NULL(trust_read(dir, false, &err));
    CU_ASSERT_EQUAL(err.code, ERROR_INVALID_ARGUMENT);
    CU_ASSERT_PTR_NULL(trust_read("/dev/zero", false, &err));
    CU_ASSERT_EQUAL(err.code, ERROR_INVALID_ARGUMENT);
}

// ---- changing ----

static void test_changing(void)
{
    char text[1024];
    struct error err = {.message = ""};
    struct stat st;
    unlink(path);
    CU_ASSERT_EQUAL(trust_add(path, "beta", beta_vkey, &err), 0);
    snprintf(text, sizeof(text), "beta %s\n", beta_vkey);
    file_is(text);
    snprintf(text, sizeof(text), "# first\nbeta %s\n# last\n", beta_vkey);
    write_text(text);
    CU_ASSERT_EQUAL(chmod(path, 0640), 0);
    CU_ASSERT_EQUAL(trust_add(path, "alpha", alpha_vkey, &err), 0);
    CU_ASSERT(stat(path, &st) == 0 && (st.st_mode & 0777) == 0640);
    snprintf(text, sizeof(text), "# first\nbeta %s\n# last\nalpha %s\n", beta_vkey, alpha_vkey);
    file_is(text);
    CU_ASSERT_EQUAL(trust_add(path, "alpha", alpha_vkey, &err), 0);
    file_is(text);
    CU_ASSERT_EQUAL(trust_add(path, "alpha", other_vkey, &err), -1);
    CU_ASSERT_EQUAL(err.code, ERROR_ALREADY_EXISTS);
    CU_ASSERT_EQUAL(trust_add(path, "gamma", beta_vkey, &err), -1);
    CU_ASSERT_EQUAL(err.code, ERROR_INVALID_ARGUMENT);
    CU_ASSERT_EQUAL(trust_add(path, "a b", alpha_vkey, &err), -1);
    CU_ASSERT_EQUAL(trust_remove(path, "gamma", &err), -1);
    CU_ASSERT_EQUAL(err.code, ERROR_NOT_FOUND);
    file_is(text);
    CU_ASSERT_EQUAL(trust_remove(path, "beta", &err), 0);
    snprintf(text, sizeof(text), "# first\n# last\nalpha %s\n", alpha_vkey);
    file_is(text);
    CU_ASSERT_EQUAL(trust_add(path, "alpha", other_vkey, &err), -1);
    CU_ASSERT_EQUAL(trust_remove(path, "alpha", &err), 0);
    CU_ASSERT_EQUAL(trust_add(path, "alpha", other_vkey, &err), 0);
    snprintf(text, sizeof(text), "# first\n# last\nalpha %s\n", other_vkey);
    file_is(text);
}

static void test_what_is_wrong_stays(void)
{
    struct error err = {.message = ""};
    write_text("nonsense\n");
    CU_ASSERT_EQUAL(trust_add(path, "alpha", alpha_vkey, &err), -1);
    CU_ASSERT_EQUAL(trust_remove(path, "alpha", &err), -1);
    CU_ASSERT_PTR_NOT_NULL(strstr(err.message, "line 1"));
    file_is("nonsense\n");
    CU_ASSERT_EQUAL(trust_add("/nowhere/at/all", "alpha", alpha_vkey, &err), -1);
    CU_ASSERT_EQUAL(err.code, ERROR_UNAVAILABLE);
}

static void test_one_at_a_time(void)
{
    struct error err = {.message = ""};
    int folder = open(dir, O_RDONLY | O_DIRECTORY);
    write_text("");
    CU_ASSERT_EQUAL_FATAL(flock(folder, LOCK_EX), 0);
    CU_ASSERT_EQUAL(trust_add(path, "alpha", alpha_vkey, &err), -1);
    CU_ASSERT_EQUAL(err.code, ERROR_UNAVAILABLE);
    close(folder);
    FILE *left = fopen(new_path, "w"); // by a crash
    fputs("half of a li", left);
    fclose(left);
    CU_ASSERT_EQUAL(trust_add(path, "alpha", alpha_vkey, &err), 0);
    CU_ASSERT_EQUAL(trust_remove(path, "alpha", &err), 0);
    file_is("");
}

// ---- notes ----

static void test_verifying(void)
{
    char text[1024], note[NOTE_MAX];
    struct error err = {.message = ""};
    size_t length, text_length = 0;
    snprintf(text, sizeof(text), "alpha %s\nbeta %s\n", alpha_vkey, beta_vkey);
    struct trust *trust = trust_parse(text, strlen(text), NULL);
    CU_ASSERT_PTR_NOT_NULL_FATAL(trust);
    length = signer_sign(&alpha, "host alpha\n", note);
    CU_ASSERT_EQUAL(trust_verify(trust, "alpha", note, length, &text_length, NULL), 0);
    CU_ASSERT_EQUAL(text_length, strlen("host alpha\n"));
    CU_ASSERT_EQUAL(trust_verify(trust, "beta", note, length, &text_length, &err), -1);
    CU_ASSERT_EQUAL(err.code, ERROR_DATA_LOSS);
    CU_ASSERT_EQUAL(trust_verify(trust, "gamma", note, length, &text_length, &err), -1);
    CU_ASSERT_EQUAL(err.code, ERROR_PERMISSION_DENIED);
    note[5] = 'x';
    CU_ASSERT_EQUAL(trust_verify(trust, "alpha", note, length, &text_length, &err), -1);
    length = signer_sign(&other, "host alpha\n", note);
    CU_ASSERT_EQUAL(trust_verify(trust, "alpha", note, length, &text_length, &err), -1);
    trust_free(trust);
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"what it says", test_reading},
        {"what it may not say", test_refused},
        {"missing and empty", test_missing_and_empty},
        {"adding and removing", test_changing},
        {"a file that is wrong is left alone", test_what_is_wrong_stays},
        {"one change at a time, and what a crash leaves", test_one_at_a_time},
        {"notes by pinned keys", test_verifying},
        CU_TEST_INFO_NULL,
    };
    if (sodium_init() < 0 || mkdtemp(dir) == NULL)
        return EXIT_FAILURE;
    snprintf(path, sizeof(path), "%s/trust", dir);
    snprintf(new_path, sizeof(new_path), "%s.new", path);
    signer_make(&alpha, "alpha/custody/host", 1);
    signer_make(&beta, "beta/custody/host", 2);
    signer_make(&other, "alpha/custody/host", 3);
    note_key_format(&alpha.key, alpha_vkey);
    note_key_format(&beta.key, beta_vkey);
    note_key_format(&other.key, other_vkey);
    int result = tap_run("trust", tests);
    unlink(path);
    unlink(new_path);
    rmdir(dir);
    return result;
}
