/* The semaphore (rules S3 to S9, 4 and 8), the claim that no notification is lost, and the deaths of its processes.
 *
 * Abstractions: the kernel grants a free lock to any process that requests it, in any order. Waiters queue for the gate
 * file in the kernel (the queues before it are those of handover.pml). Slots are checked in ascending order. S1, S2 and
 * rule 2 (files created or replaced) are left out. A process whose watch is up is notified of an event at once. A
 * polling process checks when there is something new. After a close the leader checks until the kernel has unlocked the
 * closed files, for which rule 8 allows a second. Memory is sequentially consistent, except with BREAK_NO_BARRIER.
 *
 * Properties:
 * - Whenever no process can move, each living client has acquired its permits, would have blocked, or has given up: no
 *   notification is lost, nothing deadlocks, and a death does not stop the others. No run is endless (-l).
 * - Then every slot, the gate file and `waiters` are free: no permit is lost.
 * - At each grant no more permits are held than the capacity of that moment, even while it changes, and the numbers of
 *   the granted slots are below the capacity (S3).
 * These hold without the backstop of S8, except where -DBACKSTOP is given.
 */

#ifndef CLIENTS
#define CLIENTS 3
#endif
#ifndef CAPACITY
#define CAPACITY 2
#endif
#ifndef SLOTS            /* the largest possible number of slots */
#define SLOTS CAPACITY
#endif
#ifndef ROUNDS           /* the number of permits that each client acquires in turn */
#define ROUNDS 1
#endif
#ifndef KILLS            /* the number of processes that may be killed, at any moment */
#define KILLS 0
#endif
#ifndef VICTIMS          /* the processes that may be killed, as bits */
#define VICTIMS 15
#endif
/* Sets of clients, as bits: TWO want two permits, TRY only try, TIMED have a deadline, which may pass at any moment. */
#ifndef TWO
#define TWO 0
#endif
#ifndef TRY
#define TRY 0
#endif
#ifndef QUEUE             /* the clients whose process already has waiters, as bits */
#define QUEUE 0
#endif
#ifndef TIMED
#define TIMED 0
#endif
#define WANT(c) (1 + ((TWO >> (c)) & 1))
#define TRIES(c) ((TRY >> (c)) & 1)
#define GIVES_UP(c) ((TIMED >> (c)) & 1)
#ifdef ONE_HANDLE        /* clients 0 and 1 are threads of one process */
#define HANDLE(c) (((c) > 1) * (c))
#define ONE_HANDLE_ 1
#else
#define HANDLE(c) (c)
#define ONE_HANDLE_ 0
#endif
#ifdef MARKS             /* the threads know which slots their handle holds */
#define MARKS_ 1
#else
#define MARKS_ 0
#endif
#ifdef BREAK_TAKES_FOR_NOBODY
#define TAKES_FOR_NOBODY 1
#else
#define TAKES_FOR_NOBODY 0
#endif
#ifdef RESIZE            /* the new capacity (0: a pause); RESIZE_AGAIN is the one after that */
#define RESIZES 1
#else
#define RESIZES 0
#define held 0
#endif
#ifndef HELD              /* the slots that another process holds from the beginning, as bits */
#define HELD 0
#endif

#define OBSERVER CLIENTS
#define RESIZER (CLIENTS + 1)
#define HOLDER (CLIENTS + 2)
#define PROCESSES (CLIENTS + 3)
#define BIT(n) (1 << (n))
#define COUNT(m) (((m) & 1) + (((m) >> 1) & 1) + (((m) >> 2) & 1))

