/* The gate of an `RwLock` (rules R1 to R3 and R5), as implemented in src/wait/turnstile.rs and
 * src/rwlock/gate.rs.
 *
 * CLIENTS processes want the lock, those in WRITERS exclusively and the others shared. Those in TRY
 * only try, and those in TIMED may give up at any moment. KILLS processes may die at any moment,
 * and STOPS processes may be stopped, and continued or not, except while they hold the lock. With
 * -DFOREVER all clients but client 0 want the lock again and again.
 *
 * Abstractions: the queue of tickets is in order, and a dead waiter is not in it (queue.pml). The
 * kernel grants a free file to any process that requests it. A waiter that has queued for a second
 * finds the lock free twice within 3 ms only if no running process is about to acquire it
 * (`IS_COMING`), and each waiter checks when that is so.
 *
 * Properties:
 * - A writer excludes readers and writers.
 * - Whenever no process can move, each living client that is not stopped has had the lock, would
 *   have blocked, or has given up. No lock is held, and no ticket is left.
 * - A process that acquires the lock in the usual way has passed no waiter that had a ticket before
 *   it came. A waiter that acquires it by its own check passes no running process that holds the
 *   gate.
 * - A waiter that has a ticket, runs and does not give up acquires the lock (LTL, with weak
 *   fairness), also if others come again and again.
 */

#ifndef CLIENTS
#define CLIENTS 3
#endif
#ifndef WRITERS
#define WRITERS 1
#endif
#ifndef TRY
#define TRY 0
#endif
#ifndef TIMED
#define TIMED 0
#endif
#ifndef KILLS
#define KILLS 0
#endif
#ifndef STOPS
#define STOPS 0
#endif
#ifdef FOREVER
#define COMES_AGAIN (me != 0)
#else
#define COMES_AGAIN 0
#endif
#ifdef BREAK_NO_CHECK_EACH_SECOND
#define CHECKS 0
#else
#define CHECKS 1
#endif
#define ATTEMPTS 2       /* of a try, while another process passes the gate */
#define BIT(c) (1 << (c))
#define IS_IN(set, c) (((set) >> (c)) & 1)
#define WRITES(c) IS_IN(WRITERS, c)

/* Kernel state. */
byte gate;               /* its holder plus 1 */
byte writer;             /* the process plus 1 that has the lock exclusively */
byte readers;            /* those that share it, as bits */
/* The queue of tickets. */
chan tickets = [CLIENTS] of { byte };
byte first = CLIENTS;    /* the first ticket, or CLIENTS */
byte known;              /* the waiters that the header of `tickets` counts, as bits */
bit is_stale;            /* a dead waiter is counted */
/* The model itself. */
byte waiting;            /* the clients that have a ticket and not yet the lock, as bits */
byte before[CLIENTS];    /* those of them that had a ticket when this client came */
bit holds[CLIENTS];
bit is_over[CLIENTS];
bit killed[CLIENTS];
bit stopped[CLIENTS];
byte kills;
byte stops;

#define MAY_LOCK(c) (writer == 0 && (!WRITES(c) || readers == 0))
#define HAS_WAITERS (known != 0 || is_stale)
#define IS_GATE_STOPPED ((gate != 0 && stopped[gate - 1]) || (first < CLIENTS && stopped[first]))
#define RUNS(c) ((c) < CLIENTS && !stopped[c])
#define IS_COMING (gate != 0 -> !stopped[gate - 1] : RUNS(first))

inline find_first() {
    if
    :: nempty(tickets) -> tickets ? <first>
    :: empty(tickets) -> first = CLIENTS
    fi
}

/* Client `c` does not wait any more. */
inline end_wait(c) {
    waiting = waiting & ~BIT(c);
    k = 0;
    do
    :: k < CLIENTS -> before[k] = before[k] & ~BIT(c); k++
    :: k == CLIENTS -> break
    od;
    k = 0
}

inline lock(c) {
    end_wait(c);
    writer = (WRITES(c) -> c + 1 : 0);
    readers = readers | (WRITES(c) -> 0 : BIT(c));
    holds[c] = 1
}

