//! etcd, kube-apiserver, kube-controller-manager and kube-scheduler, started as a cluster starts them: RBAC, node
//! authorisation, admission, service account tokens, and an audit log of every change to our objects.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::api::Api;
use crate::kubeconfig::{self, Proof};
use crate::netns::BRIDGE_IP;
use crate::prerequisites::Prerequisites;
use crate::process::Process;
use crate::wait::{Look, secs, wait_for};
use crate::{certs, say};

/// Name of the file with the audit policy.
const POLICY: &str = "audit-policy.yaml";
/// What is written to the audit log: whole records of attachments, the fact of every other change to our objects. The time of
/// the stage `ResponseComplete` is the proof that a record was there before something else happened.
const AUDIT_POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: RequestResponse
  verbs: [update, patch]
  resources: [{group: meshstor.io, resources: [meshattachments/status]}]
- level: Metadata
  verbs: [create, update, patch, delete]
  resources: [{group: meshstor.io}]
"#;
/// Which other writes it has too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Audit {
    /// None.
    #[default]
    Ours,
    /// The fact of every write of anybody.
    Everything,
}

impl Audit {
    /// The policy's last rules.
    fn rules(self) -> &'static str {
        match self {
            Self::Ours => "- level: None\n",
            Self::Everything => {
                "- level: Metadata\n  verbs: [create, update, patch, delete, deletecollection]\n- level: None\n"
            }
        }
    }
}

/// The running control plane.
pub struct ControlPlane {
    /// Client of the administrator.
    pub api: Api,
    /// Kubeconfig of the administrator.
    pub admin: PathBuf,
    /// Certificate of the authority.
    pub ca: PathBuf,
    /// The API server's audit log.
    pub audit: PathBuf,
    etcd: Process,
    apiserver: Process,
    others: Vec<Process>,
}

/// Arguments `--key=value`.
fn flags(pairs: &[(&str, &str)]) -> Vec<OsString> {
    pairs.iter().map(|(key, value)| format!("--{key}={value}").into()).collect()
}

impl ControlPlane {
    /// Starts everything in `dir` and waits until the API server is ready.
    pub fn start(found: &Prerequisites, dir: &Path, audited: Audit) -> Result<Self> {
        let pki = dir.join("pki");
        certs::write(&pki)?;
        let admin = dir.join("admin.kubeconfig");
        let ca = pki.join("ca.crt");
        kubeconfig::write(&admin, &ca, Proof::Certificate(pki.join("admin.crt"), pki.join("admin.key")))?;
        let audit = dir.join("logs/audit.log");
        std::fs::write(dir.join(POLICY), [AUDIT_POLICY, audited.rules()].concat())?;
        let etcd = start_etcd(found, dir)?;
        let apiserver = start_apiserver(found, dir, &pki, &audit)?;
        let api = Api::new(&admin)?;
        let mut control = Self { api, admin, ca, audit, etcd, apiserver, others: Vec::new() };
        control.wait_until_ready()?;
        say!("etcd and kube-apiserver are ready at {}", kubeconfig::server());
        control.others.push(start_controllers(found, dir, &control.admin, &pki)?);
        control.others.push(start_scheduler(found, dir, &control.admin)?);
        Ok(control)
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        wait_for("the API server to be ready", secs(90), || {
            // Nobody starts them again: who has ended is not waited for.
            if let Err(ended) = self.etcd.check().and_then(|()| self.apiserver.check()) {
                return Ok(Look::Done(Err(ended)));
            }
            Ok(if self.api.text("/readyz")? == "ok" { Look::Done(Ok(())) } else { Look::NotYet("not ok".into()) })
        })?
    }

    /// `kill -9` of the API server and of etcd.
    pub fn kill(&mut self) -> Result<()> {
        self.apiserver.kill()?;
        self.etcd.kill().map(drop)
    }

    /// Starts both over the data in `dir` after [`ControlPlane::kill`], and waits until the API server is ready.
    pub fn start_again(&mut self, found: &Prerequisites, dir: &Path) -> Result<()> {
        self.etcd = start_etcd(found, dir)?;
        self.apiserver = start_apiserver(found, dir, &dir.join("pki"), &self.audit)?;
        self.wait_until_ready()
    }

