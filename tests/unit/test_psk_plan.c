// SPDX-License-Identifier: Apache-2.0
// Decisions about a link's preshared key: a table of situations, both ends of a link played against
// each other, and the judgement of notes.
#include "tools/applier/psk_plan.h"

#include <stdio.h>
#include <string.h>

#include "tools/applier/psk_notes.h"
#include "tap.h"

#define NOW    INT64_C(1800000000000000)
#define SECOND INT64_C(1000000)

// An end whose peer may be anything: a link of "alpha" (ours) with "beta".
struct end {
    struct setup_peer setup;
    struct counterpart_says key;
    struct psk_says says;
    struct psk_plan_in in;
    uint8_t receive_key[RECORD_KEY_SIZE];
};

static void begin(struct end *end)
{
    memset(end, 0, sizeof(*end));
    strcpy(end->setup.host, "beta");
    strcpy(end->setup.key, "wg1");
    memset(end->receive_key, 3, sizeof(end->receive_key));
    end->key.has_active = true;
    end->key.active.peers = 1;
    memset(end->key.active.receive_key, 4, RECORD_KEY_SIZE);
    end->in = (struct psk_plan_in){.setup = &end->setup,
                                   .own_host = "alpha",
                                   .own_peers = 1,
                                   .makes = true,
                                   .receive_key = end->receive_key,
                                   .key = &end->key,
                                   .says = &end->says,
                                   .handshake_us = NOW - 5 * SECOND,
                                   .now_us = NOW};
}

static struct psk_plan ask(const struct end *end)
{
    struct psk_plan plan;
    psk_plan(&end->in, &plan);
    return plan;
}

// ---- who makes ----

static void test_roles(void)
{
    struct end end;
    begin(&end);
    CU_ASSERT_EQUAL(ask(&end).role, PSK_ROLE_MAKE); // as many peers: alpha is before beta
    end.in.own_host = "gamma";
    CU_ASSERT_EQUAL(ask(&end).role, PSK_ROLE_TAKE);
    end.in.own_peers = 2;
    CU_ASSERT_EQUAL(ask(&end).role, PSK_ROLE_MAKE);
    end.key.active.peers = 3;
    CU_ASSERT_EQUAL(ask(&end).role, PSK_ROLE_TAKE);
    end.setup.psk = SETUP_PSK_MAKE;
    CU_ASSERT_EQUAL(ask(&end).role, PSK_ROLE_MAKE);
    end.setup.psk = SETUP_PSK_NONE;
    CU_ASSERT_EQUAL(ask(&end).role, PSK_ROLE_NONE);
    end.setup.psk = SETUP_PSK_AUTO;
    end.key.has_active = false;
    CU_ASSERT_EQUAL(ask(&end).role, PSK_ROLE_NONE);
    begin(&end);
    end.in.present = true; // one that custody did not make
    CU_ASSERT_EQUAL(ask(&end).role, PSK_ROLE_NONE);
    end.in.own.made = 1;
    CU_ASSERT_EQUAL(ask(&end).role, PSK_ROLE_MAKE);
}

static void test_roles_stay(void)
{
    struct end end;
    begin(&end);
    end.in.own.received = 1; // alpha would make, but took once
    CU_ASSERT_EQUAL(ask(&end).role, PSK_ROLE_TAKE);
    begin(&end);
    end.in.own_host = "gamma"; // gamma would take, but what it made is in use
    end.in.own.made = end.in.own.set = 1;
    CU_ASSERT_EQUAL(ask(&end).role, PSK_ROLE_MAKE);
    end.in.own.set = 0; // both began: the lower host id goes on
    end.says.made.state = PSK_NOTE_MADE;
    CU_ASSERT_EQUAL(ask(&end).role, PSK_ROLE_TAKE);
    end.in.own_host = "alpha";
    CU_ASSERT_EQUAL(ask(&end).role, PSK_ROLE_MAKE);
}

// ---- the maker ----

static void test_making(void)
{
    struct end end;
    begin(&end);
    CU_ASSERT_EQUAL(ask(&end).step, PSK_MAKE);
    CU_ASSERT_EQUAL(ask(&end).epoch, 1);
    memset(end.key.active.receive_key, 0, RECORD_KEY_SIZE); // it takes none
    CU_ASSERT_EQUAL(ask(&end).step, PSK_NOTHING);
    begin(&end);
    end.in.makes = false;
    CU_ASSERT_EQUAL(ask(&end).step, PSK_NOTHING);
}

