//! What a tree of processes has used, read from /proc.
//!
//! The kernel adds a process' CPU time to its parent's "children" counters when the parent waits for it. So the sum of
//! own and children's time over a living tree counts every process that ever belonged to it once, the ended ones too,
//! as long as no parent dies before its children: none of those measured here does.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context as _, Result};

/// CPU seconds by what a process is.
pub(crate) type Cpu = BTreeMap<String, f64>;

/// One line of /proc/PID/stat, as far as it is needed.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    pid: u32,
    name: String,
    parent: u32,
    /// utime + stime + cutime + cstime.
    ticks: u64,
}

fn parse_stat(text: &str) -> Option<Stat> {
    // The name may hold spaces and parentheses itself.
    let (before, after) = text.rsplit_once(')')?;
    let (pid, name) = before.split_once(" (")?;
    let fields: Vec<&str> = after.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(Stat {
        pid: pid.parse().ok()?,
        name: name.to_owned(),
        parent: u32::try_from(number(1)?).ok()?,
        ticks: number(11)? + number(12)? + number(13)? + number(14)?,
    })
}

/// The living processes that descend from `root`, and itself.
fn tree(root: u32) -> Result<Vec<Stat>> {
    let mut all = Vec::new();
    for entry in fs::read_dir("/proc").context("reading /proc")?.flatten() {
        if entry.file_name().to_str().is_some_and(|name| name.bytes().all(|b| b.is_ascii_digit())) {
            // It may end meanwhile.
            all.extend(fs::read_to_string(entry.path().join("stat")).ok().as_deref().and_then(parse_stat));
        }
    }
    Ok(descendants(all, root))
}

fn descendants(mut all: Vec<Stat>, root: u32) -> Vec<Stat> {
    let mut found: Vec<Stat> = all.extract_if(.., |stat| stat.pid == root).collect();
    let mut next = 0;
    while let Some(parent) = found.get(next).map(|stat| stat.pid) {
        found.extend(all.extract_if(.., |stat| stat.parent == parent));
        next += 1;
    }
    found
}

/// What a process is called in the figures: a service of ours by its name, all else by its program.
fn role(stat: &Stat) -> String {
    if stat.name != "posthorn" {
        return stat.name.clone();
    }
    let arguments = fs::read_to_string(format!("/proc/{}/cmdline", stat.pid)).unwrap_or_default();
    arguments.split('\0').nth(1).filter(|name| !name.is_empty()).unwrap_or("posthorn").to_owned()
}

/// The CPU time that the tree has used since it began.
pub(crate) fn cpu(root: u32) -> Result<Cpu> {
    let hertz = rustix::param::clock_ticks_per_second() as f64;
    let mut cpu = Cpu::new();
    for stat in tree(root)? {
        *cpu.entry(role(&stat)).or_default() += stat.ticks as f64 / hertz;
    }
    Ok(cpu)
}

/// The CPU time of this process alone.
pub(crate) fn own_cpu() -> Result<f64> {
    let text = fs::read_to_string("/proc/self/stat").context("reading /proc/self/stat")?;
    let stat = parse_stat(&text).context("an unreadable /proc/self/stat")?;
    Ok(stat.ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// What was used between two readings. All together it is exact; a role's part is less than nothing when processes
/// ended that had used more before: what they used is their parent's from then on.
pub(crate) fn between(before: &Cpu, after: &Cpu) -> Cpu {
    let mut used = after.clone();
    for (role, seconds) in before {
        *used.entry(role.clone()).or_default() -= seconds;
    }
    used
}

/// Memory in bytes by what a process is.
pub(crate) type Memory = BTreeMap<String, u64>;

/// The memory that the tree has now: its proportional set sizes, in which a shared page counts once.
pub(crate) fn memory(root: u32) -> Result<Memory> {
    let mut memory = Memory::new();
    for stat in tree(root)? {
        *memory.entry(role(&stat)).or_default() += field(stat.pid, "smaps_rollup", "Pss:");
    }
    Ok(memory)
}

/// The most memory that each process of the tree ever had resident (VmHWM), by what it is.
pub(crate) fn peak(root: u32) -> Result<Memory> {
    let mut memory = Memory::new();
    for stat in tree(root)? {
        *memory.entry(role(&stat)).or_default() += field(stat.pid, "status", "VmHWM:");
    }
    Ok(memory)
}

/// A size in kB from a file of a process, in bytes; 0 when it has ended.
fn field(pid: u32, file: &str, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    parse_field(&text, name).unwrap_or_default()
}

fn parse_field(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(value.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_whatever_the_name() {
        let line = "42 (a (b) c) S 7 42 42 0 -1 4194560 1 2 3 4 100 20 3 4 20 0 1 0 999 1 2";
        let want = Stat { pid: 42, name: "a (b) c".into(), parent: 7, ticks: 127 };
        assert_eq!(parse_stat(line), Some(want));
        assert_eq!(parse_stat("42 (a) S 7"), None);
        assert_eq!(parse_stat(""), None);
    }

    #[test]
    fn a_tree_is_the_root_and_all_below_it() {
        let stat = |pid, parent| Stat { pid, name: String::new(), parent, ticks: 0 };
        let all = vec![stat(5, 3), stat(1, 0), stat(3, 2), stat(2, 1), stat(4, 1), stat(6, 9)];
        let mut pids: Vec<u32> = descendants(all, 2).into_iter().map(|stat| stat.pid).collect();
        pids.sort_unstable();
        assert_eq!(pids, [2, 3, 5]);
        assert!(descendants(Vec::new(), 2).is_empty());
    }

    #[test]
    fn use_is_the_difference_of_two_readings() {
        let before = Cpu::from([("queue".into(), 1.0), ("smtpd".into(), 2.0)]);
        // The smtpd has ended; its parent has its time.
        let after = Cpu::from([("queue".into(), 1.5), ("redis".into(), 0.25), ("master".into(), 2.5)]);
        let used = between(&before, &after);
        assert_eq!(used["queue"], 0.5);
        assert_eq!(used["redis"], 0.25);
        assert_eq!(used["smtpd"] + used["master"], 0.5);
    }

    #[test]
    fn a_size_is_read_in_bytes() {
        let text = "Rss:  900 kB\nPss:                 123 kB\nPss_Anon: 5 kB\n";
        assert_eq!(parse_field(text, "Pss:"), Some(123 * 1024));
        assert_eq!(parse_field(text, "Swap:"), None);
    }

    #[test]
    fn this_process_is_found_with_what_it_used() {
        let pid = std::process::id();
        assert_eq!(cpu(pid).unwrap().len(), 1);
        assert!(memory(pid).unwrap().values().sum::<u64>() > 100_000);
        assert!(peak(pid).unwrap().values().sum::<u64>() > 100_000);
    }
}
