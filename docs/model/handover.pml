/* The handover of a lock within a process (rules W1 to W5, Q1 to Q5, 2 and 4), as implemented in
 * src/wait/queue.rs and src/wait/queued_waiter.rs.
 *
 * One process has WAITS waits (threads or futures) for one lock, which another process wants as well. The lock file may
 * be replaced REPLACED times, a helper may fail FAILS times, and the process may be killed at any moment (KILLED). Each
 * wait may time out or be dropped at any moment.
 *
 * Abstractions: everything under the mutex is one step (Q1), except where a breakage splits it. There are at most as
 * many helpers as waits. The kernel grants in any order. A polling wait tries when there is something to acquire.
 *
 * Properties: at most one of those that passed the check of rule 2 holds the lock (assertion). At the end of every run
 * no lock is held without a holder, no queue and no helper is left, and every wait was granted or has given up: no
 * notification and no grant is lost, and nothing deadlocks, whatever died.
 */

#ifndef WAITS
#define WAITS 3
#endif
#ifndef REPLACED
#define REPLACED 0
#endif
#ifndef FAILS
#define FAILS 0
#endif
#ifndef GIVE_UP
#define GIVE_UP 7        /* the waits that may give up, as bits */
#endif
#define FILES (REPLACED + 1)
#define HELPERS WAITS
#define FREE 0
#define OTHER 100
#define OURS 50          /* plus the holder: a wait's number, or HELPER plus a helper's number */
#define HELPER 20

mtype = { none, waiting, granted, replaced, no_helper };

byte lock[FILES];        /* kernel state: the holder of each file's lock */
byte named;              /* the file that the path names */
byte held;               /* the holders that passed the check and have not released */

/* The mutex protects these, for each file. */
bit has_queue[FILES];
byte helper_of[FILES];   /* the number of its helper */
chan queue[FILES] = [WAITS] of { byte };
mtype result[WAITS];
bit woken[WAITS];
bit is_over[WAITS];

bit job[HELPERS];        /* the helper is started, for the file file_of */
byte file_of[HELPERS];
bit is_busy[HELPERS];
byte fails;
bit killed;
bit is_other_over;

inline wake(w) {
#ifndef BREAK_DOES_NOT_WAKE
    woken[w] = 1
#else
    skip
#endif
}

/* Grants the lock of file f to the first wait in its queue, which becomes `w`. If the queue is empty, `w` is WAITS. */
inline grant(f, w) {
    w = WAITS;
    if
    :: has_queue[f] && nempty(queue[f]) ->
        queue[f] ? w;
        result[w] = granted;
        lock[f] = OURS + w
    :: has_queue[f] && empty(queue[f])
    :: !has_queue[f]
    fi
}

inline settle(f, w) {
    if
    :: w < WAITS -> wake(w)
    :: else -> lock[f] = FREE
    fi;
    w = 0
}

/* A helper ends only its own queue, under the mutex (Q3, Q5). */
inline end_if_empty(f, number) {
    if
#ifdef BREAK_ENDS_ANOTHERS_LINE
    :: has_queue[f] ->
#else
    :: has_queue[f] && helper_of[f] == number ->
#endif
        if
        :: empty(queue[f]) -> has_queue[f] = 0; is_last = 1
        :: nempty(queue[f]) -> is_last = 0
        fi
    :: else -> is_last = 1
    fi
}

proctype Helper(byte number) {
    byte f, w, why;
    bit is_last;
    {
        skip;
end:
        do
        :: job[number] -> /* A helper starts (Q2). */
            atomic { job[number] = 0; f = file_of[number] }
            do
            :: atomic { lock[f] == FREE -> lock[f] = OURS + HELPER + number }
#ifdef BREAK_GRANTS_OUTSIDE_THE_MUTEX
                w = WAITS;
                if
                :: queue[f] ? [w] -> queue[f] ? <w>; lock[f] = OURS + w; result[w] = granted; queue[f] ?? eval(w)
                :: empty(queue[f])
                fi;
                atomic { end_if_empty(f, number) }
#else
                atomic { /* Grant and end of the queue are one step (Q1, Q3). */
                    grant(f, w);
#ifdef BREAK_ENDS_LINE_LATER
                    is_last = empty(queue[f])
                }
                atomic {
                    if
                    :: is_last -> has_queue[f] = 0
                    :: else
                    fi
#else
                    end_if_empty(f, number)
#endif
                }
#endif
                settle(f, w);
                if
                :: is_last -> is_last = 0; why = 0; break
                :: else
                fi
            :: named != f -> why = replaced; break /* (Q5) */
            :: atomic { fails < FAILS -> fails++; why = no_helper } break
            od;
            atomic { /* Dissolves the rest of its queue, under the mutex (Q5). */
#ifndef BREAK_HELPER_LEAVES_ITS_LINE
                if
                :: has_queue[f] && helper_of[f] == number ->
                    do
                    :: nempty(queue[f]) -> queue[f] ? w; result[w] = why; wake(w)
                    :: empty(queue[f]) -> break
                    od;
                    has_queue[f] = 0
                :: else
                fi;
#endif
                is_busy[number] = 0; f = 0; w = 0; why = 0
            }
        od
    }
#ifdef KILLED
    unless { killed -> skip }
#endif
}

#define MAY_GIVE_UP ((GIVE_UP >> me) & 1)