// Made, and the taker says that it has it: set just after a handshake, and not while a private key
// of either end is being replaced.
static void received(struct end *end, uint64_t epoch)
{
    begin(end);
    end->in.own.made = epoch;
    end->in.own.set = epoch - 1;
    end->in.own.due_us = NOW + 1000 * SECOND;
    end->says.received = (struct psk_note){.state = PSK_NOTE_RECEIVED, .epoch = epoch};
    end->says.set = (struct psk_note){.state = PSK_NOTE_SET, .epoch = epoch - 1};
}

static void test_setting(void)
{
    struct end end;
    received(&end, 2);
    struct psk_plan plan = ask(&end);
    CU_ASSERT(plan.step == PSK_SET && plan.epoch == 2 && plan.reason == CUSTODY_REASON_ROTATION);
    end.in.handshake_us = NOW - PSK_JUST_US - SECOND;
    CU_ASSERT_EQUAL(ask(&end).step, PSK_NOTHING);
    CU_ASSERT(ask(&end).due_us > NOW && ask(&end).due_us <= NOW + 10 * SECOND);
    end.in.handshake_us = 0; // no session: nobody knows what comes next
    CU_ASSERT_EQUAL(ask(&end).step, PSK_NOTHING);
    received(&end, 2);
    end.in.rotating = true;
    CU_ASSERT_EQUAL(ask(&end).step, PSK_NOTHING);
    received(&end, 2);
    end.says.received.epoch = 1; // not yet
    CU_ASSERT_EQUAL(ask(&end).step, PSK_NOTHING);
    received(&end, 2);
    end.in.not_before_us = NOW + 1; // it went back a while ago
    CU_ASSERT_EQUAL(ask(&end).step, PSK_NOTHING);
}

static void test_settling(void)
{
    struct end end;
    received(&end, 2);
    end.in.own.set = 2;
    end.in.own.set_us = NOW - SECOND;
    CU_ASSERT(ask(&end).busy); // the taker has not said so, and no handshake came
    end.in.handshake_us = NOW + SECOND;
    CU_ASSERT_FALSE(ask(&end).busy);
    end.in.handshake_us = NOW - 5 * SECOND;
    end.says.set.epoch = 2;
    CU_ASSERT_FALSE(ask(&end).busy);
    CU_ASSERT_EQUAL(ask(&end).step, PSK_NOTHING);
    end.in.own.due_us = NOW;
    CU_ASSERT(ask(&end).step == PSK_MAKE && ask(&end).epoch == 3);
    end.says.set.epoch = 1; // the next waits until this one has settled
    CU_ASSERT_EQUAL(ask(&end).step, PSK_NOTHING);
}

static void test_going_back(void)
{
    struct end end;
    received(&end, 2);
    end.in.own.set = 2;
    end.in.handshake_us = NOW - PSK_TROUBLE_US + SECOND;
    end.in.own.set_us = end.in.handshake_us + SECOND;
    CU_ASSERT_EQUAL(ask(&end).step, PSK_NOTHING);
    CU_ASSERT_EQUAL(ask(&end).due_us, end.in.handshake_us + PSK_TROUBLE_US);
    end.in.handshake_us -= 2 * SECOND;
    struct psk_plan plan = ask(&end);
    CU_ASSERT(plan.step == PSK_SET && plan.epoch == 1 && plan.back);
    CU_ASSERT_EQUAL(plan.reason, CUSTODY_REASON_ROLLBACK);
    end.in.own.set = 1; // back: no further
    CU_ASSERT_FALSE(ask(&end).back);
}

static void test_repairing(void)
{
    struct end end;
    received(&end, 2);
    end.in.own.made = end.in.own.set = 1;
    end.in.own.set_us = NOW - 1000 * SECOND;
    CU_ASSERT_EQUAL(ask(&end).step, PSK_NOTHING);
    end.in.missing = true;
    CU_ASSERT_EQUAL(ask(&end).reason, CUSTODY_REASON_BOOT);
    end.in.seen_before = true;
    CU_ASSERT(ask(&end).step == PSK_SET && ask(&end).reason == CUSTODY_REASON_RESTORE);
    end.in.missing = false;
    end.in.handshake_us = NOW - PSK_TROUBLE_US;
    CU_ASSERT(ask(&end).step == PSK_SET && ask(&end).epoch == 1 && ask(&end).repair);
    end.in.repaired_us = end.in.handshake_us; // once: a dead counterpart is left alone
    CU_ASSERT_EQUAL(ask(&end).step, PSK_NOTHING);
}

// ---- the taker ----

static void taker(struct end *end)
{
    begin(end);
    end->in.own_host = "gamma";
}