/* Kernel state. A slot and the gate file contain their holder plus 1. */
byte slot[SLOTS];
byte gate;
byte shared;              /* the handles with a shared lock on `waiters`, as bits */
byte exclusive;           /* the holder of the exclusive lock on `waiters`, plus 1 */
byte closing;             /* the number of processes that have closed their files but not yet unlocked them */
/* Files. */
bit queued;
byte capacity = CAPACITY;
byte resized;
byte made;                /* the slot files that exist */
/* Handles. */
bit table[CLIENTS];       /* a mutex */
byte waiting[CLIENTS];
byte leaders[CLIENTS];
byte is_out[CLIENTS];     /* the marked slots, as bits */
bit asks[CLIENTS];        /* a helper is about to check for other waiters */
bit leftover[CLIENTS];    /* a helper without a waiter is blocked for slot 0 */
byte known[PROCESSES] = CAPACITY;
byte generation[PROCESSES];
byte excess[PROCESSES];   /* the held slots beyond the capacity, as bits */
/* Leaders. */
byte watch[CLIENTS];      /* 0: none, 1: requested, 2: up, 3: unavailable */
bit is_notified[CLIENTS];
bit after_close[CLIENTS];
/* The model itself. */
bit is_over[CLIENTS];
bit killed[PROCESSES];
byte kills;
bit stopped[CLIENTS];
bit has_stopped;
bit has_lost;
byte out;                 /* the number of permits that are held */
byte granted[CLIENTS];    /* those of each client */
byte effective = CAPACITY; /* the capacity that applies to a request at this moment */

inline notify(is_close) {
    d_step {
        listener = 0;
        do
        :: listener < CLIENTS ->
            if
            :: watch[listener] == 2 ->
                is_notified[listener] = 1;
#ifndef BREAK_NO_LOOK_AFTER_CLOSE
                after_close[listener] = after_close[listener] | is_close
#endif
            :: else
            fi;
            listener++
        :: else -> break
        od;
        listener = 0
    }
}

/* A file system event of the directory (S7, 8). */
inline event(is_close) {
#ifdef LOSES_EVENTS
    if
    :: atomic { !has_lost -> has_lost = 1 } /* the event is lost (claim 5) */
    :: notify(is_close)
    fi
#else
    notify(is_close)
#endif
}

/* Creating and removing the file are one event each, of which one is enough (S7). */
inline poke() {
#ifdef BREAK_NO_POKE
    skip
#else
    event(0)
#endif
}

#define IS_CURRENT (!RESIZES || generation[me] == resized)
#define IS_ONLY_ONE (known[me] == 1 && excess[me] == 0 && IS_CURRENT)

/* Notifies waiters after unlocking (S6). */
inline notify_waiters() {
    if
#ifdef BREAK_NO_BARRIER
    :: !saw
    :: saw ->
#else
    :: !queued /* read after a barrier, and so after unlocking */
    :: queued ->
#endif
#ifdef BREAK_RELEASE_WITHOUT_PROBE
        skip
#else
        if
#ifdef BREAK_LOWERS_WITHOUT_WAITERS
        :: shared == 0 && exclusive == 0 ->
            queued = 0
#else
        :: atomic { shared == 0 && exclusive == 0 -> exclusive = me + 1 }
            queued = 0;
            exclusive = 0
#endif
        :: else ->
            if
            :: IS_ONLY_ONE /* The leader waits in the kernel (S9). */
            :: else -> poke()
            fi
        fi
#endif
    fi
}

/* Notifies the leader even if it waits in the kernel (claim 4). */
inline notify_recheck() {
    if
    :: queued -> poke()
    :: else
    fi
}

/* Unlocks and unmarks the slots of this client (4). */
inline unlock_mine() {
    do
    :: atomic { mine != 0 ->
            n = (mine & 1 -> 0 : (mine & 2 -> 1 : 2));
            slot[n] = 0;
            mine = mine & ~BIT(n)
        }
#if MARKS_ && !defined(BREAK_UNMARKS_AFTER_TELLING)
        atomic { is_out[HANDLE(me)] = is_out[HANDLE(me)] & ~BIT(n); n = 0 }
#endif
    :: else -> n = 0; break
    od
}

inline release_mine() {
    if
    :: mine != 0 ->
#ifdef BREAK_NO_BARRIER
        saw = queued;
#endif
#ifdef BREAK_UNMARKS_AFTER_TELLING
        saved = mine;
#endif
        unlock_mine();
        notify_waiters()
#ifdef BREAK_UNMARKS_AFTER_TELLING
        ; is_out[HANDLE(me)] = is_out[HANDLE(me)] & ~saved
#endif
    :: else
    fi
}

