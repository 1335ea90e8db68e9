/* The queue of tickets (rules T1 to T5), as implemented in src/file/ticket_queue.rs and
 * src/wait/order.rs.
 *
 * WAITERS waiters join once each, waiter 0 ROUNDS times, and with -DFOREVER all others join again
 * and again. KILLS waiters may die at any moment. A waiter may be forked COPIES times, and a copy
 * keeps the FIFO of its place open, forever or not. Each entry names a process that has died, and
 * with -DLEFTOVERS two of them have its number.
 *
 * Abstractions: where all places are taken, a waiter waits until one is free. A check that is made
 * each second, or again after some microseconds, happens when its result is new. An entry of the
 * file `tickets` is read in one step, but written in two. The clock is one step.
 *
 * Properties:
 * - At most one waiter is at the front, and waiters come to the front in the order of their
 *   numbers, whatever dies.
 * - At the end of every run each living waiter has been at the front. This needs the check of each
 *   second only where a waiter dies and a copy of it keeps the FIFO open.
 * - A waiter that has a number comes to the front (LTL, with weak fairness), also if others join
 *   again and again.
 */

#ifndef WAITERS
#define WAITERS 3
#endif
#ifndef PLACES
#define PLACES 3
#endif
#ifndef ROUNDS
#define ROUNDS 1
#endif
#ifndef KILLS
#define KILLS 0
#endif
#ifndef COPIES
#define COPIES 0
#endif
#if defined(NO_SECOND) || defined(BREAK_NO_CHECK_EACH_SECOND)
#define SECOND 0
#else
#define SECOND 1
#endif
#ifdef FOREVER
#define JOINS_AGAIN (me != 0 || round < ROUNDS)
#else
#define JOINS_AGAIN (me == 0 && round < ROUNDS)
#endif
#define BIT(p) (1 << (p))
#define CHOOSING 255
#define NONE 255

byte number[PLACES];   /* the entries of the file `tickets`: the numbers, */
byte process[PLACES];  /* and the processes plus 1 */
byte writers[PLACES];  /* the waiters that have the FIFO open for reading and writing, as bits */
byte readers[PLACES];  /* the waiters that have it open for reading only, as bits */
byte copies[PLACES];   /* how many copies have it open */
bit signal[PLACES];    /* whether it has a byte */
byte owner[PLACES];    /* the holder of the lock of the place, plus 1 */
byte clock = 0;
byte latest = 0;       /* the number of the last grant */
byte at_front = 0;     /* how many waiters are at the front */
/* Of each waiter: its number, the number ahead, and the entries that it has read. */
byte mine[WAITERS];
byte seen[WAITERS];
byte table[WAITERS * PLACES];
bit is_over[WAITERS];
bit killed[WAITERS];
bit is_dead[WAITERS + 1]; /* the last one died before the others came */
byte kills = 0;

#define ENTRY(k) table[me * PLACES + (k)]
#define MAY_BE_AHEAD(n) ((n) == CHOOSING || (n) < mine[me])

/* A FIFO can be opened for writing if any process has it open for reading (ENXIO otherwise). */
#define HAS_WRITER(k) ((writers[k] | copies[k]) != 0)
#define IS_OPEN(k) (HAS_WRITER(k) || readers[k] != 0)
#ifdef BREAK_CLAIMS_WHAT_IS_WATCHED
#define MAY_CLAIM(k) (!HAS_WRITER(k))
#else
#define MAY_CLAIM(k) (!IS_OPEN(k))
#endif
/* Whether the process that has the ticket is known to have ended. */
#define HAS_ENDED(k) (number[k] == seen[me] && is_dead[process[k] - 1])

inline unlock(p, k) {
    d_step {
        if
        :: owner[k] == p + 1 -> owner[k] = 0
        :: else
        fi
    }
}

/* Clears the number of a dead waiter, by one that has the FIFO open for reading. */
inline clear(k) {
    if
    :: atomic { owner[k] == 0 -> owner[k] = me + 1 }
        if
#ifdef BREAK_CLEARS_A_CHOOSING_ONE
        :: number[k] == seen[me] -> number[k] = 0
#else
        :: (!HAS_WRITER(k) || HAS_ENDED(k)) && number[k] == seen[me] -> number[k] = 0
#endif
        :: else
        fi;
        owner[k] = 0
    :: else
    fi
}

/* The kernel discards the bytes of a FIFO that no process has open. */
inline stop_watching(k) {
    d_step {
        readers[k] = readers[k] & ~BIT(me);
        signal[k] = signal[k] && IS_OPEN(k)
    }
}

