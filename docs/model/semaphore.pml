/* The semaphore of docs/PROTOCOL.md: rules S3 to S9, 4 and 8, the claim that no wake-up is lost, the table of deaths.
 *
 * Abstracted: the kernel gives a free lock to any who asks, in any order. Who queues for the gate does so in the kernel
 * (the lines before it are those of handover.pml). Slots are looked at in ascending order. S1, S2 and rule 2 (files made
 * or replaced) are left out. An event is heard at once by those whose watch is up. Who polls looks when there is
 * something new to be seen. After a close the head looks until the kernel has unlocked what was closed: rule 8 gives it
 * a second. Memory is sequentially consistent, but for BREAK_NO_BARRIER.
 *
 * Properties:
 * - Whenever nothing can move any more, each client that lives has had its permits, or was refused, or gave up by
 *   itself: no lost wake-up, no deadlock, progress after any death. No run goes on for ever (-l).
 * - Then every slot, the gate and `waiters` are free: no lost permit.
 * - At each grant no more permits are out than the capacity of that moment, also while it changes, and the numbers of
 *   those that are granted are below it (S3).
 * All of it without the backstop of S8, but with -DBACKSTOP.
 */

#ifndef CLIENTS
#define CLIENTS 3
#endif
#ifndef CAPACITY
#define CAPACITY 2
#endif
#ifndef SLOTS            /* that there may ever be */
#define SLOTS CAPACITY
#endif
#ifndef ROUNDS           /* how often each client wants a permit */
#define ROUNDS 1
#endif
#ifndef KILLS            /* how many processes may be killed, at any moment */
#define KILLS 0
#endif
#ifndef VICTIMS          /* which, as bits */
#define VICTIMS 15
#endif
/* Sets of clients, as bits: who wants two permits, who only tries, who has a deadline, which may come at any moment. */
#ifndef TWO
#define TWO 0
#endif
#ifndef TRY
#define TRY 0
#endif
#ifndef QUEUE             /* who finds others of its process in line */
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
#ifdef MARKS             /* and know which slots their handle has */
#define MARKS_ 1
#else
#define MARKS_ 0
#endif
#ifdef BREAK_TAKES_FOR_NOBODY
#define TAKES_FOR_NOBODY 1
#else
#define TAKES_FOR_NOBODY 0
#endif
#ifdef RESIZE            /* to so many permits; with RESIZE_AGAIN to so many after that */
#define RESIZES 1
#else
#define RESIZES 0
#define held 0
#endif
#ifndef HELD              /* slots that another process holds from the beginning, as bits */
#define HELD 0
#endif

#define OBSERVER CLIENTS
#define RESIZER (CLIENTS + 1)
#define HOLDER (CLIENTS + 2)
#define EVERYBODY (CLIENTS + 3)
#define BIT(n) (1 << (n))
#define COUNT(m) (((m) & 1) + (((m) >> 1) & 1) + (((m) >> 2) & 1))

/* The kernel's. A slot and the gate: who has it, plus 1. */
byte slot[SLOTS];
byte gate;
byte shared;              /* `waiters`: the handles that have it shared */
byte exclusive;           /* `waiters`: who has it exclusively, plus 1 */
byte closing;             /* processes that have closed their files, and not yet unlocked them */
/* The files'. */
bit queued;
byte capacity = CAPACITY;
byte resized;
byte made;                /* the slot files that exist */
/* The handles'. */
bit table[CLIENTS];       /* a mutex */
byte waiting[CLIENTS];
byte heads[CLIENTS];
byte is_out[CLIENTS];     /* slots that are marked */
bit asks[CLIENTS];        /* a helper is about to ask whether others wait */
bit leftover[CLIENTS];    /* a helper that nobody waits for any more is blocked for slot 0 */
byte known[EVERYBODY] = CAPACITY;
byte generation[EVERYBODY];
byte excess[EVERYBODY];   /* slots */
/* The heads'. */
byte watch[CLIENTS];      /* 0: none, 1: asked for, 2: up, 3: not to be had */
bit news[CLIENTS];
bit after_close[CLIENTS];
/* The model's own. */
bit is_over[CLIENTS];
bit killed[EVERYBODY];
byte kills;
bit stopped[CLIENTS];
bit has_stopped;
bit has_lost;
byte out;                 /* permits */
byte granted[CLIENTS];    /* of these */
byte effective = CAPACITY; /* what a client that asks at this moment goes by */

/* ------------------------------------------------------------------------------------------ events */