/* Reads the generation first, then the capacity, then the existing slots (S3). */
inline refresh() {
#ifdef BREAK_PAUSE_ENDS_EXCESS
    d_step { generation[me] = resized; was_paused = (known[me] == 0) }
#else
    generation[me] = resized;
#endif
    known[me] = capacity;
    /* While the semaphore is paused, no permit is granted and no slot is in excess. */
    excess[me] = (known[me] == 0 -> 0 : made & ~(BIT(known[me]) - 1))
#ifdef BREAK_PAUSE_ENDS_EXCESS
    ; excess[me] = (was_paused -> 0 : excess[me])
#endif
}

inline admit(count) {
    out = out + count;
    granted[me] = count;
    assert(out <= effective) /* no more than the capacity of this moment (S3) */
}

/* Tries slot n, and moves on to the next. */
inline try_slot(into) {
    made = made | BIT(n);
    if
    :: slot[n] == 0 && !(into & BIT(n)) && !(MARKS_ && (is_out[HANDLE(me)] & BIT(n))) ->
        slot[n] = me + 1;
        into = into | BIT(n)
    :: else
    fi;
    n++
}

#if RESIZES
/* Counts the held slots in excess. A slot that was free once is no longer in excess (S3). */
inline count_excess(is_leader) {
    n = 0;
    do
    :: atomic { n < SLOTS && (excess[me] & BIT(n)) -> try_slot(drained) }
    :: n < SLOTS && !(excess[me] & BIT(n)) -> n++
    :: n == SLOTS -> n = 0; break
    od;
    if
    :: drained ->
        d_step {
            excess[me] = excess[me] & ~drained;
            held = COUNT(excess[me]);
            do
            :: n < SLOTS && (drained & BIT(n)) -> slot[n] = 0; n++
            :: n < SLOTS && !(drained & BIT(n)) -> n++
            :: n == SLOTS -> n = 0; break
            od;
            drained = 0
        }
        if
        :: !is_leader -> notify_recheck() /* The leader may have found them held. */
        :: else
        fi
    :: else -> held = COUNT(excess[me])
    fi
#ifdef BREAK_FORGETS_EXCESS
    ; held = 0
#endif
}

/* Releases slots that were gathered under a larger capacity and are beyond the current one. */
inline keep_valid(is_leader) {
#ifndef BREAK_KEEPS_WHAT_IS_BEYOND
    if
    :: mine & ~(BIT(known[me]) - 1) ->
        d_step {
            n = 0;
            do
            :: n < SLOTS && n >= known[me] && (mine & BIT(n)) -> slot[n] = 0; mine = mine & ~BIT(n); n++
            :: n < SLOTS && !(n >= known[me] && (mine & BIT(n))) -> n++
            :: n == SLOTS -> n = 0; break
            od
        }
        if
        :: !is_leader -> notify_waiters()
        :: else
        fi
    :: else
    fi
#else
    skip
#endif
}
#endif

/* Keeps `count` slots and releases the surplus, if there are enough. */
inline commit(count) {
    if
    :: COUNT(mine) >= count + held ->
        admit(count);
        got = 1;
        n = 0;
        do
        :: n < SLOTS && COUNT(mine) > count && (mine & BIT(n)) ->
            slot[n] = 0; mine = mine & ~BIT(n); n++; surplus = 1
        :: n < SLOTS && !(COUNT(mine) > count && (mine & BIT(n))) -> n++
        :: n == SLOTS -> n = 0; break
        od;
        assert(!(mine & ~(BIT(known[me]) - 1))) /* all numbers are below the capacity */
    :: else
    fi
}

/* Adds free slots to `mine` until there are `count` of them; then `got` is set. `is_invalid` is set if the capacity is
 * less than that. */
