//! The lab: a real control plane (etcd, kube-apiserver, controller-manager, scheduler), the operator, and guests with real
//! kernels that run the node daemon, all in one network and process namespace that goes away with the process.
//!
//! The binary `meshstor-lab` shows the demo; `tests/e2e` holds the end-to-end tests. Everything is synchronous: a harness
//! that waits by polling reads best from top to bottom. As in a `main`, errors are `anyhow`: nobody here handles one, a person
//! reads it.

pub mod agent;
pub mod api;
pub mod artifacts;
pub mod bed;
pub mod bench;
pub mod captured;
pub mod certs;
pub mod chaos;
pub mod control_plane;
pub mod demo;
pub mod doomed;
pub mod drive;
pub mod fleet;
pub mod footprint;
pub mod guest;
pub mod kubeconfig;
pub mod kubelet;
pub mod lab;
pub mod load;
pub mod manifests;
pub mod mconsole;
pub mod netns;
pub mod page;
pub mod partition;
pub mod prerequisites;
pub mod process;
pub mod remote;
pub mod samples;
pub mod steps;
pub mod timeline;
pub mod uml;
pub mod volume;
pub mod wait;
pub mod writer;

/// Prints one line of progress with the seconds since the process began.
#[macro_export]
macro_rules! say {
    ($($arg:tt)*) => {
        println!("[{:6.1}s] {}", $crate::wait::since_start().as_secs_f64(), format_args!($($arg)*))
    };
}