inline ring(is_close) {
    d_step {
        ear = 0;
        do
        :: ear < CLIENTS ->
            if
            :: watch[ear] == 2 ->
                news[ear] = 1;
#ifndef BREAK_NO_LOOK_AFTER_CLOSE
                after_close[ear] = after_close[ear] | is_close
#endif
            :: else
            fi;
            ear++
        :: else -> break
        od;
        ear = 0
    }
}

/* An event of the directory (S7, 8). */
inline event(is_close) {
#ifdef LOSES_EVENTS
    if
    :: atomic { !has_lost -> has_lost = 1 } /* claim 5 */
    :: ring(is_close)
    fi
#else
    ring(is_close)
#endif
}

/* S7. Made or removed, it is one event. */
inline poke() {
#ifdef BREAK_NO_POKE
    skip
#else
    event(0)
#endif
}

/* ------------------------------------------------------------------------------------------ giving back */

#define IS_CURRENT (!RESIZES || generation[me] == resized)
#define IS_ONLY_ONE (known[me] == 1 && excess[me] == 0 && IS_CURRENT)

/* S6, after the unlocking. */
inline tell() {
    if
#ifdef BREAK_NO_BARRIER
    :: !saw
    :: saw ->
#else
    :: !queued /* after a barrier: not before the unlocking */
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
            :: IS_ONLY_ONE /* S9 */
            :: else -> poke()
            fi
        fi
#endif
    fi
}

/* Claim 4: also where S9 would not. */
inline notify_recheck() {
    if
    :: queued -> poke()
    :: else
    fi
}

/* 4. Unlocks and unmarks. */
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

inline give_back() {
    if
    :: mine != 0 ->
#ifdef BREAK_NO_BARRIER
        saw = queued;
#endif
#ifdef BREAK_UNMARKS_AFTER_TELLING
        saved = mine;
#endif
        unlock_mine();
        tell()
#ifdef BREAK_UNMARKS_AFTER_TELLING
        ; is_out[HANDLE(me)] = is_out[HANDLE(me)] & ~saved
#endif
    :: else
    fi
}

/* ------------------------------------------------------------------------------------------ taking */

/* S3. The sign first, the capacity then, what is there last. */
inline refresh() {
    generation[me] = resized;
    known[me] = capacity;
    excess[me] = made & ~(BIT(known[me]) - 1)
}

inline admit(count) {
    out = out + count;
    granted[me] = count;
    assert(out <= effective) /* S3: no more than the capacity of the moment */
}

/* Tries slot n, and goes on to the next. */
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
/* S3. How many slots in excess are held. A slot that was seen free is not in excess any more. */
inline count_excess(is_head) {
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
        :: !is_head -> notify_recheck() /* the leader may have met them held */
        :: else
        fi
    :: else -> held = COUNT(excess[me])
    fi
#ifdef BREAK_FORGETS_EXCESS
    ; held = 0
#endif
}

/* Gives back what was gathered under a larger capacity and is beyond the present one. */
inline keep_valid(is_head) {
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
        :: !is_head -> tell()
        :: else
        fi
    :: else
    fi
#else
    skip
#endif
}
#endif

/* Keeps `count` slots and gives back the surplus, if there are enough. */
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
        assert(!(mine & ~(BIT(known[me]) - 1))) /* numbers below the capacity */
    :: else
    fi
}

/* Adds free slots to what is `mine`, until that is `count`: `got`. Or there are not so many: `refused`. */
inline gather(count, is_head) {
    do
    :: true ->
#if RESIZES
        if
        :: count > known[me] ->
            refresh();
            if
            :: count > known[me] -> refused = 1; break
            :: else
            fi
        :: else
        fi;
        keep_valid(is_head);
#endif
        do
        :: atomic { n < known[me] && COUNT(mine) < count + COUNT(excess[me]) -> try_slot(mine) }
#if MARKS_
            /* Marked when it is had. */
            is_out[HANDLE(me)] = is_out[HANDLE(me)] | mine
#endif
        :: else -> n = 0; break
        od;
#if RESIZES && !defined(BREAK_COUNTS_EXCESS_AFTER_THE_CHECK)
        count_excess(is_head);
#endif
        if
#if defined(BREAK_NO_LOOK_AFTER_LOCKING)
        :: atomic { true -> commit(count) }
#elif defined(BREAK_COUNTS_EXCESS_AFTER_THE_CHECK)
        :: IS_CURRENT ->
            count_excess(is_head);
            atomic { commit(count) }
#else
        :: atomic { IS_CURRENT -> commit(count) } /* S3: after locking, and after counting those in excess */
#endif
            if
            :: surplus && !is_head -> surplus = 0; tell()
            :: else -> surplus = 0
            fi;
            break
#if RESIZES && !defined(BREAK_NO_LOOK_AFTER_LOCKING)
        :: else -> refresh()
#endif
        fi
    od
}

