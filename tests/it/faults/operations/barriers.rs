//! The operations of a barrier. The harness takes part as another participant: it holds the lock of
//! a participant's file, or renames the state.

use super::*;

const OTHER: &[(&str, bool)] = &[("it/participant.1", true)];
/// The states that end the first generation of a barrier for two participants.
const RELEASED: Meanwhile = Meanwhile::Renames("it/open.2.0", "it/open.2.1");
const BROKEN: Meanwhile = Meanwhile::Renames("it/open.2.0", "it/broken.2.0");

impl Kit {
    fn barrier(&self) -> Barrier {
        self.barrier.clone().unwrap()
    }

    /// Opens the barrier. A second call repairs what a fault has broken.
    fn open_barrier(&mut self, parties: u32) {
        let path = self.it();
        self.barrier.get_or_insert_with(|| Barrier::open(path, parties).unwrap()).reset().unwrap();
    }

    /// Waits. In the first run, the harness lets it pass; in the second, another thread does.
    fn pass(&self, wait: impl FnOnce(Barrier) -> Result<BarrierWaitResult, Error>) -> Answer {
        if self.is_patient {
            let other = self.barrier();
            std::thread::spawn(move || other.wait());
        }
        wait(self.barrier()).map(|_| "passed".into())
    }
}

fn alone(kit: &mut Kit) {
    kit.open_barrier(1);
}

fn two(kit: &mut Kit) {
    kit.open_barrier(2);
}

/// The harness holds the file of the participant that has this mark.
fn two_and_another_waits(kit: &mut Kit) {
    two(kit);
    if !kit.is_marked {
        std::fs::write(kit.dir.join("it/arrived/0.1"), "").unwrap();
        kit.is_marked = true;
    }
}

fn expected<T>(answer: Result<T, Error>, is_expected: fn(&Error) -> bool) -> Answer {
    match answer {
        Err(error) if is_expected(&error) => Ok("the expected error".into()),
        Ok(_) => Ok("passed".into()),
        Err(error) => Err(error),
    }
}

fn is_broken(error: &Error) -> bool {
    error.kind() == flockwork::ErrorKind::Broken
}

pub(super) fn barriers() -> Vec<Operation> {
    use Meanwhile::HeldToTheEnd;
    vec![
        operation(
            "Barrier::open",
            |_| {},
            |kit| kit.opened(Barrier::open(kit.it(), 2), |kit| &mut kit.barrier),
        ),
        operation(
            "Barrier::open, with an access",
            |_| {},
            |kit| {
                let options = plain().access(Access::Group);
                kit.opened(options.open_barrier(kit.it(), 2), |kit| &mut kit.barrier)
            },
        ),
        operation("Barrier::open, of an old barrier", two, |kit| {
            kit.opened(Barrier::open(kit.it(), 2), |kit| &mut kit.barrier)
        }),
        operation("Barrier::wait, alone", alone, |kit| {
            kit.barrier().wait().map(|_| "passed".into())
        })
        .all_or(Failed::Broken),
        operation("Barrier::wait_with, alone", alone, |kit| {
            kit.barrier().wait_with(|| Ok::<(), Error>(())).map(|_| "passed".into())
        })
        .all_or(Failed::Broken),
        operation("Barrier::try_wait, alone", alone, |kit| {
            kit.barrier().try_wait().map(|_| "passed".into())
        })
        .all_or(Failed::Broken),
        operation("Barrier::try_wait, of two", two, |kit| {
            expected(kit.barrier().try_wait(), Error::is_would_block)
        })
        .all_or(Failed::Nothing),
        operation("Barrier::wait, the last", two_and_another_waits, |kit| {
            kit.pass(|barrier| barrier.wait())
        })
        .against(HeldToTheEnd(OTHER))
        .all_or(Failed::Broken),
        operation("Barrier::wait, waiting", two, |kit| kit.pass(|barrier| barrier.wait()))
            .against(RELEASED)
            .all_or(Failed::Broken),
        operation("Barrier::wait_timeout, waiting", two, |kit| {
            kit.pass(|barrier| barrier.wait_timeout(LONG))
        })
        .against(RELEASED)
        .all_or(Failed::Broken),
        operation("Barrier::wait_async, waiting", two, |kit| {
            kit.pass(|barrier| block_on(barrier.wait_async()))
        })
        .against(RELEASED)
        .all_or(Failed::Broken),
        operation("Barrier::wait, broken meanwhile", two, |kit| {
            expected(kit.pass(|barrier| barrier.wait()), is_broken)
        })
        .against(BROKEN),
        operation("Barrier::wait_timeout, timed out", two, |kit| {
            let timeout = Duration::from_millis(30);
            expected(kit.barrier().wait_timeout(timeout), Error::is_timed_out)
        }),
        operation(
            "Barrier::reset",
            |kit| {
                two(kit);
                kit.barrier().abort().unwrap();
            },
            |kit| ok(kit.barrier().reset()),
        )
        .all_or(Failed::Nothing),
        operation("Barrier::reset, while another waits", two_and_another_waits, |kit| {
            ok(kit.barrier().reset())
        })
        .against(HeldToTheEnd(OTHER))
        .all_or(Failed::Broken),
        operation("Barrier::abort", two, |kit| ok(kit.barrier().abort())).all_or(Failed::Nothing),
        operation("Barrier::is_broken", two_and_another_waits, |kit| {
            said(kit.barrier().is_broken())
        })
        .against(HeldToTheEnd(OTHER)),
        operation("Barrier::waiting", two_and_another_waits, |kit| said(kit.barrier().waiting()))
            .against(HeldToTheEnd(OTHER)),
        operation("inspect, of a barrier", two_and_another_waits, |kit| {
            inspect(kit.it()).map(|seen| format!("{:?} {}", seen.held_slots(), seen.is_broken()))
        })
        .against(HeldToTheEnd(OTHER)),
    ]
}