inline gather(count, is_leader) {
    do
    :: true ->
#if RESIZES
        if
        :: count > known[me] ->
            refresh();
            if
            :: known[me] == 0 -> /* Paused: the capacity that follows is not known (S3). */
                keep_valid(is_leader);
                break
            :: known[me] != 0 && count > known[me] -> is_invalid = 1; break
            :: else
            fi
        :: else
        fi;
        keep_valid(is_leader);
#endif
        do
        :: atomic { n < known[me] && COUNT(mine) < count + COUNT(excess[me]) -> try_slot(mine) }
#if MARKS_
            /* A slot is marked once it is locked. */
            is_out[HANDLE(me)] = is_out[HANDLE(me)] | mine
#endif
        :: else -> n = 0; break
        od;
#if RESIZES && !defined(BREAK_COUNTS_EXCESS_AFTER_THE_CHECK)
        count_excess(is_leader);
#endif
        if
#if defined(BREAK_NO_LOOK_AFTER_LOCKING)
        :: atomic { true -> commit(count) }
#elif defined(BREAK_COUNTS_EXCESS_AFTER_THE_CHECK)
        :: IS_CURRENT ->
            count_excess(is_leader);
            atomic { commit(count) }
#else
        :: atomic { IS_CURRENT -> commit(count) } /* Checks after locking, and after counting the slots in excess (S3). */
#endif
            if
            :: surplus && !is_leader -> surplus = 0; notify_waiters()
            :: else -> surplus = 0
            fi;
            break
#if RESIZES && !defined(BREAK_NO_LOOK_AFTER_LOCKING)
        :: else -> refresh()
#endif
        fi
    od
}

#if ONE_HANDLE_
#define LOCK_TABLE(h) atomic { !table[h] -> table[h] = 1 }
#define UNLOCK_TABLE(h) table[h] = 0
#else
#define LOCK_TABLE(h) skip
#define UNLOCK_TABLE(h) skip
#endif

/* Locks `waiters` first, then sets `queued` (S5). */
inline renew() {
    LOCK_TABLE(HANDLE(me));
    if
#ifndef BREAK_TAKES_FOR_NOBODY
    :: waiting[HANDLE(me)] == 0
#endif
    :: atomic { waiting[HANDLE(me)] != 0 || TAKES_FOR_NOBODY ->
            if
            :: exclusive == 0 -> shared = shared | BIT(HANDLE(me))
            :: else
            fi
        }
        if
        :: shared & BIT(HANDLE(me)) -> queued = 1; relies = 1
        :: else -> relies = 0
        fi
    fi;
    UNLOCK_TABLE(HANDLE(me))
}

inline leave(was_leader) {
    LOCK_TABLE(HANDLE(me));
    atomic {
        waiting[HANDLE(me)]--;
        leaders[HANDLE(me)] = leaders[HANDLE(me)] - was_leader;
        if
        :: waiting[HANDLE(me)] == 0 -> shared = shared & ~BIT(HANDLE(me))
        :: else
        fi;
        UNLOCK_TABLE(HANDLE(me))
    }
}

/* The kernel closes the files of a dead process, which is an event, and then unlocks them in any order (8). */
inline die(number) {
    atomic {
        closing++;
        if
        :: number < CLIENTS -> waiting[number] = 0; leaders[number] = 0; table[number] = 0; leftover[number] = 0
        :: else
        fi;
        n = 0
    }
#ifndef DEAF
    event(1);
#endif
#ifndef BREAK_DEATH_KEEPS_LOCK
    do
    :: slot[0] == number + 1 -> slot[0] = 0
#if SLOTS > 1
    :: slot[1] == number + 1 -> slot[1] = 0
#endif
#if SLOTS > 2
    :: slot[2] == number + 1 -> slot[2] = 0
#endif
    :: gate == number + 1 -> gate = 0
    :: exclusive == number + 1 -> exclusive = 0
    :: shared & BIT(number) -> shared = shared & ~BIT(number)
    :: else -> break
    od;
#endif
    closing--
}

#define IS_FREE(n) (slot[(n) * ((n) < SLOTS)] == 0)
#define HAS_FREE ((known[me] > 0 && IS_FREE(0)) || (known[me] > 1 && IS_FREE(1)) || (known[me] > 2 && IS_FREE(2)))
#define ALL_FREE (((known[me] > 0 && IS_FREE(0)) + (known[me] > 1 && IS_FREE(1)) + (known[me] > 2 && IS_FREE(2))) >= WANT(me))
#define FREE (IS_FREE(0) + (SLOTS > 1 && IS_FREE(1)) + (SLOTS > 2 && IS_FREE(2)))
/* Whether a check without an event would find something. */
#define IS_NEW (HAS_FREE || !IS_CURRENT)