/* ------------------------------------------------------------------------------------------ who waits */

#if ONE_HANDLE_
#define LOCK_TABLE(h) atomic { !table[h] -> table[h] = 1 }
#define UNLOCK_TABLE(h) table[h] = 0
#else
#define LOCK_TABLE(h) skip
#define UNLOCK_TABLE(h) skip
#endif

/* S5. First `waiters`, then `queued`. */
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

inline leave(was_head) {
    LOCK_TABLE(HANDLE(me));
    atomic {
        waiting[HANDLE(me)]--;
        heads[HANDLE(me)] = heads[HANDLE(me)] - was_head;
        if
        :: waiting[HANDLE(me)] == 0 -> shared = shared & ~BIT(HANDLE(me))
        :: else
        fi;
        UNLOCK_TABLE(HANDLE(me))
    }
}

/* The kernel closes what a dead process had, which is an event, and then unlocks it (8): in any order. */
inline die(number) {
    atomic {
        closing++;
        if
        :: number < CLIENTS -> waiting[number] = 0; heads[number] = 0; table[number] = 0; leftover[number] = 0
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
/* Something that a look without an event would find. */
#define IS_NEW (HAS_FREE || !IS_CURRENT)

proctype Client(byte me)
#ifdef STOPS
provided (!stopped[me])
#endif
{
    byte mine, n, ear, rounds;
#ifdef BREAK_NO_BARRIER
    bit saw;
#endif
    bit got, relies, refused, has_left, is_behind, surplus;
#if RESIZES
    byte held, drained;
#endif
#ifdef BREAK_UNMARKS_AFTER_TELLING
    byte saved;
#endif
    {
        skip;
next:
        if
        :: rounds == ROUNDS || refused -> goto over
        :: else -> rounds++
        fi;
        if
        :: !((QUEUE >> me) & 1) ->
            gather(WANT(me), 0);
            if
            :: got -> goto has
            :: else ->
                give_back();
                if
                :: refused -> goto over
                :: else
                fi
            fi
        :: (queued || ((QUEUE >> me) & 1)) && !TRIES(me) /* S5: somebody waits, here or elsewhere */
        fi;
        if
        :: TRIES(me) -> goto next
        :: else
        fi;
        /* S5, before S4. */
#ifndef BREAK_ANNOUNCES_LATE
        waiting[HANDLE(me)]++;
        renew();
#endif
#ifdef ASKS
        asks[HANDLE(me)] = 1; /* who cannot have the gate at once has a helper started */
#endif
queueing:
#ifndef BREAK_GATHERS_WITHOUT_GATE
        if
        :: atomic { gate == 0 -> gate = me + 1 } /* S4 */
            is_behind = 0
        :: GIVES_UP(me) -> /* W2: looks once more */
            is_behind = 1; has_left = 1
#ifdef BACKSTOP
        :: ALL_FREE -> is_behind = 1 /* S8 */
#endif
        fi;
        if
        :: is_behind ->
            gather(WANT(me), 0);
            if
            :: got -> leave(0); goto had
            :: else -> give_back()
            fi;
            if
            :: refused -> leave(0); goto had
            :: else
            fi;
            if
            :: has_left -> has_left = 0; leave(0); goto next
            :: else -> goto queueing
            fi
        :: else
        fi;
#endif
looking:
        /* W1: what rang before this look is no news after it. */
#ifndef BREAK_COUNTS_AFTER_THE_LOOK
        atomic { news[me] = 0; after_close[me] = after_close[me] && closing != 0 };
#endif
#ifndef BREAK_ANNOUNCES_LATE
        if
        :: !is_behind ->
#ifndef BREAK_TAKES_FROM_THE_HEAD
            heads[HANDLE(me)]++;
#endif
            is_behind = 1 /* from here on: whether it is known as the head */
        :: else
        fi;
        renew();
#endif
        gather(WANT(me), 1);
        if
        :: got || refused -> goto leaving
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
        /* Listens after the look; that it is heard is news, and that look finds what came before. */
        if
        :: watch[me] == 0 -> watch[me] = 1
        :: else
        fi;
#ifdef BREAK_COUNTS_AFTER_THE_LOOK
        atomic { news[me] = 0; after_close[me] = after_close[me] && closing != 0 };
#endif
        if
        :: news[me] -> goto looking
        :: after_close[me] && closing == 0 -> goto looking /* 8 */
        :: watch[me] != 2 && !IS_ONLY_ONE && IS_NEW -> goto looking /* W4 */
        :: watch[me] == 3 && !IS_CURRENT -> goto looking
#ifdef BREAK_RELIES_ON_WHAT_ANOTHER_SAID
        :: !(shared & BIT(HANDLE(me))) && (exclusive == 0 || IS_NEW) -> goto looking
#else
        :: !relies && (exclusive == 0 || IS_NEW) -> goto looking /* S5: it polls */
#endif
#ifdef BACKSTOP
        :: IS_NEW -> goto looking /* S8 */
#endif
#ifndef BREAK_NOT_IN_THE_KERNEL
        :: atomic { IS_ONLY_ONE && slot[0] == 0 -> slot[0] = me + 1 } /* S9 */
            leftover[HANDLE(me)] = 0;
            if
            :: atomic { IS_ONLY_ONE -> mine = 1; admit(1); got = 1 }
                goto leaving
            :: else ->
                mine = 1;
                give_back();
#if RESIZES
                refresh();
#endif
                goto looking
            fi
        :: GIVES_UP(me) && IS_ONLY_ONE -> /* its helper stays where it is (Q4) */
            leftover[HANDLE(me)] = 1;
            has_left = 1;
            goto looking
#endif
        :: GIVES_UP(me) -> has_left = 1; goto looking
        fi;
leaving:
        /* S4: what was not used, then `waiters`, then the gate. */
        if
        :: got
        :: else -> give_back()
        fi;
        d_step { watch[me] = 0; news[me] = 0; after_close[me] = 0 };
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
        :: refused || !got -> goto next
        :: else
        fi;
has:
        atomic { out = out - granted[me]; granted[me] = 0; got = 0; relies = 0; is_behind = 0; has_left = 0 }
        give_back();
        goto next;
over:
        is_over[me] = 1
    }
#if KILLS
    unless {
        killed[me] -> d_step { out = out - granted[me]; granted[me] = 0; watch[me] = 0; news[me] = 0 };
        die(me)
    }
    ;
    is_over[me] = 1
#endif
}

/* A helper that was started for somebody in the queue asks whether others wait (S4); they may have left meanwhile. */
proctype Asker(byte me) {
    bit relies;
end:
    do
    :: asks[me] ->
        asks[me] = 0;
        LOCK_TABLE(me);
        if
        :: waiting[me] > 1 || heads[me] > 0 -> UNLOCK_TABLE(me)
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

/* A helper that nobody waits for any more: it gets the only slot some time, and gives it back (Q3). */
proctype Leftover(byte me) {
    byte ear;
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

/* Counts the free slots, and has each for a moment. */
proctype Observer() {
    byte n, ear;
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
/* S3. First the capacity, then the sign, then a poke. */
inline resize_to(permits) {
#ifdef BREAK_SIGN_BEFORE_CAPACITY
    d_step { resized++; effective = permits }
    capacity = permits;
#else
    capacity = permits;
    d_step { resized++; effective = permits }
#endif
#ifndef BREAK_RESIZE_DOES_NOT_POKE
    poke()
#endif
}

proctype Resizer() {
    byte ear, n;
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

/* Another process has permits from the beginning, and gives them back one by one. */
proctype Holder() {
    byte me = HOLDER, mine, n, ear;
#ifdef BREAK_NO_BARRIER
    bit saw;
#endif
    do
    :: atomic { slot[0] == HOLDER + 1 -> out--; slot[0] = 0 } tell()
#if SLOTS > 1
    :: atomic { slot[1] == HOLDER + 1 -> out--; slot[1] = 0 } tell()
#endif
#if SLOTS > 2
    :: atomic { slot[2] == HOLDER + 1 -> out--; slot[2] = 0 } tell()
#endif
    :: else -> break
    od
}
#endif

/* Who listens for the heads. */
inline come_up(c) {
#ifdef NO_WATCH
    watch[c] = 3
#else
    watch[c] = 2;
#ifndef BREAK_WATCH_COMES_UP_IN_SILENCE
    news[c] = 1;
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

/* At any moment, or never. */
#define MAY_DIE(c) (kills < KILLS && (VICTIMS & BIT(c)) && c < EVERYBODY && (c >= CLIENTS || !is_over[c * (c < CLIENTS)]))

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
    timeout; /* nothing else can move */
    d_step {
        do
        :: c < CLIENTS ->
            /* No lost wake-up, no deadlock: but what one has who is stopped. */
            assert(is_over[c] || stopped[c] || (has_stopped && FREE < WANT(c)));
            assert(!is_over[c] || stopped[c] || granted[c] == 0);
            c++
        :: else -> c = 0; break
        od;
        if
        :: !has_stopped ->
            do
            :: c < SLOTS -> assert(slot[c] == 0); c++ /* no lost permit */
            :: else -> c = 0; break
            od;
            assert(gate == 0 && shared == 0 && exclusive == 0 && out == 0)
        :: else
        fi
    }
}