    /// The API server's process, to stop and continue it (an outage).
    pub fn apiserver(&self) -> &Process {
        &self.apiserver
    }

    /// An error if one of the processes has ended.
    pub fn check(&mut self) -> Result<()> {
        self.etcd.check()?;
        self.apiserver.check()?;
        self.others.iter_mut().try_for_each(Process::check)
    }
}

fn start_etcd(found: &Prerequisites, dir: &Path) -> Result<Process> {
    let mut command = Command::new(found.kube.join("etcd"));
    let url = "http://127.0.0.1:2379";
    command.args(flags(&[
        ("data-dir", &dir.join("etcd").to_string_lossy()),
        ("listen-client-urls", url),
        ("advertise-client-urls", url),
        ("listen-peer-urls", "http://127.0.0.1:2380"),
        // The machine itself does not crash in a test, and a slow disk must not look like a slow control plane.
        ("unsafe-no-fsync", "true"),
        ("log-level", "warn"),
    ]));
    Process::start("etcd", &mut command, &dir.join("logs/etcd.log"))
}

fn start_apiserver(found: &Prerequisites, dir: &Path, pki: &Path, audit: &Path) -> Result<Process> {
    let file = |name: &str| pki.join(name).to_string_lossy().into_owned();
    let mut command = Command::new(found.kube.join("kube-apiserver"));
    command.args(flags(&[
        ("etcd-servers", "http://127.0.0.1:2379"),
        ("bind-address", BRIDGE_IP),
        ("advertise-address", BRIDGE_IP),
        ("secure-port", "6443"),
        ("cert-dir", &pki.to_string_lossy()),
        ("tls-cert-file", &file("apiserver.crt")),
        ("tls-private-key-file", &file("apiserver.key")),
        ("client-ca-file", &file("ca.crt")),
        ("authorization-mode", "Node,RBAC"),
        ("enable-admission-plugins", "NodeRestriction"),
        ("service-account-issuer", "https://kubernetes.default.svc"),
        ("service-account-signing-key-file", &file("sa.key")),
        ("service-account-key-file", &file("sa.pub")),
        // The node daemon is privileged.
        ("allow-privileged", "true"),
        ("service-cluster-ip-range", "10.96.0.0/16"),
        ("audit-policy-file", &dir.join(POLICY).to_string_lossy()),
        ("audit-log-path", &audit.to_string_lossy()),
        ("audit-log-mode", "blocking"),
        // The lab has no pods' network to look after.
        ("endpoint-reconciler-type", "none"),
    ]));
    Process::start("kube-apiserver", &mut command, &dir.join("logs/kube-apiserver.log"))
}

fn start_controllers(found: &Prerequisites, dir: &Path, admin: &Path, pki: &Path) -> Result<Process> {
    let mut command = Command::new(found.kube.join("kube-controller-manager"));
    command.args(flags(&[
        ("kubeconfig", &admin.to_string_lossy()),
        ("service-account-private-key-file", &pki.join("sa.key").to_string_lossy()),
        ("root-ca-file", &pki.join("ca.crt").to_string_lossy()),
        ("leader-elect", "false"),
        // There are no kubelets: nodes would be tainted as unreachable.
        ("controllers", "*,-node-lifecycle-controller"),
        ("bind-address", "127.0.0.1"),
        ("use-service-account-credentials", "true"),
    ]));
    Process::start("kube-controller-manager", &mut command, &dir.join("logs/kube-controller-manager.log"))
}

fn start_scheduler(found: &Prerequisites, dir: &Path, admin: &Path) -> Result<Process> {
    let mut command = Command::new(found.kube.join("kube-scheduler"));
    command.args(flags(&[
        ("kubeconfig", &admin.to_string_lossy()),
        ("leader-elect", "false"),
        ("bind-address", "127.0.0.1"),
    ]));
    Process::start("kube-scheduler", &mut command, &dir.join("logs/kube-scheduler.log"))
}
