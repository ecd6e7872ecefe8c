//! A lab's power switches, for those who are not its process: a person at a lab that is kept, and the tutorial's commands.
//! One JSON object a line over TCP, on the lab's own network.

use std::io::{BufRead as _, BufReader, ErrorKind, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use crate::lab::Lab;
use crate::netns::BRIDGE_IP;
use crate::wait::{pause, secs};

/// Port on the bridge's address.
const PORT: u16 = 9001;
/// Time between two looks for somebody who asks.
const INTERVAL: Duration = Duration::from_millis(100);

/// What is asked: a node's power.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct Switch {
    /// Name of the node.
    pub node: String,
    /// On, with its old drives and its daemon; or off, as a power cut.
    pub on: bool,
}

/// What is answered.
#[derive(Serialize, Deserialize)]
struct Answer {
    /// Why it could not be done; empty if it was.
    error: String,
}

fn address() -> Result<SocketAddr> {
    Ok(SocketAddr::new(BRIDGE_IP.parse()?, PORT))
}

/// Does what is asked until `done` says so.
pub fn serve(lab: &mut Lab, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let listener = TcpListener::bind(address()?).context("listen for who switches nodes on and off")?;
    listener.set_nonblocking(true)?;
    while !done()? {
        match listener.accept() {
            // Whoever asks wrongly or goes away must not end the lab.
            Ok((stream, _)) => drop(answer(lab, stream)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => pause(INTERVAL),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn answer(lab: &mut Lab, mut stream: TcpStream) -> Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(secs(5)))?;
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line)?;
    let outcome = serde_json::from_str(&line).map_err(anyhow::Error::from).and_then(|switch| turn(lab, &switch));
    let error = outcome.err().map(|error| format!("{error:#}")).unwrap_or_default();
    writeln!(stream, "{}", serde_json::to_string(&Answer { error })?)?;
    Ok(())
}

fn turn(lab: &mut Lab, switch: &Switch) -> Result<()> {
    let guest = lab.guest_mut(&switch.node)?;
    match (guest.is_on(), switch.on) {
        (true, true) | (false, false) => bail!("{} is {} already", switch.node, if switch.on { "on" } else { "off" }),
        (true, false) => guest.cut_power(),
        (false, true) => lab.power_on(&switch.node),
    }
}

/// Asks the lab that runs on this machine, and waits until it is done.
pub fn ask(switch: &Switch) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&address()?, secs(2)).context("no lab is kept (make demo KEEP=1)")?;
    stream.set_read_timeout(Some(secs(120)))?;
    writeln!(stream, "{}", serde_json::to_string(switch)?)?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).context("the lab does not answer")?;
    let answer: Answer = serde_json::from_str(&line).with_context(|| format!("answer of the lab: {line:?}"))?;
    if answer.error.is_empty() { Ok(()) } else { bail!("{}", answer.error) }
}