/* With -DFOREVER numbers that no variable has any more are used again. The order is the same. */
#ifdef FOREVER
#define LOWER(n) ((n) > v && (n) != CHOOSING -> (n) - 1 : (n))
inline forget_old_numbers() {
    v = 1;
    do
    :: v <= clock ->
        j = 0;
        is_used = (latest == v);
        do
        :: j < PLACES -> is_used = is_used || number[j] == v; j++
        :: else -> break
        od;
        j = 0;
        do
        :: j < WAITERS -> is_used = is_used || mine[j] == v || seen[j] == v; j++
        :: else -> break
        od;
        j = 0;
        do
        :: j < WAITERS * PLACES -> is_used = is_used || table[j] == v; j++
        :: else -> break
        od;
        j = 0;
        if
        :: is_used -> v++
        :: else ->
            do
            :: j < PLACES -> number[j] = LOWER(number[j]); j++
            :: else -> break
            od;
            j = 0;
            do
            :: j < WAITERS -> mine[j] = LOWER(mine[j]); seen[j] = LOWER(seen[j]); j++
            :: else -> break
            od;
            j = 0;
            do
            :: j < WAITERS * PLACES -> table[j] = LOWER(table[j]); j++
            :: else -> break
            od;
            j = 0;
            latest = LOWER(latest);
            clock--
        fi
    :: else -> v = 0; is_used = 0; break
    od
}
#else
inline forget_old_numbers() { skip }
#endif

/* Resets what is not used any more. */
inline forget() {
    seen[me] = 0;
    has_writer = 0;
    best = 0;
    j = 0;
    do
    :: j < PLACES -> ENTRY(j) = 0; j++
    :: else -> j = 0; break
    od
}

proctype Waiter(byte me) {
    byte place, j, best, round;
    bit has_writer;
#ifdef FOREVER
    byte v;
    bit is_used;
#endif
    {
        skip;
again:
        /* It claims a place (T2). */
claim:
        if
        :: MAY_CLAIM(0) -> place = 0
#if PLACES > 1
        :: MAY_CLAIM(1) -> place = 1
#endif
#if PLACES > 2
        :: MAY_CLAIM(2) -> place = 2
#endif
#if PLACES > 3
        :: MAY_CLAIM(3) -> place = 3
#endif
        fi;
#ifndef BREAK_CLAIMS_WITHOUT_THE_LOCK
        if
        :: atomic { owner[place] == 0 -> owner[place] = me + 1 }
        :: else -> goto claim
        fi;
#endif
        if
        :: MAY_CLAIM(place)
        :: else -> unlock(me, place); goto claim
        fi;
#ifndef BREAK_CLEARS_AFTER_OPENING
        number[place] = 0; /* the number may be a dead waiter's */
#endif
        writers[place] = writers[place] | BIT(me);
#ifdef BREAK_CLEARS_AFTER_OPENING
        number[place] = 0;
#endif
        unlock(me, place);
        /* It takes a number (T3). */
#ifdef BREAK_CHOOSES_BEFORE_IT_IS_NAMED
        number[place] = CHOOSING;
        process[place] = me + 1;
#else
        process[place] = me + 1;
#ifndef BREAK_NOT_CHOOSING
        number[place] = CHOOSING;
#endif
#endif
        d_step { forget_old_numbers(); clock++; mine[me] = clock };
        number[place] = mine[me];
        /* It finds the waiter ahead. The entries are read one after the other. */
scan:
        j = 0;
        do
        :: j < PLACES -> ENTRY(j) = number[j]; j++
        :: else -> break
        od;
next:
        skip;
        d_step {
            best = NONE;
            seen[me] = 0;
            j = 0;
            do
            :: j < PLACES ->
                if
                :: j != place && ENTRY(j) > seen[me] && MAY_BE_AHEAD(ENTRY(j)) ->
                    seen[me] = ENTRY(j);
                    best = j
                :: else
                fi;
                j++
            :: else -> break
            od;
            j = 0
        }
        if
        :: best == NONE -> goto front
        :: else
        fi;
        readers[best] = readers[best] | BIT(me);
        d_step { signal[best] = 0; has_writer = HAS_WRITER(best) } /* reading takes the bytes */
        if
        :: !has_writer ->
            /* The waiter ahead has left, or died. */
#ifdef BREAK_CLEARS_WITHOUT_THE_LOCK
            if
            :: number[best] == seen[me] -> number[best] = 0
            :: else
            fi;
#else
            clear(best);
#endif
            d_step { stop_watching(best); ENTRY(best) = 0 }
            goto next
        :: else
        fi;
        if
#ifndef BREAK_TRUSTS_AN_OLD_NUMBER
        :: number[best] != seen[me] -> stop_watching(best); goto scan
#endif
        :: else
        fi;
        if
        :: seen[me] == CHOOSING ->
            if
            :: number[best] != CHOOSING
            :: !HAS_WRITER(best)
            :: HAS_ENDED(best) && HAS_WRITER(best) -> clear(best)
            fi;
            stop_watching(best);
            goto scan
        :: else
        fi;
watch:
        if
        :: !HAS_WRITER(best) /* POLLHUP */
        :: atomic { signal[best] -> signal[best] = 0 }
            if
            :: number[best] == seen[me] && HAS_WRITER(best) -> goto watch
            :: else
            fi
        :: SECOND && number[best] != seen[me] && HAS_WRITER(best)
        :: SECOND && HAS_ENDED(best) && HAS_WRITER(best) -> clear(best)
        fi;
        stop_watching(best);
        goto scan;
front:
        skip;
        d_step {
            at_front++;
            assert(at_front == 1); /* one at a time */
            assert(mine[me] > latest); /* in order */
            latest = mine[me]
        };
        /* It leaves (T5). A copy of it keeps the FIFO open. */
#ifdef BREAK_NUMBER_AFTER_CLOSING
        d_step { at_front--; writers[place] = writers[place] & ~BIT(me) };
        number[place] = 0;
#else
        d_step { at_front--; number[place] = 0 };
        writers[place] = writers[place] & ~BIT(me);
#endif
#if COPIES && !defined(BREAK_NO_BYTE_FOR_A_COPY)
        signal[place] = IS_OPEN(place);
#endif
        d_step {
            round++;
            round = (round > ROUNDS -> ROUNDS : round);
            forget();
            mine[me] = 0
        }
        if
        :: JOINS_AGAIN -> goto again
        :: else
        fi;
over:
        is_over[me] = 1
    }
#if KILLS
    unless {
        killed[me] -> d_step {
            /* The kernel closes what it has open. */
            if
            :: at_front != 0 && place < PLACES && number[place] == mine[me] && latest == mine[me] ->
                at_front = 0
            :: else
            fi;
            j = 0;
            do
            :: j < PLACES ->
                writers[j] = writers[j] & ~BIT(me);
                readers[j] = readers[j] & ~BIT(me);
                signal[j] = signal[j] && IS_OPEN(j);
                if
                :: owner[j] == me + 1 -> owner[j] = 0
                :: else
                fi;
                j++
            :: else -> break
            od;
            forget();
            is_dead[me] = 1;
            is_over[me] = 1
        }
    }
#endif
}

