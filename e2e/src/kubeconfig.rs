//! Kubeconfig files: who speaks to the API server, and with what proof.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::{Value, json};

use crate::netns::BRIDGE_IP;

/// URL of the lab's API server.
pub fn server() -> String {
    format!("https://{BRIDGE_IP}:6443")
}

/// How a client proves who it is.
pub enum Proof<'a> {
    /// Client certificate and key, as files.
    Certificate(PathBuf, PathBuf),
    /// A service account's token.
    Token(&'a str),
}

/// Writes a kubeconfig to `path`; everything but a client certificate is held in the file itself, so that a guest can read it.
pub fn write(path: &Path, ca: &Path, proof: Proof<'_>) -> Result<()> {
    let user = match proof {
        Proof::Certificate(certificate, key) => json!({
            "client-certificate": certificate,
            "client-key": key,
        }),
        Proof::Token(token) => json!({ "token": token }),
    };
    let config = document(&base64(&std::fs::read(ca)?), &user);
    std::fs::write(path, serde_json::to_vec_pretty(&config)?)?;
    Ok(())
}

fn document(ca_data: &str, user: &Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "lab", "cluster": { "server": server(), "certificate-authority-data": ca_data } }],
        "users": [{ "name": "user", "user": user }],
        "contexts": [{ "name": "lab", "context": { "cluster": "lab", "user": "user" } }],
        "current-context": "lab",
    })
}

/// Standard base64 with padding (RFC 4648).
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().chain([0, 0].iter()).take(3).fold(0_usize, |word, byte| word << 8 | usize::from(*byte));
        for digit in 0..4 {
            let known = digit <= chunk.len();
            out.push(if known { char::from(ALPHABET[word >> (18 - 6 * digit) & 63]) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn base64_pads_as_rfc_4648_says() {
        for (plain, coded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(super::base64(plain.as_bytes()), coded);
        }
    }
}
