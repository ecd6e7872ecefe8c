//! The lab's own drives on real kernels: what a power cut takes, what a drive that holds a request stops, and what an old write does.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use meshstor_e2e::drive::{DriveKind, Fault, Kinds, Which};
use meshstor_e2e::guest::Guest;
use meshstor_e2e::lab::Lab;
use meshstor_e2e::say;
use meshstor_e2e::uml::Uml;
use meshstor_e2e::wait::{secs, wait_for, when};

use crate::Test;

pub(crate) const TESTS: &[Test] = &[
    ("drives_lose_what_was_not_flushed", power_cut),
    ("drives_fail_and_hold", faults),
    ("drives_old_write_lands_over_a_newer_one_between_two_connections", two_connections),
];

/// Number of the first guest: beside those of the lab, which goes on meanwhile.
const FIRST: u8 = 31;

/// So many guests with volatile drives and nothing else.
fn guests(lab: &Lab, name: &str, count: usize) -> Result<Vec<Guest>> {
    let found = lab.prerequisites();
    let dir = lab.dir.join(name);
    std::fs::remove_dir_all(&dir).ok();
    let runner = Arc::new(Uml { kernel: found.kernel.clone(), root: found.root.clone() });
    let made = (FIRST..).take(count).map(|number| {
        let mut guest = Guest::new(found, &dir, number, 256 << 20, runner.clone())?;
        guest.set_drives(DriveKind::Volatile)?;
        guest.power_on()?;
        Ok(guest)
    });
    let mut guests = made.collect::<Result<Vec<_>>>()?;
    guests.iter_mut().try_for_each(Guest::wait_until_up)?;
    Ok(guests)
}

/// Writes a page full of a word to a device, around the page cache of the guest.
pub(crate) fn write(guest: &Guest, device: &str, page: u64, word: &str, more: &str) -> Result<()> {
    guest.shell(&write_command(device, page, word, more)).map(drop)
}

pub(crate) fn write_command(device: &str, page: u64, word: &str, more: &str) -> String {
    format!(
        "yes {word} | dd of=/dev/{device} bs=4096 count=1 seek={page} iflag=fullblock oflag=direct conv=notrunc{more} status=none"
    )
}

/// The first word of a page.
pub(crate) fn read(guest: &Guest, device: &str, page: u64) -> Result<String> {
    let script =
        format!("dd if=/dev/{device} bs=4096 count=1 skip={page} iflag=direct status=none | tr -d '\\0' | head -n 1");
    Ok(guest.shell(&script)?.trim().to_owned())
}

/// I1 needs drives that lose: a page that the guest flushed outlives a power cut, one that it did not flush is gone, and a plain
/// drive keeps both.
fn power_cut(lab: &mut Lab) -> Result<()> {
    let mut guests = guests(lab, "drives-cut", 1)?;
    let guest = &mut guests[0];
    write(guest, "ubda", 10, "unflushed-at-first", "")?;
    let before = guest.drive(0)?.counts();
    ensure!(before.writes > 0 && guest.drive(0)?.unflushed() > 0, "nothing came to the drive: {before:?}");
    write(guest, "ubda", 11, "flushed", ",fsync")?;
    let after = guest.drive(0)?.counts();
    ensure!(after.flushes > before.flushes, "the guest's flush did not come to the drive: {after:?}");
    write(guest, "ubda", 10, "unflushed", "")?;
    ensure!(read(guest, "ubda", 10)? == "unflushed", "the guest does not see its own write");
    guest.cut_power()?;
    ensure!(guest.losses()[0].lost == 1, "the fault did not fire: {:?}", guest.losses());
    guest.power_on()?;
    guest.wait_until_up()?;
    let (ten, eleven) = (read(guest, "ubda", 10)?, read(guest, "ubda", 11)?);
    ensure!(ten == "unflushed-at-first" && eleven == "flushed", "after the power cut: {ten}, {eleven}");

    guest.cut_power()?;
    guest.set_drives(DriveKind::Plain)?;
    guest.power_on()?;
    guest.wait_until_up()?;
    write(guest, "ubda", 10, "kept", "")?;
    guest.cut_power()?;
    guest.power_on()?;
    guest.wait_until_up()?;
    ensure!(read(guest, "ubda", 10)? == "kept", "a plain drive lost a write");
    crate::check_kernel(guest, "")
}