proctype Client(byte me)
#ifdef STOPS
provided (!stopped[me])
#endif
{
    byte mine, n, listener, rounds;
#ifdef BREAK_NO_BARRIER
    bit saw;
#endif
    bit got, relies, is_invalid, has_left, is_behind, surplus;
#if RESIZES
    byte held, drained;
#endif
#ifdef BREAK_PAUSE_ENDS_EXCESS
    bit was_paused;
#endif
#ifdef BREAK_UNMARKS_AFTER_TELLING
    byte saved;
#endif
    {
        skip;
next:
        if
        :: rounds == ROUNDS || is_invalid -> goto over
        :: else -> rounds++
        fi;
        if
        :: !((QUEUE >> me) & 1) ->
            gather(WANT(me), 0);
            if
            :: got -> goto has
            :: else ->
                release_mine();
                if
                :: is_invalid -> goto over
                :: else
                fi
            fi
        :: (queued || ((QUEUE >> me) & 1)) && !TRIES(me) /* another waiter is queued, in this process or another (S5) */
        fi;
        if
        :: TRIES(me) -> goto next
        :: else
        fi;
        /* Announces the wait (S5) before queueing (S4). */
#ifndef BREAK_ANNOUNCES_LATE
        waiting[HANDLE(me)]++;
        renew();
#endif
#ifdef ASKS
        asks[HANDLE(me)] = 1; /* a client that cannot lock the gate file at once starts a helper */
#endif
queueing:
#ifndef BREAK_GATHERS_WITHOUT_GATE
        if
        :: atomic { gate == 0 -> gate = me + 1 } /* This client is the leader (S4). */
            is_behind = 0
        :: GIVES_UP(me) -> /* Tries once more at its deadline (W2). */
            is_behind = 1; has_left = 1
#ifdef BACKSTOP
        :: ALL_FREE -> is_behind = 1 /* Passes the queue after the interval (S8). */
#endif
        fi;
        if
        :: is_behind ->
            gather(WANT(me), 0);
            if
            :: got -> leave(0); goto had
            :: else -> release_mine()
            fi;
            if
            :: is_invalid -> leave(0); goto had
            :: else
            fi;
            if
            :: has_left -> has_left = 0; leave(0); goto next
            :: else -> goto queueing
            fi
        :: else
        fi;
#endif
checking:
        /* Notifications before this attempt are forgotten (W1). */
#ifndef BREAK_COUNTS_AFTER_THE_LOOK
        atomic { is_notified[me] = 0; after_close[me] = after_close[me] && closing != 0 };
#endif
#ifndef BREAK_ANNOUNCES_LATE
        if
        :: !is_behind ->
#ifndef BREAK_TAKES_FROM_THE_HEAD
            leaders[HANDLE(me)]++;
#endif
            is_behind = 1 /* from here on: whether it is known as the leader */
        :: else
        fi;
        renew();
#endif
        gather(WANT(me), 1);
        if
        :: got || is_invalid -> goto leaving
        :: else
        fi;
#ifdef BREAK_ANNOUNCES_LATE
        waiting[HANDLE(me)]++;
        renew();
#endif
        if
        :: has_left -> goto leaving
        :: else
        fi;
resting:
        /* Requests a watch after the attempt. When the watch is up, another attempt finds earlier changes. */
        if
        :: watch[me] == 0 -> watch[me] = 1
        :: else
        fi;
#ifdef BREAK_COUNTS_AFTER_THE_LOOK
        atomic { is_notified[me] = 0; after_close[me] = after_close[me] && closing != 0 };
#endif
        if
        :: is_notified[me] -> goto checking
        :: after_close[me] && closing == 0 -> goto checking /* the files are unlocked (8) */
        :: watch[me] != 2 && !IS_ONLY_ONE && IS_NEW -> goto checking /* polls (W4) */
        :: watch[me] == 3 && !IS_CURRENT -> goto checking
#ifdef BREAK_RELIES_ON_WHAT_ANOTHER_SAID
        :: !(shared & BIT(HANDLE(me))) && (exclusive == 0 || IS_NEW) -> goto checking
#else
        :: !relies && (exclusive == 0 || IS_NEW) -> goto checking /* polls, since its wait is not announced (S5) */
#endif
#ifdef BACKSTOP
        :: IS_NEW -> goto checking /* checks after the interval (S8) */
#endif
#ifndef BREAK_NOT_IN_THE_KERNEL
        :: atomic { IS_ONLY_ONE && slot[0] == 0 -> slot[0] = me + 1 } /* Waits in the kernel for the only slot (S9). */
            leftover[HANDLE(me)] = 0;
            if
            :: atomic { IS_ONLY_ONE -> mine = 1; admit(1); got = 1 }
                goto leaving
            :: else ->
                mine = 1;
                release_mine();
#if RESIZES
                refresh();
#endif
                goto checking
            fi
        :: GIVES_UP(me) && IS_ONLY_ONE -> /* its helper stays blocked (Q4) */
            leftover[HANDLE(me)] = 1;
            has_left = 1;
            goto checking
#endif
        :: GIVES_UP(me) -> has_left = 1; goto checking
        fi;
leaving:
        /* Releases unused slots, then `waiters`, then the gate file (S4). */
        if
        :: got
        :: else -> release_mine()
        fi;
        d_step { watch[me] = 0; is_notified[me] = 0; after_close[me] = 0 };
#ifdef BREAK_TAKES_FROM_THE_HEAD
        leave(0);
#else
        leave(is_behind);
#endif
        is_behind = 0;
        has_left = 0;
#ifndef BREAK_GATHERS_WITHOUT_GATE
        gate = 0;
#endif
had:
        if
        :: is_invalid || !got -> goto next
        :: else
        fi;
has:
        atomic { out = out - granted[me]; granted[me] = 0; got = 0; relies = 0; is_behind = 0; has_left = 0 }
        release_mine();
        goto next;
over:
        is_over[me] = 1
    }
#if KILLS
    unless {
        killed[me] -> d_step { out = out - granted[me]; granted[me] = 0; watch[me] = 0; is_notified[me] = 0 };
        die(me)
    }
    ;
    is_over[me] = 1
#endif
}

