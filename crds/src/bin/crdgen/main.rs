//! Writes from the Rust types what is generated from them: `crdgen DIR` the definitions, `crdgen --reference FILE` the
//! reference for people. With `--check` before it, either fails when a file differs.

mod reference;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

const HEADER: &str = "# Generated from crds/src by `make crds`. Do not edit.\n";
const USAGE: &str = "usage: crdgen [--check] DIR, or crdgen [--check] --reference FILE";

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
    let for_people = args.next_if(|a| a == "--reference").is_some();
    let path = PathBuf::from(args.next().ok_or(USAGE)?);
    if args.next().is_some() {
        return Err(USAGE.to_owned());
    }
    let files = if for_people { vec![(path, reference::page(&meshstor_crds::all())?)] } else { definitions(&path)? };
    files.iter().try_for_each(|(path, text)| put(path, text, check))
}

/// Path and text of each definition.
fn definitions(dir: &Path) -> Result<Vec<(PathBuf, String)>, String> {
    let definition =
        |crd: k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition| {
            let name = crd.metadata.name.clone().ok_or("a definition without a name")?;
            let yaml = serde_norway::to_string(&crd).map_err(|e| format!("render {name}: {e}"))?;
            Ok((dir.join(format!("{name}.yaml")), format!("{HEADER}{yaml}")))
        };
    meshstor_crds::all().into_iter().map(definition).collect()
}

/// Writes the file or, to check, compares it.
fn put(path: &Path, text: &str, check: bool) -> Result<(), String> {
    if !check {
        std::fs::write(path, text).map_err(|e| format!("write {}: {e}", path.display()))
    } else if std::fs::read_to_string(path).ok().as_deref() == Some(text) {
        Ok(())
    } else {
        Err(format!("{} is not what the types say; run `make crds` and commit it", path.display()))
    }
}
