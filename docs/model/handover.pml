/* The hand-over of docs/PROTOCOL.md: rules W1 to W5, Q1 to Q5, 2 and 4, as src/wait/queue.rs and queued_waiter.rs have it.
 *
 * One process with WAITS waits (threads or futures) for one lock, and somebody else's process that also wants it. The
 * lock's file may be replaced REPLACED times, a helper may fail FAILS times, and the process be killed at any moment
 * (KILLED). Each wait may get its deadline, or be dropped, at any moment.
 *
 * Abstracted: what is done under the mutex is one step (Q1), but where a breakage takes it apart; at most as many
 * helpers as places; the kernel grants in any order; who polls looks when there is something to be had.
 *
 * Properties: of those who passed the check of rule 2 at most one has the lock (assertion); at the end of every run
 * nothing is locked that nobody holds, there is no line and no helper, and everybody was granted or gave up: no lost
 * wake-up, no lost grant, no deadlock, whatever died.
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
#define GIVE_UP 7        /* who may, as bits */
#endif
#define FILES (REPLACED + 1)
#define HELPERS WAITS
#define NOBODY 0
#define OTHER 100
#define OURS 50          /* plus what has it: a wait's number; HELPER plus a helper's */
#define HELPER 20

mtype = { none, waiting, granted, replaced, no_helper };

byte lock[FILES];        /* the kernel's: who has the lock of each file */
byte named;              /* the file that the path names */
byte held;               /* by who passed the check, and has not let go */

/* Under the mutex, for each file: */
bit has_line[FILES];
byte helper_of[FILES];   /* the number of its helper */
chan line[FILES] = [WAITS] of { byte };
mtype seat[WAITS];
bit woken[WAITS];
bit is_over[WAITS];

bit job[HELPERS];        /* a helper that is started, and for which file */
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

/* Gives the lock of file f to the first in its line: `w`, or WAITS where nobody stands there. */
inline grant(f, w) {
    w = WAITS;
    if
    :: has_line[f] && nempty(line[f]) ->
        line[f] ? w;
        seat[w] = granted;
        lock[f] = OURS + w
    :: has_line[f] && empty(line[f])
    :: !has_line[f]
    fi
}

inline settle(f, w) {
    if
    :: w < WAITS -> wake(w)
    :: else -> lock[f] = NOBODY
    fi;
    w = 0
}

