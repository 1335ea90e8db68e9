/* The barrier (rules B2 to B7, 8), the claims that no wake-up is lost and that a generation passes for all or for none.
 *
 * Abstractions: the files of the participants are locked in any order; a client tries those that are free. The marks of
 * earlier generations are left out (a rename replaces them), and so are B1 and rule 2. A process whose watch is up is
 * notified of an event at once. After a close the waiter checks until the kernel has unlocked the closed file (8).
 *
 * Properties:
 * - Whenever no process can move, each living client has passed, has failed, or is one of too few that still wait for
 *   others: fewer than PARTIES, with no dead one among them, and no file that such a client could lock is free.
 * - Of each generation exactly one client is the leader if it was released, and none otherwise.
 * - A client passes a generation only if it was released, and fails only if it was broken.
 * - A generation is released only if no participant was dead when the leader began its last check.
 */

#ifndef CLIENTS
#define CLIENTS 3
#endif
#ifndef PARTIES
#define PARTIES 2
#endif
#ifndef ROUNDS           /* the number of calls of each client */
#define ROUNDS 1
#endif
#ifndef KILLS            /* the number of clients that may be killed, at any moment */
#define KILLS 0
#endif
#ifndef TIMED            /* the clients that have a deadline, which may pass at any moment, as bits */
#define TIMED 0
#endif
#ifndef ACTION
#define ACTION 0
#endif
#ifdef RESETS
#define RESETS_ 1
#else
#define RESETS_ 0
#endif
#define GIVES_UP(c) ((TIMED >> (c)) & 1)
#define BIT(n) (1 << (n))
#define GENERATIONS 6

mtype = { OPEN, FULL, BROKEN };

/* Kernel state: the holder of each file plus 1. */
byte file[PARTIES];
byte closing[PARTIES];    /* the closed files that are still locked, by their dead holder plus 1 */
#define IS_CLOSING (closing[0] || closing[PARTIES / 2] || closing[PARTIES - 1])
/* Files. */
mtype phase = OPEN;       /* the name of the state */
byte current;             /* its generation */
byte mark[PARTIES] = 255; /* the generation that each file is marked with; 255: none */
bit was_reset[GENERATIONS];
bit wanted;
/* Waiters. */
byte watch[CLIENTS];      /* 0: none, 1: requested, 2: up */
bit is_notified[CLIENTS];
bit after_close[CLIENTS];
/* The model itself. */
bit is_over[CLIENTS];
bit killed[CLIENTS];
byte kills;
bit lacks_file[CLIENTS];  /* the client waits for a file */
byte leaders[GENERATIONS];
byte passed[GENERATIONS];
bit released[GENERATIONS];
bit broken[GENERATIONS];
bit has_reset;
bit has_died[GENERATIONS]; /* a client has died after it had marked its arrival */

