// SPDX-License-Identifier: Apache-2.0
// Decides who makes a link's preshared key, and the next step with it.
#include "psk_plan.h"

#include <string.h>

#include <sodium.h>

#define CONFIRM_US INT64_C(1000000) // a handshake so soon after setting may have begun before
#define LOOK_US    INT64_C(5000000) // while a handshake is waited for

const uint8_t *psk_plan_receive_key(const struct counterpart_says *key)
{
    if (!key->has_active || sodium_is_zero(key->active.receive_key, RECORD_KEY_SIZE))
        return NULL;
    return key->active.receive_key;
}

// ---- who makes it ----

// By what both ends have signed, so that both come to the same answer.
static bool leads(const struct psk_plan_in *in)
{
    uint64_t theirs = in->key->active.peers;
    if (in->own_peers != theirs)
        return in->own_peers > theirs;
    return strcmp(in->own_host, in->setup->host) < 0;
}

static enum psk_role find_role(const struct psk_plan_in *in)
{
    bool theirs = in->says->made.state == PSK_NOTE_MADE;
    if (in->setup->psk == SETUP_PSK_NONE)
        return PSK_ROLE_NONE;
    // A preshared key that was there before custody's: nobody could go back to it.
    if (in->own.received == 0 && in->own.made == 0 && in->present)
        return PSK_ROLE_NONE;
    // What is in use is gone on with; peers may come and go.
    if (in->own.received > 0)
        return PSK_ROLE_TAKE;
    if (in->own.made > 0 && in->own.set > 0)
        return PSK_ROLE_MAKE;
    if (in->setup->psk == SETUP_PSK_MAKE)
        return PSK_ROLE_MAKE;
    if (in->setup->psk == SETUP_PSK_TAKE)
        return PSK_ROLE_TAKE;
    if (in->own.made > 0) // both began: the lower host id goes on
        return theirs && strcmp(in->own_host, in->setup->host) > 0 ? PSK_ROLE_TAKE : PSK_ROLE_MAKE;
    if (theirs)
        return PSK_ROLE_TAKE;
    if (!in->key->has_active)
        return PSK_ROLE_NONE;
    return leads(in) ? PSK_ROLE_MAKE : PSK_ROLE_TAKE;
}

// ---- what the handshakes show ----

static bool is_trouble(const struct psk_plan_in *in)
{
    return in->handshake_us != 0 && in->now_us - in->handshake_us >= PSK_TROUBLE_US;
}

// A handshake after setting is proof that both ends have the same key.
static bool is_proven(const struct psk_plan_in *in)
{
    return in->handshake_us > in->own.set_us + CONFIRM_US;
}

static uint64_t their_epoch(const struct psk_plan_in *in)
{
    return in->says->set.state == PSK_NOTE_SET ? in->says->set.epoch : 0;
}

static void set(struct psk_plan *plan, uint64_t epoch, enum custody_reason reason,
                const char *detail)
{
    plan->step = PSK_SET;
    plan->epoch = epoch;
    plan->reason = reason;
    plan->detail = detail;
}

// What our log says is set is set again: when the interface lost it, or when no handshake came and
// nothing else explains that. Returns whether there is need to.
static bool repair(const struct psk_plan_in *in, struct psk_plan *plan)
{
    if (in->own.set == 0)
        return false;
    if (in->missing) {
        set(plan, in->own.set, in->seen_before ? CUSTODY_REASON_RESTORE : CUSTODY_REASON_BOOT,
            "the interface had none");
        return true;
    }
    if (!is_trouble(in) || in->repaired_us == in->handshake_us)
        return false;
    set(plan, in->own.set, CUSTODY_REASON_RESTORE, "no handshake came: set again");
    plan->repair = true;
    return true;
}

static void wait_until(struct psk_plan *plan, int64_t due_us)
{
    if (plan->due_us == 0 || due_us < plan->due_us)
        plan->due_us = due_us;
}

// ---- the maker ----

static bool has_settled(const struct psk_plan_in *in)
{
    return in->own.set == their_epoch(in) || is_proven(in);
}

// The taker's part was made for the receive key that it has now.
static void plan_making(const struct psk_plan_in *in, struct psk_plan *plan)
{
    bool due = in->own.made == 0 || (in->own.due_us != 0 && in->own.due_us <= in->now_us);
    if (!in->makes || psk_plan_receive_key(in->key) == NULL)
        return;
    if (in->own.made == in->own.set && due && has_settled(in)) {
        plan->step = PSK_MAKE;
        plan->epoch = in->own.made + 1;
    } else if (in->own.due_us > in->now_us) {
        wait_until(plan, in->own.due_us);
    }
}

static void plan_setting(const struct psk_plan_in *in, struct psk_plan *plan)
{
    bool received =
        in->says->received.state == PSK_NOTE_RECEIVED && in->says->received.epoch >= in->own.made;
    if (!received || in->own.set >= in->own.made || in->rotating)
        return;
    wait_until(plan, in->now_us < in->not_before_us ? in->not_before_us : in->now_us + LOOK_US);
    if (in->now_us >= in->not_before_us && in->handshake_us != 0 &&
        in->now_us - in->handshake_us <= PSK_JUST_US)
        set(plan, in->own.made, CUSTODY_REASON_ROTATION, "just after a handshake");
}

static void plan_maker(const struct psk_plan_in *in, struct psk_plan *plan)
{
    plan->busy = in->own.set_us != 0 && !has_settled(in);
    if (plan->busy && is_trouble(in) && in->own.set == in->own.made) {
        set(plan, in->own.set - 1, CUSTODY_REASON_ROLLBACK, "no handshake came: back");
        plan->back = true;
        return;
    }
    if (repair(in, plan))
        return;
    plan_making(in, plan);
    if (plan->step == PSK_NOTHING)
        plan_setting(in, plan);
}

// ---- the taker ----

static bool has_epoch(const struct psk_plan_in *in, uint64_t epoch)
{
    return epoch <= in->own.received && epoch + 1 >= in->own.received;
}

static void plan_taker(const struct psk_plan_in *in, struct psk_plan *plan)
{
    const struct psk_note *made = &in->says->made, *theirs = &in->says->set;
    bool differs = theirs->state == PSK_NOTE_SET && theirs->epoch != in->own.set &&
                   has_epoch(in, theirs->epoch);
    // One from before our own last step may be a replay; handshakes that fail say that it is not.
    bool follows = differs && (theirs->time_us >= in->own.set_us || is_trouble(in));
    plan->busy = follows;
    if (follows)
        set(plan, theirs->epoch,
            theirs->epoch > in->own.set ? CUSTODY_REASON_ROTATION : CUSTODY_REASON_ROLLBACK,
            "the other end has set it");
    else if (!repair(in, plan) && in->receive_key != NULL && made->state == PSK_NOTE_MADE &&
             made->epoch == in->own.received + 1)
        plan->step = PSK_TAKE;
    if (plan->step == PSK_TAKE)
        plan->epoch = made->epoch;
}

void psk_plan(const struct psk_plan_in *in, struct psk_plan *plan)
{
    memset(plan, 0, sizeof *plan);
    plan->role = find_role(in);
    if (plan->role == PSK_ROLE_MAKE)
        plan_maker(in, plan);
    else if (plan->role == PSK_ROLE_TAKE)
        plan_taker(in, plan);
    if (plan->role != PSK_ROLE_NONE && in->own.set_us != 0 && in->handshake_us != 0 &&
        !is_trouble(in))
        wait_until(plan, in->handshake_us + PSK_TROUBLE_US);
}