proctype Wait(byte me) {
    byte f, w, h;
    bit drops;
    {
        skip;
begin:
        /* Tries, and queues if that failed. If there is a queue, its blocked helper is the attempt (W1, W3). */
        if
        :: atomic { lock[named] == FREE && !has_queue[named] -> f = named; lock[f] = OURS + me } goto check
        :: atomic { lock[named] != FREE || has_queue[named] -> f = named }
        fi;
        atomic { /* Queues, and becomes responsible for a helper if there is none (Q1, Q2). */
            if
            :: has_queue[f] -> h = HELPERS
            :: else ->
                h = 0;
                do
                :: h < HELPERS && is_busy[h] -> h++
                :: h < HELPERS && !is_busy[h] -> break
                :: h == HELPERS -> break
                od;
                if
                :: h < HELPERS -> is_busy[h] = 1; has_queue[f] = 1; helper_of[f] = h; file_of[h] = f
                :: else -> goto polling
                fi
            fi;
            queue[f] ! me;
            result[me] = waiting;
            woken[me] = 0
        }
        if
        :: h < HELPERS ->
            if
            :: job[h] = 1
            :: atomic { fails < FAILS -> /* the helper could not be started */
                    fails++;
                    if
                    :: has_queue[f] && helper_of[f] == h ->
                        do
                        :: nempty(queue[f]) -> queue[f] ? w; result[w] = no_helper; wake(w)
                        :: empty(queue[f]) -> break
                        od;
                        has_queue[f] = 0
                    :: else
                    fi;
                    is_busy[h] = 0
                }
            fi
        :: else
        fi;
        h = 0; w = 0;
queued:
        if
        :: result[me] != waiting && woken[me] -> woken[me] = 0; goto seen
        :: MAY_GIVE_UP -> drops = 0
        :: MAY_GIVE_UP -> drops = 1
        fi;
        /* Leaves the queue, unless the lock was granted before (W2, Q4). */
#ifdef BREAK_LOOKS_BEFORE_IT_LEAVES
        if
        :: result[me] == granted -> goto granted_before
        :: else
        fi;
#endif
        atomic {
            if
            :: result[me] == waiting -> queue[f] ?? eval(me); result[me] = none; goto gone
#ifdef BREAK_LOOKS_BEFORE_IT_LEAVES
            :: result[me] == granted -> result[me] = none; goto gone
#endif
            :: result[me] == replaced || result[me] == no_helper -> result[me] = none; goto gone
            :: result[me] == granted
            fi
        }
granted_before:
        if
        :: !drops -> result[me] = none; goto check
        :: drops ->
#ifdef BREAK_DROPS_WHAT_WAS_GRANTED
            result[me] = none;
            goto gone;
#endif
            /* Grants to the next wait in the queue, or unlocks (Q4). */
            atomic { result[me] = none; grant(f, w) }
            settle(f, w);
            goto gone
        fi;
seen:
        if
        :: result[me] == granted -> result[me] = none; goto check
        :: result[me] == replaced -> result[me] = none; goto begin
        :: result[me] == no_helper -> result[me] = none; goto polling
        fi;
polling: /* Without a helper a wait polls (W4). */
        if
        :: atomic { lock[named] == FREE -> f = named; lock[f] = OURS + me } goto check
        :: MAY_GIVE_UP -> goto gone
        fi;
check:  /* A wait that is granted the lock checks the path (W5, 2). */
#ifndef BREAK_NO_LOOK_AT_THE_PATH
        if
        :: atomic { named == f -> held++; assert(held == 1) }
        :: named != f -> lock[f] = FREE; goto begin
        fi;
#else
        atomic { held++; assert(held == 1 || named != f); assert(lock[f] == OURS + me && named == f) }
#endif
        assert(lock[f] == OURS + me);
        atomic { held--; lock[f] = FREE };
gone:
        is_over[me] = 1
    }
#ifdef KILLED
    unless { killed -> skip };
    is_over[me] = 1
#endif
}

/* Waits in the kernel without a deadline (W3). */
proctype Other() {
    byte f;
    do
    :: f = named;
        atomic { lock[f] == FREE -> lock[f] = OTHER }
        if
        :: atomic { named == f -> held++; assert(held == 1) } break
        :: named != f -> lock[f] = FREE
        fi
    od;
    atomic { held--; lock[f] = FREE };
    is_other_over = 1
}

/* Replaces the file while it is not held. Replacing a held file would unlock it for all other processes (2). */
active proctype Fate() {
    do
#if REPLACED
    :: atomic { named < REPLACED && held == 0 -> named++ }
#endif
#ifdef KILLED
    :: atomic { !killed && lock[0] != OTHER -> killed = 1; held = 0 }
        atomic { /* The kernel releases the locks of the process (4). */
            skip;
#ifndef BREAK_DEATH_KEEPS_LOCK
            if
            :: lock[0] != OTHER -> lock[0] = FREE
            :: else
            fi
#endif
        }
        break
    :: atomic { !killed && lock[0] == OTHER -> killed = 1 }
        break
#endif
    :: break
    od
}

init {
    byte c;
    atomic {
        do
        :: c < WAITS -> run Wait(c); run Helper(c); c++
        :: else -> c = 0; break
        od;
        run Other()
    }
    timeout;
    d_step {
        assert(is_other_over);
        do
        :: c < WAITS ->
            assert(is_over[c] && (killed || !is_busy[c]));
            c++
        :: else -> c = 0; break
        od;
        do
        :: c < FILES -> assert(lock[c] == FREE && (killed || (!has_queue[c] && empty(queue[c])))); c++
        :: else -> c = 0; break
        od;
        assert(held == 0)
    }
}