#if KILLS || COPIES
/* Kills, forks and ends copies at any moment, or never. */
active proctype Fate() {
    byte k, made;
#ifdef LEFTOVERS
    made = COPIES;
#endif
    do
#if KILLS
    :: d_step { kills < KILLS && !is_over[0] && !killed[0] -> kills++; killed[0] = 1 }
    :: d_step { kills < KILLS && !is_over[1] && !killed[1] -> kills++; killed[1] = 1 }
#endif
#if COPIES
    :: made < COPIES ->
        do
        :: k < PLACES - 1 -> k++
        :: d_step { writers[k] != 0 -> copies[k]++; made++ } break
        :: break
        od;
        k = 0
    :: made > 0 ->
        do
        :: k < PLACES - 1 -> k++
        :: d_step {
                copies[k] != 0 ->
                copies[k]--;
                signal[k] = signal[k] && IS_OPEN(k)
            }
            break
        :: break
        od;
        k = 0
#endif
    :: break
    od
}
#endif

init {
    byte p;
    atomic {
        is_dead[WAITERS] = 1;
        do
        :: p < PLACES -> process[p] = WAITERS + 1; p++
        :: else -> p = 0; break
        od;
#ifdef LEFTOVERS
        number[0] = 1;
        number[1] = CHOOSING;
        copies[0] = COPIES;
        copies[1] = COPIES;
        clock = 1;
#endif
        do
        :: p < WAITERS -> run Waiter(p); p++
        :: else -> p = 0; break
        od
    }
    timeout; /* nothing else can move */
    d_step {
        do
        :: p < WAITERS -> assert(is_over[p]); p++ /* no lost wake-up */
        :: else -> break
        od;
        assert(at_front == 0)
    }
}

ltl progress { [] (mine[0] != 0 && !killed[0] -> <> (mine[0] == 0 || killed[0])) }