/* The check of a waiter that has queued for a second (R3). */
#ifdef BREAK_CHECKS_SHARED
#define IS_FREE (CHECKS && MAY_LOCK(me) && !(writer == 0 && readers == 0 && IS_COMING))
#else
#define IS_FREE (CHECKS && writer == 0 && readers == 0 && !IS_COMING)
#endif
#define MAY_BYPASS (CHECKS && IS_GATE_STOPPED && MAY_LOCK(me))
#define PASSES_RUNNING_WAITER (gate != 0 && !stopped[gate - 1] && IS_IN(before[me], gate - 1))

inline leave() {
    d_step {
        if
        :: tickets ?? [eval(me)] -> tickets ?? eval(me)
        :: else
        fi;
        known = known & ~BIT(me);
        is_stale = is_stale && nempty(tickets);
        find_first()
    }
}

/* The kernel closes what a dead process has open. */
inline die() {
    d_step {
        killed[me] = 1;
        gate = (gate == me + 1 -> 0 : gate);
        writer = (writer == me + 1 -> 0 : writer);
        readers = readers & ~BIT(me);
        is_stale = is_stale || IS_IN(known, me);
        if
        :: tickets ?? [eval(me)] -> tickets ?? eval(me)
        :: else
        fi;
        known = known & ~BIT(me);
        end_wait(me);
        find_first();
        holds[me] = 0;
        before[me] = 0;
        is_over[me] = 1
    }
}

proctype Client(byte me)
#if STOPS
provided (!stopped[me])
#endif
{
    byte attempts, k;
    bit bypasses;
    {
        skip;
come:
        skip;
        d_step { before[me] = waiting & known }
        if
        :: IS_IN(TRY, me) -> goto try
        :: !IS_IN(TRY, me)
        fi;
        /* A caller that finds no waiter tries the gate, and then the lock. */
#ifndef BREAK_BARGES
        if
        :: HAS_WAITERS -> goto queue
        :: !HAS_WAITERS
        fi;
#endif
        if
        :: atomic { gate == 0 -> gate = me + 1 }
        :: gate != 0 -> goto queue
        fi;
        if
        :: d_step { MAY_LOCK(me) -> lock(me) }
            goto granted
        :: !MAY_LOCK(me)
        fi;
        gate = 0;
queue:
        skip;
        /* It joins the queue. The header is written after the ticket. */
        d_step { tickets ! me; waiting = waiting | BIT(me); find_first() }
        known = known | BIT(me);
wait_for_turn:
        if
        :: first == me
        :: d_step { IS_FREE -> assert(!PASSES_RUNNING_WAITER); lock(me) } goto bypassed
        :: d_step { MAY_BYPASS -> assert(!PASSES_RUNNING_WAITER); lock(me) } goto bypassed
        :: d_step { IS_IN(TIMED, me) -> end_wait(me) } goto last_chance
        fi;
        /* It is at the front, and waits for the gate in the kernel. */
wait_for_gate:
        if
        :: atomic { gate == 0 -> gate = me + 1 }
        :: d_step { IS_FREE -> assert(!PASSES_RUNNING_WAITER); lock(me) } goto bypassed
        :: d_step { MAY_BYPASS -> assert(!PASSES_RUNNING_WAITER); lock(me) } goto bypassed
        :: d_step { IS_IN(TIMED, me) -> end_wait(me) } goto last_chance
        fi;
        /* It holds the gate, and waits for the lock in the kernel. */
#ifdef BREAK_RELEASES_THE_GATE_EARLY
        gate = 0;
        leave();
#endif
        if
#ifdef BREAK_TRUSTS_THE_GATE
        :: d_step { lock(me) }
#else
        :: d_step { MAY_LOCK(me) -> lock(me) }
#endif
        :: d_step { IS_IN(TIMED, me) -> end_wait(me) }
            gate = 0;
            leave();
            goto over
        fi;
granted:
        skip;
        d_step { assert(bypasses || (before[me] & waiting) == 0); bypasses = 0 }
#ifndef BREAK_KEEPS_THE_GATE
        gate = (gate == me + 1 -> 0 : gate);
#endif
bypassed:
        skip;
        leave();
holding:
        skip;
        d_step {
            assert(writer == 0 || (readers == 0 && writer == me + 1));
            assert(writer != 0 || IS_IN(readers, me))
        }
        d_step {
            writer = (WRITES(me) -> 0 : writer);
            readers = readers & ~BIT(me);
            holds[me] = 0;
            before[me] = 0
        }
        if
        :: COMES_AGAIN -> goto come
        :: !COMES_AGAIN -> goto over
        fi;
last_chance:
        /* It tries the gate and the lock if it is at the front, and then leaves. */
        if
        :: atomic { first == me && gate == 0 -> gate = me + 1 }
            if
            :: d_step { MAY_LOCK(me) -> lock(me) } goto granted
            :: !MAY_LOCK(me) -> gate = 0
            fi
        :: d_step { MAY_BYPASS -> assert(!PASSES_RUNNING_WAITER); lock(me) } goto bypassed
        :: !(first == me && gate == 0) && !MAY_BYPASS
        fi;
        leave();
        goto over;
try:
#ifndef BREAK_TRIES_PASS_WAITERS
        if
        :: d_step { HAS_WAITERS && first < CLIENTS && !stopped[first] } goto over
        :: d_step { HAS_WAITERS && first < CLIENTS && stopped[first] -> bypasses = 1 }
        :: !HAS_WAITERS || first == CLIENTS
        fi;
#endif
        do
        :: attempts < ATTEMPTS ->
            if
            :: atomic { gate == 0 -> gate = me + 1 }
                if
                :: d_step { MAY_LOCK(me) -> attempts = 0; lock(me) } goto granted
                :: !MAY_LOCK(me) -> gate = 0; goto over
                fi
            :: gate != 0
            fi;
            /* If the lock is held, the process in the gate waits for it. */
            if
            :: d_step { MAY_LOCK(me) -> lock(me) }
                d_step {
                    writer = (WRITES(me) -> 0 : writer);
                    readers = readers & ~BIT(me);
                    holds[me] = 0
                }
            :: !MAY_LOCK(me) -> goto over
            fi;
            attempts++
        :: attempts == ATTEMPTS -> break
        od;
        if
        :: d_step { IS_GATE_STOPPED && MAY_LOCK(me) -> attempts = 0; lock(me) } goto holding
        :: !(IS_GATE_STOPPED && MAY_LOCK(me))
        fi;
over:
        skip;
        d_step { attempts = 0; bypasses = 0; before[me] = 0; is_over[me] = 1 }
    }
#if KILLS
    unless { killed[me] -> skip }
#endif
}

