/* The FIFOs of a semaphore's slots (rules S11, S6 and 4), as implemented in
 * src/semaphore/signals.rs and src/wait/signal_loop.rs.
 *
 * CLIENTS processes want one permit each. Some hold one at the beginning (HELD), some only try
 * (TRY), and some of those want two permits at once (TWO). A process that has a slot or its FIFO
 * open may be forked COPIES times, and each copy may keep both open forever. KILLS processes may
 * die at any moment, and one process that only tries may be stopped (STOPS).
 *
 * Abstractions: the turnstile is free for any waiter in any order (its order is that of queue.pml).
 * A process that has a ticket is in `waiting`. A leader that checks again after a time does so when
 * the slot is free or its FIFO has changed. A descriptor of a dead process is closed at any later
 * moment, in any order.
 *
 * Properties:
 * - Whenever no process can move and a living process waits, no slot is free: no wake-up is lost.
 *   This holds without the backstop. The one exception is a slot whose holder died while a copy of
 *   an earlier holder has the FIFO open (`is_hidden`): it needs -DBACKSTOP.
 * - With -DNO_RETRY no leader checks again after a time. If all holders began in the queue, then
 *   no wake-up is lost either: each release wakes the leader after the slot was unlocked.
 * - A slot has at most one holder.
 */

#ifndef CLIENTS
#define CLIENTS 3
#endif
#ifndef SLOTS
#define SLOTS 1
#endif
/* Sets of clients, as bits. Client 0 holds slot 0, and client 1 slot 1. */
#ifndef HELD
#define HELD 1
#endif
#ifndef TRY
#define TRY 0
#endif
#ifndef TWO
#define TWO 0
#endif
#ifndef STAYS             /* these never release their slot */
#define STAYS 0
#endif
#ifndef STOPS
#define STOPS 0
#endif
#ifndef KILLS
#define KILLS 0
#endif
#ifndef VICTIMS
#define VICTIMS 255
#endif
#ifndef COPIES
#define COPIES 0
#endif
#ifdef BACKSTOP
#define BACKSTOP_ 1
#define MAY_BE_HIDDEN 0
#else
#define BACKSTOP_ 0
#define MAY_BE_HIDDEN 1
#endif
#ifdef BREAK_NOTHING_BUT_NO_BACKSTOP
#undef MAY_BE_HIDDEN
#define MAY_BE_HIDDEN 0
#endif
#ifdef NO_RETRY
#define RETRIES 0
#else
#define RETRIES 1
#endif
#define BIT(p) (1 << (p))
#define IS_IN(set, p) (((set) >> (p)) & 1)
#define COPY 100         /* the holder of a slot that belongs to copies of a dead process */

/* Kernel state. */
byte lock[SLOTS];         /* the holder of each slot plus 1, or COPY */
byte writers[SLOTS];      /* the processes that have the FIFO open for writing, as bits */
byte watchers[SLOTS];     /* the leaders that have it open for reading, as bits */
bit signal[SLOTS];        /* whether the FIFO has a byte */
bit is_primed[SLOTS];     /* whether a poll of the leader reports a missing writer */
byte gate;                /* the leader plus 1 */
byte waiting;             /* the processes that have a ticket, as bits */
/* Copies. Those of one slot that share the lock of its holder have `has_lock`. */
byte copies[SLOTS];       /* the copies that have the FIFO open, as bits */
byte has_lock[SLOTS];     /* the copies that share the lock, as bits */
/* The model itself. */
byte holders[SLOTS];      /* how many processes believe that they hold the slot */
bit is_hidden[SLOTS];     /* the exception above */
byte releasing[CLIENTS];  /* the slot that was unlocked and not yet signalled, plus 1 */
bit is_over[CLIENTS];
bit killed[CLIENTS];
bit stopped[CLIENTS];
byte kills;

#define HAS_WRITER(s) ((writers[s] | copies[s]) != 0)
#define IS_OPEN(s) (HAS_WRITER(s) || watchers[s] != 0)
#define IS_CLOSED(s) (!HAS_WRITER(s) && is_primed[s])
#define HAS_REPORT(s) (is_held[s] && (signal[s] || IS_CLOSED(s)))
#define HAS_CHANGED(s) (!is_held[s] && (lock[s] == 0 || signal[s] || HAS_WRITER(s)))
#if SLOTS > 1
#define ANY(condition) (condition(0) || condition(1))
#else
#define ANY(condition) (condition(0))
#endif
#define IS_FREE(s) (lock[s] == 0)
#define MAY_RUN (!stopped[me])