/* Q3, Q5: under the mutex, only of its own line. */
inline end_if_empty(f, number) {
    if
#ifdef BREAK_ENDS_ANOTHERS_LINE
    :: has_line[f] ->
#else
    :: has_line[f] && helper_of[f] == number ->
#endif
        if
        :: empty(line[f]) -> has_line[f] = 0; is_last = 1
        :: nempty(line[f]) -> is_last = 0
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
        :: job[number] -> /* Q2 */
            atomic { job[number] = 0; f = file_of[number] }
            do
            :: atomic { lock[f] == NOBODY -> lock[f] = OURS + HELPER + number }
#ifdef BREAK_GRANTS_OUTSIDE_THE_MUTEX
                w = WAITS;
                if
                :: line[f] ? [w] -> line[f] ? <w>; lock[f] = OURS + w; seat[w] = granted; line[f] ?? eval(w)
                :: empty(line[f])
                fi;
                atomic { end_if_empty(f, number) }
#else
                atomic { /* Q1, Q3 */
                    grant(f, w);
#ifdef BREAK_ENDS_LINE_LATER
                    is_last = empty(line[f])
                }
                atomic {
                    if
                    :: is_last -> has_line[f] = 0
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
            :: named != f -> why = replaced; break /* Q5 */
            :: atomic { fails < FAILS -> fails++; why = no_helper } break
            od;
            atomic { /* Q5: dissolves what is left of its line, under the mutex */
#ifndef BREAK_HELPER_LEAVES_ITS_LINE
                if
                :: has_line[f] && helper_of[f] == number ->
                    do
                    :: nempty(line[f]) -> line[f] ? w; seat[w] = why; wake(w)
                    :: empty(line[f]) -> break
                    od;
                    has_line[f] = 0
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
        /* W1, W3: tries, and subscribes if that was in vain. Where a line is, its helper's block is the attempt. */
        if
        :: atomic { lock[named] == NOBODY && !has_line[named] -> f = named; lock[f] = OURS + me } goto check
        :: atomic { lock[named] != NOBODY || has_line[named] -> f = named }
        fi;
        atomic { /* Q1, Q2 */
            if
            :: has_line[f] -> h = HELPERS
            :: else ->
                h = 0;
                do
                :: h < HELPERS && is_busy[h] -> h++
                :: h < HELPERS && !is_busy[h] -> break
                :: h == HELPERS -> break
                od;
                if
                :: h < HELPERS -> is_busy[h] = 1; has_line[f] = 1; helper_of[f] = h; file_of[h] = f
                :: else -> goto polling
                fi
            fi;
            line[f] ! me;
            seat[me] = waiting;
            woken[me] = 0
        }
        if
        :: h < HELPERS ->
            if
            :: job[h] = 1
            :: atomic { fails < FAILS -> /* it could not be started */
                    fails++;
                    if
                    :: has_line[f] && helper_of[f] == h ->
                        do
                        :: nempty(line[f]) -> line[f] ? w; seat[w] = no_helper; wake(w)
                        :: empty(line[f]) -> break
                        od;
                        has_line[f] = 0
                    :: else
                    fi;
                    is_busy[h] = 0
                }
            fi
        :: else
        fi;
        h = 0; w = 0;
standing:
        if
        :: seat[me] != waiting && woken[me] -> woken[me] = 0; goto seen
        :: MAY_GIVE_UP -> drops = 0
        :: MAY_GIVE_UP -> drops = 1
        fi;
        /* W2, Q4: out of the line, or granted before. */
#ifdef BREAK_LOOKS_BEFORE_IT_LEAVES
        if
        :: seat[me] == granted -> goto granted_before
        :: else
        fi;
#endif
        atomic {
            if
            :: seat[me] == waiting -> line[f] ?? eval(me); seat[me] = none; goto gone
#ifdef BREAK_LOOKS_BEFORE_IT_LEAVES
            :: seat[me] == granted -> seat[me] = none; goto gone
#endif
            :: seat[me] == replaced || seat[me] == no_helper -> seat[me] = none; goto gone
            :: seat[me] == granted
            fi
        }
granted_before:
        if
        :: !drops -> seat[me] = none; goto check
        :: drops ->
#ifdef BREAK_DROPS_WHAT_WAS_GRANTED
            seat[me] = none;
            goto gone;
#endif
            /* Q4: to the next in line, or unlocked. */
            atomic { seat[me] = none; grant(f, w) }
            settle(f, w);
            goto gone
        fi;
seen:
        if
        :: seat[me] == granted -> seat[me] = none; goto check
        :: seat[me] == replaced -> seat[me] = none; goto begin
        :: seat[me] == no_helper -> seat[me] = none; goto polling
        fi;
polling: /* W4 */
        if
        :: atomic { lock[named] == NOBODY -> f = named; lock[f] = OURS + me } goto check
        :: MAY_GIVE_UP -> goto gone
        fi;
check:  /* W5, 2: who is granted looks */
#ifndef BREAK_NO_LOOK_AT_THE_PATH
        if
        :: atomic { named == f -> held++; assert(held == 1) }
        :: named != f -> lock[f] = NOBODY; goto begin
        fi;
#else
        atomic { held++; assert(held == 1 || named != f); assert(lock[f] == OURS + me && named == f) }
#endif
        assert(lock[f] == OURS + me);
        atomic { held--; lock[f] = NOBODY };
gone:
        is_over[me] = 1
    }
#ifdef KILLED
    unless { killed -> skip };
    is_over[me] = 1
#endif
}

/* Waits in the kernel, without deadline (W3). */
proctype Other() {
    byte f;
    do
    :: f = named;
        atomic { lock[f] == NOBODY -> lock[f] = OTHER }
        if
        :: atomic { named == f -> held++; assert(held == 1) } break
        :: named != f -> lock[f] = NOBODY
        fi
    od;
    atomic { held--; lock[f] = NOBODY };
    is_other_over = 1
}

/* Replaces the file while nobody holds it; who replaces it while it is held has unlocked it for all others (2). */
active proctype Fate() {
    do
#if REPLACED
    :: atomic { named < REPLACED && held == 0 -> named++ }
#endif
#ifdef KILLED
    :: atomic { !killed && lock[0] != OTHER -> killed = 1; held = 0 }
        atomic { /* 4: the kernel drops what the process had */
            skip;
#ifndef BREAK_DEATH_KEEPS_LOCK
            if
            :: lock[0] != OTHER -> lock[0] = NOBODY
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
        :: c < FILES -> assert(lock[c] == NOBODY && (killed || (!has_line[c] && empty(line[c])))); c++
        :: else -> c = 0; break
        od;
        assert(held == 0)
    }
}
