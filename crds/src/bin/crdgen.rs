//! Writes `crds/*.yaml` from the Rust types. `crdgen DIR` writes; `crdgen --check DIR` fails when a file differs.

use std::path::PathBuf;
use std::process::ExitCode;

const HEADER: &str = "# Generated from crds/src by `make crds`. Do not edit.\n";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("crdgen: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let mut args = std::env::args().skip(1).peekable();
    let check = args.next_if(|a| a == "--check").is_some();
    let dir = PathBuf::from(args.next().ok_or("usage: crdgen [--check] DIR")?);
    for crd in meshstor_crds::all() {
        let name = crd.metadata.name.clone().ok_or("a definition without a name")?;
        let yaml = serde_norway::to_string(&crd).map_err(|e| format!("render {name}: {e}"))?;
        let (path, text) = (dir.join(format!("{name}.yaml")), format!("{HEADER}{yaml}"));
        if !check {
            std::fs::write(&path, text).map_err(|e| format!("write {}: {e}", path.display()))?;
        } else if std::fs::read_to_string(&path).ok().as_deref() != Some(&text) {
            return Err(format!("{} is not what the types say; run `make crds` and commit it", path.display()));
        }
    }
    Ok(())
}
