//! The management console of User-Mode Linux: hardware that comes and goes while a guest runs. The protocol is that of
//! `arch/um/drivers/mconsole.h`: datagrams of numbers in the machine's own order, and text.

use std::os::unix::net::UnixDatagram;

use anyhow::{Context as _, Result, ensure};

use crate::guest::Machine;
use crate::wait::secs;

const MAGIC: u32 = 0xcafe_babe;
const VERSION: u32 = 2;
/// Bytes of text in a request.
const TEXT: usize = 512;

/// Has the guest's kernel carry out a command; its refusal is an error.
pub fn tell(machine: &Machine, command: &str) -> Result<()> {
    let here = machine.dir.join("mconsole.client");
    let _ = std::fs::remove_file(&here);
    let socket = UnixDatagram::bind(&here).with_context(|| format!("bind {}", here.display()))?;
    socket.set_read_timeout(Some(secs(20)))?;
    let console = machine.dir.join("uml").join(&machine.name).join("mconsole");
    socket.send_to(&request(command)?, &console).with_context(|| format!("send to {}", console.display()))?;
    let mut answer = [0; 16 << 10];
    let length = socket.recv(&mut answer).with_context(|| format!("{}: no answer to {command:?}", machine.name))?;
    let (failed, said) = reply(&answer[..length]).context("a reply has a head")?;
    ensure!(!failed, "{}: {command:?} was refused: {said}", machine.name);
    Ok(())
}

fn request(command: &str) -> Result<Vec<u8>> {
    ensure!(command.len() < TEXT, "{command:?} is too long");
    let mut bytes: Vec<u8> =
        [MAGIC, VERSION, u32::try_from(command.len())?].iter().flat_map(|n| n.to_ne_bytes()).collect();
    bytes.extend(command.bytes());
    bytes.resize(12 + TEXT, 0);
    Ok(bytes)
}

/// Whether it failed, and what was said.
fn reply(bytes: &[u8]) -> Option<(bool, String)> {
    let (failed, rest) = bytes.split_first_chunk::<4>()?;
    let text = rest.get(8..)?;
    Some((u32::from_ne_bytes(*failed) != 0, String::from_utf8_lossy(text).trim_end_matches('\0').trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_replies_have_the_kernels_layout() {
        let bytes = request("remove ubd2").unwrap();
        assert_eq!((bytes.len(), &bytes[8..12], &bytes[12..23]), (524, &11_u32.to_ne_bytes()[..], &b"remove ubd2"[..]));
        assert!(request(&"x".repeat(600)).is_err());
        assert_eq!(reply(&[1, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, b'n', b'o', 0]), Some((true, "no".to_owned())));
        assert_eq!(reply(&[0; 3]), None);
    }
}
