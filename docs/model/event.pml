/* The event (rules E1 to E5, and the claim that no wake-up of an event is lost), as implemented in
 * src/file/marker/*.rs, src/event/wait.rs and src/wait/event_loop.rs.
 *
 * CONSUMERS processes consume one setting each, WAITERS wait until the event is set, and CLEARED
 * wait until it is clear. SETTERS set it once each, those in PAYLOADS with a payload. CLEARERS
 * clear it once. KILLS consumers may die at any moment. With -DTWO_LOCKS the lock file was
 * replaced, so that each consumer locks a different one.
 *
 * Abstractions: one local directory, which stays. Each change of a name is an event for the
 * processes whose watch is up. A payload is the number of its setting. Payloads can be read.
 *
 * Properties:
 * - Whenever no process can move, no living process waits for what is there: no wake-up is lost.
 *   This holds without the backstop.
 * - Each setting is consumed once, cleared, replaced, lost with a consumer that died after its
 *   second rename, or still there. No two of these are true.
 * - At most one call reports for each setting that it has set the event.
 * - If there are at least as many settings as consumers, each consumer ends (LTL, with weak
 *   fairness). So does each waiter, if the event stays as it waits for it.
 */

#ifndef CONSUMERS
#define CONSUMERS 2
#endif
#ifndef WAITERS
#define WAITERS 0
#endif
#ifndef CLEARED
#define CLEARED 0
#endif
#ifndef SETTERS
#define SETTERS 2
#endif
#ifndef PAYLOADS         /* the setters that have a payload, as bits */
#define PAYLOADS 1
#endif
#ifndef CLEARERS
#define CLEARERS 0
#endif
#ifndef KILLS
#define KILLS 0
#endif
/* In turn: a setter waits until the setting before it was taken, and a clearer for all settings. */
#ifdef IN_TURN
#define MAY_SET (settings == number && marker == 0)
#define MAY_CLEAR (settings == SETTERS)
#else
#define MAY_SET 1
#define MAY_CLEAR 1
#endif
#define WATCHERS (CONSUMERS + WAITERS + CLEARED)
#define IS_IN(set, c) (((set) >> (c)) & 1)
#define REQUESTED 1
#define UP 2
#ifdef TWO_LOCKS
#define LOCK lock[me]
#define LOCKS WATCHERS
#else
#define LOCK lock[0]
#define LOCKS 1
#endif

/* Files: the numbers of the settings that they have, or 0. */
byte marker;
byte taken;
byte own[WATCHERS];
/* The kernel. */
byte lock[LOCKS];        /* the consumer that has the lock, plus 1 */
byte watch[WATCHERS];
bit event[WATCHERS];
byte requests;           /* how many watches are requested */
/* The model itself. */
byte settings;           /* how many there were */
byte delivered[SETTERS + 1];
byte removed[SETTERS + 1];
byte lost[SETTERS + 1];
byte changes;            /* how often the event became set */
byte reports;            /* how often a call reported that */
bit is_over[WATCHERS];
bit killed[WATCHERS];
byte kills;

/* A change of a name in the directory. */
inline notify() {
    do
    :: w < WATCHERS -> event[w] = event[w] || watch[w] == UP; w++
    :: w == WATCHERS -> break
    od;
    w = 0
}

/* After a failed check: sleeps until an event, or polls. */
inline sleep() {
    if
    :: d_step { watch[me] == 0 -> watch[me] = REQUESTED; requests++ }
    :: watch[me] != 0
    fi;
    polls = is_busy || watch[me] != UP;
    is_busy = 0;
end_sleep:
    if
    :: event[me]
    :: polls
    fi;
    polls = 0
}

inline take_events() {
#ifndef BREAK_COUNTS_AFTER_THE_CHECK
    event[me] = 0
#else
    skip
#endif
}

inline take_events_late() {
#ifdef BREAK_COUNTS_AFTER_THE_CHECK
    event[me] = 0
#else
    skip
#endif
}

inline finish() {
    requests = requests - (watch[me] == REQUESTED);
    event[me] = 0;
    watch[me] = 0;
    is_over[me] = 1
}

proctype Consumer(byte me) {
    byte w, file;
    bit is_busy, polls, has_marker, has_taken;
    {
        skip;
check:
        take_events();
        has_taken = (taken != 0);
        has_marker = (marker != 0);
        if
        :: !has_taken && !has_marker -> goto failed
        :: has_taken || has_marker
        fi;
        if
        :: atomic { LOCK == 0 -> LOCK = me + 1 }
        :: LOCK != 0 ->
#ifndef BREAK_RELIES_ON_EVENTS_WHILE_BUSY
            is_busy = 1;
#endif
            goto failed
        fi;
        /* It checks again with the lock, and takes the setting with two renames (E4). */
        has_taken = (taken != 0);
#ifdef BREAK_FORGETS_WHAT_IS_TAKEN
        has_taken = 0;
#endif
        if
        :: !has_taken ->
            if
            :: d_step { marker != 0 && taken == 0 -> taken = marker; marker = 0; notify() }
            :: marker == 0 || taken != 0 -> goto nothing
            fi
        :: has_taken
        fi;
        file = taken;
        if
        :: file == 0 -> goto nothing
        :: file != 0
        fi;
#ifdef BREAK_DELIVERS_BEFORE_THE_SECOND_RENAME
        delivered[file]++;
#endif
        if
        :: d_step { taken != 0 -> own[me] = taken; taken = 0; notify() }
        :: taken == 0 -> goto nothing
        fi;
#ifndef BREAK_DELIVERS_BEFORE_THE_SECOND_RENAME
        d_step {
#ifndef BREAK_BELIEVES_WHAT_IT_READ
            file = own[me]; /* it may have renamed another file than the one that it read */
#endif
            delivered[file]++;
            own[me] = 0
        };
#else
        own[me] = 0;
#endif
        LOCK = 0;
        goto over;
nothing:
        LOCK = 0;
failed:
        take_events_late();
        has_taken = 0;
        has_marker = 0;
        file = 0;
        sleep();
        goto check;
over:
        skip;
        d_step { file = 0; has_taken = 0; has_marker = 0; finish() }
    }
#if KILLS
    unless {
        killed[me] -> d_step {
            lost[own[me]] = lost[own[me]] + (own[me] != 0);
            own[me] = 0;
            LOCK = (LOCK == me + 1 -> 0 : LOCK);
            file = 0;
            has_taken = 0;
            has_marker = 0;
            is_busy = 0;
            polls = 0;
            finish()
        }
    }
#endif
}

