//! The kernel's messages about devices (`NETLINK_KOBJECT_UEVENT`): the socket, and a pure reader.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::netlink::{KOBJECT_UEVENT, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with, sockopt};

use super::News;

/// The kernel's own messages; what udev sends out again has another group.
const GROUP: u32 = 1;
/// Bytes that wait to be read; a node that finds hundreds of devices at once sends some 300 bytes for each.
const BUFFER: usize = 1 << 20;
/// The kernel's own limit of a message is 2 KiB and the path of the device.
const MESSAGE: usize = 16 << 10;

/// One message. What happened is not kept: it is looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Uevent {
    subsystem: String,
    /// Kernel name.
    name: String,
    /// Name of the drive of a partition.
    drive: Option<String>,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Something of a device.
    Event(Uevent),
    /// The kernel's, and not understood: who it is about nobody can tell.
    Garbled,
    /// Not the kernel's.
    Foreign,
}

/// Reads a message.
pub(super) fn parse(message: &[u8]) -> Heard {
    let mut fields = message.split(|b| *b == 0).map(std::str::from_utf8);
    match fields.next() {
        Some(Ok(head)) if head.contains("@/") => event(fields).map_or(Heard::Garbled, Heard::Event),
        _ => Heard::Foreign,
    }
}

fn event<'a>(fields: impl Iterator<Item = Result<&'a str, std::str::Utf8Error>>) -> Option<Uevent> {
    let (mut path, mut subsystem, mut partition) = (None, None, false);
    for field in fields {
        // What else is said may be no text: a label, or a serial number.
        match field.ok().and_then(|f| f.split_once('=')) {
            Some(("DEVPATH", value)) => path = Some(value),
            Some(("SUBSYSTEM", value)) => subsystem = Some(value),
            Some(("DEVTYPE", value)) => partition = value == "partition",
            _ => {}
        }
    }
    let mut parts = path?.rsplit('/');
    let name = parts.next().filter(|n| !n.is_empty())?.to_owned();
    let drive = parts.next().filter(|_| partition).map(str::to_owned);
    Some(Uevent { subsystem: subsystem?.to_owned(), name, drive })
}

impl Heard {
    /// What it tells; `is_drive` knows which whole drives the daemon may use. Empty for devices that are none of ours.
    pub(super) fn news(self, is_drive: &dyn Fn(&str) -> bool) -> News {
        match self {
            Self::Event(event) => event.news(is_drive),
            Self::Garbled => News::missed(),
            Self::Foreign => News::default(),
        }
    }
}

impl Uevent {
    fn news(self, is_drive: &dyn Fn(&str) -> bool) -> News {
        match self.subsystem.as_str() {
            "block" => {
                let drives = is_drive(self.drive.as_deref().unwrap_or(&self.name));
                News { drives, ..News::of([self.name]) }
            }
            "nvme" => News::of([self.name]),
            _ => News::default(),
        }
    }
}

/// The socket on which the messages come.
#[derive(Debug)]
pub(super) struct Uevents(OwnedFd);

impl Uevents {
    /// Messages are kept from now on.
    ///
    /// The kernel tells of devices in every network namespace that belongs to the initial user namespace.
    pub(super) fn open() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(KOBJECT_UEVENT))?;
        // Without the privilege the usual buffer must do: what does not fit is noticed.
        let _ = sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER);
        bind(&socket, &SocketAddrNetlink::new(0, GROUP))?;
        Ok(Self(socket))
    }

    /// All that has come.
    pub(super) fn drain(&self, is_drive: &dyn Fn(&str) -> bool) -> News {
        let mut news = News::default();
        let mut message = [0; MESSAGE];
        loop {
            match recv(&self.0, message.as_mut_slice(), RecvFlags::empty()) {
                Ok((length, _)) => {
                    news = news.and(parse(message.get(..length).unwrap_or_default()).news(is_drive));
                }
                // The buffer was full: the kernel says so once, then the rest comes.
                Err(Errno::NOBUFS) => news.missed = true,
                Err(Errno::INTR) => {}
                Err(_) => return news,
            }
        }
    }
}

impl AsFd for Uevents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn news(text: &str) -> News {
        let ours = |name: &str| name.starts_with("ubd");
        parse(text.replace(' ', "\0").as_bytes()).news(&ours)
    }

    /// As a 7.3 kernel sent them.
    #[test]
    fn messages_name_what_changed() {
        let disk = news(
            "add@/devices/platform/uml-blkdev.2/block/ubdc ACTION=add DEVPATH=/devices/platform/uml-blkdev.2/block/ubdc \
             SUBSYSTEM=block MAJOR=98 MINOR=32 DEVNAME=ubdc DEVTYPE=disk DISKSEQ=14 SEQNUM=431",
        );
        assert_eq!(disk, News { drives: true, ..News::of(["ubdc"]) });
        let partition = news(
            "add@/devices/platform/uml-blkdev.0/block/ubda/ubda1 ACTION=add \
             DEVPATH=/devices/platform/uml-blkdev.0/block/ubda/ubda1 SUBSYSTEM=block DEVNAME=ubda1 DEVTYPE=partition PARTN=1",
        );
        assert_eq!(partition, News { drives: true, ..News::of(["ubda1"]) });
        let controller = news(
            "remove@/devices/virtual/nvme-fabrics/ctl/nvme0 ACTION=remove DEVPATH=/devices/virtual/nvme-fabrics/ctl/nvme0 \
             SUBSYSTEM=nvme DEVNAME=nvme0 NVME_TRTYPE=tcp",
        );
        assert_eq!(controller, News::of(["nvme0"]));
        let array =
            news("change@/devices/virtual/block/md77 DEVPATH=/devices/virtual/block/md77 SUBSYSTEM=block DEVTYPE=disk");
        assert_eq!(array, News::of(["md77"]), "an array is no drive");
    }

    #[test]
    fn other_devices_are_no_news() {
        assert!(news("add@/devices/virtual/bdi/9:77 DEVPATH=/devices/virtual/bdi/9:77 SUBSYSTEM=bdi").is_empty());
        assert!(news("libudev DEVPATH=/devices/virtual/block/md77 SUBSYSTEM=block").is_empty(), "not the kernel's");
    }

    #[test]
    fn what_is_not_understood_of_the_kernel_makes_everybody_look() {
        for text in [
            "add@/devices/x SUBSYSTEM=block",
            "add@/devices/x DEVPATH=/devices/x",
            "add@/devices/x DEVPATH=/x/ SUBSYSTEM=block",
        ] {
            assert_eq!(news(text), News::missed(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_message_is_read(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn a_name_survives_whatever_else_is_said(name in "[a-z]{1,5}[0-9]{0,3}", more in "[A-Z]{1,6}=[ -~]{0,12}") {
            prop_assume!(!["DEVPATH=", "SUBSYSTEM=", "DEVTYPE="].iter().any(|key| more.starts_with(key)));
            let text = format!("add@/devices/{name}\0{more}\0SUBSYSTEM=block\0DEVPATH=/devices/{name}\0{more}\0");
            let event = Uevent { subsystem: "block".to_owned(), name, drive: None };
            let read = parse(text.as_bytes());
            prop_assert_eq!(read, Heard::Event(event));
        }
    }
}