#if KILLS || STOPS
/* Kills, stops and continues processes at any moment, or never. */
active proctype Fate() {
    byte me, k;
    do
#if KILLS
    :: atomic {
            kills < KILLS -> kills++;
            do
            :: me < CLIENTS - 1 -> me++
            :: !is_over[me] -> die(); break
            :: else -> break
            od;
            me = 0
        }
#endif
#if STOPS
    :: atomic {
            stops < STOPS -> stops++;
            do
            :: me < CLIENTS - 1 -> me++
            :: !is_over[me] && !holds[me] -> stopped[me] = 1; break
            :: else -> break
            od;
            me = 0
        }
    :: atomic {
            stops > 0 ->
            do
            :: me < CLIENTS - 1 -> me++
            :: stopped[me] -> stopped[me] = 0; break
            :: else -> break
            od;
            me = 0
        }
#endif
    :: break
    od
}
#endif

init {
    byte c;
    atomic {
        do
        :: c < CLIENTS -> run Client(c); c++
        :: c == CLIENTS -> c = 0; break
        od
    }
    timeout; /* nothing else can move */
    d_step {
        do
        :: c < CLIENTS ->
            assert(is_over[c] || stopped[c]);
            assert(!holds[c]);
            c++
        :: c == CLIENTS -> c = 0; break
        od;
        assert(writer == 0 && readers == 0);
        assert(gate == 0 || stopped[gate - 1])
    }
}

#define WAITS (IS_IN(waiting, 0) && !stopped[0] && !killed[0])
ltl progress { [] (WAITS -> <> !WAITS) }
