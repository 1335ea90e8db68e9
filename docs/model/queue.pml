/* The queue of tickets: rules T1 to T6 of ../PROTOCOL.md. */

#ifndef WAITERS
#define WAITERS 3
#endif
#ifndef PLACES
#define PLACES 3
#endif
#ifndef ROUNDS
#define ROUNDS 1 /* how often waiter 0 joins; the others join once */
#endif
#ifndef KILLS
#define KILLS 0
#endif
#define BIT(p) (1 << (p))
#define CHOOSING 255
#define NONE 255

byte number[PLACES];   /* the entries of the file `tickets` */
byte writers[PLACES];  /* who has the FIFO of a place open for reading and writing */
byte readers[PLACES];  /* who has it open for reading only */
byte owner[PLACES];    /* who has the lock under which it is claimed, and one more */
byte clock = 0;
byte latest = 0;       /* the number of the last grant */
byte at_front = 0;     /* how many waiters are at the front */
bit is_over[WAITERS];
bit killed[WAITERS];
byte kills = 0;

/* Whether opening for writing finds a reader (ENXIO otherwise); who reads and writes is one. */
#define IS_OPEN(k) ((readers[k] | writers[k]) != 0)
#ifdef BREAK_CLAIMS_WHAT_IS_WATCHED
#define MAY_CLAIM(k) (writers[k] == 0)
#else
#define MAY_CLAIM(k) (!IS_OPEN(k))
#endif

inline unlock(p, k) {
    d_step {
        if
        :: owner[k] == p + 1 -> owner[k] = 0
        :: else
        fi
    }
}

/* The number of a dead waiter, by one that has the FIFO open for reading. */
inline clear(k) {
    if
    :: atomic { owner[k] == 0 -> owner[k] = me + 1 }
        if
#ifdef BREAK_CLEARS_A_CHOOSING_ONE
        :: number[k] == seen -> number[k] = 0
#else
        :: writers[k] == 0 && number[k] == seen -> number[k] = 0
#endif
        :: else
        fi;
        owner[k] = 0
    :: else
    fi
}

proctype Waiter(byte me) {
    byte place, mine, j, best, seen, round;
    byte table[PLACES];
    {
        skip;
again:
        /* T2: claims a place. Where all are taken, it waits here (and otherwise than for its turn in the code). */
claim:
        if
        :: MAY_CLAIM(0) -> place = 0
#if PLACES > 1
        :: MAY_CLAIM(1) -> place = 1
#endif
#if PLACES > 2
        :: MAY_CLAIM(2) -> place = 2
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
        number[place] = 0; /* of a dead waiter */
#endif
        writers[place] = writers[place] | BIT(me);
#ifdef BREAK_CLEARS_AFTER_OPENING
        number[place] = 0;
#endif
        unlock(me, place);
        /* T3: takes a number. */
#ifndef BREAK_NOT_CHOOSING
        number[place] = CHOOSING;
#endif
        d_step { clock++; mine = clock };
        number[place] = mine;
        /* It searches for the waiter ahead. The entries are read one after the other. */
scan:
        j = 0;
        do
        :: j < PLACES -> table[j] = number[j]; j++
        :: else -> break
        od;
next:
        skip;
        d_step {
            best = NONE;
            seen = 0;
            j = 0;
            do
            :: j < PLACES ->
                if
                :: j != place && table[j] != 0 && (table[j] == CHOOSING || table[j] < mine) && table[j] > seen ->
                    seen = table[j];
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
        if
        :: writers[best] == 0 ->
            /* It has left, or died. */
#ifdef BREAK_CLEARS_WITHOUT_THE_LOCK
            if
            :: number[best] == seen -> number[best] = 0
            :: else
            fi;
#else
            clear(best);
#endif
            readers[best] = readers[best] & ~BIT(me);
            table[best] = 0;
            goto next
        :: else
        fi;
        if
#ifndef BREAK_TRUSTS_AN_OLD_NUMBER
        :: number[best] != seen -> readers[best] = readers[best] & ~BIT(me); goto scan
#endif
        :: else
        fi;
        if
        :: seen == CHOOSING ->
            (number[best] != CHOOSING || writers[best] == 0);
            readers[best] = readers[best] & ~BIT(me);
            goto scan
        :: else
        fi;
        (writers[best] == 0); /* POLLHUP */
        readers[best] = readers[best] & ~BIT(me);
        goto scan;
front:
        skip;
        d_step {
            at_front++;
            assert(at_front == 1); /* one at a time */
            assert(mine > latest); /* in order */
            latest = mine
        }
        ;
        /* T5: leaves. */
#ifdef BREAK_NUMBER_AFTER_CLOSING
        d_step { at_front--; writers[place] = writers[place] & ~BIT(me) };
        number[place] = 0;
#else
        d_step { at_front--; number[place] = 0 };
        writers[place] = writers[place] & ~BIT(me);
#endif
        round++;
        if
        :: me == 0 && round < ROUNDS -> goto again
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
            :: at_front != 0 && place < PLACES && number[place] == mine && latest == mine -> at_front = 0
            :: else
            fi;
            j = 0;
            do
            :: j < PLACES ->
                writers[j] = writers[j] & ~BIT(me);
                readers[j] = readers[j] & ~BIT(me);
                if
                :: owner[j] == me + 1 -> owner[j] = 0
                :: else
                fi;
                j++
            :: else -> break
            od;
            is_over[me] = 1
        }
    }
#endif
}

#if KILLS
/* At any moment, or never. */
active proctype Fate() {
    do
    :: d_step { kills < KILLS && !is_over[0] && !killed[0] -> kills++; killed[0] = 1 }
    :: d_step { kills < KILLS && !is_over[1] && !killed[1] -> kills++; killed[1] = 1 }
    :: break
    od
}
#endif

init {
    byte p;
    atomic {
        p = 0;
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