static void test_taking(void)
{
    struct end end;
    taker(&end);
    CU_ASSERT_EQUAL(ask(&end).step, PSK_NOTHING);
    end.says.made = (struct psk_note){.state = PSK_NOTE_MADE, .epoch = 1};
    CU_ASSERT(ask(&end).step == PSK_TAKE && ask(&end).epoch == 1);
    end.in.own.received = 1; // has it
    CU_ASSERT_EQUAL(ask(&end).step, PSK_NOTHING);
    end.says.made.epoch = 3; // one between is missing
    CU_ASSERT_EQUAL(ask(&end).step, PSK_NOTHING);
}

static void test_following(void)
{
    struct end end;
    taker(&end);
    end.in.own.received = 2;
    end.in.own.set = 1;
    end.in.own.set_us = NOW - 100 * SECOND;
    end.says.set = (struct psk_note){.state = PSK_NOTE_SET, .epoch = 2, .time_us = NOW};
    end.in.handshake_us = 0; // whatever the handshakes show
    end.in.rotating = true;  // and whatever else goes on: the ends differ
    struct psk_plan plan = ask(&end);
    CU_ASSERT(plan.step == PSK_SET && plan.epoch == 2 && plan.busy);
    end.in.own.set = 2;
    CU_ASSERT_EQUAL(ask(&end).step, PSK_NOTHING);
    end.says.set.epoch = 1; // and back
    CU_ASSERT(ask(&end).step == PSK_SET && ask(&end).reason == CUSTODY_REASON_ROLLBACK);
    end.says.set.time_us = NOW - 101 * SECOND; // from before our own step: a replay, maybe
    CU_ASSERT_EQUAL(ask(&end).step, PSK_NOTHING);
    end.in.handshake_us = NOW - PSK_TROUBLE_US; // but no handshake comes
    CU_ASSERT(ask(&end).step == PSK_SET && ask(&end).epoch == 1);
    end.in.own.received = 5; // what is destroyed cannot be gone back to
    CU_ASSERT_NOT_EQUAL(ask(&end).epoch, 1);
}

// ---- both, against each other ----

// A world of two ends: a handshake comes 120 s after the last one if both have the same key, and is
// tried again every 5 s; a session dies at 180 s. Notes take `delay` seconds; `deaf`: the taker
// sees none, and says none.
struct world {
    int64_t now, handshake;
    uint64_t made, received, set[2];
    int64_t set_at[2], not_before, repaired[2];
    int64_t delay, deaf_until;
    int64_t longest; // between two handshakes
};

// What was said `delay` ago: the steps with their times.
struct said {
    uint64_t epoch;
    int64_t at;
};
#define SAID_MAX 64
static struct said said[2][SAID_MAX];
static size_t said_count[2];

static struct said heard(const struct world *w, int who)
{
    struct said last = {0};
    for (size_t i = 0; i < said_count[who]; i++)
        if (said[who][i].at + w->delay <= w->now)
            last = said[who][i];
    return last;
}

static void play(struct world *w, int who)
{
    struct end end;
    begin(&end);
    end.in.own_host = who == 0 ? "alpha" : "gamma";
    bool deaf = w->now < w->deaf_until;
    end.in.own = (struct custody_psk){.made = who == 0 ? w->made : 0,
                                      .received = who == 1 ? w->received : 0,
                                      .set = w->set[who],
                                      .set_us = w->set_at[who] * SECOND,
                                      .due_us = INT64_MAX};
    struct said other = heard(w, 1 - who);
    if (other.at != 0 && !deaf)
        end.says.set = (struct psk_note){
            .state = PSK_NOTE_SET, .epoch = other.epoch, .time_us = other.at * SECOND};
    if (who == 0)
        end.says.received = (struct psk_note){.state = PSK_NOTE_RECEIVED, .epoch = w->received};
    end.in.handshake_us = w->handshake * SECOND;
    end.in.now_us = w->now * SECOND;
    end.in.not_before_us = w->not_before * SECOND;
    end.in.repaired_us = w->repaired[who] * SECOND;
    struct psk_plan plan = ask(&end);
    if (plan.step != PSK_SET)
        return;
    if (plan.back)
        w->not_before = w->now + PSK_RETRY_US / SECOND;
    if (plan.repair)
        w->repaired[who] = w->handshake;
    w->set[who] = plan.epoch;
    w->set_at[who] = w->now;
    if (said_count[who] < SAID_MAX)
        said[who][said_count[who]++] = (struct said){plan.epoch, w->now};
}

static void run(struct world *w, int64_t seconds)
{
    for (int64_t end = w->now + seconds; w->now < end; w->now++) {
        int64_t age = w->now - w->handshake;
        if (age >= 120 && age % 5 == 0 && w->set[0] == w->set[1]) {
            if (age > w->longest)
                w->longest = age;
            w->handshake = w->now;
        }
        for (int who = 0; who < 2; who++)
            play(w, who);
    }
}

