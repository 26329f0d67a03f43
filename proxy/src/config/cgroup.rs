//! How much CPU the cgroups of this process allow, for the default number of workers. Pure but for reading files
//! below a root that tests choose. Source: the kernel's cgroup-v2 (`cpu.max`) and sched-bwc (v1) documents.

use std::fs::read_to_string;
use std::path::{Path, PathBuf};

/// CPUs per second of the tightest limit that applies; `None` where there is none.
pub(super) fn quota(root: &Path) -> Option<f64> {
    let membership = read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let mounts = root.join("sys/fs/cgroup");
    let mut tightest: Option<f64> = None;
    let mut consider = |limit: Option<f64>| {
        tightest = match (tightest, limit) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    };
    for line in membership.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
            continue;
        };
        if controllers.is_empty() {
            ancestors(&mounts, path).for_each(|dir| consider(v2(&dir)));
        } else if controllers.split(',').any(|controller| controller == "cpu") {
            for mount in [mounts.join("cpu"), mounts.join(controllers)] {
                ancestors(&mount, path).for_each(|dir| consider(v1(&dir)));
            }
        }
    }
    // In a container without a cgroup namespace its own group is what is mounted, whatever the path says.
    consider(v2(&mounts));
    consider(v1(&mounts.join("cpu")));
    tightest
}

/// The group at `path` below `mount` and every group that holds it.
fn ancestors(mount: &Path, path: &str) -> impl Iterator<Item = PathBuf> {
    let mount = mount.to_owned();
    let group = mount.join(path.trim_start_matches('/'));
    let dirs: Vec<_> = group.ancestors().map(Path::to_owned).collect();
    dirs.into_iter()
        .take_while(move |dir| dir.starts_with(&mount))
}

/// `cpu.max`: `<quota> <period>` in microseconds, or `max <period>`.
fn v2(dir: &Path) -> Option<f64> {
    let text = read_to_string(dir.join("cpu.max")).ok()?;
    let (quota, period) = text.trim().split_once(' ')?;
    ratio(quota, period)
}

/// `cpu.cfs_quota_us` (-1 without limit) and `cpu.cfs_period_us`.
fn v1(dir: &Path) -> Option<f64> {
    let read = |name| read_to_string(dir.join(name)).ok();
    ratio(
        read("cpu.cfs_quota_us")?.trim(),
        read("cpu.cfs_period_us")?.trim(),
    )
}

fn ratio(quota: &str, period: &str) -> Option<f64> {
    let quota: u32 = quota.parse().ok()?;
    let period: u32 = period.parse().ok()?;
    (quota > 0 && period > 0).then(|| f64::from(quota) / f64::from(period))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    struct Root(PathBuf);

    impl Root {
        fn new(name: &str, files: &[(&str, &str)]) -> Self {
            let root =
                std::env::temp_dir().join(format!("weir-cgroup-{}-{name}", std::process::id()));
            for (path, text) in files {
                let path = root.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            Self(root)
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn quota_of(name: &str, files: &[(&str, &str)]) -> Option<f64> {
        quota(&Root::new(name, files).0)
    }

    #[test]
    fn nothing_known_is_no_limit() {
        assert_eq!(quota_of("none", &[]), None);
        let unlimited = [
            ("proc/self/cgroup", "0::/\n"),
            ("sys/fs/cgroup/cpu.max", "max 100000\n"),
        ];
        assert_eq!(quota_of("max", &unlimited), None);
    }

    #[test]
    fn version_2_takes_the_tightest_of_the_groups_above() {
        let files = [
            ("proc/self/cgroup", "0::/pod/container\n"),
            ("sys/fs/cgroup/pod/container/cpu.max", "300000 100000\n"),
            ("sys/fs/cgroup/pod/cpu.max", "150000 100000\n"),
        ];
        assert_eq!(quota_of("v2", &files), Some(1.5));
        let container = [
            ("proc/self/cgroup", "0::/kubepods/pod/x\n"),
            ("sys/fs/cgroup/cpu.max", "50000 100000\n"),
        ];
        assert_eq!(quota_of("v2-container", &container), Some(0.5));
    }

    #[test]
    fn version_1_has_two_files() {
        let files = [
            ("proc/self/cgroup", "12:memory:/a\n4:cpu,cpuacct:/a\n"),
            ("sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us", "400000\n"),
            ("sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us", "100000\n"),
        ];
        assert_eq!(quota_of("v1", &files), Some(4.0));
        let unlimited = [
            ("proc/self/cgroup", "4:cpu,cpuacct:/\n"),
            ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n"),
            ("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
        ];
        assert_eq!(quota_of("v1-unlimited", &unlimited), None);
    }
}