/* Waits until the event is set, or is clear. */
proctype Waiter(byte me; bit wanted) {
    bit is_busy, polls;
check:
    take_events();
    if
    :: (marker != 0) == wanted -> goto over
    :: (marker != 0) != wanted
    fi;
    take_events_late();
    sleep();
    goto check;
over:
    skip;
    d_step { finish() }
}

/* The thread that adds watches, in any order. Its reply counts as an event. */
active proctype Notify() {
    byte w;
end:
    do
    :: atomic {
            requests > 0 ->
            do
            :: w < WATCHERS - 1 -> w++
            :: watch[w] == REQUESTED ->
                watch[w] = UP;
                requests--;
#ifndef BREAK_WATCH_COMES_UP_IN_SILENCE
                event[w] = 1;
#endif
                break
            :: else -> break
            od;
            w = 0
        }
    od
}

inline new_setting() {
    settings++;
    changes = changes + (marker == 0);
    removed[marker] = removed[marker] + (marker != 0);
    marker = settings;
    notify()
}

proctype Setter(byte number) {
    byte w;
    bit is_set;
    MAY_SET;
    if
    :: !IS_IN(PAYLOADS, number) -> /* creates the file exclusively */
        do
        :: d_step { marker == 0 -> new_setting(); reports++ } break
        :: marker != 0 ->
            if
            :: marker != 0 -> break
            :: marker == 0
            fi
        od
    :: IS_IN(PAYLOADS, number) ->
        do
        :: is_set = (marker != 0);
            if
            :: is_set -> d_step { new_setting() } break /* a rename replaces it */
            :: !is_set ->
                if
#ifdef BREAK_SETS_BY_A_RENAME
                :: d_step { new_setting(); reports++ } break
#else
                :: d_step { marker == 0 -> new_setting(); reports++ } break
                :: marker != 0
#endif
                fi
            fi
        od
    fi
}

proctype Clearer() {
    byte w;
    bit has_taken, has_marker;
    MAY_CLEAR;
    has_taken = (taken != 0);
    has_marker = (marker != 0);
    if
    :: has_marker ->
        d_step { removed[marker] = removed[marker] + (marker != 0); marker = 0; notify() }
    :: !has_marker
    fi;
    if
    :: has_taken ->
        if
        :: atomic { lock[0] == 0 -> lock[0] = 100 }
            d_step { removed[taken] = removed[taken] + (taken != 0); taken = 0; notify() }
            lock[0] = 0
        :: lock[0] != 0
        fi
    :: !has_taken
    fi
}

#if KILLS
/* At any moment, or never. */
active proctype Fate() {
    byte c;
    do
    :: atomic {
            kills < KILLS -> kills++;
            do
            :: c < CONSUMERS - 1 -> c++
            :: !is_over[c] -> killed[c] = 1; break
            :: else -> break
            od;
            c = 0
        }
    :: break
    od
}
#endif

init {
    byte c;
    atomic {
        do
        :: c < CONSUMERS -> run Consumer(c); c++
        :: c >= CONSUMERS && c < CONSUMERS + WAITERS -> run Waiter(c, 1); c++
        :: c >= CONSUMERS + WAITERS && c < WATCHERS -> run Waiter(c, 0); c++
        :: c == WATCHERS -> c = 0; break
        od;
        do
        :: c < SETTERS -> run Setter(c); c++
        :: c == SETTERS -> c = 0; break
        od;
        do
        :: c < CLEARERS -> run Clearer(); c++
        :: c == CLEARERS -> c = 0; break
        od
    }
    timeout; /* nothing else can move */
    d_step {
        do
        :: c < CONSUMERS -> assert(is_over[c] || (marker == 0 && taken == 0)); c++
        :: c >= CONSUMERS && c < CONSUMERS + WAITERS -> assert(is_over[c] || marker == 0); c++
        :: c >= CONSUMERS + WAITERS && c < WATCHERS -> assert(is_over[c] || marker != 0); c++
        :: c == WATCHERS -> c = 1; break
        od;
        do
        :: c <= settings ->
            assert(delivered[c] + removed[c] + lost[c] + (marker == c) + (taken == c) == 1);
            c++
        :: c > settings -> c = 0; break
        od;
        assert(reports <= changes)
    }
}

ltl progress { <> is_over[0] }