inline event(is_close) {
    d_step {
        listener = 0;
        do
        :: listener < CLIENTS ->
            if
            :: watch[listener] == 2 ->
                is_notified[listener] = 1;
#ifndef BREAK_NO_CHECK_AFTER_CLOSE
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

/* Ends the generation as broken, unless it has ended (B2). The events of renames are in the same step. */
inline break_generation(g) {
    if
#ifdef BREAK_WITHOUT_COMPARING
    :: phase != BROKEN -> phase = BROKEN; broken[current] = 1; event(0)
#else
    :: atomic { current == g && phase == OPEN -> phase = BROKEN; broken[g] = 1 } event(0)
    :: atomic { current == g && phase == FULL -> phase = BROKEN; broken[g] = 1 } event(0)
#endif
    :: else
    fi
}

#ifdef BREAK_LEAVES_IN_SILENCE
#define IS_WANTED 0
#else
#define IS_WANTED wanted
#endif

/* Unlocks a file, and notifies a caller that waits for one (B5). */
inline unlock(s) {
    file[s] = 0;
    if
    :: IS_WANTED -> wanted = 0; event(0)
    :: else
    fi
}

/* Tries to lock a free file. */
inline take() {
    s = 0;
    do
    :: s < PARTIES ->
        if
        :: atomic { file[s] == 0 -> file[s] = me + 1; mine = s } break
        :: atomic { else -> s++ }
        fi
    :: else -> mine = 255; break
    od
}

inline count_marks(g) {
    d_step {
        s = 0; marks = 0;
        do
        :: s < PARTIES -> if :: mark[s] == g -> marks++ :: else fi; s++
        :: else -> break
        od;
        s = 0
    }
}

proctype Client(byte me) {
    byte mine = 255, own, s, marks, round, listener;
    bit dead, was_dead;
    {
        skip;
next:
        if
        :: round == ROUNDS -> goto over
        :: else -> round++
        fi;
checking:
        atomic { is_notified[me] = 0; after_close[me] = after_close[me] && IS_CLOSING }
        if
        :: mine != 255 -> goto progress
        :: else
        fi;
        /* Arrives (B3). */
        lacks_file[me] = 0;
        if
        :: phase == BROKEN -> goto failed
        :: else
        fi;
        take();
        if
        :: mine == 255 ->
#ifndef BREAK_CHECKS_BEFORE_WANTED
            wanted = 1;
#endif
            take();
#ifdef BREAK_CHECKS_BEFORE_WANTED
            if :: mine == 255 -> wanted = 1 :: else fi;
#endif
            if
            :: mine == 255 -> lacks_file[me] = 1; goto resting
            :: else
            fi
        :: else
        fi;
        if
        :: atomic { phase == BROKEN -> own = 255 } goto leaving_broken
        :: atomic { else -> own = current }
        fi;
#ifndef BREAK_TAKES_OVER_A_DEAD_MARK
        if
        :: mark[mine] == own -> break_generation(own); unlock(mine); mine = 255; goto checking
        :: else
        fi;
#endif
        mark[mine] = own;
progress:
        /* Reads the state, and how its own generation has ended. */
        if
        :: atomic { current == own && phase == BROKEN -> s = 0 } goto leaving_broken
        :: atomic { current > own -> s = 0 } goto ended
        :: d_step { else ->
                s = 0; was_dead = 0;
                do
                :: s < PARTIES -> if :: mark[s] == own && file[s] == 0 -> was_dead = 1 :: else fi; s++
                :: else -> break
                od;
                s = 0 }
        fi;
        /* Tests the participants that have marked this generation (B4). */
        s = 0; dead = 0;
        do
        :: s < PARTIES ->
            if
            :: mark[s] == own && s != mine && file[s] == 0 -> dead = 1
            :: else
            fi;
            s++
        :: else -> s = 0; break
        od;
#ifndef BREAK_COUNTS_THE_DEAD
        if
        :: dead -> break_generation(own); dead = 0; goto progress
        :: else
        fi;
#endif
        count_marks(own);
        if
        :: marks < PARTIES || phase == FULL -> goto resting
        :: else
        fi;
#if ACTION
        if
        :: atomic { current == own && phase == OPEN -> phase = FULL } event(0)
        :: else -> goto progress
        fi;
        /* The action runs. */
        if
        :: atomic { current == own && phase == FULL ->
                phase = OPEN; released[own] = 1; current = own + 1; leaders[own]++ }
#else
        if
#ifdef BREAK_RELEASES_WITHOUT_COMPARING
        :: atomic { true -> phase = OPEN; released[own] = 1; current = own + 1; leaders[own]++ }
#else
        :: atomic { current == own && phase == OPEN ->
                phase = OPEN; released[own] = 1; current = own + 1; leaders[own]++ }
#endif
#endif
            assert(!was_dead); /* no participant was dead when the check began */
#ifndef BREAK_RELEASE_IN_SILENCE
            event(0);
#endif
            goto leaving
        :: else -> goto progress
        fi;
ended:
        if
#ifdef BREAK_RESET_LOOKS_LIKE_RELEASE
        :: true -> goto leaving
#else
        :: !was_reset[own] -> goto leaving
        :: was_reset[own] -> goto leaving_broken
#endif
        fi;
resting:
        if
        :: watch[me] == 0 -> watch[me] = 1
        :: else
        fi;
#ifdef BREAK_FORGETS_EVENTS
        atomic { is_notified[me] = 0; after_close[me] = 0 }
#endif
        if
        :: is_notified[me] -> goto checking
        :: after_close[me] && !IS_CLOSING -> goto checking
        :: GIVES_UP(me) && mine == 255 -> lacks_file[me] = 0; goto gone
        :: GIVES_UP(me) && mine != 255 ->
#ifdef BREAK_UNLOCKS_WITHOUT_BREAKING
            unlock(mine); mine = 255; goto gone
#else
            break_generation(own);
            goto progress
#endif
        fi;
leaving:
        skip;
        d_step {
            assert(released[own]);
            passed[own]++
        }
        unlock(mine);
        mine = 255;
        goto gone;
leaving_broken:
        assert(own == 255 || broken[own]);
        unlock(mine);
        mine = 255;
failed:
        skip;
gone:
        skip;
        d_step { watch[me] = 0; is_notified[me] = 0; after_close[me] = 0; dead = 0; marks = 0; own = 0; s = 0 }
        goto next;
over:
        is_over[me] = 1
    }
#if KILLS
    unless {
        killed[me] ->
        d_step {
            watch[me] = 0; is_notified[me] = 0; lacks_file[me] = 0;
            if :: mine != 255 && mark[mine] == own && current == own && phase != BROKEN -> has_died[own] = 1 :: else fi;
            s = 0;
            do
            :: s < PARTIES -> if :: file[s] == me + 1 -> closing[s] = me + 1 :: else fi; s++
            :: else -> break
            od;
            s = 0
        }
#ifndef BREAK_DEATH_IS_SILENT
        event(1); /* comes before the kernel unlocks (8) */
#endif
        d_step {
            do
            :: s < PARTIES -> if :: closing[s] == me + 1 -> file[s] = 0; closing[s] = 0 :: else fi; s++
            :: else -> break
            od;
            s = 0
        }
    }
    ;
    is_over[me] = 1
#endif
}

#if RESETS_
/* Resets the barrier once, at any moment (B6). */
proctype Resetter() {
    byte listener, g, s, marks;
    do
    :: true ->
        if
        :: atomic { phase == BROKEN -> g = current } /* reads the state, which is one name */
#ifdef BREAK_RESET_IS_NOT_RECORDED
            skip;
#else
            was_reset[g] = 1;
#endif
            if
            :: atomic { current == g && phase == BROKEN -> phase = OPEN; current = g + 1 } event(0)
            :: else
            fi;
            break
        :: atomic { else -> g = current }
            count_marks(g);
            if
            :: marks == 0 -> break
            :: else -> break_generation(g)
            fi
        fi
    od;
    has_reset = 1
}
#endif

/* The thread that watches for the clients. That the watch is up counts as the closing of a file. */
active proctype Hub() {
    byte c;
end:
    do
    :: d_step { c < CLIENTS && watch[c] == 1 -> watch[c] = 2;
#ifndef BREAK_WATCH_BEGINS_IN_SILENCE
            is_notified[c] = 1; after_close[c] = 1;
#endif
            c = 0 }
    :: d_step { c < CLIENTS && watch[c] != 1 && (watch[0] == 1 || watch[1] == 1 || watch[CLIENTS - 1] == 1) -> c++ }
    :: d_step { c == CLIENTS -> c = 0 }
    od
}

active proctype Fate() {
    do
#if KILLS
    :: d_step { kills < KILLS && !is_over[0] && !killed[0] -> kills++; killed[0] = 1 }
    :: d_step { kills < KILLS && !is_over[1] && !killed[1] -> kills++; killed[1] = 1 }
#endif
    :: break
    od
}

init {
    byte c, s, left, free, dead;
    atomic {
        do
        :: c < CLIENTS -> run Client(c); c++
        :: else -> c = 0; break
        od;
#if RESETS_
        run Resetter()
#endif
    }
    timeout; /* No process can move. */
    d_step {
        do
        :: c < CLIENTS -> if :: !is_over[c] -> left++ :: else fi; c++
        :: else -> c = 0; break
        od;
        do
        :: s < PARTIES ->
            if :: file[s] == 0 -> free++ :: else fi;
            if :: file[s] == 0 && mark[s] == current && phase != BROKEN -> dead++ :: else fi;
            s++
        :: else -> s = 0; break
        od;
        assert(!left || phase == OPEN);     /* no one waits at a broken barrier */
        assert(left < PARTIES);             /* nor with all others */
        assert(!left || !dead);             /* nor for a dead one */
        assert(!left || !has_died[current]);
        do
        :: c < CLIENTS -> assert(!lacks_file[c] || !free); c++
        :: else -> c = 0; break
        od;
        do
        :: s < GENERATIONS ->
            assert(!(released[s] && broken[s]));
            assert(leaders[s] == released[s]);
            assert(passed[s] <= PARTIES);
            assert(KILLS || passed[s] == released[s] * PARTIES); /* all pass, or none */
            s++
        :: else -> break
        od
    }
}
