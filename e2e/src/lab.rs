//! The lab as a whole: control plane, operator, guests and their daemons.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::api::{self, is_true};
use crate::control_plane::{Audit, ControlPlane};
use crate::drive::DriveKind;
use crate::footprint::Footprint;
use crate::guest::{Guest, Machine};
use crate::kubeconfig::{self, Proof};
use crate::manifests::Workload;
use crate::prerequisites::Prerequisites;
use crate::process::{Process, run};
use crate::uml::Uml;
use crate::wait::{Look, secs, wait_for};
use crate::{netns, say};

/// Taint of a node that is shut down for good.
pub const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute";
/// Label of a failure domain.
const ZONE: &str = "topology.kubernetes.io/zone";

fn zone(node: &str) -> String {
    node.replace('n', "z")
}

/// Drives that a guest's daemon may use: User-Mode Linux's disks, not their partitions.
pub const DRIVES: &str = "/dev/ubd?";

/// What a lab has.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Number of guests.
    pub guests: u8,
    /// Size of each of a guest's two drives.
    pub drive_bytes: u64,
    /// What they are.
    pub drives: DriveKind,
    /// Seconds between two full looks of the daemons; none: as the manifest has it.
    pub full_look: Option<u32>,
    /// What the API server's audit log has.
    pub audit: Audit,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            guests: 3,
            drive_bytes: 3 << 30,
            drives: DriveKind::from_environment(),
            full_look: None,
            audit: Audit::default(),
        }
    }
}

/// A running lab. Dropping it ends everything that it started.
pub struct Lab {
    /// Where its files are.
    pub dir: PathBuf,
    /// Its control plane.
    pub control: ControlPlane,
    guests: Vec<Guest>,
    runner: Arc<Uml>,
    options: Options,
    operator: Option<Process>,
    second_operator: Option<Process>,
    found: Prerequisites,
    workloads: Workloads,
    /// Held as long as the lab lives: two labs in one directory would empty it under each other.
    _lock: File,
}

struct Workloads {
    operator: Workload,
    daemon: Workload,
}