/* The kernel discards the bytes of a FIFO that no process has open. */
inline close_fifo(s) {
    d_step { writers[s] = writers[s] & ~BIT(me); signal[s] = signal[s] && IS_OPEN(s) }
}

inline open_fifo(s) {
    d_step { writers[s] = writers[s] | BIT(me); is_primed[s] = 1 }
}

/* An explicit unlocking, which applies to copies as well. */
inline unlock(s) {
    d_step { lock[s] = 0; has_lock[s] = 0; releasing[me] = s + 1 }
}

/* After the FIFO was closed: if a writer remains, the leader gets a byte. */
inline signal_unless_closed(s) {
#ifndef BREAK_RELEASES_WITHOUT_PROBE
    if
#ifdef BREAK_ASKS_BEFORE_UNLOCKING
    :: !asked
    :: asked ->
#else
    :: waiting == 0
    :: waiting != 0 ->
#endif
        d_step { signal[s] = 0; has_writer = HAS_WRITER(s) } /* reading takes the bytes */
        if
        :: has_writer -> signal[s] = 1
        :: !has_writer
        fi;
        has_writer = 0
    fi;
#endif
    releasing[me] = 0
}

/* Tries slot `s`. The result is in `got`. */
inline try_slot(s) {
#ifdef BREAK_OPENS_BEFORE_LOCKING
    open_fifo(s);
#endif
    if
#ifdef BREAK_TRUSTS_THE_FIFO
    :: d_step { !HAS_WRITER(s) -> lock[s] = me + 1; is_hidden[s] = 0; got = 1 }
    :: HAS_WRITER(s) -> got = 0
#else
    :: d_step { MAY_RUN && lock[s] == 0 -> lock[s] = me + 1; is_hidden[s] = 0; got = 1 }
    :: d_step { MAY_RUN && lock[s] != 0 -> got = 0 }
#endif
    fi;
#ifdef BREAK_OPENS_BEFORE_LOCKING
    if
    :: !got -> atomic { MAY_RUN -> close_fifo(s) }
    :: got
    fi
#endif
}

/* Of a dead process. */
inline close_all() {
    d_step {
        s = 0;
        do
        :: s < SLOTS ->
            writers[s] = writers[s] & ~BIT(me);
            signal[s] = signal[s] && IS_OPEN(s);
            s++
        :: s == SLOTS -> s = 0; break
        od
    }
}

inline unlock_all() {
    d_step {
        s = 0;
        do
        :: s < SLOTS ->
            if
            :: lock[s] == me + 1 && has_lock[s] -> lock[s] = COPY
            :: lock[s] == me + 1 && !has_lock[s] -> lock[s] = 0; is_hidden[s] = (copies[s] != 0)
            :: lock[s] != me + 1
            fi;
            s++
        :: s == SLOTS -> s = 0; break
        od
    }
}

/* Copy `k` ends. */
inline close_copy() {
    d_step {
        s = 0;
        do
        :: s < SLOTS ->
            copies[s] = copies[s] & ~BIT(k);
            signal[s] = signal[s] && IS_OPEN(s);
            s++
        :: s == SLOTS -> s = 0; break
        od
    }
}

inline unlock_copy() {
    d_step {
        s = 0;
        do
        :: s < SLOTS ->
            has_lock[s] = has_lock[s] & ~BIT(k);
            if
            :: lock[s] == COPY && !has_lock[s] ->
                lock[s] = 0;
                is_hidden[s] = ((copies[s] & ~BIT(k)) != 0)
            :: else
            fi;
            s++
        :: s == SLOTS -> s = 0; break
        od
    }
}

#define RESET \
    is_over[me] = 1; s = 0; slot = 0; got = 0; has_writer = 0; asked = 0; holds = 0; is_due = 0