static void test_two_ends(void)
{
    static const int64_t delays[] = {0, 1, 30, 80};
    for (size_t i = 0; i < sizeof(delays) / sizeof(delays[0]); i++) {
        struct world w = {.now = 1000000,
                          .handshake = 999990,
                          .made = 2,
                          .received = 2,
                          .set = {1, 1},
                          .set_at = {900000, 900000},
                          .delay = delays[i]};
        said_count[0] = said_count[1] = 0;
        run(&w, 1000);
        CU_ASSERT(w.set[0] == 2 && w.set[1] == 2);
        CU_ASSERT(w.longest <= 120);
    }
}

static void test_two_ends_and_no_news(void)
{
    struct world w = {.now = 1000000,
                      .handshake = 999990,
                      .made = 2,
                      .received = 2,
                      .set = {1, 1},
                      .set_at = {900000, 900000},
                      .deaf_until = 1000000 + 2000};
    said_count[0] = said_count[1] = 0;
    run(&w, 500);
    CU_ASSERT(w.set[0] == 1 && w.set[1] == 1); // gone back
    run(&w, 3000);
    CU_ASSERT(w.set[0] == 2 && w.set[1] == 2); // and once the news come
    CU_ASSERT(w.longest > 120 && w.longest < 180);
}

// ---- notes ----

static int judge(const struct psk_note *note, enum psk_note_state state, uint64_t taken,
                 const struct psk_note *newest)
{
    static uint8_t receive_key[RECORD_KEY_SIZE] = {7};
    const struct psk_notes_own own = {.host = "alpha",
                                      .key = "wg0",
                                      .receive_key = receive_key,
                                      .received = taken,
                                      .now_us = NOW,
                                      .tolerance_us = SECOND};
    char message[REFUSAL_MESSAGE_MAX] = "";
    int kind = psk_notes_judge(note, state, "beta", "wg1", &own, newest, message);
    CU_ASSERT_EQUAL(kind == 0, message[0] == '\0');
    return kind;
}

static void test_judging(void)
{
    const struct psk_note nothing = {0};
    struct psk_note good = {.host = "beta",
                            .key = "wg1",
                            .peer = "alpha",
                            .peer_key = "wg0",
                            .epoch = 4,
                            .state = PSK_NOTE_MADE,
                            .receive_key = {7},
                            .time_us = NOW};
    struct psk_note note = good;
    CU_ASSERT_EQUAL(judge(&note, PSK_NOTE_MADE, 3, &nothing), 0);
    CU_ASSERT_EQUAL(judge(&note, PSK_NOTE_SET, 3, &nothing), REFUSAL_MISPLACED);
    CU_ASSERT_EQUAL(judge(&note, PSK_NOTE_MADE, 5, &nothing), REFUSAL_OLDER);
    note.receive_key[0] = 8; // another taker's box
    CU_ASSERT_EQUAL(judge(&note, PSK_NOTE_MADE, 3, &nothing), REFUSAL_MISPLACED);
    note = good;
    strcpy(note.host, "delta");
    CU_ASSERT_EQUAL(judge(&note, PSK_NOTE_MADE, 3, &nothing), REFUSAL_MISPLACED);
    note = good;
    strcpy(note.peer_key, "wg9");
    CU_ASSERT_EQUAL(judge(&note, PSK_NOTE_MADE, 3, &nothing), REFUSAL_MISPLACED);
    note = good;
    note.time_us = NOW + 2 * SECOND;
    CU_ASSERT_EQUAL(judge(&note, PSK_NOTE_MADE, 3, &nothing), REFUSAL_NOT_YET);
    note.time_us = NOW - 1;
    CU_ASSERT_EQUAL(judge(&note, PSK_NOTE_MADE, 3, &good), REFUSAL_OLDER);
}

int main(void)
{
    CU_TestInfo tests[] = {{"who makes", test_roles},
                           {"who makes goes on making", test_roles_stay},
                           {"making", test_making},
                           {"setting, just after a handshake", test_setting},
                           {"settling", test_settling},
                           {"going back", test_going_back},
                           {"repairing, once", test_repairing},
                           {"taking", test_taking},
                           {"following", test_following},
                           {"two ends come to the same", test_two_ends},
                           {"two ends without news go back in time", test_two_ends_and_no_news},
                           {"notes are judged", test_judging},
                           CU_TEST_INFO_NULL};
    return tap_run("psk_plan", tests);
}