/// Errors of a drive are errors in the guest (of reads, writes, flushes, and behind the end of the image), and a drive that holds all
/// requests stops neither the other one nor what comes later.
fn faults(lab: &mut Lab) -> Result<()> {
    let mut guests = guests(lab, "drives-fail", 1)?;
    let guest = &mut guests[0];
    for (kinds, script) in [
        (Kinds::Reads, "dd if=/dev/ubda bs=4096 count=1 skip=20 iflag=direct status=none of=/dev/null".to_owned()),
        (Kinds::Writes, write_command("ubda", 20, "refused", "")),
        (Kinds::Flushes, write_command("ubda", 20, "unflushed", ",fsync")),
    ] {
        guest.drive(0)?.set(vec![Fault::Fail(Which::any(kinds))]);
        let answer = guest.try_shell(&script)?;
        let failed = answer.code != 0 && answer.stderr.contains("Input/output error");
        ensure!(failed, "{kinds:?} that fail are no errors in the guest: {answer:?}");
        guest.drive(0)?.set(Vec::new());
    }
    ensure!(guest.drive(0)?.counts().errors >= 3, "the drive refused nothing");

    guest.drive(0)?.set(vec![Fault::Hold(Which::any(Kinds::Writes), 1)]);
    let held = guest.spawn(
        &["sh", "-c", &write_command("ubda", 30, "old", "")],
        std::collections::BTreeMap::new(),
        "held.log",
    )?;
    wait_for("the drive to hold a write", secs(20), || Ok(when(guest.drive(0)?.inside() == 1, "it holds none")))?;
    write(guest, "ubdb", 30, "other", ",fsync")?;
    write(guest, "ubda", 31, "later", ",fsync")?;
    ensure!(guest.is_alive(held)? && read(guest, "ubda", 31)? == "later", "the held write ended");
    ensure!(guest.drive(0)?.release() == 1, "there was nothing to release");
    wait_for("the held write to end", secs(20), || Ok(when(!guest.is_alive(held)?, "it waits")))?;
    ensure!(read(guest, "ubda", 30)? == "old", "what was held was not carried out");

    guest.drive(0)?.set(vec![Fault::Hold(Which::any(Kinds::Writes), 1)]);
    guest.spawn(
        &["sh", "-c", &write_command("ubda", 32, "never", "")],
        std::collections::BTreeMap::new(),
        "held.log",
    )?;
    wait_for("the drive to hold a write", secs(20), || Ok(when(guest.drive(0)?.inside() == 1, "it holds none")))?;
    crate::check_kernel(guest, "")?;
    guest.cut_power()?;
    guest.set_drives(DriveKind::Plain)?;
    guest.power_on()?;
    guest.wait_until_up()?;
    ensure!(read(guest, "ubda", 32)?.is_empty(), "a write that was inside at a power cut was carried out");
    std::fs::File::options().write(true).open(&guest.machine.disks[0])?.set_len(128 << 20)?;
    let behind = guest.try_shell("dd if=/dev/ubda bs=4096 count=1 skip=40000 iflag=direct status=none of=/dev/null")?;
    ensure!(behind.code != 0, "what lies behind the end of the image reads as something");
    crate::check_kernel(guest, "")
}

const NQN: &str = "nqn.2026-11.io.meshstor.lab:two-connections";

/// The kernel's fact behind rule 9, by hand: a write that was inside the target's drive when the connection broke lands after the
/// consumer's kernel has connected again, over a newer write that was acknowledged and flushed.
fn two_connections(lab: &mut Lab) -> Result<()> {
    let guests = guests(lab, "drives-door", 2)?;
    let (target, consumer) = (&guests[0], &guests[1]);
    let ip = target.machine.ip;
    target.shell(&format!(
        "cd /sys/kernel/config/nvmet && mkdir subsystems/{NQN} && cd subsystems/{NQN} && echo 1 > attr_allow_any_host && \
         mkdir namespaces/1 && echo /dev/ubda > namespaces/1/device_path && echo 1 > namespaces/1/enable && \
         mkdir ../../ports/1 && cd ../../ports/1 && echo tcp > addr_trtype && echo ipv4 > addr_adrfam && echo {ip} > addr_traddr && \
         echo 4420 > addr_trsvcid && ln -s /sys/kernel/config/nvmet/subsystems/{NQN} subsystems/"
    ))?;
    consumer.shell(&format!(
        "echo nqn={NQN},transport=tcp,traddr={ip},trsvcid=4420,hostnqn=$(cat /etc/nvme/hostnqn),hostid=$(cat /etc/nvme/hostid),\
         nr_io_queues=1,keep_alive_tmo=2,ctrl_loss_tmo=-1,reconnect_delay=1 > /dev/nvme-fabrics"
    ))?;
    wait_for("the consumer's device", secs(20), || {
        Ok(when(consumer.try_shell("test -b /dev/nvme0n1")?.code == 0, "none"))
    })?;
    write(consumer, "nvme0n1", 100, "first", ",fsync")?;

    let here = Which { kinds: Kinds::Writes, range: 100 * 4096..101 * 4096 };
    target.drive(0)?.set(vec![Fault::Hold(here, 1)]);
    let old = consumer.spawn(
        &["sh", "-c", &write_command("nvme0n1", 100, "old", "")],
        std::collections::BTreeMap::new(),
        "old.log",
    )?;
    wait_for("the drive to hold the old write", secs(20), || {
        Ok(when(target.drive(0)?.inside() == 1, "it holds none"))
    })?;
    let state = || Ok::<_, anyhow::Error>(consumer.shell("cat /sys/class/nvme/nvme0/state")?.trim().to_owned());
    target.shell(
        "nft 'table inet blip { chain in { type filter hook input priority 0; tcp dport 4420 drop; }; \
         chain out { type filter hook output priority 0; tcp sport 4420 drop; }; }'",
    )?;
    wait_for("the consumer to lose its connection", secs(30), || state().map(|s| when(s == "connecting", s)))?;
    target.shell("nft delete table inet blip")?;
    wait_for("the consumer to connect again", secs(60), || state().map(|s| when(s == "live", s)))?;
    // The consumer's kernel sends the old write once more, and that one is carried out at once.
    wait_for("the old write to be acknowledged", secs(60), || Ok(when(!consumer.is_alive(old)?, "it waits")))?;
    write(consumer, "nvme0n1", 100, "new", ",fsync")?;
    ensure!(read(consumer, "nvme0n1", 100)? == "new", "the new write is not read");
    ensure!(target.drive(0)?.inside() == 1, "the drive holds the old write no more: the fault did not fire");

    ensure!(target.drive(0)?.release() == 1, "there was nothing to release");
    let found = read(consumer, "nvme0n1", 100)?;
    say!("a page whose write of `new` was flushed holds `{found}`");
    ensure!(found == "old", "this kernel keeps an old write out, or the test is wrong: {found}");
    consumer.shell("echo 1 > /sys/class/nvme/nvme0/delete_controller").context("disconnect")?;
    guests.iter().try_for_each(|guest| crate::check_kernel(guest, ""))
}