/* A helper that was started for a queued client checks for other waiters (S4), which may have left in the meantime. */
proctype Asker(byte me) {
    bit relies;
end:
    do
    :: asks[me] ->
        asks[me] = 0;
        LOCK_TABLE(me);
        if
        :: waiting[me] > 1 || leaders[me] > 0 -> UNLOCK_TABLE(me)
        :: else ->
            shared = shared & ~BIT(me);
            if
            :: atomic { shared == 0 && exclusive == 0 -> exclusive = 100 }
                exclusive = 0
            :: else
            fi;
            UNLOCK_TABLE(me);
            renew()
        fi
    od
}

/* A helper without a waiter eventually acquires the only slot, and releases it (Q3). */
proctype Leftover(byte me) {
    byte listener;
    {
        skip;
end:
        do
        :: atomic { leftover[me] && slot[0] == 0 -> slot[0] = me + 1 }
            leftover[me] = 0;
            slot[0] = 0;
#ifndef BREAK_HELPER_DOES_NOT_TELL
            notify_recheck()
#endif
        od
    }
#if KILLS
    unless { killed[me] -> skip }
#endif
}

/* Counts the free slots, and holds each for a moment. */
proctype Observer() {
    byte n, listener;
    {
        do
        :: n < known[OBSERVER] ->
            if
            :: atomic { slot[n] == 0 -> slot[n] = OBSERVER + 1 }
                slot[n] = 0
            :: else
            fi;
            n++
        :: else -> n = 0; break
        od;
#ifndef BREAK_OBSERVER_DOES_NOT_TELL
        notify_recheck()
#endif
    }
#if KILLS
    unless { killed[OBSERVER] -> die(OBSERVER) }
#endif
}

#if RESIZES
/* Writes the capacity first, then the generation, then notifies (S3). */
inline resize_to(permits) {
#ifdef BREAK_SIGN_BEFORE_CAPACITY
    d_step { resized++; effective = permits }
    capacity = permits;
#else
    /* A process that reads it because of an earlier change may grant added permits from here on. */
    d_step { capacity = permits; effective = (permits > effective -> permits : effective) }
    d_step { resized++; effective = permits }
#endif
#ifndef BREAK_RESIZE_DOES_NOT_POKE
    poke()
#endif
}