proctype Client(byte me) {
    byte s, slot;
    bit got, has_writer, asked, holds, is_due;
    bit is_held[SLOTS], reports[SLOTS];
    {
        if
        :: IS_IN(HELD, me) -> slot = me; goto hold
        :: !IS_IN(HELD, me)
        fi;
        /* A caller that finds no waiter tries, and so does one that only tries. */
        if
        :: IS_IN(TWO, me) ->
            try_slot(0);
            if
            :: got ->
                try_slot(1);
                if
                :: got -> /* It uses them for a moment, and releases one after the other. */
                    open_fifo(0);
                    open_fifo(1);
                    unlock(1);
                    close_fifo(1);
                    signal_unless_closed(1);
                    slot = 0;
                    goto release
                :: !got ->
                    unlock(0);
#ifndef BREAK_SURPLUS_WITHOUT_SIGNAL
                    signal_unless_closed(0);
#endif
                    goto over
                fi
            :: !got -> goto over
            fi
        :: !IS_IN(TWO, me) && (IS_IN(TRY, me) || (waiting == 0 && RETRIES)) ->
            s = 0;
            do
            :: s < SLOTS ->
                try_slot(s);
                if
                :: got -> slot = s; s = 0; open_fifo(slot); goto hold
                :: !got -> s++
                fi
            :: s == SLOTS -> s = 0; break
            od;
            if
            :: IS_IN(TRY, me) -> goto over
            :: !IS_IN(TRY, me)
            fi
        :: !IS_IN(TWO | TRY, me) && (waiting != 0 || !RETRIES)
        fi;
        /* It joins the queue, and becomes the leader. */
        waiting = waiting | BIT(me);
end_queue:
        atomic { gate == 0 -> gate = me + 1; is_due = 1 }
#ifdef BREAK_CHECKS_BEFORE_OPENING
        goto first_check;
watch:
#endif
        do
        :: s < SLOTS ->
            d_step {
                watchers[s] = watchers[s] | BIT(me);
                is_primed[s] = HAS_WRITER(s);
                is_held[s] = 1
            }
#ifndef BREAK_NOT_PRIMED
            /* A poll reports a missing writer only after a writer has come and gone. */
            open_fifo(s);
            close_fifo(s);
#endif
            s++
        :: s == SLOTS -> s = 0; break
        od;
#ifdef BREAK_CHECKS_BEFORE_OPENING
        goto end_sleep;
first_check:
        goto check;
#endif
poll:
        skip;
        d_step {
            do
            :: s < SLOTS ->
                reports[s] = signal[s];
                is_due = is_due || signal[s] || (is_held[s] && IS_CLOSED(s));
                is_held[s] = !IS_CLOSED(s);
                s++
            :: s == SLOTS -> s = 0; break
            od
        }
        if
        :: is_due -> is_due = 0
        :: !is_due -> goto end_sleep /* a new holder has the FIFO open already */
        fi;
        do
        :: s < SLOTS ->
            if
            :: reports[s] -> d_step { signal[s] = 0; reports[s] = 0 }
            :: !reports[s]
            fi;
            s++
        :: s == SLOTS -> s = 0; break
        od;
check:
        skip;
        do
        :: s < SLOTS ->
            try_slot(s);
            if
            :: got -> slot = s; s = 0; goto granted
            :: !got -> s++
            fi
        :: s == SLOTS -> s = 0; break
        od;
#ifdef BREAK_CHECKS_BEFORE_OPENING
        if
        :: watchers[0] == 0 -> goto watch
        :: else
        fi;
#endif
#ifdef BREAK_TAKES_SIGNALS_AFTER_THE_CHECK
        skip;
        d_step {
            do
            :: s < SLOTS -> signal[s] = 0; is_held[s] = !IS_CLOSED(s); s++
            :: s == SLOTS -> s = 0; break
            od
        }
#endif
end_sleep:
        if
        :: ANY(HAS_REPORT)
        :: RETRIES && ANY(HAS_CHANGED) -> is_due = 1
        :: BACKSTOP_ && ANY(IS_FREE) -> is_due = 1
        fi;
#ifdef BREAK_TAKES_SIGNALS_AFTER_THE_CHECK
        is_due = 0;
        goto check;
#else
        goto poll;
#endif
granted:
#ifdef BREAK_OPENS_AFTER_LEAVING
        gate = 0;
        open_fifo(slot);
#else
        open_fifo(slot);
        gate = 0;
#endif
        d_step {
            waiting = waiting & ~BIT(me);
            do
            :: s < SLOTS ->
                watchers[s] = watchers[s] & ~BIT(me);
                signal[s] = signal[s] && IS_OPEN(s);
                s++
            :: s == SLOTS -> s = 0; break
            od
        }
hold:
        skip;
        d_step { holds = 1; holders[slot]++; assert(holders[slot] == 1) }
end_hold:
        !IS_IN(STAYS, me);
#ifdef BREAK_ASKS_BEFORE_UNLOCKING
        asked = (waiting != 0);
#endif
        d_step { holds = 0; holders[slot]-- }
release:
#ifdef BREAK_CLOSES_BEFORE_UNLOCKING
        close_fifo(slot);
        unlock(slot);
#else
        unlock(slot);
        close_fifo(slot);
#endif
        signal_unless_closed(slot);
over:
        skip;
        d_step { RESET }
    }
#if KILLS
    unless {
        killed[me] ->
        /* The kernel closes what the process has open, in any order. */
        d_step {
            waiting = waiting & ~BIT(me);
            gate = (gate == me + 1 -> 0 : gate);
            holders[slot] = holders[slot] - holds;
            if
            :: releasing[me] && lock[releasing[me] - 1] == 0 -> is_hidden[releasing[me] - 1] = 1
            :: else
            fi;
            releasing[me] = 0;
            s = 0;
            do
            :: s < SLOTS -> watchers[s] = watchers[s] & ~BIT(me); s++
            :: s == SLOTS -> s = 0; break
            od
        }
        if
        :: close_all(); unlock_all()
        :: unlock_all(); close_all()
        fi;
        d_step { RESET }
    }
#endif
}

