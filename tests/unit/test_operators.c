// SPDX-License-Identifier: Apache-2.0
// The operators' file, and whose key a signature is by.
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <CUnit/CUnit.h>

#include "operators.h"
#include "sshsig.h"
#include "tap.h"

// Made by ssh-keygen for this test.
static const char ann[] =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFgQj7v/2PyaAfO2iy432+6xZzGrdll3eEDpCG5Q"
    "1z6V";
static const char bob[] =
    "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBHNr"
    "/iEBiOfHSWXI1CsLydRuKY+MHSLWv6GOtyemud4L5nLqTOzXyBWtRpYQIcfnol9jR2w5CXYpLLme"
    "QRWYVFM=";
// Over "x", by ann.
static const char signature[] =
    "U1NIU0lHAAAAAQAAADMAAAALc3NoLWVkMjU1MTkAAAAgWBCPu//Y/JoB87aLLjfb7rFnMat2WXd4"
    "QOkIblDXPpUAAAAQY3VzdG9keS1hcHByb3ZhbAAAAAAAAAAGc2hhNTEyAAAAUwAAAAtzc2gtZWQy"
    "NTUxOQAAAEDdNlruGGrT+fnxQRbOUduhhf9fzNFteq0aIzJFPkhg6YLtrC/u9/NnJZvB3uJRBHui"
    "40CLnnrlVRAjdLTBcGIH";

static struct operators operators;

static int parse(const char *text, struct error *err)
{
    return operators_parse(text, strlen(text), &operators, err);
}

static void test_file(void)
{
    char text[2048];
    struct error err;
    snprintf(text, sizeof(text), "# a comment\n\nann %s ann@host\n  bob\t%s\nann2 %s2\n", ann, bob,
             "");
    CU_ASSERT_EQUAL(parse(text, &err), -1); // "ann2" has no key
    CU_ASSERT_PTR_NOT_NULL(strstr(err.message, "line 5: "));
    *strstr(text, "ann2") = '\0';
    CU_ASSERT_EQUAL_FATAL(parse(text, &err), 0);
    CU_ASSERT_EQUAL(operators.count, 2);
    CU_ASSERT_STRING_EQUAL(operators_name(&operators, ann), "ann");
    CU_ASSERT_STRING_EQUAL(operators_name(&operators, bob), "bob");
    CU_ASSERT_PTR_NULL(operators_name(&operators, "ssh-ed25519 AAAA"));
    CU_ASSERT_EQUAL(parse("", &err), 0);
    CU_ASSERT_EQUAL(operators.count, 0);
}

__attribute__((format(printf, 2, 3))) static void refuses(const char *words, const char *format,
                                                          ...)
{
    char text[2048];
    struct error err = {.code = ERROR_OK};
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    CU_ASSERT_EQUAL(parse(text, &err), -1);
    CU_ASSERT_EQUAL(err.code, ERROR_INVALID_ARGUMENT);
    CU_ASSERT_PTR_NOT_NULL(strstr(err.message, words));
}

static void test_what_is_refused(void)
{
    refuses("line 2: the key of operator bob stands there already, as ann's", "ann %s\nbob %s\n",
            ann, ann);
    refuses("stands there already", "ann %s\nann %s\n", ann, ann);
    refuses("line 1: a name", "%s\n", ann);
    refuses("is no operator's name", "an/n %s\n", ann);
    refuses("its last line has no end", "ann %s", ann);
    refuses("malformed", "ann %.40s\n", ann);
    refuses("ssh-rsa", "ann ssh-rsa AAAA\n");
    char nul[] = "ann\0x\n";
    struct error err;
    CU_ASSERT_EQUAL(operators_parse(nul, sizeof(nul) - 1, &operators, &err), -1);
}

static void test_signer(void)
{
    char key[RECORD_OPERATOR_KEY_MAX + 1];
    struct error err;
    CU_ASSERT_EQUAL(sshsig_signer(signature, key, sizeof(key), &err), 0);
    CU_ASSERT_STRING_EQUAL(key, ann);
    CU_ASSERT_EQUAL(sshsig_verify(key, "custody-approval", "x", 1, signature, &err), 0);
    CU_ASSERT_EQUAL(sshsig_signer(signature, key, 40, &err), -1);
    CU_ASSERT_EQUAL(sshsig_signer("", key, sizeof(key), &err), -1);
    CU_ASSERT_EQUAL(sshsig_signer("U1NIU0lH", key, sizeof(key), &err), -1);
    CU_ASSERT_EQUAL(sshsig_signer("U1NIU0lHAAAAAQAAADM=", key, sizeof(key), &err), -1);
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"the file", test_file},
        {"what is refused", test_what_is_refused},
        {"the key that a signature is by", test_signer},
        CU_TEST_INFO_NULL,
    };
    return tap_run("operators", tests);
}