proctype Resizer() {
    byte listener, n;
    {
        resize_to(RESIZE);
#ifdef RESIZE_AGAIN
        resize_to(RESIZE_AGAIN)
#endif
    }
#if KILLS
    unless { killed[RESIZER] -> die(RESIZER) }
#endif
}

/* Another process holds permits from the beginning, and releases them one after the other. */
proctype Holder() {
    byte me = HOLDER, mine, n, listener;
#ifdef BREAK_NO_BARRIER
    bit saw;
#endif
    do
    :: atomic { slot[0] == HOLDER + 1 -> out--; slot[0] = 0 } notify_waiters()
#if SLOTS > 1
    :: atomic { slot[1] == HOLDER + 1 -> out--; slot[1] = 0 } notify_waiters()
#endif
#if SLOTS > 2
    :: atomic { slot[2] == HOLDER + 1 -> out--; slot[2] = 0 } notify_waiters()
#endif
    :: else -> break
    od
}
#endif

/* The thread that watches for the leaders. */
inline come_up(c) {
#ifdef NO_WATCH
    watch[c] = 3
#else
    watch[c] = 2;
#ifndef BREAK_WATCH_COMES_UP_IN_SILENCE
    is_notified[c] = 1;
#ifndef BREAK_NO_LOOK_AFTER_CLOSE
    after_close[c] = 1
#endif
#endif
#endif
}

active proctype Hub() {
end:
    do
    :: d_step { watch[0] == 1 -> come_up(0) }
#if CLIENTS > 1
    :: d_step { watch[1] == 1 -> come_up(1) }
#endif
#if CLIENTS > 2
    :: d_step { watch[2] == 1 -> come_up(2) }
#endif
    od
}

/* A process may die at any moment, or never. */
#define MAY_DIE(c) (kills < KILLS && (VICTIMS & BIT(c)) && c < PROCESSES && (c >= CLIENTS || !is_over[c * (c < CLIENTS)]))

inline end_process(c) {
    kills++;
    killed[c] = 1
}

active proctype Fate() {
    do
#if KILLS
    :: d_step { MAY_DIE(0) -> end_process(0) }
    :: d_step { MAY_DIE(1) -> end_process(1) }
    :: d_step { MAY_DIE(2) -> end_process(2) }
    :: d_step { MAY_DIE(3) -> end_process(3) }
#endif
#ifdef STOPS
    :: d_step { !has_stopped -> has_stopped = 1; stopped[0] = 1 }
    :: d_step { !has_stopped -> has_stopped = 1; stopped[1] = 1 }
#endif
    :: break
    od
}

init {
    byte c;
    atomic {
        c = 0;
        do
        :: c < CLIENTS ->
            run Client(c);
#ifdef ASKS
            if
            :: HANDLE(c) == c -> run Asker(c)
            :: else
            fi;
#endif
#if SLOTS >= 1 && defined(LEFTOVERS)
            run Leftover(c);
#endif
            c++
        :: else -> c = 0; break
        od;
#ifdef OBSERVES
        run Observer();
#endif
#if RESIZES
        run Resizer();
#if HELD
        do
        :: c < SLOTS && (HELD & BIT(c)) -> slot[c] = HOLDER + 1; out++; c++
        :: c < SLOTS && !(HELD & BIT(c)) -> c++
        :: c == SLOTS -> c = 0; break
        od;
        made = HELD;
        run Holder();
#endif
#endif
    }
    timeout; /* No other process can move. */
    d_step {
        do
        :: c < CLIENTS ->
            /* No notification is lost and nothing deadlocks, except for the slots of a stopped client. */
            assert(is_over[c] || stopped[c] || (has_stopped && FREE < WANT(c)));
            assert(!is_over[c] || stopped[c] || granted[c] == 0);
            c++
        :: else -> c = 0; break
        od;
        if
        :: !has_stopped ->
            do
            :: c < SLOTS -> assert(slot[c] == 0); c++ /* no permit is lost */
            :: else -> c = 0; break
            od;
            assert(gate == 0 && shared == 0 && exclusive == 0 && out == 0)
        :: else
        fi
    }
}
