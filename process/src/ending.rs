//! Runs a program to its end, which waits for nothing that cannot be stopped. It knows nothing of what runs.

use std::time::Duration;

use tokio::runtime::Runtime;

/// How long what holds a thread may take once everything else has ended: a file that is being read, or a name that is
/// being looked up, which the system gives up only after 20 s and more.
pub const LAST_CALL: Duration = Duration::from_millis(500);

/// Runs a future, and what it has spawned, to the end of the future.
pub fn run_to_end<T>(runtime: Runtime, future: impl Future<Output = T>) -> T {
    let ended = runtime.block_on(future);
    // Dropping it would wait for every thread.
    runtime.shutdown_timeout(LAST_CALL);
    ended
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use tokio::runtime::Builder;

    use super::*;

    #[test]
    fn the_end_waits_for_no_name_that_is_looked_up() {
        for mut builder in [Builder::new_current_thread(), Builder::new_multi_thread()] {
            let (answer, answered) = mpsc::channel::<()>();
            let (ended, end) = mpsc::channel();
            let runtime = builder.enable_all().build().unwrap();
            let running = thread::spawn(move || {
                let value = run_to_end(runtime, async move {
                    // As the system's resolver, which nobody can stop.
                    tokio::task::spawn_blocking(move || answered.recv());
                    7
                });
                ended.send(value).unwrap();
            });
            let value = end.recv_timeout(LAST_CALL * 20);
            drop(answer);
            running.join().unwrap();
            assert_eq!(value, Ok(7));
        }
    }
}
