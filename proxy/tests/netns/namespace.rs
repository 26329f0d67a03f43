//! A network namespace of one test: enter it on a thread of its own, run commands in it, and
//! it is gone with its last user, even after a crash. Used by every test of this target.
//! Knows nothing of proxies or rules.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::thread;

use rustix::thread::{
    LinkNameSpaceType, UnshareFlags, move_into_link_name_space, set_thread_res_gid,
    set_thread_res_uid,
};

/// Set to `skip` to pass over these tests where they cannot run, knowingly.
const SKIP_VARIABLE: &str = "WEIR_NETNS_TESTS";

/// Whether the tests of this target are to be skipped; says so when they are.
pub(crate) fn is_skipped() -> bool {
    let skipped = std::env::var(SKIP_VARIABLE).is_ok_and(|value| value == "skip");
    if skipped {
        eprintln!("SKIPPED, as {SKIP_VARIABLE}=skip asks");
    }
    skipped
}

/// A network namespace with `lo` up, held by a file descriptor alone: it has no name, so tests in
/// parallel do not meet and nothing is left behind.
pub(crate) struct Namespace {
    net: OwnedFd,
}

/// A child process in a namespace, killed and reaped on drop.
pub(crate) struct Process(pub(crate) Child);

impl Namespace {
    /// Panics with the reason and the remedy where namespaces cannot be made.
    pub(crate) fn new() -> Self {
        let net = thread::spawn(unshared)
            .join()
            .unwrap()
            .unwrap_or_else(|error| {
                panic!(
                    "cannot make a network namespace ({error}): these tests need root with \
                 CAP_SYS_ADMIN and CAP_NET_ADMIN; run them as root, or set {SKIP_VARIABLE}=skip"
                )
            });
        let namespace = Self { net };
        namespace.exec("ip link set lo up");
        namespace
    }

    /// A path that names the namespace for `ip link ... netns PATH`.
    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.net.as_raw_fd())
    }

    /// Runs `work` on a new thread inside. Sockets made there stay inside wherever they go.
    pub(crate) fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                move_into_link_name_space(self.net.as_fd(), Some(LinkNameSpaceType::Network))
                    .expect("the descriptor is a network namespace");
                work()
            });
            match inside.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// The same as another user, without any capability. Sockets made there belong to `uid`.
    pub(crate) fn enter_as<T: Send>(&self, uid: u32, work: impl FnOnce() -> T + Send) -> T {
        self.enter(|| {
            become_user(uid);
            work()
        })
    }

    /// Runs a command to its end and gives its standard output; panics when it fails.
    pub(crate) fn exec(&self, line: &str) -> String {
        let mut words = line.split_whitespace();
        let program = words.next().expect("a command has a first word");
        let output = self.enter(|| Command::new(program).args(words).output());
        let output = output.unwrap_or_else(|error| {
            panic!("cannot run {program} ({error}): install the package that has it")
        });
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "`{line}` failed: {stderr}");
        String::from_utf8(output.stdout).expect("commands print text")
    }

    /// Starts a command inside, as `uid` if given.
    pub(crate) fn spawn(&self, command: &mut Command, uid: Option<u32>) -> Process {
        if let Some(uid) = uid {
            command.uid(uid).gid(uid);
        }
        Process(self.enter(|| command.spawn()).expect("the program exists"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        let _ended = self.0.kill();
        self.0.wait().expect("a child can be waited for");
    }
}

/// Gives the calling thread, and no other, the identity of `uid`.
pub(crate) fn become_user(uid: u32) {
    let (user, group) = (
        rustix::fs::Uid::from_raw(uid),
        rustix::fs::Gid::from_raw(uid),
    );
    set_thread_res_gid(group, group, group).expect("root may change its group");
    set_thread_res_uid(user, user, user).expect("root may change its user");
}

fn unshared() -> io::Result<OwnedFd> {
    #[expect(
        deprecated,
        reason = "its unsafe successor is needed for CLONE_FILES only"
    )]
    rustix::thread::unshare(UnshareFlags::NEWNET)?;
    Ok(std::fs::File::open("/proc/thread-self/ns/net")?.into())
}