impl Lab {
    /// Brings everything up in `target/e2e/<name>`, which is emptied first, and waits until every node is ready.
    pub fn up(found: Prerequisites, name: &str, options: Options) -> Result<Self> {
        let dir = found.target.join("e2e").join(name);
        let lock = lock(&dir.with_extension("lock"))?;
        match std::fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).context(format!("empty {}", dir.display()));
            }
            _ => std::fs::create_dir_all(dir.join("logs"))?,
        }
        must_have_room(&dir)?;
        let runner = Arc::new(Uml { kernel: found.kernel.clone(), root: found.root.clone() });
        let mut guests = (1..=options.guests)
            .map(|number| Guest::new(&found, &dir, number, options.drive_bytes, runner.clone()))
            .collect::<Result<Vec<_>>>()?;
        guests.iter_mut().try_for_each(|guest| guest.set_drives(options.drives))?;
        // The guests boot while the control plane starts.
        guests.iter_mut().try_for_each(Guest::power_on)?;
        let control = ControlPlane::start(&found, &dir, options.audit)?;
        let workloads = apply_manifests(&found, &control)?;
        control.api.capture(&found.target.join("e2e/objects"))?;
        let mut lab = Self {
            dir,
            control,
            guests,
            runner,
            options,
            operator: None,
            second_operator: None,
            found,
            workloads,
            _lock: lock,
        };
        lab.guests.iter().try_for_each(|guest| lab.register_node(guest))?;
        lab.start_operator()?;
        for name in lab.nodes() {
            lab.join(&name)?;
        }
        lab.wait_for_nodes()?;
        Ok(lab)
    }

    /// A Node object, as a kubelet would make it, and the daemon's kubeconfig, its token bound to the node.
    fn register_node(&self, guest: &Guest) -> Result<()> {
        let account = &self.workloads.daemon;
        let name = guest.name();
        let labels = json!({ "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", ZONE: zone(name) });
        let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": name, "labels": labels } });
        let node = self.control.api.create("/api/v1/nodes", &node)?;
        let token = self.control.api.token(&account.namespace, &account.account, Some(&node))?;
        kubeconfig::write(&guest.machine.share.join("kubeconfig"), &self.control.ca, Proof::Token(&token))
    }

    /// Puts a node back into the zone in which the lab has it: one of its own.
    pub fn label_zone(&self, node: &str) -> Result<()> {
        let labels = json!({ "metadata": { "labels": { ZONE: zone(node) } } });
        self.control.api.merge(&format!("/api/v1/nodes/{node}"), &labels).map(drop)
    }

    /// Waits until a guest that was powered on is up, and starts its daemon.
    fn join(&mut self, node: &str) -> Result<()> {
        self.guest_mut(node)?.wait_until_up()?;
        say!("{node} is up: {}", self.guest(node)?.shell("uname -sr")?.trim());
        self.start_daemon(node)
    }

    /// Adds one more node, with drives of its own, and waits until it is ready; gives its name.
    pub fn add_node(&mut self) -> Result<String> {
        let number = u8::try_from(self.guests.len() + 1)?;
        let mut guest = Guest::new(&self.found, &self.dir, number, self.options.drive_bytes, self.runner.clone())?;
        guest.set_drives(self.options.drives)?;
        guest.power_on()?;
        self.register_node(&guest)?;
        let name = guest.name().to_owned();
        self.guests.push(guest);
        self.join(&name)?;
        self.wait_for_nodes()?;
        Ok(name)
    }

    /// Takes the node that was added last away for good: its power, its tap, its files and its objects.
    pub fn remove_last_node(&mut self) -> Result<()> {
        let mut guest = self.guests.pop().context("there is a node")?;
        if guest.is_on() {
            guest.cut_power()?;
        }
        netns::remove_tap(&guest.machine.tap)?;
        for object in [api::ours("meshnodes", guest.name()), format!("/api/v1/nodes/{}", guest.name())] {
            if self.control.api.find(&object)?.is_some() {
                self.control.api.delete(&object)?;
            }
        }
        std::fs::remove_dir_all(&guest.machine.dir).with_context(|| format!("empty {}", guest.machine.dir.display()))
    }

    /// Name of the operator's pod.
    pub const FIRST_OPERATOR: &str = "meshstor-operator-lab";
    /// Name of the pod of a second copy.
    pub const SECOND_OPERATOR: &str = "meshstor-operator-lab-2";

    /// Starts the operator, as its manifest says.
    pub fn start_operator(&mut self) -> Result<()> {
        self.operator = Some(self.start_operator_as(Self::FIRST_OPERATOR, "operator")?);
        Ok(())
    }

    /// Starts another copy of it beside it.
    pub fn start_second_operator(&mut self) -> Result<()> {
        self.second_operator = Some(self.start_operator_as(Self::SECOND_OPERATOR, "operator-2")?);
        Ok(())
    }

    fn start_operator_as(&self, pod: &str, name: &str) -> Result<Process> {
        let workload = &self.workloads.operator;
        let kubeconfig = self.dir.join("operator.kubeconfig");
        let token = self.control.api.token(&workload.namespace, &workload.account, None)?;
        kubeconfig::write(&kubeconfig, &self.control.ca, Proof::Token(&token))?;
        let fields =
            BTreeMap::from([("metadata.name", pod.to_owned()), ("metadata.namespace", workload.namespace.clone())]);
        let env = workload.env(&fields)?;
        let mut command = Command::new(self.found.bins.join("meshstor-operator"));
        command.args(workload.args(&env, &[])?).envs(env).env("KUBECONFIG", &kubeconfig);
        Process::start("meshstor-operator", &mut command, &self.dir.join(format!("logs/{name}.log")))
    }

    /// The operator.
    pub fn operator(&self) -> Result<&Process> {
        self.operator.as_ref().context("the operator does not run")
    }

    /// Tells the second copy to end, as a kubelet does, and waits until it has.
    pub fn end_second_operator(&mut self) -> Result<()> {
        self.second_operator.take().context("there is no second operator")?.end().map(drop)
    }

    /// `kill -9` of the operator.
    pub fn kill_operator(&mut self) -> Result<()> {
        self.operator.take().context("the operator does not run")?.kill().map(drop)
    }

    /// Starts a node's daemon, as its manifest says, but with the guests' drives.
    pub fn start_daemon(&self, node: &str) -> Result<()> {
        self.start_daemon_with(node, DRIVES)
    }

    /// As [`Lab::start_daemon`], with other drives than a guest usually has: patterns, separated by commas.
    pub fn start_daemon_with(&self, node: &str, drives: &str) -> Result<()> {
        let (workload, full_look) = (self.workloads.daemon.clone(), self.options.full_look);
        let guest = self.guest(node)?;
        let ip = guest.machine.ip.to_string();
        let fields = BTreeMap::from([
            ("spec.nodeName", node.to_owned()),
            ("status.hostIP", ip.clone()),
            ("status.podIP", ip),
            ("metadata.namespace", workload.namespace.clone()),
            ("metadata.name", format!("meshstor-node-daemon-{node}")),
        ]);
        let mut env = workload.env(&fields)?;
        let args = workload.args(&env, &[("--drives", drives)])?;
        env.insert("KUBECONFIG".to_owned(), "/run/share/kubeconfig".to_owned());
        env.insert("RUST_BACKTRACE".to_owned(), "1".to_owned());
        env.extend(full_look.map(|seconds| ("MESHSTOR_FULL_LOOK_SECONDS".to_owned(), seconds.to_string())));
        std::fs::write(guest.machine.share.join("container"), workload.container())?;
        guest.start_daemon(&args, &env)
    }

    /// Powers a guest on again, with its old drives, and starts its daemon.
    pub fn power_on(&mut self, node: &str) -> Result<()> {
        let guest = self.guest_mut(node)?;
        guest.power_on()?;
        guest.wait_until_up()?;
        self.start_daemon(node)
    }

    /// Cuts a guest's power and boots what `change` makes of it, with its old drives.
    pub fn reboot_as(&mut self, node: &str, change: impl FnOnce(&mut Machine)) -> Result<()> {
        let guest = self.guest_mut(node)?;
        guest.cut_power()?;
        change(&mut guest.machine);
        self.power_on(node)
    }

    /// Cuts a guest's power and boots it with drives of a kind, which hold what the old ones held. `None`: as the lab's are.
    pub fn reboot_with_drives(&mut self, node: &str, kind: Option<DriveKind>) -> Result<()> {
        let kind = kind.unwrap_or(self.options.drives);
        let guest = self.guest_mut(node)?;
        guest.cut_power()?;
        guest.set_drives(kind)?;
        self.power_on(node)
    }

    /// An outage of the API server: it is stopped, not ended, so that connections hang.
    pub fn stop_api(&self) -> Result<()> {
        self.control.apiserver().signal(Signal::STOP)
    }

    /// The end of the outage.
    pub fn continue_api(&self) -> Result<()> {
        self.control.apiserver().signal(Signal::CONT)
    }

    /// `kill -9` of API server and etcd: what they had acknowledged is on their disk.
    pub fn kill_api(&mut self) -> Result<()> {
        self.control.kill()
    }

    /// Starts both again over their old data and waits until the API server is ready.
    pub fn start_api(&mut self) -> Result<()> {
        self.control.start_again(&self.found, &self.dir)
    }

    /// Everything is lost but the disks: daemons and operator die, etcd begins empty, and what a person applies and registers is
    /// applied and registered again. Waits until every node is ready.
    pub fn lose_etcd(&mut self) -> Result<()> {
        for guest in self.guests.iter().filter(|guest| guest.daemon().is_some()) {
            guest.kill_daemon()?;
        }
        self.kill_operator()?;
        self.kill_api()?;
        let data = self.dir.join("etcd");
        std::fs::remove_dir_all(&data).with_context(|| format!("empty {}", data.display()))?;
        self.start_api()?;
        self.workloads = apply_manifests(&self.found, &self.control)?;
        self.guests.iter().try_for_each(|guest| self.register_node(guest))?;
        self.start_operator()?;
        for node in self.nodes() {
            self.start_daemon(&node)?;
        }
        self.wait_for_nodes()
    }

    /// Waits until every node that is on is `Ready`, with its drives.
    pub fn wait_for_nodes(&mut self) -> Result<()> {
        for node in self.nodes() {
            wait_for(&format!("MeshNode {node} to be Ready with two drives"), secs(60), || {
                self.check_processes()?;
                let seen = self.control.api.get(&api::ours("meshnodes", &node))?;
                let drives = seen["status"]["drives"].as_array().map_or(0, Vec::len);
                Ok(if is_true(&seen, "Ready") && drives == 2 {
                    Look::Done(())
                } else {
                    Look::NotYet(seen["status"].to_string())
                })
            })?;
        }
        Ok(())
    }

    /// An error if something that should run does not.
    pub fn check_processes(&mut self) -> Result<()> {
        self.control.check()?;
        self.operator.iter_mut().chain(&mut self.second_operator).try_for_each(Process::check)
    }

    /// Runs the real kubectl as administrator and gives its output.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        run(kubectl(&self.found, &self.control.admin).args(args))
    }

    /// Starts the real kubectl beside what the caller does; what it prints goes to `log`.
    pub fn spawn_kubectl(&self, args: &[&str], log: &Path) -> Result<Child> {
        let out = std::fs::File::create(log)?;
        let mut command = kubectl(&self.found, &self.control.admin);
        command.args(args).stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        command.spawn().context("start kubectl")
    }

    /// Directory of the lab, for files of a test.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Applies YAML or JSON from a string.
    pub fn apply(&self, object: &Value) -> Result<()> {
        let file = self.dir.join("apply.json");
        std::fs::write(&file, serde_json::to_vec(object)?)?;
        self.kubectl(&["apply", "-f", &file.to_string_lossy()]).map(drop)
    }

    /// The repository, for its samples.
    pub fn repo(&self) -> &Path {
        &self.found.repo
    }

    /// Where the lab found what it runs on.
    pub fn prerequisites(&self) -> &Prerequisites {
        &self.found
    }

    /// Names of all nodes.
    pub fn nodes(&self) -> Vec<String> {
        self.guests.iter().map(|guest| guest.name().to_owned()).collect()
    }

    /// All guests.
    pub fn guests(&self) -> &[Guest] {
        &self.guests
    }

    /// A guest by its name.
    pub fn guest(&self, node: &str) -> Result<&Guest> {
        self.guests.iter().find(|guest| guest.name() == node).with_context(|| format!("there is no node {node}"))
    }

    /// A guest by its name, to change it.
    pub fn guest_mut(&mut self, node: &str) -> Result<&mut Guest> {
        self.guests.iter_mut().find(|guest| guest.name() == node).with_context(|| format!("there is no node {node}"))
    }

    /// Footprints of all nodes.
    pub fn footprints(&self) -> Result<Vec<(String, Footprint)>> {
        self.guests.iter().map(|guest| Ok((guest.name().to_owned(), Footprint::of(guest)?))).collect()
    }

    /// Waits until every node's footprint is what it was.
    pub fn wait_for_footprints(&self, before: &[(String, Footprint)]) -> Result<()> {
        for (node, before) in before {
            wait_for(&format!("nothing to be left on {node}"), secs(30), || {
                let differences = Footprint::of(self.guest(node)?)?.since(before);
                Ok(if differences.is_empty() { Look::Done(()) } else { Look::NotYet(differences.join("; ")) })
            })?;
        }
        Ok(())
    }
}

