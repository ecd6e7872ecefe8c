//! What must be there before the lab can start, and where it is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::process::run;

/// Paths of everything that the lab starts.
#[derive(Clone, Debug)]
pub struct Prerequisites {
    /// The repository.
    pub repo: PathBuf,
    /// User-Mode Linux.
    pub kernel: PathBuf,
    /// Further kernels by the name of their series, built or not: see [`Prerequisites::named_kernel`].
    kernels: BTreeMap<String, PathBuf>,
    /// Directory of etcd, kube-apiserver, kube-controller-manager, kube-scheduler and kubectl.
    pub kube: PathBuf,
    /// Root directory of the guests.
    pub root: PathBuf,
    /// Directory of our own binaries: that of the running executable.
    pub bins: PathBuf,
    /// Cargo's target directory.
    pub target: PathBuf,
}

const KUBE: [&str; 5] = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl"];
const BINS: [&str; 6] = [
    "meshstor",
    "meshstor-operator",
    "meshstor-node-daemon",
    "meshstor-guest-agent",
    "meshstor-verify-writer",
    "meshstor-poller",
];

impl Prerequisites {
    /// Finds all of it; the error names the first that is missing and what makes it.
    pub fn find() -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            bail!("missing prerequisite: root, for network namespaces and taps");
        }
        for (tool, package) in [("unshare", "util-linux"), ("mount", "mount"), ("ip", "iproute2")] {
            if !on_path(tool) {
                bail!("missing prerequisite: {tool} (package {package})");
            }
        }
        must_exist(Path::new("/dev/net/tun"), "modprobe tun")?;
        must_exist(Path::new("/dev/fuse"), "modprobe fuse")?;
        let found = Self::locate()?;
        must_exist(&found.kernel, "e2e/lab/build.sh kernel")?;
        must_exist(&found.root.join("sbin/meshstor-init"), "e2e/lab/build.sh root")?;
        for name in KUBE {
            must_exist(&found.kube.join(name), "e2e/lab/build.sh kube")?;
        }
        for name in BINS {
            must_exist(&found.bins.join(name), "cargo build --workspace --bins")?;
        }
        Ok(found)
    }

    /// The kernel of `kernel/lab/<series>.series`, for a guest that is to run another than the rest ([`crate::guest::Machine`]).
    /// An error if it is not built, or is none of those that `build.sh paths` prints.
    pub fn named_kernel(&self, series: &str) -> Result<PathBuf> {
        let kernel =
            self.kernels.get(series).with_context(|| format!("e2e/lab/build.sh paths prints no KERNEL_{series}"))?;
        must_exist(kernel, &format!("MESHSTOR_KERNEL={series} e2e/lab/build.sh kernel"))?;
        Ok(kernel.clone())
    }

    fn locate() -> Result<Self> {
        let repo = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("e2e has a parent directory")?.to_owned();
        let bins = bins_directory()?;
        let target = bins.parent().context("the binaries lie in target/<profile>")?.to_owned();
        let printed = run(Command::new(repo.join("e2e/lab/build.sh")).arg("paths"))?;
        let path = |key: &str| {
            let line = printed.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix('='));
            line.map(PathBuf::from).with_context(|| format!("e2e/lab/build.sh paths prints no {key}"))
        };
        let named = |line: &str| {
            let (series, kernel) = line.strip_prefix("KERNEL_")?.split_once('=')?;
            Some((series.to_owned(), PathBuf::from(kernel)))
        };
        let kernels = printed.lines().filter_map(named).collect();
        Ok(Self { kernel: path("KERNEL")?, kernels, kube: path("KUBE")?, root: path("ROOT")?, repo, bins, target })
    }
}

/// `target/<profile>`: the directory of the running executable, or its parent for a test.
fn bins_directory() -> Result<PathBuf> {
    let exe = std::env::current_exe()?;
    let dir = exe.parent().context("an executable has a directory")?;
    Ok(if dir.ends_with("deps") { dir.parent().context("deps has a parent")?.to_owned() } else { dir.to_owned() })
}

/// Where state and results go: `target/e2e`.
pub fn results_directory() -> Result<PathBuf> {
    Ok(bins_directory()?.parent().context("the binaries lie in target/<profile>")?.join("e2e"))
}

fn on_path(tool: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|paths| std::env::split_paths(&paths).any(|dir| dir.join(tool).exists()))
}

fn must_exist(path: &Path, made_by: &str) -> Result<()> {
    if !path.exists() {
        bail!("missing prerequisite: {} (run: {made_by})", path.display());
    }
    Ok(())
}