/* Forks, ends copies and kills, at any moment or never. */
active proctype Fate() {
    byte c, p, s, k, ended;
    do
#if KILLS
    :: atomic {
            kills < KILLS -> kills++;
            do
            :: p < CLIENTS - 1 -> p++
            :: !is_over[p] && IS_IN(VICTIMS, p) -> killed[p] = 1; break
            :: else -> break
            od;
            p = 0
        }
#endif
#if STOPS
    :: d_step {
            p = 0;
            do
            :: p < CLIENTS -> stopped[p] = IS_IN(STOPS, p); p++
            :: p == CLIENTS -> p = 0; break
            od
        }
        break
#endif
#if COPIES
    :: atomic {
            c < COPIES ->
            do
            :: p < CLIENTS - 1 -> p++
            :: !is_over[p] && !killed[p] ->
                do
                :: s < SLOTS ->
                    copies[s] = copies[s] | (IS_IN(writers[s], p) << c);
                    has_lock[s] = has_lock[s] | ((lock[s] == p + 1) << c);
                    s++
                :: s == SLOTS -> s = 0; break
                od;
                c++;
                break
            :: else -> break
            od;
            p = 0
        }
    :: atomic {
            ended < BIT(c) - 1 -> k = 0;
            do
            :: k < c - 1 -> k++
            :: !IS_IN(ended, k) -> ended = ended | BIT(k); break
            :: else -> break
            od
        }
        if
        :: close_copy(); unlock_copy()
        :: unlock_copy(); close_copy()
        fi;
        k = 0
#endif
    :: break
    od
}

init {
    byte p, s;
    bit is_waiting;
    atomic {
        do
        :: p < CLIENTS ->
            if
            :: IS_IN(HELD, p) -> lock[p] = p + 1; writers[p] = BIT(p)
            :: !IS_IN(HELD, p)
            fi;
            run Client(p);
            p++
        :: p == CLIENTS -> p = 0; break
        od
    }
    timeout; /* nothing else can move */
    d_step {
        do
        :: p < CLIENTS ->
            is_waiting = is_waiting || !(is_over[p] || stopped[p] || IS_IN(STAYS, p));
            p++
        :: p == CLIENTS -> p = 0; break
        od;
        do
        :: s < SLOTS ->
            assert(!is_waiting || lock[s] != 0 || (is_hidden[s] && copies[s] && MAY_BE_HIDDEN));
            assert(lock[s] == 0 || (lock[s] == COPY && has_lock[s]) || IS_IN(STAYS, lock[s] - 1));
            s++
        :: s == SLOTS -> s = 0; break
        od
    }
}