fn lock(path: &Path) -> Result<File> {
    std::fs::create_dir_all(path.parent().context("a lab has a parent directory")?)?;
    let file = File::create(path).with_context(|| format!("open {}", path.display()))?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)
        .with_context(|| format!("another lab runs here: {} is locked; end that one first", path.display()))?;
    Ok(file)
}

/// Free space in bytes without which no lab begins: what the drives of three nodes hold in the largest tests, with some to spare. A full
/// disk looks like a broken drive, or like an etcd that does not start.
const ROOM: u64 = 4 << 30;

fn must_have_room(dir: &Path) -> Result<()> {
    let fs = rustix::fs::statvfs(dir).with_context(|| format!("free space of {}", dir.display()))?;
    let free = fs.f_bavail.saturating_mul(fs.f_frsize);
    if free < ROOM {
        bail!(
            "{} has {:.1} GiB free, and the drives of a lab need {} GiB: make room, or let CARGO_TARGET_DIR name another file system",
            dir.display(),
            free as f64 / f64::from(1 << 30),
            ROOM >> 30
        );
    }
    Ok(())
}

fn kubectl(found: &Prerequisites, kubeconfig: &Path) -> Command {
    let mut command = Command::new(found.kube.join("kubectl"));
    command.arg("--kubeconfig").arg(kubeconfig).arg("--cache-dir=/dev/shm/kubectl").current_dir(&found.repo);
    command
}

/// Applies CRDs, RBAC, admission and workloads as a user does, and reads back what the workloads say.
fn apply_manifests(found: &Prerequisites, control: &ControlPlane) -> Result<Workloads> {
    let kubectl = |args: &[&str]| run(kubectl(found, &control.admin).args(args));
    kubectl(&["apply", "-f", "crds/"])?;
    // kubectl ends with an error on a CRD that has no conditions yet.
    wait_for("the CRDs to be established", secs(60), || {
        kubectl(&["wait", "--for=condition=Established", "--timeout=20s", "crd", "--all"]).map(|_| Look::Done(()))
    })?;
    kubectl(&["apply", "-k", "config/default"])?;
    say!("CRDs, RBAC, admission policies and workloads are applied");
    let read = |kind: &str| -> Result<Workload> {
        let list: Value = serde_json::from_str(&kubectl(&["get", kind, "-n", "meshstor-system", "-o", "json"])?)?;
        Workload::from_object(list["items"].get(0).with_context(|| format!("config/default has a {kind}"))?)
    };
    Ok(Workloads { operator: read("deployments")?, daemon: read("daemonsets")? })
}
